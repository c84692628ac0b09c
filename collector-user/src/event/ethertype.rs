//! What a frame carries that is no IP packet, by name.

/// The least number that is an Ethertype: below stands a length, and what follows is LLC (IEEE 802.3).
const FIRST: u16 = 0x0600;

/// The word for an Ethertype (IEEE 802 numbers), its number in hexadecimal where people know none; empty for IP.
#[must_use]
pub fn word(ethertype: u16) -> String {
    let known = match ethertype {
        0x0800 | 0x86DD => "",
        0x0806 => "arp",
        0x0842 => "wake-on-lan",
        0x8035 => "rarp",
        0x8100 => "vlan",
        0x8809 => "slow",
        0x8847 => "mpls",
        0x8848 => "mpls-multicast",
        0x8863 => "pppoe-discovery",
        0x8864 => "pppoe",
        0x888E => "eapol",
        0x88A8 => "qinq",
        0x88CC => "lldp",
        0x88E5 => "macsec",
        0x88F7 => "ptp",
        0x8902 => "cfm",
        0x8906 => "fcoe",
        0x9000 => "loopback",
        length if length < FIRST => "llc",
        other => return format!("{other:#06x}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn what_nobody_knows_by_name_has_a_number() {
        let numbers = [0x0800, 0x86DD, 0x0806, 0x88CC, 0x0026, 0x88B5, 0x0700];
        assert_eq!(numbers.map(word), ["", "", "arp", "lldp", "llc", "0x88b5", "0x0700"]);
    }
}
