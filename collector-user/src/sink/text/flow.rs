//! A flow in one line.

use std::fmt::Write as _;

use super::{
    escape::Escaped,
    line::{self, Columns},
    look::Look,
    number::{Count, put_count, put_number, put_octets},
};
use crate::event::{Ended, FlowRecord, ResetBy, Time, Tunnel};

/// Appends the line, without its end.
pub(super) fn put(line: &mut String, columns: &mut Columns, look: &Look, time: Time, record: &FlowRecord) {
    let end = |end| line::end(end, &record.context_id, record.l4_protocol);
    let (client, server) = (end(record.source.as_ref()), end(record.destination.as_ref()));
    columns.put_start(line, look, time, &record.context_id);
    columns.put_ends(line, look, [&client, &server], &line::protocol_name(record.l4_protocol));
    put_amounts(line, look.forth(), record.packets, record.bytes);
    put_amounts(line, look.back(), record.reply_packets, record.reply_bytes);
    line.push_str("  ");
    put_verdict(line, look, record);
    line.push(' ');
    if record.dropped_packets > 0 {
        let (count, reason) = (Count(record.dropped_packets), Escaped(&record.kernel_reason));
        // Writing to a `String` cannot fail.
        let _ = write!(line, "{count} pkt {reason} at {}", Escaped(&record.drop_place));
        return;
    }
    line.push_str(how_it_ended(record));
    if record.rejected_packets > 0 {
        // Writing to a `String` cannot fail.
        let _ = write!(
            line,
            " {} pkt rejected by {}",
            Count(record.rejected_packets),
            Escaped(&record.policy_id)
        );
    } else if would_be_rejected(record) {
        let _ = write!(line, " would be rejected by {}", Escaped(&record.policy_id));
    }
    if record.vlan != 0 {
        line.push_str(" vlan ");
        put_number(line, record.vlan.into());
    }
    if record.tunnel != Tunnel::None {
        let _ = write!(line, " in {} {}", record.tunnel, record.tunnel_id);
    }
    let users = [&record.source, &record.destination].into_iter().flatten().map(|end| &end.user);
    for user in users.filter(|user| !user.is_empty()) {
        let _ = write!(line, " user {}", Escaped(user));
    }
}

fn put_amounts(line: &mut String, arrow: &str, packets: u64, octets: u64) {
    line.push(' ');
    line.push_str(arrow);
    put_count(line, packets, 6);
    line.push_str(" pkt ");
    put_octets(line, octets, 9);
}

/// Whether a policy rejects what has passed all the same, for that is not enforced.
fn would_be_rejected(record: &FlowRecord) -> bool {
    record.drop_reason.is_empty() && record.action.rejected() && !record.action.accepted()
}

/// What was done with the flow, or why packets of it were dropped.
fn put_verdict(line: &mut String, look: &Look, record: &FlowRecord) {
    const WIDTH: usize = 11;
    let put = |line: &mut String, word: &str| line::put_left(line, word, WIDTH);
    if would_be_rejected(record) {
        look.painted(line, "33", |line| put(line, "passed"));
    } else if record.drop_reason.is_empty() {
        let colour = if record.action.rejected() { "31" } else { "32" };
        look.painted(line, colour, |line| put(line, record.action.action_string()));
    } else {
        let reason = format!("drop:{}", Escaped(&record.drop_reason));
        look.painted(line, "31", |line| put(line, &reason));
    }
}

fn how_it_ended(record: &FlowRecord) -> &'static str {
    match (record.ended, record.reset_by) {
        (Ended::Live, _) => "open",
        (Ended::Reset, ResetBy::Source) => "reset by client",
        (Ended::Reset, ResetBy::Destination) => "reset by server",
        (ended, _) => ended.text(),
    }
}
