//! What frames come to: flows and reasons, as the parser says and as the programs counted.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use collector_ebpf::{
    abi::{
        counter::{UNPARSED_REASONS, Unparsed},
        flow::{RX, TX},
    },
    wire::{self, Addresses, Frame, Link},
};
use collector_user::drain::flow::FlowId;

use crate::{
    Result,
    testrun::{Datapath, Hook},
};

/// Octets of a packet that the programs look at, where its headers are not of the common form.
const SHOWN: usize = 256;

/// What frames come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Packets and octets by flow, of what comes in and of what leaves (`RX`, `TX`).
    pub flows: BTreeMap<FlowId, [(u64, u64); 2]>,
    /// Frames by reason.
    pub unparsed: [u64; UNPARSED_REASONS],
}

impl Reading {
    /// Adds what the parser says of a frame of Ethernet that leaves.
    pub fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.add_at(Hook::Egress, Link::Ethernet, bytes)
    }

    /// Adds what the parser says of a frame that comes in or leaves.
    pub fn add_at(&mut self, hook: Hook, link: Link, bytes: &[u8]) -> Result<()> {
        let shown = &bytes[..bytes.len().min(SHOWN)];
        let frame = Frame { length: u32::try_from(bytes.len())?, gso: false };
        match wire::parse(&shown, link, frame) {
            Ok(packet) => {
                let (source, destination): (IpAddr, IpAddr) = match packet.addresses {
                    Addresses::V4(one, other) => (Ipv4Addr::from(one).into(), Ipv4Addr::from(other).into()),
                    Addresses::V6(one, other) => (Ipv6Addr::from(one).into(), Ipv6Addr::from(other).into()),
                };
                let [s0, s1, d0, d1] = packet.transport.ports;
                let sender = (source, u16::from_be_bytes([s0, s1]));
                let receiver = (destination, u16::from_be_bytes([d0, d1]));
                let (direction, (local, local_port), (remote, remote_port)) = match hook {
                    Hook::Ingress => (RX, receiver, sender),
                    Hook::Egress => (TX, sender, receiver),
                };
                let id = FlowId {
                    local,
                    remote,
                    local_port,
                    remote_port,
                    boundary: packet.vlan,
                    protocol: packet.transport.protocol,
                    ports: packet.transport.kind,
                };
                let (packets, octets) = &mut self.flows.entry(id).or_default()[direction];
                *packets += 1;
                *octets += bytes.len() as u64;
            }
            Err(reason) => self.unparsed[reason as usize] += 1,
        }
        Ok(())
    }

    /// What the programs have counted since they began anew.
    pub fn counted(datapath: &mut Datapath) -> Result<Self> {
        let mut counted = Self { unparsed: datapath.ledger()?.unparsed, ..Self::default() };
        for delta in &datapath.deltas()? {
            let flow = counted.flows.entry(delta.id).or_default();
            for ((packets, octets), (more, more_octets)) in
                flow.iter_mut().zip(delta.packets.iter().zip(&delta.bytes))
            {
                *packets += more;
                *octets += more_octets;
            }
        }
        Ok(counted)
    }

    /// The reasons that there were, and how often.
    pub fn reasons(&self) -> Vec<(Unparsed, u64)> {
        Unparsed::ALL.into_iter().zip(self.unparsed).filter(|(_, count)| *count != 0).collect()
    }
}
