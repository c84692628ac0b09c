//! Outputs to real files, pipes and sockets, those that fail among them.

use std::{
    cell::Cell,
    fs,
    future::{pending, ready},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::{OutputError, Outputs};
use crate::{
    cli::say::Voice,
    collector::EventCollector as _,
    config::{Config, LogFormat},
    event::{CounterReport, Event, FlowRecord, Status},
    sink::SinkError,
};

/// Longer than any test takes that passes.
const GRACE: Duration = Duration::from_secs(30);

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("collector-outputs-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Outputs as a file says, `DIR` standing for this folder.
    fn open(&self, text: &str) -> Result<Outputs, OutputError> {
        let text = text.replace("DIR", self.0.to_str().unwrap());
        Outputs::open(&Config::parse(&text, Path::new("c.toml")).unwrap(), crate::clock::wall)
    }

    fn events(&self, name: &str) -> Vec<Event> {
        let text = fs::read_to_string(self.file(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(GRACE, future).await.unwrap() })
}

fn close(outputs: Outputs) -> Result<(), SinkError> {
    let voice = Voice::new(LogFormat::Text);
    block_on(outputs.close(&voice, Some(Status::default()), pending))
}

fn status(events: &[Event]) -> &Status {
    let Some(Event::Status(status)) = events.last() else { panic!("{events:?}") };
    status
}

#[test]
fn each_output_has_its_kinds_and_all_have_the_whole_ledger_last() {
    let folder = Folder::new();
    let text = "[[output]]\ntype = \"json\"\nto = \"DIR/all\"\n\
                [[output]]\ntype = \"json\"\nto = \"DIR/flows\"\nname = \"flows\"\nevents = [\"flow\"]\n\
                [[output]]\ntype = \"text\"\nto = \"DIR/text\"\n";
    let outputs = folder.open(text).unwrap();
    outputs.collector().collect_flow_event(&FlowRecord::default());
    outputs.collector().collect_counter_event(&CounterReport::default());
    close(outputs).unwrap();
    let kinds = |name: &str| folder.events(name).iter().map(Event::kind).collect::<Vec<_>>();
    assert_eq!(kinds("all"), ["flow", "counter", "status"]);
    assert_eq!(kinds("flows"), ["flow", "status"]);
    let (all, flows) = (folder.events("all"), folder.events("flows"));
    assert_eq!(status(&all), status(&flows));
    let ledger = &status(&all).ledger;
    assert_eq!((ledger.delivered["json"], ledger.delivered["flows"], ledger.delivered["text"]), (2, 1, 2));
    assert_eq!((ledger.queue_full["flows"], ledger.sink_failed["json"]), (0, 0));
    assert_eq!(fs::metadata(folder.file("all")).unwrap().permissions().mode() & 0o137, 0);
    // A second run appends.
    close(folder.open(text).unwrap()).unwrap();
    assert_eq!(kinds("flows"), ["flow", "status", "status"]);
}

#[test]
fn a_full_disk_costs_its_own_output_only_and_is_told_at_the_end() {
    let folder = Folder::new();
    let text = "[[output]]\ntype = \"json\"\nto = \"/dev/full\"\nname = \"full\"\n\
                [[output]]\ntype = \"json\"\nto = \"DIR/good\"\nname = \"good\"\n";
    let outputs = folder.open(text).unwrap();
    outputs.collector().collect_flow_event(&FlowRecord::default());
    block_on(outputs.sinks[0].writer.ended());
    for _ in 0..9 {
        outputs.collector().collect_flow_event(&FlowRecord::default());
    }
    let error = close(outputs).unwrap_err();
    assert_eq!(
        crate::error::with_causes(&error),
        "the full output cannot be written to: No space left on device (os error 28)"
    );
    let events = folder.events("good");
    assert_eq!(events.len(), 11);
    let ledger = &status(&events).ledger;
    assert_eq!((ledger.delivered["full"], ledger.sink_failed["full"]), (0, 10));
    assert_eq!((ledger.delivered["good"], ledger.sink_failed["good"]), (10, 0));
}

#[test]
fn the_run_ends_with_the_last_output() {
    let folder = Folder::new();
    let text =
        "[[output]]\ntype = \"json\"\nto = \"/dev/full\"\n[[output]]\ntype = \"text\"\nto = \"DIR/pipe\"\n";
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.file("pipe"), rustix::fs::Mode::RWXU).unwrap();
    // Nobody reads: told at once, not waited for.
    let error = folder.open(text).err().unwrap();
    let want = format!(
        "the text output cannot write to {}: a named pipe must have a reader first",
        folder.file("pipe").display()
    );
    assert!(error.to_string().starts_with(&want), "{error}");
    let reader = rustix::fs::open(
        folder.file("pipe"),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    let outputs = folder.open(text).unwrap();
    let reader = reader.unwrap();
    outputs.collector().collect_flow_event(&FlowRecord::default());
    block_on(outputs.sinks[0].writer.ended());
    drop(reader);
    outputs.collector().collect_flow_event(&FlowRecord::default());
    block_on(outputs.all_ended());
    // A reader that had enough is no failure; the disk is.
    assert!(close(outputs).unwrap_err().to_string().starts_with("the json output cannot be written to"));
}

#[test]
fn an_output_that_is_stuck_is_given_up_and_the_others_have_their_last_line() {
    let folder = Folder::new();
    let _unread = UnixDatagram::bind(folder.file("log")).unwrap();
    // Another process's entries: the socket has no room for a single one of ours.
    let other = UnixDatagram::unbound().unwrap();
    other.connect(folder.file("log")).unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send(b"entry").is_ok() {}
    let text = "[[output]]\ntype = \"log\"\nto = \"syslog:DIR/log\"\nqueue = 10\n\
                [[output]]\ntype = \"json\"\nto = \"DIR/good\"\n";
    let outputs = folder.open(text).unwrap();
    // More than the queue holds, and the batch that its thread has taken.
    for _ in 0..5_000 {
        outputs.collector().collect_flow_event(&FlowRecord::default());
    }
    // Of the log, which is asked first, nobody waits for anything.
    let asked = Cell::new(false);
    let give_up = || {
        let is_log = !asked.replace(true);
        async move { if is_log { ready(()).await } else { pending().await } }
    };
    let voice = Voice::new(LogFormat::Text);
    let error = block_on(outputs.close(&voice, Some(Status::default()), give_up)).unwrap_err();
    assert!(matches!(error, SinkError::Stuck { .. }), "{error}");
    let events = folder.events("good");
    let ledger = &status(&events).ledger;
    assert_eq!(ledger.delivered["json"], 5_000);
    assert_eq!(ledger.delivered["log"] + ledger.queue_full["log"] + ledger.sink_failed["log"], 5_000);
    assert_eq!(ledger.delivered["log"], 0);
    assert!(ledger.sink_failed["log"] > 0 && ledger.queue_full["log"] > 0, "{ledger:?}");
}

#[test]
fn without_a_status_what_was_handed_over_is_written_all_the_same() {
    let folder = Folder::new();
    let outputs = folder.open("[[output]]\ntype = \"json\"\nto = \"DIR/f\"\n").unwrap();
    outputs.collector().collect_flow_event(&FlowRecord::default());
    block_on(outputs.close(&Voice::new(LogFormat::Text), None, pending)).unwrap();
    assert_eq!(folder.events("f").iter().map(Event::kind).collect::<Vec<_>>(), ["flow"]);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = Folder::new();
    for (text, want) in [
        ("type = \"json\"\nto = \"DIR/no/f\"", "/no/f: the folder must be there"),
        ("type = \"log\"\nto = \"journal:DIR/no\"", "/no: the socket must be there"),
    ] {
        let error = folder.open(&format!("[[output]]\n{text}\n")).err().unwrap();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn one_place_by_two_names_is_refused_and_both_outputs_are_named() {
    let folder = Folder::new();
    fs::write(folder.file("f"), "").unwrap();
    std::os::unix::fs::symlink("f", folder.file("symlink")).unwrap();
    fs::hard_link(folder.file("f"), folder.file("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.file("pipe"), rustix::fs::Mode::RWXU).unwrap();
    std::os::unix::fs::symlink("pipe", folder.file("same-pipe")).unwrap();
    let _reader = fs::File::options().read(true).write(true).open(folder.file("pipe")).unwrap();
    let two = |first: &str, second: &str| {
        let table =
            |name: &str, to: &str| format!("[[output]]\ntype = \"json\"\nname = \"{name}\"\nto = \"{to}\"\n");
        folder.open(&(table("one", first) + &table("two", second)))
    };
    for (first, second) in [("DIR/f", "DIR/symlink"), ("DIR/link", "DIR/f"), ("DIR/pipe", "DIR/same-pipe")] {
        let error = two(first, second).err().unwrap();
        assert!(matches!(error, OutputError::SharedPlace { .. }), "{error}");
        let dir = folder.0.display().to_string();
        let [first, second] = [first, second].map(|to| to.replace("DIR", &dir));
        let want = format!(
            "the two output cannot write to {second}: that is {first}, where the one output writes: "
        );
        assert!(error.to_string().starts_with(&want), "{error}");
    }
    // What is written to a device does not stay.
    std::os::unix::fs::symlink("/dev/null", folder.file("null")).unwrap();
    close(two("/dev/null", "DIR/null").unwrap()).unwrap();
    close(two("DIR/f", "DIR/other").unwrap()).unwrap();
}
