//! ICMP errors that come in belong to whom the packet belongs that they quote.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use collector_ebpf::abi::{
    flow::{how, ports},
    pu::index,
};
use collector_tests::{
    Result,
    frames::{ENDS_4, ENDS_6, Ends, ICMP, ICMPV6, destination_options, ethernet, icmp_error, ipv6},
    testrun::{Context, Datapath, Hook, lacks_ingress_ifindex, uplink},
};
use collector_user::kernel::settings::Settings;

/// A bridge whose ports are host-side ends.
const INSIDE: u32 = 6;

/// An error that a router on the way, or the other end, sends about a frame to its sender.
fn error(about: &[u8], sender: Ends) -> Vec<u8> {
    // Destination unreachable: port unreachable (RFC 792; RFC 4443 section 3.1).
    let (protocol, message) = match sender.source {
        IpAddr::V4(_) => (ICMP, icmp_error(3, 3, &about[14..14 + 28])),
        IpAddr::V6(_) => (ICMPV6, icmp_error(1, 4, &about[14..])),
    };
    sender.back().frame(protocol, &message)
}

/// Packets of ICMP by unit, and how each unit was found.
fn errors(datapath: &mut Datapath) -> Result<Vec<(u16, [u64; 2], u8)>> {
    let mut errors: BTreeMap<(u16, u8), [u64; 2]> = BTreeMap::new();
    for delta in datapath.deltas()?.into_iter().filter(|delta| delta.id.ports == ports::ICMP) {
        let packets = errors.entry((delta.pu, how::attributed_by(delta.how))).or_default();
        for (sum, more) in packets.iter_mut().zip(delta.packets) {
            *sum += more;
        }
    }
    Ok(errors.into_iter().map(|((pu, by), packets)| (pu, packets, by)).collect())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_error_belongs_to_whom_the_packet_belongs_that_it_quotes() -> Result<()> {
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.controller.add_local(ends.source, index::HOST)?;
        // One address of the host's, from which both a socket of its own and a container send.
        let (own, translated) = (ends, ends.from_port(40_001));
        datapath.run(Hook::Egress, &own.udp(30))?;
        let leaving = Context { ingress_ifindex: INSIDE, ..Context::default() };
        datapath.run_with(Hook::Egress, &translated.udp(30), leaving)?;
        datapath.deltas()?;
        // The errors have the same ends, type and code; one comes for this, the next for that.
        for sender in [own, translated, translated, own, translated] {
            datapath.run(Hook::Ingress, &error(&sender.udp(30), sender))?;
        }
        let found = errors(&mut datapath)?;
        let expected = [(index::HOST, [2, 0], how::BY_ADDRESS), (index::FORWARDED, [3, 0], how::BY_ROUTE)];
        assert_eq!(found, expected, "{}", ends.source);
        // In a later epoch, too.
        datapath.run(Hook::Ingress, &error(&translated.udp(30), translated))?;
        assert_eq!(errors(&mut datapath)?, [(index::FORWARDED, [1, 0], how::BY_ROUTE)], "{}", ends.source);
        let ledger = datapath.ledger()?;
        assert_eq!(ledger.seen, 8 + u64::from(ends == ENDS_6) * 8, "{ledger:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_error_that_leaves_is_its_senders() -> Result<()> {
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.controller.add_local(ends.destination, index::HOST)?;
        // No socket waits for it: nobody's, and the host says so.
        datapath.run(Hook::Ingress, &ends.udp(30))?;
        let about = ends.udp(30);
        datapath.run(Hook::Egress, &error(&about, ends))?;
        assert_eq!(errors(&mut datapath)?, [(index::HOST, [0, 1], how::BY_ADDRESS)], "{}", ends.source);
        // An error that comes in between the same ends, about what a container has sent, changes nothing of that.
        let translated = ends.back();
        let leaving = Context { ingress_ifindex: INSIDE, ..Context::default() };
        datapath.run_with(Hook::Egress, &translated.from_port(50_000).udp(30), leaving)?;
        let quoting = error(&translated.from_port(50_000).udp(30), translated);
        datapath.run(Hook::Ingress, &quoting)?;
        datapath.run(Hook::Egress, &error(&about, ends))?;
        let found = errors(&mut datapath)?;
        let expected = [(index::HOST, [0, 1], how::BY_ADDRESS), (index::FORWARDED, [1, 0], how::BY_ROUTE)];
        assert_eq!(found, expected, "{}", ends.source);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_error_that_quotes_too_little_belongs_to_its_receiver() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    datapath.controller.add_local(ENDS_4.source, index::HOST)?;
    datapath.controller.add_local(ENDS_6.source, index::HOST)?;
    let about = ENDS_4.udp(30);
    let router = Ends { destination: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), ..ENDS_4 };
    let unknown = icmp_error(11, 0, &about[14..14 + 28]);
    let cut = icmp_error(11, 0, &about[14..14 + 10]);
    let nothing = icmp_error(11, 0, &[]);
    let mut garbage = icmp_error(11, 0, &[0xFF; 60]);
    garbage[8] = 0x4F;
    for message in [&unknown, &cut, &nothing, &garbage] {
        datapath.run(Hook::Ingress, &router.back().frame(ICMP, message))?;
    }
    // An extension chain that does not end.
    let chain = ipv6(
        (address_6(ENDS_6.source), address_6(ENDS_6.destination)),
        60,
        &destination_options(60).repeat(9),
    );
    datapath.run(Hook::Ingress, &ENDS_6.back().frame(ICMPV6, &icmp_error(3, 0, &chain)))?;
    let found = errors(&mut datapath)?;
    assert_eq!(found, [(index::HOST, [5, 0], how::BY_ADDRESS)]);
    Ok(())
}

fn address_6(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_error_is_quoted_behind_tags_too() -> Result<()> {
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    datapath.controller.add_local(ENDS_4.source, index::HOST)?;
    let tagged = |frame: &[u8]| ethernet(&[(0x8100, 7)], 0x0800, &frame[14..]);
    let leaving = Context { ingress_ifindex: INSIDE, ..Context::default() };
    let about = ENDS_4.udp(30);
    datapath.run_with(Hook::Egress, &tagged(&about), leaving)?;
    datapath.run(Hook::Ingress, &tagged(&error(&about, ENDS_4)))?;
    // The same addresses in another network are another flow.
    datapath.run(Hook::Ingress, &error(&about, ENDS_4))?;
    let found = errors(&mut datapath)?;
    let expected = [(index::HOST, [1, 0], how::BY_ADDRESS), (index::FORWARDED, [1, 0], how::BY_ROUTE)];
    assert_eq!(found, expected);
    assert_eq!(datapath.ledger()?.seen, 3);
    Ok(())
}
