//! Where blocks go, and never a part of one where that can be helped.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use rustix::fs::{SeekFrom, ftruncate, seek};

use crate::sink::{
    pcapng::{Whole, whole},
    waiting::Waiting,
};

/// Octets that are gathered before they are written, where packets come faster than they are written.
const GATHERED: usize = 256 * 1024;

/// Takes octets, and takes the last of them back where it can.
pub trait Output: Write + Send {
    /// Takes back the last `octets` that were written.
    ///
    /// # Errors
    ///
    /// Where what was written is gone: into a pipe.
    fn take_back(&mut self, octets: u64) -> io::Result<()>;
}

/// A file, a pipe, standard output: whatever has a descriptor. Waits where that does not block.
pub struct Stream<W>(Waiting<W>);

impl<W: Write + AsFd> Stream<W> {
    /// Writes to `out`, which should not buffer.
    pub const fn new(out: W) -> Self {
        Self(Waiting(out))
    }
}

impl<W: Write + AsFd> Write for Stream<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write + AsFd + Send> Output for Stream<W> {
    fn take_back(&mut self, octets: u64) -> io::Result<()> {
        let Self(Waiting(file)) = self;
        // Relative to where the last write ended: the file may have begun before us.
        let end = seek(&*file, SeekFrom::Current(0))?.saturating_sub(octets);
        ftruncate(&*file, end)?;
        seek(&*file, SeekFrom::Start(end))?;
        Ok(())
    }
}

/// Blocks on their way out. The first write that fails is the end.
pub(super) struct Blocks<W> {
    out: W,
    /// Whole blocks.
    pub(super) gathered: Vec<u8>,
    /// What was written so far.
    written: Whole,
}

impl<W: Output> Blocks<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out, gathered: Vec::new(), written: Whole::NOTHING }
    }

    pub(super) fn is_full(&self) -> bool {
        self.gathered.len() >= GATHERED
    }

    /// What was written, whole blocks only.
    pub(super) const fn written(&self) -> Whole {
        self.written
    }

    /// Writes what was gathered. Where that fails, the file ends with the last block that was written whole, unless it is
    /// one from which nothing can be taken back.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let mut done = 0;
        let mut outcome = Ok(());
        while let Some(rest) = self.gathered.get(done..)
            && !rest.is_empty()
            && outcome.is_ok()
        {
            match self.out.write(rest) {
                Ok(0) => outcome = Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => outcome = Err(error),
            }
        }
        let outcome = outcome.and_then(|()| self.out.flush());
        let whole = whole(self.gathered.get(..done).unwrap_or_default());
        let cut = done.saturating_sub(whole.octets as usize);
        if cut > 0 {
            // A pipe keeps the part: its reader sees a file that ends too early, which the error says as well.
            let _ = self.out.take_back(cut as u64);
        }
        self.written = self.written.and(whole);
        self.gathered.clear();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{self, Read as _, Seek as _, Write},
    };

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::{Blocks, Output, Stream};
    use crate::{
        event::{Captured, Time},
        sink::pcapng::{Section, Whole, whole},
    };

    /// A disk with so much room, which takes a part of what it has no room for, as a disk does.
    struct Disk {
        file: Stream<File>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let Some(fits) = octets.get(..octets.len().min(self.room)).filter(|fits| !fits.is_empty()) else {
                return Err(io::ErrorKind::StorageFull.into());
            };
            self.room -= fits.len();
            self.file.write(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Disk {
        fn take_back(&mut self, octets: u64) -> io::Result<()> {
            self.file.take_back(octets)
        }
    }

    fn file() -> File {
        memfd_create("capture", MemfdFlags::CLOEXEC).unwrap().into()
    }

    /// Three packets, and where each block ends.
    fn section() -> (Vec<u8>, Vec<usize>) {
        let mut out = Vec::new();
        Section::begin(&mut out);
        let mut ends = vec![0, out.len()];
        let mut section = Section::new(100, String::new(), Time::EPOCH);
        for length in 1..4 {
            let packet = Captured { bytes: vec![7; length].into(), ..Captured::default() };
            section.packet(&packet, &mut out);
            ends.push(out.len());
        }
        (out, ends)
    }

    #[test]
    fn a_disk_that_is_full_has_whole_blocks_only() {
        let (octets, ends) = section();
        for room in 0..octets.len() {
            let out = file();
            let mut read = out.try_clone().unwrap();
            let mut blocks = Blocks::new(Disk { file: Stream::new(out), room });
            // In two portions, so that what is taken back is not counted from the file's begin.
            let (first, second) = octets.split_at(ends[1]);
            let written = [first, second].iter().try_for_each(|portion| {
                blocks.gathered.extend_from_slice(portion);
                blocks.settle()
            });
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
            let mut left = Vec::new();
            read.rewind().unwrap();
            read.read_to_end(&mut left).unwrap();
            assert!(octets.starts_with(&left) && left.len() <= room);
            assert_eq!(whole(&left).octets, left.len() as u64, "of {room}");
            // The first packet stands behind the block of its interface.
            let packets = ends.iter().skip(2).filter(|end| **end <= left.len()).count() as u64;
            assert_eq!(blocks.written(), Whole { octets: left.len() as u64, packets });
        }
    }

    #[test]
    fn a_file_that_others_began_keeps_what_they_wrote() {
        let mut out = file();
        out.write_all(b"theirs").unwrap();
        let mut stream = Stream::new(out.try_clone().unwrap());
        stream.write_all(b"ours").unwrap();
        stream.take_back(3).unwrap();
        stream.write_all(b"!").unwrap();
        let mut left = String::new();
        out.rewind().unwrap();
        out.read_to_string(&mut left).unwrap();
        assert_eq!(left, "theirso!");
    }

    #[test]
    fn a_pipe_takes_nothing_back() {
        let (_reader, writer) = io::pipe().unwrap();
        assert!(Stream::new(writer).take_back(1).is_err());
    }
}
