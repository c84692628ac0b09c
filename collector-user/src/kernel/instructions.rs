//! What the programs are made of, for whoever wants to know what they can do to a host before they run there.

use std::collections::BTreeSet;

use ::object::{Object as _, ObjectSection as _, SectionKind};

use super::{error::KernelError, object::OBJECT, requirements::check_object};

/// What of the programs' instructions reaches beyond their own registers and stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// The helpers of the kernel that are called, by their numbers (`__BPF_FUNC_MAPPER`, include/uapi/linux/bpf.h).
    pub helpers: BTreeSet<i32>,
    /// Atomic operations on words of 64 bits.
    pub atomics: usize,
    /// Atomic operations on words of 32 bits.
    pub narrow_atomics: usize,
}

/// Those of the object that is built into this program, of all programs and functions in it.
///
/// # Errors
///
/// [`KernelError`]: a stub, an object of another version, or none.
pub fn instructions() -> Result<Instructions, KernelError> {
    /// `BPF_JMP | BPF_CALL`; the upper half of the second octet is 0 where a helper is called (Linux's
    /// Documentation/bpf/standardization/instruction-set.rst).
    const CALL: u8 = 0x85;
    const ATOMIC_64: u8 = 0xDB;
    const ATOMIC_32: u8 = 0xC3;
    /// One that has a second half behind it.
    const WIDE: u8 = 0x18;
    check_object(OBJECT)?;
    let fail = |reason| KernelError::Object { reason };
    let object = ::object::File::parse(OBJECT).map_err(fail)?;
    let mut found = Instructions::default();
    for section in object.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (all, _) = section.data().map_err(fail)?.as_chunks::<8>();
        let mut all = all.iter();
        while let Some([code, registers, _, _, number @ ..]) = all.next() {
            match *code {
                CALL if registers >> 4 == 0 => drop(found.helpers.insert(i32::from_le_bytes(*number))),
                ATOMIC_64 => found.atomics += 1,
                ATOMIC_32 => found.narrow_atomics += 1,
                WIDE => drop(all.next()),
                _ => {}
            }
        }
    }
    Ok(found)
}
