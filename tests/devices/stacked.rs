//! Devices above a card: each packet crosses several, and is counted at the card alone.

use std::net::SocketAddr;

use anyhow::{Context as _, anyhow, ensure};
use collector_tests::{
    PATIENCE, Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Finished, Running, options},
    events::{self, Totals},
    frames::TCP,
    lab::{End, silent_host},
    netns::{NetNs, Place},
    talk::{Amount, Talk, ask, asker, listener},
    traffic::{self, ANSWERS, Host, headers},
};

use crate::{assert_balanced, cable::Cable, team};

/// Two hosts and what they talk by: what stands above the cards of the first, and of the second.
struct Stack {
    cards: Vec<End>,
    here: End,
    there: End,
    /// VLAN in which it crosses the cable, and the octets of its tags.
    vlan: u16,
    tags: u64,
}

impl Stack {
    /// `commands` make the device `top` on either host from the card `CARD` with its `ADDRESS`, or from two of them: those of
    /// `ip`, and two of our own for what `ip` has no words for.
    fn new(cables: &[Cable], commands: &[&str], top: &str, vlan: u16, tags: u64) -> Result<Self> {
        let end = |cards: &[&End]| -> Result<End> {
            let device = End { dev: top.to_owned(), ..cards[0].clone() };
            let address = device.mac.map(|octet| format!("{octet:02x}")).join(":");
            for command in commands {
                if let Some(mode) = command.strip_prefix("team mode ") {
                    team::set_mode(&device, mode)?;
                    continue;
                }
                if *command == "team active CARD" {
                    team::set_active(&device, cards[0].index()?)?;
                    continue;
                }
                let command = cards
                    .iter()
                    .zip(["CARD", "OTHER"])
                    .fold(command.replace("ADDRESS", &address), |line, (card, word)| {
                        line.replace(word, &card.dev)
                    });
                cards[0].place.ip(&command)?;
            }
            let end = End { mac: address_of(top, &cards[0].place)?, ..device };
            end.has_its_addresses()?;
            end.wait_for_carrier()?;
            Ok(end)
        };
        let (a, b): (Vec<_>, Vec<_>) = cables.iter().map(|cable| (&cable.a, &cable.b)).unzip();
        let (here, there) = (end(&a)?, end(&b)?);
        here.knows(&there)?;
        there.knows(&here)?;
        Ok(Self { cards: a.into_iter().cloned().collect(), here, there, vlan, tags })
    }

    /// As it crosses the cable.
    fn tagged(&self, talk: Talk) -> Talk {
        let with = |amount: Amount| Amount { bytes: amount.bytes + amount.packets * self.tags, ..amount };
        Talk { vlan: self.vlan, forth: with(talk.forth), back: with(talk.back), ..talk }
    }

    /// Datagrams both ways and, where the way keeps their order, a long connection, over both families: what the collector
    /// says, and what it has to.
    fn check(&self, in_order: bool) -> Result<Finished> {
        self.check_with(in_order, None)
    }

