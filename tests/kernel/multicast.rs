//! Own multicast, of which a member on the same host gets a copy by the interface that it left by.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, options},
    lab::{Addressed, End, join, silent_host},
    talk::{self, ask, asker, tell},
    traffic::{Host, pin},
};

use crate::assert_balanced;

const COUNT: u64 = 100;
const GROUP_4: Ipv4Addr = Ipv4Addr::new(239, 77, 0, 1);
const GROUP_6: Ipv6Addr = Ipv6Addr::new(0xFF15, 0, 0, 0, 0, 0, 0, 0x77);

/// A member of a group, on the host that sends to it.
fn member(of: &End, version: u8) -> Result<UdpSocket> {
    let group = SocketAddr::new(if version == 4 { GROUP_4.into() } else { GROUP_6.into() }, 5001);
    let socket = talk::listener(&of.place, group)?;
    if version == 4 {
        socket.join_multicast_v4(&GROUP_4, &of.v4)?;
    } else {
        socket.join_multicast_v6(&GROUP_6, of.ifindex)?;
    }
    Ok(socket)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_copy_of_own_multicast_is_not_counted_again() -> Result<()> {
    let hosts = [silent_host()?, silent_host()?];
    let (a, b) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
    for end in [&a, &b] {
        end.without_offloads()?;
    }
    let answering = Host::new(&b, &[])?;
    let members = [member(&a, 4)?, member(&a, 6)?];
    let collectors = [
        Running::start_beside(&a.place, options(), Some(&a.dev))?,
        Running::start_beside(&b.place, options(), Some(&b.dev))?,
    ];
    pin(0)?;
    let (mut sent, mut received) = (Books::new(), Books::new());
    for (version, member) in [4, 6].into_iter().zip(&members) {
        let from = SocketAddr::new(a.address(version), 40_000);
        let told = tell(&asker(&a.place, from, member.local_addr()?)?, member, COUNT, 100)?;
        sent.asked("host", &told);
        // To a group is to whoever is there.
        received.was_asked("host", &told);
    }
    // A CPU hands packets on in their order: this one comes last.
    let from = (a.v4, 40_001).into();
    let last = ask(&asker(&a.place, from, talk::answers(&answering, 4))?, 1, 100)?;
    sent.asked("host", &last);
    received.was_asked("host", &last);
    for (collector, (books, looped)) in collectors.into_iter().zip([(sent, 2 * COUNT), (received, 0)]) {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
        assert_eq!(finished.status.ledger.looped, looped);
    }
    Ok(())
}
