//! How a TCP connection begins and ends, as its flags say.

use crate::{abi::report::kind, wire::tcp};

/// Whether a connection is opened: a SYN that answers nothing.
#[inline(always)]
pub const fn opens(tcp_flags: u8) -> bool {
    tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// Whether a flow that is met at this packet begins with it. One of TCP that is met without its SYN began before anyone looked.
#[inline(always)]
pub const fn begins(tcp_flags: u8) -> bool {
    tcp_flags == 0 || tcp_flags & tcp::SYN != 0
}

/// What is told of a reset.
#[inline(always)]
pub const fn reset(sent: bool) -> u8 {
    if sent { kind::END_RESET_LOCAL } else { kind::END_RESET_REMOTE }
}

/// FINs seen from each side: the fields of [`Identity::fins`](crate::abi::flow::Identity::fins).
pub mod fins {
    const RX: u64 = 0xFF;
    const TX: u64 = 0xFF00;
    /// One FIN in either field.
    const ONE: u64 = 0x0101;

    /// The field of who sent a packet, and that of the other side.
    #[inline(always)]
    pub const fn sides(sent: bool) -> (u64, u64) {
        if sent { (TX, RX) } else { (RX, TX) }
    }

    /// One FIN in a field.
    #[inline(always)]
    pub const fn one(side: u64) -> u64 {
        side & ONE
    }
}

/// What is remembered of a connection between its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// FINs seen from each side, as in [`Identity::fins`](crate::abi::flow::Identity::fins).
    pub fins: u64,
    /// An end was told.
    pub ended: bool,
}

impl State {
    /// That of a flow that is met at this packet. One that is met at its reset begins and ends with it; that it began is what is
    /// told.
    pub const fn met(tcp_flags: u8, sent: bool) -> Self {
        let (own, _) = fins::sides(sent);
        let fins = if tcp_flags & tcp::FIN != 0 { fins::one(own) } else { 0 };
        Self { fins, ended: tcp_flags & tcp::RST != 0 }
    }

    /// What another packet of it makes of it; what is to be told ([`kind`]), or 0.
    ///
    /// The programs do the same where several CPUs may be at it at once (`identity::follow_tcp`), by the parts above.
    pub const fn follow(&mut self, tcp_flags: u8, sent: bool) -> u8 {
        if self.ended {
            if !opens(tcp_flags) {
                return 0;
            }
            *self = Self { fins: 0, ended: false };
            return kind::START;
        }
        if tcp_flags & tcp::RST != 0 {
            self.ended = true;
            return reset(sent);
        }
        if tcp_flags & tcp::FIN != 0 {
            let (own, other) = fins::sides(sent);
            if self.fins & own == 0 {
                self.fins += fins::one(own);
            }
            if self.fins & other != 0 {
                self.ended = true;
                return kind::END_FIN;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{State, begins};
    use crate::{
        abi::report::kind,
        wire::tcp::{ACK, FIN, RST, SYN},
    };

    #[test]
    fn both_sides_have_to_finish() {
        let mut state = State::met(SYN, true);
        for (flags, sent, told) in [
            (SYN | ACK, false, 0),
            (ACK, true, 0),
            (FIN | ACK, true, 0),
            (FIN | ACK, true, 0),
            (ACK, false, 0),
            (FIN | ACK, false, kind::END_FIN),
            (ACK, true, 0),
            (RST, false, 0),
        ] {
            assert_eq!(state.follow(flags, sent), told, "{flags:#x} {sent}");
        }
        assert_eq!(state.follow(SYN, false), kind::START, "another connection of the same ends");
        assert_eq!(state, State::default());
    }

    #[test]
    fn either_side_may_reset() {
        assert_eq!(State::met(SYN, true).follow(RST | ACK, false), kind::END_RESET_REMOTE);
        assert_eq!(State::met(ACK, true).follow(RST, true), kind::END_RESET_LOCAL);
        let mut met = State::met(RST, true);
        assert_eq!((met.ended, met.follow(RST, true)), (true, 0));
        let mut closing = State::met(FIN | ACK, false);
        assert_eq!(closing.follow(FIN | ACK, true), kind::END_FIN);
    }

    #[test]
    fn what_is_met_midway_began_before() {
        assert_eq!(
            [0, SYN, SYN | ACK, ACK, FIN | ACK, RST].map(begins),
            [true, true, true, false, false, false]
        );
    }
}
