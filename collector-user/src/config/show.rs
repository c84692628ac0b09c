//! A configuration as a file.

use std::fmt::{self, Display, Write as _};

use toml::Value;

use super::{Config, OutputConfig, PuConfig, Socket, TraceConfig, trace};
use crate::{
    collector::filter::Kind,
    policy::{
        protocol,
        rule::{Action, Policy, Ports, Rule},
    },
    pu::registry::Side,
};

impl Config {
    /// A file that says all of this, defaults too: [`parse`](Self::parse) makes the same of it.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "iface = {}", list(&self.iface))?;
        writeln!(out, "discover = {}", quoted(self.discover.name()))?;
        writeln!(out, "ignore = {}", list(&self.ignore))?;
        writeln!(out, "forwarded = {}", self.forwarded)?;
        writeln!(out, "tunnels = {}", quoted(self.tunnels.name()))?;
        writeln!(out, "drops = {}", quoted(self.drops.name()))?;
        match self.aggregate {
            Some(aggregate) => writeln!(out, "aggregate = {}", quoted(aggregate.name()))?,
            None => writeln!(out, "# aggregate: each record by itself")?,
        }
        match &self.filter {
            Some(filter) => writeln!(out, "filter = {}", quoted(filter))?,
            None => writeln!(out, "# filter: every packet")?,
        }
        writeln!(out, "attach = {}", quoted(self.attach.name()))?;
        writeln!(out, "xdp = {}", quoted(self.xdp.name()))?;
        writeln!(out, "transport = {}", quoted(self.transport.name()))?;
        match self.duration {
            Some(duration) => writeln!(out, "duration = {}", quoted(duration))?,
            None => writeln!(out, "# duration: until it is interrupted")?,
        }
        writeln!(out, "flow-interval = {}", quoted(self.flow_interval))?;
        writeln!(out, "counter-interval = {}", quoted(self.counter_interval))?;
        writeln!(out, "queue = {}", self.queue)?;
        writeln!(out, "snaplen = {}", self.snaplen)?;
        writeln!(out, "sample = {}", self.sample)?;
        writeln!(out, "mark-mask = {:#010x}", self.mark_mask)?;
        writeln!(out, "log-format = {}", quoted(self.log_format.name()))?;
        match &self.socket {
            Socket::Usual => writeln!(out, "# socket: {}, INODE being its network namespace's", self.socket)?,
            place => writeln!(out, "socket = {}", quoted(place))?,
        }
        writeln!(out, "enforce = {}", self.enforce)?;
        writeln!(out, "\n[limits]")?;
        for (key, value, _) in self.limits.each() {
            writeln!(out, "{key} = {value}")?;
        }
        for output in &self.outputs {
            write_output(output, out)?;
        }
        for trace in &self.trace {
            write_trace(trace, self.sample, out)?;
        }
        for unit in &self.pu {
            write_unit(unit, out)?;
        }
        for network in &self.network {
            writeln!(out, "\n[[network]]\nid = {}", quoted(&network.id))?;
            writeln!(out, "cidr = {}", list(&network.cidr))?;
        }
        for policy in &self.policy {
            write_policy(policy, out)?;
        }
        Ok(())
    }
}

fn write_output(output: &OutputConfig, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[[output]]")?;
    writeln!(out, "type = {}", quoted(output.form.name()))?;
    writeln!(out, "to = {}", quoted(&output.to))?;
    writeln!(out, "name = {}", quoted(&output.name))?;
    writeln!(out, "queue = {}", output.queue)?;
    writeln!(out, "events = {}", list(output.events.iter().map(Kind::name)))
}

fn write_trace(trace: &TraceConfig, sample: u32, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[[trace]]")?;
    writeln!(out, "pu = {}", quoted(trace::id(&trace.whose)))?;
    writeln!(out, "direction = {}", quoted(trace.directions.name()))?;
    match trace.duration {
        Some(duration) => writeln!(out, "for = {}", quoted(duration))?,
        None => writeln!(out, "# for: as long as it runs")?,
    }
    match trace.sample {
        Some(sample) => writeln!(out, "sample = {sample}"),
        None => writeln!(out, "# sample: {sample}, as above"),
    }
}

