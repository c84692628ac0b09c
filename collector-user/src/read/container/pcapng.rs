//! Sections of a pcapng file (draft-ietf-opsawg-pcapng): their interfaces, and packets in enhanced, simple and old blocks.

use super::{
    Direction, MOST_FRAME, Marks, Record, Wrong,
    block::{HEAD, Head, Options, kind},
    error::ContainerError,
    note,
    order::Order,
    source::Source,
    unit::Unit,
};

/// Interfaces of a section at most.
const MOST_INTERFACES: usize = 1 << 16;
/// Octets that are kept of an interface's name: no system has longer ones.
const MOST_NAME: usize = 256;
/// What `collector capture` says that it is (`shb_userappl`).
const OURS: &[u8] = b"collector ";

/// A file under way.
#[derive(Default)]
pub(super) struct Pcapng {
    section: Option<Section>,
}

struct Section {
    order: Order,
    interfaces: Vec<Interface>,
    /// It was written by `collector capture`.
    is_ours: bool,
}

struct Interface {
    link: u16,
    snap_length: u32,
    name: String,
    unit: Unit,
    /// Octets of a check sequence behind each frame.
    fcs: u32,
}

/// Fields of a block with one packet.
struct Packet<'s> {
    offset: u64,
    interface: u32,
    time: Option<u64>,
    captured: u32,
    length: u32,
    /// Behind the fields: the packet, and the options.
    rest: &'s [u8],
}

impl Pcapng {
    /// Whether a file begins so.
    pub(super) fn begins_with(begin: [u8; 4]) -> bool {
        u32::from_le_bytes(begin) == kind::SECTION
    }

    pub(super) fn interface_name(&self, number: u32) -> &str {
        let interfaces =
            self.section.as_ref().map(|section| section.interfaces.as_slice()).unwrap_or_default();
        interfaces.get(number as usize).map_or("", |interface| &interface.name)
    }

    /// The next packet, which is taken once its block's length is.
    #[inline]
    pub(super) fn next<'s>(
        &mut self,
        source: &'s mut Source<'_>,
    ) -> Result<Option<(Record<'s>, usize)>, Wrong> {
        loop {
            let offset = source.offset();
            let found = source.look(HEAD)?;
            if found.is_empty() {
                return Ok(None);
            }
            let Some(begin) = found.first_chunk::<HEAD>().copied() else {
                let (what, expected) = ("the head of a block", HEAD as u64);
                return Err(
                    ContainerError::Truncated { offset, what, expected, found: found.len() as u64 }.into()
                );
            };
            let order = self.section.as_ref().map(|section| section.order);
            let head = Head::of(begin, order.unwrap_or(Order::Little));
            match (head.kind, &mut self.section) {
                (kind::SECTION, _) => self.section = Some(Section::begin(source)?),
                (kind::INTERFACE, Some(section)) => section.describe(head, source)?,
                (kind::ENHANCED_PACKET | kind::SIMPLE_PACKET | kind::OLD_PACKET, Some(_)) => break,
                (_, _) => {
                    head.check(offset, 0, false)?;
                    head.skip(source, order.unwrap_or(Order::Little))?;
                }
            }
        }
        // Borrowed anew: what is handed out lives on.
        match &self.section {
            Some(section) => section.packet(source),
            None => Ok(None),
        }
    }
}

impl Section {
    /// Reads a section header, which says the order itself.
    fn begin(source: &mut Source<'_>) -> Result<Self, Wrong> {
        /// The byte-order magic, both versions, the section's length.
        const FIELDS: usize = 16;
        const USER_APPLICATION: u16 = 4;
        const MAGIC: u32 = 0x1A2B_3C4D;
        let offset = source.offset();
        let found = source.look(HEAD + 4)?;
        let Some(begin) = found.first_chunk::<HEAD>().copied().filter(|_| found.len() == HEAD + 4) else {
            let (what, expected) = ("a section header block", (HEAD + FIELDS + 4) as u64);
            return Err(
                ContainerError::Truncated { offset, what, expected, found: found.len() as u64 }.into()
            );
        };
        let magic = Order::Little.u32_at(found, HEAD).unwrap_or(0);
        let order = match (magic, magic.swap_bytes()) {
            (MAGIC, _) => Order::Little,
            (_, MAGIC) => Order::Big,
            _ => return Err(ContainerError::ByteOrder { offset, magic }.into()),
        };
        let head = Head::of(begin, order);
        head.check(offset, FIELDS, true)?;
        let body = head.body(source, order)?;
        let version = |at| order.u16_at(body, at).unwrap_or(0);
        let (major, minor) = (version(4), version(6));
        if major != 1 {
            let (offset, format, expected) = (offset + 12, "pcapng", "1.x");
            return Err(ContainerError::Version { offset, format, major, minor, expected }.into());
        }
        let mut options = Options { rest: body.get(FIELDS..).unwrap_or_default(), order };
        let is_ours = options.any(|(code, value)| code == USER_APPLICATION && value.starts_with(OURS));
        source.take(head.whole() as usize);
        Ok(Self { order, interfaces: Vec::new(), is_ours })
    }

