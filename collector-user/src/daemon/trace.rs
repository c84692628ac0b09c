//! Reports of single packets: who asked for them, the buffers that they come by, and the way to the collector.

use std::future::pending;

use collector_ebpf::abi::{counter, packet::event};
use tokio::sync::{mpsc, oneshot};

use super::{Daemon, DaemonError, complete::Incomplete};
use crate::{
    aggregate::packets::{captured, report},
    drain::{
        decode::{DecodeError, Packet},
        packets::Packets,
    },
    error::root_cause,
    event::{PacketEvent, Text},
    kernel::{
        error::KernelError,
        transport::{ReadCounts, Source},
    },
    pu::trace::{NoSuchUnit, Traces, Whose, Wish, Wishes},
};

/// Wishes that may wait for the daemon's task.
const WAITING: usize = 16;

/// Octets that are taken of a packet beside those that are told: for the headers before the IP header, and so that those
/// behind it can be read whatever the snap length.
const HEADERS: u32 = 64;

/// Why a wish for packets came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// There is no such unit.
    #[error(transparent)]
    Unit(#[from] NoSuchUnit),
    /// The daemon has ended.
    #[error("the collector has ended: nothing is traced any more")]
    Ended,
    /// The kernel refuses something, which the log has told.
    #[error("the packets cannot be had: {cause}")]
    Refused {
        /// What the kernel said.
        cause: String,
    },
}

/// Requests a running daemon for reports of packets.
#[derive(Clone, Debug)]
pub struct Tracer {
    wishes: mpsc::Sender<Asked>,
}

impl Tracer {
    /// Has packets reported. What was wished for before goes on for as long as it would have, at least.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub async fn enable(&self, wish: Wish) -> Result<(), TraceError> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { wish, answer };
        self.wishes.send(asked).await.map_err(|_unsent| TraceError::Ended)?;
        answered.await.map_err(|_unanswered| TraceError::Ended)?
    }
}

impl Default for Tracer {
    /// Of no daemon: whatever is asked of it has ended.
    fn default() -> Self {
        channel().0
    }
}

/// A wish, and who waits for what comes of it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    answer: oneshot::Sender<Result<(), TraceError>>,
}

impl Asked {
    pub(super) fn answer(self, done: Result<(), DaemonError>) {
        let done = done.map_err(|error| match error {
            DaemonError::Trace(error) => error.into(),
            other => TraceError::Refused { cause: root_cause(&other) },
        });
        // Who asked may have stopped waiting.
        let _ = self.answer.send(done);
    }
}

/// The wishes, as they come to the daemon.
pub(super) struct Requests {
    asked: mpsc::Receiver<Asked>,
}

impl Requests {
    /// The next one; waits for ever where nobody can have any.
    pub(super) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => pending().await,
        }
    }
}

pub(super) fn channel() -> (Tracer, Requests) {
    let (wishes, asked) = mpsc::channel(WAITING);
    (Tracer { wishes }, Requests { asked })
}

/// What is traced, and the buffers once anything is.
pub(super) struct Tracing {
    /// Those that are traced.
    pub(super) packets: Packets,
    /// Those that are dropped.
    pub(super) dropped: Packets,
    /// Of those that a capture has.
    pub(super) incomplete: Incomplete,
    traces: Traces,
    tally: Tally,
    /// What was wished, for as long as it holds.
    wishes: Wishes,
}

/// What became of the packets that the programs wrote.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Those of traces that were read.
    pub(super) read: u64,
    /// Those of traces that were written and not read.
    pub(super) lost: u64,
    /// Those of drops that were read.
    pub(super) drops: u64,
    /// What was no packet.
    pub(super) undecodable: u64,
}

impl Tracing {
    pub(super) fn new(packets: (Source, ReadCounts), dropped: Source) -> Result<Self, KernelError> {
        Ok(Self {
            packets: Packets::new(packets.0, Some(packets.1))?,
            // Of drops each unit has a budget.
            dropped: Packets::new(dropped, None)?,
            incomplete: Incomplete::default(),
            traces: Traces::default(),
            tally: Tally::default(),
            wishes: Wishes::default(),
        })
    }

    /// What became of the packets that the ledger of the programs knows of.
    pub(super) fn tally(&self, ledger: &counter::Ledger) -> Tally {
        // The numbers of CPUs that go on counting are not those of one moment.
        let others = [ledger.filtered, ledger.sampled, ledger.output_failed, self.tally.read];
        let lost = others.into_iter().fold(ledger.traced, u64::saturating_sub);
        Tally { lost, ..self.tally }
    }

    /// Reports of drops that were read.
    pub(super) const fn drops_read(&self) -> u64 {
        self.tally.drops
    }
}

