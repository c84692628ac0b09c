//! Templates of inner maps.

use core::ptr;

use aya_ebpf::{
    bindings::bpf_map_type,
    btf_maps::{HashMap, PerCpuArray},
};

/// A hash.
pub(crate) const HASH: usize = bpf_map_type::BPF_MAP_TYPE_HASH as usize;
/// A per-CPU array.
pub(crate) const PERCPU_ARRAY: usize = bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as usize;

/// The template of an inner map: a size for its key and its value, no type.
///
/// User space creates inner maps without type information. Linux 5.15 to 6.1 refuse them beside a template that has
/// some, even if it says nothing that matters (`timer_off` in `bpf_map_meta_equal`).
#[repr(C)]
pub(crate) struct Untyped<const TYPE: usize, const KEY: usize, const VALUE: usize, const ENTRIES: usize> {
    r#type: *const [i32; TYPE],
    key_size: *const [i32; KEY],
    value_size: *const [i32; VALUE],
    max_entries: *const [i32; ENTRIES],
    map_flags: *const [i32; 0],
}

impl<const KEY: usize, const VALUE: usize> Untyped<HASH, KEY, VALUE, 1> {
    /// The map with its types, which the caller knows.
    #[inline(always)]
    pub(crate) fn hash<K, V>(&self) -> &HashMap<K, V, 1> {
        const { assert!(size_of::<K>() == KEY && size_of::<V>() == VALUE) };
        // SAFETY: both stand for the kernel's map, of which only the address is used.
        unsafe { &*ptr::from_ref(self).cast() }
    }
}

impl<const VALUE: usize, const ENTRIES: usize> Untyped<PERCPU_ARRAY, 4, VALUE, ENTRIES> {
    /// The map with its types, which the caller knows.
    #[inline(always)]
    pub(crate) fn per_cpu_array<V>(&self) -> &PerCpuArray<V, ENTRIES> {
        const { assert!(size_of::<V>() == VALUE) };
        // SAFETY: both stand for the kernel's map, of which only the address is used.
        unsafe { &*ptr::from_ref(self).cast() }
    }
}
