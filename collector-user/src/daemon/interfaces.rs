//! Which interfaces the programs hang on, and what each is to them; followed as interfaces come, change and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use collector_ebpf::abi::pu::{Role, index, role as flag};

use tokio::time::Instant;

use super::{
    Daemon, DaemonError,
    device_drops::{Devices, Queues},
    ends::Ends,
    missing,
    numbers::Numbers,
    surroundings::surround,
    unseen::Uplinks,
};
use crate::{
    config::IfaceGlob,
    error::root_cause,
    host::{
        links::{self, Link, Tunnel},
        names,
    },
    kernel::filters,
    pu::{
        life::{Seen, State},
        registry::Side,
        role::{self, Chosen, Decision, Kind, Said},
        vlans,
    },
};

/// What is known of the interfaces.
pub(super) struct Watched {
    pub(super) interfaces: BTreeMap<u32, Interface>,
    pub(super) locals: BTreeSet<IpAddr>,
    pub(super) tunnels: BTreeSet<Tunnel>,
    pub(super) ends: Ends,
    pub(super) numbers: Numbers,
    pub(super) uplinks: Uplinks,
    pub(super) devices: Devices,
    pub(super) queues: Queues,
    /// Interfaces still have to be attached.
    pub(super) unfinished: bool,
    /// It was said that some interfaces are still to be attached.
    is_awaited: bool,
    /// Those that could not be, and why; tried again when something changes.
    pub(super) refused: BTreeMap<u32, String>,
    /// Those that somebody took the programs off and that could not be attached anew so far.
    pub(super) bare: BTreeSet<u32>,
    /// What was missing when it was last looked at: it is said once.
    said: BTreeSet<String>,
}

/// How long interfaces are attached at a stretch. A TCX link takes the kernel some 17 ms; a host may have hundreds of
/// interfaces, and the drain, the signals and the first line on standard error do not wait for all of them.
const STRETCH: Duration = Duration::from_millis(200);

pub(super) struct Interface {
    pub(super) name: String,
    pub(super) decision: Decision,
    /// What the programs are told of it, attached or not.
    pub(super) role: Option<Role>,
    /// On which side of it a unit is that declares it and does not say so.
    pub(super) side: Side,
    /// It is a tunnel whose packets are the overlay's where no unit declares it.
    pub(super) is_overlay: bool,
    /// Names it in flow counts.
    number: u16,
}

impl Interface {
    /// Whether `status` says the same of both.
    fn is_said_to_be(&self, other: &Self) -> bool {
        self.name == other.name && self.decision == other.decision
    }
}

impl Watched {
    pub(super) fn new() -> Self {
        Self {
            interfaces: BTreeMap::new(),
            locals: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            ends: Ends::default(),
            numbers: Numbers::default(),
            uplinks: Uplinks::default(),
            devices: Devices::default(),
            queues: Queues::default(),
            unfinished: false,
            is_awaited: false,
            refused: BTreeMap::new(),
            bare: BTreeSet::new(),
            said: BTreeSet::new(),
        }
    }
}

