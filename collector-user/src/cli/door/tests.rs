//! A door before a daemon that the tests play.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use super::{Door, MOST_VISITORS};
use crate::{cli::books::Books, config::Socket, daemon::inquiry::Inquirer};

/// A folder that goes when it is dropped.
pub(in crate::cli) struct Folder(pub(in crate::cli) PathBuf);

impl Folder {
    pub(in crate::cli) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("collector-door-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is answered to these octets, and that nothing comes behind it.
fn ask(at: &std::path::Path, octets: &[u8]) -> String {
    let mut visitor = UnixStream::connect(at).unwrap();
    // Who has heard enough may close before the end.
    let _ = visitor.write_all(octets);
    answer(visitor)
}

fn answer(visitor: UnixStream) -> String {
    let mut answer = String::new();
    BufReader::new(visitor).read_line(&mut answer).unwrap();
    answer
}

/// A door of a daemon that has ended.
fn door(folder: &Folder) -> (Door, PathBuf) {
    let path = folder.0.join("s");
    let door = Door::open(&Socket::At(path.clone()), Inquirer::default(), Books::default()).unwrap().unwrap();
    (door, path)
}

#[test]
fn whatever_is_said_is_answered_by_a_line() {
    let folder = Folder::new();
    let (door, path) = door(&folder);
    let long = "x".repeat(100_000);
    for (said, want) in [
        (&b"{\"version\":1,\"ask\":\"units\"}\n"[..], "the collector has ended"),
        (b"nonsense\n", "the request is not understood"),
        (long.as_bytes(), "the request has no end within 4096 octets"),
    ] {
        let answer = ask(&path, said);
        assert!(answer.starts_with(r#"{"version":1,"error":""#) && answer.contains(want), "{answer}");
    }
    let half = UnixStream::connect(&path).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(half), "", "who asks nothing gets nothing");
    drop(door);
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn who_says_nothing_holds_up_nobody_for_long() {
    let folder = Folder::new();
    let (_door, path) = door(&folder);
    let silent: Vec<_> = (1..MOST_VISITORS).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert!(ask(&path, b"nonsense\n").contains("not understood"), "there is room for one more");
    let last = UnixStream::connect(&path).unwrap();
    // Waits until one of them is sent away.
    assert!(ask(&path, b"nonsense\n").contains("not understood"));
    for visitor in silent.into_iter().chain([last]) {
        assert!(answer(visitor).contains("nothing was asked for 5 s"));
    }
}

#[test]
fn where_none_is_wanted_there_is_none() {
    assert!(Door::open(&Socket::None, Inquirer::default(), Books::default()).unwrap().is_none());
}
