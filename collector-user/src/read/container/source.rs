//! The octets of a file, in order, a bounded window of them at hand.

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::zstd::{self, Zstd};

/// Octets that are read at once.
const STEP: usize = 256 << 10;
/// RFC 1952 section 2.3.1.
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// What is read, decompressed where it is compressed.
pub(super) struct Source<'a> {
    input: Box<dyn Read + 'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of `start`, from the beginning of all.
    offset: u64,
    is_over: bool,
}

impl<'a> Source<'a> {
    /// Looks at the first octets for how it is compressed.
    pub(super) fn new(mut input: impl Read + 'a) -> io::Result<Self> {
        let mut begin = Vec::new();
        input.by_ref().take(zstd::MAGIC as u64).read_to_end(&mut begin)?;
        let (is_gzip, is_zstd) = (begin.starts_with(&GZIP), zstd::is_begun(&begin));
        let whole = Cursor::new(begin).chain(input);
        let input: Box<dyn Read + 'a> = if is_gzip {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(STEP, whole)))
        } else if is_zstd {
            Box::new(Zstd::new(BufReader::with_capacity(STEP, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { input, buffer: vec![0; STEP], start: 0, end: 0, offset: 0, is_over: false })
    }

    /// How far all before was taken.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next `length` octets, which stay where they are; fewer where there are no more.
    pub(super) fn look(&mut self, length: usize) -> io::Result<&[u8]> {
        if self.end - self.start < length {
            self.fill(length)?;
        }
        let end = self.end.min(self.start + length);
        Ok(self.buffer.get(self.start..end).unwrap_or_default())
    }

    /// Reads until `length` octets are at hand, or there are no more.
    #[cold]
    fn fill(&mut self, length: usize) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() < length {
            self.buffer.resize(length.next_multiple_of(STEP), 0);
        }
        while self.end < length && !self.is_over {
            match self.input.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => self.is_over = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Leaves behind as many octets, which were looked at.
    pub(super) fn take(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
        self.offset += length as u64;
    }

    /// Leaves behind as many octets, unseen; how many there were.
    pub(super) fn skip(&mut self, length: u64) -> io::Result<u64> {
        let mut left = length;
        while left != 0 {
            let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
            let found = self.look(step)?.len();
            self.take(found);
            left -= found as u64;
            if found < step {
                break;
            }
        }
        Ok(length - left)
    }
}
