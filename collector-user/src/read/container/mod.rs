//! Containers of captures: pcap and pcapng, plain or compressed, as records in the order of the file.
//!
//! A reader of our own, since no crate that is at hand does all of what is asked for. pcap-parser 0.17 knows no time
//! resolution that is a power of two (it refuses each), reads `if_tsoffset` of big-endian sections in the wrong order, and says
//! of an error neither where nor what the system said; pcap-file 2.0 reads every time as nanoseconds, and 3.0 is a release
//! candidate that refuses packets longer than the snap length of the file and takes a length that lies for a file that is cut.
//! What there is to read is two headers of pcap and five blocks of pcapng. The tests hold it against pcap-parser.
//!
//! Memory is bounded by [`MOST_BLOCK`], and what the decompressor keeps.

mod block;
mod error;
pub mod links;
mod note;
mod order;
mod pcap;
mod pcapng;
mod source;
mod unit;
mod zstd;

use std::io::{self, Read};

pub use error::ContainerError;
pub use note::DropNote;
use pcap::Pcap;
use pcapng::Pcapng;
use source::Source;

/// Octets of a frame at most; super-packets of the kernel have 512 KiB at most (`GSO_MAX_SIZE`).
pub const MOST_FRAME: u32 = 1 << 20;
/// Octets at most of a pcapng block that is looked into; others are passed over, whatever they have.
pub const MOST_BLOCK: u32 = 16 << 20;

/// Which way a packet went, as its capture saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Nobody has said.
    #[default]
    Unknown,
    /// It came in.
    Inbound,
    /// It went out.
    Outbound,
}

impl Direction {
    /// This, or the other where this is not known.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Unknown { other } else { self }
    }
}

/// What our own captures say of a packet, beside what the format has a field for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks<'a> {
    /// Wire packets that it stands for.
    pub packets: u32,
    /// Where it is a packet that the kernel dropped: why, where, and whose it was.
    pub dropped: Option<DropNote<'a>>,
}

impl Marks<'_> {
    /// A packet that stands for itself.
    pub const NONE: Self = Self { packets: 1, dropped: None };
}

/// A frame as it lies in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where its record or block begins, in octets from the file's start.
    pub offset: u64,
    /// The number of its interface in its section; 0 in pcap.
    pub interface: u32,
    /// What it begins with, by its number at IANA's registry of link types.
    pub link: u16,
    /// Nanoseconds since 1970; simple packet blocks have no time.
    pub time: Option<i64>,
    /// What was captured of it, without a frame check sequence.
    pub octets: &'a [u8],
    /// Octets that it had, without a frame check sequence: at least as many.
    pub length: u32,
    /// Which way it went.
    pub direction: Direction,
    /// What our own captures say of it.
    pub marks: Marks<'a>,
}

/// A capture that is read from its beginning to its end.
pub struct Capture<'a> {
    source: Source<'a>,
    format: Format,
    /// Octets of the record that was handed out.
    taken: usize,
}

enum Format {
    Pcap(Pcap),
    Pcapng(Box<Pcapng>),
}

/// What goes wrong on the way, where the place is not known yet.
enum Wrong {
    Read(io::Error),
    Container(ContainerError),
}

impl From<ContainerError> for Wrong {
    fn from(error: ContainerError) -> Self {
        Self::Container(error)
    }
}

impl Wrong {
    fn at(self, offset: u64) -> ContainerError {
        match self {
            Self::Read(source) => ContainerError::Read { offset, source },
            Self::Container(error) => error,
        }
    }
}

impl<'a> Capture<'a> {
    /// Begins to read: what it is shows in its first octets.
    ///
    /// # Errors
    ///
    /// [`ContainerError`].
    pub fn open(input: impl Read + 'a) -> Result<Self, ContainerError> {
        let failed = |source| ContainerError::Read { offset: 0, source };
        let mut source = Source::new(input).map_err(failed)?;
        let begin = source.look(4).map_err(failed)?;
        let no_capture = ContainerError::NotACapture { begin: begin.to_vec() };
        let Ok(magic) = <[u8; 4]>::try_from(begin) else { return Err(no_capture) };
        let format = if let Some(pcap) = Pcap::of_magic(magic) {
            Format::Pcap(pcap.begin(&mut source)?)
        } else if Pcapng::begins_with(magic) {
            Format::Pcapng(Box::default())
        } else {
            return Err(no_capture);
        };
        Ok(Self { source, format, taken: 0 })
    }

    /// The next frame; `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// [`ContainerError`], after which there is nothing more to be read.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ContainerError> {
        self.source.take(std::mem::take(&mut self.taken));
        let offset = self.source.offset();
        let next = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.source),
            Format::Pcapng(pcapng) => pcapng.next(&mut self.source),
        };
        match next {
            Ok(None) => Ok(None),
            Ok(Some((record, taken))) => {
                self.taken = taken;
                Ok(Some(record))
            }
            Err(wrong) => Err(wrong.at(offset)),
        }
    }

    /// How far was read, in octets from the file's start.
    pub const fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The name of an interface of the section, where that is known.
    pub fn interface(&self, number: u32) -> &str {
        match &self.format {
            Format::Pcap(_) => "",
            Format::Pcapng(pcapng) => pcapng.interface_name(number),
        }
    }
}

#[cfg(test)]
mod tests;
