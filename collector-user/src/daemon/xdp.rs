//! The XDP program on the interfaces that are watched: where it runs, and why it does not.

use std::collections::BTreeMap;

use collector_ebpf::abi::pu::{Role, role as flag};

use super::{Daemon, DaemonError};
use crate::{
    error::with_causes,
    host::links::Link,
    kernel::{
        error::KernelError,
        xdp::{Attachments, Choice, Mode, Refused},
    },
};

/// What is known of the program.
#[derive(Default)]
pub(super) struct AtXdp {
    attachments: Attachments,
    /// What could not be had on an interface, or comes with what was asked for; tried again when something changes.
    said: BTreeMap<u32, Vec<String>>,
    /// Why there is none at all.
    unloaded: Option<String>,
}

impl AtXdp {
    /// With what became of loading it.
    pub(super) fn new(loaded: Option<Result<(), KernelError>>) -> Self {
        let unloaded = loaded.and_then(Result::err).map(|error| format!("XDP: {}", with_causes(&error)));
        Self { unloaded, ..Self::default() }
    }

    /// How it hangs on an interface, if it does.
    pub(super) fn mode(&self, index: u32) -> Option<Mode> {
        self.attachments.mode(index)
    }

    /// It hangs nowhere.
    pub(super) fn is_empty(&self) -> bool {
        self.attachments.is_empty()
    }

    /// The interface is gone, and its link with it.
    pub(super) fn forget(&mut self, index: u32) {
        self.attachments.detach(index);
        self.said.remove(&index);
    }

    /// What was refused is tried again.
    pub(super) fn hope_again(&mut self) {
        let Self { attachments, said, .. } = self;
        said.retain(|index, _| attachments.mode(*index).is_some());
    }

    pub(super) fn detach_all(&mut self) {
        self.attachments.detach_all();
    }
}

impl Daemon<'_> {
    /// Brings the program to where those at TC are, and says what could not be had.
    pub(super) fn follow_xdp(
        &mut self,
        link: &Link,
        role: &mut Option<Role>,
        missing: &mut Vec<String>,
    ) -> Result<(), DaemonError> {
        self.hang_xdp(link, missing);
        let told = *role;
        self.mark_buffers(link, role);
        match role {
            Some(role) if told != Some(*role) => Ok(self.controller.set_role(*role)?),
            _ => Ok(()),
        }
    }

    fn hang_xdp(&mut self, link: &Link, missing: &mut Vec<String>) {
        let choice = self.options.xdp;
        if choice == Choice::Off || self.xdp.unloaded.is_some() {
            return;
        }
        // What the program reads begins with an Ethernet header; and what loopback carries was sent by this host.
        let is_wanted = self.attachments.mechanism(link.index).is_some() && !link.raw_ip && !link.loopback;
        if !is_wanted {
            return self.xdp.forget(link.index);
        }
        let was_taken = self.was_xdp_taken(link);
        if was_taken {
            self.xdp.forget(link.index);
        }
        if self.xdp.mode(link.index).is_none() && !self.xdp.said.contains_key(&link.index) {
            let said = self.attach_xdp(link, choice);
            if let Some(mode) = self.xdp.mode(link.index) {
                tracing::debug!("{} has {mode} XDP", link.name);
            }
            self.xdp.said.insert(link.index, said);
        }
        if was_taken {
            self.tell_taken(link);
        }
        missing.extend(self.xdp.said.get(&link.index).into_iter().flatten().cloned());
    }

    /// Whether somebody has detached its link: the interface says what runs there. Nobody is told of it.
    fn was_xdp_taken(&mut self, link: &Link) -> bool {
        self.xdp.mode(link.index).is_some()
            && self.programs.xdp_id().is_some_and(|program| !link.xdp_programs.contains(&program))
    }

    fn tell_taken(&mut self, link: &Link) {
        self.taken_off += 1;
        let name = &link.name;
        if self.xdp.mode(link.index).is_some() {
            tracing::warn!(
                "{name}: somebody had taken our XDP program away, and it is there again; in between TC counted alone"
            );
        } else {
            tracing::error!("{name}: somebody has taken our XDP program away; TC counts alone there");
        }
    }

    /// Tells in an interface's role whether buffers that come in by it may have been copied for a program at generic XDP, ours may
    /// get there in a moment, and whether what such a program drops is freed as a buffer.
    pub(super) fn mark_buffers(&self, link: &Link, role: &mut Option<Role>) {
        let Some(role) = role else { return };
        let mode = self.xdp.mode(link.index);
        let is_untried = mode.is_none() && !self.xdp.said.contains_key(&link.index);
        let may_come = self.options.xdp != Choice::Off && self.xdp.unloaded.is_none() && is_untried;
        let is_copied = link.generic_xdp || mode == Some(Mode::Generic) || may_come;
        let is_freed = is_copied || link.kind == "veth";
        role.flags &= !(flag::COPIED | flag::FREED);
        role.flags |= if is_copied { flag::COPIED } else { 0 } | if is_freed { flag::FREED } else { 0 };
    }

    /// Why there is no XDP program at all, if somebody wanted one.
    pub(super) fn xdp_unloaded(&self) -> Option<String> {
        self.xdp.unloaded.clone()
    }

    /// Hangs it on one interface. What could not be had, and what it costs.
    fn attach_xdp(&mut self, link: &Link, choice: Choice) -> Vec<String> {
        let Self { xdp: AtXdp { attachments, .. }, programs, .. } = self;
        let mut attach = |mode| attachments.attach(programs, link.index, mode);
        let name = &link.name;
        let alone = |mode, error: &Refused| match error {
            Refused::Taken => format!("XDP on {name}: {error}: TC alone"),
            error => format!("{mode} XDP on {name}: {}: TC alone", with_causes(error)),
        };
        match choice {
            Choice::Off => Vec::new(),
            Choice::Only(mode) => match attach(mode) {
                Ok(()) => costs(link, mode).into_iter().collect(),
                Err(error) => vec![alone(mode, &error)],
            },
            Choice::Auto if link.bus.is_empty() => match attach(Mode::Generic) {
                Ok(()) => Vec::new(),
                Err(error) => vec![alone(Mode::Generic, &error)],
            },
            Choice::Auto => match attach(Mode::Native) {
                Ok(()) => Vec::new(),
                Err(error @ Refused::Taken) => vec![alone(Mode::Native, &error)],
                Err(first) => match attach(Mode::Generic) {
                    Ok(()) => {
                        vec![format!("native XDP on {name}: {}: generic in its place", with_causes(&first))]
                    }
                    Err(error) => vec![alone(Mode::Generic, &error)],
                },
            },
        }
    }
}

/// What is worse for a mode that was asked for.
fn costs(link: &Link, mode: Mode) -> Option<String> {
    (mode == Mode::Native && link.kind == "veth").then(|| {
        format!(
            "the segmentation offloads of the other end of {}: native XDP on a veth takes them, and TCP that comes in there \
             falls to about a quarter; the other end's MTU has a limit as long",
            link.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::costs;
    use crate::{host::links::Link, kernel::xdp::Mode};

    #[test]
    fn only_native_on_a_veth_costs_its_peer() {
        let link = |kind: &str| Link { name: "v0".to_owned(), kind: kind.to_owned(), ..Link::default() };
        assert_eq!(costs(&link("veth"), Mode::Generic), None);
        assert_eq!(costs(&link(""), Mode::Native), None);
        assert!(costs(&link("veth"), Mode::Native).is_some_and(|said| said.contains("v0")));
    }
}
