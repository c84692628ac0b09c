//! Batched access to hash maps, which aya does not offer: one system call for thousands of entries.
#![expect(
    unsafe_code,
    reason = "aya 0.14 has no batch calls; this is the one place that speaks bpf(2) itself"
)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _},
};

use aya::Pod;

/// `bpf_attr` of the batch commands (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
#[expect(clippy::struct_field_names, reason = "the kernel's own names")]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `bpf_attr` of the commands on single entries.
#[repr(C)]
#[derive(Default)]
struct Single {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const LOOKUP_ONE: libc::c_long = 1;
const UPDATE_ONE: libc::c_long = 2;
const DELETE_ONE: libc::c_long = 3;
const LOOKUP: libc::c_long = 24;
const LOOKUP_AND_DELETE: libc::c_long = 25;
const UPDATE: libc::c_long = 26;
const DELETE: libc::c_long = 27;

/// `ENOTSUPP` (include/linux/errno.h), which the kernel says where a kind of map has no batches: a longest-prefix trie before
/// Linux 5.13.
const NO_BATCHES: i32 = 524;

/// Entries asked for at once. The kernel answers in whole buckets, so a call asks for more when one does not fit.
const ENTRIES: usize = 4096;

/// Hands every entry of a hash map to `take` and removes it. Nobody may write to the map meanwhile.
///
/// # Errors
///
/// What the kernel says; entries handed over before are removed already.
///
/// # Minimum kernel version
///
/// 5.6.
pub fn take_all<K: Pod, V: Pod>(map: impl AsFd, take: impl FnMut(&K, &V)) -> io::Result<()> {
    walk(&map, LOOKUP_AND_DELETE, take)
}

/// Hands every entry of a hash map to `see`. Entries that are added or removed meanwhile may be missed or seen twice.
///
/// # Errors
///
/// What the kernel says.
///
/// # Minimum kernel version
///
/// 5.6.
pub fn each<K: Pod, V: Pod>(map: impl AsFd, see: impl FnMut(&K, &V)) -> io::Result<()> {
    walk(&map, LOOKUP, see)
}

/// The value of one key, if it is there. One system call for one entry: for few.
///
/// # Errors
///
/// What the kernel says.
pub fn get<K: Pod, V: Pod>(map: impl AsFd, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    match one(&map, LOOKUP_ONE, key, Some(&mut value)) {
        // SAFETY: the kernel has written all of it; any bytes are a `Pod`.
        Ok(()) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts another value in the place of that of a key; whether one was there. One system call.
///
/// # Errors
///
/// What the kernel says.
pub fn replace<K: Pod, V: Pod>(map: impl AsFd, key: &K, value: V) -> io::Result<bool> {
    const BPF_EXIST: u64 = 2;
    match one_with(&map, UPDATE_ONE, key, Some(&mut MaybeUninit::new(value)), BPF_EXIST) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes `keys` from a map, in batches where the map has them. A key that is not there (any more) is passed over.
///
/// # Errors
///
/// What the kernel says of the first that cannot be removed; whatever can be is removed all the same.
///
/// # Minimum kernel version
///
/// 5.6.
pub fn remove<K: Pod>(map: impl AsFd, keys: &[K]) -> io::Result<()> {
    let mut rest = keys;
    while !rest.is_empty() {
        let mut batch = Batch { keys: rest.as_ptr() as u64, count: rest.len() as u32, ..Batch::default() };
        // However it ends, the kernel says how many it has removed before.
        let passed_over = match call(&map, DELETE, &mut batch) {
            // Nothing was removed, and nothing is wrong: as if there were no batches.
            Ok(()) if batch.count == 0 => break,
            Ok(()) => 0,
            // It stops at a key that is not there.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => 1,
            Err(_) => break,
        };
        rest = rest.get(batch.count as usize + passed_over..).unwrap_or_default();
    }
    let mut result = Ok(());
    for key in rest {
        match one::<K, ()>(&map, DELETE_ONE, key, None) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => result = result.and(Err(error)),
            _ => {}
        }
    }
    result
}

/// Puts entries into a map, in the place of those with the same keys; in batches where the map has them.
///
/// # Errors
///
/// What the kernel says, and how many entries stand there by then.
///
/// # Minimum kernel version
///
/// 5.6.
pub fn insert<K: Pod, V: Pod>(map: impl AsFd, entries: &[(K, V)]) -> Result<(), (usize, io::Error)> {
    let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
    let mut done = 0;
    // A trie's batch stops where the scheduler is due, and says how far it came.
    while let (Some(keys), Some(values)) = (keys.get(done..), values.get(done..))
        && !keys.is_empty()
    {
        let mut batch = Batch {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len() as u32,
            ..Batch::default()
        };
        match call(&map, UPDATE, &mut batch) {
            // Nothing was written, and nothing is wrong: as if there were no batches.
            Ok(()) if batch.count == 0 => break,
            Ok(()) => done += batch.count as usize,
            Err(error) if error.raw_os_error() == Some(NO_BATCHES) => break,
            Err(error) => return Err((done + batch.count as usize, error)),
        }
    }
    for (key, value) in keys.iter().zip(&values).skip(done) {
        one(&map, UPDATE_ONE, key, Some(&mut MaybeUninit::new(*value))).map_err(|error| (done, error))?;
        done += 1;
    }
    Ok(())
}

/// A command for one entry, which reads or writes `value`, where it takes one.
fn one<K: Pod, V>(
    map: &impl AsFd,
    command: libc::c_long,
    key: &K,
    value: Option<&mut MaybeUninit<V>>,
) -> io::Result<()> {
    one_with(map, command, key, value, 0)
}

/// The same with flags.
fn one_with<K: Pod, V>(
    map: &impl AsFd,
    command: libc::c_long,
    key: &K,
    value: Option<&mut MaybeUninit<V>>,
    flags: u64,
) -> io::Result<()> {
    let single = Single {
        map_fd: map.as_fd().as_raw_fd() as u32,
        key: std::ptr::from_ref(key) as u64,
        value: value.map_or(0, |value| value.as_mut_ptr() as u64),
        flags,
        ..Single::default()
    };
    // SAFETY: the attribute is as large as it says, and the key and the value that it names are those of the map.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(&single), size_of::<Single>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn walk<K: Pod, V: Pod>(
    map: &impl AsFd,
    command: libc::c_long,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut room = ENTRIES;
    let mut keys: Vec<MaybeUninit<K>> = uninit(room);
    let mut values: Vec<MaybeUninit<V>> = uninit(room);
    // An opaque position; the kernel writes as many octets as a key has, at least 4.
    let mut position: Vec<u64> = vec![0; size_of::<K>().div_ceil(8).max(1)];
    let mut begun = false;
    loop {
        let mut batch = Batch {
            in_batch: if begun { position.as_ptr() as u64 } else { 0 },
            out_batch: position.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            ..Batch::default()
        };
        let result = call(map, command, &mut batch);
        let last = match &result {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && batch.count == 0 => {
                room *= 2;
                keys = uninit(room);
                values = uninit(room);
                continue;
            }
            Err(_) => return result,
        };
        begun = true;
        for (key, value) in keys.iter().zip(&values).take(batch.count as usize) {
            // SAFETY: the kernel wrote `count` keys and values; any bytes are a `Pod`.
            unsafe { each(key.assume_init_ref(), value.assume_init_ref()) };
        }
        if last {
            return Ok(());
        }
    }
}

fn uninit<T>(count: usize) -> Vec<MaybeUninit<T>> {
    std::iter::repeat_with(MaybeUninit::uninit).take(count).collect()
}

fn call(map: &impl AsFd, command: libc::c_long, batch: &mut Batch) -> io::Result<()> {
    batch.map_fd = map.as_fd().as_raw_fd() as u32;
    // SAFETY: the attribute is as large as it says, and the buffers that it names are as large as `count` entries.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(batch), size_of::<Batch>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
