//! `collector run`: the daemon with its outputs, until a signal, the end of its time, or the end of all outputs.

use std::{io, process::ExitCode, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    args::RunArgs,
    books::{self, Books},
    door::{self, Door},
    ending::{Ending, Hangup},
    outputs::{OutputError, Outputs},
    reload::{self, Reloading},
    say::Voice,
};
use crate::{
    clock,
    collector::{
        EventCollector,
        filter::Kind,
        stash::{Limits, Stash},
    },
    config::{Attach, Config, ConfigError, Drops, Interval, OutputConfig, Socket, Tunnels, Xdp},
    daemon::{self, DaemonError, Options, Started, reload::Reloader},
    event::Status,
    kernel::{
        attach::{Choice, Mechanism},
        drops::DropLimits,
        settings::Settings,
        xdp,
    },
    policy::lockout::Enforcement,
    pu::registry::Declared,
    sink::SinkError,
};

/// Between two looks at what of the merged records is to be handed on, as in the original.
pub(super) const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

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
    /// An output does not begin.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// An output failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// An option says how packets are reported, and none are.
    #[error(
        "{option} says how single packets are reported, and none are: name whose with --trace, or leave it out"
    )]
    Unused {
        /// The option.
        option: &'static str,
    },
    /// No runtime, or no signals.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

impl RunError {
    /// 2 for bad usage or configuration, 1 for a failure while running.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_)
            | Self::Unused { .. }
            | Self::Output(OutputError::SharedPlace { .. } | OutputError::SharedWithLog { .. }) => 2,
            Self::Daemon(error) if error.is_usage() => 2,
            _ => 1,
        })
    }
}

/// Runs the collector as the arguments and the configuration file say.
pub(super) fn run(args: &RunArgs) -> ExitCode {
    let (config, text) = match configuration(args) {
        Ok(read) => read,
        Err(error) => return fail(&Voice::new(args.log_format.unwrap_or_default()), &error),
    };
    let (voice, rest) = match Voice::of_run(config.log_format) {
        Ok(begun) => begun,
        Err(error) => return fail(&Voice::new(config.log_format), &RunError::Runtime(error)),
    };
    voice.start_log();
    let code = collect(args, &config, text, &voice)
        .map_or_else(|failure| fail(&voice, &failure), |()| ExitCode::SUCCESS);
    rest.finish();
    code
}

fn fail(voice: &Voice, failure: &RunError) -> ExitCode {
    voice.error(failure);
    failure.exit_code()
}

/// What holds, and the file's text.
fn configuration(args: &RunArgs) -> Result<(Config, String), RunError> {
    let Some(path) = &args.config else { return Ok((over(Config::default(), args)?, String::new())) };
    let text = Config::read(path)?;
    Ok((over(Config::parse(&text, path)?, args)?, text))
}

/// What the file says, and the command line over it.
pub(super) fn over(mut config: Config, args: &RunArgs) -> Result<Config, RunError> {
    args.apply(&mut config);
    // The octets of a drop are reported, too.
    let unused = [
        ("--sample", args.sample.is_some()),
        ("--snaplen", args.snaplen.is_some() && config.drops == Drops::Off),
    ];
    match unused.into_iter().find(|(_, is_said)| *is_said && config.trace.is_empty()) {
        Some((option, _)) => Err(RunError::Unused { option }),
        None => Ok(config),
    }
}

fn collect(args: &RunArgs, config: &Config, text: String, voice: &Voice) -> Result<(), RunError> {
    raise_descriptor_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let hangup = if args.config.is_some() { Hangup::Reloads } else { Hangup::Ends };
    let ending = Ending::on_signals(hangup).map_err(RunError::Runtime)?;
    let outputs = Outputs::open(config, clock::wall)?;
    ending.watch_over(outputs.queues());
    let done = runtime.block_on(async {
        let file = args.config.as_deref();
        let reloading = file.map(|path| Reloading::new(args, path, voice, config.clone(), text)).transpose();
        let reloading = reloading.map_err(RunError::Runtime)?;
        let result = aggregate(config, voice, &outputs, reloading, &ending).await;
        let give_up = || ending.give_up();
        // A daemon that failed has not been told to stop; from here on a signal means haste all the same.
        ending.begin();
        // Whatever happened, what was handed over is written; and what the daemon says weighs more than the outputs.
        match result {
            Ok(status) => Ok(outputs.close(voice, Some(status), give_up).await?),
            Err(failure) => {
                let closed = outputs.close(voice, None, give_up).await;
                let _ = closed.inspect_err(|error| voice.error(error));
                Err(failure.into())
            }
        }
    });
    // A configuration may still be read from a file system that does not answer: nobody waits for it.
    runtime.shutdown_background();
    done
}

