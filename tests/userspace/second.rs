//! The generated frames once more, against a second reading of the documents, which is held to all that the parser says: also
//! where the other project's stops (labels, sessions, mobility, UDP-Lite, later fragments), and to the reason of a refusal.

use std::cell::{Cell, RefCell};

use collector_ebpf::{
    abi::counter::Unparsed,
    wire::{self, Frame, Link},
};
use collector_tests::{
    generated,
    second::{self, Reading},
};
use proptest::{
    collection,
    prelude::any,
    test_runner::{TestCaseError, TestRunner},
};

use crate::differential::{config, ends};

type Read = Result<Reading, Unparsed>;

fn own(link: Link, bytes: &[u8]) -> Read {
    let packet = wire::parse(&bytes, link, Frame { length: bytes.len() as u32, gso: false })?;
    let transport = packet.transport;
    Ok(Reading {
        vlan: packet.vlan,
        ends: ends(&packet),
        protocol: transport.protocol,
        kind: transport.kind,
        ports: transport.ports,
        tcp_flags: transport.tcp_flags,
        headers: transport.headers,
        piece: packet.piece.map(|piece| (piece.id, piece.first)),
    })
}

/// Whether a difference is of a kind: of the parser's reading and the second one.
type Holds = fn(&Read, &Read) -> bool;

/// Every difference that there may be, and why.
const EXPLAINED: [(&str, Holds); 2] = [
    (
        "refused by both: the parser follows the extension headers before it holds the payload length against the frame",
        |own, other| {
            matches!(own, Err(Unparsed::Truncated | Unparsed::ExtensionDepth))
                && *other == Err(Unparsed::IpLength)
        },
    ),
    ("refused by both: it meets one too many before it sees that they have left the packet", |own, other| {
        *own == Err(Unparsed::ExtensionDepth) && *other == Err(Unparsed::Truncated)
    }),
];

#[test]
#[expect(clippy::print_stdout, reason = "how often each difference was met is shown with `--nocapture`")]
fn generated_frames_are_read_as_the_documents_say() {
    let config = config(concat!(env!("CARGO_MANIFEST_DIR"), "/data/second.txt"));
    let cases = config.cases;
    let read = Cell::new(0);
    let refused = RefCell::new([0; Unparsed::ALL.len()]);
    let explained = RefCell::new([0; EXPLAINED.len()]);
    let result = TestRunner::new(config).run(&collection::vec(any::<u8>(), 0..60), |choices| {
        let (link, bytes) = generated::frame(&choices);
        let (own, other) = (own(link, &bytes), second::read(link, &bytes));
        match own {
            Ok(_) => read.set(read.get() + 1),
            Err(reason) => refused.borrow_mut()[reason as usize] += 1,
        }
        if own == other {
            return Ok(());
        }
        let Some(which) = EXPLAINED.iter().position(|(_, holds)| holds(&own, &other)) else {
            return Err(TestCaseError::fail(format!("{own:?} or {other:?}: {link:?} {bytes:02x?}")));
        };
        explained.borrow_mut()[which] += 1;
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    for ((why, _), times) in EXPLAINED.iter().zip(explained.into_inner()) {
        println!("{times:6} times: {why}");
    }
    let read = read.get();
    for (reason, times) in Unparsed::ALL.iter().zip(refused.into_inner()) {
        println!("{times:6} times: {}", reason.name());
        assert!(times != 0, "of {cases} frames none was refused for {}", reason.name());
    }
    println!("{read} of {cases} were read");
    assert!(read > cases / 2, "{read} of {cases} were read");
}
