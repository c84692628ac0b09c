//! Sums over records are the totals of what was counted, whatever happens meanwhile: news that come early, late or never,
//! ends, the same ports again, intervals, silence, a table that is full.

use crate::nobody;
use collector_ebpf::{
    abi::{
        flow::{how, ports},
        report::kind,
    },
    wire::tcp::{ACK, FIN, RST, SYN},
};
use collector_user::{
    aggregate::{flow::Flow, flows::Flows, lives::Lives},
    drain::{
        decode::FlowNews,
        flow::{FlowDelta, FlowId},
    },
};

const SECOND: u64 = 1_000_000_000;

/// A sequence of numbers that is the same in every run (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Packets and octets each way, connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum([u64; 5]);

impl Sum {
    fn add(&mut self, packets: [u64; 2], bytes: [u64; 2], begun: u64) {
        let all = [packets[0], packets[1], bytes[0], bytes[1], begun];
        for (into, from) in self.0.iter_mut().zip(all) {
            *into += from;
        }
    }
}

fn add(into: &mut [u64; 2], packets: [u64; 2]) {
    for (into, packets) in into.iter_mut().zip(packets) {
        *into += packets;
    }
}

#[test]
fn no_order_of_events_loses_a_packet_or_tells_one_twice() {
    for seed in 0..2_000 {
        let mut numbers = Numbers(seed);
        let lives = Lives {
            report: 2 * SECOND,
            ended: SECOND,
            tcp: 20 * SECOND,
            other: 4 * SECOND,
            icmp: 3 * SECOND,
            at_once: usize::MAX,
            undecided: SECOND,
        };
        let most = 1 + numbers.below(4) as usize;
        let mut flows = Flows::new(lives, most);
        let (mut counted, mut told) = (Sum::default(), Sum::default());
        // By unit: what the records say.
        let mut told_of = [[0; 2]; 3];
        let mut emit = |_: &FlowId, flow: &Flow| {
            told.add(flow.packets, flow.bytes, flow.begun);
            add(&mut told_of[usize::from(flow.pu)], flow.packets);
        };
        let mut history = Vec::new();
        let mut now = SECOND;
        for _ in 0..30 {
            now += numbers.below(SECOND);
            let id = FlowId {
                local: [10, 0, 0, 1].into(),
                remote: [10, 0, 0, 2].into(),
                local_port: 40_000,
                remote_port: numbers.below(3) as u16,
                boundary: 0,
                protocol: [6, 6, 17, 1][numbers.below(4) as usize],
                ports: ports::TRANSPORT,
            };
            match numbers.below(6) {
                0..=2 => {
                    let mut number = || numbers.below(4);
                    let packets = [number(), number() + 1];
                    let flags = [0, ACK, SYN | ACK, FIN | ACK, RST];
                    let mut flag = || flags[numbers.below(5) as usize];
                    let tcp_flags = if id.protocol == 6 { [flag(), flag()] } else { [0; 2] };
                    let begun = numbers.below(2);
                    // Each flow is decided for one unit, or guessed to be that unit's, now and then.
                    let pu = 1 + id.remote_port % 2;
                    let provisional = numbers.below(2) as u8 * how::PROVISIONAL;
                    let delta = FlowDelta {
                        id,
                        bytes: packets.map(|packets| packets * 60),
                        packets,
                        skbs: packets,
                        begun,
                        first: 0,
                        last: 0,
                        pu,
                        interface: 1,
                        tcp_flags,
                        how: how::LOCAL_INITIATED | provisional,
                        host_pu: 0,
                        verdict: 0,
                        rejected: [0; 2],
                    };
                    history.push(format!("{now}: add {delta:?}"));
                    counted.add(delta.packets, delta.bytes, delta.begun);
                    flows.add(&delta, now, now, &nobody, &mut emit);
                }
                3 | 4 => {
                    let kinds = [
                        kind::START,
                        kind::START,
                        kind::END_FIN,
                        kind::END_RESET_LOCAL,
                        kind::END_RESET_REMOTE,
                    ];
                    let kind = kinds[numbers.below(5) as usize];
                    let boot_ns = now - numbers.below(SECOND);
                    let news = FlowNews {
                        id,
                        boot_ns,
                        pu: 1 + id.remote_port % 2,
                        interface: 1,
                        kind,
                        how: how::LOCAL_INITIATED,
                        host_pu: 0,
                        user: None,
                    };
                    history.push(format!("{now}: learn {news:?}"));
                    flows.learn(&news, &nobody, &mut emit);
                }
                _ => {
                    let drained = now - numbers.below(SECOND);
                    history.push(format!("{now}: settle, drained {drained}"));
                    flows.settle(now, drained, &nobody, &mut emit);
                }
            }
        }
        flows.cut_off(&nobody, &mut emit);
        flows.cut_off(&nobody, &mut emit);
        for pu in [1, 2] {
            let given = flows.credits().of(pu).boundary.map(|direction| direction.packets);
            assert_eq!(given, told_of[usize::from(pu)], "seed {seed}, unit {pu}: {history:#?}");
        }
        assert_eq!(told, counted, "seed {seed}, at most {most} flows: {history:#?}");
    }
}
