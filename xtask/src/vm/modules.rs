//! Which files the modules of a guest are, by what depmod wrote.

use std::collections::{BTreeMap, BTreeSet};

/// What the kernel tests use and a kernel may have as modules. It loads them itself when they are asked for, by a name
/// that `modules.alias` knows. What a kernel does not have as a module is built in, or the test says so.
pub(super) const WANTED: [&str; 55] = [
    "8021q",
    "act_bpf",
    "act_gact",
    "act_mirred",
    "af_packet",
    "bonding",
    "br_netfilter",
    "bridge",
    "cls_bpf",
    "cls_matchall",
    "cls_u32",
    // What nf_tables loads by the name of an algorithm; built in but for the flavour with PREEMPT_RT.
    "crc32c_generic",
    "dummy",
    "geneve",
    "ifb",
    "ip6_gre",
    "ip6_tunnel",
    "ip_gre",
    "ipip",
    "macvlan",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_flow_table",
    "nf_flow_table_inet",
    "nf_flow_table_ipv4",
    "nf_nat",
    "nf_tables",
    "nft_chain_nat",
    "nft_counter",
    "nft_ct",
    "nft_fib_inet",
    "nft_flow_offload",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_meta_bridge",
    "nft_nat",
    "nft_objref",
    "nft_redir",
    "nft_reject_inet",
    "sch_htb",
    "sch_ingress",
    "sch_netem",
    "sch_tbf",
    "sctp",
    "sit",
    "team",
    "team_mode_activebackup",
    "team_mode_roundrobin",
    "tun",
    "veth",
    "virtio_net",
    "virtio_pci",
    "vrf",
    "vxlan",
];

/// The modules of a guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Modules<'a> {
    /// Files as the kernel's package has them, compressed or not.
    pub(super) files: BTreeSet<&'a str>,
    /// `modules.dep` of these files, none compressed.
    pub(super) dependencies: String,
    /// `modules.alias` of these files.
    pub(super) aliases: String,
}

impl<'a> Modules<'a> {
    /// Those wanted and what they need, by a kernel's `modules.dep` and `modules.alias`.
    pub(super) fn of(wanted: &[&str], dependencies: &'a str, aliases: &str) -> Self {
        let all: BTreeMap<&str, (&'a str, &'a str)> = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (name(file), (file, needs)))
            .collect();
        // What depmod writes behind a file is the whole closure.
        let files = wanted
            .iter()
            .filter_map(|name| all.get(name))
            .flat_map(|(file, needs)| needs.split_whitespace().chain([*file]))
            .collect::<BTreeSet<_>>();
        let names: BTreeSet<_> = files.iter().map(|file| name(file)).collect();
        let lines = |text: &'a str| text.lines();
        let kept = lines(dependencies)
            .filter(|line| line.split_once(':').is_some_and(|(file, _)| files.contains(file)));
        let dependencies = kept.map(|line| line.replace(".ko.xz", ".ko") + "\n").collect();
        let aliases = aliases
            .lines()
            .filter(|line| line.rsplit_once(' ').is_some_and(|(_, module)| names.contains(module)))
            .map(|line| line.to_owned() + "\n")
            .collect();
        Self { files, dependencies, aliases }
    }
}

/// `cls_bpf` of `kernel/net/sched/cls_bpf.ko.xz`.
fn name(file: &str) -> &str {
    let file = file.rsplit_once('/').map_or(file, |(_, file)| file);
    file.split_once('.').map_or(file, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::Modules;

    #[test]
    fn what_is_wanted_comes_with_what_it_needs_and_nothing_else() {
        let dependencies = "k/bridge.ko.xz: k/stp.ko.xz k/llc.ko.xz\nk/stp.ko.xz: k/llc.ko.xz\nk/llc.ko.xz:\nk/veth.ko:\n\
                            k/other.ko: k/llc.ko\n";
        let aliases =
            "# Aliases\nalias rtnl-link-bridge bridge\nalias rtnl-link-veth veth\nalias pci:v1 other\n";
        let modules = Modules::of(&["bridge", "veth", "builtin"], dependencies, aliases);
        let files: Vec<_> = modules.files.iter().copied().collect();
        assert_eq!(files, ["k/bridge.ko.xz", "k/llc.ko.xz", "k/stp.ko.xz", "k/veth.ko"]);
        assert_eq!(
            modules.dependencies,
            "k/bridge.ko: k/stp.ko k/llc.ko\nk/stp.ko: k/llc.ko\nk/llc.ko:\nk/veth.ko:\n"
        );
        assert_eq!(modules.aliases, "alias rtnl-link-bridge bridge\nalias rtnl-link-veth veth\n");
    }
}
