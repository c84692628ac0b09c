//! Packets whose policy asks for encryption, as they are reported.

use std::{num::NonZeroU32, sync::Arc};

use collector_tests::{
    Result,
    collector::{Running, declared, options},
    frames::UDP,
    lab::Wire,
    policies::policy,
    traffic::{Datagrams, Host, pin, send_and_settle},
};
use collector_user::{
    daemon::Options,
    event::Event,
    policy::rule::{Action, Observe},
    pu::trace::{Directions, Whose, Wish},
};

/// The port that policies want encrypted.
const SECRET: u16 = 5004;
/// One that they let through as it is.
const PLAIN: u16 = 5005;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_report_says_whether_its_policy_asks_for_encryption() -> Result<()> {
    const COUNT: u64 = 20;
    let wire = Wire::new()?;
    pin(0)?;
    let web = declared("web", &[], &[format!("{}/32", wire.b.v4), format!("{}/128", wire.b.v6)])?;
    let accept = (true, Observe::None);
    let mut secret = policy("secret", "web", Directions::In, (UDP, SECRET..=SECRET), accept)?;
    Arc::make_mut(&mut secret.rule).action = Action::Accept { encrypt: true };
    let plain = policy("plain", "web", Directions::In, (UDP, 1..=u16::MAX), accept)?;
    let wish = Wish {
        whose: Whose::Unit("web".into()),
        directions: Directions::Both,
        duration: None,
        every: NonZeroU32::MIN,
    };
    let options =
        Options { units: vec![web], policies: vec![secret, plain], traces: vec![wish], ..options() };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let collector = Running::start(&wire.b.place, options.clone())?;
    let host = Host::new(&wire.b, &[SECRET, PLAIN])?;
    // Of flows that nobody knows yet, and of those that were drained, which a reload does.
    for _ in 0..2 {
        let all = [4, 6].into_iter().flat_map(|version| [(version, SECRET), (version, PLAIN)]);
        let all: Vec<_> = all
            .map(|(version, port)| Datagrams { to: host.address(version, port), count: COUNT, size: 30 })
            .collect();
        send_and_settle(&wire.a, 40_000, &host, &all)?;
        runtime.block_on(collector.started.reloader.reload(options.clone().into()))?;
    }
    let finished = collector.stop()?;
    let mut seen = [0; 2];
    for report in &finished.events {
        let Event::Packet(report) = report else { continue };
        if [SECRET, PLAIN].contains(&report.destination_port) {
            assert_eq!(report.encrypt, report.destination_port == SECRET, "{report:?}");
            seen[usize::from(report.encrypt)] += 1;
        } else {
            assert!(!report.encrypt, "{report:?}");
        }
    }
    assert_eq!(seen, [4 * COUNT; 2]);
    Ok(())
}
