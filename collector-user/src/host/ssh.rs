//! Who is logged in by SSH: whoever a wrong policy would cut off.

mod table;

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use table::{Entry, State};

/// A connection to an SSH server of this host, which whoever is behind it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// This host's end.
    pub local: SocketAddr,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The cgroups of those who hold the server's listening socket, as paths from the root of the hierarchy: the
    /// connection's socket is in that of whoever made it.
    pub cgroups: BTreeSet<String>,
}

/// The sessions in the network namespace of the calling thread, and that of the calling process, which may have been
/// told by its environment (`SSH_CONNECTION`).
///
/// A session is an established connection to a port on which an SSH server listens, or one that such a server serves.
/// To see whose a socket is takes `CAP_SYS_PTRACE`, for processes of other users. Where no server is seen to listen, it is
/// taken for granted that one does on port 22.
///
/// # Errors
///
/// The table of sockets, or the list of processes, cannot be read.
pub fn sessions() -> io::Result<Vec<Session>> {
    let mut entries = Vec::new();
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => entries.extend(table::entries(&text)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let told = std::env::var("SSH_CONNECTION").ok();
    Ok(among(&entries, &holders(Path::new("/proc"))?, told.as_deref().and_then(told_by)))
}

/// A process that may hold sockets of an SSH server.
#[derive(Clone, Debug, Default)]
struct Holder {
    /// It is one; else the first process, which opens sockets on behalf of others.
    is_server: bool,
    /// Its cgroup.
    cgroup: Option<String>,
    /// Inode numbers of its sockets.
    sockets: HashSet<u64>,
}

/// Names of SSH servers: OpenSSH's (with its `sshd-session` and `sshd-auth`), and dropbear.
fn is_server(name: &str) -> bool {
    name == "dropbear" || name == "sshd" || name.starts_with("sshd-")
}

/// The processes that may be meant, those left out that have ended meanwhile.
fn holders(proc: &Path) -> io::Result<Vec<Holder>> {
    let mut holders = Vec::new();
    for process in fs::read_dir(proc)?.flatten() {
        let path = process.path();
        let is_first = process.file_name() == "1";
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        let is_server = is_server(name.trim_end());
        if !is_first && !is_server {
            continue;
        }
        let cgroup = fs::read_to_string(path.join("cgroup")).ok();
        let cgroup =
            cgroup.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
        let descriptors = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let sockets = descriptors.filter_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        });
        holders.push(Holder { is_server, cgroup: cgroup.map(str::to_owned), sockets: sockets.collect() });
    }
    Ok(holders)
}

/// The port of an SSH server that is not seen (IANA).
const USUAL: u16 = 22;

/// The sessions among these sockets, and the one that is told of.
fn among(entries: &[Entry], holders: &[Holder], told: Option<[SocketAddr; 2]>) -> Vec<Session> {
    let of_server = |entry: &&Entry| {
        holders.iter().any(|holder| holder.is_server && holder.sockets.contains(&entry.inode))
    };
    let listening = || entries.iter().filter(|entry| entry.state == State::Listening);
    let established = || entries.iter().filter(|entry| entry.state == State::Established);
    let mut ports: BTreeSet<u16> = listening().filter(of_server).map(|entry| entry.local.port()).collect();
    // The first process may listen for a server, which is then started for each connection.
    let open: BTreeSet<u16> = listening().map(|entry| entry.local.port()).collect();
    ports.extend(
        established().filter(of_server).map(|entry| entry.local.port()).filter(|port| open.contains(port)),
    );
    if ports.is_empty() {
        ports.insert(USUAL);
    }
    let is_session = |entry: &&Entry| ports.contains(&entry.local.port());
    let mut ends: Vec<[SocketAddr; 2]> =
        established().filter(is_session).map(|entry| [entry.local, entry.remote]).collect();
    ends.extend(told);
    ends.sort_unstable();
    ends.dedup();
    let cgroups = |port: u16| -> BTreeSet<String> {
        let sockets: HashSet<u64> =
            listening().filter(|entry| entry.local.port() == port).map(|entry| entry.inode).collect();
        let holding = holders.iter().filter(|holder| !holder.sockets.is_disjoint(&sockets));
        holding.filter_map(|holder| holder.cgroup.clone()).collect()
    };
    ends.into_iter()
        .map(|[local, remote]| Session { local, remote, cgroups: cgroups(local.port()) })
        .collect()
}

