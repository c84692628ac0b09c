//! Records of a pcap file (draft-ietf-opsawg-pcap), of either byte order, with micro- or nanoseconds.

use std::io;

use super::{
    Direction, MOST_FRAME, Marks, Record, Wrong, error::ContainerError, order::Order, source::Source,
};

/// Microseconds, nanoseconds, and microseconds with eight octets more in each record (libpcap's "modified" format).
const MICROSECONDS: u32 = 0xA1B2_C3D4;
const NANOSECONDS: u32 = 0xA1B2_3C4D;
const MODIFIED: u32 = 0xA1B2_CD34;

/// Octets of the file's header.
const HEADER: usize = 24;
const RECORD: usize = 16;
const MODIFIED_RECORD: usize = 24;

/// Says that the upper four bits hold the length of a frame check sequence.
const HAS_FCS: u32 = 1 << 26;

/// A file under way.
pub(super) struct Pcap {
    order: Order,
    /// Nanoseconds of a unit of a record's time.
    unit: i64,
    /// Octets of a record's header.
    header: usize,
    pub(super) link: u16,
    /// Octets of a check sequence behind each frame.
    fcs: u32,
    /// Before version 2.4, which of a record's lengths came first was not the same everywhere.
    may_be_swapped: bool,
}

impl Pcap {
    /// Whether a file begins so, in which order and units.
    pub(super) fn of_magic(begin: [u8; 4]) -> Option<Self> {
        [Order::Little, Order::Big].into_iter().find_map(|order| {
            let (unit, header) = match order.u32(begin) {
                MICROSECONDS => (1000, RECORD),
                NANOSECONDS => (1, RECORD),
                MODIFIED => (1000, MODIFIED_RECORD),
                _ => return None,
            };
            Some(Self { order, unit, header, link: 0, fcs: 0, may_be_swapped: false })
        })
    }

    /// Reads the file's header.
    pub(super) fn begin(mut self, source: &mut Source<'_>) -> Result<Self, ContainerError> {
        let found = source.look(HEADER).map_err(|source| ContainerError::Read { offset: 0, source })?;
        let Ok(header) = <[u8; HEADER]>::try_from(found) else {
            let (what, expected, found) = ("the header of a pcap file", HEADER as u64, found.len() as u64);
            return Err(ContainerError::Truncated { offset: 0, what, expected, found });
        };
        let [_, _, _, _, major0, major1, minor0, minor1, .., n0, n1, n2, n3] = header;
        let (major, minor) = (self.order.u16([major0, major1]), self.order.u16([minor0, minor1]));
        if major != 2 {
            return Err(ContainerError::Version { offset: 4, format: "pcap", major, minor, expected: "2.x" });
        }
        let network = self.order.u32([n0, n1, n2, n3]);
        self.link = network as u16;
        self.fcs = if network & HAS_FCS == 0 { 0 } else { (network >> 28) * 2 };
        self.may_be_swapped = minor < 4;
        source.take(HEADER);
        Ok(self)
    }

    /// The next record, which is taken once its length is.
    #[inline]
    pub(super) fn next<'s>(&self, source: &'s mut Source<'_>) -> Result<Option<(Record<'s>, usize)>, Wrong> {
        let offset = source.offset();
        let found = source.look(self.header)?;
        if found.is_empty() {
            return Ok(None);
        }
        let Some(header) = found.first_chunk::<RECORD>().filter(|_| found.len() == self.header) else {
            let (what, expected) = ("the header of a packet", self.header as u64);
            return Err(
                ContainerError::Truncated { offset, what, expected, found: found.len() as u64 }.into()
            );
        };
        let [seconds, fraction, mut captured, mut length] = self.order.words(*header);
        if self.may_be_swapped && captured > length {
            (captured, length) = (length, captured);
        }
        if captured > MOST_FRAME {
            let (what, length) = ("a packet", captured.into());
            return Err(
                ContainerError::Length { offset, what, length, least: 0, most: MOST_FRAME.into() }.into()
            );
        }
        let whole = self.header + captured as usize;
        let found = source.look(whole)?;
        let Some(octets) = found.get(self.header..whole) else {
            let (what, expected, found) = ("a packet", whole as u64, found.len() as u64);
            return Err(ContainerError::Truncated { offset, what, expected, found }.into());
        };
        let length = length.max(captured).saturating_sub(self.fcs);
        let record = Record {
            offset,
            interface: 0,
            link: self.link,
            time: Some(i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * self.unit),
            octets: octets.get(..length as usize).unwrap_or(octets),
            length,
            direction: Direction::Unknown,
            marks: Marks::NONE,
        };
        Ok(Some((record, whole)))
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}
