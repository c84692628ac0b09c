//! The kernel's type information (BTF, `Documentation/bpf/btf.rst`): where fields lie, what arguments there are, what the
//! numbers of an enumeration are called.
//!
//! A reader of our own: it is small, and what there is to be had is under a licence that this program cannot take on.

use std::{fs, io, path::Path};

/// The running kernel's.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the type information does not say what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The kernel was built without it, or keeps it from this process.
    #[error("cannot read the kernel's type information at {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what the format says.
    #[error("the kernel's type information ends or goes on where it must not, at octet {at}")]
    Malformed {
        /// Where, in the section that was read.
        at: usize,
    },
    /// There is no such thing.
    #[error("the kernel's type information has no {what}")]
    Missing {
        /// What was looked for.
        what: String,
    },
    /// A field has another size than the one that it would be read with.
    #[error("{what} has {found} octets in this kernel, and not {expected}")]
    Size {
        /// The field.
        what: String,
        /// Its octets here; 0 if it is less than one.
        found: u32,
        /// Those it should have.
        expected: u32,
    },
}

/// A field that programs read: the name of the global that says where it lies, the structure, the way to it, its octets.
pub type Wanted = (&'static str, &'static str, &'static [&'static str], u32);

/// Type information, of the kernel or of one of its modules.
#[derive(Debug)]
pub struct Btf {
    octets: Vec<u8>,
    /// Where each type begins in `octets`; a type's number is one more than its place here, and than `first` before it.
    types: Vec<usize>,
    strings: usize,
    strings_end: usize,
    /// For a module's: types and octets of strings that are the kernel's.
    base: Option<(usize, usize)>,
}

/// A field, and how much of its structure comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Octets from the beginning of the structure.
    pub offset: u32,
    /// For a field of bits: which bit of the octet there is its first. 0 otherwise.
    pub bit: u32,
    /// Its octets; 0 for a field of bits.
    pub size: u32,
}

const MAGIC: u16 = 0xEB9F;
const HEADER: usize = 24;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const POINTER: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNCTION_PROTOTYPE: u32 = 13;
    pub(super) const VARIABLE: u32 = 14;
    pub(super) const SECTION: u32 = 15;
    pub(super) const DECLARATION_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM_64: u32 = 19;
}

/// A type's header.
#[derive(Clone, Copy)]
struct Type {
    /// Where what follows the header begins.
    body: usize,
    name: u32,
    kind: u32,
    /// Members, enumerators, parameters.
    entries: usize,
    /// Members may be of bits.
    has_bits: bool,
    rest: u32,
}