    /// The same, and so many datagrams more that nobody answers, out and in: in one test, for they take a guest some seconds.
    fn check_with(&self, in_order: bool, unanswered: Option<[u64; 2]>) -> Result<Finished> {
        let before: Vec<_> = self.cards.iter().map(End::counters).collect::<Result<_>>()?;
        let collector = Running::start(&self.here.place, options())?;
        let _answering = [Host::new(&self.here, &[])?, Host::new(&self.there, &[])?];
        let mut books = Books::new();
        for version in [4, 6] {
            let (here, there) = (self.here.address(version), self.there.address(version));
            let out = asker(&self.here.place, (here, 40_000).into(), (there, ANSWERS).into())?;
            books.asked("host", &self.tagged(ask(&out, 2000, 1400)?));
            let back = asker(&self.there.place, (there, 40_000).into(), (here, ANSWERS).into())?;
            books.was_asked("host", &self.tagged(ask(&back, 700, 1400)?));
            if !in_order {
                // Segments that come when the socket is gone are answered by none.
                continue;
            }
            // Super-packets on the way out.
            let connection = traffic::transfer(&self.here, &self.there, version, 5001, 5_000_000, 500_000)?;
            let each = headers(here) + 20 + 12;
            let (client, server) = (&connection.client_info, &connection.server_info);
            // The answer to the SYN is none of the server's socket, and the first segments have 8 octets more of options.
            let amount = |sent, packets| Amount { packets, bytes: sent + packets * each + 8 };
            books.asked(
                "host",
                &self.tagged(Talk {
                    protocol: TCP,
                    vlan: 0,
                    source: connection.client,
                    destination: SocketAddr::new(there, 5001),
                    forth: amount(client.bytes_sent, client.segs_out),
                    back: amount(server.bytes_sent, server.segs_out + 1),
                    begun: 1,
                }),
            );
        }
        if let Some([out, back]) = unanswered {
            books.asked("host", &self.tagged(stream(&self.here, &self.there, out)?));
            books.was_asked("host", &self.tagged(stream(&self.there, &self.here, back)?));
        }
        // A card counts what it has sent once the device says that it has it, which is looked at when a packet comes in: what
        // crosses last is an answer. Otherwise a packet that is only just away is one that was dropped behind the programs.
        let (here, there) = (self.here.address(4), self.there.address(4));
        let last = asker(&self.here.place, (here, 40_001).into(), (there, ANSWERS).into())?;
        books.asked("host", &self.tagged(ask(&last, 2, 100)?));
        let finished = collector.stop()?;
        assert_balanced(&finished);
        books.assert_kept(&finished);
        let cards = self.cards.iter().zip(&before);
        let crossed: Vec<_> =
            cards.map(|(card, before)| Ok(card.counters()?.since(before))).collect::<Result<_>>()?;
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &crossed);
        Ok(finished)
    }
}

/// Datagrams from one end to the other, over IPv4: as many at a time as there is room for on the way and in the socket, so that
/// none is lost. One question after another would take a guest longer than a test may.
fn stream(from: &End, to: &End, count: u64) -> Result<Talk> {
    const AT_ONCE: u64 = 50;
    const SIZE: usize = 1400;
    let (source, destination): (SocketAddr, SocketAddr) = ((from.v4, 40_002).into(), (to.v4, 6000).into());
    let sender = asker(&from.place, source, destination)?;
    let receiver = listener(&to.place, destination)?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        for _ in 0..now {
            sender.send(&[0x55; SIZE])?;
        }
        for _ in 0..now {
            let length = receiver.recv(&mut [0; 2048]).context("not all that was sent comes")?;
            ensure!(length == SIZE, "another datagram at {destination}");
        }
        left -= now;
    }
    Ok(Talk::one_way(source, destination, count, SIZE))
}

/// The hardware address of a device: a macvlan has one of its own.
fn address_of(dev: &str, place: &Place) -> Result<[u8; 6]> {
    let shown = place.ip(&format!("-o link show {dev}"))?;
    let written = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let octets =
        written.context("ip shows an address")?.split(':').map(|octet| u8::from_str_radix(octet, 16));
    let octets: Vec<u8> = octets.collect::<std::result::Result<_, _>>()?;
    octets.try_into().map_err(|octets| anyhow!("{octets:?} is no hardware address"))
}

fn roles(finished: &Finished) -> Vec<(&str, &str)> {
    finished.status.interfaces.iter().map(|it| (&*it.name, &*it.role)).collect()
}

fn hosts() -> Result<[NetNs; 2]> {
    Ok([silent_host()?, silent_host()?])
}

#[test]
#[ignore = "needs two network cards on a cable: cargo xtask vm"]
fn a_packet_that_crosses_a_bridge_a_vlan_and_a_card_is_counted_at_the_card() -> Result<()> {
    let hosts = hosts()?;
    let cable = [Cable::lay(&hosts[0], &hosts[1], 0)?];
    let commands = [
        "link add link CARD name v29 type vlan id 29 egress-qos-map 0:2",
        "link add br0 type bridge mcast_snooping 0",
        "link set v29 master br0",
        "link set v29 up",
        "link set br0 up",
    ];
    let stack = Stack::new(&cable, &commands, "br0", 29, 4)?;
    let finished = stack.check_with(true, Some([20_000, 7_000]))?;
    let card = &*cable[0].a.dev;
    assert_eq!(
        roles(&finished).into_iter().filter(|(name, _)| *name != "lo").collect::<Vec<_>>().as_slice(),
        [(card, "uplink"), ("v29", "stacked"), ("br0", "stacked")]
    );
    Ok(())
}

