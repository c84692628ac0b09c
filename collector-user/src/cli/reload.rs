//! Another configuration while the collector runs: at SIGHUP, and when its file is another.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    panic::resume_unwind,
    path::Path,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::{
    args::RunArgs,
    run::{self, RunError},
    say::Voice,
};
use crate::{
    config::{Config, ConfigError},
    daemon::reload::{ReloadError, Reloader},
    error::with_causes,
    host::followed::Followed,
};

/// Why the configuration stays as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum Refusal {
    /// The file does not serve.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What it and the command line say together does not serve.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is nothing in the file: whoever writes it may not be done, or the disk was full.
    #[error(
        "{path}: there is nothing in it: expected a configuration; to run with the defaults, write one of them"
    )]
    Empty { path: String },
    /// It is a pipe, or something else that is read once.
    #[error("{path}: this is no file, so it cannot be read once more: start the collector anew")]
    NoFile { path: String },
    /// It changes what holds for a whole run.
    #[error("{path}: {keys} cannot be another while the collector runs: start it anew for that")]
    Fixed { path: String, keys: String },
    /// The daemon does not take it over.
    #[error("{path}: {source}")]
    Daemon { path: String, source: ReloadError },
}

/// Why it is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody asks for it.
    Asked,
    /// The file may be another.
    Changed,
}

/// The configuration that holds, and where another may come from.
pub(super) struct Reloading<'a> {
    args: &'a RunArgs,
    path: &'a Path,
    voice: &'a Voice,
    current: Config,
    /// What was read last, whatever became of it.
    text: String,
    is_missing: bool,
    hangup: Signal,
    file: Option<Followed>,
}

impl<'a> Reloading<'a> {
    /// Hears SIGHUP and follows the file from now on; what is to be said of that is logged.
    ///
    /// # Errors
    ///
    /// What the system says of the signal.
    pub(super) fn new(
        args: &'a RunArgs,
        path: &'a Path,
        voice: &'a Voice,
        current: Config,
        text: String,
    ) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let file = Followed::new(path).inspect_err(|error| {
            tracing::warn!(
                "{}: changes of the configuration are not noticed ({error}): send SIGHUP to have it read anew",
                path.display()
            );
        });
        Ok(Self { args, path, voice, current, text, is_missing: false, hangup, file: file.ok() })
    }

    /// Takes over what comes, once the daemon has begun.
    pub(super) async fn attend(mut self, begun: impl Future<Output = Option<Reloader>>) -> Infallible {
        let Some(reloader) = begun.await else { return pending().await };
        // Between its first reading and its first watch it may have changed.
        let mut why = Why::Changed;
        loop {
            self.look(why, &reloader).await;
            why = self.next().await;
        }
    }

    async fn next(&mut self) -> Why {
        let changed = async {
            match &mut self.file {
                Some(file) => file.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.hangup.recv() => Why::Asked,
            changed = changed => {
                if let Err(error) = changed {
                    self.file = None;
                    tracing::warn!(
                        "{}: changes of the configuration are noticed no more ({error}): send SIGHUP to have it read anew",
                        self.path.display()
                    );
                }
                Why::Changed
            }
        }
    }

    async fn look(&mut self, why: Why, reloader: &Reloader) {
        let path = self.path.to_owned();
        let text = match elsewhere(move || Config::read_again(&path)).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                // A pipe may have no writer any more, and nobody waits for one.
                if why == Why::Asked {
                    refuse(&Refusal::NoFile { path: self.path.display().to_string() }, reloader);
                }
                return;
            }
            Err(error) => {
                let is_missing = error.is_missing();
                if why == Why::Asked || !is_missing || !self.is_missing {
                    refuse(&error.into(), reloader);
                }
                self.is_missing = is_missing;
                return;
            }
        };
        self.is_missing = false;
        if why == Why::Changed && text == self.text {
            return;
        }
        self.text = text;
        match self.take_over(reloader).await {
            Ok(changes) => self.voice.reloaded(self.path, &changes),
            Err(refusal) => refuse(&refusal, reloader),
        }
    }

    /// What is another now.
    async fn take_over(&mut self, reloader: &Reloader) -> Result<Vec<String>, Refusal> {
        let path = || self.path.display().to_string();
        let (text, place) = (self.text.clone(), self.path.to_owned());
        let parsed = elsewhere(move || Config::parse(&text, &place)).await?;
        let new = run::over(parsed, self.args)?;
        let changes = self.current.changes(&new);
        if changes.is_none() {
            return Ok(Vec::new());
        }
        if is_empty(&self.text) {
            return Err(Refusal::Empty { path: path() });
        }
        if !changes.fixed.is_empty() {
            return Err(Refusal::Fixed { path: path(), keys: changes.fixed.join("; ") });
        }
        let done = reloader.reload(run::options(&new).into()).await;
        done.map_err(|source| Refusal::Daemon { path: path(), source })?;
        self.current = new;
        Ok(changes.taken)
    }
}

/// Does what takes its time on a thread of its own: a file system may be slow, or not answer at all, and thousands of policies
/// are much to read. The daemon counts on meanwhile, and the next is looked at when this is done.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and all with it.
            Err(_ended) => pending().await,
        },
    }
}

fn refuse(refusal: &Refusal, reloader: &Reloader) {
    // The daemon has counted those that came to it.
    if !matches!(refusal, Refusal::Daemon { .. }) {
        reloader.count_refused();
    }
    tracing::warn!("the configuration stays as it was: {}", with_causes(refusal));
}

/// Whether a text says nothing at all.
fn is_empty(text: &str) -> bool {
    text.lines().map(str::trim_start).all(|line| line.is_empty() || line.starts_with('#'))
}

/// Tells who waits for it how a running daemon is given another configuration.
pub(super) fn channel() -> (oneshot::Sender<Reloader>, impl Future<Output = Option<Reloader>>) {
    let (tell, told) = oneshot::channel();
    (tell, async { told.await.ok() })
}

#[cfg(test)]
mod tests {
    use super::is_empty;

    #[test]
    fn comments_say_nothing() {
        assert!(is_empty("") && is_empty("\n  # forwarded = true\n\n"));
        assert!(!is_empty("# all\nforwarded = false"));
    }
}
