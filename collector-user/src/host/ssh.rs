//! Who is logged in by SSH: whoever a wrong policy would cut off.

mod processes;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use processes::{Holder, holders};
use table::{Entry, State};

/// A connection to an SSH server of this host, which whoever is behind it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// This host's end.
    pub local: SocketAddr,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Somebody is seen to be logged in by it; else nobody can tell.
    pub is_certain: bool,
    /// The id of the user who has its socket; none where that is not in this network namespace, or is gone.
    pub user: Option<u32>,
    /// The cgroups of those who hold the server's listening socket, as paths from the root of the hierarchy: the
    /// connection's socket is in that of whoever made it.
    pub cgroups: BTreeSet<String>,
}

/// The sessions in the network namespace of the calling thread, and that of the calling process, which may have been
/// told by its environment (`SSH_CONNECTION`), or that of whoever started it.
///
/// A session is an established connection to a port on which an SSH server listens, or one that such a server serves, by which
/// somebody is logged in: one whose server still waits for that is a stranger's. To see whose a socket is takes
/// `CAP_SYS_PTRACE`, for processes of other users; where no server is seen that holds a connection, it may be anybody's, and is
/// taken for a session that is not [certain](Session::is_certain). Where no server is seen to listen, it is taken for granted
/// that one does on port 22.
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
    let mut told: Vec<_> = told.as_deref().and_then(told_by).into_iter().collect();
    let lives = |ends: &[SocketAddr; 2]| {
        entries.iter().any(|it| it.state == State::Established && [it.local, it.remote] == *ends)
    };
    // What the environment of an ancestor says may be over; whoever gains root mostly loses their own.
    told.extend(of_ancestors(Path::new("/proc")).filter(lives));
    Ok(among(&entries, &holders(Path::new("/proc"))?, &told))
}

/// A process that ends meanwhile gives its children to another: more than these is no line of ancestors.
const MOST_ANCESTORS: usize = 64;

