//! Programs of others on an interface: two instructions that drop every packet, or let it pass.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for what these tests need")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::ensure;

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
        // r0 = verdict; exit
        let mut code = [0xB7_u64 | (verdict as u64) << 32, 0x95];
        let licence = c"MIT";
        let load = [
            u64::from(kind) | (code.len() as u64) << 32,
            code.as_mut_ptr() as u64,
            licence.as_ptr() as u64,
            0,
            0,
            0,
        ];
        let program = call(PROG_LOAD, &load)?;
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

fn call(command: i64, attributes: &[u64]) -> Result<OwnedFd> {
    // SAFETY: the attributes are as long as is said, and what they point to lives until the call returns.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    ensure!(descriptor >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    // SAFETY: a descriptor that comes back is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
