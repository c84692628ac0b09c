//! What no field of the format holds, in words: the grammar is in the [module above](super).

use std::fmt::{self, Write as _};

use crate::event::{Captured, PacketEvent};

/// Writes what is known of a packet beside its octets; nothing where there is nothing.
pub(super) fn of_packet(text: &mut String, packet: &Captured) {
    let mut pairs = Pairs { text, is_first: true };
    if packet.event == PacketEvent::Dropped {
        let reason = if packet.drop_reason.is_empty() { "unknown" } else { &*packet.drop_reason };
        pairs.add("dropped", Value(reason));
        if !packet.drop_place.is_empty() {
            pairs.add("at", Value(&packet.drop_place));
        }
        if !packet.ethertype.is_empty() {
            pairs.add("ethertype", Value(&packet.ethertype));
            pairs.add("length", packet.length);
        }
    }
    if !packet.puid.is_empty() {
        pairs.add("pu", Value(&packet.puid));
    }
    if packet.mark != 0 {
        pairs.add("mark", format_args!("{:#x}", packet.mark));
    }
    if packet.packets > 1 {
        pairs.add("packets", packet.packets);
    }
}

/// Names and counts, in their order.
pub(super) fn of_counts<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut text = String::new();
    let mut pairs = Pairs { text: &mut text, is_first: true };
    for (name, count) in counts {
        pairs.add(name, count);
    }
    text
}

/// `name=value`, with a space in between.
struct Pairs<'a> {
    text: &'a mut String,
    is_first: bool,
}

impl Pairs<'_> {
    fn add(&mut self, name: &str, value: impl fmt::Display) {
        let gap = if std::mem::take(&mut self.is_first) { "" } else { " " };
        // A text takes all that is written to it.
        let _ = write!(self.text, "{gap}{name}={value}");
    }
}

/// A text that others have chosen.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = *self;
        for character in text.chars() {
            if character.is_control() || character.is_whitespace() || matches!(character, '%' | '=') {
                let mut octets = [0; 4];
                for octet in character.encode_utf8(&mut octets).bytes() {
                    write!(f, "%{octet:02X}")?;
                }
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{of_counts, of_packet};
    use crate::event::{Captured, PacketEvent};

    fn comment(packet: &Captured) -> String {
        let mut text = String::new();
        of_packet(&mut text, packet);
        text
    }

    #[test]
    fn only_what_is_known_is_said_in_a_fixed_order() {
        assert_eq!(comment(&Captured { packets: 1, ..Captured::default() }), "");
        let host =
            Captured { event: PacketEvent::Received, puid: "host".into(), packets: 1, ..Captured::default() };
        assert_eq!(comment(&host), "pu=host");
        let all = Captured {
            event: PacketEvent::Dropped,
            drop_reason: "NETFILTER_DROP".into(),
            drop_place: "nft_do_chain+0x1".into(),
            puid: "web".into(),
            mark: 0x194_0000,
            packets: 45,
            ..Captured::default()
        };
        assert_eq!(
            comment(&all),
            "dropped=NETFILTER_DROP at=nft_do_chain+0x1 pu=web mark=0x1940000 packets=45"
        );
        let arp = Captured { ethertype: "arp".into(), length: 42, ..all };
        assert!(comment(&arp).contains(" at=nft_do_chain+0x1 ethertype=arp length=42 pu=web "), "{arp:?}");
        let unexplained = Captured { event: PacketEvent::Dropped, ..Captured::default() };
        assert_eq!(comment(&unexplained), "dropped=unknown");
    }

    #[test]
    fn no_name_looks_like_another_pair() {
        let named = |puid: &str| comment(&Captured { puid: puid.into(), ..Captured::default() });
        assert_eq!(named("a mark=1"), "pu=a%20mark%3D1");
        assert_eq!(named("100%\n\u{1b}[31m"), "pu=100%25%0A%1B[31m");
        assert_eq!(named("caf\u{e9}\u{a0}"), "pu=caf\u{e9}%C2%A0");
    }

    #[test]
    fn counts_have_names() {
        assert_eq!(of_counts([]), "");
        assert_eq!(of_counts([("lost", 3), ("queue_full.capture", 0)]), "lost=3 queue_full.capture=0");
    }
}
