//! The outputs of a run: opened before anything is attached, fed by one fan-out, ended together.

mod places;

use std::{
    env,
    fs::File,
    future::Future,
    io::{self, IsTerminal as _},
    os::{fd::AsFd, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use jiff::tz::TimeZone;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

pub(super) use places::Place;
use places::Places;

use super::{books::Books, say::Voice, stdout};
use crate::{
    collector::{EventCollector, fanout::Fanout, filter::Filter},
    config::{Config, Destination, Form, LogFormat, OutputConfig},
    error::with_causes,
    event::{Status, Time},
    sink::{
        Format, Room, SinkError,
        json::Json,
        log::{Datagrams, Encode, Journal, JsonLines, Log, Socket, Syslog, TextLines},
        queue::{self, End, Queue, Writer},
        text::{Look, Text},
        waiting::Waiting,
    },
};

/// Why an output does not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum OutputError {
    /// What it writes to cannot be opened.
    #[error("the {name} output cannot write to {to}: {}", advice(*.form, .source))]
    Open {
        /// The output.
        name: String,
        /// Where it goes.
        to: Destination,
        /// Its type.
        form: Form,
        /// What the system said.
        source: io::Error,
    },
    /// It goes where standard error goes.
    #[error(
        "the {name} output cannot write to {to}: that is standard error, where the log is written: expected another `to`"
    )]
    SharedWithLog {
        /// The output.
        name: String,
        /// Where it goes.
        to: Destination,
    },
    /// It goes where another output goes, which has another name for it.
    #[error(
        "the {name} output cannot write to {to}: that is {first_to}, where the {first} output writes: \
         expected another `to`, or one of them less"
    )]
    SharedPlace {
        /// The output.
        name: String,
        /// Where it goes.
        to: Destination,
        /// The output that has the place already.
        first: String,
        /// What that one calls it.
        first_to: Destination,
    },
    /// Its sink does not start.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

fn advice(form: Form, source: &io::Error) -> &'static str {
    match (form, Errno::from_io_error(source)) {
        (Form::Log, _) => "the socket must be there, and somebody listen on it",
        (_, Some(Errno::BADF)) => {
            "it is closed, or not open for writing: send it somewhere, or name other outputs"
        }
        (_, Some(Errno::NXIO)) => "a named pipe must have a reader first, and a socket is no place for lines",
        _ => "the folder must be there, and the file be one that may be written",
    }
}

/// Where the time of an event comes from.
type Clock = fn() -> Time;

/// The outputs of a run.
pub(super) struct Outputs {
    fanout: Fanout,
    sinks: Vec<Sink>,
}

struct Sink {
    name: String,
    queue: Queue,
    writer: Writer,
}

impl Outputs {
    /// Opens them all, in order; `clock` says when an event is.
    pub(super) fn open(config: &Config, clock: Clock) -> Result<Self, OutputError> {
        let (mut fanout, mut sinks, mut places) = (Fanout::new(), Vec::new(), Places::default());
        for output in &config.outputs {
            let target = Opened::open(output, &mut places)?;
            let (queue, writer) = target.start(output, config.log_format, clock)?;
            fanout = fanout.with(&output.name, Filter::new(output.events, queue.clone()));
            sinks.push(Sink { name: output.name.clone(), queue, writer });
        }
        Ok(Self { fanout, sinks })
    }

    /// Hands each event to all of them.
    pub(super) const fn collector(&self) -> &impl EventCollector {
        &self.fanout
    }

    /// What becomes of the events.
    pub(super) fn books(&self) -> Books {
        let queues = self.sinks.iter().map(|sink| (sink.name.clone(), sink.queue.clone()));
        Books::new(queues.collect(), self.fanout.panics())
    }

    pub(super) fn queues(&self) -> Vec<Box<dyn Room>> {
        self.sinks.iter().map(|sink| Box::new(sink.queue.clone()) as _).collect()
    }

    /// Whether there were some, and none of them writes any more.
    pub(super) fn have_ended(&self) -> bool {
        !self.sinks.is_empty() && self.sinks.iter().all(|sink| sink.queue.has_ended())
    }

    /// Returns once the last of them has ended by itself. Of those before, it is said when it happens, once.
    pub(super) async fn all_ended(&self) {
        let ends = self.sinks.iter().map(async |sink| (&sink.name, sink.writer.ended().await));
        let mut ends: FuturesUnordered<_> = ends.collect();
        while let Some((name, end)) = ends.next().await {
            if ends.is_empty() {
                return;
            }
            let why = match end {
                End::Failed(error) => with_causes(&*error),
                End::NoReader => "it has no reader any more".to_owned(),
            };
            tracing::warn!(
                "the {name} output has ended: {why}; its events are counted as sink_failed, the others go on"
            );
        }
    }