/// Structures in structures, and names of names, that are followed before it is taken for a circle.
const DEPTH: usize = 32;

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    ///
    /// [`BtfError::Read`], [`BtfError::Malformed`].
    pub fn of_kernel() -> Result<Self, BtfError> {
        Self::parse(read(Path::new(VMLINUX))?, None)
    }

    /// A module's, whose types go on from the kernel's.
    ///
    /// # Errors
    ///
    /// [`BtfError::Read`], [`BtfError::Malformed`].
    pub fn of_module(&self, path: &Path) -> Result<Self, BtfError> {
        Self::parse(read(path)?, Some((self.types.len(), self.strings_end - self.strings)))
    }

    fn parse(octets: Vec<u8>, base: Option<(usize, usize)>) -> Result<Self, BtfError> {
        let number = |at| word(&octets, at).map(|word| word as usize);
        let is_ours = octets.first_chunk::<2>().is_some_and(|magic| u16::from_ne_bytes(*magic) == MAGIC);
        if !is_ours {
            return Err(BtfError::Malformed { at: 0 });
        }
        let header = number(4)?;
        let (types_at, types_length) = (number(8)?, number(12)?);
        let (strings_at, strings_length) = (number(16)?, number(20)?);
        let malformed = |at| BtfError::Malformed { at };
        let section = |at: usize, length: usize| {
            let start = header.checked_add(at).filter(|_| header >= HEADER)?;
            let end = start.checked_add(length).filter(|end| *end <= octets.len())?;
            Some((start, end))
        };
        let (mut at, end) = section(types_at, types_length).ok_or(malformed(types_at))?;
        let (strings, strings_end) = section(strings_at, strings_length).ok_or(malformed(strings_at))?;
        let mut types = Vec::new();
        while at < end {
            types.push(at);
            let header = header_of(&octets, at)?;
            at = header.body + header.length();
            if at > end {
                return Err(malformed(at));
            }
        }
        Ok(Self { octets, types, strings, strings_end, base })
    }

    /// Where a field of a structure lies. `path` leads into structures inside; unnamed ones need no step.
    ///
    /// # Errors
    ///
    /// [`BtfError::Missing`], [`BtfError::Malformed`].
    pub fn field(&self, structure: &str, path: &[&str]) -> Result<Field, BtfError> {
        let missing = || BtfError::Missing { what: format!("{structure}.{}", path.join(".")) };
        let mut at = self.named(kind::STRUCT, structure).ok_or_else(missing)?;
        let mut bits = 0;
        let mut field = None;
        for name in path {
            let (member, offset, width) = self.member(at, name, DEPTH)?.ok_or_else(missing)?;
            bits += offset;
            field = Some((member, width));
            at = self.resolved(member)?;
        }
        let (member, width) = field.ok_or_else(missing)?;
        let size = if width == 0 { self.size(member, DEPTH)? } else { 0 };
        Ok(Field { offset: bits / 8, bit: bits % 8, size })
    }

    /// The same of a field that is read as a number or pointer of `size` octets.
    ///
    /// # Errors
    ///
    /// As above, and [`BtfError::Size`].
    pub fn place(&self, structure: &str, path: &[&str], size: u32) -> Result<u32, BtfError> {
        let field = self.field(structure, path)?;
        if field.size != size || field.bit != 0 {
            let what = format!("{structure}.{}", path.join("."));
            return Err(BtfError::Size { what, found: field.size, expected: size });
        }
        Ok(field.offset)
    }

    /// The same of several, each for the name that it is wanted by.
    ///
    /// # Errors
    ///
    /// As above: the first that is not where it could be read.
    pub fn places(&self, wanted: &[Wanted]) -> Result<Vec<(&'static str, u32)>, BtfError> {
        let place = |(name, structure, path, size): &Wanted| Ok((*name, self.place(structure, path, *size)?));
        wanted.iter().map(place).collect()
    }

    /// The names of the types of a tracepoint's arguments; empty for one that has no name.
    ///
    /// # Errors
    ///
    /// [`BtfError::Missing`], [`BtfError::Malformed`].
    pub fn arguments(&self, tracepoint: &str) -> Result<Vec<String>, BtfError> {
        let name = format!("btf_trace_{tracepoint}");
        let missing = || BtfError::Missing { what: name.clone() };
        let pointer = self.get(self.resolved(self.named(kind::TYPEDEF, &name).ok_or_else(missing)?)?)?;
        let prototype = self.get(pointer.rest)?;
        if pointer.kind != kind::POINTER || prototype.kind != kind::FUNCTION_PROTOTYPE {
            return Err(missing());
        }
        // The first one is what the kernel calls with, and no argument of the tracepoint.
        (1..prototype.entries)
            .map(|index| {
                let mut of = self.resolved(word(&self.octets, prototype.body + 8 * index + 4)?)?;
                if of != 0 && self.get(of)?.kind == kind::POINTER {
                    of = self.resolved(self.get(of)?.rest)?;
                }
                Ok(if of == 0 { String::new() } else { self.name(self.get(of)?.name).to_owned() })
            })
            .collect()
    }

    /// The names and numbers of an enumeration.
    ///
    /// # Errors
    ///
    /// [`BtfError::Missing`], [`BtfError::Malformed`].
    pub fn enumeration(&self, name: &str) -> Result<Vec<(String, u32)>, BtfError> {
        let at = self.named(kind::ENUM, name).ok_or_else(|| BtfError::Missing { what: name.to_owned() })?;
        self.enumerators(self.get(at)?)
    }

    /// The names and numbers of every enumeration of whose name `wanted` approves.
    ///
    /// # Errors
    ///
    /// [`BtfError::Malformed`].
    pub fn enumerations(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, u32)>, BtfError> {
        let mut all = Vec::new();
        for at in &self.types {
            let header = header_of(&self.octets, *at)?;
            if header.kind == kind::ENUM && wanted(self.name(header.name)) {
                all.extend(self.enumerators(header)?);
            }
        }
        Ok(all)
    }

    fn enumerators(&self, header: Type) -> Result<Vec<(String, u32)>, BtfError> {
        (0..header.entries)
            .map(|index| {
                let at = header.body + 8 * index;
                Ok((self.name(word(&self.octets, at)?).to_owned(), word(&self.octets, at + 4)?))
            })
            .collect()
    }

    /// A member by its name, also in unnamed structures inside: its type, its first bit, and its width if it is of bits.
    fn member(&self, of: u32, name: &str, depth: usize) -> Result<Option<(u32, u32, u32)>, BtfError> {
        let header = self.get(of)?;
        if depth == 0 || !matches!(header.kind, kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        for index in 0..header.entries {
            let at = header.body + 12 * index;
            let (own, of, offset) =
                (word(&self.octets, at)?, word(&self.octets, at + 4)?, word(&self.octets, at + 8)?);
            let (offset, width) =
                if header.has_bits { (offset & 0xFF_FFFF, offset >> 24) } else { (offset, 0) };
            if own == 0 {
                if let Some((member, inside, width)) = self.member(self.resolved(of)?, name, depth - 1)? {
                    return Ok(Some((member, offset + inside, width)));
                }
            } else if self.name(own) == name {
                return Ok(Some((of, offset, width)));
            }
        }
        Ok(None)
    }

    /// The octets of a value of a type.
    fn size(&self, of: u32, depth: usize) -> Result<u32, BtfError> {
        let of = self.resolved(of)?;
        let header = self.get(of)?;
        Ok(match header.kind {
            kind::POINTER => 8,
            kind::ARRAY if depth > 0 => {
                let of = word(&self.octets, header.body)?;
                word(&self.octets, header.body + 8)?.saturating_mul(self.size(of, depth - 1)?)
            }
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM_64 => header.rest,
            _ => 0,
        })
    }

    /// The type behind names and qualifiers; 0 is `void`.
    fn resolved(&self, mut of: u32) -> Result<u32, BtfError> {
        for _ in 0..DEPTH {
            if of == 0 {
                return Ok(0);
            }
            let header = self.get(of)?;
            let is_name = matches!(
                header.kind,
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG
            );
            if !is_name {
                return Ok(of);
            }
            of = header.rest;
        }
        Err(BtfError::Malformed { at: of as usize })
    }

    /// A type by its number.
    fn get(&self, number: u32) -> Result<Type, BtfError> {
        let malformed = BtfError::Malformed { at: number as usize };
        let first = self.base.map_or(0, |(types, _)| types);
        let place = (number as usize).checked_sub(first + 1);
        let Some(at) = place.and_then(|place| self.types.get(place)) else { return Err(malformed) };
        header_of(&self.octets, *at)
    }

    /// The number of the type of a kind and name.
    fn named(&self, kind: u32, name: &str) -> Option<u32> {
        let first = self.base.map_or(0, |(types, _)| types);
        let is_it = |at: &usize| {
            header_of(&self.octets, *at).is_ok_and(|it| it.kind == kind && self.name(it.name) == name)
        };
        self.types.iter().position(is_it).map(|place| (first + place + 1) as u32)
    }

    /// A name by where it begins; empty where that is no text, or the kernel's in a module's information.
    fn name(&self, offset: u32) -> &str {
        let Some(offset) = (offset as usize).checked_sub(self.base.map_or(0, |(_, strings)| strings)) else {
            return "";
        };
        let strings = self.octets.get(self.strings..self.strings_end).unwrap_or_default();
        let rest = strings.get(offset..).unwrap_or_default();
        let name = rest.split(|octet| *octet == 0).next().unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl Type {
    /// Octets behind the header.
    const fn length(&self) -> usize {
        match self.kind {
            kind::INT | kind::VARIABLE | kind::DECLARATION_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::SECTION | kind::ENUM_64 => 12 * self.entries,
            kind::ENUM | kind::FUNCTION_PROTOTYPE => 8 * self.entries,
            _ => 0,
        }
    }
}

fn header_of(octets: &[u8], at: usize) -> Result<Type, BtfError> {
    let (name, info, rest) = (word(octets, at)?, word(octets, at + 4)?, word(octets, at + 8)?);
    Ok(Type {
        body: at + 12,
        name,
        kind: info >> 24 & 0x1F,
        entries: (info & 0xFFFF) as usize,
        has_bits: info >> 31 != 0,
        rest,
    })
}

fn word(octets: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = octets.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map(|word| u32::from_ne_bytes(*word)).ok_or(BtfError::Malformed { at })
}

fn read(path: &Path) -> Result<Vec<u8>, BtfError> {
    fs::read(path).map_err(|source| BtfError::Read { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests;
