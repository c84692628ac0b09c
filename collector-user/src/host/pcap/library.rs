//! libpcap, loaded at run time: the only place that calls it.
#![expect(unsafe_code, reason = "a foreign library has no safe form; what it hands out is owned here")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr::{self, NonNull},
    slice,
    sync::OnceLock,
};

use collector_ebpf::abi::filter::Instruction;
use libloading::Library;

use super::{FilterError, Link};

/// Debian's name of the library, and that of who follows its own version.
const NAMES: [&str; 2] = ["libpcap.so.0.8", "libpcap.so.1"];

/// The longest packet that tcpdump(1) takes, which is what a program returns for one that matches.
const SNAPSHOT: c_int = 262_144;
/// The network's mask is not known (`PCAP_NETMASK_UNKNOWN`): `ip broadcast` cannot be asked for.
const NO_MASK: u32 = u32::MAX;

/// `struct bpf_insn`.
#[repr(C)]
struct Insn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct bpf_program`.
#[repr(C)]
struct BpfProgram {
    length: c_uint,
    instructions: *mut Insn,
}

/// `struct pcap_pkthdr`.
#[repr(C)]
struct Header {
    time: libc::timeval,
    captured: u32,
    length: u32,
}

/// `pcap_t`, of which only the address is known.
type Handle = c_void;

/// The functions that are called, as `pcap/pcap.h` declares them.
struct Pcap {
    open_dead: unsafe extern "C" fn(c_int, c_int) -> *mut Handle,
    compile: unsafe extern "C" fn(*mut Handle, *mut BpfProgram, *const c_char, c_int, u32) -> c_int,
    error: unsafe extern "C" fn(*mut Handle) -> *const c_char,
    offline_filter: unsafe extern "C" fn(*const BpfProgram, *const Header, *const u8) -> c_int,
    free_code: unsafe extern "C" fn(*mut BpfProgram),
    close: unsafe extern "C" fn(*mut Handle),
    /// What the functions are part of: dropped last.
    _library: Library,
}

impl Pcap {
    /// The library, loaded once. A failure is tried again: it may be installed meanwhile.
    fn get() -> Result<&'static Self, FilterError> {
        static PCAP: OnceLock<Pcap> = OnceLock::new();
        match PCAP.get() {
            Some(pcap) => Ok(pcap),
            None => Self::load().map(|pcap| PCAP.get_or_init(|| pcap)),
        }
    }

    fn load() -> Result<Self, FilterError> {
        let [first, second] = NAMES;
        // SAFETY: what libpcap does when it is loaded and unloaded has no requirements.
        let library =
            unsafe { Library::new(first).or_else(|source| Library::new(second).map_err(|_other| source)) }
                .map_err(|source| FilterError::NoLibrary { source })?;
        // SAFETY: each function has the type that pcap/pcap.h has declared since libpcap 0.8.
        unsafe {
            Ok(Self {
                open_dead: function(&library, "pcap_open_dead")?,
                compile: function(&library, "pcap_compile")?,
                error: function(&library, "pcap_geterr")?,
                offline_filter: function(&library, "pcap_offline_filter")?,
                free_code: function(&library, "pcap_freecode")?,
                close: function(&library, "pcap_close")?,
                _library: library,
            })
        }
    }
}

/// A function of the library.
///
/// # Safety
///
/// `T` is the function's type.
unsafe fn function<T: Copy>(library: &Library, name: &'static str) -> Result<T, FilterError> {
    // SAFETY: the caller's promise. The function lives as long as the library, beside which it is kept.
    let symbol = unsafe { library.get::<T>(name) };
    symbol.map(|it| *it).map_err(|source| FilterError::NoFunction { name, source })
}

/// A `pcap_t` that captures nothing.
struct Dead {
    pcap: &'static Pcap,
    handle: NonNull<Handle>,
}

impl Dead {
    fn open(pcap: &'static Pcap, link: Link) -> Result<Self, FilterError> {
        let link = match link {
            Link::Ethernet => 1,
            Link::RawIp => 12,
        };
        // SAFETY: any numbers may be given.
        let handle = unsafe { (pcap.open_dead)(link, SNAPSHOT) };
        NonNull::new(handle).map(|handle| Self { pcap, handle }).ok_or(FilterError::NoMemory)
    }

    fn error(&self) -> String {
        // SAFETY: the handle is live, and what it points to is a string within it, which is copied.
        let message = unsafe { CStr::from_ptr((self.pcap.error)(self.handle.as_ptr())) };
        message.to_string_lossy().into_owned()
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and nobody else has it.
        unsafe { (self.pcap.close)(self.handle.as_ptr()) };
    }
}

/// What libpcap has compiled an expression to.
pub struct Compiled {
    pcap: &'static Pcap,
    program: BpfProgram,
}

impl Compiled {
    /// Compiles an expression for packets of a saved file. Names of hosts and services are looked up.
    ///
    /// # Errors
    ///
    /// [`FilterError`]: no library, no memory, or what libpcap says against the expression.
    pub fn new(expression: &str, link: Link) -> Result<Self, FilterError> {
        let wrong = |reason: String| FilterError::Expression { expression: expression.to_owned(), reason };
        let text = CString::new(expression).map_err(|nul| wrong(nul.to_string()))?;
        let pcap = Pcap::get()?;
        let dead = Dead::open(pcap, link)?;
        let mut program = BpfProgram { length: 0, instructions: ptr::null_mut() };
        // SAFETY: the handle is live, the program is the call's to fill, and the text ends with a zero.
        let result =
            unsafe { (pcap.compile)(dead.handle.as_ptr(), &raw mut program, text.as_ptr(), 1, NO_MASK) };
        // Also after a failure there is nothing in it that may not be freed: both fields are as the call left them.
        let compiled = Self { pcap, program };
        if result == 0 { Ok(compiled) } else { Err(wrong(dead.error())) }
    }

    /// The instructions.
    pub fn instructions(&self) -> Vec<Instruction> {
        let own = |it: &Insn| Instruction { code: it.code, jt: it.jt, jf: it.jf, k: it.k };
        self.raw().iter().map(own).collect()
    }

    /// What libpcap's own interpreter makes of a packet, whose `length` on the wire may be more than was captured.
    /// Tests hold ours to it.
    pub fn verdict(&self, captured: &[u8], length: u32) -> u32 {
        let time = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let header = Header { time, captured: captured.len() as u32, length };
        // SAFETY: the program is compiled, and as many octets can be read as the header says.
        unsafe {
            (self.pcap.offline_filter)(&raw const self.program, &raw const header, captured.as_ptr()) as u32
        }
    }

    fn raw(&self) -> &[Insn] {
        if self.program.instructions.is_null() {
            return &[];
        }
        // SAFETY: a compiled program has so many instructions.
        unsafe { slice::from_raw_parts(self.program.instructions, self.program.length as usize) }
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: the program is as libpcap made it, and nobody else has it.
        unsafe { (self.pcap.free_code)(&raw mut self.program) };
    }
}
