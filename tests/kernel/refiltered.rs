//! Another packet filter while packets are traced: it decides from then on.

use collector_tests::{
    Result,
    collector::{Running, all_of_the_host, options},
    filters,
    lab::Wire,
    talk,
};
use collector_user::{
    daemon::Options,
    event::{Event, PacketEvent},
    kernel::settings::Settings,
};

use crate::{
    assert_balanced,
    redeclared::{EACH, Living},
};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn one_filter_takes_the_place_of_another_and_none_the_place_of_none() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let with = |filter| Options {
        traces: vec![all_of_the_host()],
        settings: Settings { filter, ..Settings::default() },
        ..options()
    };
    let [of_names, of_the_web] = [filters::of("udp port 53")?, filters::of("port 443")?].map(Some);
    let collector = Running::start_beside(&host.place, with(of_names.clone()), Some(&host.dev))?;
    let living = |port| {
        Living::new(peer, port, move |version| talk::listener(&host.place, host.at(version, 40_000 + port)))
    };
    let mut flows = [living(53)?, living(443)?];
    let mut go_on = || flows.iter_mut().try_for_each(|flow| flow.go_on("host"));
    go_on()?;
    collector.reload(with(of_the_web))?;
    go_on()?;
    go_on()?;
    let refused = collector.reload(with(None)).unwrap_err().to_string();
    assert!(refused.ends_with("one that wants every packet is `greater 0`"), "{refused}");
    go_on()?;
    collector.reload(with(of_names))?;
    go_on()?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let reported = |port| {
        let reports = finished.events.iter().filter(|event| match event {
            Event::Packet(report) if report.event != PacketEvent::Dropped => {
                report.source_port == port || report.destination_port == port
            }
            _ => false,
        });
        reports.count() as u64
    };
    // Questions and answers of both families, at two times and at three.
    assert_eq!([reported(53), reported(443)], [2 * 4 * EACH, 3 * 4 * EACH]);
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.traced - ledger.filtered, 5 * 4 * EACH);
    Ok(())
}
