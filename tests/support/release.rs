//! The running kernel's version, and what it is too old for.

/// The first version of Linux with TCX.
pub const TCX: (u32, u32) = (6, 6);
/// The first version of Linux whose veth takes super-packets of more than 64 KiB (of IPv6: `gso_max_size`).
pub const BIG_TCP: (u32, u32) = (5, 19);

/// Whether the running kernel is of this version or a newer one.
///
/// # Panics
///
/// Its name does not begin with two numbers.
pub fn is_at_least(first: (u32, u32)) -> bool {
    version(&name()) >= first
}

/// Whether a test is left out because its feature came with a later version, which it says so that `cargo xtask` counts
/// and names it; one that the collector does not need begins with `for the test`. From that version on the test has to pass.
///
/// # Panics
///
/// As [`is_at_least`] does.
#[expect(clippy::print_stdout, reason = "how a test of libtest says that it was left out")]
pub fn lacks(feature: &str, first: (u32, u32)) -> bool {
    let lacks = !is_at_least(first);
    if lacks {
        println!("SKIP {feature}: Linux {}.{} and newer have it, this is {}", first.0, first.1, name());
    }
    lacks
}

/// Says that a test is left out because this kernel was built without what it makes its traffic by.
#[expect(clippy::print_stdout, reason = "how a test of libtest says that it was left out")]
pub fn has_none(what: &str) {
    println!("SKIP for the test, {what}: this kernel has none");
}

fn name() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn version(name: &str) -> (u32, u32) {
    let mut numbers = name.split(|other: char| !other.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("the kernel's version is `{name}`, which does not begin with two numbers"),
    }
}
