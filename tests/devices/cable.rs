//! A cable with a network card at each of its ends, as the guest has them.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use collector_tests::{Result, command, lab::End, netns::NetNs};

/// Cable number N: its cards have the hardware addresses `02:77:00:00:0N:01` and `:02`.
pub(crate) struct Cable {
    /// One end: `10.77.N.1` and `fd77:N::1`, once it is given its addresses.
    pub(crate) a: End,
    /// The other: `.2` and `::2`.
    pub(crate) b: End,
}

impl Cable {
    /// Puts its cards into two hosts. They are up, and have no addresses yet.
    pub(crate) fn lay(one: &NetNs, two: &NetNs, number: u8) -> Result<Self> {
        Ok(Self { a: card(one, number, 1)?, b: card(two, number, 2)? })
    }
}

impl Drop for Cable {
    /// The next test finds them where this one did.
    fn drop(&mut self) {
        for end in [&self.a, &self.b] {
            let _ = end.place.ip(&format!("link set {} netns 1", end.dev));
        }
    }
}

fn card(host: &NetNs, number: u8, last: u8) -> Result<End> {
    let mac = [0x02, 0x77, 0, 0, number, last];
    let written = mac.map(|octet| format!("{octet:02x}")).join(":");
    let links = command::line("ip -o link")?;
    let line = links.lines().find(|line| line.contains(&written));
    let line =
        line.with_context(|| format!("no network card {written}: is this a guest of `cargo xtask vm`?"))?;
    let dev = line.split(": ").nth(1).context("ip shows a name")?.to_owned();
    command::line(&format!("ip link set {dev} netns {}", host.place().name()))?;
    host.place().ip(&format!("link set {dev} up"))?;
    let mut end = End {
        place: host.place().clone(),
        dev,
        ifindex: 0,
        mac,
        v4: Ipv4Addr::new(10, 77, number, last),
        v6: Ipv6Addr::new(0xFD77, number.into(), 0, 0, 0, 0, 0, last.into()),
    };
    end.ifindex = end.index()?;
    end.wait_for_carrier()?;
    Ok(end)
}
