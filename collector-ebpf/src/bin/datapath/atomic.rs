//! The kernel's atomic add, which `AtomicU64` does not offer on this target.

/// Adds `value` to the 64-bit number at `target`, atomically against every other CPU. The old value is not
/// used: Linux 5.10 has no instruction that returns it.
///
/// # Safety
///
/// `target` points to a live, 8-aligned number in a map value.
#[inline(always)]
pub(crate) unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller's promise is the intrinsic's requirement.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            target, value,
        );
    }
    // SAFETY: the caller's promise is AtomicU64's requirement.
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(target)
            .fetch_add(value, core::sync::atomic::Ordering::Relaxed);
    }
}
