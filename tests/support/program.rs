//! Programs of others on an interface or a cgroup: a few instructions that drop packets, send them elsewhere, or let them pass.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for what these tests need")]

use std::{
    fs::File,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, ensure};

use crate::{Result, lab::End};

/// Where the program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Generic XDP: behind the driver, on a socket buffer.
    Xdp,
    /// The same, and every packet passes.
    PassingXdp,
    /// TCX at the ingress (Linux 6.6).
    TcIngress,
    /// TCX at the egress.
    TcEgress,
}

/// A program on an interface, for as long as this lives.
#[derive(Debug)]
pub struct Dropping {
    _link: OwnedFd,
}

const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const TC_ACT_SHOT: i32 = 2;
const XDP_FLAGS_SKB_MODE: u32 = 2;

impl Dropping {
    /// Drops every packet at `end`.
    pub fn at(end: &End, hook: Hook) -> Result<Self> {
        let (kind, verdict) = match hook {
            Hook::Xdp => (PROG_TYPE_XDP, XDP_DROP),
            Hook::PassingXdp => (PROG_TYPE_XDP, XDP_PASS),
            Hook::TcIngress | Hook::TcEgress => (PROG_TYPE_SCHED_CLS, TC_ACT_SHOT),
        };
        Self::attach(end, hook, &load(kind, verdict)?)
    }

    /// Drops at generic XDP the frames at `end` that bring a datagram to this port, over IPv4 without options, and nothing else.
    pub fn datagrams_to(end: &End, port: u16) -> Result<Self> {
        Self::taking(end, port, &[0xB7 | (XDP_DROP as u64) << 32])
    }

    /// Sends them back by the interface that they came by, past its queue.
    pub fn redirecting(end: &End, port: u16) -> Result<Self> {
        /// The helper `bpf_redirect`, of an interface and flags; what it returns is the verdict.
        const REDIRECT: u64 = 23;
        // r1 = interface; r2 = 0; call
        let ifindex = u64::from(end.ifindex);
        Self::taking(end, port, &[0xB7 | 1 << 8 | ifindex << 32, 0xB7 | 2 << 8, 0x85 | REDIRECT << 32])
    }

    /// Runs this code, after which the verdict is in r0, for such frames at generic XDP; the others pass.
    fn taking(end: &End, port: u16, taken: &[u64]) -> Result<Self> {
        /// Where in such a frame the port of its receiver stands.
        const PORT: u64 = 14 + 20 + 2;
        let port = u64::from(u16::from_ne_bytes(port.to_be_bytes()));
        let mut code = vec![
            // r2 = data; r3 = data_end; r4 = r2 + what is read; if r4 > r3 goto pass
            0x61 | 2 << 8 | 1 << 12,
            0x61 | 3 << 8 | 1 << 12 | 4 << 16,
            0xBF | 4 << 8 | 2 << 12,
            0x07 | 4 << 8 | (PORT + 2) << 32,
            0x2D | 4 << 8 | 3 << 12 | 2 << 16,
            // r5 = port; if r5 == port goto taken; pass: r0 = pass; exit; taken:
            0x69 | 5 << 8 | 2 << 12 | PORT << 16,
            0x15 | 5 << 8 | 2 << 16 | port << 32,
            0xB7 | (XDP_PASS as u64) << 32,
            0x95,
        ];
        code.extend(taken);
        code.push(0x95);
        Self::attach(end, Hook::Xdp, &load_code(PROG_TYPE_XDP, &mut code)?)
    }

    fn attach(end: &End, hook: Hook, program: &OwnedFd) -> Result<Self> {
        let (attach, flags) = match hook {
            Hook::Xdp | Hook::PassingXdp => (37_u64, XDP_FLAGS_SKB_MODE),
            Hook::TcIngress => (46, 0),
            Hook::TcEgress => (47, 0),
        };
        let link = [
            program.as_raw_fd() as u64 | u64::from(end.ifindex) << 32,
            attach | u64::from(flags) << 32,
            0,
            0,
        ];
        let link = end.place.within(|| call(LINK_CREATE, &link))?;
        Ok(Self { _link: link })
    }
}

/// A program that drops all that the sockets of a cgroup send, and is the only one there: the way in which service managers
/// have a firewall for each service. Taken off when this is dropped.
#[derive(Debug)]
pub struct Firewall {
    cgroup: File,
    program: OwnedFd,
}

const PROG_ATTACH: i64 = 8;
const PROG_DETACH: i64 = 9;
const PROG_QUERY: i64 = 16;
const PROG_TYPE_CGROUP_SKB: u32 = 8;
const CGROUP_INET_INGRESS: u64 = 0;
const CGROUP_INET_EGRESS: u64 = 1;
const QUERY_EFFECTIVE: u64 = 1;

impl Firewall {
    /// Puts it on the cgroup of this directory. It tolerates none above it or beside it.
    pub fn on(cgroup: &Path) -> Result<Self> {
        let firewall = Self { cgroup: File::open(cgroup)?, program: load(PROG_TYPE_CGROUP_SKB, 0)? };
        bpf(PROG_ATTACH, &mut firewall.attributes())?;
        Ok(firewall)
    }

    /// How many programs run for what the sockets of a cgroup receive and send, those above it included.
    pub fn count(cgroup: &Path) -> Result<[u32; 2]> {
        let cgroup = File::open(cgroup)?;
        let count = |kind: u64| -> Result<u32> {
            // The numbers of as many are not asked for.
            let mut query = [cgroup.as_raw_fd() as u64 | kind << 32, QUERY_EFFECTIVE, 0, 0];
            bpf(PROG_QUERY, &mut query)?;
            let [.., count] = query;
            Ok(count as u32)
        };
        Ok([count(CGROUP_INET_INGRESS)?, count(CGROUP_INET_EGRESS)?])
    }

