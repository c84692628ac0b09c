//! The question to the collector that runs.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use crate::{
    cli::door::{self, Answer, Request, VERSION, Wanted},
    config::Socket,
    event::{Status, UnitStatus},
};

/// How long the collector may be silent: others may be before us.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest answer, in octets: each unit that there can be has far more than it needs.
const MOST_OCTETS: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum AskError {
    /// The usual place has the network namespace's number, and that is not known.
    #[error("cannot tell which network namespace this is")]
    Namespace(#[source] io::Error),
    /// There is nobody.
    #[error(
        "no collector answers at {}: start one in this network namespace with `collector run`, or name the socket of \
         another with --socket",
        path.display()
    )]
    Nobody {
        /// The path.
        path: PathBuf,
    },
    /// It is not for whoever asks.
    #[error("the collector at {} is not for everybody to ask: do it as root, or as who started it", path.display())]
    Denied {
        /// The path.
        path: PathBuf,
    },
    /// It does not take the question, or stops before the end of the answer.
    #[error("the collector at {} does not answer", path.display())]
    Silent {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It says why not.
    #[error("the collector at {} refuses to answer: {words}", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// What it says.
        words: String,
    },
    /// It speaks otherwise.
    #[error("what answers at {} is not understood: is it a collector of another version?", path.display())]
    NotUnderstood {
        /// The path.
        path: PathBuf,
        /// What is wrong with the answer.
        source: Option<serde_json::Error>,
    },
}

/// All units that the collector knows which runs in this network namespace, or at another socket.
pub(super) fn units(socket: Option<&Socket>) -> Result<Vec<UnitStatus>, AskError> {
    answer(socket, Wanted::Units, |answer| answer.units)
}

/// How the collector stands which runs in this network namespace, or at another socket.
pub(super) fn status(socket: Option<&Socket>) -> Result<Status, AskError> {
    answer(socket, Wanted::Status, |answer| answer.status).map(|status| *status)
}

/// What is answered, of which that is taken which was wanted.
fn answer<T>(
    socket: Option<&Socket>,
    wanted: Wanted,
    take: impl FnOnce(Answer) -> Option<T>,
) -> Result<T, AskError> {
    let path = match socket.and_then(Socket::path) {
        Some(path) => path.to_owned(),
        None => door::usual().map_err(AskError::Namespace)?,
    };
    let line = ask(&path, wanted).map_err(|error| why(error, &path))?;
    let answer: Result<Answer, _> = serde_json::from_slice(&line);
    match answer {
        Ok(Answer { error: Some(words), .. }) => Err(AskError::Refused { path, words }),
        Ok(answer) if answer.version == VERSION => {
            take(answer).ok_or(AskError::NotUnderstood { path, source: None })
        }
        Ok(_) => Err(AskError::NotUnderstood { path, source: None }),
        Err(source) => Err(AskError::NotUnderstood { path, source: Some(source) }),
    }
}

/// The line that is answered, as it comes.
fn ask(path: &Path, wanted: Wanted) -> io::Result<Vec<u8>> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    for waiting in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, waiting, Some(PATIENCE))?;
    }
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut stream = UnixStream::from(socket);
    let mut request = serde_json::to_vec(&Request::of(wanted))?;
    request.push(b'\n');
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(MOST_OCTETS).read_until(b'\n', &mut answer)?;
    if answer.ends_with(b"\n") { Ok(answer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn why(error: io::Error, path: &Path) -> AskError {
    let path = path.to_owned();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::CONNREFUSED) => AskError::Nobody { path },
        Some(Errno::ACCESS | Errno::PERM) => AskError::Denied { path },
        _ => AskError::Silent { path, source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
        thread,
    };

    use super::{AskError, units};
    use crate::{cli::door::tests::Folder, config::Socket, event::UnitStatus};

    /// What is made of an answer.
    fn told(answer: &[u8]) -> Result<Vec<UnitStatus>, AskError> {
        let folder = Folder::new();
        let path = folder.0.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut visitor, _) = listener.accept().unwrap();
                let mut request = [0; 27];
                visitor.read_exact(&mut request).unwrap();
                visitor.write_all(answer).unwrap();
            });
            units(Some(&Socket::At(path.clone())))
        })
    }

    #[test]
    fn an_answer_is_units_or_the_reason_why_there_are_none() {
        assert_eq!(told(b"{\"version\":1,\"units\":[]}\n").unwrap(), []);
        for (answer, want) in [
            (&b"{\"version\":1,\"error\":\"no\"}\n"[..], "refuses to answer: no"),
            (b"{\"version\":2,\"units\":[]}\n", "is it a collector of another version?"),
            (b"{\"version\":1}\n", "is it a collector of another version?"),
            (b"220 mail ESMTP\n", "is it a collector of another version?"),
            (b"{\"version\":1,\"units\":[]}", "does not answer"),
            (b"", "does not answer"),
        ] {
            let error = told(answer).unwrap_err().to_string();
            assert!(error.ends_with(want), "{error}");
        }
    }

    #[test]
    fn where_there_is_nobody_the_way_out_is_told() {
        let folder = Folder::new();
        let path = folder.0.join("s");
        let ask = || units(Some(&Socket::At(path.clone()))).unwrap_err().to_string();
        assert!(ask().contains("start one in this network namespace with `collector run`"));
        drop(UnixListener::bind(&path).unwrap());
        assert!(ask().contains("start one in this network namespace with `collector run`"), "it was left");
    }
}
