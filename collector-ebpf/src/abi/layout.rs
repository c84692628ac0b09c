//! How a type of the contract states its layout, and how that statement is held to at compile time.

/// Where a field lies: its name, its offset and its size, both in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name in the source.
    pub name: &'static str,
    /// Octets from the start of the type.
    pub offset: usize,
    /// Octets it takes.
    pub size: usize,
}

/// The layout of one type of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The type's name in the source.
    pub name: &'static str,
    /// Octets of the whole type.
    pub size: usize,
    /// Its alignment in octets.
    pub align: usize,
    /// Its fields in order.
    pub fields: &'static [Field],
}

/// The size of the field that `_access` borrows; lets a macro name a field's size without naming its type.
pub const fn field_size<T, F>(_access: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// States the layout of a type: its size, and each field with its offset, in order.
///
/// Compilation fails when the size or an offset differs, when a field is missing, or when the fields do not
/// fill the type: a hidden padding byte is uninitialised, and as part of a map key it makes equal keys
/// differ.
macro_rules! layout {
    ($type:ident, $size:literal, { $($field:ident: $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size, concat!(stringify!($type), " has another size"));
            $(assert!(
                core::mem::offset_of!($type, $field) == $offset,
                concat!(stringify!($type), ".", stringify!($field), " has another offset")
            );)+
            let filled = 0 $(+ $crate::abi::layout::field_size(|it: &$type| &it.$field))+;
            assert!(filled == $size, concat!(stringify!($type), " has hidden padding or an unnamed field"));
        };

        impl $type {
            /// Size, alignment, and the offset and size of every field.
            pub const LAYOUT: $crate::abi::layout::Layout = $crate::abi::layout::Layout {
                name: stringify!($type),
                size: $size,
                align: align_of::<$type>(),
                fields: &[$($crate::abi::layout::Field {
                    name: stringify!($field),
                    offset: $offset,
                    size: $crate::abi::layout::field_size(|it: &$type| &it.$field),
                }),+],
            };
        }

        // SAFETY: the assertions above show that the type is made of integers without padding, so any bytes
        // are a value.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}

pub(crate) use layout;

#[cfg(test)]
mod tests {
    use crate::abi::layouts;

    #[test]
    fn fields_follow_each_other_and_fill_their_type() {
        for layout in layouts() {
            let mut end = 0;
            for field in layout.fields {
                assert_eq!(field.offset, end, "{}.{} overlaps or leaves a gap", layout.name, field.name);
                assert!(field.size > 0, "{}.{}", layout.name, field.name);
                end += field.size;
            }
            assert_eq!(end, layout.size, "{}", layout.name);
        }
    }

    /// Data of keys that lie behind a prefix's length of four octets, as the kernel's tries have it
    /// (`struct bpf_lpm_trie_key`).
    const BEHIND_A_LENGTH: [&str; 2] = ["RemoteKey", "ServiceKey"];

    #[test]
    fn sizes_are_whole_words() {
        for layout in layouts() {
            let align = if BEHIND_A_LENGTH.contains(&layout.name) { 4 } else { 8 };
            assert_eq!(layout.align, align, "{}", layout.name);
            assert_eq!(layout.size % layout.align, 0, "{}", layout.name);
        }
    }

    #[test]
    fn names_are_told_apart() {
        let layouts = layouts();
        for (index, layout) in layouts.iter().enumerate() {
            assert!(layouts[..index].iter().all(|it| it.name != layout.name), "{} twice", layout.name);
            for (index, field) in layout.fields.iter().enumerate() {
                assert!(
                    layout.fields[..index].iter().all(|it| it.name != field.name),
                    "{}.{} twice",
                    layout.name,
                    field.name
                );
            }
        }
    }
}
