//! Blocks and options, octet by octet. What each is for is said in the [module above](super).
//!
//! Numbers are little-endian, as on every host that the programs run on; the section header says so to the reader
//! (specification, "Endianness").

/// What the packets of an interface begin with: numbers of IANA's registry of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub(super) enum LinkType {
    Ethernet = 1,
    RawIp = 101,
}

/// Bits 0 and 1 of the flags word ("Enhanced Packet Block Flags Word").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Direction {
    Unknown = 0,
    Inbound = 1,
    Outbound = 2,
}

/// Of an Interface Description Block.
pub(super) struct Interface<'a> {
    pub(super) link: LinkType,
    pub(super) snap_length: u32,
    /// Empty: unknown.
    pub(super) name: &'a str,
    /// Empty: none.
    pub(super) filter: &'a str,
}

/// Of an Enhanced Packet Block.
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) octets: &'a [u8],
    /// What it had before it was cut.
    pub(super) length: u32,
    pub(super) direction: Direction,
    /// Empty: none.
    pub(super) comment: &'a str,
}

/// Of an Interface Statistics Block.
pub(super) struct Statistics<'a> {
    pub(super) interface: u32,
    /// When the capture began and ended, in nanoseconds since 1970.
    pub(super) times: [u64; 2],
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) delivered: u64,
    pub(super) comments: &'a [&'a str],
}

/// Codes of options that every block may have ("Options").
mod common {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;
}

/// Appends a Section Header Block: version 1.0, of unknown length, written by `application`.
pub(super) fn section_header(out: &mut Vec<u8>, application: &str) {
    const USER_APPLICATION: u16 = 4;
    let mut block = Block::begin(out, 0x0A0D_0D0A);
    block.u32(0x1A2B_3C4D);
    block.u16(1);
    block.u16(0);
    // -1: whoever skips the section has to walk through it.
    block.u64(u64::MAX);
    block.text(USER_APPLICATION, application);
    block.end();
}

/// Appends an Interface Description Block, whose times are nanoseconds.
pub(super) fn interface(out: &mut Vec<u8>, interface: &Interface<'_>) {
    const NAME: u16 = 2;
    const TIME_RESOLUTION: u16 = 9;
    const FILTER: u16 = 11;
    let mut block = Block::begin(out, 1);
    block.u16(interface.link as u16);
    block.u16(0);
    block.u32(interface.snap_length);
    if !interface.name.is_empty() {
        block.text(NAME, interface.name);
    }
    block.option(TIME_RESOLUTION, &[9]);
    if !interface.filter.is_empty() {
        // The first octet says what follows: a string in libpcap's syntax.
        block.text(FILTER, &format!("\0{}", interface.filter));
    }
    block.end();
}

/// Appends an Enhanced Packet Block.
pub(super) fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    const FLAGS: u16 = 2;
    let mut block = Block::begin(out, PACKET);
    block.u32(packet.interface);
    block.time(packet.time);
    block.u32(packet.octets.len() as u32);
    block.u32(packet.length.max(packet.octets.len() as u32));
    block.padded(packet.octets);
    if packet.direction != Direction::Unknown {
        block.option(FLAGS, &(packet.direction as u32).to_le_bytes());
    }
    if !packet.comment.is_empty() {
        block.text(common::COMMENT, packet.comment);
    }
    block.end();
}

/// Appends an Interface Statistics Block, whose numbers are those at the end of the capture.
pub(super) fn statistics(out: &mut Vec<u8>, statistics: &Statistics<'_>) {
    const START: u16 = 2;
    const END: u16 = 3;
    const RECEIVED: u16 = 4;
    const DROPPED: u16 = 5;
    const DELIVERED: u16 = 8;
    let [start, end] = statistics.times;
    let mut block = Block::begin(out, 5);
    block.u32(statistics.interface);
    block.time(end);
    for comment in statistics.comments {
        block.text(common::COMMENT, comment);
    }
    for (code, time) in [(START, start), (END, end)] {
        // Both halves, the upper one first, as in the blocks' own times.
        let [upper, lower] = halves(time).map(u32::to_le_bytes);
        block.option(code, &[upper, lower].concat());
    }
    for (code, count) in
        [(RECEIVED, statistics.received), (DROPPED, statistics.lost), (DELIVERED, statistics.delivered)]
    {
        block.option(code, &count.to_le_bytes());
    }
    block.end();
}

/// What is whole of octets that begin with a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Octets of all whole blocks, up to the first that is cut.
    pub(crate) octets: u64,
    /// Those blocks of them that hold a packet.
    pub(crate) packets: u64,
}

impl Whole {
    pub(crate) const NOTHING: Self = Self { octets: 0, packets: 0 };

    pub(crate) const fn and(self, other: Self) -> Self {
        Self { octets: self.octets + other.octets, packets: self.packets + other.packets }
    }
}

/// Walks over the blocks that `octets` begin with.
pub(crate) fn whole(octets: &[u8]) -> Whole {
    let mut whole = Whole::NOTHING;
    let mut rest = octets;
    let number = |at: &[u8]| at.try_into().ok().map(u32::from_le_bytes);
    while let Some(kind) = rest.get(..4).and_then(number)
        && let Some(total) = rest.get(4..8).and_then(number)
        && total >= SMALLEST
        && let Some(next) = rest.get(total as usize..)
    {
        whole = whole.and(Whole { octets: total.into(), packets: (kind == PACKET).into() });
        rest = next;
    }
    whole
}

/// The type of an Enhanced Packet Block.
const PACKET: u32 = 6;
/// A type and two lengths.
const SMALLEST: u32 = 12;

const fn halves(time: u64) -> [u32; 2] {
    [(time >> 32) as u32, time as u32]
}

/// A block that grows at the end of octets ("General Block Structure").
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    has_options: bool,
}

impl<'a> Block<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = out.len();
        let mut block = Self { out, start, has_options: false };
        block.u32(kind);
        // The length, once it is known.
        block.u32(0);
        block
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn time(&mut self, nanos: u64) {
        let [upper, lower] = halves(nanos);
        self.u32(upper);
        self.u32(lower);
    }

    /// The octets, and zeros up to a multiple of four ("Alignment").
    fn padded(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
        let padding = octets.len().next_multiple_of(4) - octets.len();
        self.out.extend(std::iter::repeat_n(0, padding));
    }

    /// An option of at most 65,535 octets; what is beyond is left out.
    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
        self.has_options = true;
        self.u16(code);
        self.u16(value.len() as u16);
        self.padded(value);
    }

    /// An option that is text: it stays UTF-8 where it is cut.
    fn text(&mut self, code: u16, text: &str) {
        let (text, _) = text.split_at(text.floor_char_boundary(usize::from(u16::MAX)));
        self.option(code, text.as_bytes());
    }

    fn end(mut self) {
        if self.has_options {
            self.option(common::END, &[]);
        }
        // Four more octets: this length itself.
        let total = (self.out.len() - self.start + 4) as u32;
        self.u32(total);
        if let Some(place) = self.out.get_mut(self.start + 4..self.start + 8) {
            place.copy_from_slice(&total.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
