//! From the bytes of a frame to what a flow is made of: one protocol a file, in the order in which a frame is
//! read.
//!
//! Every function reads through [`Bytes`], so the same source runs over a packet in the kernel and over a
//! slice. What a header says is checked against the frame before it is used: a reader gets a value or an
//! [`Unparsed`] reason, never a guess.
//!
//! [`short`] reads the form that makes up nearly all traffic, and nothing else: the programs have it in their hot path,
//! where what it leaves out would cost every packet registers and stack.

pub mod authentication;
pub mod bytes;
pub mod dccp;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod llc;
pub mod mpls;
pub mod pppoe;
pub mod quote;
pub mod sctp;
pub mod short;
pub mod tcp;
pub mod transport;
pub mod tunnel;
pub mod udp;

use crate::abi::counter::Unparsed;
use bytes::Bytes;
use ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use fragment::Piece;
use ipv4::Ipv4;
use ipv6::Ipv6;
use transport::Transport;

/// What stands for the protocol of a packet of which only the addresses are known. That of hop-by-hop options (RFC 8200 section
/// 4.3), which is no transport protocol.
pub const UNKNOWN: u8 = 0;

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// An IP header (tun, wireguard, ipip, sit, layer-3 netkit).
    RawIp,
}

/// What the frame's bytes do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Octets of the whole frame, of which [`Bytes`] may show fewer.
    pub length: u32,
    /// The frame stands for several packets (GSO, GRO): a length field of 0 in a header then means "all of
    /// it".
    pub gso: bool,
}

/// The network layer's addresses, network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Source and destination of an IPv4 packet.
    V4([u8; 4], [u8; 4]),
    /// Source and destination of an IPv6 packet.
    V6([u8; 16], [u8; 16]),
}

/// A frame that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The id of the first VLAN tag in the frame, 0 without one.
    pub vlan: u16,
    /// Source and destination.
    pub addresses: Addresses,
    /// What follows the network layer.
    pub transport: Transport,
    /// The IPv6 packet has the hop-by-hop header of a jumbogram.
    pub jumbo: bool,
    /// It is a fragment.
    pub piece: Option<Piece>,
}

/// Reads a whole frame.
///
/// # Errors
///
/// The reason why the frame is not understood.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, link: Link, frame: Frame) -> Result<Packet, Unparsed> {
    let layer2 = ethernet::parse(bytes, link)?;
    match layer2.ethertype {
        ETHERTYPE_IPV4 => {
            let ip = ipv4::parse(bytes, layer2.next, frame)?;
            let addresses = Addresses::V4(ip.source, ip.destination);
            let Ipv4 { transport, piece, .. } = ip;
            Ok(Packet { vlan: layer2.vlan, addresses, transport, jumbo: false, piece })
        }
        ETHERTYPE_IPV6 => {
            let ip = ipv6::parse(bytes, layer2.next, frame)?;
            let addresses = Addresses::V6(ip.source, ip.destination);
            let Ipv6 { transport, jumbo, piece, .. } = ip;
            Ok(Packet { vlan: layer2.vlan, addresses, transport, jumbo, piece })
        }
        other => Err(ethernet::refuse(other)),
    }
}

#[cfg(test)]
mod frames;
#[cfg(test)]
mod tests;
