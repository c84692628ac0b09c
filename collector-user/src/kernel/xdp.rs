//! Puts the XDP program on interfaces, each by a link, which goes with this process whatever ends it.

use std::{collections::BTreeMap, fmt};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        Program, ProgramError, Xdp, XdpError as AyaError, XdpMode,
        links::{FdLink, LinkError},
        xdp::XdpLink,
    },
};

use super::{
    error::KernelError, object::random, programs::Programs, requirements::is_preempt_rt, settings::Settings,
};

/// The program for frames that may lie in several buffers (Linux 5.18), and the same for kernels that have none such.
const PROGRAMS: [&str; 2] = ["xdp_ingress", "xdp_linear"];
/// What the bench subtracts: a program at XDP that does nothing.
pub const EMPTY: &str = "xdp_empty";

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before there is a socket buffer.
    Native,
    /// Behind it, on the socket buffer, which is made one piece for it.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Where it is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Nowhere.
    #[default]
    Off,
    /// Native where there is a physical device whose driver can, generic elsewhere.
    Auto,
    /// In one mode, or not at all.
    Only(Mode),
}

/// Why the program does not run on an interface in a mode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The interface has a program, and takes no second one.
    #[error("another XDP program is attached there, which `ip link` shows, and ours is not put in its place")]
    Taken,
    /// The driver, or the interface as it is set up.
    #[error("the kernel refuses it")]
    Kernel(#[source] ProgramError),
    /// The kernel has no links of XDP, and without one the program would outlive this process (Linux 5.9 has them).
    #[error("the kernel has no links for it")]
    NoLink(#[from] LinkError),
    /// The program was not loaded.
    #[error(transparent)]
    NotLoaded(#[from] KernelError),
}

/// The interfaces that the program hangs on.
#[derive(Debug, Default)]
pub struct Attachments {
    // A descriptor that is closed takes the program off.
    links: BTreeMap<u32, (Mode, FdLink)>,
}

impl Attachments {
    /// Hangs the program on an interface.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn attach(&mut self, programs: &mut Programs, ifindex: u32, mode: Mode) -> Result<(), Refused> {
        let program = programs.xdp()?;
        let id = program
            .attach_to_if_index(
                ifindex,
                match mode {
                    Mode::Native => XdpMode::Driver,
                    Mode::Generic => XdpMode::Skb,
                },
            )
            .map_err(refused)?;
        let link: XdpLink = program.take_link(id).map_err(Refused::Kernel)?;
        self.links.insert(ifindex, (mode, link.try_into()?));
        Ok(())
    }

    /// Takes it off an interface, if it is there.
    pub fn detach(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
    }

    /// Takes it off all.
    pub fn detach_all(&mut self) {
        self.links.clear();
    }

    /// It hangs nowhere.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// How it hangs on an interface, if it does.
    pub fn mode(&self, ifindex: u32) -> Option<Mode> {
        self.links.get(&ifindex).map(|(mode, _)| *mode)
    }
}

/// `EBUSY`: a program that hangs there by another link, or by netlink; `EEXIST`: one in another mode.
fn refused(error: ProgramError) -> Refused {
    let code = match &error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        ProgramError::XdpError(AyaError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    };
    if matches!(code, Some(libc::EBUSY | libc::EEXIST)) { Refused::Taken } else { Refused::Kernel(error) }
}

/// What the programs are told of it before they are loaded.
pub(super) struct Told {
    word: u64,
    remembers: u32,
}

impl Told {
    /// Under these settings.
    ///
    /// # Errors
    ///
    /// [`KernelError::Host`].
    pub(super) fn new(settings: &Settings) -> Result<Self, KernelError> {
        let word = if settings.xdp { random()? | 1 } else { 0 };
        Ok(Self { word, remembers: u32::from(!is_preempt_rt()) })
    }

    /// Puts it where the programs look for it.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global("XDP_WORD", &self.word, true).override_global(
            "XDP_REMEMBERS",
            &self.remembers,
            true,
        );
    }
}

/// Loads the program, if it is asked for, and the one that the bench subtracts. Its name, and what became of that.
pub(super) fn load(
    ebpf: &mut Ebpf,
    settings: &Settings,
) -> (Option<&'static str>, Option<Result<(), KernelError>>) {
    if !settings.xdp {
        return (None, None);
    }
    let empty = if settings.reference_programs { load_one(ebpf, EMPTY) } else { Ok(()) };
    match empty.and_then(|()| load_either(ebpf)) {
        Ok(name) => (Some(name), Some(Ok(()))),
        Err(error) => (None, Some(Err(error))),
    }
}

/// Loads the program for frames in several buffers where the kernel takes it, else the one that is for every kernel. Which.
fn load_either(ebpf: &mut Ebpf) -> Result<&'static str, KernelError> {
    let [frags, linear] = PROGRAMS;
    // The error decides, not the version.
    match load_one(ebpf, frags) {
        Ok(()) => Ok(frags),
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "no XDP program for frames in several buffers"
            );
            load_one(ebpf, linear).map(|()| linear)
        }
    }
}

/// Loads one program at XDP.
fn load_one(ebpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    program(ebpf, name)?.load().map_err(|source| KernelError::Program { program: name, source })
}

/// A program at XDP by its name.
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, KernelError> {
    match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(KernelError::Missing { what: "program", name }),
    }
}
