//! Text from the network or from others, made harmless for a terminal.

use std::fmt;

/// Shows printable ASCII as it is and everything else as an escape: `\n`, `\u{1b}`. A backslash is doubled, so that
/// no two texts look the same.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |octet: &u8| matches!(octet, b' '..=b'~') && *octet != b'\\';
        let mut rest = self.0;
        while !rest.is_empty() {
            // As a rule that is all of it.
            let plain = rest.bytes().take_while(is_plain).count();
            let (plain, other) = rest.split_at_checked(plain).unwrap_or((rest, ""));
            f.write_str(plain)?;
            let mut characters = other.chars();
            if let Some(character) = characters.next() {
                write!(f, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn only_printable_ascii_comes_through() {
        assert_eq!(Escaped("web-1 'a' \"b\"").to_string(), "web-1 'a' \"b\"");
        assert_eq!(Escaped("a\x1b[2Jb\n\r\t\0\x7f").to_string(), r"a\u{1b}[2Jb\n\r\t\u{0}\u{7f}");
        assert_eq!(Escaped("é\u{202e}\u{9b}").to_string(), r"\u{e9}\u{202e}\u{9b}");
        assert_eq!(Escaped("\\n").to_string(), r"\\n");
        for code in 0..0x3000 {
            let text = char::from_u32(code).unwrap().to_string();
            assert!(Escaped(&text).to_string().bytes().all(|octet| (b' '..=b'~').contains(&octet)));
        }
    }
}
