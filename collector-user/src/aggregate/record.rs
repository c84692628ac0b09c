//! A flow as the record that collectors get: indexes become names, ticks become times.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use collector_ebpf::abi::{
    flow::{FIRST_BOUNDARY, RX, TX, how, ports},
    network,
    pu::index,
};

use crate::{
    aggregate::{booking::HostEnd, flow::Flow},
    clock::Moment,
    drain::flow::FlowId,
    event::{AttributedBy, EndPoint, EndPointType, FlowRecord, ServiceType, Text, Tunnel, reason},
    policy::{networks::Networks, verdicts::Verdicts},
    pu::registry::{Registry, Unit, is_named},
};

/// Texts that stand in every record: shared, not copied.
#[derive(Debug)]
pub struct Scribe {
    nothing: Text,
    default: Text,
    policy: Text,
    /// Names of interfaces, by the number that the programs count with.
    pub interfaces: BTreeMap<u16, Text>,
    /// Kinds and identifiers of networks inside of tunnels, by the number that stands for each in place of a boundary.
    pub networks: BTreeMap<u16, (u8, u32)>,
    /// Networks outside of all units that have a name.
    external: Networks,
}

impl Default for Scribe {
    fn default() -> Self {
        Self {
            nothing: "".into(),
            default: "default".into(),
            policy: reason::POLICY_DROP.into(),
            interfaces: BTreeMap::new(),
            networks: BTreeMap::new(),
            external: Networks::default(),
        }
    }
}

impl Scribe {
    /// One that knows these networks.
    pub fn new(external: Networks) -> Self {
        Self { external, ..Self::default() }
    }

    /// Has other networks have names from here on.
    pub fn name_networks(&mut self, external: Networks) {
        self.external = external;
    }

    /// The record of what was counted for a flow since its last one.
    ///
    /// `verdicts` say what its verdict's number means; `host_end` is the unit whose socket on this host is one end of the flow,
    /// where that is another than the flow's.
    pub fn flow(
        &self,
        id: &FlowId,
        flow: &Flow,
        host_end: Option<HostEnd>,
        verdicts: &Verdicts,
        units: &Registry,
        moment: &Moment,
    ) -> FlowRecord {
        let unit = units.get(flow.pu);
        let (local_port, remote_port) = shown_ports(id);
        let of_host =
            |remote: bool| host_end.filter(|end| end.is_remote == remote).map(|end| units.get(end.pu));
        let own = self.own(of_host(false).unwrap_or(unit), id.local);
        let other =
            of_host(true).map_or_else(|| self.other(units, id.remote), |unit| self.own(unit, id.remote));
        let local = EndPoint { ip: Some(id.local), port: local_port, ..own };
        let remote = EndPoint { ip: Some(id.remote), port: remote_port, ..other };
        let (source, destination, forth, back) =
            if flow.initiator.local { (local, remote, TX, RX) } else { (remote, local, RX, TX) };
        let rejected_packets = flow.rejected.iter().sum();
        // Of a number that nobody knows any more nothing is said.
        let verdict = verdicts.get(flow.verdict).cloned().unwrap_or_default();
        let [received, sent] = flow.tcp_flags;
        let (tunnel, tunnel_id) =
            self.networks.get(&id.boundary).map_or((Tunnel::None, 0), |(kind, id)| (tunnel(*kind), *id));
        FlowRecord {
            context_id: unit.map_or_else(|| self.nothing.clone(), |unit| unit.id.clone()),
            namespace: unit.map_or_else(|| self.nothing.clone(), |unit| unit.namespace.clone()),
            source: Some(source),
            destination: Some(destination),
            tags: unit.map_or_else(Arc::default, |unit| unit.tags.clone()),
            drop_reason: if rejected_packets == 0 { self.nothing.clone() } else { self.policy.clone() },
            policy_id: verdict.policy_id,
            observed_policy_id: verdict.observed_policy_id,
            service_type: ServiceType::L3,
            service_id: self.nothing.clone(),
            count: flow.begun,
            action: verdict.action,
            observed_action: verdict.observed_action,
            l4_protocol: id.protocol,
            packets: of(&flow.packets, forth),
            bytes: of(&flow.bytes, forth),
            reply_packets: of(&flow.packets, back),
            reply_bytes: of(&flow.bytes, back),
            skbs: of(&flow.skbs, forth),
            reply_skbs: of(&flow.skbs, back),
            first_seen: moment.wall_of_boot(flow.first),
            last_seen: moment.wall_of_boot(flow.last),
            tcp_flags: u16::from(received | sent),
            interface: self.interfaces.get(&flow.interface).unwrap_or(&self.nothing).clone(),
            tunnel,
            tunnel_id,
            vlan: if id.boundary < FIRST_BOUNDARY { id.boundary } else { 0 },
            rejected_packets,
            dropped_packets: 0,
            kernel_reason: self.nothing.clone(),
            drop_place: self.nothing.clone(),
            initiator_by: flow.initiator.by,
            attributed_by: attributed_by(flow.how),
            ended: flow.ended,
            reset_by: flow.reset_by,
        }
    }

