//! Maps as shared memory: an array created with `BPF_F_MMAPABLE`, read and written without a system call.
#![expect(unsafe_code, reason = "shared memory has no safe form; every access is bounded here")]

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

use aya::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An array map as memory: `entries` values of type `T`, which the kernel sees at the same time.
#[derive(Debug)]
pub struct SharedArray<T> {
    start: NonNull<T>,
    entries: usize,
    length: usize,
}

// SAFETY: the memory belongs to the value, and is not bound to a thread.
unsafe impl<T: Pod + Send> Send for SharedArray<T> {}

impl<T: Pod> SharedArray<T> {
    /// Maps the array behind `map`, which has `entries` values of `T`.
    ///
    /// # Errors
    ///
    /// What mmap(2) says; `InvalidInput` where `T` does not fill its place in an array, which the kernel pads to 8
    /// octets.
    pub fn map(map: impl AsFd, entries: u32) -> io::Result<Self> {
        if !size_of::<T>().is_multiple_of(8) || size_of::<T>() == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entries = entries as usize;
        let length = (entries * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, entries, length })
    }

    /// Values there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Reads the value at `index`. The kernel may write it meanwhile: whole words are whole, a value may be torn.
    pub fn read(&self, index: usize) -> Option<T> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: within the mapping; any bytes are a `T`.
        Some(unsafe { self.start.add(index).read_volatile() })
    }

    /// The 64-bit word at octet `offset` of the value at `index`, for single stores that the kernel sees whole.
    pub fn word(&self, index: usize, offset: usize) -> Option<&AtomicU64> {
        if index >= self.entries || offset + size_of::<u64>() > size_of::<T>() || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: within the mapping, aligned, and only ever accessed in whole words.
        Some(unsafe { AtomicU64::from_ptr(self.start.add(index).cast::<u8>().add(offset).cast().as_ptr()) })
    }

    /// The values from `first` on, as a slice that nobody else touches.
    ///
    /// # Safety
    ///
    /// The kernel must neither read nor write these values while the slice lives: of an epoch-bound array, the retired
    /// epoch after the barrier.
    pub unsafe fn quiet(&mut self, first: usize, count: usize) -> Option<&mut [T]> {
        if first.checked_add(count)? > self.entries {
            return None;
        }
        // SAFETY: within the mapping; any bytes are a `T`; the caller promises that nobody else touches them.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.add(first).as_ptr(), count) })
    }
}

impl<T> Drop for SharedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no borrow outlives it. A failure leaves it mapped until exit.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
