//! What a cgroup is, by where it is: a container, a systemd service, a scope, or nothing of its own.
//!
//! The rules, for one path from the root of the hierarchy:
//!
//! 1. A **container** is the outermost directory on the path that is named as an engine names a container's (below). All
//!    in it belongs to it: the cgroups of a systemd inside, `container` and `init.scope`, and containers inside, for it is the
//!    outermost one that has the interface on this host. So the pods of a `kind` node belong to the node.
//! 2. Else a **service** or a **scope** is the outermost directory that is named as systemd names a unit. Only the manager of
//!    a user (`user@1000.service`) is no such end: what it runs are units of that user; it is a service itself with what is
//!    in none of them.
//! 3. A **slice** is never a unit, for systemd puts no process into one: it is a tag. What is in none of these has no
//!    workload, and is the host's. So are the monitors of containers (`libpod-conmon-`, `crio-conmon-`, `lxc.monitor`).
//!
//! Containers, by the last part or the last two parts of their path; ID stands for 64 hexadecimal digits:
//!
//! | path | `runtime` |
//! |---|---|
//! | `docker-ID.scope`, `docker/ID` | `docker` |
//! | `buildkit/NAME`, of 25 letters and digits | `buildkit` |
//! | `libpod-ID.scope`, `libpod-ID`, `libpod-payload-ID` | `podman` |
//! | `cri-containerd-ID.scope`, `nerdctl-ID.scope`, and at the root `default/NAME`, `k8s.io/NAME` | `containerd` |
//! | `crio-ID.scope`, `crio-ID` | `cri-o` |
//! | `lxc.payload.NAME` (with `.scope` or without), `lxc.payload/NAME`, and at the root `lxc/NAME` | `lxc` |
//! | `systemd-nspawn@NAME.service`, `machine-NAME.scope` | `nspawn` |
//! | `machine-qemu\x2dN\x2dNAME.scope`, `machine-lxc\x2dN\x2dNAME.scope` | `libvirt` |
//! | `crun-NAME.scope`, `runc-NAME.scope` | `crun`, `runc` |
//! | `SLICE:PREFIX:ID`, where an engine's driver is not the runtime's | by its prefix |
//! | `ID` in anything else: Kubernetes and ECS with the driver cgroupfs, Docker with `--cgroup-parent`, `ctr -n NAME` | `unknown` |
//!
//! Tags, in this order, each only where it is known:
//!
//! | tag | of | is |
//! |---|---|---|
//! | `runtime` | containers | see above |
//! | `container_id` | containers | the whole ID, where it has one |
//! | `pod_uid` | Kubernetes | the pod's UID, with hyphens as in the API; a static pod's is a hash without |
//! | `qos` | Kubernetes | `guaranteed`, `burstable`, `besteffort` |
//! | `pod_id` | Podman | the whole ID of the pod |
//! | `unit` | all | the service or scope itself; of a container the service that it is in (a quadlet) |
//! | `slice` | all | the innermost slice above |
//! | `user` | all | the UID of the user whose slice or manager it is in |
//!
//! The path tells no more: the sandbox of a pod (`pause`) looks like its containers; `nspawn` names all machines that are
//! registered with machined and are not libvirt's.
//!
//! **Names are claims.** Who may make cgroups, and every user with a manager of their own may, can name one after a
//! container or a service. What such a user names has the tag `user`; two with the same id differ in `root`. A name with other
//! characters than engines and systemd use is not taken for one of theirs, so none with control characters, blanks or
//! slashes gets into an id or a tag, and none is longer than a file's name (255 octets).

mod container;
mod names;

use container::Container;
use names::{is_unit, user};

/// What a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The context id: the first 12 digits of a container's ID, as its engine shows it; a name where there is no ID; the name
    /// of a unit. Of a unit of a user's manager `user-UID/` stands before it: two users may run units of the same name.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Who runs it: `systemd`, `openrc`, or a container's `runtime`.
    pub manager: &'static str,
    /// Tags, `key=value`.
    pub tags: Vec<String>,
    /// The path of the cgroup that is all of it.
    pub root: String,
}

/// Kinds of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A container, a pod's sandbox, or a machine.
    Container,
    /// Processes that a manager starts and restarts.
    Service,
    /// Processes that were there and were put together: a login, what a manager is itself.
    Scope,
}

/// What the cgroup at a path belongs to; see the [module](self) for the rules.
#[must_use]
pub fn of(path: &str) -> Option<Workload> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    container(&parts).or_else(|| unit(&parts))
}

fn container(parts: &[&str]) -> Option<Workload> {
    let (end, found) = (1..=parts.len()).find_map(|end| Some((end, Container::at(parts.get(..end)?)?)))?;
    let above = parts.get(..end - 1).unwrap_or_default();
    let mut tags = vec![format!("runtime={}", found.runtime)];
    tags.extend(found.has_id.then(|| format!("container_id={}", found.name)));
    tags.extend(container::pod(parts.get(..end).unwrap_or_default()));
    let service = above.iter().find(|part| is_unit(part, ".service") && names::manager(part).is_none());
    tags.extend(service.map(|service| format!("unit={service}")));
    tags.extend(place(above));
    let id = if found.has_id { found.name.get(..12).unwrap_or(&found.name).to_owned() } else { found.name };
    Some(Workload { id, kind: Kind::Container, manager: found.runtime, tags, root: root(parts, end) })
}

fn unit(parts: &[&str]) -> Option<Workload> {
    let mut manager = None;
    for (end, part) in (1..).zip(parts) {
        let kind = match part {
            _ if container::is_monitor(part) => return manager,
            part if is_unit(part, ".service") => Kind::Service,
            part if is_unit(part, ".scope") => Kind::Scope,
            part => match names::openrc(part).filter(|_| end == 1) {
                Some(name) => return Some(openrc(name, root(parts, end))),
                None => continue,
            },
        };
        let above = parts.get(..end - 1).unwrap_or_default();
        // The manager's own processes are in this scope; a unit of that name would not tell whose.
        let is_managers_own = *part == "init.scope" && manager.is_some();
        if is_managers_own {
            return manager;
        }
        let tags = std::iter::once(format!("unit={part}")).chain(place(above)).collect();
        let of_user = above.iter().find_map(|part| names::manager(part));
        let id = of_user.map_or_else(|| (*part).to_owned(), |user| format!("user-{user}/{part}"));
        let found = Workload { id, kind, manager: "systemd", tags, root: root(parts, end) };
        if of_user.is_some() || names::manager(part).is_none() {
            return Some(found);
        }
        manager = Some(found);
    }
    manager
}

/// `openrc.NAME` (`sh/rc-cgroup.sh` of `OpenRC`).
fn openrc(name: &str, root: String) -> Workload {
    let id = name.to_owned();
    Workload { tags: vec![format!("unit={id}")], id, kind: Kind::Service, manager: "openrc", root }
}

/// The slice and the user that something below these is in.
fn place(above: &[&str]) -> impl Iterator<Item = String> {
    let slice = above.iter().rev().find(|part| is_unit(part, ".slice")).map(|slice| format!("slice={slice}"));
    let user = above.iter().find_map(|part| user(part)).map(|user| format!("user={user}"));
    slice.into_iter().chain(user)
}

fn root(parts: &[&str], end: usize) -> String {
    parts.iter().take(end).flat_map(|part| ["/", part]).collect()
}

#[cfg(test)]
mod tests;