    /// The end that is the unit's. Who is only `forwarded` or `unknown` has no identity.
    pub(super) fn own(&self, unit: Option<&Unit>, address: IpAddr) -> EndPoint {
        match unit {
            Some(unit) if matches!(unit.index, index::HOST | index::OVERLAY) || is_named(unit.index) => {
                self.of_unit(unit)
            }
            _ => self.outside(address),
        }
    }

    /// The end that is elsewhere: another unit, if it has the address.
    pub(super) fn other(&self, units: &Registry, address: IpAddr) -> EndPoint {
        units.of_address(address).map_or_else(|| self.outside(address), |unit| self.of_unit(unit))
    }

    fn of_unit(&self, unit: &Unit) -> EndPoint {
        EndPoint { id: unit.id.clone(), r#type: EndPointType::Pu, ..self.nobody() }
    }

    /// Who is no unit: a network that has a name, or nobody.
    fn outside(&self, address: IpAddr) -> EndPoint {
        EndPoint { id: self.external.of(address).unwrap_or(&self.default).clone(), ..self.nobody() }
    }

    fn nobody(&self) -> EndPoint {
        let nothing = || self.nothing.clone();
        EndPoint {
            id: nothing(),
            ip: None,
            uri: nothing(),
            http_method: nothing(),
            user_id: nothing(),
            user: nothing(),
            r#type: EndPointType::ExternalIp,
            port: 0,
        }
    }
}

/// Local and remote port of a record. Of an ICMP message that is no echo, type and code stand in the destination port,
/// as in `NetFlow` (RFC 3954 section 8, `L4_DST_PORT`); fragments have none.
fn shown_ports(id: &FlowId) -> (u16, u16) {
    match id.ports {
        ports::FRAGMENT => (0, 0),
        ports::ICMP => (0, id.remote_port),
        _ => (id.local_port, id.remote_port),
    }
}

fn of(pair: &[u64; 2], direction: usize) -> u64 {
    pair.get(direction).copied().unwrap_or(0)
}

/// The word for a tunnel's kind.
const fn tunnel(kind: u8) -> Tunnel {
    match kind {
        network::VXLAN => Tunnel::Vxlan,
        network::GENEVE => Tunnel::Geneve,
        network::GRE => Tunnel::Gre,
        network::IPIP => Tunnel::Ipip,
        network::SIT => Tunnel::Sit,
        _ => Tunnel::None,
    }
}

fn attributed_by(bits: u8) -> AttributedBy {
    match how::attributed_by(bits) {
        how::BY_INTERFACE | how::BY_CIDR => AttributedBy::Declared,
        how::BY_ADDRESS => AttributedBy::Address,
        how::BY_ROUTE => AttributedBy::Route,
        how::BY_VETH => AttributedBy::Veth,
        how::BY_SOCKET => AttributedBy::Socket,
        how::BY_SILENCE => AttributedBy::Unanswered,
        _ => AttributedBy::None,
    }
}
