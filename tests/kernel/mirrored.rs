//! A queue that is an interface of its own: what leaves is redirected to an ifb, which hands it back.

use std::net::SocketAddr;

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, options},
    events,
    lab::{Addressed, join, silent_host},
    talk::{answers, talk, transfer},
    traffic::Host,
};
use collector_user::{
    daemon::Options,
    kernel::attach::{Choice, Mechanism},
};

use crate::assert_balanced;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_an_ifb_hands_back_was_counted_before() -> Result<()> {
    for attach in [Choice::Auto, Choice::Only(Mechanism::Clsact)] {
        let hosts = [silent_host()?, silent_host()?];
        let (a, b) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
        for end in [&a, &b] {
            end.without_offloads()?;
        }
        a.place.ip("link add ifb0 type ifb")?;
        a.place.ip("link set ifb0 up")?;
        a.place.run(&format!("tc qdisc add dev {} clsact", a.dev))?;
        a.place.run(&format!(
            "tc filter add dev {} egress pref 10 protocol all u32 match u32 0 0 action mirred egress redirect dev \
             ifb0",
            a.dev
        ))?;
        let answering = [Host::new(&a, &[])?, Host::new(&b, &[])?];
        let options = Options { attach, ..options() };
        let collector = Running::start_beside(&a.place, options, Some(&a.dev))?;
        let mut books = Books::new();
        for version in [4, 6] {
            let from = SocketAddr::new(a.address(version), 40_000);
            let to = answers(&answering[1], version);
            for talk in [talk(&a.place, from, to)?, transfer(&a.place, from.ip(), to, &b.place, to)?.0] {
                books.asked("host", &talk);
            }
            let from = SocketAddr::new(b.address(version), 40_001);
            books.was_asked("host", &talk(&b.place, from, answers(&answering[0], version))?);
        }
        let finished = collector.stop()?;
        assert_balanced(&finished);
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
        // Buffers: several packets of TCP may be one of them.
        let sent: u64 = events::flows(&finished.events)
            .map(|flow| {
                let is_ours =
                    [a.address(4), a.address(6)].map(Some).contains(&events::ip_of(flow.source.as_ref()));
                if is_ours { flow.skbs } else { flow.reply_skbs }
            })
            .sum();
        assert!(sent > 4 * 100, "{sent}");
        // When it comes back, its queue only skips the redirection.
        assert_eq!(finished.status.ledger.second_pass, sent, "{attach:?}");
    }
    Ok(())
}
