//! Reading from a frame that may end anywhere.

use core::marker::PhantomData;

/// The readable start of a frame.
pub trait Bytes {
    /// The `N` octets at offset `at`, checked once and read where they are needed; `None` where fewer can be
    /// read.
    fn window<const N: usize>(&self, at: u32) -> Option<Window<'_, N>>;

    /// The same number: an offset, mostly.
    ///
    /// The kernel's verifier follows every path by itself as long as paths differ in what it knows of a
    /// number. A reader in the programs makes it forget what it knew of one, so that paths which differ
    /// in nothing else are followed once; every read checks its offset anyway.
    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        number
    }

    /// The `N` octets at `at`.
    #[inline(always)]
    fn array<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        Some(self.window::<N>(at)?.get::<0, N>())
    }

    /// The 16-bit number at `at`, sent in network byte order.
    #[inline(always)]
    fn number(&self, at: u32) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }
}

impl Bytes for &[u8] {
    #[inline]
    fn window<const N: usize>(&self, at: u32) -> Option<Window<'_, N>> {
        let at = at as usize;
        let octets: &[u8; N] = self.get(at..at.checked_add(N)?)?.try_into().ok()?;
        // SAFETY: borrowed for as long as the window lives.
        Some(unsafe { Window::new(octets.as_ptr()) })
    }
}

/// `N` octets of a frame that can be read.
///
/// A raw pointer, because for a reference the programs would compare each address with null.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a, const N: usize> {
    from: *const u8,
    frame: PhantomData<&'a [u8; N]>,
}

impl<const N: usize> Window<'_, N> {
    /// The window at `from`.
    ///
    /// # Safety
    ///
    /// `from .. from + N` can be read as long as the window lives.
    #[inline(always)]
    pub unsafe fn new(from: *const u8) -> Self {
        Self { from, frame: PhantomData }
    }

    /// The `M` octets at `AT`; both are held to `N` at compile time.
    #[inline(always)]
    pub fn get<const AT: usize, const M: usize>(self) -> [u8; M] {
        const { assert!(AT + M <= N, "a read beyond the window") };
        // SAFETY: `AT + M` is at most `N`, and `N` octets can be read.
        unsafe { load(self.from.add(AT)) }
    }

    /// The 16-bit number at `AT`, sent in network byte order.
    #[inline(always)]
    pub fn number<const AT: usize>(self) -> u16 {
        u16::from_be_bytes(self.get::<AT, 2>())
    }

    /// The octet at `AT`.
    #[inline(always)]
    pub fn byte<const AT: usize>(self) -> u8 {
        let [byte] = self.get::<AT, 1>();
        byte
    }
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
unsafe fn load<const M: usize>(from: *const u8) -> [u8; M] {
    // SAFETY: the caller's promise; a read of octets needs no alignment.
    unsafe { from.cast::<[u8; M]>().read() }
}

/// Reads in the widest steps that divide `M`.
///
/// LLVM takes an unaligned read apart into single octets on this target, five times the instructions. The
/// kernel allows unaligned loads from packets wherever the CPU does (the verifier checks), so the alignment
/// that these loads claim is not needed.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn load<const M: usize>(from: *const u8) -> [u8; M] {
    #[repr(align(8))]
    struct Aligned<T>(T);

    #[inline(always)]
    unsafe fn steps<T: Copy, const M: usize>(from: *const u8, into: *mut u8) {
        for step in 0..M / size_of::<T>() {
            // SAFETY: the caller's promise.
            unsafe { into.cast::<T>().add(step).write(from.cast::<T>().add(step).read()) };
        }
    }

    let mut to = Aligned([0; M]);
    let into = to.0.as_mut_ptr();
    // SAFETY: every step lies within the caller's `M` octets, and within `to`.
    unsafe {
        if M.is_multiple_of(8) {
            steps::<u64, M>(from, into);
        } else if M.is_multiple_of(4) {
            steps::<u32, M>(from, into);
        } else if M.is_multiple_of(2) {
            steps::<u16, M>(from, into);
        } else {
            steps::<u8, M>(from, into);
        }
    }
    to.0
}

#[cfg(test)]
mod tests {
    use super::Bytes as _;

    #[test]
    fn a_window_lies_within_the_frame() {
        let frame: &[u8] = &[1, 2, 3, 4, 5];
        assert_eq!(frame.array(0), Some([1, 2, 3, 4, 5]));
        assert_eq!(frame.array(3), Some([4, 5]));
        assert_eq!(frame.array::<2>(4), None);
        assert_eq!(frame.array::<6>(0), None);
        assert_eq!(frame.array(5), Some([]));
        assert_eq!(frame.array::<0>(6), None);
        assert_eq!(frame.array::<1>(u32::MAX), None);
        let nothing: &[u8] = &[];
        assert_eq!(nothing.array::<1>(0), None);
    }

    #[test]
    fn numbers_are_in_network_order() {
        let frame: &[u8] = &[0xAA, 0x12, 0x34, 0x56];
        assert_eq!(frame.number(1), Some(0x1234));
        assert_eq!(frame.number(3), None);
        let window = frame.window::<3>(1).expect("three octets");
        assert_eq!(window.number::<1>(), 0x3456);
        assert_eq!(window.byte::<2>(), 0x56);
        assert_eq!(window.get::<0, 2>(), [0x12, 0x34]);
    }

    #[test]
    fn a_slice_forgets_nothing() {
        let frame: &[u8] = &[];
        assert_eq!(frame.forget(77), 77);
    }
}
