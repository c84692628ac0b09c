//! What frames come to: flows and reasons, as the parser says and as the programs counted.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use collector_ebpf::{
    abi::{
        counter::{UNPARSED_REASONS, Unparsed},
        flow::TX,
    },
    wire::{self, Addresses, Frame, Link},
};
use collector_user::drain::flow::FlowId;

use crate::{Result, testrun::Datapath};

/// Octets of a packet that the programs look at, where its headers are not of the common form.
const SHOWN: usize = 256;

/// What frames that leave come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Packets and octets by flow.
    pub flows: BTreeMap<FlowId, (u64, u64)>,
    /// Frames by reason.
    pub unparsed: [u64; UNPARSED_REASONS],
}

impl Reading {
    /// Adds what the parser says of a frame of Ethernet.
    pub fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let shown = &bytes[..bytes.len().min(SHOWN)];
        let frame = Frame { length: u32::try_from(bytes.len())?, gso: false };
        match wire::parse(&shown, Link::Ethernet, frame) {
            Ok(packet) => {
                let (local, remote): (IpAddr, IpAddr) = match packet.addresses {
                    Addresses::V4(one, other) => (Ipv4Addr::from(one).into(), Ipv4Addr::from(other).into()),
                    Addresses::V6(one, other) => (Ipv6Addr::from(one).into(), Ipv6Addr::from(other).into()),
                };
                let [s0, s1, d0, d1] = packet.transport.ports;
                let id = FlowId {
                    local,
                    remote,
                    local_port: u16::from_be_bytes([s0, s1]),
                    remote_port: u16::from_be_bytes([d0, d1]),
                    boundary: packet.vlan,
                    protocol: packet.transport.protocol,
                    ports: packet.transport.kind,
                };
                let (packets, octets) = self.flows.entry(id).or_default();
                *packets += 1;
                *octets += bytes.len() as u64;
            }
            Err(reason) => self.unparsed[reason as usize] += 1,
        }
        Ok(())
    }

    /// What the programs have counted of frames that left, since they began anew.
    pub fn counted(datapath: &mut Datapath) -> Result<Self> {
        let mut counted = Self { unparsed: datapath.ledger()?.unparsed, ..Self::default() };
        for delta in &datapath.deltas()? {
            let (packets, octets) = counted.flows.entry(delta.id).or_default();
            *packets += delta.packets[TX];
            *octets += delta.bytes[TX];
        }
        Ok(counted)
    }

    /// The reasons that there were, and how often.
    pub fn reasons(&self) -> Vec<(Unparsed, u64)> {
        Unparsed::ALL.into_iter().zip(self.unparsed).filter(|(_, count)| *count != 0).collect()
    }
}
