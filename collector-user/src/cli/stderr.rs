//! Standard error behind a bounded queue and a thread of its own: the daemon's task speaks to it, and a reader that has
//! stopped (a terminal after Ctrl-S, a full pipe) must hold up neither the counting, nor the outputs, nor the end.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use crate::sink::bounded::Bounded;

/// Lines that wait at most; a run says a few, and a log at `debug` some hundred a second.
const CAPACITY: usize = 1024;
/// How long the end waits for lines that are not read.
const MOMENT: Duration = Duration::from_secs(1);

/// Takes lines in and does not wait. Clones speak to the same thread.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    queue: Bounded<Vec<u8>>,
    /// Lines that found no room, or were not taken, and of which nothing was said yet.
    lost: AtomicU64,
}

/// Lets what waits be written.
pub(super) struct Rest {
    lines: Lines,
    written: Receiver<()>,
}

/// Begins to write to `out`. Where lines were lost, `gap` makes the line that says how many.
///
/// # Errors
///
/// What the system says where there is no thread.
pub(super) fn start(
    mut out: impl io::Write + Send + 'static,
    gap: impl Fn(u64) -> String + Send + 'static,
) -> io::Result<(Lines, Rest)> {
    let lines = Lines(Arc::new(Shared { queue: Bounded::new(CAPACITY), lost: AtomicU64::new(0) }));
    let Lines(shared) = lines.clone();
    let (done, written) = channel();
    thread::Builder::new().name("stderr".to_owned()).spawn(move || {
        let mut batch = Vec::new();
        while shared.queue.take(&mut batch, CAPACITY) {
            // Those were lost behind what is in the batch: it was what filled the queue.
            let lost = shared.lost.swap(0, Relaxed);
            for line in batch.drain(..) {
                if out.write_all(&line).is_err() {
                    shared.lost.fetch_add(1, Relaxed);
                }
            }
            if lost != 0 && out.write_all(gap(lost).as_bytes()).is_err() {
                shared.lost.fetch_add(lost, Relaxed);
            }
        }
        // Who waits for it may have left.
        let _ = done.send(());
    })?;
    Ok((lines.clone(), Rest { lines, written }))
}

impl Lines {
    /// Hands a line over, or counts it as lost.
    pub(super) fn push(&self, line: impl FnOnce() -> Vec<u8>) {
        let Self(shared) = self;
        if shared.queue.push(line).is_err() {
            shared.lost.fetch_add(1, Relaxed);
        }
    }
}

/// What the log writes is a line each.
impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(|| line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Rest {
    /// Waits until all that was handed over is written, for a second at most: who does not read that long has stopped.
    pub(super) fn finish(self) {
        let Self { lines: Lines(shared), written } = self;
        shared.queue.close();
        let _ = written.recv_timeout(MOMENT);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::mpsc::{Receiver, Sender, channel},
    };

    use super::{CAPACITY, start};

    /// Says when it is reached, and takes nothing until it may.
    struct Held {
        is_reached: Sender<Vec<u8>>,
        may_go_on: Receiver<()>,
    }

    impl io::Write for Held {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let _ = self.is_reached.send(octets.to_vec());
            self.may_go_on.recv().map_err(|_gone| io::Error::other("it never goes on"))?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_holds_up_nobody_and_hears_what_it_missed() {
        let (is_reached, reached) = channel();
        let (go_on, may_go_on) = channel();
        let (lines, rest) = start(Held { is_reached, may_go_on }, |lost| format!("{lost} lost")).unwrap();
        lines.push(|| b"first".to_vec());
        assert_eq!(reached.recv().unwrap(), b"first");
        // The first is under way; as many wait as there is room for, three are too many.
        (0..CAPACITY + 3).for_each(|nth| lines.push(|| nth.to_string().into_bytes()));
        (0..=CAPACITY + 1).for_each(|_| go_on.send(()).unwrap());
        for nth in 0..CAPACITY {
            assert_eq!(reached.recv().unwrap(), nth.to_string().into_bytes());
        }
        assert_eq!(reached.recv().unwrap(), b"3 lost");
        rest.finish();
    }

    #[test]
    fn the_end_waits_for_what_is_read_and_not_for_what_is_not() {
        let (is_reached, reached) = channel();
        let (go_on, may_go_on) = channel();
        let (lines, rest) = start(Held { is_reached, may_go_on }, |lost| format!("{lost} lost")).unwrap();
        go_on.send(()).unwrap();
        lines.push(|| b"read".to_vec());
        lines.push(|| b"not read".to_vec());
        // Returns, though the second is held for as long as the test has `go_on`.
        rest.finish();
        assert_eq!(
            [reached.recv().unwrap(), reached.recv().unwrap()],
            [b"read".to_vec(), b"not read".to_vec()]
        );
        drop(go_on);
    }
}
