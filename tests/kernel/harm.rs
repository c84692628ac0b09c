//! What the programs do to the host: nothing that changes a packet, and nothing that the kernel complains of.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    panic,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use anyhow::bail;
use collector_ebpf::abi::pu::Role;
use collector_tests::{
    Result,
    lab::Wire,
    release,
    talk::{self, asker},
    testrun::{Datapath, IFINDEX, own},
    traffic::Host,
};
use collector_user::kernel::{
    attach::{Attachments, Choice, Left, Mechanism},
    filters::Place,
    instructions::instructions,
    settings::Settings,
};

/// The helpers that the programs may call (`__BPF_FUNC_MAPPER`, include/uapi/linux/bpf.h). What is here reads, counts, or
/// tells user space; of a packet nothing is written but its mark, and at XDP what stands before it (`xdp_adjust_meta`). None
/// resizes, cuts, redirects or answers: kernels have crashed on super-packets that a program had resized.
const MAY_CALL: [(i32, &str); 25] = [
    (1, "map_lookup_elem"),
    (2, "map_update_elem"),
    (3, "map_delete_elem"),
    (5, "ktime_get_ns"),
    (8, "get_smp_processor_id"),
    (12, "tail_call"),
    (25, "perf_event_output"),
    (26, "skb_load_bytes"),
    (54, "xdp_adjust_meta"),
    (68, "skb_load_bytes_relative"),
    (69, "fib_lookup"),
    (79, "skb_cgroup_id"),
    (85, "sk_lookup_udp"),
    (86, "sk_release"),
    (99, "skc_lookup_tcp"),
    (111, "skb_output"),
    (113, "probe_read_kernel"),
    (118, "jiffies64"),
    (125, "ktime_get_boot_ns"),
    (130, "ringbuf_output"),
    (131, "ringbuf_reserve"),
    (132, "ringbuf_submit"),
    (133, "ringbuf_discard"),
    (134, "ringbuf_query"),
    (188, "xdp_get_buff_len"),
];

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_programs_call_nothing_that_changes_a_packet() -> Result<()> {
    let found = instructions()?;
    let may = MAY_CALL.map(|(number, _)| number).into();
    assert_eq!(found.helpers, may, "helpers that nobody has looked at, or that nobody calls any more");
    // A word of 64 bits at a multiple of eight octets, which the verifier demands, lies in one cache line.
    assert!(found.atomics > 0 && found.narrow_atomics == 0, "{found:?}");
    Ok(())
}

/// What the kernel says from now on.
struct Log(File);

impl Log {
    fn from_now_on() -> Result<Self> {
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// The lines by which it says that something is wrong with itself.
    fn complaints(mut self) -> Result<Vec<String>> {
        const WORDS: [&str; 6] = ["BUG", "WARNING", "Oops", "Call Trace", "stall", "hung task"];
        let mut complaints = Vec::new();
        // A line each.
        let mut line = [0; 8192];
        loop {
            match self.0.read(&mut line) {
                Ok(length) => {
                    let line = String::from_utf8_lossy(&line[..length]).into_owned();
                    if WORDS.iter().any(|word| line.contains(word)) {
                        complaints.push(line);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(complaints),
                // Lines that were overwritten before they were read: what was in them nobody knows.
                Err(error) => bail!("the kernel's log cannot be read: {error}"),
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn attached_and_taken_off_again_and_again_under_traffic_the_kernel_has_nothing_to_say() -> Result<()> {
    // Each time waits for all that runs to have ended, which is most of it: ten thousand times take too long for every change.
    let times: u64 = std::env::var("ATTACHMENTS").ok().map_or(Ok(300), |times| times.parse())?;
    let wire = Wire::new()?;
    let answering = Host::new(&wire.b, &[])?;
    // While the qdisc of filters is made or goes, the kernel halts the device, and drops what is sent then (`qdisc_graft` in
    // net/sched/sch_api.c): once, and not of our doing. Links of TCX need none.
    wire.a.place.run(&format!("tc qdisc add dev {} clsact", wire.a.dev))?;
    let log = Log::from_now_on()?;
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.remove_role(IFINDEX)?;
    datapath.controller.set_role(Role { ifindex: wire.a.ifindex, ..own() })?;
    let mut mechanisms = vec![Mechanism::Clsact];
    if release::is_at_least(release::TCX) {
        mechanisms.push(Mechanism::Tcx);
    }
    let (together, is_over) = (Barrier::new(2), AtomicBool::new(false));
    let asked = thread::scope(|scope| -> Result<u64> {
        let asking = scope.spawn(|| -> Result<u64> {
            let socket = asker(&wire.a.place, (wire.a.v4, 40_000).into(), talk::answers(&answering, 4))?;
            together.wait();
            let mut asked = 0;
            while !is_over.load(Relaxed) {
                talk::ask(&socket, 10, 100)?;
                asked += 10;
            }
            Ok(asked)
        });
        let mut attaching = || -> Result<()> {
            let _there = wire.a.place.enter()?;
            let place =
                Place { preference: 1, behind_others: false, qdisc_is_ours: false, has_ingress: false };
            let mut attachments = Attachments::default();
            for mechanism in &mechanisms {
                for _ in 0..times {
                    let choice = Choice::Only(*mechanism);
                    let programs = &mut datapath.programs;
                    attachments.attach(programs, wire.a.ifindex, &wire.a.dev, choice, place)?;
                    let left = attachments.detach(programs, wire.a.ifindex, [true; 2]);
                    assert_eq!(left, Left::Nothing, "{mechanism}");
                }
                datapath.renew()?;
            }
            Ok(())
        };
        together.wait();
        let done = attaching();
        is_over.store(true, Relaxed);
        let asked = asking.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        done.map(|()| asked)
    })?;
    // Each question had its answer: none was lost to who came and went.
    let seen = datapath.ledger()?.seen;
    assert!(asked > 0 && seen > 0 && seen <= 2 * asked + 100, "{seen} seen of {asked} questions and answers");
    assert_eq!(log.complaints()?, Vec::<String>::new());
    Ok(())
}
