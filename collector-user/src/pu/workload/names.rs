//! Names as systemd and engines write them.

/// The longest name of a file (`NAME_MAX`), so of a cgroup.
const LONGEST: usize = 255;

/// Whether it is a unit's name of this type: its characters are systemd's `VALID_CHARS` (src/basic/unit-name.c).
pub(super) fn is_unit(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(is_name)
}

/// Whether it can be the name that somebody gave a container or a unit: not empty, not too long, none but these characters.
pub(super) fn is_name(name: &str) -> bool {
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b":-_.\\@".contains(&octet);
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// Whether it is a container's ID: the hexadecimal digits of 32 octets.
pub(super) fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'))
}

/// The user whose manager this service is.
pub(super) fn manager(unit: &str) -> Option<u32> {
    number(unit.strip_prefix("user@")?.strip_suffix(".service")?)
}

/// The user whose slice or manager this unit is.
pub(super) fn user(unit: &str) -> Option<u32> {
    manager(unit).or_else(|| number(unit.strip_prefix("user-")?.strip_suffix(".slice")?))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()))
}

/// The service of `OpenRC` whose cgroup this is.
pub(super) fn openrc(name: &str) -> Option<&str> {
    name.strip_prefix("openrc.").filter(|name| is_name(name))
}

/// A name as it was before systemd escaped it (`\x2d` for a hyphen). What would be no [name](is_name) then stays as it is.
pub(super) fn unescaped(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let octet = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match octet.filter(u8::is_ascii) {
            Some(octet) => {
                text.push(char::from(octet));
                text.push_str(part.get(2..).unwrap_or_default());
            }
            None => return name.to_owned(),
        }
    }
    if is_name(&text) { text } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{is_name, is_unit, manager, unescaped, user};

    #[test]
    fn units_by_their_characters() {
        assert!(is_unit("nginx.service", ".service") && is_unit(r"a\x2db:c_d@e.f.scope", ".scope"));
        let long = format!("{}.service", "a".repeat(255));
        assert!(is_unit(&long, ".service"), "what the kernel cannot name is not looked for");
        for other in
            ["", ".service", "a b.service", "a\n.service", "\u{FFFD}.service", "a.service ", "é.service"]
        {
            assert!(!is_unit(other, ".service"), "{other:?}");
        }
        assert!(!is_name(&"a".repeat(256)));
    }

    #[test]
    fn users() {
        assert_eq!((manager("user@1000.service"), user("user@1000.service")), (Some(1000), Some(1000)));
        assert_eq!((manager("user-1000.slice"), user("user-1000.slice")), (None, Some(1000)));
        for other in
            ["user@.service", "user@+1.service", "user@99999999999.service", "user.slice", "user-a.slice"]
        {
            assert_eq!(user(other), None, "{other}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(unescaped(r"my\x2dbox"), "my-box");
        assert_eq!(unescaped("plain"), "plain");
        for kept in [r"a\x0ab", r"a\x2", r"a\xzz", r"a\xff", r"\x20", "\\xé"] {
            assert_eq!(unescaped(kept), kept);
        }
    }
}
