//! What `collector capture` writes in the comments of packets, where the format has no field for it. The grammar is that of
//! [`sink::pcapng`](crate::sink::pcapng).

use super::Marks;

/// Reads a comment of one of our own captures; another one's says nothing.
pub(super) fn marks(comment: &[u8]) -> Marks {
    let mut marks = Marks::NONE;
    let Ok(comment) = str::from_utf8(comment) else { return marks };
    for pair in comment.split(' ') {
        match pair.split_once('=') {
            Some(("packets", number)) => marks.packets = number.parse().unwrap_or(1).max(1),
            Some(("dropped", _)) => marks.is_dropped = true,
            _ => {}
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::{Marks, marks};

    #[test]
    fn what_counts_is_found_among_the_rest() {
        assert_eq!(marks(b"pu=web mark=0x5 packets=44"), Marks { packets: 44, is_dropped: false });
        assert_eq!(marks(b"dropped=NO_SOCKET at=udp+0x4 packets=2"), Marks { packets: 2, is_dropped: true });
        for nothing in
            [&b""[..], b"packets", b"packets=0", b"packets=-1", b"packets=99999999999", b"\xFF packets=4"]
        {
            assert_eq!(marks(nothing), Marks::NONE, "{}", nothing.escape_ascii());
        }
    }
}
