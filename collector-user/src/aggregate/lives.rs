//! How long flows are remembered.

pub(super) const SECOND: u64 = 1_000_000_000;

/// How long flows are remembered, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// Between two records of a flow that lives.
    pub report: u64,
    /// Records at one drain: fewer than the queue of an output holds.
    pub at_once: usize,
    /// After the last packet of a TCP connection that has ended, so that its stragglers are still its own.
    pub ended: u64,
    /// Without a packet: an open TCP connection.
    pub tcp: u64,
    /// Without a packet: a TCP connection that was not answered, and any other flow with ports.
    pub other: u64,
    /// Without a packet: ICMP.
    pub icmp: u64,
    /// How long the counters of units wait for a flow's answer, which shows whose it is.
    pub undecided: u64,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            report: 5 * SECOND,
            at_once: 50_000,
            ended: 10 * SECOND,
            tcp: 3600 * SECOND,
            other: 120 * SECOND,
            icmp: 30 * SECOND,
            undecided: 2 * SECOND,
        }
    }
}
