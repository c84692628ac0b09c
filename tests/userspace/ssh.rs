//! Who is logged in by SSH, with a server that is none but is called so.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::symlink, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use collector_tests::Result;
use collector_user::host::ssh::sessions;

/// A process that is called like an SSH server, has a listening socket, and sleeps.
struct Server {
    process: Child,
    place: PathBuf,
}

impl Server {
    fn new(listener: OwnedFd) -> Result<Self> {
        let sleep = ["/usr/bin/sleep", "/bin/sleep"].map(Path::new).into_iter().find(|path| path.exists());
        let place = std::env::temp_dir().join(format!("collector-ssh-{}", std::process::id()));
        std::fs::create_dir_all(&place)?;
        let program = place.join("sshd");
        symlink(sleep.context("there is no sleep")?, &program)?;
        // When this returns, it has the name: the exec has happened, or failed.
        let process =
            Command::new(&program).arg0("sleep").arg("1000").stdin(Stdio::from(listener)).spawn()?;
        Ok(Self { process, place })
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
