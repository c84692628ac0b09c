//! The CPUs of this host, and which slots of the caches are whose: in a cache lie epochs, in them CPUs, in them slots.
//!
//! Only CPUs that are online at the start have slots: a virtual machine may have hundreds that never are. A packet on
//! one without slots is counted in the tables behind the caches, which is slower and as exact.

use std::{fs, io, mem::offset_of, sync::atomic::Ordering};

use collector_ebpf::abi::control::Control;

use crate::kernel::{error::KernelError, memory::SharedArray};

/// How many CPUs there can be: one more than the highest number that the programs can see.
///
/// # Errors
///
/// [`KernelError::Host`].
pub fn possible() -> Result<u32, KernelError> {
    Ok(list("/sys/devices/system/cpu/possible")?.last().map_or(1, |highest| highest + 1))
}

/// The numbers of those that are online, in order.
///
/// # Errors
///
/// [`KernelError::Host`].
pub fn online() -> Result<Vec<u32>, KernelError> {
    list("/sys/devices/system/cpu/online")
}

fn list(path: &str) -> Result<Vec<u32>, KernelError> {
    let fail = |source| KernelError::Host { what: "its CPUs", source };
    let text = fs::read_to_string(path).map_err(fail)?;
    parse(text.trim()).ok_or_else(|| fail(io::ErrorKind::InvalidData.into()))
}

/// Reads a list like `0-3,8`, which is in order.
fn parse(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(all)
}

/// Slots of one of `cpus`, a power of two, so that all of them together have at least `total`.
pub fn slots_of_one(total: u32, cpus: u32) -> u32 {
    total.div_ceil(cpus.max(1)).next_power_of_two().clamp(16, 1 << 24)
}

/// Tells every CPU where its slots begin: those `with_slots` have so many each of the IPv4 and the IPv6 cache.
pub fn give_slots(control: &SharedArray<Control>, with_slots: &[u32], slots_4: u32, slots_6: u32) {
    for cpu in 0..control.len() {
        let rank = with_slots.iter().position(|it| *it as usize == cpu);
        for (offset, slots) in
            [(offset_of!(Control, first_slot_4), slots_4), (offset_of!(Control, first_slot_6), slots_6)]
        {
            if let Some(place) = control.word(cpu, offset) {
                place.store(two_in_one(first_slots(rank, with_slots.len(), slots)), Ordering::Release);
            }
        }
    }
}

/// The first slot, by epoch, of the CPU that is the `rank`th of `cpus` with slots.
fn first_slots(rank: Option<usize>, cpus: usize, slots: u32) -> [u32; 2] {
    let first = |rank: usize| u32::try_from(rank).unwrap_or(u32::MAX).saturating_mul(slots);
    rank.map_or([Control::NO_SLOTS; 2], |rank| [first(rank), first(cpus + rank)])
}

/// Two numbers that lie side by side, as the one word that they make.
fn two_in_one(both: [u32; 2]) -> u64 {
    let mut octets = [0; 8];
    for (into, from) in octets.iter_mut().zip(both.iter().flat_map(|number| number.to_ne_bytes())) {
        *into = from;
    }
    u64::from_ne_bytes(octets)
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::control::Control;

    use super::{first_slots, online, parse, possible, slots_of_one};

    #[test]
    fn lists_as_the_kernel_writes_them() {
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        for wrong in ["", "a", "1-", "0,,2"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn those_of_this_host() {
        let (possible, online) = (possible().unwrap(), online().unwrap());
        assert!(!online.is_empty());
        assert!(online.iter().all(|cpu| *cpu < possible), "{online:?} of {possible}");
    }

    #[test]
    fn no_two_cpus_share_a_slot_in_any_epoch() {
        let mut all: Vec<_> = (0..3).flat_map(|rank| first_slots(Some(rank), 3, 64)).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 64, 128, 192, 256, 320]);
        assert_eq!(first_slots(None, 3, 64), [Control::NO_SLOTS; 2]);
    }

    #[test]
    fn together_they_have_what_was_asked_for() {
        assert_eq!(slots_of_one(1 << 17, 2), 1 << 16);
        assert_eq!(slots_of_one(1000, 3), 512);
        assert_eq!(slots_of_one(1, 64), 16);
        assert_eq!(slots_of_one(1 << 17, 0), 1 << 17);
    }
}