    /// Lets each write what it was handed, and then, where there is a `status`, that as its last line, with what became
    /// of the events of all. `give_up` is asked for both, and for each output: one that has not written when it is ready is
    /// left to itself.
    ///
    /// # Errors
    ///
    /// What the first that failed says; the others' words and all losses have been said then.
    pub(super) async fn close<G: Future<Output = ()>>(
        self,
        voice: &Voice,
        status: Option<Status>,
        give_up: impl Fn() -> G,
    ) -> Result<(), SinkError> {
        let books = self.books();
        let closing = self
            .sinks
            .into_iter()
            .map(async |Sink { name, queue, writer }| (name, queue, writer.close(give_up()).await));
        let closed = join_all(closing).await;
        let mut status = status;
        if let Some(Status { ledger, .. }) = &mut status {
            books.enter(ledger);
        }
        let finishing = closed.into_iter().map(async |(name, queue, closed)| {
            let finished = match (closed, &status) {
                (Ok(closed), Some(status)) => closed.finish(status.clone(), give_up()).await,
                (Ok(_), None) => Ok(()),
                (Err(error), _) => Err(error),
            };
            finished.inspect_err(|_| voice.losses(&name, &queue.counts()))
        });
        let mut errors = join_all(finishing).await.into_iter().filter_map(Result::err);
        let first = errors.next();
        errors.for_each(|error| voice.error(&error));
        first.map_or(Ok(()), Err)
    }
}

/// What an output writes to.
enum Opened {
    Stdout,
    Stderr,
    File(File),
    Journal(Datagrams),
    Syslog(Datagrams),
}

impl Opened {
    fn open<'a>(output: &'a OutputConfig, places: &mut Places<'a>) -> Result<Self, OutputError> {
        let failed = |source| OutputError::Open {
            name: output.name.clone(),
            to: output.to.clone(),
            form: output.form,
            source,
        };
        let opened = match &output.to {
            Destination::Stdout => stdout::check().map(|()| Self::Stdout).map_err(failed)?,
            Destination::Stderr => Self::Stderr,
            Destination::File(path) => Self::File(append(path).map_err(failed)?),
            Destination::Journal(path) => Self::Journal(Datagrams::connect(path).map_err(failed)?),
            Destination::Syslog(path) => Self::Syslog(Datagrams::connect(path).map_err(failed)?),
        };
        let place = match &opened {
            Self::Stdout => Place::of(io::stdout()),
            Self::Stderr => Place::of(io::stderr()),
            Self::File(file) => Place::of(file),
            // What is sent there does not mix.
            Self::Journal(_) | Self::Syslog(_) => Ok(None),
        };
        if let Some(place) = place.map_err(failed)? {
            // The collector speaks there itself. A standard error that is closed is nowhere.
            if matches!(opened, Self::File(_))
                && Place::of(io::stderr()).is_ok_and(|log| log.as_ref() == Some(&place))
            {
                return Err(OutputError::SharedWithLog { name: output.name.clone(), to: output.to.clone() });
            }
            places.take(place, output)?;
        }
        Ok(opened)
    }

    fn start(
        self,
        output: &OutputConfig,
        log_format: LogFormat,
        clock: Clock,
    ) -> Result<(Queue, Writer), OutputError> {
        let how = (log_format, clock);
        match self {
            Self::Stdout => lines(output, how, io::stdout(), io::stdout().is_terminal()),
            Self::Stderr => lines(output, how, io::stderr(), io::stderr().is_terminal()),
            Self::File(file) => lines(output, how, file, false),
            Self::Journal(socket) => log(output, clock, Journal, socket),
            Self::Syslog(socket) => log(output, clock, Syslog::new(TimeZone::system()), socket),
        }
    }
}

/// Opens a file at its end, and makes one that this user may write and this group may read where there is none.
fn append(path: &Path) -> io::Result<File> {
    // Without waiting for the reader of a named pipe: where there is none, that is an error to be told.
    let mut options = File::options();
    options
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    let file = options.open(path)?;
    // From here on its sink's thread may wait.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn lines(
    output: &OutputConfig,
    (log_format, clock): (LogFormat, Clock),
    out: impl io::Write + AsFd + Send + 'static,
    is_terminal: bool,
) -> Result<(Queue, Writer), OutputError> {
    let out = Waiting(out);
    match (output.form, log_format) {
        (Form::Json, _) => stream(output, clock, Json, out),
        (Form::Log, LogFormat::Json) => stream(output, clock, Log::new(JsonLines), out),
        (Form::Log, LogFormat::Text) => stream(output, clock, Log::new(TextLines), out),
        (Form::Text, _) => {
            let look = Look::choose(is_terminal, |name| env::var_os(name), TimeZone::system());
            stream(output, clock, Text::new(look), out)
        }
    }
}

fn stream(
    output: &OutputConfig,
    clock: Clock,
    format: impl Format + 'static,
    out: impl io::Write + Send + 'static,
) -> Result<(Queue, Writer), OutputError> {
    Ok(queue::start(&output.name, output.queue, clock, format, out)?)
}

fn log(
    output: &OutputConfig,
    clock: Clock,
    encode: impl Encode + 'static,
    socket: Datagrams,
) -> Result<(Queue, Writer), OutputError> {
    Ok(queue::start_target(&output.name, output.queue, clock, Socket::new(encode, socket))?)
}

#[cfg(test)]
mod tests;
