use std::{
    io::{self, Read as _, Seek as _},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{Capture, CaptureCounts, End, Intake, MOST_OCTETS, Options, Output, Stream, start};
use crate::{
    collector::capture::PacketCapture as _,
    event::{Captured, LinkType, PacketEvent, Time},
    sink::{
        Room as _, SinkError,
        pcapng::tests::{Read, read},
    },
};

/// Longer than any test takes that passes.
const PATIENCE: Duration = Duration::from_secs(30);

fn options(count: Option<u64>) -> Options {
    let clock = || Time::from_unix_nanos(1);
    Options { snap_length: 65_535, filter: "udp".to_owned(), count, clock }
}

/// The packet that was seen at this nanosecond.
fn seen_at(nanos: i64) -> Captured {
    Captured {
        time: Time::from_unix_nanos(nanos),
        boot_ns: nanos.unsigned_abs(),
        ifindex: 3,
        interface: "eth0".into(),
        event: PacketEvent::Received,
        packets: 1,
        length: 64,
        bytes: vec![0xEE; 64].into(),
        ..Captured::default()
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

fn close(capture: Capture, losses: Vec<(String, u64)>) -> (CaptureCounts, Result<(), SinkError>) {
    now(capture.close(losses, std::future::pending()))
}

/// The times of the packets in a file, and its last block.
fn times(octets: &[u8]) -> (Vec<u64>, Option<Read>) {
    let mut blocks = read(octets);
    let times = blocks.iter().filter_map(|block| match block {
        Read::Packet { time, .. } => Some(*time),
        _ => None,
    });
    (times.collect(), blocks.pop())
}

/// What `feed` hands over, as a file has it.
fn captured(
    count: Option<u64>,
    feed: impl FnOnce(&Intake, &Capture),
) -> (CaptureCounts, Vec<u64>, Option<Read>) {
    let mut file: std::fs::File = memfd_create("capture", MemfdFlags::CLOEXEC).unwrap().into();
    let (intake, capture) = start(options(count), Stream::new(file.try_clone().unwrap())).unwrap();
    intake.watch(3, &"eth0".into(), LinkType::Ethernet);
    feed(&intake, &capture);
    let (counts, closed) = close(capture, vec![("lost".to_owned(), 8)]);
    closed.unwrap();
    let mut octets = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut octets).unwrap();
    assert_eq!(octets.len() as u64, {
        let (_, last) = times(&octets);
        // The counts are those of the moment before the statistics, or with them.
        assert!(matches!(last, Some(Read::Statistics { .. })), "{last:?}");
        counts.octets
    });
    let (times, last) = times(&octets);
    (counts, times, last)
}

#[test]
fn packets_of_several_cpus_stand_in_the_order_of_their_times() {
    let (counts, times, last) = captured(None, |intake, _| {
        for nanos in [5, 7, 9, 4, 6, 8] {
            intake.capture(&seen_at(nanos));
        }
    });
    assert_eq!(times, [4, 5, 6, 7, 8, 9]);
    assert_eq!((counts.written, counts.late, counts.failed, counts.queue_full), (6, 0, 0, 0));
    let Some(Read::Statistics { received, lost, delivered, comments, .. }) = last else { panic!("{last:?}") };
    assert_eq!((received, lost, delivered), (6, 0, 6));
    assert_eq!(comments, ["received=6 transmitted=0 dropped=0", "lost=8"]);
}

#[test]
fn each_is_written_once_all_before_it_are_there_and_not_later() {
    let (mut reader, writer) = io::pipe().unwrap();
    let (intake, capture) = start(options(None), Stream::new(writer)).unwrap();
    let mut octets = Vec::new();
    let mut until = |want: &[u64]| {
        let mut portion = [0; 4096];
        while times(&octets).0.len() < want.len() {
            let length = reader.read(&mut portion).unwrap();
            assert_ne!(length, 0, "it ended");
            octets.extend_from_slice(&portion[..length]);
        }
        assert_eq!(times(&octets).0, want);
    };
    // One CPU's, which are much later than what the other has to tell.
    intake.capture(&seen_at(5));
    intake.capture(&seen_at(90_000_000_000));
    intake.complete(4);
    intake.capture(&seen_at(4));
    intake.capture(&seen_at(6));
    intake.complete(6);
    until(&[4, 5, 6]);
    intake.complete(90_000_000_001);
    until(&[4, 5, 6, 90_000_000_000]);
    // Nothing waits: the thread is not woken.
    intake.complete(90_000_000_002);
    assert_eq!(intake.shared.queue.accepted(), 7);
    let (counts, closed) = close(capture, Vec::new());
    closed.unwrap();
    assert_eq!((counts.written, counts.late), (4, 0));
}

#[test]
fn what_is_said_of_the_packets_before_comes_through_a_full_queue() {
    let ((is_reached, reached), (go_on, may_go_on)) = (channel(), channel());
    let (intake, capture) = start(options(Some(1)), Held { writes: 0, is_reached, may_go_on }).unwrap();
    intake.watch(3, &"eth0".into(), LinkType::Ethernet);
    reached.recv().unwrap();
    let large = Captured { bytes: vec![0; 60_000].into(), ..seen_at(1) };
    (0..=MOST_OCTETS / super::weight(&large)).for_each(|_| intake.capture(&large));
    assert_eq!(intake.shared.counts().queue_full, 1);
    intake.complete(1);
    drop(go_on);
    // Nothing else says that the packet may be written.
    assert_eq!(now(capture.ended()), End::Complete);
    close(capture, Vec::new()).1.unwrap();
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_change_the_order() {
    let (counts, times, _) = captured(None, |intake, _| {
        for (boot_ns, nanos) in [(3, 103), (2, 102), (4, 1), (5, 2)] {
            intake.capture(&Captured { boot_ns, ..seen_at(nanos) });
        }
    });
    assert_eq!((times, counts.late), (vec![102, 103, 1, 2], 0));
}

#[test]
fn a_count_is_exact_and_ends_it() {
    let (counts, times, last) = captured(Some(3), |intake, capture| {
        for nanos in 1..=10 {
            intake.capture(&seen_at(nanos));
        }
        intake.complete(10);
        assert_eq!(now(capture.ended()), End::Complete);
        intake.capture(&seen_at(11));
    });
    assert_eq!(times, [1, 2, 3]);
    assert_eq!((counts.written, counts.surplus, counts.failed), (3, 8, 0));
    let Some(Read::Statistics { received, lost, delivered, .. }) = last else { panic!("{last:?}") };
    assert_eq!((received, lost, delivered), (11, 0, 3));
}

#[test]
fn no_packets_are_wanted_and_none_is_written() {
    let (counts, times, _) = captured(Some(0), |_, capture| assert_eq!(now(capture.ended()), End::Complete));
    assert_eq!((counts.written, times.len()), (0, 0));
}

#[test]
fn a_reader_sees_packets_while_the_capture_goes_on() {
    let (mut reader, writer) = io::pipe().unwrap();
    let (intake, capture) = start(options(None), Stream::new(writer)).unwrap();
    intake.capture(&seen_at(1));
    intake.complete(1);
    let mut octets = Vec::new();
    let mut portion = [0; 4096];
    while !read(&octets).iter().any(|block| matches!(block, Read::Packet { .. })) {
        let length = reader.read(&mut portion).unwrap();
        assert_ne!(length, 0, "it ended");
        octets.extend_from_slice(&portion[..length]);
    }
    close(capture, Vec::new()).1.unwrap();
}

#[test]
fn a_disk_that_is_full_from_the_start_is_told_before_anything_is_captured() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let error = start(options(None), Stream::new(full)).map(|_| ()).unwrap_err();
    let said = crate::error::with_causes(&error);
    assert!(said.starts_with("the capture output cannot be written to: No space left"), "{said}");
}

#[test]
fn a_reader_that_goes_is_an_error_and_what_it_missed_is_counted() {
    let (reader, writer) = io::pipe().unwrap();
    let (intake, capture) = start(options(None), Stream::new(writer)).unwrap();
    drop(reader);
    intake.capture(&seen_at(1));
    intake.complete(1);
    assert_eq!(now(capture.ended()), End::Failed);
    intake.capture(&seen_at(2));
    let (counts, closed) = close(capture, Vec::new());
    let said = crate::error::with_causes(&closed.unwrap_err());
    assert!(said.starts_with("the capture output cannot be written to: Broken pipe"), "{said}");
    assert_eq!((counts.written, counts.failed), (0, 2));
}

/// Takes the first block; says when it is reached after that, and goes on when it may.
struct Held {
    writes: u32,
    is_reached: Sender<()>,
    may_go_on: Receiver<()>,
}

impl io::Write for Held {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if self.writes > 1 {
            let _ = self.is_reached.send(());
            // Nobody holds it up any more once the sender is gone.
            let _ = self.may_go_on.recv();
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Held {
    fn take_back(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_is_slow_holds_up_nobody_and_its_losses_are_counted() {
    let ((is_reached, reached), (go_on, may_go_on)) = (channel(), channel());
    let (intake, capture) = start(options(None), Held { writes: 0, is_reached, may_go_on }).unwrap();
    intake.watch(3, &"eth0".into(), LinkType::Ethernet);
    reached.recv().unwrap();
    // The thread is held up: large packets fill the queue by their octets, long before they are too many.
    let large = Captured { bytes: vec![0; 60_000].into(), ..seen_at(1) };
    let fit = MOST_OCTETS / super::weight(&large);
    (0..fit + 5).for_each(|_| intake.capture(&large));
    assert_eq!(intake.shared.counts().queue_full, 5);
    drop(go_on);
    let (counts, closed) = close(capture, Vec::new());
    closed.unwrap();
    assert_eq!((counts.written, counts.queue_full, counts.failed), (fit as u64, 5, 0));
}

#[test]
fn a_reader_that_is_stuck_is_left_behind() {
    let ((is_reached, reached), (_go_on, may_go_on)) = (channel(), channel());
    let (intake, capture) = start(options(None), Held { writes: 0, is_reached, may_go_on }).unwrap();
    intake.watch(3, &"eth0".into(), LinkType::Ethernet);
    reached.recv().unwrap();
    intake.capture(&seen_at(1));
    let (counts, closed) = now(capture.close(Vec::new(), std::future::ready(())));
    assert!(matches!(closed, Err(SinkError::Stuck { unwritten: 1, .. })), "{closed:?}");
    assert_eq!((counts.written, counts.failed), (0, 1));
}

#[test]
fn at_the_end_there_is_time_for_a_slow_reader() {
    let ((is_reached, reached), (go_on, may_go_on)) = (channel(), channel());
    let (intake, capture) = start(options(None), Held { writes: 0, is_reached, may_go_on }).unwrap();
    intake.watch(3, &"eth0".into(), LinkType::Ethernet);
    reached.recv().unwrap();
    intake.wait_for_room();
    let feeding = intake.clone();
    // More than there is room for, by their octets.
    let large = Captured { bytes: vec![0; 60_000].into(), ..seen_at(1) };
    let many = MOST_OCTETS / super::weight(&large) + 100;
    let fed = thread::spawn(move || (0..many).for_each(|_| feeding.capture(&large)));
    drop(go_on);
    fed.join().unwrap();
    let (counts, closed) = close(capture, Vec::new());
    closed.unwrap();
    assert_eq!((counts.written, counts.queue_full), (many as u64, 0));
}
