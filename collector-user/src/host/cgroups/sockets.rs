//! Whether sockets keep their cgroup.

use super::mounts::{self, Mount, Version};

/// Since this version of Linux a socket keeps its cgroup of version 2 beside what version 1 says of it (commit 8520e224f547,
/// "bpf, cgroups: Fix cgroup v2 fallback on v1/v2 mixed mode").
const KEPT: (u32, u32) = (5, 15);

/// A sentence where controllers of version 1 may take the cgroup away from sockets: `net_cls` and `net_prio` of a kernel
/// older than 5.15 write over it as soon as one of them is used. None where that cannot be, or mounts cannot be read.
#[must_use]
pub fn may_lose_their_cgroup(kernel: (u32, u32)) -> Option<String> {
    sentence(kernel, &mounts::of("thread-self").ok()?)
}

fn sentence(kernel: (u32, u32), mounts: &[Mount]) -> Option<String> {
    let used = |option: &&String| ["net_cls", "net_prio"].contains(&option.as_str());
    let mut mounts = mounts.iter().filter(|mount| mount.version == Version::One && kernel < KEPT);
    let (mount, option) = mounts.find_map(|mount| Some((mount, mount.options.iter().find(used)?)))?;
    Some(format!(
        "the cgroups of sockets, where {option} of cgroup version 1 is used ({}): before Linux {}.{} it takes their place",
        mount.point.to_string_lossy().escape_debug(),
        KEPT.0,
        KEPT.1
    ))
}

#[cfg(test)]
mod tests {
    use super::{Mount, Version, sentence};

    #[test]
    fn old_kernels_with_controllers_of_version_1() {
        let mount = |version, options: &[&str]| Mount {
            version,
            root: b"/".to_vec(),
            point: "/sys/fs/cgroup/x".into(),
            options: options.iter().map(ToString::to_string).collect(),
        };
        let both = [mount(Version::One, &["rw", "cpu"]), mount(Version::One, &["rw", "net_cls", "net_prio"])];
        assert_eq!(
            sentence((5, 10), &both).as_deref(),
            Some(
                "the cgroups of sockets, where net_cls of cgroup version 1 is used (/sys/fs/cgroup/x): before Linux 5.15 \
                 it takes their place"
            )
        );
        assert!(sentence((5, 14), &[mount(Version::One, &["net_prio"])]).is_some());
        assert_eq!(sentence((5, 15), &both), None);
        assert_eq!(sentence((5, 10), &[mount(Version::Two, &["net_cls"])]), None);
        assert_eq!(sentence((5, 10), &[mount(Version::One, &["rw", "net_clsx"])]), None);
    }
}
