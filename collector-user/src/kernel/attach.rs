//! Puts the programs on interfaces: by TCX where the kernel has it, by a clsact filter elsewhere.
//!
//! Nothing of others is touched: a TCX link takes its place before them, a filter has a preference of its own, and a
//! clsact qdisc that stood there before stays.

use std::{collections::BTreeMap, fmt, io, mem};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};

use crate::kernel::{
    error::KernelError,
    filters::{OWN_QDISC, Place},
    programs::{EGRESS, INGRESS, Programs},
};

/// How a program hangs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A TCX link (Linux 6.6): goes with this process.
    Tcx,
    /// A filter of a clsact qdisc: outlives a process that was killed.
    Clsact,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// Which mechanism to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// TCX, or clsact where the kernel refuses that.
    #[default]
    Auto,
    /// One only.
    Only(Mechanism),
}

/// Why an interface is not watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot attach {program} to {interface} by {mechanism}")]
pub struct AttachError {
    /// The program.
    pub program: &'static str,
    /// The interface.
    pub interface: String,
    /// The mechanism that was tried last.
    pub mechanism: Mechanism,
    /// A clsact qdisc that is ours stands there still.
    pub qdisc: bool,
    /// What the kernel said.
    pub source: Box<ProgramError>,
}

struct Links {
    name: String,
    mechanism: Mechanism,
    ingress: SchedClassifierLinkId,
    egress: SchedClassifierLinkId,
    /// The qdisc is ours.
    qdisc: bool,
}

/// The interfaces that the programs hang on.
#[derive(Default)]
pub struct Attachments {
    links: BTreeMap<u32, Links>,
}

/// What is left of an interface after its programs are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing of ours.
    Nothing,
    /// The clsact qdisc that was made for our filters.
    Qdisc,
}

impl Attachments {
    /// Attaches both programs to an interface, or none; as clsact filters at this place.
    ///
    /// # Errors
    ///
    /// [`AttachError`], with what the last mechanism tried said.
    pub fn attach(
        &mut self,
        programs: &mut Programs,
        ifindex: u32,
        name: &str,
        choice: Choice,
        place: Place,
    ) -> Result<Mechanism, AttachError> {
        let mechanism = match choice {
            Choice::Only(mechanism) => mechanism,
            Choice::Auto => Mechanism::Tcx,
        };
        match self.attach_by(programs, ifindex, name, mechanism, place) {
            // The error decides, not the version: a kernel may have been built without TCX, or have it backported.
            Err(error) if choice == Choice::Auto && is_unknown(&error.source) => {
                self.attach_by(programs, ifindex, name, Mechanism::Clsact, place)
            }
            result => result,
        }
    }

    fn attach_by(
        &mut self,
        programs: &mut Programs,
        ifindex: u32,
        name: &str,
        mechanism: Mechanism,
        place: Place,
    ) -> Result<Mechanism, AttachError> {
        let failed = |program, qdisc, source| AttachError {
            program,
            interface: name.to_owned(),
            mechanism,
            qdisc,
            source: Box::new(source),
        };
        let qdisc = match mechanism {
            Mechanism::Tcx => false,
            Mechanism::Clsact if place.has_ingress => {
                let why = io::Error::other(
                    "it has a queueing discipline of kind `ingress`, which stands where clsact would, and has no egress: \
                     whoever made it can do all the same with clsact",
                );
                return Err(failed(INGRESS, false, ProgramError::IOError(why)));
            }
            Mechanism::Clsact => {
                let added =
                    add_clsact(name).map_err(|source| failed(INGRESS, false, ProgramError::from(source)))?;
                added || place.qdisc_is_ours
            }
        };
        let options = || match mechanism {
            // First on both hooks: a program of others that decides finally about a packet, be it by passing it, ends
            // its way, and what stands behind does not see it.
            Mechanism::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Mechanism::Clsact => TcAttachOptions::Netlink(NlOptions {
                priority: place.preference,
                handle: if qdisc { OWN_QDISC } else { TcHandle::AUTO_ASSIGN },
                classid: None,
            }),
        };
        let ingress = one(programs, INGRESS, name, TcAttachType::Ingress, options())
            .map_err(|source| failed(INGRESS, qdisc, source))?;
        match one(programs, EGRESS, name, TcAttachType::Egress, options()) {
            Ok(egress) => {
                self.links
                    .insert(ifindex, Links { name: name.to_owned(), mechanism, ingress, egress, qdisc });
                Ok(mechanism)
            }
            Err(source) => {
                if let Ok(program) = programs.classifier(INGRESS) {
                    let _ = program.detach(ingress);
                }
                Err(failed(EGRESS, qdisc, source))
            }
        }
    }

    /// Takes the programs off an interface: on the ingress and on the egress hook where they are `present` still. In the
    /// place of a filter that somebody took away may stand another one by now, which is not ours to remove.
    pub fn detach(&mut self, programs: &mut Programs, ifindex: u32, present: [bool; 2]) -> Left {
        let Some(links) = self.links.remove(&ifindex) else { return Left::Nothing };
        let [ingress, egress] = present;
        for (program, link, present) in [(INGRESS, links.ingress, ingress), (EGRESS, links.egress, egress)] {
            let result = programs.classifier(program).map(|program| {
                if present {
                    return program.detach(link);
                }
                // Dropped, it would be detached.
                program.take_link(link).map(mem::forget)
            });
            if let Ok(Err(error)) = result {
                tracing::debug!(program, interface = links.name, %error, "was detached before");
            }
        }
        if links.qdisc { Left::Qdisc } else { Left::Nothing }
    }

    /// The interface indexes that the programs hang on.
    pub fn interfaces(&self) -> Vec<u32> {
        self.links.keys().copied().collect()
    }

    /// How the programs hang on an interface, if they do.
    pub fn mechanism(&self, ifindex: u32) -> Option<Mechanism> {
        self.links.get(&ifindex).map(|links| links.mechanism)
    }
}

/// Which of the programs hang on an interface by TCX, on the ingress and on the egress hook; `None` where the kernel does not
/// say. Whoever may can take a link off, which nobody is told of.
pub fn tcx_present(interface: &str, programs: [u32; 2]) -> Option<[bool; 2]> {
    let is_there = |hook, program| {
        let (_, found) = SchedClassifier::query_tcx(interface, hook).ok()?;
        Some(found.iter().any(|info| info.id() == program))
    };
    let [ingress, egress] = programs;
    Some([is_there(TcAttachType::Ingress, ingress)?, is_there(TcAttachType::Egress, egress)?])
}

fn one(
    programs: &mut Programs,
    program: &'static str,
    interface: &str,
    hook: TcAttachType,
    options: TcAttachOptions,
) -> Result<SchedClassifierLinkId, ProgramError> {
    programs.classifier(program).map_err(missing)?.attach_with_options(interface, hook, options)
}

/// The programs are loaded before anything is attached.
fn missing(_: KernelError) -> ProgramError {
    ProgramError::NotLoaded
}

/// `true` where the qdisc is new.
fn add_clsact(interface: &str) -> Result<bool, TcError> {
    match qdisc_add_clsact(interface) {
        Ok(()) => Ok(true),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel does not know TCX: `BPF_LINK_CREATE` then finds the attach type invalid for the program.
fn is_unknown(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
        || error.io_error.kind() == io::ErrorKind::Unsupported
}
