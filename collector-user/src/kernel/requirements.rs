//! What there must be before anything is loaded: an object of this contract, a kernel that is new enough, privileges; and
//! what the kernel is like.

use std::io;

use ::object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use collector_ebpf::abi;
use rustix::thread::CapabilitySet;

use super::error::KernelError;

/// The oldest supported kernel.
const OLDEST: (u32, u32) = (5, 10);

/// The contract's version that the object was built for must be this program's.
pub(super) fn check_object(bytes: &[u8]) -> Result<(), KernelError> {
    if bytes.is_empty() {
        return Err(KernelError::Stub);
    }
    let fail = |reason| KernelError::Object { reason };
    let object = ::object::File::parse(bytes).map_err(fail)?;
    let missing = KernelError::Missing { what: "symbol", name: "ABI_VERSION" };
    let Some(symbol) = object.symbols().find(|symbol| symbol.name() == Ok("ABI_VERSION")) else {
        return Err(missing);
    };
    let Some(section) = symbol.section_index() else { return Err(missing) };
    let section = object.section_by_index(section).map_err(fail)?;
    let Some(version) = section.data_range(section.address() + symbol.address(), 4).map_err(fail)? else {
        return Err(missing);
    };
    let found = u32::from_le_bytes(version.try_into().map_err(|_length| missing)?);
    if found == abi::VERSION { Ok(()) } else { Err(KernelError::Version { found, expected: abi::VERSION }) }
}

/// The kernel must be one of those that are supported.
fn check_kernel() -> Result<(), KernelError> {
    let release = || rustix::system::uname().release().to_string_lossy().into_owned();
    if kernel_version() < OLDEST { Err(KernelError::KernelTooOld { release: release() }) } else { Ok(()) }
}

/// Major and minor version of the running kernel.
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether programs can be loaded and attached here, as far as that is seen before it is tried: this kernel is not too old, and
/// this process may.
///
/// # Errors
///
/// [`KernelError::KernelTooOld`], [`KernelError::Privilege`].
pub fn check() -> Result<(), KernelError> {
    check_kernel()?;
    check_privileges()
}

/// All that loading and attaching take must be allowed.
fn check_privileges() -> Result<(), KernelError> {
    let held = rustix::thread::capabilities(None)
        .map_err(|error| KernelError::Host { what: "this process's capabilities", source: error.into() })?
        .effective;
    let needed = [
        (CapabilitySet::BPF, "CAP_BPF", "load eBPF programs"),
        (CapabilitySet::PERFMON, "CAP_PERFMON", "let them read what packets point to"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", "attach them to interfaces"),
    ];
    // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as it did before Linux 5.8.
    let covered = if held.contains(CapabilitySet::SYS_ADMIN) {
        held | CapabilitySet::BPF | CapabilitySet::PERFMON
    } else {
        held
    };
    match needed.iter().find(|(capability, ..)| !covered.contains(*capability)) {
        Some((_, capability, purpose)) => Err(KernelError::Privilege { capability, purpose }),
        None => Ok(()),
    }
}

/// Whether this process may lock as much memory as it likes: buffers of perf events count as that (`perf_mmap` in
/// kernel/events/core.c).
pub fn may_lock() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::IPC_LOCK))
}

/// The kernel's HZ: what its coarse clock resolves is one tick (`ktime_get_coarse`, `KTIME_LOW_RES`).
///
/// # Errors
///
/// [`KernelError::Host`].
pub fn ticks_per_second() -> Result<u32, KernelError> {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse).tv_nsec;
    u32::try_from(tick)
        .ok()
        .and_then(|tick| 1_000_000_000_u32.checked_div(tick))
        .ok_or(KernelError::Host { what: "the length of a tick", source: io::ErrorKind::InvalidData.into() })
}

/// Whether softirqs can be preempted here.
pub fn is_preempt_rt() -> bool {
    rustix::system::uname().version().to_string_lossy().contains("PREEMPT_RT")
}
