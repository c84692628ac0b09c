//! Sends known traffic through hosts of its own, and compares what was sent with what the collector counts of it.
//!
//! Each [`Setting`] has hosts of its own, which are network namespaces without a name: they go with the process, whatever
//! ends it. The daemon runs in one of them as it would on a host; what was sent is what the sending sockets say.

mod case;
mod hints;
mod offloads;
mod place;
mod traffic;
mod world;

use std::{ops::ControlFlow, sync::mpsc, thread, time::Duration};

pub use case::{Case, Path, Setting, Traffic};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    collector::memory::Recorder,
    daemon::{self, DaemonError, Options},
    error::with_causes,
    event::{EndPoint, FlowRecord, Ledger, Status},
    kernel::{requirements, settings::Settings},
    pu::registry::{Declared, Side},
};
pub use place::PlaceError;
use traffic::Sent;
use world::{World, WorldError};

/// Nothing of a row takes longer, unless something is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_hours(1);

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was tried.
    #[serde(flatten)]
    pub case: Case,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// It ran. Wire packets, both directions.
    Ran {
        /// What the sockets have sent.
        sent: u64,
        /// What the flows of these sockets have counted.
        counted: u64,
        /// What the ledger says that no flow holds.
        lost: u64,
        /// Where there is a difference: what else the collector knows of the time of the row, and of those beside it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hints: Vec<String>,
    },
    /// This host cannot do it.
    NotPossible {
        /// What it lacks.
        not_possible: String,
    },
    /// It went wrong.
    Failed {
        /// How.
        failed: String,
    },
}

impl Row {
    /// Whether it is no proof against the collector: it ran without a difference, or could not run.
    pub fn holds(&self) -> bool {
        match self.outcome {
            Outcome::Ran { sent, counted, lost, .. } => sent == counted + lost && sent != 0,
            Outcome::NotPossible { .. } => true,
            Outcome::Failed { .. } => false,
        }
    }

    /// Whether traffic was sent and counted.
    pub const fn ran(&self) -> bool {
        matches!(self.outcome, Outcome::Ran { .. })
    }
}

