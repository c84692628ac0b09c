//! What the ring tells of TCP connections: once when one begins, once when it ends, and how.

use collector_ebpf::abi::{flow::how, report::kind};
use collector_tests::{
    Result,
    frames::{ACK, ENDS_4, ENDS_6, Ends, FIN, RST, SYN},
    testrun::{Datapath, Hook},
};
use collector_user::kernel::settings::Settings;

/// The local end sends.
const OUT: Hook = Hook::Egress;
/// The remote end sends.
const IN: Hook = Hook::Ingress;

/// Runs segments of one connection that the local end opened; the kinds of news, in their order.
fn news_of(datapath: &mut Datapath, ends: Ends, segments: &[(Hook, u8)]) -> Result<Vec<u8>> {
    for (hook, flags) in segments {
        let ends = if *hook == OUT { ends } else { ends.back() };
        datapath.run(*hook, &ends.tcp(*flags, 0))?;
    }
    let news = datapath.news()?;
    for one in &news {
        assert_eq!((one.id.local, one.id.local_port), (ends.source, ends.source_port));
        assert_eq!((one.id.remote, one.id.remote_port), (ends.destination, ends.destination_port));
        assert_eq!(how::initiator_by(one.how), how::BY_SYN);
        assert_ne!(one.how & how::LOCAL_INITIATED, 0, "the local end opened it");
    }
    let drained = datapath.drain()?;
    datapath.begin_anew(&drained)?;
    let begun: u64 = drained.values().map(|counted| counted.begun).sum();
    let starts = news.iter().filter(|news| news.kind == kind::START).count();
    assert_eq!(begun, starts as u64, "connections counted and told");
    Ok(news.iter().map(|news| news.kind).collect())
}

/// A name, segments, and the kinds of news that they make.
type Case = (&'static str, Vec<(Hook, u8)>, &'static [u8]);

const OPENING: [(Hook, u8); 3] = [(OUT, SYN), (IN, SYN | ACK), (OUT, ACK)];
const CLOSING: [(Hook, u8); 3] = [(OUT, FIN | ACK), (IN, FIN | ACK), (OUT, ACK)];

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_is_told_when_it_begins_and_when_it_ends() -> Result<()> {
    let open = &OPENING[..];
    let cases: [Case; 12] = [
        ("open", open.to_vec(), &[kind::START]),
        ("the SYN again", [&[(OUT, SYN)], open].concat(), &[kind::START]),
        ("one FIN", [open, &[(OUT, FIN | ACK)]].concat(), &[kind::START]),
        ("one FIN twice", [open, &[(OUT, FIN | ACK), (OUT, FIN | ACK)]].concat(), &[kind::START]),
        ("both FINs", [open, &CLOSING].concat(), &[kind::START, kind::END_FIN]),
        (
            "both FINs, the other side first",
            [open, &[(IN, FIN | ACK), (OUT, FIN | ACK), (IN, ACK)]].concat(),
            &[kind::START, kind::END_FIN],
        ),
        (
            "a FIN again after the end",
            [open, &CLOSING, &[(OUT, FIN | ACK)]].concat(),
            &[kind::START, kind::END_FIN],
        ),
        ("reset here", [open, &[(OUT, RST)]].concat(), &[kind::START, kind::END_RESET_LOCAL]),
        ("reset there", [open, &[(IN, RST | ACK)]].concat(), &[kind::START, kind::END_RESET_REMOTE]),
        ("reset by both", [open, &[(IN, RST), (OUT, RST)]].concat(), &[kind::START, kind::END_RESET_REMOTE]),
        ("refused", vec![(OUT, SYN), (IN, RST | ACK)], &[kind::START, kind::END_RESET_REMOTE]),
        (
            "the same ports again",
            [open, &CLOSING, open, &[(OUT, RST)]].concat(),
            &[kind::START, kind::END_FIN, kind::START, kind::END_RESET_LOCAL],
        ),
    ];
    let mut datapath = Datapath::load(&Settings::default())?;
    for ends in [ENDS_4, ENDS_6] {
        for (name, segments, kinds) in &cases {
            let found = news_of(&mut datapath, ends, segments).map_err(|error| error.context(*name))?;
            assert_eq!(found, *kinds, "{name}, {}", ends.source);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_server_knows_its_client() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for (hook, flags) in [(IN, SYN), (OUT, SYN | ACK), (IN, ACK)] {
        let ends = if hook == IN { ENDS_4 } else { ENDS_4.back() };
        datapath.run(hook, &ends.tcp(flags, 0))?;
    }
    let (id, counted) = datapath.drain_one()?;
    assert_eq!((id.local, id.local_port), (ENDS_4.destination, ENDS_4.destination_port));
    assert_eq!(counted.how & how::LOCAL_INITIATED, 0);
    assert_eq!((counted.packets, counted.tcp_flags), ([2, 1], [SYN | ACK, SYN | ACK]));
    Ok(())
}
