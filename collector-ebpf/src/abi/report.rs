//! Records of the ring buffer `EVENTS`, or of the perf buffers `NEWS`.

use super::layout::layout;

/// What a [`FlowEvent`] reports.
pub mod kind {
    /// A flow's first packet.
    pub const START: u8 = 1;
    /// Both sides of a TCP connection have sent a FIN.
    pub const END_FIN: u8 = 2;
    /// The local end reset a TCP connection.
    pub const END_RESET_LOCAL: u8 = 3;
    /// The remote end reset a TCP connection.
    pub const END_RESET_REMOTE: u8 = 4;
    /// No flow: a table is three quarters full on a CPU's account, and a drain is due before its time.
    pub const PRESSURE: u8 = 5;
}

/// A flow began or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEvent {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    /// The local end's address; IPv4 as `::ffff:a.b.c.d`.
    pub local: [u8; 16],
    /// The remote end's address; IPv4 as `::ffff:a.b.c.d`.
    pub remote: [u8; 16],
    /// The local end's port, network byte order.
    pub local_port: u16,
    /// The remote end's port, network byte order.
    pub remote_port: u16,
    /// The boundary, as in the flow's key.
    pub boundary: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// What the two ports hold, as in the flow's key.
    pub ports: u8,
    /// The processing unit.
    pub pu: u16,
    /// The number of the interface.
    pub interface: u16,
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`how`](super::flow::how).
    pub how: u8,
    /// 4 or 6.
    pub family: u8,
    /// The TCP flags of the packet.
    pub tcp_flags: u8,
    /// How many records of this CPU came before, those that found no room among them; low 32 bits.
    pub sequence: u32,
    /// The CPU.
    pub cpu: u16,
    /// Index of the unit at the other end on this host, as in [`Identity::host_pu`](super::flow::Identity::host_pu).
    pub host_pu: u16,
    /// Who owns the socket at the local end, as far as that is known by now: as in
    /// [`Identity::user`](super::flow::Identity::user).
    pub user: u32,
    /// Zero.
    pub _pad: u32,
}

layout!(FlowEvent, 72, {
    boot_ns: 0, local: 8, remote: 24, local_port: 40, remote_port: 42, boundary: 44, protocol: 46, ports: 47,
    pu: 48, interface: 50, kind: 52, how: 53, family: 54, tcp_flags: 55, sequence: 56, cpu: 60, host_pu: 62,
    user: 64, _pad: 68,
});

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn kinds_are_told_apart_and_from_nothing() {
        let kinds = [0, kind::START, kind::END_FIN, kind::END_RESET_LOCAL, kind::END_RESET_REMOTE];
        assert!(kinds.is_sorted_by(|one, two| one < two), "0 says that there is nothing to report");
    }
}
