//! Captures as flows: the same records, to the same outputs, as a run has.

use std::{process::ExitCode, time::Duration};

use super::{ReadError, input, odd::Odd, progress::Progress};
use crate::{
    cli::{
        args::ReadArgs,
        books,
        ending::{Ending, Hangup},
        outputs::Outputs,
        run::{FLUSH_INTERVAL, stash_limits},
        say::Voice,
    },
    clock,
    collector::{EventCollector, stash::Stash},
    config::{Config, OutputConfig, Tunnels},
    event::Status,
    pu::registry::Declared,
    read::replay::{LocalNetworks, Options, Replay},
};

/// Reads all files as one run, and says what is wrong with each.
pub(super) fn run(args: &ReadArgs) -> ExitCode {
    let config = match configuration(args) {
        Ok(config) => config,
        Err(error) => return fail(&Voice::new(args.log_format.unwrap_or_default()), &error),
    };
    let (voice, rest) = match Voice::of_run(config.log_format) {
        Ok(begun) => begun,
        Err(error) => return fail(&Voice::new(config.log_format), &ReadError::Runtime(error)),
    };
    voice.start_log();
    let code = match read(args, &config, &voice) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&voice, &error),
    };
    rest.finish();
    code
}

fn fail(voice: &Voice, error: &ReadError) -> ExitCode {
    voice.error(error);
    error.exit_code()
}

/// What the file says, and the command line over it.
fn configuration(args: &ReadArgs) -> Result<Config, ReadError> {
    let mut config = args.config.as_deref().map(Config::load).transpose()?.unwrap_or_default();
    if let Some(output) = args.output {
        config.outputs = vec![OutputConfig::stdout(output, config.queue)];
    }
    config.aggregate = args.aggregate.or(config.aggregate);
    config.tunnels = args.tunnels.unwrap_or(config.tunnels);
    config.log_format = args.log_format.unwrap_or(config.log_format);
    Ok(config)
}

/// Whether every file was read to its end, and nothing was odd.
fn read(args: &ReadArgs, config: &Config, voice: &Voice) -> Result<bool, ReadError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ReadError::Runtime)?;
    let ending = Ending::on_signals(Hangup::Ends).map_err(ReadError::Runtime)?;
    let outputs = Outputs::open(config, clock::replayed)?;
    ending.watch_over(outputs.queues());
    // Files can wait: an output that is slow is waited for, for however long, until a signal ends that.
    ending.wait_for_outputs();
    let while_heard = While { ending: &ending, outputs: &outputs };
    let (is_whole, status) = match config.aggregate {
        None => files(args, config, voice, &while_heard, outputs.collector(), |_| {})?,
        Some(aggregate) => {
            let stash = Stash::new(outputs.collector(), aggregate, stash_limits(&config.outputs));
            let (is_whole, mut status) =
                files(args, config, voice, &while_heard, &stash, |passed| stash.flush(passed))?;
            stash.close();
            books::enter_stash(&stash.books(), &mut status.ledger);
            (is_whole, status)
        }
    };
    let give_up = || async {
        ending.begun().await;
        ending.give_up().await;
    };
    runtime.block_on(outputs.close(voice, Some(status), give_up))?;
    Ok(is_whole)
}

/// For how long files are read.
struct While<'a> {
    ending: &'a Ending,
    outputs: &'a Outputs,
}

/// Reads the files; `flush` is called each second of the packets' time, with what of that has passed.
fn files(
    args: &ReadArgs,
    config: &Config,
    voice: &Voice,
    while_heard: &While<'_>,
    collector: &dyn EventCollector,
    flush: impl Fn(Duration),
) -> Result<(bool, Status), ReadError> {
    let While { ending, outputs } = while_heard;
    let options = Options {
        units: config.pu.iter().map(Declared::from).collect(),
        networks: config.network.clone(),
        local: LocalNetworks(args.local.iter().map(|network| network.0).collect()),
        inner: config.tunnels == Tunnels::Inner,
        flow_interval: config.flow_interval.get(),
        counter_interval: config.counter_interval.get(),
        most_flows: config.limits.flows as usize * 4,
    };
    let mut replay = Replay::new(&options, collector)?;
    let mut progress = Progress::new(input::size(&args.files));
    let done = progress.done.clone();
    let (mut is_whole, mut began, mut flushed) = (true, None, 0);
    for path in &args.files {
        let mut odd = Odd::default();
        replay.begin_capture();
        let read = input::each(path, &done, Some(ending), |_, record| {
            if progress.step() && (ending.has_begun() || outputs.have_ended()) {
                return Err(ReadError::Interrupted);
            }
            odd.add(record, replay.take(record));
            let (wall, now) = replay.now();
            clock::replay_at(wall);
            let began = *began.get_or_insert(now);
            if now.saturating_sub(began + flushed) >= FLUSH_INTERVAL.as_nanos() as u64 {
                flushed = now - began;
                flush(Duration::from_nanos(flushed));
            }
            Ok(())
        });
        // Whatever a file was read for may have gone: a signal ends it, or the outputs have ended, which say so themselves.
        let is_told = ending.has_begun();
        let is_over = read.is_err() && (is_told || outputs.have_ended());
        let wrong = match read {
            Err(_) if is_told => Some(ReadError::Interrupted),
            Err(ReadError::Interrupted) => None,
            read => read.err(),
        };
        for error in wrong.into_iter().chain(odd.errors(path)) {
            voice.error(&error);
            is_whole = false;
        }
        if is_over {
            break;
        }
    }
    Ok((is_whole, replay.finish()))
}