impl Daemon<'_> {
    /// Brings roles, addresses and attachments to what the host has now. Returns what could not be had.
    ///
    /// At the start it is an error when nothing at all can be attached.
    pub(super) async fn reconcile(&mut self, at_start: bool) -> Result<Vec<String>, DaemonError> {
        let names = names::all();
        let links = links::list(&self.netlink.handle).await?;
        self.forget_gone(&links)?;
        let mut missing = missing::unlisted(names, &links);
        let mut changed = self.follow_addresses(&links, &mut missing)?;
        changed |= self.follow_tunnels(&links, &mut missing)?;
        self.watched.devices.note(&links);
        self.watched.queues.note(&links);
        // A namespace's number may be another's by now: who has gone is known to have gone before.
        self.take_cgroups().await?;
        self.follow_ends(&links).await?;
        let mut failed = Vec::new();
        let (mut waiting, mut has_news) = (0, false);
        let begun = Instant::now();
        let mut described = BTreeMap::new();
        for link in links.values() {
            match self.describe(link, &links)? {
                Some(interface) => drop(described.insert(link.index, interface)),
                None => missing.push(format!(
                    "{} is not watched: {} interfaces are, and more cannot be told apart",
                    link.name,
                    Numbers::MOST
                )),
            }
        }
        surround(&mut described, &links);
        let kind = |index| described.get(&index).map(|interface| interface.decision.kind);
        missing.extend(missing::counted_twice(kind, &links));
        let mut news = Vec::new();
        // Asked for once, and only where something is attached.
        let mut ingress = None;
        for (index, mut interface) in described {
            let Some(link) = links.get(&index) else { continue };
            let is_wanted = interface.decision.is_attached();
            let attached = self.attachments.mechanism(link.index).is_some();
            if attached && !is_wanted {
                // Before its role is forgotten: a packet in between would be nobody's.
                self.detach(link.index).await;
            }
            changed |= self.follow_role(link.index, interface.role)?;
            self.scribe.interfaces.insert(interface.number, link.name.as_str().into());
            let wanted = is_wanted && !attached && !self.watched.refused.contains_key(&link.index);
            if wanted && begun.elapsed() > STRETCH {
                waiting += 1;
            } else if wanted {
                if ingress.is_none() {
                    ingress = Some(filters::with_ingress(&self.netlink.handle).await);
                }
                match self.attach(link, ingress.as_ref().unwrap_or(&BTreeSet::new())).await {
                    Ok(sentence) => missing.extend(sentence),
                    // It went after it was listed, of which a message comes: nothing is missing.
                    Err(_) if links::counted(&self.netlink.handle, index).await.is_none() => {}
                    Err(error) => {
                        let why = format!("{error}: {}", root_cause(&error));
                        self.watched.refused.insert(link.index, why);
                        failed.push(error);
                    }
                }
                // Whose what was found is: at the next look.
                has_news |= self.take_cgroups().await?;
            }
            self.follow_xdp(link, &mut interface.role, &mut missing)?;
            self.compare(index).await;
            if is_wanted {
                missing.extend(self.watched.refused.get(&index).cloned());
            }
            if !self.watched.interfaces.get(&index).is_some_and(|before| before.is_said_to_be(&interface)) {
                news.push(format!(
                    "{} is {}: {}",
                    link.name, interface.decision.kind, interface.decision.reason
                ));
            }
            self.watched.interfaces.insert(link.index, interface);
        }
        if changed || self.units.take_stale() {
            self.controller.next_generation();
        }
        let told = self.lives.follow(&self.units, &self.declared_interfaces(&links));
        self.tell_lives(&told);
        self.start_workloads().await;
        missing.extend(self.beyond_room());
        for sentence in news {
            tracing::debug!("{sentence}");
        }
        self.watched.unfinished = waiting != 0 || has_news;
        if waiting == 0 && std::mem::take(&mut self.watched.is_awaited) {
            tracing::info!("all interfaces are attached by now");
        }
        if at_start && waiting != 0 {
            self.watched.is_awaited = true;
            missing.push(format!("{waiting} interfaces so far, which are being attached one after another"));
        }
        if at_start {
            missing.extend(missing::absent(&self.units, &links));
            self.watched.said = missing.iter().cloned().collect();
        }
        let nothing = self.attachments.interfaces().is_empty();
        let tried = failed.len();
        match failed.pop() {
            Some(source) if at_start && nothing => Err(DaemonError::NothingAttached { tried, source }),
            _ => Ok(missing),
        }
    }

    /// Looks again, and says what is missing now and was not before.
    pub(super) async fn look_again(&mut self) {
        // A list that was cut short by changes is asked for again at the next of them.
        let Some(missing) = tell(self.reconcile(false).await) else { return };
        for sentence in missing.iter().filter(|sentence| !self.watched.said.contains(*sentence)) {
            tracing::warn!("{sentence}");
        }
        self.watched.said = missing.into_iter().collect();
    }

    /// Forgets interfaces that are no more; their links went with them.
    fn forget_gone(&mut self, links: &BTreeMap<u32, Link>) -> Result<(), DaemonError> {
        let known = self.watched.interfaces.keys().copied();
        let gone: Vec<u32> = known.filter(|index| !links.contains_key(index)).collect();
        for index in gone {
            self.attachments.detach(&mut self.programs, index, [true; 2]);
            self.xdp.forget(index);
            self.watched.bare.remove(&index);
            if let Some(interface) = self.watched.interfaces.remove(&index) {
                self.watched.numbers.give_back(interface.number);
                self.watched.uplinks.forget(index);
                tracing::debug!("{} is gone", interface.name);
            }
            self.controller.remove_role(index)?;
        }
        Ok(())
    }

    /// What has become of the interfaces that units declare.
    fn declared_interfaces(&self, links: &BTreeMap<u32, Link>) -> Vec<Seen> {
        let seen = |link: &Link| {
            let unit = self.units.of_interface(&link.name)?;
            let state = if self.attachments.mechanism(link.index).is_some() {
                State::Watched
            } else if self.watched.refused.contains_key(&link.index) {
                State::Refused
            } else if self.chosen(&link.name) == Chosen::Others {
                State::NotSelected
            } else {
                State::Waiting
            };
            let addresses = link.addresses.iter().map(|address| address.ip.to_string()).collect();
            Some(Seen { pu: unit.index, name: link.name.clone(), state, addresses })
        };
        links.values().filter_map(seen).collect()
    }

    /// What an interface is, with the number that it has or a new one; `None` where there is no number left.
    fn describe(
        &mut self,
        link: &Link,
        links: &BTreeMap<u32, Link>,
    ) -> Result<Option<Interface>, DaemonError> {
        let unit = self.units.of_interface(&link.name);
        let found = self.watched.ends.unit(link.index).and_then(|index| self.units.get(index));
        let decision = role::decide(link, links, Said { unit, found, chosen: self.chosen(&link.name) });
        let undeclared =
            role::decide(link, links, Said { unit: None, found, chosen: self.chosen(&link.name) });
        let (side, _) = role::side_unsaid(link);
        let is_overlay = undeclared.kind == Kind::Overlay;
        let known = self.watched.interfaces.get(&link.index).map(|interface| interface.number);
        let is_far = role::is_far(link, &decision, unit);
        let Some(number) = self.watched.numbers.give(known, is_far) else { return Ok(None) };
        // At once: what fails later shall not leave one that was given back.
        if let Some(interface) = self.watched.interfaces.get_mut(&link.index) {
            interface.number = number;
        }
        let behind = match decision.kind {
            Kind::Container | Kind::Unknown => self.index_behind(link.index)?,
            _ => index::UNKNOWN,
        };
        let unit = self.units.of_interface(&link.name);
        let boundary = Numbers::boundary(number);
        let mut role = decision
            .is_attached()
            .then(|| role::for_programs(link, &decision, unit, boundary, number, behind));
        if self.options.inner
            && let Some(role) = &mut role
            && role.flags & flag::LOOPBACK == 0
        {
            role.flags |= flag::INNER;
        }
        self.mark_buffers(link, &mut role);
        // The kernel runs a tap's program on super-packets, too, in the driver as well (drivers/net/tun.c: tun_get_user).
        if let Some(role) = &mut role
            && link.kind == "tun"
        {
            role.flags |= flag::BESIDE;
        }
        match &mut role {
            Some(role) if role.flags & flag::UPLINK != 0 => {
                if vlans::are_above(links, link.index) {
                    role.flags |= flag::BESIDE;
                }
                role.uplink = self.watched.uplinks.place(link.index);
            }
            _ => self.watched.uplinks.forget(link.index),
        }
        Ok(Some(Interface { name: link.name.clone(), decision, role, side, is_overlay, number }))
    }

    /// Tells the programs an interface's role; `true` where flows that are known have to be attributed anew.
    fn follow_role(&mut self, index: u32, role: Option<Role>) -> Result<bool, DaemonError> {
        let before = self.watched.interfaces.get(&index).and_then(|interface| interface.role);
        if before == role {
            return Ok(false);
        }
        match role {
            Some(role) => self.controller.set_role(role)?,
            None => self.controller.remove_role(index)?,
        }
        // Whether buffers are copied, know more than a frame shows, or are freed as dropped, says nothing of whose they are.
        let of_buffers = flag::COPIED | flag::BESIDE | flag::FREED;
        let rest = |role: Role| Role { flags: role.flags & !of_buffers, ..role };
        Ok(before.is_some() && before.map(rest) != role.map(rest))
    }

    /// From here on an uplink that the programs hang on is compared with what it counts itself.
    async fn compare(&mut self, index: u32) {
        if self.attachments.mechanism(index).is_some()
            && let Some(place) = self.watched.uplinks.is_new(index)
        {
            let crossed = self.ledgers.crossed(place);
            if let Some(counted) = links::counted(&self.netlink.handle, index).await {
                self.watched.uplinks.begin(index, crossed, counted);
            }
        }
    }

    pub(super) fn chosen(&self, name: &str) -> Chosen {
        let globs = &self.options.ifaces;
        if globs.is_empty() {
            return Chosen::Unsaid;
        }
        let matching: Vec<&IfaceGlob> = globs.iter().filter(|glob| glob.matches(name)).collect();
        match matching.as_slice() {
            [] => Chosen::Others,
            some if some.iter().any(|glob| glob.is_literal()) => Chosen::ByName,
            _ => Chosen::ByPattern,
        }
    }
}

/// What fails here is no reason to stop counting elsewhere.
pub(super) fn tell<T>(result: Result<T, DaemonError>) -> Option<T> {
    result
        .map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "interfaces are not followed");
        })
        .ok()
}

/// A name without wildcards must exist; a pattern may match later.
pub(super) fn check_names(globs: &[IfaceGlob], links: &BTreeMap<u32, Link>) -> Result<(), DaemonError> {
    let lacks = |glob: &&IfaceGlob| glob.is_literal() && !links.values().any(|link| glob.matches(&link.name));
    match globs.iter().find(lacks) {
        Some(glob) => Err(DaemonError::NoSuchInterface { name: glob.to_string() }),
        None => Ok(()),
    }
}
