//! The door of a running collector: a socket at which `collector pu` and `collector status` ask what it knows.
//!
//! It is kept by a thread of its own. Of what comes, the daemon's task sees only the questions, one at a time; whoever says
//! nothing, says nonsense or reads slowly holds nobody up but others at the door, and those not for long.

mod place;
mod words;

use std::{convert::Infallible, io, path::PathBuf, thread, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

use super::books::Books;
use crate::{config::Socket, daemon::inquiry::Inquirer, error::with_causes};
use place::Place;
pub(super) use place::usual;
use words::Told;
pub(super) use words::{Answer, Request, VERSION, Wanted};

/// Who may be inside at once; others wait before it.
const MOST_VISITORS: usize = 8;

/// How long a visitor may take to ask, and again to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum DoorError {
    /// The usual place has the network namespace's number, and that is not known.
    #[error("cannot tell which network namespace this is")]
    Namespace(#[source] io::Error),
    /// The folder of the usual place cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There can be no socket at the path.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("another collector answers at {}: give this one a place of its own by --socket", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is there, and is no socket: name another place by --socket", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// Nobody keeps it.
    #[error("cannot start the thread that answers")]
    Thread(#[source] io::Error),
}

/// What the operator goes without where there is no door.
pub(super) fn missing(error: &DoorError) -> String {
    format!("answers to `collector pu` and `collector status`: {}", with_causes(error))
}

/// A door that is open; closed when it is dropped.
pub(super) struct Door {
    // Nobody comes in any more, before nobody answers.
    _place: Place,
    // Its end tells the thread; nobody waits for that one.
    _close: oneshot::Sender<Infallible>,
}

impl Door {
    /// Opens the door where there is to be one.
    ///
    /// # Errors
    ///
    /// [`DoorError`].
    pub(super) fn open(socket: &Socket, inquirer: Inquirer, books: Books) -> Result<Option<Self>, DoorError> {
        if *socket == Socket::None {
            return Ok(None);
        }
        let (place, listening) = Place::take(socket)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(DoorError::Thread)?;
        let listener = {
            let _context = runtime.enter();
            UnixListener::from_std(listening).map_err(DoorError::Thread)?
        };
        let (close, closed) = oneshot::channel();
        let asked = Asked { inquirer, books };
        let keep = move || keep(&runtime, &listener, &asked, closed);
        thread::Builder::new().name("door".to_owned()).spawn(keep).map_err(DoorError::Thread)?;
        Ok(Some(Self { _place: place, _close: close }))
    }
}

/// Who is asked.
#[derive(Clone)]
struct Asked {
    inquirer: Inquirer,
    books: Books,
}

/// Keeps the door until it is closed. Who is inside then goes without an answer.
fn keep(runtime: &Runtime, listener: &UnixListener, asked: &Asked, closed: oneshot::Receiver<Infallible>) {
    let failed = runtime.block_on(async {
        tokio::select! {
            _ = closed => None,
            failed = serve(listener, asked) => Some(failed),
        }
    });
    if let Some(error) = failed {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "`collector pu` and `collector status` get no answers any more: start the collector anew"
        );
    }
}

/// Serves all that come; returns where nobody can come any more.
async fn serve(listener: &UnixListener, asked: &Asked) -> io::Error {
    let mut visitors = JoinSet::new();
    loop {
        tokio::select! {
            visitor = listener.accept(), if visitors.len() < MOST_VISITORS => match visitor {
                Ok((visitor, _)) => drop(visitors.spawn(attend(visitor, asked.clone()))),
                Err(error) if visitors.is_empty() => return error,
                // Too many descriptors, perhaps: there is one more when a visitor goes.
                Err(_) => drop(visitors.join_next().await),
            },
            Some(_) = visitors.join_next() => {}
        }
    }
}

/// Answers a visitor, once.
async fn attend(mut visitor: UnixStream, Asked { inquirer, books }: Asked) {
    let said = match timeout(PATIENCE, hear(&mut visitor)).await {
        Ok(Ok(line)) if line.is_empty() => return,
        Ok(Ok(line)) => match Request::read(&line) {
            Ok(Wanted::Units) => inquirer.units().await.map(Told::Units).map_err(|error| error.to_string()),
            Ok(Wanted::Status) => {
                let mut status = inquirer.status().await;
                if let Ok(status) = &mut status {
                    books.enter(&mut status.ledger);
                }
                status.map(|status| Told::Status(Box::new(status))).map_err(|error| error.to_string())
            }
            Err(words) => Err(words),
        },
        Ok(Err(_gone)) => return,
        Err(_elapsed) => Err(format!("nothing was asked for {} s", PATIENCE.as_secs())),
    };
    // Who does not take it has gone, or is taken for gone.
    let _ = timeout(PATIENCE, visitor.write_all(&Answer::line(said))).await;
}

/// The first line, or what there is of it up to the longest that is heard; empty where nothing comes.
async fn hear(visitor: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(visitor).take(words::MOST_OCTETS as u64).read_until(b'\n', &mut line).await?;
    Ok(line)
}

#[cfg(test)]
pub(super) mod tests;
