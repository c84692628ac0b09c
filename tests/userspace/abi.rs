//! The layout of every type of the contract, as a text that is compared with a blessed one. A change shows in review; it
//! asks for a new version.

use std::{fmt::Write as _, fs, path::Path};

use collector_ebpf::abi;

/// The version and every field, in the order of the contract.
fn table() -> String {
    let mut text = format!("version {}\n", abi::VERSION);
    for layout in abi::layouts() {
        let _ = writeln!(text, "\n{} size {} align {}", layout.name, layout.size, layout.align);
        for field in layout.fields {
            let _ = writeln!(text, "  {:>4} {:>4} {}", field.offset, field.size, field.name);
        }
    }
    text
}

#[test]
fn the_layout_is_the_blessed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/abi.txt");
    let now = table();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let blessed = fs::read_to_string(&path).unwrap();
    let changed: Vec<_> =
        now.lines().zip(blessed.lines()).filter(|(now, blessed)| now != blessed).take(5).collect();
    assert!(
        now == blessed,
        "the contract differs from {}, first at (now, blessed) {changed:#?}: raise abi::VERSION, then run this test \
         with BLESS=1",
        path.display()
    );
}