/// What the environments of those say who have started this process, as far as they can be read.
fn of_ancestors(proc: &Path) -> impl Iterator<Item = [SocketAddr; 2]> {
    let parent = |of: &Path| {
        let status = fs::read_to_string(of.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
        (parent != "0").then(|| proc.join(parent))
    };
    let told = |of: &Path| {
        let environment = fs::read(of.join("environ")).ok()?;
        let mut variables = environment.split(|octet| *octet == 0);
        let said = variables.find_map(|it| it.strip_prefix(b"SSH_CONNECTION="))?;
        told_by(std::str::from_utf8(said).ok()?)
    };
    let line = std::iter::successors(parent(&proc.join("self")), |of| parent(of)).take(MOST_ANCESTORS);
    line.filter_map(|of| told(&of)).collect::<Vec<_>>().into_iter()
}

/// The port of an SSH server that is not seen (IANA).
const USUAL: u16 = 22;

/// The sessions among these sockets, and those that are told of.
fn among(entries: &[Entry], holders: &[Holder], told: &[[SocketAddr; 2]]) -> Vec<Session> {
    let servers = |entry: &Entry| {
        let inode = entry.inode;
        holders.iter().filter(move |holder| holder.is_server && holder.sockets.contains(&inode))
    };
    let of_server = |entry: &&Entry| servers(entry).next().is_some();
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
    let to_server = |entry: &&Entry| ports.contains(&entry.local.port());
    let mut ends: BTreeMap<[SocketAddr; 2], bool> = BTreeMap::new();
    for entry in established().filter(to_server) {
        let is_seen = of_server(&entry);
        let is_certain = servers(entry).any(|holder| holder.is_logged_in);
        if is_certain || !is_seen {
            ends.insert([entry.local, entry.remote], is_certain);
        }
    }
    ends.extend(told.iter().map(|ends| (*ends, true)));
    let cgroups = |port: u16| -> BTreeSet<String> {
        let sockets: HashSet<u64> =
            listening().filter(|entry| entry.local.port() == port).map(|entry| entry.inode).collect();
        let holding = holders.iter().filter(|holder| !holder.sockets.is_disjoint(&sockets));
        holding.filter_map(|holder| holder.cgroup.clone()).collect()
    };
    let user = |ends: [SocketAddr; 2]| {
        established().find(|entry| [entry.local, entry.remote] == ends).map(|entry| entry.user)
    };
    ends.into_iter()
        .map(|([local, remote], is_certain)| Session {
            local,
            remote,
            is_certain,
            user: user([local, remote]),
            cgroups: cgroups(local.port()),
        })
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

    use super::{Holder, Session, among, table, told_by};

    /// A server on port 22 and one that the first process listens for on 2222, a web server, and connections to each.
    const SOCKETS: &str = include_str!("ssh/sockets.txt");

    fn holder(is_server: bool, cgroup: &str, sockets: &[u64]) -> Holder {
        let sockets = sockets.iter().copied().collect();
        // A server's session is one by its control group.
        Holder { is_server, cgroup: Some(cgroup.into()), sockets, is_logged_in: cgroup.contains("session-") }
    }

    fn session(local: &str, remote: &str, is_certain: bool, cgroups: &[&str]) -> Session {
        Session {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            is_certain,
            user: Some(0),
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
            among(&entries, &holders, &[]),
            [
                session("10.0.0.2:22", "192.0.2.7:50000", true, &["/system.slice/ssh.service"]),
                session("10.0.0.2:2222", "192.0.2.9:50002", true, &["/init.scope"]),
                // Whoever holds it is not seen.
                session("[fd00::2]:22", "[fd00::7]:50001", false, &["/system.slice/ssh.service"]),
            ]
        );
    }

    #[test]
    fn a_connection_whose_server_waits_for_a_password_is_none() {
        let entries: Vec<_> = table::entries(SOCKETS).collect();
        let service = "/system.slice/ssh.service";
        let before = [holder(true, service, &[1001, 1002]), holder(true, service, &[1003, 1004])];
        assert_eq!(among(&entries, &before, &[]), []);
        let [listening, waiting] = before;
        let logged_in = holder(true, "/user.slice/session-1.scope", &[1004]);
        assert_eq!(
            among(&entries, &[listening, waiting, logged_in], &[]),
            [session("[fd00::2]:22", "[fd00::7]:50001", true, &[service])]
        );
    }

    #[test]
    fn where_no_server_is_seen_it_is_port_22_and_what_one_is_told() {
        let entries: Vec<_> = table::entries(SOCKETS).collect();
        let told = told_by("198.51.100.7 61000 10.0.0.2 2022").unwrap();
        let sessions = among(&entries, &[], &[told]);
        let ends: Vec<_> =
            sessions.iter().map(|session| (session.local.to_string(), session.remote.to_string())).collect();
        let want = [
            ("10.0.0.2:22", "192.0.2.7:50000"),
            ("10.0.0.2:2022", "198.51.100.7:61000"),
            ("[fd00::2]:22", "[fd00::7]:50001"),
        ];
        assert_eq!(ends, want.map(|(local, remote)| (local.to_owned(), remote.to_owned())));
        assert!(sessions.iter().all(|session| session.cgroups == BTreeSet::new()));
        // The one that is told of is in another network namespace.
        assert_eq!(sessions.iter().map(|it| it.user).collect::<Vec<_>>(), [Some(0), None, Some(0)]);
    }

    #[test]
    fn what_is_told_twice_is_one_session() {
        let entries: Vec<_> = table::entries(SOCKETS).collect();
        let told = told_by("192.0.2.7 50000 10.0.0.2 22").unwrap();
        let sessions = among(&entries, &[], &[told]);
        assert_eq!(sessions.iter().map(|session| session.is_certain).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn the_environment_is_read_with_care() {
        for wrong in ["", "192.0.2.7", "192.0.2.7 1 10.0.0.2", "a 1 b 2", "192.0.2.7 1 10.0.0.2 65536"] {
            assert_eq!(told_by(wrong), None, "{wrong}");
        }
        let told = told_by("fe80::1%eth0 50000 ::ffff:10.0.0.2 22").unwrap();
        assert_eq!(told.map(|end| end.to_string()), ["10.0.0.2:22", "[fe80::1]:50000"]);
    }
}