/// `SSH_CONNECTION`: the client's address and port, and the server's (ssh(1)).
fn told_by(text: &str) -> Option<[SocketAddr; 2]> {
    let mut words = text.split(' ');
    let mut end = || {
        // A link-local address has its interface behind a percent sign.
        let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(address.to_canonical(), words.next()?.parse().ok()?))
    };
    let (remote, local) = (end()?, end()?);
    Some([local, remote])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Holder, Session, among, is_server, table, told_by};

    /// A server on port 22 and one that the first process listens for on 2222, a web server, and connections to each.
    const SOCKETS: &str = include_str!("ssh/sockets.txt");

    fn holder(is_server: bool, cgroup: &str, sockets: &[u64]) -> Holder {
        Holder { is_server, cgroup: Some(cgroup.into()), sockets: sockets.iter().copied().collect() }
    }

    fn session(local: &str, remote: &str, cgroups: &[&str]) -> Session {
        Session {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            cgroups: cgroups.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn connections_to_servers_are_sessions() {
        let entries: Vec<_> = table::entries(SOCKETS).collect();
        let holders = [
            holder(false, "/init.scope", &[2001, 9999]),
            holder(true, "/system.slice/ssh.service", &[1001, 1002]),
            // It forwards a port: what it opens itself is no session.
            holder(true, "/user.slice/session-1.scope", &[1003, 1005, 2003]),
        ];
        assert_eq!(
            among(&entries, &holders, None),
            [
                session("10.0.0.2:22", "192.0.2.7:50000", &["/system.slice/ssh.service"]),
                session("10.0.0.2:2222", "192.0.2.9:50002", &["/init.scope"]),
                session("[fd00::2]:22", "[fd00::7]:50001", &["/system.slice/ssh.service"]),
            ]
        );
    }

    #[test]
    fn where_no_server_is_seen_it_is_port_22_and_what_one_is_told() {
        let entries: Vec<_> = table::entries(SOCKETS).collect();
        let told = told_by("198.51.100.7 61000 10.0.0.2 2022");
        let sessions = among(&entries, &[], told);
        let ends: Vec<_> =
            sessions.iter().map(|session| (session.local.to_string(), session.remote.to_string())).collect();
        let want = [
            ("10.0.0.2:22", "192.0.2.7:50000"),
            ("10.0.0.2:2022", "198.51.100.7:61000"),
            ("[fd00::2]:22", "[fd00::7]:50001"),
        ];
        assert_eq!(ends, want.map(|(local, remote)| (local.to_owned(), remote.to_owned())));
        assert!(sessions.iter().all(|session| session.cgroups == BTreeSet::new()));
    }

    #[test]
    fn what_is_told_twice_is_one_session() {
        let entries: Vec<_> = table::entries(SOCKETS).collect();
        let told = told_by("192.0.2.7 50000 10.0.0.2 22");
        assert!(told.is_some());
        assert_eq!(among(&entries, &[], told).len(), 2);
    }

    #[test]
    fn the_environment_is_read_with_care() {
        for wrong in ["", "192.0.2.7", "192.0.2.7 1 10.0.0.2", "a 1 b 2", "192.0.2.7 1 10.0.0.2 65536"] {
            assert_eq!(told_by(wrong), None, "{wrong}");
        }
        let told = told_by("fe80::1%eth0 50000 ::ffff:10.0.0.2 22").unwrap();
        assert_eq!(told.map(|end| end.to_string()), ["10.0.0.2:22", "[fe80::1]:50000"]);
    }

    #[test]
    fn servers_by_their_names() {
        assert!(["sshd", "sshd-session", "sshd-auth", "dropbear"].into_iter().all(is_server));
        assert!(!["ssh", "sshdx", "sshfs", "ssh-agent", "systemd"].into_iter().any(is_server));
    }
}
