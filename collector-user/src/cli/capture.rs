//! `collector capture`: the daemon with all packets traced and no other output than a file of them.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    num::{NonZeroU32, NonZeroUsize},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Display, Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread::available_parallelism,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

use super::{
    args::CaptureArgs,
    books::Books,
    ending::{Ending, Hangup},
    outputs::Place,
    reload,
    run::{Wanted, options, raise_descriptor_limit, until_ended},
    say::Voice,
    stdout,
};
use crate::{
    clock,
    collector::fanout::Fanout,
    config::{Config, ConfigError, Socket},
    daemon::{self, DaemonError, Options},
    event::{Ledger, Text},
    host::pcap::Filter,
    kernel::requirements,
    pu::trace::{Directions, NoSuchUnit, Whose, Wish},
    sink::{
        SinkError,
        capture::{self, Capture, Intake, Stream},
    },
};

/// Octets of the kernel's buffers of all CPUs together, unless each would have less than usual.
const BUFFERS: u32 = 64 << 20;
/// Octets of one of them at most.
const MOST_BUFFER: u32 = 8 << 20;

/// Why a capture ends with an exit code other than 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum CaptureError {
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon does not start, or stops.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The file cannot be opened.
    #[error("cannot write to {}: {}", path.display(), advice(.source))]
    Open { path: PathBuf, source: io::Error },
    /// Somebody would have to look at octets.
    #[error("{} is a terminal, and a capture is no text: send it to a program, or name a file", name(path))]
    Terminal { path: PathBuf },
    /// What is said would stand among the packets.
    #[error(
        "cannot write to {}: that is standard error, where the log is written: expected another file",
        name(path)
    )]
    SharedWithLog { path: PathBuf },
    /// The unit that was asked for does not exist.
    #[error(
        "--pu: there is no processing unit {id:?}: expected one that the configuration declares ([[pu]]) or that is there \
         (`collector pu list`), host, forwarded, unknown or overlay"
    )]
    NoSuchUnit { id: Text },
    /// The file failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// No runtime, or no signals.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

impl CaptureError {
    /// 2 for bad usage or configuration, 1 for a failure while running.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_)
            | Self::Terminal { .. }
            | Self::SharedWithLog { .. }
            | Self::NoSuchUnit { .. } => 2,
            Self::Daemon(error) if error.is_usage() => 2,
            _ => 1,
        })
    }
}

/// What a file is called.
fn name(path: &Path) -> Display<'_> {
    if path.as_os_str() == "-" { Path::new("standard output").display() } else { path.display() }
}

fn advice(source: &io::Error) -> &'static str {
    match Errno::from_io_error(source) {
        Some(Errno::NXIO) => "a named pipe must have a reader before, and a socket takes no file",
        Some(Errno::BADF) => "it is closed, or not open for writing",
        _ => "the folder must be there, and the file be one that may be written",
    }
}

/// Captures as the arguments and the configuration file say.
pub(super) fn run(args: &CaptureArgs) -> ExitCode {
    let config = match configuration(args) {
        Ok(config) => config,
        Err(error) => return fail(&Voice::new(args.log_format.unwrap_or_default()), &error.into()),
    };
    let (voice, rest) = match Voice::of_run(config.log_format) {
        Ok(begun) => begun,
        Err(error) => return fail(&Voice::new(config.log_format), &CaptureError::Runtime(error)),
    };
    voice.start_log();
    let code =
        keep(args, &config, &voice).map_or_else(|failure| fail(&voice, &failure), |()| ExitCode::SUCCESS);
    rest.finish();
    code
}

fn fail(voice: &Voice, failure: &CaptureError) -> ExitCode {
    voice.error(failure);
    failure.exit_code()
}

fn configuration(args: &CaptureArgs) -> Result<Config, ConfigError> {
    let mut config = args.config.as_deref().map(Config::load).transpose()?.unwrap_or_default();
    args.apply(&mut config);
    Ok(config)
}

fn keep(args: &CaptureArgs, config: &Config, voice: &Voice) -> Result<(), CaptureError> {
    raise_descriptor_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CaptureError::Runtime)?;
    let ending = Ending::on_signals(Hangup::Ends).map_err(CaptureError::Runtime)?;
    runtime.block_on(async {
        let mut options = asked(args, config);
        // A file that is there stays as it is where nothing can be captured.
        daemon::check(&options).await.map_err(|error| match error {
            DaemonError::Trace(NoSuchUnit { id }) => CaptureError::NoSuchUnit { id },
            other => other.into(),
        })?;
        let (intake, capture) = begin(args, config)?;
        ending.watch_over(vec![Box::new(intake.clone())]);
        options.capture = Some(Arc::new(intake));
        let unwanted = async {
            capture.ended().await;
        };
        let wanted = Wanted {
            options: &options,
            duration: config.duration,
            socket: &Socket::None,
            books: Books::default(),
        };
        // Nobody wants the events.
        let served = until_ended(wanted, voice, &Fanout::new(), unwanted, reload::channel().0, &ending).await;
        // A daemon that failed has not been told to stop; from here on a signal means haste all the same.
        ending.begin();
        let losses = served.as_ref().map(|status| losses(&status.ledger)).unwrap_or_default();
        let (counts, closed) = capture.close(losses.clone(), ending.give_up()).await;
        voice.captured(&counts, &losses, &args.write);
        // What the daemon says weighs more than the file.
        match (served, closed) {
            (Ok(_), closed) => Ok(closed?),
            (Err(failure), closed) => {
                let _ = closed.inspect_err(|error| voice.error(error));
                Err(failure.into())
            }
        }
    })
}

