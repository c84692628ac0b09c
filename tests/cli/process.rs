//! A network of two namespaces, and the collector running in one of them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use rustix::{
    process::{Pid, WaitOptions, waitpid},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde_json::Value;

use crate::release;

/// The program under test.
pub(crate) const COLLECTOR: &str = env!("CARGO_BIN_EXE_collector");

/// Runs a program to its end; its output is the assertion's message where it fails.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`{line}` failed: {out}{err}");
    out.into_owned()
}

/// Runs in a namespace, on a thread of its own.
pub(crate) fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let place = fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
    thread::scope(|scope| {
        let entered = || {
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
            work()
        };
        scope.spawn(entered).join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    })
}

/// Two hosts on one wire, 10.88.0.1 and 10.88.0.2; the collector runs on the first.
pub(crate) struct Wire {
    pub(crate) near: String,
    pub(crate) far: String,
    /// The near end of the wire.
    pub(crate) interface: String,
}

impl Wire {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let wire = Self { near: format!("cn{id}"), far: format!("cf{id}"), interface: format!("v{id}") };
        let Self { near, far, interface } = &wire;
        sh(&format!(
            "ip netns add {near}; ip netns add {far}
             for n in {near} {far}; do ip netns exec $n sysctl -qw net.ipv6.conf.all.disable_ipv6=1 \
                net.ipv6.conf.default.disable_ipv6=1; ip -n $n link set lo up; done
             ip link add {interface} netns {near} type veth peer name far netns {far}
             ip -n {near} addr add 10.88.0.1/24 dev {interface}; ip -n {far} addr add 10.88.0.2/24 dev far
             ip -n {near} link set {interface} up; ip -n {far} link set far up
             ip -n {far} link show far | grep -q LOWER_UP"
        ));
        wire
    }

    /// Pings the near end from the far one, each packet once.
    pub(crate) fn ping(&self, count: u32) {
        sh(&format!("ip netns exec {} ping -q -c {count} -i 0.01 -W 5 10.88.0.1", self.far));
    }

    /// The socket of collectors in the near namespace that are given no other.
    pub(crate) fn socket(&self) -> PathBuf {
        let namespace =
            fs::metadata(format!("/run/netns/{}", self.near)).map_or(0, |namespace| namespace.ino());
        PathBuf::from(format!("/run/collector/{namespace}.sock"))
    }

    /// The collector in the near namespace, with these arguments behind `run`. It finds nothing by itself: what else there is
    /// on this machine is no matter of a test.
    pub(crate) fn collector(&self, args: &[&str]) -> Command {
        let mut command = self.verb("run", args);
        if !args.contains(&"--discover") {
            command.args(["--discover", "off"]);
        }
        command
    }

    /// The same, with another verb.
    pub(crate) fn verb(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.near)).args([COLLECTOR, verb]).args(args);
        command
    }

    /// Starts it, and waits until it says what it is attached to.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Self::begin(self.collector(args))
    }

    /// The same; it says all that it learns of interfaces.
    pub(crate) fn start_talkative(&self, args: &[&str]) -> Running {
        let mut command = self.collector(args);
        command.env("RUST_LOG", "warn,collector_user=debug");
        Self::begin(command)
    }

    /// Starts a talkative one, and waits until it says these words.
    pub(crate) fn launch_talkative(&self, args: &[&str], words: &str) -> Running {
        let mut command = self.collector(args);
        command.env("RUST_LOG", "warn,collector_user=debug");
        let mut running = Self::launch(command);
        running.wait_to_say(words);
        running
    }

    fn launch(mut command: Command) -> Running {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the collector starts");
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        Running { out: child.stdout.take(), errors, attached: String::new(), child }
    }

    /// Starts it, and waits until it says what it is attached to.
    pub(crate) fn begin(command: Command) -> Running {
        let mut running = Self::launch(command);
        let Running { errors, attached, .. } = &mut running;
        // A talkative one has learned of interfaces before.
        while attached.is_empty() || attached.contains(" DEBUG ") {
            attached.clear();
            if errors.read_line(attached).expect("standard error is text") == 0 {
                break;
            }
        }
        if !attached.contains("attached to ") {
            errors.read_to_string(attached).expect("standard error is text");
            panic!("not attached: {attached}");
        }
        running
    }

    /// What the kernel says of the near end's interface.
    pub(crate) fn shown(&self) -> String {
        sh(&format!("ip -n {} -d link show {}", self.near, self.interface))
    }

    /// The preferences and names of the filters on the near end, both hooks.
    pub(crate) fn filters(&self) -> String {
        let Self { near, interface, .. } = self;
        sh(&format!(
            "for h in ingress egress; do tc -n {near} filter show dev {interface} $h 2>/dev/null; done | grep handle || :"
        ))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A collector that was killed has left it; another namespace may have the number next.
        let _ = fs::remove_file(self.socket());
        for name in [&self.near, &self.far] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// How the collector attaches where nothing is asked for.
pub(crate) fn mechanism() -> &'static str {
    if release::is_at_least(release::TCX) { "tcx" } else { "clsact" }
}

/// A collector that runs; killed if it is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) out: Option<ChildStdout>,
    errors: BufReader<std::process::ChildStderr>,
    pub(crate) attached: String,
}

impl Running {
    pub(crate) fn signal(&self, name: &str) {
        sh(&format!("kill -{name} {}", self.child.id()));
    }

    /// Stops it, and returns once it stands still; to go on with the signal `CONT`.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
        let pid = Pid::from_child(&self.child);
        let stopped = waitpid(Some(pid), WaitOptions::UNTRACED).expect("it is a child");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "{stopped:?}");
    }

    /// Waits until it says a line with these words.
    pub(crate) fn wait_to_say(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            let length = self.errors.read_line(&mut line).expect("standard error is text");
            assert_ne!(length, 0, "it ended without saying `{words}`");
        }
    }

    /// Waits for its end; exit code, and the rest of standard error.
    pub(crate) fn end_without_output(mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).expect("standard error is text");
        let status = self.child.wait().expect("it was started here");
        (status.code(), errors)
    }

    /// Waits for its end; exit code, lines of standard output, rest of standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        let mut text = String::new();
        if let Some(mut out) = self.out.take() {
            out.read_to_string(&mut text).expect("the output is text");
        }
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).expect("standard error is text");
        let status = self.child.wait().expect("it was started here");
        (status.code(), text.lines().map(str::to_owned).collect(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
}

/// Runs the collector to its end, without a namespace.
pub(crate) fn output(args: &[&str]) -> Output {
    Command::new(COLLECTOR).args(args).output().expect("the collector starts")
}

/// A file of this text that goes when it is dropped.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn new(text: &str) -> Self {
        let file = Self::absent("toml");
        fs::write(&file.0, text).expect("the temporary folder is writable");
        file
    }

    /// One that is not there yet.
    pub(crate) fn absent(extension: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("collector-cli-{}-{}.{extension}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a temporary folder has a plain name")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
