//! Zstandard (RFC 8878): frames one after another, whose contents follow one another; frames without content between them are
//! passed over. Where a frame is cut off or damaged, what was decompressed before that is read first.

use std::io::{self, BufRead as _, BufReader, Read};

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// Octets by which a frame is known.
pub(super) const MAGIC: usize = 4;

/// Whether a file that begins so is one: by a frame (section 3.1.1), or by one without content (section 3.1.2).
pub(super) fn is_begun(begin: &[u8]) -> bool {
    match begin {
        [0x28, 0xB5, 0x2F, 0xFD] => true,
        [first, 0x2A, 0x4D, 0x18] => first & 0xF0 == 0x50,
        _ => false,
    }
}

/// What is decompressed. It needs as much memory as a frame's window has, 128 MiB at the most, and half as much again while that
/// grows.
pub(super) struct Zstd<R: Read> {
    input: BufReader<R>,
    frame: FrameDecoder,
    stands: Stands,
}

/// Where it stands.
enum Stands {
    /// Between frames.
    Between,
    /// Within one.
    Within,
    /// Behind the last block that could be decompressed, of which not all is read yet.
    Before(io::Error),
    /// At the end.
    Over,
}

/// The frame's decoder keeps what a later block may refer to until it has seen the last one: this is one, without content
/// (section 3.1.1.2), and the checksum that may follow it.
const LAST_BLOCK: [u8; 7] = [1, 0, 0, 0, 0, 0, 0];

impl<R: Read> Zstd<R> {
    pub(super) fn new(input: BufReader<R>) -> Self {
        Self { input, frame: FrameDecoder::new(), stands: Stands::Between }
    }

    /// Begins the next frame; `false` where there is none.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            match self.input.fill_buf() {
                Ok([]) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            match self.frame.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut self.input.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped != u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Decompresses until there is something to be read, or the frame ends.
    fn go_on(&mut self) {
        while self.frame.can_collect() == 0 && !self.frame.is_finished() {
            let decoded = self.frame.decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1));
            let Err(error) = decoded else { continue };
            let ended = self.frame.decode_blocks(&LAST_BLOCK[..], BlockDecodingStrategy::All);
            self.stands = Stands::Before(io::Error::other(error));
            if ended.is_err() {
                return;
            }
        }
    }

    /// Whether what was decompressed of the frame is what was compressed, as far as that is said.
    fn check(&self) -> io::Result<()> {
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(said), Some(found)) if said != found => Err(io::Error::other(format!(
                "a zstd frame has the checksum {found:#010x}, and says that it is {said:#010x}"
            ))),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stands {
                Stands::Over => return Ok(0),
                Stands::Between => {
                    self.stands = Stands::Over;
                    if self.begin()? {
                        self.stands = Stands::Within;
                    }
                    continue;
                }
                Stands::Within => self.go_on(),
                Stands::Before(_) => {}
            }
            let read = self.frame.read(into)?;
            if read != 0 || into.is_empty() {
                return Ok(read);
            }
            match std::mem::replace(&mut self.stands, Stands::Over) {
                Stands::Before(error) => return Err(error),
                _ => self.check()?,
            }
            self.stands = Stands::Between;
        }
    }
}
