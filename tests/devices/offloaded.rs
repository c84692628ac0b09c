//! A flow table (`nf_flow_table`) passes packets on past the routing, the firewall and conntrack's own counters.

use std::fs;

use anyhow::ensure;
use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, options},
    lab::silent_host,
    talk::{Talk, ask, asker},
    traffic::{ANSWERS, Host},
};
use collector_user::daemon::Options;

use crate::{assert_balanced, cable::Cable};

#[test]
#[ignore = "needs two network cards on each of two cables: cargo xtask vm"]
fn what_a_flow_table_passes_on_is_forwarded_in_and_out() -> Result<()> {
    const COUNT: u64 = 1000;
    let hosts = [silent_host()?, silent_host()?, silent_host()?];
    let (left, right) = (Cable::lay(&hosts[0], &hosts[1], 0)?, Cable::lay(&hosts[1], &hosts[2], 1)?);
    let (client, server) = (&left.a, &right.b);
    let router = hosts[1].place();
    router.sysctl(&[("ipv4/ip_forward", "1")])?;
    for end in [&left.a, &left.b, &right.a, &right.b] {
        end.has_its_addresses()?;
    }
    for (own, other) in [(&left.a, &left.b), (&left.b, &left.a), (&right.a, &right.b), (&right.b, &right.a)] {
        own.knows(other)?;
    }
    client.place.ip(&format!("route add default via {} dev {}", left.b.v4, client.dev))?;
    server.place.ip(&format!("route add default via {} dev {}", right.a.v4, server.dev))?;
    router.nft(&format!(
        "table ip passing {{ flowtable fast {{ hook ingress priority 0; devices = {{ {}, {} }}; }}; \
         chain forward {{ type filter hook forward priority 0; ip protocol udp flow add @fast; }}; }}",
        left.b.dev, right.a.dev
    ))?;
    let before = [left.b.counters()?, right.a.counters()?];
    let collector = Running::start(router, Options { forwarded: true, ..options() })?;
    let _answering = Host::new(server, &[])?;
    let socket = asker(&client.place, (client.v4, 40_000).into(), (server.v4, ANSWERS).into())?;
    let talk = ask(&socket, COUNT, 100)?;
    let table = router.within(|| Ok(fs::read_to_string("/proc/thread-self/net/nf_conntrack")?))?;
    ensure!(table.contains("[OFFLOAD]"), "the flow table has not taken it: {table}");
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    // In by one card and out by the other, in a flow of either.
    books.flow("forwarded", &Talk { begun: 2, ..talk.and(&talk) });
    books.counts("forwarded", talk.of_destination()).counts("forwarded", talk.of_source());
    books.assert_kept(&finished);
    let crossed = [left.b.counters()?.since(&before[0]), right.a.counters()?.since(&before[1])];
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &crossed);
    Ok(())
}
