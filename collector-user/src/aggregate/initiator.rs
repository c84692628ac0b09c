//! Who opened a flow: decided once, before its first record.

use collector_ebpf::abi::flow::{how, ports};

use crate::{drain::flow::FlowId, event::InitiatorBy};

/// Whether the local end opened a flow, and by what that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initiator {
    /// The local end did; else the remote end.
    pub local: bool,
    /// By what that is known.
    pub by: InitiatorBy,
}

/// Reads what the programs saw; where that is only who sent the first packet, a port that is registered for a service on
/// one side alone says more: the collector may have come when the connection was old.
pub fn decide(id: &FlowId, bits: u8) -> Initiator {
    let local = bits & how::LOCAL_INITIATED != 0;
    match how::initiator_by(bits) {
        how::BY_SYN => Initiator { local, by: InitiatorBy::Syn },
        how::BY_LISTENER => Initiator { local, by: InitiatorBy::Listener },
        how::BY_ECHO => Initiator { local, by: InitiatorBy::IcmpRequest },
        _ if id.ports != ports::TRANSPORT => Initiator { local, by: InitiatorBy::FirstPacket },
        _ => match (is_service(id.local_port), is_service(id.remote_port)) {
            (true, false) if local => Initiator { local: false, by: InitiatorBy::PortRegistry },
            (false, true) if !local => Initiator { local: true, by: InitiatorBy::PortRegistry },
            _ => Initiator { local, by: InitiatorBy::FirstPacket },
        },
    }
}

/// Ports registered with IANA for services that answer, on hosts as they are in the field. Never "the smaller port":
/// a client may well have it.
const SERVICES: [u16; 48] = [
    21, 22, 23, 25, 53, 67, 69, 80, 88, 110, 111, 123, 137, 139, 143, 161, 179, 389, 443, 445, 465, 500, 514,
    546, 547, 587, 631, 636, 853, 873, 989, 990, 993, 995, 1433, 1521, 1812, 2049, 2379, 3306, 3389, 4789,
    5060, 5432, 5672, 6379, 6443, 11211,
];

fn is_service(port: u16) -> bool {
    SERVICES.binary_search(&port).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn id(local_port: u16, remote_port: u16) -> FlowId {
        FlowId {
            local: IpAddr::from([10, 0, 0, 1]),
            remote: IpAddr::from([10, 0, 0, 2]),
            local_port,
            remote_port,
            boundary: 0,
            protocol: 17,
            ports: ports::TRANSPORT,
        }
    }

    fn bits(local: bool, by: u8) -> u8 {
        (u8::from(local) * how::LOCAL_INITIATED) | (by << how::INITIATOR_SHIFT)
    }

    #[test]
    fn the_list_is_sorted() {
        assert!(SERVICES.is_sorted());
    }

    #[test]
    fn a_syn_is_believed_whatever_the_ports() {
        let initiator = decide(&id(443, 40000), bits(true, how::BY_SYN));
        assert_eq!(initiator, Initiator { local: true, by: InitiatorBy::Syn });
    }

    #[test]
    fn a_socket_that_listens_is_believed_whatever_the_ports() {
        let initiator = decide(&id(40000, 443), bits(false, how::BY_LISTENER));
        assert_eq!(initiator, Initiator { local: false, by: InitiatorBy::Listener });
    }

    #[test]
    fn an_answer_that_is_seen_first_is_an_answer() {
        // The resolver's answer is the first packet: the local end asked.
        let initiator = decide(&id(40000, 53), bits(false, how::BY_FIRST_PACKET));
        assert_eq!(initiator, Initiator { local: true, by: InitiatorBy::PortRegistry });
        let initiator = decide(&id(53, 40000), bits(true, how::BY_FIRST_PACKET));
        assert_eq!(initiator, Initiator { local: false, by: InitiatorBy::PortRegistry });
    }

    #[test]
    fn the_smaller_port_says_nothing() {
        let initiator = decide(&id(1000, 5001), bits(true, how::BY_FIRST_PACKET));
        assert_eq!(initiator, Initiator { local: true, by: InitiatorBy::FirstPacket });
        let initiator = decide(&id(123, 123), bits(false, how::BY_FIRST_PACKET));
        assert_eq!(initiator, Initiator { local: false, by: InitiatorBy::FirstPacket });
    }
}
