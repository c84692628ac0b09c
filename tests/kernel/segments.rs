//! A super-packet counts as what it becomes on the wire. The kernel sets both sizes of a test's buffer from its context.

use collector_ebpf::abi::flow::TX;
use collector_tests::{
    Result,
    frames::{
        ACK, C_TAG, ENDS_4, ENDS_6, IPV4, ONE_4, SCTP, TCP, TIMESTAMPS, TWO_4, UDP, ethernet, ipv4, sctp,
        tcp, udp,
    },
    testrun::{Context, Datapath, Hook, NOTHING, UNIT},
};
use collector_user::kernel::settings::Settings;

/// Name, frame, size and number of segments as the kernel says them; the packets, and the octets of headers in each.
type Case = (&'static str, Vec<u8>, u32, u32, u64, u64);

fn cases() -> Vec<Case> {
    let segment = |ends: [u8; 4]| tcp(ends, ACK, &TIMESTAMPS, 3000);
    let four = ENDS_4.frame(TCP, &segment(ENDS_4.ports()));
    let six = ENDS_6.frame(TCP, &segment(ENDS_6.ports()));
    let packet = ipv4((ONE_4, TWO_4), &[], 0x4000, TCP, &segment(ENDS_4.ports()));
    let tagged = ethernet(&[(C_TAG, 29)], IPV4, &packet);
    let options = ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), &[1; 8], 0x4000, TCP, &segment(ENDS_4.ports())));
    let chunks = [sctp(ENDS_4.ports()), vec![0; 100]].concat();
    let mut without_length = four.clone();
    without_length[16..18].fill(0);
    let mut without_length_6 = six.clone();
    without_length_6[18..20].fill(0);
    let datagrams = ENDS_4.frame(UDP, &udp(ENDS_4.ports(), 3000));
    let inside =
        ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), &[], 0x4000, TCP, &tcp(ENDS_4.ports(), ACK, &[], 3000)));
    let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &inside].concat();
    let length = (vxlan.len() as u16 + 8).to_be_bytes();
    let vxlan = [&[0xC0, 0, 0x12, 0xB5, length[0], length[1], 0, 0][..], &vxlan].concat();
    let vxlan = ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), &[], 0, UDP, &vxlan));
    vec![
        ("a packet", four.clone(), 0, 0, 1, 0),
        ("a packet that says so", four.clone(), 0, 1, 1, 0),
        ("TCP", four.clone(), 1448, 3, 3, 66),
        ("TCP, not counted", four.clone(), 1448, 0, 3, 66),
        ("TCP, not counted, an exact multiple", four.clone(), 1000, 0, 3, 66),
        ("TCP, not counted, one octet more", four.clone(), 2999, 0, 2, 66),
        ("TCP, one segment", four, 3000, 1, 1, 66),
        ("TCP with a tag", tagged, 1448, 3, 3, 70),
        ("TCP behind IPv4 options", options, 1448, 3, 3, 74),
        ("TCP over IPv6", six.clone(), 1428, 3, 3, 86),
        ("TCP over IPv6, not counted", six, 1428, 0, 3, 86),
        ("UDP", datagrams, 1000, 3, 3, 42),
        ("VXLAN", vxlan, 1400, 3, 3, 42 + 8 + 14 + 20 + 20),
        ("SCTP by fragments", ENDS_4.frame(SCTP, &chunks), 0xFFFF, 2, 2, 46),
        ("BIG TCP, no length", without_length, 1448, 3, 3, 66),
        ("BIG TCP over IPv6, no length", without_length_6, 1428, 3, 3, 86),
    ]
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_super_packet_counts_as_its_segments_each_with_its_headers() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for (name, frame, gso_size, gso_segs, packets, headers) in cases() {
        let context = Context { gso_size, gso_segs, ..Context::default() };
        // First the cold path, then the steady state.
        for runs in 1..=2 {
            for _ in 0..runs {
                datapath.run_with(Hook::Egress, &frame, context)?;
            }
            let (id, counted) = datapath.drain_one()?;
            let bytes = runs * (frame.len() as u64 + (packets - 1) * headers);
            assert_eq!(
                (counted.packets[TX], counted.bytes[TX], counted.skbs[TX], counted.pu),
                (runs * packets, bytes, runs, UNIT),
                "{name}, {runs} runs"
            );
            assert_eq!(datapath.unit(UNIT)?.flowless, NOTHING, "{name}");
            datapath.begin_anew(&[(id, counted)].into())?;
        }
    }
    Ok(())
}