/// The daemon that is wanted: all packets of one unit, or of all.
fn asked(args: &CaptureArgs, config: &Config) -> Options {
    let whose = args.pu.as_deref().map_or(Whose::All, |id| Whose::Unit(id.into()));
    let wish = Wish { whose, directions: Directions::Both, duration: None, every: NonZeroU32::MIN };
    let mut options = Options { traces: vec![wish], snaplen: args.snaplen, ..options(config) };
    options.settings.packets = buffer(options.settings.packets);
    options
}

/// Octets of the kernel's buffer on each CPU: whole packets come in bursts. Who may not lock as much memory as it likes has
/// the `usual` ones.
fn buffer(usual: u32) -> u32 {
    let cpus = available_parallelism().map_or(1, NonZeroUsize::get);
    if requirements::may_lock() { share(usual, cpus as u32) } else { usual }
}

/// What each of so many CPUs has of the room for all, a power of two, not less than usual.
fn share(usual: u32, cpus: u32) -> u32 {
    1 << (BUFFERS / cpus).clamp(usual, MOST_BUFFER).ilog2()
}

/// Opens the file, and writes its first block.
fn begin(args: &CaptureArgs, config: &Config) -> Result<(Intake, Capture), CaptureError> {
    let file = open(&args.write)?;
    let options = capture::Options {
        snap_length: args.snaplen.into(),
        filter: config.filter.as_ref().map_or("", Filter::expression).to_owned(),
        count: args.count,
        clock: clock::wall,
    };
    Ok(capture::start(options, Stream::new(file))?)
}

fn open(path: &Path) -> Result<File, CaptureError> {
    let failed = |source| CaptureError::Open { path: path.to_owned(), source };
    let is_given = path.as_os_str() == "-";
    let file = if is_given {
        stdout::check().map_err(failed)?;
        // The standard library's would gather what is written to it.
        io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(failed)?
    } else {
        create(path).map_err(failed)?
    };
    if file.is_terminal() {
        return Err(CaptureError::Terminal { path: path.to_owned() });
    }
    // A standard error that is closed is nowhere.
    let log = Place::of(io::stderr()).ok().flatten();
    if log.is_some() && Place::of(&file).map_err(failed)? == log {
        return Err(CaptureError::SharedWithLog { path: path.to_owned() });
    }
    if !is_given && file.metadata().map_err(failed)?.is_file() {
        file.set_len(0).map_err(failed)?;
    }
    Ok(file)
}

/// Makes a file, or opens one that is there, that this user may write and this group may read.
fn create(path: &Path) -> io::Result<File> {
    // Without waiting for the reader of a named pipe: where there is none, that is an error to be told.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .custom_flags(flags)
        .open(path)?;
    // From here on the capture's thread may wait.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// What was lost of packets before they came to the file.
fn losses(ledger: &Ledger) -> Vec<(String, u64)> {
    let named = [
        ("filter_window", ledger.filter_window),
        ("output_failed", ledger.output_failed),
        ("packets_lost", ledger.packets_lost),
        ("drops_table_full", ledger.drops_table_full),
        ("drops_skipped", ledger.drops_skipped),
        ("drop_reports_held_back", ledger.drop_reports_held_back),
        ("drop_reports_failed", ledger.drop_reports_failed),
        ("drop_reports_lost", ledger.drop_reports_lost),
        ("undecodable", ledger.undecodable),
        ("gaps", ledger.gaps),
        ("taken_off", ledger.taken_off),
    ];
    named.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::{losses, share};
    use crate::event::Ledger;

    #[test]
    fn all_buffers_together_have_an_end() {
        let usual = 1 << 19;
        assert_eq!([1, 2, 8, 16, 128, 1024].map(|cpus| share(usual, cpus) >> 19), [16, 16, 16, 8, 1, 1]);
        assert!((1..300).all(|cpus| share(usual, cpus).is_power_of_two()));
    }

    #[test]
    fn only_what_a_capture_loses_is_said() {
        let ledger =
            Ledger { output_failed: 3, gaps: 1, table_full: 9, reserve_failed: 9, ..Ledger::default() };
        assert_eq!(losses(&ledger), [("output_failed".to_owned(), 3), ("gaps".to_owned(), 1)]);
    }
}
