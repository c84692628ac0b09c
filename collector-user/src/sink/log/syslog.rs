//! Syslog, as `syslog(3)` speaks it to `/dev/log`.

use std::{io::Write as _, process};

use jiff::tz::TimeZone;

use super::{Encode, Entry, line};
use crate::event::Time;

/// Facility `daemon` (3), severity `informational` (6): RFC 3164, section 4.1.1.
const PRIORITY: u8 = 3 * 8 + 6;

/// Entries as RFC 3164 has them, without a host name: `<30>May  9 07:29:33 collector[42]: kind=flow packets=7 ...`.
///
/// Not RFC 5424: what listens on `/dev/log` (journald, rsyslog, syslog-ng, busybox) is spoken to by the C library, which
/// writes this form; not all of them read the other.
#[derive(Clone, Debug)]
pub struct Syslog {
    zone: TimeZone,
    process: u32,
}

impl Syslog {
    /// Where the socket is on every host that has one.
    pub const PATH: &str = "/dev/log";

    /// Times of day in `zone`: syslog has local time, without saying which.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, process: process::id() }
    }
}

impl Encode for Syslog {
    fn encode(&self, time: Time, entry: &Entry, out: &mut Vec<u8>) {
        let time = self.zone.to_datetime(time.timestamp()).strftime("%b %e %H:%M:%S");
        // Writing to a vector cannot fail.
        let _ = write!(out, "<{PRIORITY}>{time} collector[{}]: {}", self.process, line::text(entry));
    }
}