    /// Reads the block of an interface.
    fn describe(&mut self, head: Head, source: &mut Source<'_>) -> Result<(), Wrong> {
        /// Link type, two octets of nothing, snap length.
        const FIELDS: usize = 8;
        const NAME: u16 = 2;
        const RESOLUTION: u16 = 9;
        const FCS_LENGTH: u16 = 13;
        const OFFSET: u16 = 14;
        let Self { order, ref mut interfaces, .. } = *self;
        let offset = source.offset();
        head.check(offset, FIELDS, true)?;
        let body = head.body(source, order)?;
        if interfaces.len() == MOST_INTERFACES {
            return Err(ContainerError::Interfaces { offset, most: MOST_INTERFACES }.into());
        }
        let mut interface = Interface {
            link: order.u16_at(body, 0).unwrap_or(0),
            snap_length: order.u32_at(body, 4).unwrap_or(0),
            name: String::new(),
            unit: Unit::MICROSECONDS,
            fcs: 0,
        };
        for (code, value) in (Options { rest: body.get(FIELDS..).unwrap_or_default(), order }) {
            match (code, value) {
                (NAME, name) => {
                    let name = name.get(..MOST_NAME).unwrap_or(name);
                    String::from_utf8_lossy(name).trim_end_matches('\0').clone_into(&mut interface.name);
                }
                (RESOLUTION, [resolution]) => interface.unit = interface.unit.with_resolution(*resolution),
                (FCS_LENGTH, [length]) => interface.fcs = (*length).into(),
                (OFFSET, value) => {
                    if let Ok(seconds) = value.try_into() {
                        interface.unit = interface.unit.with_offset(order.u64(seconds).cast_signed());
                    }
                }
                _ => {}
            }
        }
        interfaces.push(interface);
        source.take(head.whole() as usize);
        Ok(())
    }

    /// Reads the block of a packet that comes next.
    #[inline]
    fn packet<'s>(&self, source: &'s mut Source<'_>) -> Result<Option<(Record<'s>, usize)>, Wrong> {
        let Self { order, .. } = *self;
        let offset = source.offset();
        let Some(begin) = source.look(HEAD)?.first_chunk().copied() else { return Ok(None) };
        let head = Head::of(begin, order);
        let fields = if head.kind == kind::SIMPLE_PACKET { 4 } else { 20 };
        head.check(offset, fields, true)?;
        let body = head.body(source, order)?;
        let word = |at| order.u32_at(body, at).unwrap_or(0);
        let rest = body.get(fields..).unwrap_or_default();
        let packet = if head.kind == kind::SIMPLE_PACKET {
            // Of interface 0, cut at its snap length; nothing else says how much of the block is the packet.
            let length = word(0);
            let snap_length = self.interfaces.first().map_or(0, |interface| interface.snap_length);
            let snap_length = if snap_length == 0 { u32::MAX } else { snap_length };
            let captured = length.min(snap_length).min(rest.len() as u32);
            Packet { offset, interface: 0, time: None, captured, length, rest }
        } else {
            let interface = if head.kind == kind::OLD_PACKET {
                order.u16_at(body, 0).unwrap_or(0).into()
            } else {
                word(0)
            };
            let time = u64::from(word(4)) << 32 | u64::from(word(8));
            Packet { offset, interface, time: Some(time), captured: word(12), length: word(16), rest }
        };
        Ok(Some((self.record(&packet)?, head.whole() as usize)))
    }

    #[inline]
    fn record<'s>(&self, packet: &Packet<'s>) -> Result<Record<'s>, ContainerError> {
        let Packet { offset, interface: number, time, captured, length, rest } = *packet;
        let Some(interface) = self.interfaces.get(number as usize) else {
            let known = self.interfaces.len();
            return Err(ContainerError::NoInterface { offset, interface: number, known });
        };
        let most = MOST_FRAME.min(rest.len() as u32);
        let Some(octets) = rest.get(..captured as usize).filter(|_| captured <= most) else {
            let (what, length) = ("a packet", captured.into());
            return Err(ContainerError::Length { offset, what, length, least: 0, most: most.into() });
        };
        let length = length.max(captured).saturating_sub(interface.fcs);
        let (mut direction, mut marks) = (Direction::Unknown, Marks::NONE);
        if time.is_some() {
            let options = rest.get(captured.next_multiple_of(4) as usize..).unwrap_or_default();
            (direction, marks) = self.said(options);
        }
        Ok(Record {
            offset,
            interface: number,
            link: interface.link,
            time: time.map(|time| interface.unit.nanoseconds(time)),
            octets: octets.get(..length as usize).unwrap_or(octets),
            length,
            direction,
            marks,
        })
    }

    /// What a packet's options say of it.
    #[inline]
    fn said<'a>(&self, options: &'a [u8]) -> (Direction, Marks<'a>) {
        const COMMENT: u16 = 1;
        const FLAGS: u16 = 2;
        let (mut direction, mut marks) = (Direction::Unknown, Marks::NONE);
        for (code, value) in (Options { rest: options, order: self.order }) {
            match code {
                FLAGS => {
                    direction = match self.order.u32_at(value, 0).unwrap_or(0) & 3 {
                        1 => Direction::Inbound,
                        2 => Direction::Outbound,
                        _ => Direction::Unknown,
                    };
                }
                // Ours is the first; others may have written more.
                COMMENT if self.is_ours && marks == Marks::NONE => marks = note::marks(value),
                _ => {}
            }
        }
        (direction, marks)
    }
}
