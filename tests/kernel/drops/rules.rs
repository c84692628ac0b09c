//! Rules of both kinds of iptables, and of connection tracking by itself.

use anyhow::ensure;
use collector_tests::{Result, frames, lab::Wire, traffic::PacketSocket};
use collector_user::event::DropClass;

use super::cause::{Packet, assert_dropped, caused};

/// Both drop what comes in for port 6001 by the same words, and the kernel by other functions.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
#[expect(clippy::print_stdout, reason = "how a test of libtest says that a part was left out")]
fn what_iptables_drops() -> Result<()> {
    for (tool, place) in [("iptables-nft", "nft_do_chain"), ("iptables-legacy", "ipt_do_table")] {
        let mut has = true;
        let finished = caused(|wire| {
            // Whether this kernel has what the tool speaks to is asked with what drops nothing.
            has = wire.a.place.run(&format!("{tool} -A OUTPUT -p 253 -j ACCEPT")).is_ok();
            if has {
                wire.a.place.run(&format!("{tool} -A INPUT -p udp --dport 6001 -j DROP"))?;
                Packet::udp(&wire.b, wire.a.v4).send(60, &wire.b, &wire.a)?;
                ensure!(counted(wire, tool)? == 60, "the rule has not dropped all");
            }
            Ok(())
        })?;
        if !has {
            println!("SKIP for a part, drops by {tool}: this kernel or this host has none");
            continue;
        }
        assert_dropped(&finished, "host", &["NETFILTER_DROP"], DropClass::Policy, 60);
        let rows = finished.status.drops.iter().filter(|row| row.class == DropClass::Policy);
        let places: Vec<_> = rows.map(|row| row.place.to_string()).collect();
        // The hook's caller frees the packet on some kernels.
        let is_there = |name: &str| places.iter().any(|found| found.starts_with(name));
        assert!(is_there(place) || is_there("nf_hook_slow"), "{places:?}");
    }
    Ok(())
}

/// What the only rule of a chain has dropped, by its own counter.
fn counted(wire: &Wire, tool: &str) -> Result<u64> {
    let listed = wire.a.place.run(&format!("{tool} -L INPUT -v -n -x"))?;
    let rule = listed.lines().find(|line| line.contains("DROP") && line.contains("6001")).unwrap_or_default();
    Ok(rule.split_whitespace().next().unwrap_or_default().parse()?)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_connection_tracking_finds_invalid() -> Result<()> {
    let finished = caused(|wire| {
        wire.a.place.nft(
            "table inet t { chain i { type filter hook input priority 0; ct state invalid counter drop; }; }",
        )?;
        // A segment that neither opens nor belongs to a connection.
        let segment = frames::tcp([0x9C, 0x40, 0, 80], frames::SYN | frames::FIN, &[], 0);
        let ends = (wire.b.v4, wire.a.v4);
        let segment = frames::with_checksums(&frames::ipv4(ends, &[], 0x4000, frames::TCP, &segment));
        let frame = frames::ethernet_between(wire.b.mac, wire.a.mac, &[], frames::IPV4, &segment);
        let socket = PacketSocket::new(&wire.b)?;
        (0..30).try_for_each(|_| socket.send(&frame))?;
        let by_rule = super::cause::counted_by_rules(&wire.a.place)?;
        ensure!(by_rule == 30, "the rule has dropped {by_rule}");
        Ok(())
    })?;
    assert_dropped(&finished, "host", &["NETFILTER_DROP"], DropClass::Policy, 30);
    Ok(())
}
