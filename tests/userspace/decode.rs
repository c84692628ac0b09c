//! Octets of the ring become news, or an error that names what is wrong with them.

use collector_ebpf::abi::{
    flow::{how, ports},
    report::{FlowEvent, kind},
};
use collector_user::drain::decode::{self, DecodeError, Padding, Record};

/// A record as the kernel writes it: every field at its offset, in host order but for the ports.
fn record(family: u8, kind: u8) -> Vec<u8> {
    let mut octets = Vec::new();
    octets.extend(77_u64.to_ne_bytes());
    for last in [1, 2] {
        let address: [u8; 16] = if family == 4 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 77, 0, last]
        } else {
            [0xFD, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
        };
        octets.extend(address);
    }
    octets.extend(40_000_u16.to_be_bytes());
    octets.extend(443_u16.to_be_bytes());
    octets.extend(29_u16.to_ne_bytes());
    octets.extend([6, ports::TRANSPORT]);
    octets.extend(101_u16.to_ne_bytes());
    octets.extend(9_u16.to_ne_bytes());
    octets.extend([kind, how::LOCAL_INITIATED, family, 2]);
    octets.extend(7_u32.to_ne_bytes());
    octets.extend(3_u32.to_ne_bytes());
    octets.extend(1_001_u32.to_ne_bytes());
    octets.extend([0; 4]);
    octets
}

fn flow_event(octets: &[u8]) -> Result<Record, DecodeError> {
    decode::flow_event(octets, Padding::None)
}

#[test]
fn every_kind_of_either_family_is_read() {
    assert_eq!(record(4, kind::START).len(), size_of::<FlowEvent>());
    for (family, local, remote) in [(4, "10.77.0.1", "10.77.0.2"), (6, "fd77::1", "fd77::2")] {
        for kind in [kind::START, kind::END_FIN, kind::END_RESET_LOCAL, kind::END_RESET_REMOTE] {
            let news = flow_event(&record(family, kind)).unwrap();
            assert_eq!((news.sequence, news.cpu), (7, 3));
            let news = news.news.unwrap();
            assert_eq!(
                (news.id.local.to_string(), news.id.remote.to_string()),
                (local.into(), remote.into())
            );
            assert_eq!((news.id.local_port, news.id.remote_port), (40_000, 443));
            assert_eq!((news.id.boundary, news.id.protocol, news.id.ports), (29, 6, ports::TRANSPORT));
            assert_eq!((news.boot_ns, news.pu, news.interface), (77, 101, 9));
            assert_eq!((news.kind, news.how, news.user), (kind, how::LOCAL_INITIATED, Some(1_000)));
        }
    }
}

#[test]
fn a_table_that_fills_up_is_no_news_of_a_flow() {
    assert_eq!(flow_event(&record(4, kind::PRESSURE)).unwrap().news, None);
}

#[test]
fn no_length_but_one_is_a_record() {
    let whole = record(4, kind::START);
    let longer = [whole.clone(), vec![0; 8]].concat();
    for length in 0..longer.len() {
        let result = flow_event(&longer[..length]);
        if length == whole.len() {
            assert!(result.is_ok());
        } else {
            assert_eq!(result, Err(DecodeError::Length { found: length, expected: whole.len() }));
        }
    }
}

#[test]
fn what_this_version_does_not_know_is_named() {
    for wrong in [0, 6, u8::MAX] {
        assert_eq!(flow_event(&record(4, wrong)), Err(DecodeError::Kind { kind: wrong }));
    }
    for wrong in [0, 5, u8::MAX] {
        assert_eq!(flow_event(&record(wrong, kind::START)), Err(DecodeError::Family { family: wrong }));
    }
}
