//! A service manager's own programs on the cgroups of its services (systemd's `IPAddressDeny=`, for one): the collector puts
//! none on any cgroup, so that nobody's is refused, and nobody's is pushed aside.

use std::{io::ErrorKind, net::UdpSocket};

use collector_tests::{
    Result,
    books::Books,
    cgroups::Cgroup,
    collector::{Running, discovering},
    lab::Wire,
    netns::unique,
    program::Firewall,
    talk::{self, asker},
};

use crate::assert_balanced;

/// Whether the kernel takes what a socket sends.
fn may_send(socket: &UdpSocket) -> Result<bool> {
    match socket.send(b"x") {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
#[ignore = "needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN: cargo xtask test kernel"]
fn a_firewall_at_a_leaf_works_before_with_and_after_the_collector() -> Result<()> {
    let wire = Wire::silent()?;
    let (host, peer) = (&wire.b, &wire.a);
    let service = format!("{}.service", unique("ct").replace('.', "_"));
    let leaf = Cgroup::new(&service)?;
    assert_eq!(Firewall::count(leaf.directory())?, [0; 2], "this host's own manager has none above it");
    let (at_host, at_peer) = ((host.v4, 40_000).into(), (peer.v4, 5001).into());
    let taking = talk::listener(&peer.place, at_peer)?;
    let socket = leaf.within(|| asker(&host.place, at_host, at_peer))?;
    for comes_first in [true, false] {
        let before = comes_first.then(|| Firewall::on(leaf.directory())).transpose()?;
        let collector = Running::start(&host.place, discovering())?;
        // Exclusive: the kernel refuses it where there is any above it that does not tolerate that.
        let firewall = before.map_or_else(|| Firewall::on(leaf.directory()), Ok)?;
        assert_eq!(Firewall::count(leaf.directory())?, [0, 1], "the service manager's own, and none of ours");
        assert!(!may_send(&socket)?);
        drop(firewall);
        assert_eq!(Firewall::count(leaf.directory())?, [0; 2]);
        let told = talk::tell(&socket, &taking, 10, 100)?;
        let firewall = Firewall::on(leaf.directory())?;
        assert!(!may_send(&socket)?);
        let finished = collector.stop()?;
        assert!(!may_send(&socket)?, "it stays when the collector goes");
        drop(firewall);
        assert_balanced(&finished);
        let mut books = Books::new();
        books.asked(&service, &told).assert_kept(&finished);
    }
    Ok(())
}
