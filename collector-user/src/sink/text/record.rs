//! The other records, a line each.
//!
//! The results of `write!` are dropped: writing to a `String` cannot fail.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use super::{
    escape::Escaped,
    line::{self, Columns},
    look::Look,
    number::{Count, Octets},
};
use crate::event::{
    ContainerRecord, CounterReport, DnsRequestReport, PacketReport, PingReport, Text, Time, TraceRecord,
    UserRecord,
};

/// What records have of a unit without an address of its own.
const NO_ADDRESS: &str = "0.0.0.0/0";

/// The claim that names a user.
const USER: &str = "user=";

/// Texts of advice that are remembered.
const ADVICE: usize = 256;

/// The lines of a record that is no flow, without the line ends.
pub(super) struct Lines<'a> {
    pub(super) columns: &'a mut Columns,
    pub(super) look: &'a Look,
    pub(super) time: Time,
    pub(super) advised: &'a mut BTreeSet<Arc<str>>,
}

impl Lines<'_> {
    fn start(&mut self, unit: &str) -> String {
        self.columns.start(self.look, self.time, unit)
    }

    /// Nothing for a unit of a service manager that has no address of its own: a host has hundreds, which come and go.
    pub(super) fn container(&mut self, record: &ContainerRecord) -> Option<String> {
        let is_tagged = |key: &str| record.tags.get(key).is_some();
        if is_tagged("unit") && !is_tagged("runtime") {
            return None;
        }
        let mut line = self.start(&record.context_id);
        let _ = write!(line, "container {}", Escaped(&record.event));
        for (network, address) in record.ip_address.iter().filter(|(_, address)| **address != NO_ADDRESS) {
            let _ = write!(line, " {}={}", Escaped(network), Escaped(address));
        }
        for tag in record.tags.as_slice() {
            let _ = write!(line, " {}", Escaped(tag));
        }
        Some(line)
    }

    pub(super) fn user(&mut self, record: &UserRecord) -> String {
        let mut line = self.start(&record.namespace);
        line.push_str("user");
        // People know each other by their names.
        let is_name = |claim: &&Text| claim.starts_with(USER);
        let name = record.claims.iter().find(is_name);
        if let Some(name) = name.and_then(|claim| claim.strip_prefix(USER)) {
            let _ = write!(line, " {}", Escaped(name));
        } else {
            let _ = write!(line, " {}", Escaped(&record.id));
        }
        for claim in record.claims.iter().filter(|claim| !is_name(claim)) {
            let _ = write!(line, " {}", Escaped(claim));
        }
        if name.is_some() {
            let _ = write!(line, " id {}", Escaped(&record.id));
        }
        line
    }

    pub(super) fn trace(&mut self, record: &TraceRecord) -> Vec<String> {
        let start = self.start("trace");
        record.records.iter().map(|line| format!("{start}{}", Escaped(line))).collect()
    }

    pub(super) fn packet(&mut self, report: &PacketReport) -> String {
        let protocol = report.protocol;
        let source = line::address(report.source_ip, report.source_port, protocol);
        let destination = line::address(report.destination_ip, report.destination_port, protocol);
        let mut line = self.start(&report.puid);
        let carried = if report.ethertype.is_empty() {
            line::protocol_name(protocol)
        } else {
            Escaped(&report.ethertype).to_string().into()
        };
        self.columns.put_ends(&mut line, self.look, [&source, &destination], &carried);
        let event = report.event.text().to_ascii_lowercase();
        let _ = write!(line, " packet {event:<11} {:>9}", Octets(u64::from(report.length)));
        if !report.drop_reason.is_empty() {
            line.push(' ');
            // The kernel's own word says more than the class of it that records have.
            let why =
                if report.kernel_reason.is_empty() { &report.drop_reason } else { &report.kernel_reason };
            line.push_str(&self.look.paint("31", &Escaped(why).to_string()));
        }
        if !report.drop_place.is_empty() {
            let _ = write!(line, " at {}", Escaped(&report.drop_place));
        }
        if !report.interface.is_empty() {
            let _ = write!(line, " on {}", Escaped(&report.interface));
        }
        if report.suppressed > 0 {
            let _ = write!(line, " (and {} held back)", report.suppressed);
        }
        if !report.advice.is_empty()
            && self.advised.len() < ADVICE
            && self.advised.insert(report.advice.clone())
        {
            let _ = write!(line, ": {}", Escaped(&report.advice));
        }
        line
    }

    /// Only counters that are not zero; nothing when all are.
    pub(super) fn counter(&mut self, report: &CounterReport) -> Option<String> {
        let is_datapath = report.context_id.is_empty() && report.namespace.is_empty();
        let mut counts = report.counters.iter().filter(|counter| counter.value > 0).peekable();
        counts.peek()?;
        let mut line = self.start(if is_datapath { "datapath" } else { &report.context_id });
        line.push_str("counters");
        for counter in counts {
            let _ = write!(line, "  {} ", Escaped(&counter.name));
            let _ = if counter.name.ends_with("_bytes") {
                write!(line, "{}", Octets(counter.value))
            } else {
                write!(line, "{}", Count(counter.value))
            };
        }
        Some(line)
    }

    pub(super) fn dns(&mut self, request: &DnsRequestReport) -> String {
        let unit = request.source.as_ref().map_or("", |source| &*source.id);
        let mut line = self.start(unit);
        let _ = write!(line, "dns {} x{}", Escaped(&request.name_lookup), Count(request.count));
        if !request.error.is_empty() {
            line.push(' ');
            line.push_str(&self.look.paint("31", &Escaped(&request.error).to_string()));
        }
        line
    }

    pub(super) fn ping(&mut self, report: &PingReport) -> String {
        let mut line = self.start(&report.source_id);
        let destination = if report.destination_id.is_empty() { "-" } else { &*report.destination_id };
        let _ = write!(
            line,
            "ping {} {} {} request {}",
            report.stage,
            self.look.forth(),
            Escaped(destination),
            report.request
        );
        if !report.latency.is_empty() {
            let _ = write!(line, " after {}", Escaped(&report.latency));
        }
        line
    }
}