/// Two descriptors an interface: the soft limit is for programs that use select(2).
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, an interface too many is told when it comes.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The daemon before its outputs, with a stash in between where records are to be merged.
async fn aggregate(
    config: &Config,
    voice: &Voice,
    outputs: &Outputs,
    reloading: Option<Reloading<'_>>,
    ending: &Ending,
) -> Result<Status, DaemonError> {
    let Some(aggregate) = config.aggregate else {
        let events = Handed { collector: outputs.collector(), books: outputs.books() };
        return serve(config, voice, events, outputs, reloading, ending).await;
    };
    let stash = Stash::new(outputs.collector(), aggregate, stash_limits(&config.outputs));
    let events = Handed { collector: &stash, books: outputs.books().behind(stash.books()) };
    let flushing = async {
        let begun = Instant::now();
        let mut flush = interval(FLUSH_INTERVAL);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = flush.tick().await;
            stash.flush(now.duration_since(begun));
        }
    };
    let served = tokio::select! {
        served = serve(config, voice, events, outputs, reloading, ending) => served,
        never = flushing => never,
    };
    stash.close();
    let mut status = served?;
    books::enter_stash(&stash.books(), &mut status.ledger);
    Ok(status)
}

/// All flows that the stash holds may be handed on at once: that shall fit the smallest queue of those that they go to.
pub(super) fn stash_limits(outputs: &[OutputConfig]) -> Limits {
    let takers = outputs.iter().filter(|output| output.events.has(Kind::Flow));
    let Some(smallest) = takers.map(|output| output.queue).min() else { return Limits::default() };
    // The rest is for other events; with room for none, nothing would be merged.
    Limits { flows: (smallest - smallest.div_ceil(4)).max(1), ..Limits::default() }
}

/// Who is handed the daemon's events, and where stands what becomes of them. What lies between the daemon and the outputs is
/// that collector's matter.
struct Handed<'a, C> {
    collector: &'a C,
    books: Books,
}

/// The daemon.
async fn serve(
    config: &Config,
    voice: &Voice,
    events: Handed<'_, impl EventCollector>,
    outputs: &Outputs,
    reloading: Option<Reloading<'_>>,
    ending: &Ending,
) -> Result<Status, DaemonError> {
    let Handed { collector, books } = events;
    let options = options(config);
    let unwanted = outputs.all_ended();
    let (tell, begun) = reload::channel();
    let wanted = Wanted { options: &options, duration: config.duration, socket: &config.socket, books };
    let running = until_ended(wanted, voice, collector, unwanted, tell, ending);
    match reloading {
        None => running.await,
        Some(reloading) => tokio::select! {
            ended = running => ended,
            never = reloading.attend(begun) => match never {},
        },
    }
}

/// A daemon that is wanted, for how long, where it can be asked, and what becomes of its events.
pub(super) struct Wanted<'a> {
    pub(super) options: &'a Options,
    pub(super) duration: Option<Interval>,
    pub(super) socket: &'a Socket,
    pub(super) books: Books,
}

