//! What `collector capture` writes in the comments of packets, where the format has no field for it. The grammar is that of
//! [`sink::pcapng`](crate::sink::pcapng).

use super::Marks;

/// Octets at most that are kept of a reason, a place or a unit: the kernel's longest have a hundred or so.
const MOST_NOTE: usize = 256;

/// What is said of a drop, as it is written: [`plain`](DropNote::plain) makes it readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropNote<'a> {
    /// The kernel's reason; `unknown` where it gave none.
    pub reason: &'a str,
    /// The place in the kernel; may be empty.
    pub place: &'a str,
    /// The unit's id; may be empty.
    pub unit: &'a str,
    /// The mark of its socket buffer.
    pub mark: u32,
}

impl DropNote<'_> {
    /// A text without the escapes by which it fits into a comment: `%` and the octet in two hexadecimal digits. Its beginning,
    /// where it is longer than 256 octets.
    #[must_use]
    pub fn plain(written: &str) -> String {
        let mut octets = Vec::new();
        let written = written.as_bytes();
        let mut rest = written.get(..MOST_NOTE).unwrap_or(written);
        while let Some((first, behind)) = rest.split_first() {
            let escaped = (*first == b'%').then(|| behind.split_at_checked(2)).flatten();
            let octet = escaped.and_then(|(digits, behind)| {
                let digits = str::from_utf8(digits).ok()?;
                // As it is written: `+4` is no octet.
                let is_octet = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                Some((u8::from_str_radix(digits, 16).ok().filter(|_| is_octet)?, behind))
            });
            let (octet, behind) = octet.unwrap_or((*first, behind));
            octets.push(octet);
            rest = behind;
        }
        String::from_utf8_lossy(&octets).into_owned()
    }
}

/// Reads a comment of one of our own captures; another one's says nothing.
pub(super) fn marks(comment: &[u8]) -> Marks<'_> {
    let mut marks = Marks::NONE;
    let Ok(comment) = str::from_utf8(comment) else { return marks };
    let (mut reason, mut place, mut unit, mut mark) = (None, "", "", 0);
    for pair in comment.split(' ') {
        match pair.split_once('=') {
            Some(("packets", number)) => marks.packets = number.parse().unwrap_or(1).max(1),
            Some(("dropped", said)) => reason = Some(said),
            Some(("at", said)) => place = said,
            Some(("pu", said)) => unit = said,
            Some(("mark", said)) => {
                let digits = said.strip_prefix("0x").unwrap_or_default();
                mark = u32::from_str_radix(digits, 16).unwrap_or(0);
            }
            _ => {}
        }
    }
    marks.dropped = reason.map(|reason| DropNote { reason, place, unit, mark });
    marks
}

#[cfg(test)]
mod tests {
    use super::{DropNote, MOST_NOTE, Marks, marks};

    #[test]
    fn what_counts_is_found_among_the_rest() {
        assert_eq!(marks(b"pu=web mark=0x5 packets=44"), Marks { packets: 44, dropped: None });
        let dropped = Some(DropNote { reason: "NO_SOCKET", place: "udp+0x4", unit: "", mark: 0x1F });
        assert_eq!(marks(b"dropped=NO_SOCKET at=udp+0x4 mark=0x1f packets=2"), Marks { packets: 2, dropped });
        let dropped = Some(DropNote { reason: "unknown", place: "", unit: "a%20b", mark: 0 });
        assert_eq!(marks(b"dropped=unknown pu=a%20b mark=7"), Marks { packets: 1, dropped });
        for nothing in
            [&b""[..], b"packets", b"packets=0", b"packets=-1", b"packets=99999999999", b"\xFF packets=4"]
        {
            assert_eq!(marks(nothing), Marks::NONE, "{}", nothing.escape_ascii());
        }
    }

    #[test]
    fn what_was_escaped_is_plain_again() {
        for (written, plain) in [
            ("NO_SOCKET", "NO_SOCKET"),
            ("a%20b%3Dc%25", "a b=c%"),
            ("%C3%A4", "\u{e4}"),
            ("100%", "100%"),
            ("%2", "%2"),
            ("%+4", "%+4"),
            ("%FF", "\u{FFFD}"),
            (&"a".repeat(1000), &"a".repeat(MOST_NOTE)),
        ] {
            assert_eq!(DropNote::plain(written), plain, "{written}");
        }
    }
}