/// Why nothing can be tried here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelftestError {
    /// The collector does not run.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// Hosts cannot be made.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Why a case could not be tried to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum CaseError {
    #[error(transparent)]
    World(#[from] WorldError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the collector does not run")]
    Daemon(#[source] Box<DaemonError>),
    #[error("the collector ended before it counted")]
    Ended,
}

/// Tries every case, one after another, and tells each row as it is known, until nobody wants to be told any more.
///
/// # Errors
///
/// [`SelftestError`]: no row would say more.
pub fn run(mut tell: impl FnMut(Row) -> ControlFlow<()>) -> Result<(), SelftestError> {
    for setting in Setting::all() {
        let told = match try_setting(setting) {
            Ok(rows) => rows.into_iter().try_for_each(&mut tell),
            Err(CaseError::Daemon(error)) => return Err((*error).into()),
            Err(CaseError::Place(error) | CaseError::World(WorldError::Place(error))) => {
                return Err(error.into());
            }
            Err(error) => {
                // Of what is not allowed the kernel does not say by what.
                requirements::check().map_err(DaemonError::from)?;
                let outcome = match error {
                    CaseError::World(WorldError::NotPossible { what }) => {
                        Outcome::NotPossible { not_possible: what }
                    }
                    error => Outcome::Failed { failed: with_causes(&error) },
                };
                setting.cases().try_for_each(|case| tell(Row { case, outcome: outcome.clone() }))
            }
        };
        if told.is_break() {
            break;
        }
    }
    Ok(())
}

/// What came of all cases of a setting.
fn try_setting(setting: Setting) -> Result<Vec<Row>, CaseError> {
    let world = World::new(setting)?;
    let send_all = || setting.cases().map(|case| (case, traffic::send(case, &world))).collect::<Vec<_>>();
    let (sent, status, records) = watched(&world, send_all)?;
    // What no flow holds is in the ledger for all cases together: it explains what one lacks, once.
    let mut unheld = no_flow_holds(&status.ledger);
    let mut rows = Vec::new();
    for (case, sent) in sent {
        let outcome = match sent {
            Err(error) => Outcome::Failed { failed: with_causes(&error) },
            Ok(sent) => {
                let counted =
                    records.iter().filter(|record| is_of(record, &sent, case)).map(packets).sum::<u64>();
                let lost = sent.packets.saturating_sub(counted).min(unheld);
                unheld -= lost;
                let differs = sent.packets != counted + lost;
                let hints = if differs { hints::of(&status, &records) } else { Vec::new() };
                Outcome::Ran { sent: sent.packets, counted, lost, hints }
            }
        };
        rows.push(Row { case, outcome });
    }
    Ok(rows)
}

/// Lets the daemon watch the middle host while `act` goes on, and returns what it told.
fn watched<T>(world: &World, act: impl FnOnce() -> T) -> Result<(T, Status, Vec<FlowRecord>), CaseError> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (say, hear) = mpsc::channel();
    let recorder = Recorder::new();
    let options = options(world);
    thread::scope(|scope| {
        let (recorder, options) = (&recorder, &options);
        let daemon = scope.spawn(move || -> Result<Status, CaseError> {
            world.watched.within(|| -> Result<Status, CaseError> {
                let failed = |source| CaseError::Daemon(Box::new(DaemonError::Events(source)));
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
                let shutdown = async {
                    // A sender that is dropped means the same.
                    let _ = stopped.await;
                };
                let running = daemon::run(options, recorder, shutdown, |_| {
                    let _ = say.send(());
                });
                runtime.block_on(running).map_err(|error| CaseError::Daemon(Box::new(error)))
            })?
        });
        // It says nothing where it ends at once: then its own error says why.
        let acted = hear.recv().ok().map(|()| act());
        drop(stop);
        let status = daemon.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))?;
        let acted = acted.ok_or(CaseError::Ended)?;
        let flows = recorder.take().into_iter().filter_map(|event| match event {
            crate::event::Event::Flow(record) => Some(record),
            _ => None,
        });
        Ok((acted, status, flows.collect()))
    })
}

fn options(world: &World) -> Options {
    let units = world.inside.iter().map(|interface| Declared {
        id: UNIT.to_owned(),
        interfaces: vec![interface.clone()],
        side: Some(Side::Behind),
        ..Declared::default()
    });
    Options {
        units: units.collect(),
        flow_interval: NEVER,
        counter_interval: NEVER,
        // A handful of flows.
        settings: Settings {
            slots_4: 1 << 10,
            slots_6: 1 << 10,
            table_4: 1 << 10,
            table_6: 1 << 10,
            identities_4: 1 << 10,
            identities_6: 1 << 10,
            ..Settings::default()
        },
        ..Options::default()
    }
}

/// The declared unit behind the bridge.
const UNIT: &str = "selftest";

/// Whether a record is of the case's own traffic, where it is counted once.
fn is_of(record: &FlowRecord, sent: &Sent, case: Case) -> bool {
    let port = |end: Option<&EndPoint>| end.map_or(0, |end| end.port);
    let ports = (port(record.source.as_ref()), port(record.destination.as_ref()));
    let own = ports == (sent.from, sent.to) || ports == (sent.to, sent.from);
    own && record.l4_protocol == case.traffic.protocol()
        && (!case.setting.is_masqueraded() || is_units(record))
}

fn is_units(record: &FlowRecord) -> bool {
    [&record.source, &record.destination].into_iter().flatten().any(|end| end.id.as_ref() == UNIT)
}

fn packets(record: &FlowRecord) -> u64 {
    record.packets + record.reply_packets
}

/// Buffers that are in the ledger, and in no flow. A buffer may stand for several packets; then this explains less than is
/// lacking, and the row shows a difference where there was a loss that is named: never the other way round.
fn no_flow_holds(ledger: &Ledger) -> u64 {
    ledger.table_full + ledger.rate_limited
}
