//! How engines name the cgroups of containers, and of pods.

use super::names::{is_id, is_name, unescaped};

/// A container's cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub runtime: &'static str,
    /// Its ID, or its name.
    pub name: String,
    pub has_id: bool,
}

/// What stands before an ID, with either driver.
const PREFIXES: [(&str, &str); 6] = [
    ("docker", "docker"),
    ("libpod", "podman"),
    ("libpod-payload", "podman"),
    ("cri-containerd", "containerd"),
    ("nerdctl", "containerd"),
    ("crio", "cri-o"),
];

impl Container {
    /// The container whose cgroup this path ends with.
    pub(super) fn at(path: &[&str]) -> Option<Self> {
        let (last, above) = path.split_last()?;
        by_id(last, above).or_else(|| by_scope(last)).or_else(|| by_parent(last, above))
    }

    fn id(runtime: &'static str, id: &str) -> Self {
        Self { runtime, name: id.to_owned(), has_id: true }
    }

    fn named(runtime: &'static str, name: &str) -> Option<Self> {
        let name = unescaped(name);
        is_name(&name).then_some(Self { runtime, name, has_id: false })
    }
}

fn by_id(last: &str, above: &[&str]) -> Option<Container> {
    if is_id(last) {
        let is_docker = above.last().is_some_and(|parent| *parent == "docker");
        let runtime = match above {
            _ if is_docker => "docker",
            ["default" | "k8s.io"] => "containerd",
            ["lxc"] => "lxc",
            _ => "unknown",
        };
        return Some(Container::id(runtime, last));
    }
    // A path for the driver systemd, taken by the other one for a name.
    if let Some((prefix, id)) = last.rsplit_once(':').filter(|(_, id)| is_id(id)) {
        let prefix = prefix.rsplit_once(':').map(|(_, prefix)| prefix)?;
        return Some(Container::id(runtime(prefix).unwrap_or("unknown"), id));
    }
    let (prefix, id) = last.strip_suffix(".scope").unwrap_or(last).rsplit_once('-')?;
    is_id(id).then(|| runtime(prefix).map(|runtime| Container::id(runtime, id)))?
}

fn runtime(prefix: &str) -> Option<&'static str> {
    PREFIXES.iter().find(|(known, _)| *known == prefix).map(|(_, runtime)| *runtime)
}

/// Those that have a name and a unit of their own.
fn by_scope(last: &str) -> Option<Container> {
    if let Some(name) = last.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return Container::named("nspawn", name);
    }
    let scope = last.strip_suffix(".scope")?;
    if let Some(machine) = scope.strip_prefix("machine-") {
        // libvirt puts its driver and a number before the name.
        let name = unescaped(machine);
        let name = ["qemu-", "lxc-"].iter().find_map(|driver| name.strip_prefix(driver)?.split_once('-'));
        let name = name.filter(|(number, _)| number.parse::<u32>().is_ok()).map(|(_, name)| name);
        return name
            .map_or_else(|| Container::named("nspawn", machine), |name| Container::named("libvirt", name));
    }
    let named = |(prefix, runtime)| Container::named(runtime, scope.strip_prefix(prefix)?);
    [("crun-", "crun"), ("runc-", "runc")].into_iter().find_map(named)
}

/// Those that have a name, in a directory of their engine's.
fn by_parent(last: &str, above: &[&str]) -> Option<Container> {
    if let Some(name) = last.strip_prefix("lxc.payload.") {
        return Container::named("lxc", name.strip_suffix(".scope").unwrap_or(name));
    }
    match above {
        [.., "lxc.payload"] | ["lxc"] => Container::named("lxc", last),
        // The namespaces of containerd that it makes itself, and that Kubernetes has.
        ["default" | "k8s.io"] => Container::named("containerd", last),
        [.., "buildkit"] if is_build(last) => Container::named("buildkit", last),
        _ => None,
    }
}

/// Whether it can be the identity of a build step: 25 digits to the base of 36.
fn is_build(name: &str) -> bool {
    name.len() == 25 && name.bytes().all(|octet| octet.is_ascii_digit() || octet.is_ascii_lowercase())
}

/// Whether it is of the process that looks after a container.
pub(super) fn is_monitor(part: &str) -> bool {
    part == "lxc.monitor"
        || ["libpod-conmon-", "crio-conmon-", "lxc.monitor."].iter().any(|prefix| part.starts_with(prefix))
}

/// What is known of the pod whose container's cgroup this path ends with, as tags.
pub(super) fn pod(path: &[&str]) -> Vec<String> {
    let mut tags = Vec::new();
    if let Some((at, uid)) = path.iter().enumerate().find_map(|(at, part)| Some((at, uid(part)?))) {
        tags.push(format!("pod_uid={}", uid.replace('_', "-")));
        let above = path.get(..=at).unwrap_or_default();
        let is_in = |class: &str| {
            above.iter().any(|part| *part == class || (part.contains("kubepods") && part.contains(class)))
        };
        let class = ["burstable", "besteffort"].into_iter().find(|class| is_in(class));
        tags.push(format!("qos={}", class.unwrap_or("guaranteed")));
    }
    let podman = |part: &str| {
        let (_, id) = part.strip_suffix(".slice").unwrap_or(part).rsplit_once("libpod_pod_")?;
        is_id(id).then(|| format!("pod_id={id}"))
    };
    tags.extend(path.iter().find_map(|part| podman(part)));
    tags
}

/// The UID in the name of a pod's cgroup: `podUID`, or `kubepods-burstable-podUID.slice` with underscores for its hyphens.
fn uid(part: &str) -> Option<&str> {
    let part = part.split(':').next()?;
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").filter(|(above, _)| above.contains("kubepods"))?.1,
        None => part.strip_prefix("pod")?,
    };
    let is_digit = |octet: u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f' | b'-' | b'_');
    ((32..=36).contains(&uid.len()) && uid.bytes().all(is_digit)).then_some(uid)
}