    fn attributes(&self) -> [u64; 2] {
        [self.cgroup.as_raw_fd() as u64 | (self.program.as_raw_fd() as u64) << 32, CGROUP_INET_EGRESS]
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let _ = bpf(PROG_DETACH, &mut self.attributes());
    }
}

const PROG_TEST_RUN: i64 = 10;
const MAP_GET_FD_BY_ID: i64 = 14;
const OBJ_GET_INFO_BY_FD: i64 = 15;

/// By what records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// A ring of all CPUs.
    Ring,
    /// A perf buffer of each CPU.
    Perf,
}

/// Writes a record of somebody else's into a ring, or into this CPU's buffer: that of the newest map of this name (of 15 letters at
/// most) that this process has. So many octets, all alike.
pub fn write_record(by: Records, name: &str, octets: u16, octet: u8) -> Result<()> {
    const RINGBUF_OUTPUT: u64 = 130;
    const PERF_EVENT_OUTPUT: u64 = 25;
    const CURRENT_CPU: u64 = 0xFFFF_FFFF;
    let map = newest_map(name)?;
    let words = u64::from(octets.div_ceil(8));
    let word = u64::from(u32::from_ne_bytes([octet; 4]));
    let mut code = Vec::new();
    for at in 1..=words {
        // *(u64 *)(r10 - 8 * at) = word
        let offset = u64::from((8 * at as u16).wrapping_neg());
        code.push(0x7A | 10 << 8 | offset << 16 | word << 32);
    }
    let number = |register: u64, number: u64| 0xB4 | register << 8 | number << 32;
    // What refers to a map by its descriptor takes two.
    let map_in = |register: u64| [0x18 | register << 8 | 1 << 12 | (map.as_raw_fd() as u64) << 32, 0];
    // register = r10; register += -8 * words
    let below = u64::from((8 * words as u32).wrapping_neg());
    let octets_in = |register: u64| [0xBF | register << 8 | 10 << 12, 0x07 | register << 8 | below << 32];
    let function = match by {
        // The ring, the octets, how many, no flags.
        Records::Ring => {
            code.extend(map_in(1));
            code.extend(octets_in(2));
            code.extend([number(3, octets.into()), number(4, 0)]);
            RINGBUF_OUTPUT
        }
        // The context, which is where it was, the map, whose buffer, the octets, how many.
        Records::Perf => {
            code.extend(map_in(2));
            code.push(number(3, CURRENT_CPU));
            code.extend(octets_in(4));
            code.push(number(5, octets.into()));
            PERF_EVENT_OUTPUT
        }
    };
    // Call it, and return 0.
    code.extend([0x85 | function << 32, 0xB7, 0x95]);
    let program = load_code(PROG_TYPE_SCHED_CLS, &mut code)?;
    let frame = [0_u8; 64];
    // Descriptor, what came of it; lengths of what goes in and comes out; where the one is, and the other; once.
    let mut run = [program.as_raw_fd() as u64, frame.len() as u64, frame.as_ptr() as u64, 0, 1, 0, 0, 0];
    bpf(PROG_TEST_RUN, &mut run)?;
    Ok(())
}

/// The newest map of this name that this process has.
fn newest_map(name: &str) -> Result<OwnedFd> {
    /// Where in what the kernel says of a map its number stands, and where its name.
    const ID: std::ops::Range<usize> = 4..8;
    const NAME: std::ops::Range<usize> = 24..40;
    let mut found: Option<(u32, OwnedFd)> = None;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // The one that the folder itself is read by has gone by then.
        let is_map = std::fs::read_link(&path).is_ok_and(|to| to.as_os_str() == "anon_inode:bpf-map");
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        let Some(number) = number.filter(|_| is_map) else { continue };
        let mut info = [0_u8; 88];
        let mut asked = [number as u64 | (info.len() as u64) << 32, info.as_mut_ptr() as u64];
        bpf(OBJ_GET_INFO_BY_FD, &mut asked)?;
        let said = info[NAME].split(|octet| *octet == 0).next().unwrap_or_default();
        let id = u32::from_ne_bytes(info[ID].try_into()?);
        if said == name.as_bytes() && found.as_ref().is_none_or(|(newest, _)| *newest < id) {
            found = Some((id, call(MAP_GET_FD_BY_ID, &[u64::from(id), 0])?));
        }
    }
    found.map(|(_, map)| map).with_context(|| format!("this process has no map named {name}"))
}

/// A program that answers every packet with the same verdict.
fn load(kind: u32, verdict: i32) -> Result<OwnedFd> {
    // r0 = verdict; exit
    load_code(kind, &mut [0xB7_u64 | (verdict as u64) << 32, 0x95])
}

fn load_code(kind: u32, code: &mut [u64]) -> Result<OwnedFd> {
    // What writes to perf buffers is for programs under the GPL.
    let licence = c"Dual MIT/GPL";
    let load = [
        u64::from(kind) | (code.len() as u64) << 32,
        code.as_mut_ptr() as u64,
        licence.as_ptr() as u64,
        0,
        0,
        0,
    ];
    call(PROG_LOAD, &load)
}

fn call(command: i64, attributes: &[u64]) -> Result<OwnedFd> {
    let descriptor = bpf(command, &mut attributes.to_vec())?;
    // SAFETY: a descriptor that comes back is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn bpf(command: i64, attributes: &mut [u64]) -> Result<i32> {
    // SAFETY: the attributes are as long as is said, and what they point to lives until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    ensure!(result >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    Ok(result as i32)
}
