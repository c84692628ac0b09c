//! What a reload does, one step after the other: all that may be refused first, and then what holds from there on.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use collector_ebpf::abi::pu::index;

use super::{
    Daemon, DaemonError, Options,
    moment::nanos,
    policies::{Policies, PolicyError},
    regroup::Regrouped,
    reload::{Asked, Reload, ReloadError},
    workloads::Groups,
};
use crate::{
    clock,
    error::root_cause,
    host::{cgroups::tree::Tree, pcap::Filter},
    kernel::error::KernelError,
    policy::networks::Networks as ExternalNetworks,
    pu::{
        overlaps,
        registry::{Declared, Redeclared, Registry, is_named},
        trace::{Whose, Wish},
        unit_glob::UnitGlob,
    },
};

/// What is to hold, or once that does, what held before.
struct Other {
    units: Registry,
    ignore: Vec<UnitGlob>,
    groups: Groups,
}

/// What was looked at and can be done.
struct Prepared {
    other: Other,
    changed: Redeclared,
    regrouped: Regrouped,
    losers: BTreeSet<u16>,
}

impl Daemon<'_> {
    /// Takes another configuration over, or refuses it as a whole, which is answered.
    pub(super) async fn reload(&mut self, asked: Asked) -> Result<(), DaemonError> {
        let Asked { wanted, answer } = asked;
        // Under the names of before.
        self.drain()?;
        let done = match self.prepare_reload(&wanted) {
            Ok(prepared) => {
                self.take_over(prepared, wanted).await?;
                self.reloads.done.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => {
                self.reloads.refused.fetch_add(1, Relaxed);
                Err(error)
            }
        };
        // Who asked may have stopped waiting.
        let _ = answer.send(done);
        Ok(())
    }

    /// Everything that may fail for what is wished. Nothing that anybody sees has changed where it does.
    fn prepare_reload(&mut self, wanted: &Reload) -> Result<Prepared, ReloadError> {
        if wanted.filter.is_some() != self.options.settings.filter.is_some() {
            return Err(ReloadError::Filter);
        }
        self.check_matchers(&wanted.units)?;
        let (units, changed) = self.units.redeclared(&wanted.units, clock::boot())?;
        self.check_cgroups(wanted, &changed)?;
        let mut other = Other { units, ignore: wanted.ignore.clone(), groups: Groups::default() };
        let policies = self.policies.clone();
        // As if it held already.
        self.exchange(&mut other);
        let looked_at = self.look_at(wanted, &other).map(|regrouped| (self.write(&regrouped), regrouped));
        self.exchange(&mut other);
        let (written, regrouped) = looked_at?;
        let written = written.and_then(|losers| {
            self.disown(&losers)?;
            self.change_filter(wanted.filter.as_ref())?;
            Ok(losers)
        });
        match written {
            Ok(losers) => Ok(Prepared { other, changed, regrouped, losers }),
            Err(error) => {
                self.restore_matchers(&regrouped, *policies);
                Err(error.into())
            }
        }
    }

    /// Tells the programs what they were told before. One step that fails keeps none of the others from being done.
    fn restore_matchers(&mut self, regrouped: &Regrouped, policies: Policies) {
        let moved = self.tell_moved(regrouped, true).map_err(|error| root_cause(&error));
        let matched = self.match_by(self.users.matchers_of(&self.units)).map_err(|error| root_cause(&error));
        let judged = self.restore_policies(policies).map_err(|error| root_cause(&error));
        let barred = self.controller.barrier(&self.flow_maps).map_err(|error| root_cause(&error));
        // What was attributed meanwhile is attributed anew.
        self.controller.next_generation();
        for (what, done) in [
            ("control groups", moved),
            ("addresses, users and ports", matched.map(|_| ())),
            ("policies", judged),
            ("the programs", barred),
        ] {
            if let Err(cause) = done {
                tracing::error!(
                    "{what} are not all as they were before the reload: {cause}. Start the collector anew"
                );
            }
        }
    }

    /// Tells the programs what they find units by; the units that may have lost sockets.
    fn write(&mut self, regrouped: &Regrouped) -> Result<BTreeSet<u16>, KernelError> {
        let mut losers = self.match_by(self.users.matchers_of(&self.units))?.unwrap_or_default();
        self.tell_moved(regrouped, false)?;
        losers.extend(regrouped.losers());
        losers.retain(|unit| is_named(*unit));
        Ok(losers)
    }

    /// Has it asked anew whose the flows are that these units have by their sockets.
    pub(super) fn disown(&mut self, losers: &BTreeSet<u16>) -> Result<(), KernelError> {
        if losers.is_empty() {
            return Ok(());
        }
        // Of a million flows it takes a second or two to look at all.
        self.renew()?;
        // No program runs any more that has read of them what stood there before.
        self.controller.barrier(&self.flow_maps)?;
        let of = |index| self.units.get(index).is_some_and(|unit| losers.contains(&unit.index));
        self.flow_maps.ask_anew(of)
    }

    /// Has another packet filter asked. It is the last that may fail.
    fn change_filter(&mut self, wanted: Option<&Filter>) -> Result<(), KernelError> {
        let Some(wanted) = wanted.filter(|filter| Some(*filter) != self.options.settings.filter.as_ref())
        else {
            return Ok(());
        };
        // What waits was wanted, or is asked for here by the one of before.
        self.drain_packets();
        if let Err(error) = self.controller.change_filter(wanted, &self.flow_maps) {
            if let Some(before) = &self.options.settings.filter {
                self.controller.set_filter(before)?;
            }
            return Err(error);
        }
        if let Some(dropping) = &mut self.dropping {
            dropping.ask(wanted);
        }
        Ok(())
    }

    /// What holds and what does not change places.
    fn exchange(&mut self, other: &mut Other) {
        std::mem::swap(&mut self.units, &mut other.units);
        std::mem::swap(&mut self.options.ignore, &mut other.ignore);
        std::mem::swap(&mut self.workloads.groups, &mut other.groups);
    }

    /// Refuses matchers that the programs, as they were loaded, do not look for. Those that were there from the start are
    /// missing since then.
    fn check_matchers(&self, wanted: &[Declared]) -> Result<(), ReloadError> {
        let [by_user, by_port] = self.users.are_matched();
        let by = |matcher| match matcher {
            "uid" => |unit: &Declared| !unit.users.is_empty(),
            _ => |unit: &Declared| !unit.ports.is_empty(),
        };
        for (matcher, is_looked_for) in [("uid", by_user), ("port", by_port)] {
            let is_fine = is_looked_for || self.options.units.iter().any(by(matcher));
            if let Some(unit) = wanted.iter().find(|unit| !is_fine && by(matcher)(unit)) {
                return Err(ReloadError::NotLookedFor { id: unit.id.as_str().into(), matcher });
            }
        }
        Ok(())
    }

    /// Refuses what asks for cgroups that were followed once and are not any more.
    fn check_cgroups(&self, wanted: &Reload, changed: &Redeclared) -> Result<(), ReloadError> {
        let alive = &self.workloads.groups.alive;
        if self.workloads.tree.is_some() || alive.is_empty() {
            return Ok(());
        }
        let cgroups = |units: &[Declared]| -> Vec<_> {
            let with_cgroups = units.iter().filter(|unit| !unit.cgroups.is_empty());
            with_cgroups.map(|unit| (unit.id.clone(), unit.cgroups.clone())).collect()
        };
        let stays = cgroups(&self.options.units) == cgroups(&wanted.units)
            && self.options.ignore == wanted.ignore
            && changed.replaced.is_empty()
            && !alive.values().any(|alive| changed.removed.contains(&alive.unit));
        if stays { Ok(()) } else { Err(ReloadError::NotFollowed) }
    }

    /// Looks at what is wished for, with what it says of units in place, and that of before in `before`.
    fn look_at(&mut self, wanted: &Reload, before: &Other) -> Result<Regrouped, ReloadError> {
        let regrouped = self.regroup(&before.groups)?;
        for wish in &wanted.traces {
            // A unit that was found may come again.
            let is_as_before = self.options.traces.contains(wish)
                && !matches!(&wish.whose, Whose::Unit(id) if self.options.units.iter().any(|unit| unit.id == **id));
            match wish.entry(&self.units) {
                Err(error) if !is_as_before => return Err(error.into()),
                _ => {}
            }
        }
        self.counters.ensure(self.units.last_index())?;
        if !wanted.traces.is_empty() {
            self.open_tracing()?;
        }
        let Options { policies, enforcement, .. } = &self.options;
        let unknown = if *policies == wanted.policies && *enforcement == wanted.enforcement {
            // Other units may have them.
            let unknown =
                self.check_lockout(&wanted.policies, wanted.enforcement).map_err(PolicyError::from)?;
            self.fit_policies()?;
            unknown
        } else {
            self.load_policies(&wanted.policies, wanted.enforcement)?
        };
        if let Some(unknown) = unknown {
            tracing::warn!("{unknown}");
        }
        Ok(regrouped)
    }

    async fn take_over(&mut self, prepared: Prepared, wanted: Reload) -> Result<(), DaemonError> {
        let Prepared { mut other, changed, regrouped, losers } = prepared;
        let notes = self.notes();
        self.exchange(&mut other);
        for said in self.notes().iter().filter(|said| !notes.contains(said)) {
            tracing::warn!("{said}");
        }
        let Reload { units, policies, enforcement, networks, traces, forwarded, .. } = wanted;
        let Reload { flow_interval, counter_interval, drain_interval, filter, .. } = wanted;
        self.options.units = units;
        self.options.policies = policies;
        self.options.enforcement = enforcement;
        self.scribe.name_networks(ExternalNetworks::new(&networks));
        self.options.networks = networks;
        self.options.forwarded = forwarded;
        self.options.settings.filter = filter;
        self.options.flow_interval = flow_interval;
        self.options.counter_interval = counter_interval;
        self.options.drain_interval = drain_interval;
        self.flows.report_every(nanos(flow_interval), self.moment.boot_ns);
        if !changed.is_nothing() || !regrouped.is_nothing() {
            self.attribute_anew(&changed, &regrouped).await?;
        }
        self.retrace(&traces)?;
        self.follow_policies();
        // Each flow meets what is new at its next packet in another epoch.
        self.drain()?;
        self.let_go(&losers);
        Ok(())
    }

    /// What is said of how units are declared, in sentences.
    fn notes(&self) -> Vec<String> {
        let cgroups = self.workloads.tree.as_ref().map(Tree::all).unwrap_or_default();
        let found = overlaps::found(&self.units, cgroups.iter().map(|cgroup| cgroup.path.as_str()));
        self.users.notes(&self.units).into_iter().flatten().chain(found).collect()
    }

    /// Tells the programs and everybody else of units that are declared otherwise than before.
    async fn attribute_anew(
        &mut self,
        changed: &Redeclared,
        regrouped: &Regrouped,
    ) -> Result<(), DaemonError> {
        let of =
            |indexes: &[u16]| indexes.iter().filter_map(|index| self.units.get(*index)).cloned().collect();
        let replaced = changed.replaced.clone();
        let [removed, changed, added]: [Vec<_>; 3] =
            [of(&changed.removed), of(&changed.changed), of(&changed.added)];
        let ended: Vec<u16> = regrouped.ended.iter().copied().collect();
        let mut told = Vec::new();
        told.extend(removed.iter().chain(&of(&ended)).flat_map(|unit| self.lives.delete(unit)));
        told.extend(changed.iter().filter_map(|unit| self.lives.change(unit)));
        told.extend(added.iter().flat_map(|unit| self.lives.declare(unit)));
        self.tell_lives(&told);
        for news in &regrouped.news {
            self.tell_found(news)?;
        }
        for unit in &added {
            self.trace_again(unit.index)?;
        }
        let ended: BTreeSet<u16> = ended.into_iter().chain(removed.iter().map(|unit| unit.index)).collect();
        self.reopen_ends(&ended).await;
        for address in self.watched.locals.clone() {
            let pu = self.units.of_address(address).map_or(index::HOST, |unit| unit.index);
            self.controller.add_local(address, pu)?;
        }
        // Roles of interfaces, and who starts and stops by that.
        self.look_again().await;
        self.controller.barrier(&self.flow_maps)?;
        self.controller.next_generation();
        // What was wished of them by their ids is wished of those that have the ids now.
        for index in ended.into_iter().chain(replaced) {
            self.trace_no_more(index)?;
        }
        Ok(())
    }

    /// Has packets reported as the configuration says now. What it says as before goes on, and does not begin anew.
    fn retrace(&mut self, wanted: &[Wish]) -> Result<(), DaemonError> {
        let before = std::mem::replace(&mut self.options.traces, wanted.to_vec());
        for wish in before.iter().filter(|wish| !wanted.contains(wish)) {
            self.end_wish(wish)?;
        }
        for wish in wanted.iter().filter(|wish| !before.contains(wish)) {
            self.trace_configured(wish)?;
        }
        Ok(())
    }
}
