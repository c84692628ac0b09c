//! Who is logged in by SSH, with a server that is none but is called so.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::symlink, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use collector_tests::Result;
use collector_user::host::ssh::sessions;

/// A process that is called like an SSH server, has a socket, and sleeps, or does what a shell is told.
struct Server {
    process: Child,
    place: PathBuf,
}

impl Server {
    fn new(listener: OwnedFd) -> Result<Self> {
        Self::of("sleep", &["1000"], [listener])
    }

    /// A server of one connection: it waits for a line from there, and then runs a program that sends back what it gets.
    fn of_connection(stream: &TcpStream) -> Result<Self> {
        Self::of(
            "sh",
            &["-c", "read -r line; cat; :"],
            [stream.try_clone()?.into(), stream.try_clone()?.into()],
        )
    }

    fn of(program: &str, arguments: &[&str], sockets: impl IntoIterator<Item = OwnedFd>) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let found =
            ["/usr/bin", "/bin"].map(|at| Path::new(at).join(program)).into_iter().find(|path| path.exists());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("collector-ssh-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&place)?;
        let server = place.join("sshd");
        symlink(found.with_context(|| format!("there is no {program}"))?, &server)?;
        let mut command = Command::new(&server);
        let mut sockets = sockets.into_iter().map(Stdio::from);
        command.arg0(program).args(arguments).stdin(sockets.next().unwrap_or_else(Stdio::null));
        command.stdout(sockets.next().unwrap_or_else(Stdio::null));
        // When this returns, it has the name: the exec has happened, or failed.
        Ok(Self { process: command.spawn()?, place })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that fails for another reason shall say that one.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

#[test]
fn a_connection_to_a_server_is_a_session() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let others = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (taken, _) = listener.accept()?;
    let elsewhere = TcpStream::connect(others.local_addr()?)?;
    let _other = others.accept()?;
    let server = Server::new(listener.into())?;
    let all = sessions()?;
    let found: Vec<_> = all.iter().filter(|session| session.remote == taken.peer_addr().unwrap()).collect();
    let [session] = found.as_slice() else { panic!("{all:?}") };
    assert_eq!((session.local, session.remote), (taken.local_addr()?, client.local_addr()?));
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", server.process.id()))?;
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    assert_eq!(session.cgroups.iter().map(String::as_str).collect::<Vec<_>>(), Vec::from_iter(cgroup));
    let there = elsewhere.local_addr()?;
    assert!(all.iter().all(|session| session.remote != there && session.local != there), "{all:?}");
    // What the server opens itself is none: the client's end is not listened at.
    assert!(all.iter().all(|session| session.local != client.local_addr().unwrap()), "{all:?}");
    Ok(())
}

#[test]
fn a_connection_is_one_once_somebody_is_logged_in() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (taken, remote) = listener.accept()?;
    let _listening = Server::new(listener.into())?;
    let _waiting = Server::of_connection(&taken)?;
    // Nobody else holds it.
    drop(taken);
    let ours = || -> Result<Vec<bool>> {
        Ok(sessions()?.iter().filter(|it| it.remote == remote).map(|it| it.is_certain).collect())
    };
    assert_eq!(ours()?, [true; 0], "a stranger, so far");
    client.write_all(b"let me in\n")?;
    client.write_all(b"x")?;
    // What comes back is sent by the program that was started.
    client.read_exact(&mut [0])?;
    assert_eq!(ours()?, [true]);
    Ok(())
}
