//! Where fields lie in the kernel's own structures.
//!
//! rustc makes no relocations against the kernel's types, so user space looks the places of fields up in the running
//! kernel's type information and hands them over as constants.

use aya_ebpf::Global;

/// Declares where fields lie, in octets from the beginning of their structure.
macro_rules! places {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {$(
        $(#[doc = $doc])+
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<u32> = Global::new(0);
    )+};
}

places! {
    /// `sk_buff.dev`.
    SKB_DEV,
    /// `sk_buff.sk`.
    SKB_SK,
    /// `sk_buff.head`.
    SKB_HEAD,
    /// `sk_buff.data`.
    SKB_DATA,
    /// `sk_buff.end`.
    SKB_END,
    /// `sk_buff.len`.
    SKB_LEN,
    /// `sk_buff.data_len`.
    SKB_DATA_LEN,
    /// `sk_buff.protocol`.
    SKB_PROTOCOL,
    /// `sk_buff.network_header`.
    SKB_NETWORK,
    /// `sk_buff.mac_header`.
    SKB_MAC,
    /// `sk_buff.skb_iif`.
    SKB_IIF,
    /// `sk_buff.mark`.
    SKB_MARK,
    /// The octet that holds `sk_buff.pkt_type`.
    SKB_PKT_TYPE,
    /// Its first bit in that octet.
    SKB_PKT_TYPE_BIT,
    /// `sk_buff.cb`, and in it `qdisc_skb_cb.data`: what programs at TC know as the control block.
    SKB_CB,
    /// `sk_buff.vlan_tci`.
    SKB_VLAN_TCI,
    /// `sk_buff.vlan_proto`.
    SKB_VLAN_PROTO,
    /// The octet that holds `sk_buff.vlan_present`, which there is before Linux 6.2.
    SKB_VLAN_PRESENT,
    /// The bit in that octet; 0 where there is none, and a tag that is absent has the protocol 0.
    SKB_VLAN_PRESENT_BIT,
    /// `sk_buff.transport_header`.
    SKB_TRANSPORT,
    /// `sk_buff.inner_transport_header`.
    SKB_INNER_TRANSPORT,
    /// `skb_shared_info.gso_type`.
    SHARED_TYPE,
    /// `skb_shared_info.gso_size`, and behind it `gso_segs`.
    SHARED_SIZES,
    /// `net_device.ifindex`.
    DEV_INDEX,
    /// `net_device.type`.
    DEV_TYPE,
    /// `net_device.nd_net`.
    DEV_NET,
    /// `sock.__sk_common.skc_net`.
    SOCK_NET,
    /// `net.ns.inum`.
    NET_INODE,
}
