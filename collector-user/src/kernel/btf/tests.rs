use std::path::Path;

use super::{Btf, BtfError, Field, VMLINUX};

/// `struct outer { u32 first; struct { u16 second:4; struct inner in; }; }`, `struct inner { u8 x; u8 *y; }`,
/// `enum colour { RED = 1, BLUE = 0x10002 }`, `void (*btf_trace_t)(void *, struct inner *, enum colour)`.
fn sample() -> Vec<u8> {
    let names = [
        "",
        "outer",
        "first",
        "second",
        "in",
        "inner",
        "x",
        "y",
        "u32",
        "u16",
        "u8",
        "colour",
        "RED",
        "BLUE",
        "btf_trace_t",
    ];
    let strings = names.iter().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect::<Vec<_>>();
    let name = |wanted: &str| {
        names.iter().take_while(|name| **name != wanted).map(|name| name.len() as u32 + 1).sum::<u32>()
    };
    let int = |text: &str, size: u32| vec![name(text), 1 << 24, size, size * 8];
    let types = [
        int("u32", 4),                                                                         // 1
        int("u16", 2),                                                                         // 2
        int("u8", 1),                                                                          // 3
        vec![0, 2 << 24, 3],                                                                   // 4: u8 *
        vec![name("inner"), 4 << 24 | 2, 16, name("x"), 3, 0, name("y"), 4, 64],               // 5
        vec![0, 1 << 31 | 4 << 24 | 2, 24, name("second"), 2, 4 << 24 | 3, name("in"), 5, 64], // 6
        vec![name("outer"), 4 << 24 | 2, 32, name("first"), 1, 0, 0, 6, 64],                   // 7
        vec![name("colour"), 6 << 24 | 2, 4, name("RED"), 1, name("BLUE"), 0x1_0002],          // 8
        vec![0, 2 << 24, 0],                                                                   // 9: void *
        vec![0, 2 << 24, 5],                         // 10: struct inner *
        vec![0, 13 << 24 | 3, 0, 0, 9, 0, 10, 0, 8], // 11
        vec![0, 2 << 24, 11],                        // 12
        vec![name("btf_trace_t"), 8 << 24, 12],      // 13
    ]
    .concat();
    let types = types.into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<_>>();
    let mut octets = vec![0x9F, 0xEB, 1, 0];
    for number in [24, 0, types.len(), types.len(), strings.len()] {
        octets.extend((number as u32).to_ne_bytes());
    }
    [octets, types, strings].concat()
}

#[test]
fn fields_are_found_in_structures_without_names_too() {
    let btf = Btf::parse(sample(), None).unwrap();
    assert_eq!(btf.place("outer", &["first"], 4).unwrap(), 0);
    assert_eq!(btf.place("outer", &["in", "y"], 8).unwrap(), 24);
    assert_eq!(btf.field("outer", &["second"]).unwrap(), Field { offset: 8, bit: 3, size: 0 });
    assert_eq!(
        btf.place("outer", &["first"], 8).unwrap_err().to_string(),
        "outer.first has 4 octets in this kernel, and not 8"
    );
    assert!(matches!(btf.place("outer", &["third"], 8), Err(BtfError::Missing { .. })));
    assert!(matches!(btf.place("first", &["outer"], 8), Err(BtfError::Missing { .. })));
}

#[test]
fn arguments_and_numbers_have_their_names() {
    let btf = Btf::parse(sample(), None).unwrap();
    assert_eq!(btf.arguments("t").unwrap(), ["inner", "colour"]);
    let colours = [("RED".to_owned(), 1), ("BLUE".to_owned(), 0x1_0002)];
    assert_eq!(btf.enumeration("colour").unwrap(), colours);
    assert_eq!(btf.enumerations(|name| name.starts_with("col")).unwrap(), colours);
}

#[test]
fn the_running_kernels_is_read() {
    if !Path::new(VMLINUX).exists() {
        return;
    }
    let btf = Btf::of_kernel().unwrap();
    assert_eq!(btf.arguments("kfree_skb").unwrap()[0], "sk_buff");
    assert!(btf.place("sk_buff", &["dev"], 8).unwrap() > 0);
    assert!(btf.place("net", &["ns", "inum"], 4).unwrap() > 0);
}

#[test]
fn what_is_broken_is_no_panic() {
    let whole = sample();
    for at in 0..whole.len() {
        for octet in [0, 1, 0x7F, 0xFF] {
            let mut octets = whole.clone();
            octets[at] = octet;
            look(octets);
        }
        look(whole[..at].to_vec());
    }
}

fn look(octets: Vec<u8>) {
    if let Ok(btf) = Btf::parse(octets, None) {
        let _ = btf.field("outer", &["in", "y"]);
        let _ = btf.arguments("t");
        let _ = btf.enumerations(|_| true);
    }
}
