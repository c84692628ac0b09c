//! Records of the ring, and keys of the tables, of any octets.

#![no_main]

use collector_ebpf::abi::flow::{FlowKey4, FlowKey6};
use collector_user::drain::{
    decode::{Padding, flow_event, packet},
    flow::FlowId,
};
use libfuzzer_sys::fuzz_target;

/// `N` octets from `at` on.
fn octets<const N: usize>(record: &[u8; 40], at: usize) -> [u8; N] {
    std::array::from_fn(|nth| record[at + nth])
}

fuzz_target!(|bytes: &[u8]| {
    for padding in [Padding::None, Padding::Perf] {
        // News, or nothing, or an error with a sentence.
        if let Err(error) = flow_event(bytes, padding) {
            assert!(!error.to_string().is_empty());
        }
        match packet(&bytes.to_vec().into(), padding) {
            Ok(packet) => assert_eq!(packet.octets.len(), packet.record.captured as usize),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // A drained flow is forgotten by the key that its name leads to: the same octets, or it would stay for ever.
    let Some(record) = bytes.first_chunk::<40>() else { return };
    let [boundary, local_port, remote_port] = [36, 32, 34].map(|at| u16::from_ne_bytes(octets(record, at)));
    let [protocol, ports] = octets(record, 38);
    let (local, remote) = (octets(record, 0), octets(record, 16));
    let six = FlowKey6 { local, remote, local_port, remote_port, boundary, protocol, ports };
    let id = FlowId::from(&six);
    assert_eq!((id.key4(), id.key6()), (None, Some(six)));
    let (local, remote) = (octets(record, 0), octets(record, 16));
    let four = FlowKey4 { local, remote, local_port, remote_port, boundary, protocol, ports };
    let id = FlowId::from(&four);
    assert_eq!((id.key4(), id.key6()), (Some(four), None));
});
