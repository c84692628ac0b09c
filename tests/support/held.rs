//! A daemon that can be held at an event: whatever happens meanwhile, it hears of all of it at once.

use std::sync::{
    Mutex, PoisonError,
    mpsc::{self, Receiver, Sender},
};

use collector_user::{
    collector::{EventCollector, memory::Recorder},
    event::{
        ContainerRecord, CounterReport, DnsRequestReport, FlowRecord, PacketReport, PingReport, UserRecord,
    },
};

use crate::{PATIENCE, Result};

/// Where the daemon stops once it is asked to.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    asked: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

/// The daemon stands still until this is dropped.
#[derive(Debug)]
pub struct Held {
    _go: Sender<()>,
}

impl Gate {
    /// Returns once the daemon stands at an event.
    pub(crate) fn hold(&self) -> Result<Held> {
        let ((here, came), (go, gone)) = (mpsc::channel(), mpsc::channel());
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some((here, gone));
        came.recv_timeout(PATIENCE)?;
        Ok(Held { _go: go })
    }

    fn pass(&self) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((here, gone)) = asked
            && here.send(()).is_ok()
        {
            // What comes is that the other end is dropped.
            let _ = gone.recv();
        }
    }
}

/// A recorder behind a gate: counters, which are reported at times of their own, are what a daemon is held at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated<'a>(pub(crate) &'a Recorder, pub(crate) &'a Gate);

impl EventCollector for Gated<'_> {
    fn collect_flow_event(&self, record: &FlowRecord) {
        self.0.collect_flow_event(record);
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        self.0.collect_container_event(record);
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        self.0.collect_user_event(record);
    }

    fn collect_trace_event(&self, records: &[String]) {
        self.0.collect_trace_event(records);
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        self.0.collect_packet_event(report);
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        self.0.collect_counter_event(report);
        self.1.pass();
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        self.0.collect_dns_requests(request);
    }

    fn collect_ping_event(&self, report: &PingReport) {
        self.0.collect_ping_event(report);
    }
}
