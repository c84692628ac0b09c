//! The socket of a log daemon.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

/// A datagram socket of the file system, connected to the one that a log daemon listens on.
#[derive(Debug)]
pub struct Datagrams {
    path: PathBuf,
    /// None once the daemon has gone, until it is back.
    socket: Option<UnixDatagram>,
}

impl Datagrams {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// What the system says: there is no such socket, nobody listens, or it is a socket of another type.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), socket: Some(connect(path)?) })
    }

    /// Sends a datagram; waits for as long as the daemon's queue is full. A daemon that was started anew has another
    /// socket of the same path: where the one that is connected is dead, the path is tried once more.
    ///
    /// # Errors
    ///
    /// Where nobody listens, or the datagram is too large for a socket; with the path, and what can be done.
    pub(super) fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.try_send(datagram).map_err(|source| {
            let (kind, path) = (source.kind(), self.path.clone());
            let is_absent = kind == io::ErrorKind::NotFound || is_dead(&source);
            io::Error::new(
                kind,
                if is_absent {
                    SendError::Absent { path, source }
                } else {
                    SendError::Refused { path, source }
                },
            )
        })
    }

    fn try_send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match socket.send(datagram) {
                Err(error) if is_dead(&error) => self.socket = None,
                // A datagram is sent whole or not at all.
                result => return result.map(drop),
            }
        }
        self.socket.insert(connect(&self.path)?).send(datagram).map(drop)
    }
}

/// Why an entry did not arrive.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("no log daemon listens on {}: expected one that runs, or another `to`", path.display())]
    Absent { path: PathBuf, source: io::Error },
    #[error("the log daemon on {} cannot be sent the entry", path.display())]
    Refused { path: PathBuf, source: io::Error },
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

fn is_dead(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}
