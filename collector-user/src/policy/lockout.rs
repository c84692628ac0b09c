//! Whether policies would cut off who writes them.

use std::{fmt, net::SocketAddr};

use super::{
    protocol::TCP,
    rule::{Opened, Policy, Subject},
    search::search,
    verdict::DEFAULT,
};
use crate::{event::Text, pu::trace::Directions};

/// Whether what policies reject is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// Nothing is.
    #[default]
    Off,
    /// It is, unless that would cut off somebody who is logged in.
    On,
    /// It is.
    Anyway,
}

/// A TCP connection that was opened from elsewhere, and by which somebody works on this host, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This host's end.
    pub local: SocketAddr,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Somebody is seen to be logged in by it; else nobody can tell.
    pub is_certain: bool,
    /// The units whose policies it may be subject to.
    pub units: Vec<Subject>,
}

/// A connection that would be cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// This host's end.
    pub local: SocketAddr,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Somebody is seen to be logged in by it; else nobody can tell.
    pub is_certain: bool,
    /// The unit whose policies reject it.
    pub unit: Text,
    /// The policy that does; [`DEFAULT`] where none accepts it.
    pub policy: Text,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, remote, is_certain, unit, policy } = self;
        write!(f, "the one from {remote} to {local}, which ")?;
        if &**policy == DEFAULT {
            write!(f, "no policy of {unit:?} accepts")
        } else {
            write!(f, "{policy:?} rejects for {unit:?}")
        }?;
        if *is_certain {
            return Ok(());
        }
        f.write_str(" (it may be a stranger's: whose it is cannot be seen, which takes CAP_SYS_PTRACE)")
    }
}

/// Policies that would cut off who writes them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the policies are not enforced, for they would cut off connections by which somebody is logged in: {}. Add a policy that \
     accepts what is needed; where that is what is wanted, enforce them by --enforce-anyway",
    list(connections)
)]
pub struct LockOut {
    /// The connections; one at least.
    pub connections: Vec<CutOff>,
}

/// So many are named.
const NAMED: usize = 3;

fn list(connections: &[CutOff]) -> String {
    let named: Vec<_> = connections.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match connections.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    named.join("; ") + &more
}

/// Whether policies, once they are enforced, let these connections live.
///
/// # Errors
///
/// [`LockOut`], with all that they would not.
pub fn check(policies: &[Policy], connections: &[Connection]) -> Result<(), LockOut> {
    let mut cut = Vec::new();
    for connection in connections {
        let (local, remote) = (connection.local, connection.remote);
        let flow = Opened { remote: remote.ip(), protocol: TCP, port: local.port() };
        let rejecting = connection.units.iter().find_map(|unit| {
            let about = policies
                .iter()
                .filter(|policy| policy.directions != Directions::Out && policy.selector.selects(unit));
            let verdict = search(about.map(|policy| &*policy.rule), &flow);
            verdict.action.rejected().then(|| (unit.id.clone(), verdict.policy_id))
        });
        if let Some((unit, policy)) = rejecting {
            cut.push(CutOff { local, remote, is_certain: connection.is_certain, unit, policy });
        }
    }
    if cut.is_empty() { Ok(()) } else { Err(LockOut { connections: cut }) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Connection, LockOut, check};
    use crate::{
        event::TagStore,
        policy::rule::{Action, Observe, Policy, Ports, Remote, Rule, Selector, Service, Subject},
        pu::trace::Directions,
    };

    fn policy(id: &str, unit: &str, directions: Directions, cidr: &str, action: Action) -> Policy {
        Policy {
            selector: Selector { units: vec![unit.parse().unwrap()], ..Selector::default() },
            directions,
            rule: Arc::new(Rule {
                id: id.into(),
                remote: Remote { cidr: vec![cidr.parse().unwrap()], networks: Vec::new() },
                service: Service { protocol: Some(6), ports: vec![Ports::one(22)] },
                action,
                log: false,
                observe: Observe::None,
            }),
        }
    }

    fn connection(remote: &str, units: &[&str]) -> Connection {
        let unit = |id: &&str| Subject {
            index: 101,
            id: (*id).into(),
            namespace: "".into(),
            tags: Arc::new(TagStore::new()),
        };
        Connection {
            local: "10.0.0.2:22".parse().unwrap(),
            remote: remote.parse().unwrap(),
            is_certain: true,
            units: units.iter().map(unit).collect(),
        }
    }

    const ACCEPT: Action = Action::Accept { encrypt: false };

    #[test]
    fn who_is_cut_off_is_told_with_the_policy() {
        let (host, ssh) = ("host", "ssh.service");
        let office = policy("office", host, Directions::In, "192.0.2.0/24", ACCEPT);
        let connections =
            [connection("192.0.2.7:50000", &[ssh, host]), connection("198.51.100.7:50001", &[ssh, host])];
        assert_eq!(check(&[], &connections), Ok(()), "nobody has spoken of it");
        let outgoing = policy("out", "*", Directions::Out, "192.0.2.0/24", Action::Reject);
        assert_eq!(check(&[outgoing], &connections), Ok(()), "it was opened from elsewhere");
        let LockOut { connections: cut } = check(std::slice::from_ref(&office), &connections).unwrap_err();
        let said: Vec<_> = cut.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [r#"the one from 198.51.100.7:50001 to 10.0.0.2:22, which no policy of "host" accepts"#]
        );
        let wrong = policy("wrong", ssh, Directions::Both, "192.0.2.0/24", Action::Reject);
        let error = check(&[office, wrong], &connections).unwrap_err();
        assert_eq!(error.connections.len(), 2);
        let said = error.to_string();
        assert!(
            said.contains(
                r#"the one from 192.0.2.7:50000 to 10.0.0.2:22, which "wrong" rejects for "ssh.service"; "#
            ),
            "{said}"
        );
        assert!(said.contains("--enforce-anyway"), "{said}");
    }

    #[test]
    fn what_may_be_a_strangers_is_said_to_be() {
        let unseen = Connection { is_certain: false, ..connection("192.0.2.7:50000", &["host"]) };
        let policy = policy("p", "host", Directions::In, "198.51.100.0/24", ACCEPT);
        let said = check(&[policy], &[unseen]).unwrap_err().to_string();
        assert!(said.contains(r#"no policy of "host" accepts (it may be a stranger's: "#), "{said}");
    }

    #[test]
    fn of_many_some_are_named() {
        let connections: Vec<_> =
            (0..5).map(|port| connection(&format!("192.0.2.7:{}", 50_000 + port), &["host"])).collect();
        let policy = policy("p", "host", Directions::In, "198.51.100.0/24", ACCEPT);
        let said = check(&[policy], &connections).unwrap_err().to_string();
        assert!(said.contains("; and 2 more. "), "{said}");
    }
}
