//! The packet filter in the programs: what it makes of a frame is what its interpreter makes of it in user space, and what
//! libpcap does where that is at hand.

use anyhow::Context as _;
use aya::programs::{TcAttachType, tc};
use collector_ebpf::{
    abi::{
        filter::{Instruction, MOST_INSTRUCTIONS, Machine},
        packet::link,
        pu::role,
    },
    filter::{self, code},
    wire::Link,
};
use collector_tests::{
    Result,
    filters::{self, BEYOND_BEHIND_TAG},
    frames::{C_TAG, ENDS_4, IPV4, S_TAG, SYN, UDP, ethernet_between, ipv4, udp},
    generated,
    lab::Wire,
    testrun::{Datapath, own},
    traffic::{Host, PacketSocket, pin, settle},
};
use collector_user::{
    host::pcap::Filter,
    kernel::{programs::FILTER_PROBE, settings::Settings},
};
use proptest::{
    collection,
    prelude::any,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

/// Frames that each filter sees.
const FRAMES: usize = 200;
/// The kernel runs no program on a frame of less than an Ethernet header, or on one of IP without an IP header.
const SHORTEST: usize = 14 + 40;

fn settings(filter: Option<Filter>) -> Settings {
    Settings { filter, reference_programs: true, ..Settings::default() }
}

/// Frames of a kind, some of them longer than the window.
fn frames(link: Link) -> Result<Vec<Vec<u8>>> {
    let mut runner = TestRunner::deterministic();
    let choices = (collection::vec(any::<u8>(), 0..60), 0..4_usize, 0..400_usize);
    let mut all = filters::frames();
    if link == Link::RawIp {
        all = all.into_iter().map(|frame| frame[14..].to_vec()).collect();
    }
    all.retain(|frame| frame.len() >= SHORTEST);
    while all.len() < FRAMES {
        let (choices, longer, by) = choices.new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
        let (found, mut frame) = generated::frame(&choices);
        if longer == 0 {
            frame.extend((0..by).map(|at| at as u8));
        }
        if found == link && frame.len() >= SHORTEST {
            all.push(frame);
        }
    }
    Ok(all)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_programs_want_what_libpcap_wants() -> Result<()> {
    let recorded = filters::recorded()?;
    let mut datapath = Datapath::load(&settings(recorded.first().cloned()))?;
    let [mut wanted, mut beyond] = [0_u64; 2];
    for (frames_of, number, flags) in
        [(Link::Ethernet, link::ETHERNET, 0), (Link::RawIp, link::RAW_IP, role::RAW_IP)]
    {
        let frames = frames(frames_of)?;
        let mut role = own();
        role.flags |= flags;
        datapath.controller.set_role(role)?;
        for filter in &recorded {
            datapath.controller.set_filter(filter)?;
            let library = library(filter, frames_of)?;
            let program = filter.program(number);
            let mut machine = Machine::default();
            for frame in &frames {
                let before = machine.beyond;
                let already = datapath.filter_window()?;
                machine.show(frame, u32::try_from(frame.len())?);
                let want = filter::run(&program, &mut machine) != 0;
                let found = datapath.probe(frame)?;
                let what = || format!("{:?} on {frames_of:?} {frame:02x?}", filter.expression());
                assert_eq!(found, want, "{}", what());
                assert_eq!(datapath.filter_window()? - already, machine.beyond - before, "{}", what());
                if let Some(library) = &library
                    && machine.beyond == before
                {
                    assert_eq!(found, library(frame), "libpcap: {}", what());
                }
                wanted += u64::from(want);
            }
            beyond += machine.beyond;
        }
    }
    assert!(wanted > 100 && beyond > 100, "{wanted} were wanted, {beyond} asked beyond the window");
    Ok(())
}

/// A verdict.
type Judge = Box<dyn Fn(&[u8]) -> bool>;

/// libpcap's own verdict; `None` where the expression has no meaning, and in guests, which have no libpcap.
#[cfg(not(target_feature = "crt-static"))]
fn library(filter: &Filter, link: Link) -> Result<Option<Judge>> {
    use collector_user::host::pcap::{self, Compiled};
    if link == Link::RawIp && !filter.knows_raw_ip() {
        return Ok(None);
    }
    let link = if link == Link::RawIp { pcap::Link::RawIp } else { pcap::Link::Ethernet };
    let compiled = Compiled::new(filter.expression(), link)?;
    Ok(Some(Box::new(move |frame| compiled.verdict(frame, frame.len() as u32) != 0)))
}

#[cfg(target_feature = "crt-static")]
#[expect(clippy::unnecessary_wraps, reason = "where there is a library it may fail")]
fn library(_filter: &Filter, _link: Link) -> Result<Option<Judge>> {
    Ok(None)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_a_filter_every_packet_is_wanted() -> Result<()> {
    let mut datapath = Datapath::load(&settings(None))?;
    for frame in frames(Link::Ethernet)? {
        assert!(datapath.probe(&frame)?, "{frame:02x?}");
    }
    assert_eq!(datapath.filter_window()?, 0);
    Ok(())
}

/// The programs run an instruction after the other in turns: where one ends and the next begins must not matter.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn programs_of_every_length_run_to_their_ends() -> Result<()> {
    let of = |code: u32, jt, jf, k| Instruction { code: code as u16, jt, jf, k };
    let more = of(code::ALU | code::ADD | code::K, 0, 0, 1);
    let mut datapath = Datapath::load(&settings(Some(filters::of("ip")?)))?;
    let frame = ENDS_4.tcp(SYN, 10);
    for length in (4..70).chain([511, 512, 513, 514, 2049, MOST_INSTRUCTIONS - 1, MOST_INSTRUCTIONS]) {
        // The accumulator has one for each instruction before the last three; one more or less is no match.
        let counts = u32::try_from(length - 3)?;
        for (sum, matches) in [(counts - 1, false), (counts, true), (counts + 1, false)] {
            let mut program = vec![more; length - 3];
            program.push(of(code::JMP | code::JEQ | code::K, 0, 1, sum));
            program.extend([of(code::RET | code::K, 0, 0, 1), of(code::RET | code::K, 0, 0, 0)]);
            datapath.controller.set_filter(&Filter::of("counts", &program, None)?)?;
            assert_eq!(datapath.probe(&frame)?, matches, "{length} instructions, {sum}");
        }
    }
    // One that has no end ends, and the one after it runs from its own beginning.
    datapath.controller.set_filter(&Filter::of("no end", &vec![more; MOST_INSTRUCTIONS], None)?)?;
    assert!(!datapath.probe(&frame)?);
    datapath.controller.set_filter(&filters::of("ip")?)?;
    assert!(datapath.probe(&frame)?);
    Ok(())
}

/// What comes in has its first tag beside it, whoever sent it. The expression reads beyond the window, which is counted,
/// where the tag, the addresses behind it and the ports all are in their places.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_tag_beside_the_frame_is_in_the_window() -> Result<()> {
    const COUNT: u64 = 7;
    const PORTS: [u8; 4] = [0x9C, 0x40, 0x13, 0x89];
    const PORT: u16 = 5001;
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[PORT])?;
    let mut datapath = Datapath::load(&settings(Some(filters::of(BEYOND_BEHIND_TAG)?)))?;
    let _attached = wire.b.place.within(|| {
        // Where there is TCX, no qdisc is needed.
        let _ = tc::qdisc_add_clsact(&wire.b.dev);
        let program = datapath.programs.classifier(FILTER_PROBE)?;
        let link = program.attach(&wire.b.dev, TcAttachType::Ingress)?;
        program.take_link(link).context("the probe is not attached")
    })?;
    let frame = |tags: &[(u16, u16)], length| {
        let packet = ipv4((wire.a.v4, wire.b.v4), &[], 0x4000, UDP, &udp(PORTS, length));
        ethernet_between(wire.a.mac, wire.b.mac, tags, IPV4, &packet)
    };
    pin(0)?;
    let socket = PacketSocket::new(&wire.a)?;
    for (tags, length, counted) in [
        (&[(C_TAG, 0x401D)][..], 300, COUNT),
        (&[(C_TAG, 30)], 300, 0),
        (&[(C_TAG, 29)], 200, 0),
        (&[], 300, 0),
        (&[(C_TAG, 29), (C_TAG, 5)], 300, 0),
        // libpcap takes 802.1ad for a tag as well.
        (&[(S_TAG, 29)], 300, COUNT),
    ] {
        let before = datapath.filter_window()?;
        let frame = frame(tags, length);
        for _ in 0..COUNT {
            socket.send(&frame)?;
        }
        settle(&wire.a, &host)?;
        assert_eq!(datapath.filter_window()? - before, counted, "{tags:x?}, {length} octets");
    }
    Ok(())
}