fn write_unit(unit: &PuConfig, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[[pu]]")?;
    writeln!(out, "id = {}", quoted(&unit.id))?;
    writeln!(out, "namespace = {}", quoted(&unit.namespace))?;
    writeln!(out, "tags = {}", list(unit.tags.as_slice()))?;
    writeln!(out, "interface = {}", list(&unit.interface))?;
    match unit.side {
        Some(Side::Behind) => writeln!(out, "side = \"behind\"")?,
        Some(Side::Host) => writeln!(out, "side = \"host\"")?,
        None => writeln!(out, "# side: each interface tells by what it is")?,
    }
    writeln!(out, "cidr = {}", list(&unit.cidr))?;
    writeln!(out, "cgroup = {}", list(&unit.cgroup))?;
    writeln!(out, "netns = {}", list(&unit.netns))?;
    writeln!(out, "port = {}", list(&unit.port))?;
    writeln!(out, "uid = {}", list(&unit.uid))
}

fn write_policy(policy: &Policy, out: &mut String) -> fmt::Result {
    let Policy { selector, directions, rule } = policy;
    writeln!(out, "\n[[policy]]")?;
    writeln!(out, "id = {}", quoted(&rule.id))?;
    if selector.units.is_empty() {
        writeln!(out, "# pu: any")?;
    } else {
        writeln!(out, "pu = {}", list(&selector.units))?;
    }
    match &selector.namespace {
        Some(namespace) => writeln!(out, "namespace = {}", quoted(namespace))?,
        None => writeln!(out, "# namespace: any")?,
    }
    writeln!(out, "tags = {}", list(&selector.tags))?;
    writeln!(out, "direction = {}", quoted(directions.name()))?;
    if rule.remote.is_everywhere() {
        writeln!(out, "# cidr, network: everywhere")?;
    }
    if !rule.remote.cidr.is_empty() {
        writeln!(out, "cidr = {}", list(&rule.remote.cidr))?;
    }
    if !rule.remote.networks.is_empty() {
        writeln!(out, "network = {}", list(rule.remote.networks.iter().map(|network| &network.id)))?;
    }
    let Some(number) = rule.service.protocol else {
        writeln!(out, "# protocol: any")?;
        return write_action(rule, out);
    };
    writeln!(out, "protocol = {}", quoted(protocol::name(number)))?;
    match rule.service.ports.as_slice() {
        [] if protocol::has_types(number) => writeln!(out, "# icmp-type: all")?,
        [] => writeln!(out, "# port: all")?,
        types if protocol::has_types(number) => {
            let names = types.iter().filter_map(|messages| protocol::messages_name(number, *messages));
            writeln!(out, "icmp-type = {}", list(names))?;
        }
        ports => writeln!(out, "port = {}", Value::Array(ports.iter().copied().map(port).collect()))?,
    }
    write_action(rule, out)
}

fn port(ports: Ports) -> Value {
    match ports {
        Ports { first, last } if first == last => Value::Integer(first.into()),
        Ports { first, last } => Value::String(format!("{first}-{last}")),
    }
}

fn write_action(rule: &Rule, out: &mut String) -> fmt::Result {
    let action = match rule.action {
        Action::Accept { .. } => "accept",
        Action::Reject => "reject",
    };
    writeln!(out, "action = {}", quoted(action))?;
    writeln!(out, "encrypt = {}", rule.action == Action::Accept { encrypt: true })?;
    writeln!(out, "log = {}", rule.log)?;
    writeln!(out, "observe = {}", quoted(rule.observe.name()))
}

fn quoted(value: impl Display) -> Value {
    Value::String(value.to_string())
}

fn list<T: Display>(values: impl IntoIterator<Item = T>) -> Value {
    Value::Array(values.into_iter().map(quoted).collect())
}
