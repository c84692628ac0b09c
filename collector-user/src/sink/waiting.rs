//! A stream that waits where it should.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};

/// A stream that blocks, whoever made its file non-blocking.
///
/// That is a property of the open file, which standard output and standard error share with others: a shell, a reader on
/// the same terminal. Such a stream is full for a moment, and has not failed.
pub(crate) struct Waiting<W>(pub(crate) W);

impl<W: Write + AsFd> Waiting<W> {
    /// Tries until the stream takes something or fails.
    fn retry<T>(&mut self, mut attempt: impl FnMut(&mut W) -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                outcome => return outcome,
            }
        }
    }

    /// Returns once there is room, or an error that the next attempt will name.
    fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl<W: Write + AsFd> Write for Waiting<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        // One that would block has taken nothing.
        self.retry(|stream| stream.write(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.retry(Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, PipeWriter, Read as _, Write},
        os::fd::{AsFd, BorrowedFd},
        sync::mpsc::{Sender, channel},
        thread,
    };

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    use super::Waiting;
    use crate::{
        event::{Event, FlowRecord, Time},
        sink::{Format as _, Target as _, json::Json, lines::Lines},
    };

    /// A pipe that says when it is full.
    struct Pipe {
        writer: PipeWriter,
        full: Sender<()>,
    }

    impl Write for Pipe {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.writer.write(octets).inspect_err(|error| {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                let _ = self.full.send(());
            })
        }

        fn flush(&mut self) -> io::Result<()> {
            self.writer.flush()
        }
    }

    impl AsFd for Pipe {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.writer.as_fd()
        }
    }

    #[test]
    fn a_pipe_that_does_not_block_has_every_line_whole_and_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | OFlags::NONBLOCK).unwrap();
        let (full, is_full) = channel();
        let events = (0..5_000).map(|packets| Event::Flow(FlowRecord { packets, ..FlowRecord::default() }));
        let mut want = Vec::new();
        let mut lines = Lines::new(Json, Waiting(Pipe { writer, full }));
        for event in events {
            Json.write(Time::default(), &event, &mut want).unwrap();
            lines.put(Time::default(), &event).unwrap();
        }
        let written = thread::spawn(move || lines.settle());
        // Nobody reads before it was full: it takes less than there is.
        is_full.recv().unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        written.join().unwrap().unwrap();
        assert!(read == want, "{} octets of {}", read.len(), want.len());
    }

    #[test]
    fn a_reader_that_goes_is_told_to_who_waits() {
        let (reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | OFlags::NONBLOCK).unwrap();
        let waits = thread::spawn(move || Waiting(writer).write_all(&vec![b'.'; 4 << 20]));
        drop(reader);
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
