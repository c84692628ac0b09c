//! The kernel's table of TCP sockets: `/proc/net/tcp` and `tcp6` (`proc_pid_net(5)`, `Documentation/networking/proc_net_tcp.rst`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    /// The id of the user who has it.
    pub(super) user: u32,
    /// Its inode number; 0 where nobody holds it any more.
    pub(super) inode: u64,
}

/// What it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Established,
    Listening,
    Other,
}

/// The sockets of a table; lines that are none are passed over, as its heading is.
pub(super) fn entries(table: &str) -> impl Iterator<Item = Entry> {
    table.lines().filter_map(entry)
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`
fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace();
    let (local, remote) = (end(words.nth(1)?)?, end(words.next()?)?);
    let state = match words.next()? {
        "01" => State::Established,
        "0A" => State::Listening,
        _ => State::Other,
    };
    let (user, inode) = (words.nth(3)?.parse().ok()?, words.nth(1)?.parse().ok()?);
    Some(Entry { local, remote, state, user, inode })
}

/// An address and a port in hexadecimal digits. The address is words of 32 bits, each in network byte order but written as a
/// number of this machine; IPv4 has one, IPv6 four.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (at, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(octets.into()).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::{Entry, State, entries};

    #[test]
    fn lines_of_a_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     \x20  0: 0200000A:0016 070200C0:C350 01 00000000:00000000 02:000A7D8C 00000000  1000        0 1003 2\n\
                     \x20  1: 0000000000000000FFFF00000200000A:0016 0000000000000000FFFF0000070200C0:C351 06 \
                     00000000:00000000 03:00000F4E 00000000     0        0 0 3 0000000000000000\n\
                     broken\n   2: 0200000A:0016\n   3: 0200000:0016 070200C0:C350 01 0:0 0:0 0 0 0 1\n";
        let entry = |remote: &str, state, user, inode| Entry {
            local: "10.0.0.2:22".parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
            user,
            inode,
        };
        assert_eq!(
            entries(table).collect::<Vec<_>>(),
            [
                entry("192.0.2.7:50000", State::Established, 1000, 1003),
                entry("192.0.2.7:50001", State::Other, 0, 0)
            ]
        );
    }
}
