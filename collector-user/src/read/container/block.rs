//! Blocks of pcapng, and the options at their ends (draft-ietf-opsawg-pcapng).

use super::{MOST_BLOCK, Wrong, error::ContainerError, order::Order, source::Source};

/// Types of blocks.
pub(super) mod kind {
    /// Its octets are the same in both orders.
    pub(in super::super) const SECTION: u32 = 0x0A0D_0D0A;
    pub(in super::super) const INTERFACE: u32 = 1;
    /// Of before 2009: an enhanced packet block with the interface in two octets.
    pub(in super::super) const OLD_PACKET: u32 = 2;
    pub(in super::super) const SIMPLE_PACKET: u32 = 3;
    pub(in super::super) const ENHANCED_PACKET: u32 = 6;
}

/// Octets of a block's type and its first length.
pub(super) const HEAD: usize = 8;
/// Octets of its last length.
pub(super) const TAIL: usize = 4;

/// A block's type and length.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: u32,
    pub(super) length: u32,
}

impl Head {
    /// Of the octets that a block begins with.
    #[inline]
    pub(super) fn of(octets: [u8; HEAD], order: Order) -> Self {
        let [k0, k1, k2, k3, l0, l1, l2, l3] = octets;
        Self { kind: order.u32([k0, k1, k2, k3]), length: order.u32([l0, l1, l2, l3]) }
    }

    /// Whether a block can have such a length, of which at least `least` octets are its own.
    #[inline]
    pub(super) fn check(self, offset: u64, least: usize, is_held: bool) -> Result<(), ContainerError> {
        let most = if is_held { MOST_BLOCK } else { u32::MAX };
        let least = (HEAD + least + TAIL) as u64;
        if u64::from(self.length) < least || self.length > most {
            let (what, length, most) = (self.name(), self.length.into(), most.into());
            return Err(ContainerError::Length { offset, what, length, least, most });
        }
        Ok(())
    }

    /// What the block is called.
    pub(super) const fn name(self) -> &'static str {
        match self.kind {
            kind::SECTION => "a section header block",
            kind::INTERFACE => "an interface description block",
            kind::OLD_PACKET => "a packet block",
            kind::SIMPLE_PACKET => "a simple packet block",
            kind::ENHANCED_PACKET => "an enhanced packet block",
            _ => "a block",
        }
    }

    /// Octets from the block's beginning to the next one's: lengths are multiples of four, which not every writer keeps to.
    #[inline]
    pub(super) const fn whole(self) -> u64 {
        (self.length as u64).next_multiple_of(4)
    }

    /// What lies between its two lengths, which have to agree.
    #[inline]
    pub(super) fn body<'s>(self, source: &'s mut Source<'_>, order: Order) -> Result<&'s [u8], Wrong> {
        let offset = source.offset();
        let whole = self.whole() as usize;
        let found = source.look(whole)?;
        if found.len() != whole {
            return Err(self.cut(offset, found.len() as u64).into());
        }
        let (rest, last) = found.split_at_checked(whole - TAIL).unwrap_or_default();
        self.agrees(offset, order.u32_at(last, 0))?;
        Ok(rest.get(HEAD..).unwrap_or_default())
    }

    /// Passes over the block.
    pub(super) fn skip(self, source: &mut Source<'_>, order: Order) -> Result<(), Wrong> {
        let offset = source.offset();
        let before = self.whole() - TAIL as u64;
        let skipped = source.skip(before)?;
        let last = source.look(TAIL)?;
        let (found, last) = (last.len(), order.u32_at(last, 0));
        if found != TAIL {
            return Err(self.cut(offset, skipped + found as u64).into());
        }
        self.agrees(offset, last)?;
        source.take(TAIL);
        Ok(())
    }

    fn cut(self, offset: u64, found: u64) -> ContainerError {
        ContainerError::Truncated { offset, what: self.name(), expected: self.whole(), found }
    }

    #[inline]
    fn agrees(self, offset: u64, last: Option<u32>) -> Result<(), ContainerError> {
        let Self { kind, length } = self;
        match last {
            Some(last) if last == length => Ok(()),
            last => Err(ContainerError::Lengths { offset, kind, first: length, last: last.unwrap_or(0) }),
        }
    }
}

/// The options that a block ends with: codes and values. What does not fit the block is not there.
pub(super) struct Options<'a> {
    pub(super) rest: &'a [u8],
    pub(super) order: Order,
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        const END: u16 = 0;
        let code = self.order.u16_at(self.rest, 0).filter(|code| *code != END)?;
        let length = usize::from(self.order.u16_at(self.rest, 2)?);
        let value = self.rest.get(4..4 + length)?;
        self.rest = self.rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    }
}