impl Daemon<'_> {
    /// Has packets reported from now on.
    pub(super) fn trace(&mut self, wish: &Wish) -> Result<(), DaemonError> {
        let now = self.begin_trace(wish)?;
        self.tracing.wishes.keep(wish, now, false);
        Ok(())
    }

    /// Has packets reported, as the configuration says.
    pub(super) fn trace_configured(&mut self, wish: &Wish) -> Result<(), DaemonError> {
        let now = self.begin_trace(wish)?;
        self.tracing.wishes.keep(wish, now, true);
        Ok(())
    }

    /// Tells the programs of a wish; since when it holds, on the boot clock.
    fn begin_trace(&mut self, wish: &Wish) -> Result<u64, DaemonError> {
        let entry = wish.entry(&self.units)?;
        self.open_tracing()?;
        let now = self.programs.anchor()?.boot_ns;
        for entry in self.entries_of(entry) {
            let trace = self.tracing.traces.add(entry, wish, now);
            self.controller.trace(entry, trace)?;
        }
        self.controller.capture(u32::from(self.options.snaplen) + HEADERS);
        Ok(now)
    }

    /// Reports what was asked for by a wish no more; what else was asked for of the same unit goes on.
    pub(super) fn end_wish(&mut self, wish: &Wish) -> Result<(), DaemonError> {
        self.tracing.wishes.forget_configured(wish);
        // There is none of a unit that has gone.
        let Ok(entry) = wish.entry(&self.units) else { return Ok(()) };
        let entries = self.entries_of(entry);
        for entry in entries {
            self.forget_trace(entry)?;
        }
        self.go_on(&wish.whose)
    }

    /// An entry, and those of other indexes that the same unit is counted by.
    fn entries_of(&self, entry: u32) -> Vec<u32> {
        let unit = u16::try_from(entry).ok();
        unit.map_or_else(|| vec![entry], |unit| self.units.all_of(unit).into_iter().map(u32::from).collect())
    }

    /// What is traced of a unit is traced of another index, too, which turned out to be its.
    pub(super) fn trace_also(&mut self, unit: u16, index: u16) -> Result<(), DaemonError> {
        if let Some(trace) = self.tracing.traces.follow(unit.into(), index.into()) {
            self.controller.trace(index.into(), trace)?;
        }
        Ok(())
    }

    /// Fulfils what was wished of a unit before it was there again.
    pub(super) fn trace_again(&mut self, unit: u16) -> Result<(), DaemonError> {
        let id = self.units.get(unit).map(|unit| unit.id.clone());
        id.map_or(Ok(()), |id| self.go_on(&Whose::Unit(id)))
    }

    /// Tells the programs of all that is still wished of somebody.
    fn go_on(&mut self, whose: &Whose) -> Result<(), DaemonError> {
        for wish in self.tracing.wishes.of(whose, crate::clock::boot()) {
            self.begin_trace(&wish)?;
        }
        Ok(())
    }

    /// Nobody is traced by an index any more: it will be another's.
    pub(super) fn trace_no_more(&mut self, index: u16) -> Result<(), KernelError> {
        self.forget_trace(index.into())
    }

    /// Ends what is traced by an entry. After the last of them a packet costs what it cost before.
    fn forget_trace(&mut self, entry: u32) -> Result<(), KernelError> {
        if self.tracing.traces.forget(entry) {
            self.controller.end_trace(entry)?;
            self.end_capture();
        }
        Ok(())
    }

    fn end_capture(&self) {
        if self.tracing.traces.is_empty() {
            self.controller.capture(0);
        }
    }

    /// Makes the buffers for packets that are traced, where they are missing.
    pub(super) fn open_tracing(&mut self) -> Result<(), KernelError> {
        let cpus = self.options.settings.with_buffers()?;
        self.tracing.packets.open(&cpus)
    }

    /// Forgets what is over.
    pub(super) fn end_traces(&mut self) -> Result<(), DaemonError> {
        for entry in self.tracing.traces.end(self.moment.boot_ns) {
            self.controller.end_trace(entry)?;
            self.end_capture();
        }
        Ok(())
    }

    /// Tells of a packet.
    pub(super) fn tell_packet(&mut self, packet: Result<Packet, DecodeError>) {
        let packet = match packet {
            Ok(packet) => packet,
            Err(error) => {
                self.tracing.tally.undecodable += 1;
                tracing::debug!(%error, "a packet's record was not understood");
                return;
            }
        };
        let snaplen = usize::from(self.options.snaplen);
        let interface = self.watched.interfaces.get(&packet.record.ifindex);
        let interface = interface.filter(|_| self.is_of_here(&packet.record));
        let interface: Text = interface.map_or_else(|| "".into(), |interface| interface.name.as_str().into());
        let mut report = report(&packet, snaplen, interface.clone(), &self.units, &self.moment);
        report.encrypt = self.is_to_be_encrypted(&packet.record, &report);
        if packet.record.event == event::DROPPED {
            self.tracing.tally.drops += 1;
            if !self.wants_drop(&packet) || !self.describe_drop(&packet.record, &mut report) {
                return;
            }
        } else {
            self.tracing.tally.read += 1;
        }
        if let Some(capture) = &self.options.capture
            && let Some(mut captured) = captured(&packet, snaplen, interface, &self.units, &self.moment)
        {
            captured.drop_reason = report.kernel_reason.clone();
            captured.drop_place = report.drop_place.clone();
            if report.event == PacketEvent::Dropped {
                captured.ethertype = report.ethertype.clone();
            }
            capture.capture(&captured);
            self.tracing.incomplete.add(&captured);
        }
        self.collector.collect_packet_event(&report);
    }

    /// Tells of packets; `true` where a capture was told until when all are there, for so many wait.
    pub(super) fn tell_packets(
        &mut self,
        packets: &mut Vec<Result<Packet, DecodeError>>,
    ) -> Result<bool, DaemonError> {
        for packet in packets.drain(..) {
            self.tell_packet(packet);
        }
        let is_pressed = self.tracing.incomplete.is_pressed();
        if is_pressed {
            self.look_at_packets()?;
        }
        Ok(is_pressed)
    }

    /// Tells of the packets that are there now.
    pub(super) fn drain_packets(&mut self) {
        let mut all = Vec::new();
        self.tracing.packets.drain(|packet| all.push(packet));
        self.tracing.dropped.drain(|packet| all.push(packet));
        // As they were seen, as far as it is known here: that a packet was dropped is told behind the packet.
        all.sort_by_key(|packet| packet.as_ref().map_or(0, |packet| packet.record.boot_ns));
        for packet in all {
            self.tell_packet(packet);
        }
    }
}
