//! Which of the units that were found run, and with which addresses.

use std::{collections::BTreeMap, net::IpAddr};

use collector_ebpf::abi::pu::index;

use super::{Daemon, alive::Whose, workloads::Workloads};
use crate::{
    event::{ExtendedMap, reason},
    host::namespaces::Namespace,
    pu::{
        life, overlaps,
        registry::{Kind, is_named},
        role,
    },
};

/// After so long a container starts, for those who are told of it, though no interface was seen that leads to it.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Processes that are asked for their network namespace: the first may have been started from outside.
const ASKED: usize = 8;

/// So many flows between two ticks are reasons to look whose they are. One would not do: several containers may begin at
/// once, and what an interface says of its own accord (IPv6) comes before there is a process.
const CALLS: u8 = 16;

impl Daemon<'_> {
    /// Notes that a flow of a unit has begun.
    pub(super) fn note_begun(&mut self, index: u16) {
        let is_unnamed =
            is_named(index) && self.units.get(index).is_some_and(|unit| unit.index == index::UNKNOWN);
        if is_unnamed && self.workloads.answered < CALLS && self.workloads.is_open() {
            self.workloads.is_called = true;
        }
    }

    /// Looks whose the ends are that nobody has named, now that a process behind one of them is at work: a container may have
    /// joined its namespace only after its cgroup was filled, and of that there is no message.
    pub(super) async fn answer_call(&mut self, whose: Whose) {
        self.workloads.answered += u8::from(std::mem::take(&mut self.workloads.is_called));
        self.find_namespaces(whose).await;
        if self
            .watched
            .ends
            .any_open_is_in(&self.units, |namespace| self.workloads.in_namespace(namespace).is_some())
        {
            self.look_again().await;
        }
    }

    /// What is to be done every second.
    pub(super) async fn tick_workloads(&mut self) {
        self.workloads.answered = 0;
        if self.watched.ends.are_open(&self.units) && self.workloads.is_open() {
            self.answer_call(Whose::Recent).await;
        }
        if self.watched.ends.are_open(&self.units) && self.is_declared_now().await {
            self.look_again().await;
        }
        if std::mem::take(&mut self.workloads.are_readdressed) {
            self.follow_their_addresses().await;
        }
        self.start_workloads().await;
    }

    /// Whether an end leads into a namespace that a unit declares by a name which it did not have before.
    async fn is_declared_now(&self) -> bool {
        for (name, _) in self.units.namespaces() {
            if let Namespace::Numbered(id) = self.workloads.namespaces.of_name(name).await
                && self.watched.ends.any_open_is_in(&self.units, |namespace| namespace == id)
            {
                return true;
            }
        }
        false
    }

    /// Tells of units that run whose addresses are others than before.
    pub(super) async fn follow_their_addresses(&mut self) {
        let alive = self.workloads.groups.alive.values().filter(|alive| !alive.is_declared);
        let running = alive.filter(|alive| self.lives.is_running(alive.unit));
        let places: Vec<_> = running.map(|alive| (alive.unit, alive.namespace)).collect();
        for (index, namespace) in places {
            if matches!(namespace, Namespace::Numbered(_)) {
                self.tell_addresses(index, namespace).await;
            }
        }
    }

    /// Tells that a unit runs, or which addresses it has now.
    async fn tell_addresses(&mut self, index: u16, namespace: Namespace) {
        let (all, by_network) = self.addresses(namespace).await;
        if self.units.set_addresses(index, all)
            && let Some(unit) = self.units.get(index)
        {
            for said in overlaps::addresses(&self.units, unit) {
                tracing::warn!("{said}");
            }
        }
        let told = self.units.get(index).and_then(|unit| self.lives.run(unit, by_network));
        self.tell_lives(told.as_slice());
    }

    /// The unit that has a network namespace, by its number: looked up anew, for the number may have been another's. Who has no
    /// process any more has it only where nobody runs there: it may be that its end was not heard of yet.
    pub(super) async fn owner_of(&mut self, namespace: i32) -> Option<u16> {
        let mut ended = None;
        for root in self.workloads.roots_in_namespace(namespace) {
            let Workloads { tree: Some(tree), namespaces, groups, .. } = &mut self.workloads else {
                return None;
            };
            let Some(alive) = groups.alive.get_mut(&root) else { continue };
            let Some(pid) = tree.processes(root, 1).first().copied() else {
                ended = ended.or(Some(alive.unit));
                continue;
            };
            let of_first = namespaces.of_process(pid).await;
            if of_first == alive.namespace || alive.kind == Kind::Container && of_first == Namespace::Own {
                return Some(alive.unit);
            }
            alive.namespace = of_first;
        }
        ended
    }

    /// Looks for the network namespaces of units of which they are not known.
    pub(super) async fn find_namespaces(&mut self, whose: Whose) {
        let now = crate::clock::boot();
        let Workloads { tree: Some(tree), namespaces, groups, .. } = &mut self.workloads else { return };
        for (root, alive) in groups.alive.iter_mut().filter(|(_, alive)| alive.is_asked(whose, now)) {
            // Of one that has been there for long, the first process is as good as any.
            let most = if alive.is_recent(now) { ASKED } else { 1 };
            for pid in tree.processes(*root, most) {
                alive.namespace = namespaces.of_process(pid).await;
                // A service is where its own processes are, though one may have gone into a container's.
                let is_enough = match alive.namespace {
                    Namespace::Numbered(_) => true,
                    Namespace::Own => alive.kind != Kind::Container,
                    Namespace::Unknown => false,
                };
                if is_enough {
                    break;
                }
            }
            alive.was_asked(now);
        }
    }

    /// Tells of those that run now. A container runs once packets can reach it, or when that has been waited for.
    pub(super) async fn start_workloads(&mut self) {
        let now = crate::clock::boot();
        let mut ready = Vec::new();
        for alive in self.workloads.groups.alive.values().filter(|alive| !alive.is_declared) {
            let index = alive.unit;
            let Some(since) = alive.populated.filter(|_| !self.lives.is_running(index)) else { continue };
            let is_reached = match alive.namespace {
                Namespace::Numbered(id) => self.watched.ends.are_running(id),
                Namespace::Own | Namespace::Unknown => alive.kind != Kind::Container,
            };
            if is_reached || now.saturating_sub(since) >= PATIENCE_NS {
                ready.push((index, alive.namespace));
            }
        }
        for (index, namespace) in ready {
            self.tell_addresses(index, namespace).await;
        }
        let named: Vec<_> = self.watched.ends.named().collect();
        for (index, ifindex) in named {
            if self.watched.refused.contains_key(&ifindex) {
                let told = self.units.get(index).and_then(|unit| self.lives.fail(unit));
                self.tell_lives(told.as_slice());
            }
        }
        self.tell_unknown(now).await;
    }

    /// Tells of ends that nobody has named for long: something is there.
    async fn tell_unknown(&mut self, now: u64) {
        if self.workloads.tree.is_none() {
            return;
        }
        let interfaces = &self.watched.interfaces;
        let is_unknown = |ifindex| {
            interfaces.get(&ifindex).is_some_and(|interface| interface.decision.kind == role::Kind::Unknown)
        };
        let late = self.watched.ends.still_unnamed(now.saturating_sub(PATIENCE_NS), is_unknown);
        for (interface, namespace) in late {
            let (_, addresses) = self.addresses(Namespace::Numbered(namespace)).await;
            let tags = [format!("interface={interface}")];
            let told = life::of_no_unit(&interface, &tags, addresses, reason::CONTAINER_DELETE_UNKNOWN);
            self.tell_lives(&[told]);
        }
    }

    /// The addresses in a network namespace, and those among them that say something, by network.
    async fn addresses(&self, namespace: Namespace) -> (Vec<IpAddr>, ExtendedMap) {
        let Namespace::Numbered(id) = namespace else { return Default::default() };
        let (mut all, mut by_network) = (Vec::new(), BTreeMap::<&str, Vec<String>>::new());
        // Where it is gone meanwhile, a message comes.
        for (ifindex, ip) in self.workloads.namespaces.addresses(id).await.unwrap_or_default() {
            all.push(ip);
            if let (Some(network), true) = (self.watched.ends.network(id, ifindex), is_of_its_own(ip)) {
                by_network.entry(network).or_default().push(ip.to_string());
            }
        }
        let joined = by_network.into_iter().map(|(network, of)| (network.to_owned(), of.join(",")));
        (all, joined.collect())
    }
}

/// An address that says something of who has it: every interface has a link-local one of IPv6, made from its hardware's.
fn is_of_its_own(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}
