//! Serving: whatever comes is answered, one thing at a time, until told to stop; then all that was counted is handed over.

use std::{collections::BTreeSet, future::Future, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    Daemon, DaemonError, SWEEP_INTERVAL, alive::Whose, complete, inquiry::Inquiries, interfaces::tell,
    reload::Reloads, reports::Teller, trace::Requests,
};
use crate::{
    event::{InterfaceStatus, Status},
    host::watch::Change,
    kernel::control::LEASE_SECONDS,
};

/// Between two looks for what no message tells of units that are found.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Daemon<'_> {
    pub(super) async fn serve(
        &mut self,
        mut shutdown: impl Future<Output = ()> + Unpin,
        changes: impl futures_util::Stream<Item = Change> + Unpin,
        mut wishes: Requests,
        mut inquiries: Inquiries,
        mut reloads: Reloads,
    ) -> Result<(), DaemonError> {
        // One answer to a burst of messages: each answer lists everything.
        let mut changes = changes.ready_chunks(1024);
        let mut listening = true;
        let mut drain = ticks(self.options.drain_interval);
        let mut report = ticks(self.options.counter_interval);
        // A collector that was killed a moment ago still has a lease; once that has run out, its leftovers are known.
        let mut second_look = ticks(Duration::from_secs(u64::from(LEASE_SECONDS) + 1));
        let mut looked = false;
        let mut sweep = ticks(SWEEP_INTERVAL);
        let mut is_swept = false;
        let mut look = ticks(LOOK_INTERVAL);
        let mut news = Vec::new();
        let (mut packets, mut dropped) = (Vec::new(), Vec::new());
        let mut packets_due = ticks(complete::LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                _ = drain.tick() => {
                    self.drain()?;
                }
                _ = look.tick() => self.tick_workloads().await,
                _ = report.tick() => {
                    self.drain()?;
                    self.report_counters()?;
                    self.warn_of_drops();
                    // What was counted by an index is told before another has it.
                    if std::mem::take(&mut is_swept) {
                        self.forget_workloads()?;
                    }
                }
                _ = sweep.tick() => {
                    is_swept = true;
                    self.sweep_identities()?;
                    self.rescan_cgroups().await?;
                    self.follow_their_addresses().await;
                    self.restore_all().await;
                    // Counters that go back are noticed while they are below what they were.
                    self.take_counts().await;
                }
                _ = second_look.tick(), if !looked => {
                    looked = true;
                    tell(self.remove_leftovers().await);
                }
                change = changes.next(), if listening => self.follow(change, &mut listening).await,
                // At once, but never instead of the others: they are asked in random order.
                () = std::future::ready(()), if self.workloads.is_called => {
                    self.answer_call(Whose::Recent).await;
                }
                () = std::future::ready(()), if self.watched.unfinished => {
                    // Set again where there is more to do, not where nothing can be done.
                    self.watched.unfinished = false;
                    self.look_again().await;
                }
                changes = self.workloads.next() => self.follow_cgroups(changes).await?,
                result = self.events.next(|record| news.push(record)) => {
                    let until = result?;
                    let is_pressed = self.book_all(news.drain(..));
                    for news in self.order.until(until) {
                        self.learn(&news);
                    }
                    if is_pressed {
                        self.drain()?;
                        drain.reset();
                    }
                }
                result = self.tracing.packets.next(|packet| packets.push(packet)) => {
                    result?;
                    if self.tell_packets(&mut packets)? {
                        packets_due.reset();
                    }
                }
                result = self.tracing.dropped.next(|packet| dropped.push(packet)) => {
                    result?;
                    if self.tell_packets(&mut dropped)? {
                        packets_due.reset();
                    }
                }
                _ = packets_due.tick(), if self.options.capture.is_some() => self.look_at_packets()?,
                wish = wishes.next() => {
                    let done = self.trace(&wish.wish);
                    wish.answer(done);
                }
                asked = inquiries.next() => {
                    self.drain()?;
                    drain.reset();
                    self.answer(asked).await?;
                }
                () = self.users.changed() => self.follow_users()?,
                asked = reloads.next() => {
                    self.reload(asked).await?;
                    drain = ticks(self.options.drain_interval);
                    if report.period() != self.options.counter_interval {
                        report = ticks(self.options.counter_interval);
                    }
                }
                change = self.cpus.next() => self.follow_cpus(change),
                result = self.faults.pass_on() => result?,
            }
        }
    }

    /// Does what changes ask for; none will come any more where there are none.
    async fn follow(&mut self, changes: Option<Vec<Change>>, listening: &mut bool) {
        let Some(changes) = changes else {
            *listening = false;
            tracing::error!(
                "netlink tells no more of changes: interfaces that come or change from now on are not seen. Start the \
                 collector anew"
            );
            return self.look_again().await;
        };
        if changes.contains(&Change::Overrun) {
            tracing::info!(
                "more changes of interfaces than netlink had room for: all of them are looked at anew"
            );
        }
        if changes.contains(&Change::Queue) {
            self.watched.queues.went();
        }
        let is_of_all = |change: &Change| matches!(change, Change::Any | Change::Overrun);
        if changes.iter().any(|change| is_of_all(change) || *change == Change::Links) {
            self.watched.refused.clear();
            self.xdp.hope_again();
            self.look_again().await;
        }
        if changes.iter().any(is_of_all) {
            return self.restore_all().await;
        }
        let of_filters = |change: &Change| match change {
            Change::Filters(index) => Some(*index),
            Change::Links | Change::Queue | Change::Any | Change::Overrun => None,
        };
        let interfaces: BTreeSet<u32> = changes.iter().filter_map(of_filters).collect();
        self.restore(interfaces).await;
    }

    /// Detaches, and hands over all that was counted.
    pub(super) async fn finish(&mut self) -> Result<Status, DaemonError> {
        self.netlink.stop_listening();
        let interfaces = self.compared_status().await;
        self.detach_all().await;
        if let Some(dropping) = &mut self.dropping {
            dropping.stop(&mut self.programs);
        }
        // Twice: a program that was running read the epoch before or after the first swap. And whatever fails, what was
        // drained is told.
        let drained = self.drain().and_then(|()| self.drain());
        let drained = drained.and_then(|()| self.complete_packets(u64::MAX));
        let Self { flows, scribe, units, moment, collector, options, watched, policies, users, .. } = self;
        let verdicts = &policies.sets.verdicts;
        let teller =
            Teller { scribe, units, moment, collector: *collector, options, watched, verdicts, users };
        flows.cut_off(&teller, |id, flow| teller.tell(id, flow));
        let reported = self.report_counters();
        let ended = self.lives.end(&self.units);
        self.tell_lives(&ended);
        let status = self.status(interfaces);
        drained.and(reported)?;
        Ok(status)
    }

    /// How it stands, the interfaces being these.
    pub(super) fn status(&mut self, interfaces: Vec<InterfaceStatus>) -> Status {
        let ledger = self.ledger();
        let drops = self.dropped();
        let queues = self.queues_told(&interfaces, &drops);
        let transport = self.options.settings.transport.name().to_owned();
        Status { interfaces, transport, drops, queues, ledger }
    }
}

/// Ticks that begin one period from now. A tick that comes late does not bring others after it.
fn ticks(period: Duration) -> tokio::time::Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
