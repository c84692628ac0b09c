//! Perf buffers, one a CPU, which wake their reader when they are half full.
//!
//! aya's perf events wake it at each record, by an interrupt that costs far more than the record itself (in a virtual
//! machine some microseconds). So the programs write by an event of their own, whose output goes to the buffer of aya's.
//! Whoever reads has to look from time to time, too.
#![expect(unsafe_code, reason = "aya 0.14 opens no events but those that wake at each record")]

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use aya::maps::{
    MapData, PerfEventArray,
    perf::{PerfEvent, PerfEventArrayBuffer},
};
use aya_obj::generated::{
    PERF_EVENT_IOC_SET_OUTPUT, PERF_FLAG_FD_CLOEXEC, bpf_cmd::BPF_MAP_UPDATE_ELEM, perf_event_attr,
    perf_event_sample_format::PERF_SAMPLE_RAW, perf_sw_ids::PERF_COUNT_SW_BPF_OUTPUT,
    perf_type_id::PERF_TYPE_SOFTWARE,
};

use crate::kernel::error::KernelError;

/// The map of the buffers.
pub struct PerfMap {
    map: PerfEventArray<MapData>,
    descriptor: OwnedFd,
    name: &'static str,
    /// The map of events that wake at each record, if there is one.
    waking: Option<OwnedFd>,
}

/// A CPU's buffer.
pub struct PerfBuffer {
    buffer: PerfEventArrayBuffer<MapData>,
    event: OwnedFd,
}

impl PerfMap {
    /// `descriptor` is one of the map's.
    pub(super) const fn new(
        map: PerfEventArray<MapData>,
        descriptor: OwnedFd,
        name: &'static str,
        waking: Option<OwnedFd>,
    ) -> Self {
        Self { map, descriptor, name, waking }
    }

    /// Makes a CPU's buffer, of so many octets: a power of two of at least a page. It takes the place of one before.
    ///
    /// # Errors
    ///
    /// [`KernelError::Buffer`], [`KernelError::Call`].
    pub fn open(&mut self, cpu: u32, octets: u32) -> Result<PerfBuffer, KernelError> {
        let pages = (octets as usize / rustix::param::page_size()).max(1);
        let buffer = self.map.open(cpu, Some(pages)).map_err(|source| KernelError::Buffer { cpu, source })?;
        let fail = |source| KernelError::Call { map: self.name, action: "given a buffer", source };
        let event = quiet_event(cpu, &buffer).map_err(fail)?;
        put(&self.descriptor, cpu, event.as_raw_fd()).map_err(fail)?;
        if let Some(waking) = &self.waking {
            put(waking, cpu, buffer.as_raw_fd()).map_err(fail)?;
        }
        Ok(PerfBuffer { buffer, event })
    }

    /// Has a CPU write to a buffer again that [another](Self::open) was to take the place of.
    ///
    /// # Errors
    ///
    /// [`KernelError::Call`].
    pub fn put_back(&self, cpu: u32, buffer: &PerfBuffer) -> Result<(), KernelError> {
        let fail = |source| KernelError::Call { map: self.name, action: "given a buffer again", source };
        put(&self.descriptor, cpu, buffer.event.as_raw_fd()).map_err(fail)?;
        self.waking.as_ref().map_or(Ok(()), |waking| put(waking, cpu, buffer.as_raw_fd()).map_err(fail))
    }
}

impl PerfBuffer {
    /// Hands on what is there now, record by record, as long as `take` goes on.
    pub fn read<B>(&mut self, mut take: impl FnMut(PerfEvent<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        self.buffer.try_fold((), |(), record| take(record))
    }
}

impl AsRawFd for PerfBuffer {
    fn as_raw_fd(&self) -> RawFd {
        self.buffer.as_raw_fd()
    }
}

/// An event of a CPU that wakes nobody at a record, and writes to the buffer of another one. What is left is that the
/// buffer wakes its reader at half of its size (`ring_buffer_init` in `kernel/events/ring_buffer.c`).
fn quiet_event(cpu: u32, buffer: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers, for all of which zero is a value: here, no wish to be woken at so many records.
    let mut attributes: perf_event_attr = unsafe { std::mem::zeroed() };
    attributes.type_ = PERF_TYPE_SOFTWARE as u32;
    attributes.size = size_of::<perf_event_attr>() as u32;
    attributes.config = PERF_COUNT_SW_BPF_OUTPUT as u64;
    attributes.sample_type = PERF_SAMPLE_RAW as u64;
    attributes.__bindgen_anon_1.sample_period = 1;
    let (of_all_processes, no_group): (libc::pid_t, libc::c_int) = (-1, -1);
    // SAFETY: the attributes are as long as they say; a descriptor that comes back is nobody else's.
    let event = unsafe {
        let event = libc::syscall(
            libc::SYS_perf_event_open,
            ptr::from_ref(&attributes),
            of_all_processes,
            cpu,
            no_group,
            libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC),
        );
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(event as RawFd)
    };
    // SAFETY: both are descriptors; no memory is involved.
    let result =
        unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_OUTPUT.into(), buffer.as_raw_fd()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(event) }
}

/// `bpf_attr` of the commands on an element (include/uapi/linux/bpf.h).
#[repr(C)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts an event into the map.
fn put(map: &impl AsFd, index: u32, event: RawFd) -> io::Result<()> {
    let element = Element {
        map_fd: map.as_fd().as_raw_fd() as u32,
        _pad: 0,
        key: ptr::from_ref(&index) as u64,
        value: ptr::from_ref(&event) as u64,
        flags: 0,
    };
    // SAFETY: the attribute is as large as is said; key and value are numbers of 32 bits, as the map has them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_UPDATE_ELEM as libc::c_long,
            ptr::from_ref(&element),
            size_of::<Element>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