#[test]
#[ignore = "needs two network cards on a cable: cargo xtask vm"]
fn a_customers_vlan_in_a_providers_is_the_providers() -> Result<()> {
    let hosts = hosts()?;
    let cable = [Cable::lay(&hosts[0], &hosts[1], 0)?];
    let commands = [
        "link add link CARD name v100 type vlan proto 802.1ad id 100",
        "link add link v100 name v29 type vlan id 29",
        "link set v100 up",
        "link set v29 up",
    ];
    Stack::new(&cable, &commands, "v29", 100, 8)?.check(true)?;
    Ok(())
}

#[test]
#[ignore = "needs two network cards on a cable: cargo xtask vm"]
fn what_a_macvlan_sends_is_counted_at_the_card() -> Result<()> {
    let hosts = hosts()?;
    let cable = [Cable::lay(&hosts[0], &hosts[1], 0)?];
    let commands = ["link add link CARD name m0 type macvlan mode bridge", "link set m0 up"];
    let finished = Stack::new(&cable, &commands, "m0", 0, 0)?.check(true)?;
    assert!(roles(&finished).contains(&("m0", "stacked")), "{:?}", roles(&finished));
    Ok(())
}

#[test]
#[ignore = "needs two network cards on each of two cables: cargo xtask vm"]
fn a_bond_spreads_a_flow_over_its_cards_and_it_stays_one() -> Result<()> {
    for mode in ["balance-rr", "active-backup"] {
        let hosts = hosts()?;
        let cables = [Cable::lay(&hosts[0], &hosts[1], 0)?, Cable::lay(&hosts[0], &hosts[1], 1)?];
        let bond = format!("link add bond0 type bond mode {mode}");
        let commands = [
            &*bond,
            "link set CARD down",
            "link set CARD master bond0",
            "link set OTHER down",
            "link set OTHER master bond0",
            "link set bond0 up",
        ];
        let in_turn = mode == "balance-rr";
        let finished = Stack::new(&cables, &commands, "bond0", 0, 0)?.check(!in_turn)?;
        assert_spread(&finished, "bond0", &cables, in_turn);
    }
    Ok(())
}

#[test]
#[ignore = "needs two network cards on each of two cables: cargo xtask vm"]
fn a_team_spreads_a_flow_over_its_cards_and_it_stays_one() -> Result<()> {
    for mode in ["roundrobin", "activebackup"] {
        let hosts = hosts()?;
        let cables = [Cable::lay(&hosts[0], &hosts[1], 0)?, Cable::lay(&hosts[0], &hosts[1], 1)?];
        let set = format!("team mode {mode}");
        let mut commands = vec![
            // That of the card: in mode `activebackup` it is teamd that gives ports the address of their team.
            "link add team0 address ADDRESS type team",
            &*set,
            "link set CARD down",
            "link set CARD master team0",
            "link set OTHER down",
            "link set OTHER master team0",
            "link set team0 up",
        ];
        let in_turn = mode == "roundrobin";
        if !in_turn {
            commands.push("team active CARD");
        }
        let finished = Stack::new(&cables, &commands, "team0", 0, 0)?.check(!in_turn)?;
        assert_spread(&finished, "team0", &cables, in_turn);
    }
    Ok(())
}

/// A device over two cards sends by both in turn, or by the first alone: what each has counted is told by the card itself.
fn assert_spread(finished: &Finished, device: &str, cables: &[Cable; 2], in_turn: bool) {
    let roles = roles(finished);
    assert!(roles.contains(&(device, "stacked")), "{roles:?}");
    let cards = [&*cables[0].a.dev, &*cables[1].a.dev];
    assert!(cards.iter().all(|card| roles.contains(&(card, "uplink"))), "{roles:?}");
    let by =
        |card: &str| events::total(&finished.events, |flow| *flow.interface == *card) != Totals::default();
    assert!(in_turn || !by(cards[1]), "the second card is the backup");
}
