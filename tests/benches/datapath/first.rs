//! The first packet of a flow, with everything on: addresses of this host, a thousand declared ranges, a mark, sockets
//! that wait, routes, and a record for user space; without and with the control groups of sockets, which are known.
//!
//! Measured in two ways. *In a row*: thousands of new flows in one call, each its own (see [`walk`]); this
//! is what a flood of them costs. *Alone*: one packet in a call of its own, the median over many; such a figure holds what is
//! no longer in the processor's caches, and the reading of the clock, which that of `empty` holds too.
//!
//! In the rows without a flood there is room for the new flow: its slot is free, and newcomers are not yet as many as are
//! remembered. In a flood every slot is taken, so that another flow's counts move to the table first, and a newcomer is
//! forgotten for each that comes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
};

use collector_ebpf::abi::pu::index;
use collector_tests::{
    Result,
    cgroups::Cgroup,
    frames::{ACK, Ends, SYN},
    measure::median,
    netns::NetNs,
    testrun::{Datapath, Hook, UNIT, uplink},
};
use collector_user::kernel::settings::Settings;

use crate::{
    HERE, PORT, ends, settings,
    walk::{self, Written},
};

/// New flows in a row.
const IN_A_ROW: u32 = 2_048;
/// New flows alone, in each round.
const ALONE: u32 = 128;
/// New flows that fill the slots and the newcomers' table before a flood is measured.
const FLOOD: u32 = 1 << 17;
/// Declared ranges of each family.
const RANGES: u16 = 1_000;

struct Case {
    name: &'static str,
    hook: Hook,
    frame: Vec<u8>,
    written: Written,
    is_flood: bool,
}

fn cases() -> [Case; 8] {
    let here = |name, version, frame| Case {
        name,
        hook: Hook::Ingress,
        frame,
        written: Written::Source(version),
        is_flood: false,
    };
    let leaving = |name, version: u8, frame| Case {
        hook: Hook::Egress,
        written: Written::Destination(version),
        ..here(name, version, frame)
    };
    // Of the first range.
    let behind = Ends { destination: IpAddr::from([10, 200, 0, 9]), ..ends(4) };
    [
        here("TCP SYN/IPv4, to a listener here", 4, ends(4).tcp(SYN, 0)),
        here("TCP SYN/IPv6, to a listener here", 6, ends(6).tcp(SYN, 0)),
        here("TCP/IPv4 met midway, to a listener here", 4, ends(4).tcp(ACK, 10)),
        here("UDP/IPv4, to a socket here", 4, ends(4).udp(22)),
        here("TCP SYN/IPv4, to a declared unit behind", 4, behind.tcp(SYN, 0)),
        leaving("TCP SYN/IPv4, leaving", 4, ends(4).back().tcp(SYN, 0)),
        leaving("TCP SYN/IPv6, leaving", 6, ends(6).back().tcp(SYN, 0)),
        Case { is_flood: true, ..here("TCP SYN/IPv4, to a listener here, flood", 4, ends(4).tcp(SYN, 0)) },
    ]
}

fn load(group: Option<&Cgroup>) -> Result<Datapath> {
    let mut datapath = crate::load(&Settings { table_4: 1 << 18, ring: 1 << 24, ..settings() }, group)?;
    // A unit with a name, so that there is a mark to write.
    datapath.controller.set_role(uplink(UNIT, 0))?;
    for address in HERE {
        datapath.controller.add_local(address, index::HOST)?;
    }
    for number in 0..RANGES {
        let [high, low] = number.to_be_bytes();
        // As many units as one chunk of counters has.
        let unit = UNIT + number % (256 - index::FIRST);
        datapath.controller.add_range(Ipv4Addr::new(10, 200 + high, low, 0).into(), 24, unit)?;
        datapath.controller.add_range(Ipv6Addr::new(0xFD77, 200, number, 0, 0, 0, 0, 0).into(), 64, unit)?;
    }
    Ok(datapath)
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    let group = Cgroup::unique()?;
    // What the kernel tries a program on has a socket of this process.
    let _inside = group.enter()?;
    for group in [None, Some(&group)] {
        run_with(rounds, group)?;
    }
    Ok(())
}

fn run_with(rounds: usize, group: Option<&Cgroup>) -> Result<()> {
    let namespace = NetNs::new()?;
    let place = namespace.place();
    place.sysctl(&[("ipv4/conf/all/forwarding", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    place.ip("route add 10.200.0.0/14 dev lo")?;
    let _there = place.enter()?;
    let _sockets = (TcpListener::bind(("::", PORT))?, UdpSocket::bind(("::", PORT))?);
    let mut datapath = load(group)?;
    let cases = cases();
    let mut figures = BTreeMap::<(usize, &str), Vec<f64>>::new();
    // No flow comes twice.
    let mut next = 1..;
    for _ in 0..rounds {
        for (number, case) in cases.iter().enumerate() {
            let counting = match case.hook {
                Hook::Ingress => "walk_ingress",
                Hook::Egress => "walk_egress",
            };
            if case.is_flood {
                row(&mut datapath, counting, case, FLOOD, &mut next)?;
            }
            for (name, program) in [("empty", "walk_empty"), ("floor", "walk_floor"), ("counting", counting)]
            {
                let ns = row(&mut datapath, program, case, IN_A_ROW, &mut next)?;
                figures.entry((number, name)).or_default().push(ns);
            }
            for (name, program) in [("alone empty", "walk_empty"), ("alone", counting)] {
                let mut all = Vec::new();
                for _ in 0..ALONE {
                    all.push(row(&mut datapath, program, case, 1, &mut next)?);
                }
                figures.entry((number, name)).or_default().push(median(&mut all));
            }
            // Forgets them: only a flood has to make room for itself.
            let drained = datapath.drain()?;
            datapath.begin_anew(&drained)?;
        }
    }
    println!(
        "\nThe first packet of a flow, everything on, {} control groups, ns over an empty program that writes the flow \
         into the frame",
        if group.is_some() { "with" } else { "without" }
    );
    println!("{:<42} {:>8} {:>9} {:>12} {:>8}", "first packet", "floor", "in a row", "of floor's", "alone");
    for (number, case) in cases.iter().enumerate() {
        let mut of = |name| figures.get_mut(&(number, name)).map_or(f64::NAN, |ns| median(ns));
        let (floor, counting) = (of("floor") - of("empty"), of("counting") - of("empty"));
        let alone = of("alone") - of("alone empty");
        println!("{:<42} {floor:>8.0} {counting:>9.0} {:>12.2} {alone:>8.0}", case.name, counting / floor);
    }
    Ok(())
}

/// Runs a program on a packet each of `count` new flows.
fn row(
    datapath: &mut Datapath,
    program: &'static str,
    case: &Case,
    count: u32,
    next: &mut std::ops::RangeFrom<u32>,
) -> Result<f64> {
    datapath.renew()?;
    walk::lay(datapath, next.take(count as usize).map(|number| walk::flow(number, case.written)))?;
    walk::begin(datapath, case.written)?;
    crate::run(datapath, program, &case.frame, count)
}
