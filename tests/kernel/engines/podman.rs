//! The same of Podman, on its default network, which CNI's plugins make.

use collector_tests::{
    Result,
    books::Books,
    engine::{Engine, unit},
    events,
    frames::{ICMPV6, UDP},
    lives::{life, steps, wait_for_step},
    talk::{self, Talk, talk},
    traffic::{ANSWERS, Host},
};
use collector_user::event::Event;

use super::{FEW, PUBLISHED, WHOLE, ask_and_end, ask_from, assert_uplinks, start, wire};
use crate::assert_balanced;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn podman_on_its_default_network() -> Result<()> {
    let wire = wire()?;
    let Some(podman) = Engine::podman(&wire.a.place)? else { return Ok(()) };
    let peer = Host::new(&wire.b, &[])?;
    let collector = start(&wire)?;
    let web = podman.serve(&["--publish", "8080:7/udp", "--network", "podman"])?;
    let inside = podman.enter(&web.id)?;
    let (id, own) = (web.unit(), inside.end.v4);
    wait_for_step(&collector, id, "start");
    let mut books = Books::new();
    let at_peer = talk::answers(&peer, 4);
    ask_from(&podman, &web.id, 40_002, at_peer)?;
    let out = Talk::answered((own, 40_002).into(), at_peer, 100, 100);
    books.flow(id, &out).asked("forwarded", &out.between((wire.a.v4, 40_002).into(), at_peer));
    let into = talk(&wire.b.place, (wire.b.v4, 40_001).into(), (wire.a.v4, PUBLISHED).into())?;
    books.flow(id, &into.between(into.source, (own, ANSWERS).into())).was_asked("forwarded", &into);
    drop(inside);
    podman.run(&["rm", "--force", "--time", "0", &web.id])?;
    wait_for_step(&collector, id, "delete");
    // And one that lives for a moment, and is removed by its monitor.
    let whole = ask_and_end(&podman, &["--rm"], at_peer)?;
    let short = unit(&whole);
    wait_for_step(&collector, short, "delete");
    let mut finished = collector.stop()?;
    assert_balanced(&finished);
    assert_uplinks(&finished, &[]);
    let of_short = events::flows(&finished.events)
        .filter(|record| &*record.context_id == short && record.l4_protocol == UDP);
    let askers: Vec<_> = of_short.filter_map(|record| events::ip_of(record.source.as_ref())).collect();
    let few = Talk::answered((askers[0], 40_000).into(), at_peer, FEW, 100);
    books.flow(short, &few).asked("forwarded", &few.between((wire.a.v4, 40_000).into(), at_peer));
    for (id, talked) in [(id, 4 * out.forth.packets), (short, 2 * few.forth.packets)] {
        assert_eq!(steps(&finished.events, id), WHOLE);
        assert_eq!(life(&finished.events, id)[0].tags.get("runtime"), Some("podman"));
        // What its IPv6 says of its own accord, and who asks for which address, are in its counters besides.
        let own_accord = events::total(&finished.events, |record| {
            &*record.context_id == id && record.l4_protocol == ICMPV6
        });
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] = events::unit(&finished.events, id);
        let frames = rx_packets + tx_packets - talked - own_accord.packets - own_accord.reply_packets;
        let octets = rx_bytes + tx_bytes - 142 * talked - own_accord.bytes - own_accord.reply_bytes;
        assert_eq!(octets, 42 * frames, "{frames} frames besides");
        books.counts(id, events::unit(&finished.events, id));
    }
    finished.events.retain(|event| !matches!(event, Event::Flow(record) if record.l4_protocol == ICMPV6));
    books.assert_kept(&finished);
    Ok(())
}
