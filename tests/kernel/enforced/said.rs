//! Policies that are not enforced: all arrives, and records say what would be.

use collector_tests::{
    Result,
    books::{assert_balanced, assert_sum_at_uplinks},
    collector::Running,
    frames::UDP,
    lab::Wire,
    policies::policy,
    traffic::{Host, pin, settle},
};
use collector_user::{
    event::ActionType,
    policy::{lockout::Enforcement, rule::Observe},
    pu::trace::Directions,
};

use super::{arrived, dropped, enforcing, records, send, sinks, strict, sum};

/// A name, rules (id, accept, observe), and what is said: what is done by whom, what is observed by whom.
type Row<'a> = (&'a str, &'a [(&'a str, bool, Observe)], [(ActionType, &'a str); 2]);

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_enforcement_all_arrives_and_records_say_what_would_be() -> Result<()> {
    use Observe::{Apply, Continue, None as Done};
    const COUNT: u64 = 50;
    let (none, accepted, rejected) = (ActionType::NONE, ActionType::ACCEPT, ActionType::REJECT);
    // The original's table, row by row: what is matched, action and policy, what is observed and by whom.
    let rows: [Row<'_>; 8] = [
        ("accept", &[("a", true, Done)], [(accepted, "a"), (none, "")]),
        ("reject", &[("r", false, Done)], [(rejected, "r"), (none, "")]),
        (
            "observe-continue reject, then accept",
            &[("o", false, Continue), ("a", true, Done)],
            [(accepted, "a"), (rejected, "o")],
        ),
        (
            "observe-continue accept, then reject",
            &[("o", true, Continue), ("r", false, Done)],
            [(rejected, "r"), (none, "")],
        ),
        ("observe-apply reject", &[("o", false, Apply)], [(rejected, "o"), (rejected, "o")]),
        ("observe-apply accept", &[("o", true, Apply)], [(accepted, "o"), (accepted, "o")]),
        ("reject before accept", &[("a", true, Done), ("r", false, Done)], [(rejected, "r"), (none, "")]),
        ("nothing", &[], [(rejected, "default"), (none, "")]),
    ];
    let port = |row: usize| 7100 + row as u16;
    let mut policies = strict("host")?;
    for (row, (_, rules, _)) in rows.iter().enumerate() {
        for (id, accept, observe) in *rules {
            let service = (UDP, port(row)..=port(row));
            policies.push(policy(
                &format!("{id}{row}"),
                "host",
                Directions::In,
                service,
                (*accept, *observe),
            )?);
        }
    }
    let wire = Wire::new()?;
    pin(0)?;
    let answering = Host::new(&wire.a, &[])?;
    let mut sockets = Vec::new();
    for row in 0..rows.len() {
        sockets.push(sinks(&wire.a, port(row))?);
    }
    let mut options = enforcing(policies);
    options.enforcement = Enforcement::Off;
    let collector = Running::start_beside(&wire.a.place, options, Some(&wire.a.dev))?;
    for row in 0..rows.len() {
        for version in [4, 6] {
            send(&wire.b, wire.a.at(version, port(row)), COUNT)?;
        }
    }
    settle(&wire.b, &answering)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    for (row, ((name, _, [done, observed]), sockets)) in rows.iter().zip(&sockets).enumerate() {
        for socket in sockets {
            assert_eq!(arrived(socket)?, COUNT, "{name}: nothing is dropped");
        }
        let id = |id: &str| if ["", "default"].contains(&id) { id.to_owned() } else { format!("{id}{row}") };
        let records = records(&finished, UDP, port(row));
        assert_eq!(sum(&records, |record| record.packets), 2 * COUNT, "{name}");
        for record in records {
            assert_eq!((record.action, &*record.policy_id), (done.0, &*id(done.1)), "{name}");
            let told = (record.observed_action, &*record.observed_policy_id);
            assert_eq!(told, (observed.0, &*id(observed.1)), "{name}");
            assert_eq!((&*record.drop_reason, record.rejected_packets), ("", 0), "{name}");
        }
    }
    assert_eq!(dropped(&finished, "host"), (0, 0));
    Ok(())
}
