//! Who else writes or compares bits of `skb->mark` on a host, as far as that shows.

use crate::host::rules::MarkRule;

/// Others that use bits of the mark unless they are told otherwise, and how the interfaces begin by which a host shows that
/// they are there. From the documentation of each: Calico's `IptablesMarkMask`, Cilium's identity and magic marks,
/// Tailscale's `TailscaleFwmarkMask`, kube-proxy's masquerade and drop bits, the VPC CNI's connection mark.
const OTHERS: [(&str, u32, &str); 5] = [
    ("Calico", 0xFFFF_0000, "cali"),
    ("Cilium", 0xFFFF_0F00, "cilium_"),
    ("Tailscale", 0x00FF_0000, "tailscale"),
    ("kube-proxy", 0x0000_C000, "kube-"),
    ("the VPC CNI of AWS", 0x0000_0080, "eni"),
];

/// What an operator should know before the bits of `mask` are written: sentences.
pub fn used_by_others<'a>(
    mask: u32,
    interfaces: impl IntoIterator<Item = &'a str>,
    rules: &[MarkRule],
) -> Vec<String> {
    if mask == 0 {
        return Vec::new();
    }
    let interfaces: Vec<&str> = interfaces.into_iter().collect();
    let others = OTHERS.iter().filter(|(_, bits, _)| bits & mask != 0).filter_map(|(who, bits, prefix)| {
        let seen = interfaces.iter().find(|name| name.starts_with(prefix))?;
        Some(format!(
            "marks that nobody else writes: {who} ({seen}) uses the bits {bits:#010x}, and those of units are {mask:#010x}; \
             choose others by mark-mask, or 0 for none"
        ))
    });
    let rules = rules.iter().filter(|rule| rule.mask & mask != 0).map(|rule| {
        let MarkRule { value, mask: bits, priority } = rule;
        let whole = if *bits == u32::MAX { "the whole mark" } else { "bits of the mark" };
        format!(
            "marks that no rule compares: `ip rule` {priority} compares {whole} (fwmark {value:#x}/{bits:#x}), and those of units \
             are {mask:#010x}: it does not match what comes in for a unit; choose others by mark-mask, or 0 for none"
        )
    });
    others.chain(rules).collect()
}

#[cfg(test)]
mod tests {
    use super::used_by_others;
    use crate::host::rules::MarkRule;

    #[test]
    fn who_is_there_and_uses_the_same_bits_is_named() {
        let interfaces = ["lo", "eth0", "cali12ab", "kube-ipvs0"];
        let said = used_by_others(0xFFFC_0000, interfaces, &[]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("Calico (cali12ab) uses the bits 0xffff0000"), "{said:?}");
        let said = used_by_others(0x0000_4000, interfaces, &[]);
        assert!(said.len() == 1 && said[0].contains("kube-proxy"), "{said:?}");
        assert!(used_by_others(0xFFFC_0000, ["lo", "eth0"], &[]).is_empty());
        assert!(used_by_others(0, interfaces, &[]).is_empty());
    }

    #[test]
    fn a_rule_that_compares_our_bits_is_named() {
        let whole = MarkRule { value: 0xCA6C, mask: u32::MAX, priority: 32_764 };
        let apart = MarkRule { value: 1, mask: 0xFF, priority: 100 };
        let said = used_by_others(0xFFFC_0000, [], &[whole, apart]);
        assert_eq!(said.len(), 1);
        assert!(
            said[0].contains("`ip rule` 32764 compares the whole mark (fwmark 0xca6c/0xffffffff)"),
            "{said:?}"
        );
    }
}
