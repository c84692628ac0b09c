//! A configuration as a file.

use std::fmt::{self, Display, Write as _};

use toml::Value;

use super::{Config, OutputConfig, PuConfig, Socket, TraceConfig, trace};
use crate::{collector::filter::Kind, pu::registry::Side};

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

fn quoted(value: impl Display) -> Value {
    Value::String(value.to_string())
}

fn list<T: Display>(values: impl IntoIterator<Item = T>) -> Value {
    Value::Array(values.into_iter().map(quoted).collect())
}
