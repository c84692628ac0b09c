//! What can go wrong between this process and the kernel.

use std::io;

/// A failure of loading, attaching, or talking to a map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The binary was built before the eBPF object.
    #[error("this binary holds no eBPF programs: build them with `cargo xtask build`, then run it again")]
    Stub,
    /// The object cannot be read.
    #[error("the embedded eBPF object cannot be read: {reason}; rebuild it with `cargo xtask build`")]
    Object {
        /// What the reader said.
        reason: object::Error,
    },
    /// The object was built for another version of the contract.
    #[error(
        "the embedded eBPF object speaks version {found} of the contract, this program version {expected}: \
         rebuild both with `cargo xtask build`"
    )]
    Version {
        /// The object's.
        found: u32,
        /// This program's.
        expected: u32,
    },
    /// The kernel is older than any that is supported.
    #[error("Linux {release} is too old: the datapath needs 5.10 or newer")]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// A capability is not held.
    #[error(
        "missing privilege {capability}: it is needed to {purpose}; run as root, or grant the capability"
    )]
    Privilege {
        /// The capability's name, as capabilities(7) spells it.
        capability: &'static str,
        /// What it is needed for.
        purpose: &'static str,
    },
    /// Before Linux 5.11 maps count against a limit of the process, which it may not raise.
    #[error(
        "the kernel has no room for the map {map} below RLIMIT_MEMLOCK: before Linux 5.11 maps count against it; \
         run with `ulimit -l unlimited` or grant CAP_SYS_RESOURCE"
    )]
    LockedMemory {
        /// The map.
        map: String,
    },
    /// aya refuses the object or the kernel a map.
    #[error("the eBPF object cannot be loaded")]
    Load(#[from] aya::EbpfError),
    /// The programs' words cannot be read.
    #[error("the log of the eBPF programs cannot be opened")]
    Faults(#[from] aya_log::Error),
    /// What the kernel is like cannot be told.
    #[error("drops are not seen: what the kernel's structures are like is not known")]
    Shape(#[from] std::sync::Arc<super::btf::BtfError>),
    /// The kernel keeps no control group for a socket.
    #[error(
        "flows do not belong to the control groups of their sockets: this kernel was built without those \
         (CONFIG_SOCK_CGROUP_DATA)"
    )]
    NoSocketGroups,
    /// Where the kernel keeps a socket's control group cannot be told.
    #[error(
        "what comes in is not asked for the control group of its socket: where the kernel keeps that is not known"
    )]
    Sockets(#[source] super::btf::BtfError),
    /// Where the kernel keeps a socket's user cannot be told.
    #[error("the users of sockets are not known: where the kernel keeps them is not known")]
    Users(#[source] super::btf::BtfError),
    /// The kernel refuses a program.
    #[error("the eBPF program {program} cannot be loaded")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said, with the verifier's last words.
        source: aya::programs::ProgramError,
    },
    /// The object lacks something that this program knows by name.
    #[error("the eBPF object has no {what} {name}: rebuild it with `cargo xtask build`")]
    Missing {
        /// `map` or `program`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A map cannot be read or written.
    #[error("the map {map} cannot be {action}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What was tried: `read`, `written`, ...
        action: &'static str,
        /// What aya or the kernel said.
        source: aya::maps::MapError,
    },
    /// A system call on a map failed.
    #[error("the map {map} cannot be {action}")]
    Call {
        /// Its name.
        map: &'static str,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A set of policy rules does not go into a map.
    #[error("the map {map} takes {written} of the {entries} entries of a set of policies")]
    Policy {
        /// Its name.
        map: &'static str,
        /// Entries that it has taken, and that were removed again.
        written: usize,
        /// Entries of the set.
        entries: usize,
        /// The kernel's answer: `E2BIG` or `ENOSPC` where there is no room.
        source: io::Error,
    },
    /// There is no buffer for what a CPU reports.
    #[error("cannot make the buffer for what is seen on CPU {cpu}")]
    Buffer {
        /// The CPU.
        cpu: u32,
        /// What the kernel said.
        source: aya::maps::perf::PerfBufferError,
    },
    /// A program cannot be run by hand.
    #[error("the eBPF program {program} cannot be run")]
    Run {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        source: aya::programs::ProgramError,
    },
    /// What the host has cannot be asked.
    #[error("cannot ask the kernel for {what}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl From<super::btf::BtfError> for KernelError {
    fn from(error: super::btf::BtfError) -> Self {
        Self::Shape(std::sync::Arc::new(error))
    }
}