/// The daemon, until a signal, the end of its time, or until there is nobody left who wants anything. Once it counts, it
/// can be asked at its socket.
pub(super) async fn until_ended(
    wanted: Wanted<'_>,
    voice: &Voice,
    collector: &impl EventCollector,
    unwanted: impl Future<Output = ()>,
    reloadable: oneshot::Sender<Reloader>,
    ending: &Ending,
) -> Result<Status, DaemonError> {
    let Wanted { options, duration, socket, books } = wanted;
    let (tell, begun) = oneshot::channel();
    let shutdown = async {
        // Its time is that in which it counts.
        let time_is_up = async {
            match (begun.await, duration.map(Interval::get)) {
                (Ok(()), Some(duration)) => tokio::time::sleep(duration).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ending.begun() => {}
            () = unwanted => {}
            () = time_is_up => {}
        }
        // From here on nothing is drained but what is left: there is time to wait for an output's room.
        ending.begin();
    };
    let mut opened = None;
    let started = |started: &Started| {
        let mut started = started.clone();
        match Door::open(socket, started.inquirer.clone(), books) {
            Ok(door) => opened = door,
            Err(error) => started.missing.push(door::missing(&error)),
        }
        voice.started(&started);
        // Who was to hear of it may have ended by a signal, or not be interested.
        let _ = (tell.send(()), reloadable.send(started.reloader));
    };
    let status = Box::pin(daemon::run(options, collector, shutdown, started)).await;
    // Before the outputs take their time: there is nobody any more who could answer.
    drop(opened);
    status
}

pub(super) fn options(config: &Config) -> Options {
    let limits = &config.limits;
    let drain = Duration::from_secs(1);
    let (flow, counter) = (config.flow_interval.get(), config.counter_interval.get());
    Options {
        benign_drops: config.drops == Drops::All,
        ifaces: config.iface.clone(),
        units: config.pu.iter().map(Declared::from).collect(),
        discover: config.discover,
        ignore: config.ignore.clone(),
        forwarded: config.forwarded,
        inner: config.tunnels == Tunnels::Inner,
        flow_interval: flow,
        counter_interval: counter,
        // No record can be fresher than the last drain.
        drain_interval: drain.min(flow).min(counter),
        attach: match config.attach {
            Attach::Tcx => Choice::Only(Mechanism::Tcx),
            Attach::Clsact => Choice::Only(Mechanism::Clsact),
            _ => Choice::Auto,
        },
        xdp: match config.xdp {
            Xdp::Auto => xdp::Choice::Auto,
            Xdp::Native => xdp::Choice::Only(xdp::Mode::Native),
            Xdp::Generic => xdp::Choice::Only(xdp::Mode::Generic),
            _ => xdp::Choice::Off,
        },
        most_flows: limits.flows as usize * 4,
        traces: config.trace.iter().map(|trace| trace.wish(config.sample)).collect(),
        snaplen: config.snaplen,
        capture: None,
        policies: config.policy.clone(),
        networks: config.network.clone(),
        enforcement: match (config.enforce, config.enforce_anyway) {
            (false, _) => Enforcement::Off,
            (true, false) => Enforcement::On,
            (true, true) => Enforcement::Anyway,
        },
        guess_time: Options::default().guess_time,
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
            transport: config.transport,
            mark_mask: config.mark_mask,
            drops: (config.drops != Drops::Off).then(|| DropLimits {
                per_second: limits.drop_reports_per_second,
                burst: limits.drop_reports_per_second.saturating_mul(2),
                ..DropLimits::default()
            }),
            filter: config.filter.clone(),
            ..Settings::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::stash_limits;
    use crate::{collector::stash::Limits, config::Config};

    #[test]
    fn the_stash_fits_the_smallest_queue_of_those_that_take_flows() {
        let flows = |outputs: &[(&str, usize, &str)]| {
            let table = |(name, queue, events): &(&str, usize, &str)| {
                format!(
                    "[[output]]\ntype = \"json\"\nto = \"{name}\"\nqueue = {queue}\nevents = [{events}]\n"
                )
            };
            let text: String = outputs.iter().map(table).collect();
            stash_limits(&Config::parse(&text, Path::new("c.toml")).unwrap().outputs).flows
        };
        let large = ("a", 1000, "\"flow\", \"counter\"");
        assert_eq!(flows(&[large, ("b", 400, "\"flow\"")]), 300);
        assert_eq!(flows(&[large, ("b", 4, "\"counter\"")]), 750, "no flow waits for it");
        for (queue, want) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)] {
            assert_eq!(flows(&[("a", queue, "\"flow\"")]), want, "of {queue}");
        }
        assert_eq!(flows(&[("a", 1, "\"counter\"")]), Limits::default().flows, "nobody's queue fills");
    }
}
