//! The processes of SSH servers, and whether somebody is logged in by what they hold (`proc(5)`).

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
};

/// A process that may hold sockets of an SSH server.
#[derive(Clone, Debug, Default)]
pub(super) struct Holder {
    /// It is one; else the first process, which opens sockets on behalf of others.
    pub(super) is_server: bool,
    /// Its cgroup.
    pub(super) cgroup: Option<String>,
    /// Inode numbers of its sockets.
    pub(super) sockets: HashSet<u64>,
    /// Somebody is logged in by it.
    pub(super) is_logged_in: bool,
}

/// What is known of any process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Process {
    name: String,
    parent: u32,
    /// The real user id.
    user: u32,
    /// As whom it was logged in (`/proc/PID/loginuid`), where that was ever said.
    login: Option<u32>,
    cgroup: Option<String>,
}

/// Names of SSH servers: OpenSSH's (with its `sshd-session` and `sshd-auth`), and dropbear.
fn is_server(name: &str) -> bool {
    name == "dropbear" || name == "sshd" || name.starts_with("sshd-")
}

/// What talks to who is not logged in yet.
const BEFORE: &str = "sshd-auth";

/// The processes that may be meant, those left out that have ended meanwhile.
pub(super) fn holders(proc: &Path) -> io::Result<Vec<Holder>> {
    let numbers =
        fs::read_dir(proc)?.flatten().filter_map(|process| process.file_name().to_str()?.parse().ok());
    let all: HashMap<u32, Process> =
        numbers.filter_map(|number: u32| Some((number, process(&proc.join(number.to_string()))?))).collect();
    let separate = fs::read_to_string("/etc/passwd").ok().and_then(|text| separate(&text));
    let meant = all.iter().filter(|(number, process)| **number == 1 || is_server(&process.name));
    let holder = |(number, process): (&u32, &Process)| {
        let descriptors =
            fs::read_dir(proc.join(number.to_string()).join("fd")).into_iter().flatten().flatten();
        let sockets = descriptors.filter_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        });
        Holder {
            is_server: is_server(&process.name),
            cgroup: process.cgroup.clone(),
            sockets: sockets.collect(),
            is_logged_in: is_logged_in(*number, process, &all, separate),
        }
    };
    Ok(meant.map(holder).collect())
}

fn process(at: &Path) -> Option<Process> {
    let name = fs::read_to_string(at.join("comm")).ok()?.trim_end().to_owned();
    let status = fs::read_to_string(at.join("status")).ok()?;
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let (parent, user) = (number("PPid:")?, number("Uid:")?);
    let (login, cgroup) = if is_server(&name) || parent == 0 {
        let login =
            fs::read_to_string(at.join("loginuid")).ok().and_then(|text| text.trim_end().parse().ok());
        let cgroup = fs::read_to_string(at.join("cgroup")).ok();
        let cgroup =
            cgroup.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
        (login.filter(|login| *login != u32::MAX), cgroup.map(str::to_owned))
    } else {
        (None, None)
    };
    Some(Process { name, parent, user, login, cgroup })
}

/// The user that OpenSSH talks as to who is not logged in, in a table of users (passwd(5)).
fn separate(users: &str) -> Option<u32> {
    users.lines().find_map(|line| line.strip_prefix("sshd:")?.split(':').nth(1)?.parse().ok())
}

/// Whether somebody is logged in by a server's process: it is in a session of the service manager, was logged in as somebody, is
/// somebody's own, or runs a program that is no server. A process that waits for a password is and does none of these.
fn is_logged_in(number: u32, process: &Process, all: &HashMap<u32, Process>, separate: Option<u32>) -> bool {
    if !is_server(&process.name) || process.name == BEFORE {
        return false;
    }
    // A server that somebody started by hand has this from them.
    let inherited = all.get(&process.parent).filter(|parent| is_server(&parent.name));
    let is_in_session = |cgroup: &String| {
        let last = cgroup.rsplit('/').next().unwrap_or_default();
        last.starts_with("session-") && Some(cgroup) != inherited.and_then(|parent| parent.cgroup.as_ref())
    };
    let runs_programs = || all.values().any(|child| child.parent == number && !is_server(&child.name));
    inherited.is_some_and(|parent| {
        process.cgroup.as_ref().is_some_and(is_in_session)
            || process.login.is_some_and(|login| parent.login != Some(login))
            || parent.user == 0 && process.user != 0 && Some(process.user) != separate
    }) || runs_programs()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Process, is_logged_in, is_server, separate};

    #[test]
    fn servers_by_their_names() {
        assert!(["sshd", "sshd-session", "sshd-auth", "dropbear"].into_iter().all(is_server));
        assert!(!["ssh", "sshdx", "sshfs", "ssh-agent", "systemd"].into_iter().any(is_server));
    }

    #[test]
    fn the_user_that_talks_to_strangers() {
        assert_eq!(
            separate("root:x:0:0::/root:/bin/sh\nsshd:x:105:65534::/run/sshd:/bin/false\n"),
            Some(105)
        );
        assert_eq!(separate("sshdx:x:105:1::/:/bin/sh\nsshd:\n"), None);
    }

    fn process(name: &str, parent: u32, user: u32) -> Process {
        let cgroup = Some("/system.slice/ssh.service".into());
        Process { name: name.into(), parent, user, login: None, cgroup }
    }

    fn logged_in(all: &[(u32, Process)]) -> Vec<u32> {
        let all: HashMap<u32, Process> = all.iter().cloned().collect();
        let is = |(number, process): &(&u32, &Process)| is_logged_in(**number, process, &all, Some(105));
        let mut numbers: Vec<u32> = all.iter().filter(is).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn who_is_asked_for_a_password_is_not_logged_in() {
        // OpenSSH from 9.8 on, one of before, and dropbear.
        let new = [process("sshd", 1, 0), process("sshd-session", 10, 0), process("sshd-auth", 11, 105)];
        let old = [process("sshd", 10, 0), process("sshd", 20, 105)];
        let dropbear = [process("dropbear", 1, 0), process("dropbear", 30, 0)];
        let [listener, monitor, before] = new;
        let [older, net] = old;
        let [other, waiting] = dropbear;
        assert_eq!(
            logged_in(&[
                (10, listener),
                (11, monitor),
                (12, before),
                (20, older),
                (21, net),
                (30, other),
                (31, waiting),
            ]),
            [0_u32; 0]
        );
    }

    #[test]
    fn who_is_logged_in_is_told_by_any_sign() {
        let listener = process("sshd", 1, 0);
        let session = Process {
            cgroup: Some("/user.slice/user-0.slice/session-5.scope".into()),
            ..process("sshd-session", 10, 0)
        };
        let login = Process { login: Some(0), ..process("sshd-session", 10, 0) };
        let own = process("sshd-session", 13, 1000);
        let all = [
            (10, listener.clone()),
            (11, session),
            (12, login),
            (13, process("sshd-session", 10, 0)),
            (14, own),
            (15, process("dropbear", 10, 0)),
            (16, process("sh", 15, 0)),
        ];
        assert_eq!(logged_in(&all), [11, 12, 14, 15]);
        // A server that somebody started by hand has all of it from them, and so have strangers' processes.
        let by_hand = Process {
            cgroup: Some("/user.slice/user-1000.slice/session-2.scope".into()),
            login: Some(1000),
            ..process("sshd", 9, 1000)
        };
        let stranger = Process { parent: 10, ..by_hand.clone() };
        assert_eq!(logged_in(&[(9, process("bash", 1, 1000)), (10, by_hand), (11, stranger)]), [0_u32; 0]);
    }
}
