//! `collector run`: the daemon with one output, until a signal, the end of its time, or a closed output.

use std::{
    env,
    io::{self, IsTerminal as _},
    time::Duration,
};

use jiff::tz::TimeZone;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::{args::RunArgs, say};
use crate::{
    clock,
    config::{Attach, Config, ConfigError, Interval, Output},
    daemon::{self, DaemonError, Options},
    kernel::{
        attach::{Choice, Mechanism},
        object::Settings,
    },
    pu::registry::Declared,
    sink::{
        SinkError,
        json::Json,
        queue::{self, Queue, Writer},
        text::{Look, Text},
    },
};

/// How long the output may take to write what is queued when the collector ends.
const GRACE: Duration = Duration::from_secs(10);

/// Why a run ends with an exit code other than 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum RunError {
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon does not start, or stops.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The output fails.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// No runtime, or no signals.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

impl RunError {
    /// 2 for bad usage or configuration, 1 for a failure while running.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Daemon(DaemonError::NoSuchInterface { .. } | DaemonError::Units(_)) => 2,
            _ => 1,
        }
    }
}

/// Runs the collector as the arguments and the configuration file say.
pub(super) fn run(args: &RunArgs) -> Result<(), RunError> {
    let mut config = args.config.as_deref().map(Config::load).transpose()?.unwrap_or_default();
    args.apply(&mut config);
    raise_descriptor_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let (output, writer) = output(&config)?;
    let result = runtime.block_on(serve(&config, &output, &writer));
    // Whatever happened, what was handed over is written; and what the daemon says weighs more than the output.
    let closed = runtime.block_on(async { writer.close(tokio::time::sleep(GRACE)).await });
    let mut status = result?;
    let closed = closed.inspect_err(|_| say::losses(&output.counts()))?;
    let counts = closed.counts();
    let name = format(config.output).to_owned();
    status.ledger.delivered.insert(name.clone(), counts.delivered);
    status.ledger.queue_full.insert(name.clone(), counts.queue_full);
    status.ledger.sink_failed.insert(name, counts.failed);
    Ok(runtime.block_on(async { closed.finish(status, tokio::time::sleep(GRACE)).await })?)
}

/// Two descriptors an interface: the soft limit is for programs that use select(2).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, an interface too many is told when it comes.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn serve(config: &Config, output: &Queue, writer: &Writer) -> Result<crate::event::Status, RunError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Runtime)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Runtime)?;
    let duration = config.duration.map(Interval::get);
    let shutdown = async {
        let time_is_up = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = writer.ended() => {}
            () = time_is_up => {}
        }
    };
    Ok(daemon::run(&options(config), output, shutdown, say::started).await?)
}

fn output(config: &Config) -> Result<(Queue, Writer), SinkError> {
    let name = format(config.output);
    let out = io::stdout();
    match config.output {
        Output::Json => queue::start(name, config.queue, clock::wall, Json, out),
        Output::Text => {
            let look = Look::choose(out.is_terminal(), |name| env::var_os(name), TimeZone::system());
            queue::start(name, config.queue, clock::wall, Text::new(look), out)
        }
    }
}

fn format(output: Output) -> &'static str {
    match output {
        Output::Text => "text",
        Output::Json => "json",
    }
}

fn options(config: &Config) -> Options {
    let limits = &config.limits;
    let drain = Duration::from_secs(1);
    let (flow, counter) = (config.flow_interval.get(), config.counter_interval.get());
    Options {
        ifaces: config.iface.clone(),
        units: config
            .pu
            .iter()
            .map(|pu| Declared {
                id: pu.id.to_string(),
                namespace: pu.namespace.to_string(),
                tags: pu.tags.as_slice().iter().map(ToString::to_string).collect(),
                interfaces: pu.interface.clone(),
                ranges: pu.cidr.clone(),
            })
            .collect(),
        forwarded: config.forwarded,
        flow_interval: flow,
        counter_interval: counter,
        // No record can be fresher than the last drain.
        drain_interval: drain.min(flow).min(counter),
        attach: match config.attach {
            Attach::Tcx => Choice::Only(Mechanism::Tcx),
            Attach::Clsact => Choice::Only(Mechanism::Clsact),
            _ => Choice::Auto,
        },
        most_flows: limits.flows as usize * 4,
        settings: Settings {
            slots_4: limits.flow_slots,
            slots_6: limits.flow_slots / 4,
            table_4: limits.flows / 2,
            table_6: limits.flows / 8,
            identities_4: limits.flows,
            identities_6: limits.flows / 4,
            new_flows_per_second: limits.new_flows_per_second,
            // Two seconds' worth.
            new_flows_burst: limits.new_flows_per_second.saturating_mul(2),
            mark_mask: config.mark_mask,
            ..Settings::default()
        },
    }
}
