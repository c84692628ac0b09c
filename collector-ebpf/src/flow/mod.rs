//! What a packet says of its flow: its [`key`], who [opened](initiator) it, and whether a [`connection`] begins or ends with it.
//!
//! The programs ask this of packets that pass, user space of those in captures.

pub mod connection;
pub mod key;

use crate::{
    abi::flow::how,
    wire::{
        tcp,
        transport::{Echo, Transport},
    },
};

/// Who opened a flow that begins with this packet, if the local end sent it, and by what that is known: bits of [`how`].
#[inline(always)]
pub fn initiator(transport: &Transport) -> u8 {
    let (opened_by_sender, evidence) = match transport.tcp_flags & (tcp::SYN | tcp::ACK) {
        tcp::SYN => (true, how::BY_SYN),
        flags if flags == tcp::SYN | tcp::ACK => (false, how::BY_SYN),
        _ => match transport.echo {
            Echo::Request => (true, how::BY_ECHO),
            Echo::Reply => (false, how::BY_ECHO),
            Echo::None => (true, how::BY_FIRST_PACKET),
        },
    };
    let local = if opened_by_sender { how::LOCAL_INITIATED } else { 0 };
    local | evidence << how::INITIATOR_SHIFT
}

/// The bits of [`how`] that [`initiator`] says.
pub const INITIATOR_BITS: u8 = how::LOCAL_INITIATED | how::INITIATOR_MASK << how::INITIATOR_SHIFT;

#[cfg(test)]
mod tests {
    use super::{INITIATOR_BITS, initiator};
    use crate::{
        abi::flow::{how, ports},
        wire::{
            tcp::{ACK, FIN, RST, SYN},
            transport::{Echo, Transport},
        },
    };

    #[test]
    fn who_opened_it() {
        let with = |tcp_flags, echo| {
            let (protocol, kind) = (6, ports::TRANSPORT);
            let bits = initiator(&Transport { protocol, ports: [0; 4], kind, tcp_flags, echo, headers: 0 });
            assert_eq!(bits & !INITIATOR_BITS, 0);
            (bits & how::LOCAL_INITIATED != 0, how::initiator_by(bits))
        };
        assert_eq!(with(SYN, Echo::None), (true, how::BY_SYN));
        assert_eq!(with(SYN | ACK, Echo::None), (false, how::BY_SYN));
        for flags in [0, ACK, FIN | ACK, RST] {
            assert_eq!(with(flags, Echo::None), (true, how::BY_FIRST_PACKET));
        }
        assert_eq!(with(0, Echo::Request), (true, how::BY_ECHO));
        assert_eq!(with(0, Echo::Reply), (false, how::BY_ECHO));
    }
}
