//! What can go wrong in a verb. Each variant displays as a sentence: what was tried, what happened, what to
//! do next.

use std::{fmt, io, path::PathBuf, process::ExitStatus};

use crate::{lint::Violation, object::TooMuch};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program could not be started at all.
    #[error("cannot start `{program}`: {cause}")]
    Spawn { program: String, cause: io::Error },

    /// A program ran and reported failure; `tail` is empty where its output was on the screen already.
    #[error("`{command}` ended with {status}{tail}")]
    Command { command: String, status: ExitStatus, tail: Tail },

    /// A file operation failed.
    #[error("cannot {act} {}: {cause}", path.display())]
    File { act: &'static str, path: PathBuf, cause: io::Error },

    /// A source file of this workspace does not parse.
    #[error("cannot check {}: line {line}: {cause}", path.display())]
    Source { path: PathBuf, line: usize, cause: String },

    /// `rust-toolchain.toml` names no channel.
    #[error("{} has no line `channel = \"...\"`: restore it from version control", path.display())]
    NoChannel { path: PathBuf },

    /// The environment variable that forces a compiler holds something else.
    #[error("{variable} is `{value}`: set it to `rustup` or `debian`, or leave it out")]
    UnknownWay { variable: &'static str, value: String },

    /// `rustup component add` did not bring the sources of the standard library.
    #[error(
        "the sources of the standard library are missing, and adding them failed: {cause}\n  \
         Next: run `rustup component add rust-src --toolchain {channel}` where the toolchain may be changed"
    )]
    NoSources { channel: String, cause: Box<Self> },

    /// `rustup` said yes and yet there are no sources.
    #[error("rustup reports rust-src as installed, but {} is not there", path.display())]
    SourcesAbsent { path: PathBuf },

    /// Packages of Debian's cannot be had.
    #[error("unpacking {what} (apt-get download, dpkg-deb -x) failed: {cause}\n  Next: {next}")]
    NoDebian { what: &'static str, cause: Box<Self>, next: &'static str },

    /// The package lists do not know the compiler.
    #[error("the package lists of this machine have no `{package}`")]
    NoCandidate { package: &'static str },

    /// The package lists know only a compiler that this workspace does not build with.
    #[error("`{package}` is at {found}, and this workspace needs {wanted} or newer")]
    TooOld { package: &'static str, found: String, wanted: String },

    /// What was unpacked does not hold the part looked for.
    #[error("the unpacked packages hold no {part} below {}", root.display())]
    Incomplete { part: &'static str, root: PathBuf },

    /// Neither way to a compiler for the BPF target works.
    #[error("no compiler for the eBPF programs.\n- By rustup: {rustup}\n- By Debian's packages: {debian}")]
    NoCompiler { rustup: Box<Self>, debian: Box<Self> },

    /// The BPF linker could not be built.
    #[error(
        "installing bpf-linker {version} failed: {cause}\n  Next: see that the package registry can be \
         reached and a C compiler is installed, and run `cargo xtask setup` again"
    )]
    NoLinker { version: &'static str, cause: Box<Self> },

    /// The fuzzer cannot be compiled.
    #[error(
        "libFuzzer is C++, and there is no C++ compiler here: install g++ or clang, or set CXX to one that is not \
         called `c++`"
    )]
    NoCxx,

    /// Cargo succeeded without naming the executable asked for.
    #[error("`{command}` built no executable named `{name}`")]
    NoExecutable { command: String, name: String },

    /// Root is needed and there is no way to it.
    #[error("root is needed for {what}, and there is no `sudo` here: run `cargo xtask` as root")]
    NoPrivilege { what: &'static str },

    /// Root without the capabilities that the kernel asks for (a container, usually).
    #[error(
        "root lacks {} here, needed for {what}: give the container these capabilities, or use the host",
        missing.join(", ")
    )]
    NoCapability { what: &'static str, missing: Vec<&'static str> },

    /// Programs that a verb uses are missing and could not be installed.
    #[error(
        "{what} use {}, missing here: install {} ({why})",
        tools.join(", "),
        packages.join(", ")
    )]
    NoTools { what: &'static str, tools: Vec<&'static str>, packages: Vec<&'static str>, why: Box<str> },

    /// A kernel could not be fetched.
    #[error(
        "Linux {kernel} cannot be had from {suite} (apt-get update, apt-get download, dpkg-deb -x): {cause}\n  \
         Next: see that the package archive can be reached. Where it has no {suite} any more, keep the folder of \
         that kernel below target/vm of a machine that has it, and copy it here"
    )]
    NoKernel { kernel: String, suite: &'static str, cause: Box<Self> },

    /// apt does not know where packages come from.
    #[error("apt on this machine has no source of packages: add Debian's to /etc/apt")]
    NoMirror,

    /// The package lists do not know the kernel.
    #[error("the package lists of the suite name no kernel of this flavour")]
    NoImage,

    /// A guest took too long.
    #[error(
        "the guest did not end within {seconds} s: see its last words above, or give it more by --limit{tail}"
    )]
    GuestLate { seconds: u32, tail: Tail },

    /// A guest ended before it had said that it is done: a panic, or a power-off half way.
    #[error("the guest ended ({status}) before it was done; its kernel's last words:{tail}")]
    GuestDied { status: ExitStatus, tail: Tail },

    /// Not all was well in some guests; the table says what.
    #[error("not all is well on Linux {}: the table and the output of the tests say what", kernels.join(", "))]
    Guests { kernels: Vec<String> },

    /// What the compiler made is not what it is taken for.
    #[error("{} is no object of eBPF programs: {cause}", path.display())]
    Object { path: PathBuf, cause: String },

    /// Some kernel would not load the programs.
    #[error(
        "the programs need more stack than kernels before 6.9 give them, 512 octets and 8 calls:\n  {}\n  Next: make a \
         function of what needs its variables only for a while, or one of two, until each chain fits",
        refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    Stack { refused: Vec<TooMuch> },

    /// The verifier has more to do than when it was recorded.
    #[error(
        "the verifier looks at more than {percent} % more instructions than when {} was recorded:\n  {}\n  Next: \
         find what made the programs longer (a bound it has lost, a loop, a copy), or, where they have to be, record \
         the new numbers by `cargo xtask vm --record`",
        path.display(),
        risen.join("\n  ")
    )]
    Verified { percent: u32, path: PathBuf, risen: Vec<String> },

    /// The sources break rules that no compiler checks.
    #[error("{} broken:\n{}", count(violations.len(), "rule"), lines(violations))]
    Violations { violations: Vec<Violation> },
}

/// The last lines of a program's output, as the end of a sentence.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<String>);

impl Tail {
    /// Lines kept: enough for cargo's and apt's last words.
    const LINES: usize = 6;

    /// The last lines of `output` that are not empty.
    pub(crate) fn of(output: &str) -> Self {
        let lines: Vec<_> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        let start = lines.len().saturating_sub(Self::LINES);
        Self(lines.into_iter().skip(start).map(|line| line.trim_end().to_owned()).collect())
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// "1 rule", "2 rules".
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn lines(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("  {violation}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Tail, count};

    #[test]
    fn a_tail_keeps_the_last_lines_that_say_something() {
        let tail = Tail::of("a\nb\n\nc\nd\ne\nf\ng\n  \n").to_string();
        assert_eq!(tail, "\n    b\n    c\n    d\n    e\n    f\n    g");
        assert_eq!(Tail::of("").to_string(), "");
    }

    #[test]
    fn a_count_agrees_with_its_noun() {
        assert_eq!((count(1, "rule"), count(2, "rule")), ("1 rule".to_owned(), "2 rules".to_owned()));
    }
}
