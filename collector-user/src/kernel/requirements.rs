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

#[cfg(test)]
mod tests {
    use collector_ebpf::abi;

    use super::{KernelError, check_object};

    /// An object that says of itself only which contract it was built for.
    fn object_of(version: u32) -> Vec<u8> {
        // The names of the sections and of the symbol, each with an end.
        let names = b"\0.rodata\0.symtab\0.strtab\0ABI_VERSION\0";
        let mut symbols = vec![0; 24];
        // Its name, global and an object, in the first section, at its beginning, of four octets.
        symbols.extend(25_u32.to_le_bytes());
        symbols.extend([0x11, 0]);
        symbols.extend(1_u16.to_le_bytes());
        symbols.extend([0_u64, 4].map(u64::to_le_bytes).concat());
        let parts: [&[u8]; 3] = [&version.to_le_bytes(), &symbols, names];
        let mut starts = [0_u64; 3];
        let mut octets = Vec::new();
        for (start, part) in starts.iter_mut().zip(parts) {
            octets.resize(octets.len().next_multiple_of(8), 0);
            *start = 64 + octets.len() as u64;
            octets.extend(part);
        }
        octets.resize(octets.len().next_multiple_of(8), 0);
        // ELF of 64 bits, little-endian, to be relocated, for BPF; four sections, the names in the last.
        let mut all = b"\x7FELF\x02\x01\x01".to_vec();
        all.resize(16, 0);
        all.extend([1_u16, 247].map(u16::to_le_bytes).concat());
        all.extend(1_u32.to_le_bytes());
        all.extend([0, 0, 64 + octets.len() as u64].map(u64::to_le_bytes).concat());
        all.extend(0_u32.to_le_bytes());
        all.extend([64_u16, 0, 0, 64, 4, 3].map(u16::to_le_bytes).concat());
        all.extend(&octets);
        all.resize(all.len() + 64, 0);
        // Name, kind; where it lies and how long it is; whose names it has, and from where on they are global; its entries' size.
        let kinds = [(1_u32, 1_u32, 0_u32, 0_u64), (9, 2, 3, 24), (17, 3, 0, 0)];
        for ((name, kind, link, entry), (start, part)) in kinds.into_iter().zip(starts.iter().zip(parts)) {
            all.extend([name, kind].map(u32::to_le_bytes).concat());
            all.extend([0, 0, *start, part.len() as u64].map(u64::to_le_bytes).concat());
            all.extend([link, 1].map(u32::to_le_bytes).concat());
            all.extend([1, entry].map(u64::to_le_bytes).concat());
        }
        all
    }

    #[test]
    fn an_object_of_another_version_is_refused_and_says_which() {
        assert!(check_object(&object_of(abi::VERSION)).is_ok());
        for found in [abi::VERSION - 1, abi::VERSION + 1, 0] {
            let refused = check_object(&object_of(found)).unwrap_err();
            assert!(
                matches!(refused, KernelError::Version { found: it, expected: abi::VERSION } if it == found)
            );
        }
        assert!(matches!(check_object(&[]), Err(KernelError::Stub)));
        assert!(matches!(check_object(b"\x7FELF"), Err(KernelError::Object { .. })));
    }
}
