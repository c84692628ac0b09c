//! What `collector capture` writes in the comments of packets, where the format has no field for it. The grammar is that of
//! [`sink::pcapng`](crate::sink::pcapng).

use super::{DropNote, Marks};

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
    use super::{DropNote, Marks, marks};

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
}
