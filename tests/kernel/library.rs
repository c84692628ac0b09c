//! What a user of the library does: a collector of one's own is handed to the daemon, and gets real events.

use std::{panic, sync::mpsc, thread};

use collector_tests::{
    PATIENCE, Result,
    collector::options,
    lab::Wire,
    traffic::{Datagrams, Host, headers, send_and_settle},
};
use collector_user::{daemon, event::Status};
use own_collector::Servers;
use tokio::sync::oneshot;

/// The example itself.
#[path = "../../collector-user/examples/own_collector.rs"]
#[expect(dead_code, reason = "its `main` is not the test's")]
mod own_collector;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_collector_of_ones_own_gets_real_events() -> Result<()> {
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[5004])?;
    let datagrams = Datagrams { to: host.address(4, 5004), count: 1000, size: 100 };
    let servers = Servers::default();
    let status = thread::scope(|scope| -> Result<Status> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (say, hear) = mpsc::channel();
        let (place, servers) = (wire.a.place.clone(), &servers);
        let daemon = scope.spawn(move || -> Result<Status> {
            let _guard = place.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let shutdown = async {
                // A sender that is dropped means the same.
                let _ = stopped.await;
            };
            let started = |_: &daemon::Started| {
                let _ = say.send(());
            };
            Ok(runtime.block_on(daemon::run(&options(), servers, shutdown, started))?)
        });
        // Where it does not start, it says why when it is joined.
        let sent = hear
            .recv_timeout(PATIENCE)
            .map_err(Into::into)
            .and_then(|()| send_and_settle(&wire.a, 40_000, &host, &[datagrams]));
        drop(stop);
        let status = daemon.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        sent.map(|()| status)
    })?;
    let bytes = datagrams.count * (datagrams.size as u64 + 8 + headers(datagrams.to.ip()));
    assert_eq!(servers.bytes().get(&datagrams.to), Some(&bytes));
    assert_eq!(status.ledger.seen, status.ledger.explained(), "{:?}", status.ledger);
    assert!(status.ledger.losses().is_empty(), "{:?}", status.ledger.losses());
    Ok(())
}
