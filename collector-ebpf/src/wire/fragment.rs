//! Which datagram a fragment is a piece of (RFC 791 section 3.2, RFC 8200 section 4.5).

/// A packet that is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The identification that all pieces of the datagram carry, among those between the same addresses.
    pub id: u32,
    /// The protocol that the IPv4 header names, which is part of the datagram's name; 0 in IPv6, where pieces need not
    /// agree on it.
    pub protocol: u8,
    /// It begins the datagram: the transport header is in it, and in no other.
    pub first: bool,
}
