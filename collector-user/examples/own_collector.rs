//! A collector of one's own: how much went to and from each server, until Ctrl-C.
//!
//! ```sh
//! cargo xtask build                                               # the eBPF object
//! cargo build --package collector-user --example own_collector    # embeds it
//! sudo target/debug/examples/own_collector
//! ```

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, Write as _},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use collector_user::{
    collector::EventCollector,
    daemon::{self, Options},
    event::{
        ContainerRecord, CounterReport, DnsRequestReport, FlowRecord, PacketReport, PingReport, UserRecord,
        hash,
    },
};

/// Octets in both directions, by the server's address and port.
#[derive(Default)]
pub(crate) struct Servers(Mutex<BTreeMap<SocketAddr, u64>>);

impl EventCollector for Servers {
    fn collect_flow_event(&self, record: &FlowRecord) {
        let server = record.destination.as_ref().and_then(|end| Some(SocketAddr::new(end.ip?, end.port)));
        if let Some(server) = server {
            let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *servers.entry(server).or_default() += record.bytes + record.reply_bytes;
        }
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        hash::stats_user_hash(record);
    }

    fn collect_container_event(&self, _: &ContainerRecord) {}
    fn collect_trace_event(&self, _: &[String]) {}
    fn collect_packet_event(&self, _: &PacketReport) {}
    fn collect_counter_event(&self, _: &CounterReport) {}
    fn collect_dns_requests(&self, _: &DnsRequestReport) {}
    fn collect_ping_event(&self, _: &PingReport) {}
}

impl Servers {
    /// What was seen so far.
    pub(crate) fn bytes(&self) -> BTreeMap<SocketAddr, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = Servers::default();
    let interrupted = async {
        // Where there are no signals, it ends at once.
        let _ = tokio::signal::ctrl_c().await;
    };
    daemon::run(&Options::default(), &servers, interrupted, |_started| {}).await?;
    let mut out = io::stdout().lock();
    for (server, bytes) in servers.bytes() {
        writeln!(out, "{server}  {bytes} B")?;
    }
    Ok(())
}
