//! Whole files, right and wrong.

mod files;
mod outputs;
mod policies;
mod shown;
mod units;

use std::path::Path;

use super::{
    Attach, Config, ConfigError, DEFAULT_MARK_MASK, Discover, Drops, Fault, IfaceGlob, Limits, LogFormat,
    Output, OutputConfig, Socket, Tunnels, Xdp,
};
use crate::{host::pcap::Filter, kernel::settings::Transport};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("c.toml"))
}

/// The message, and the fault behind it.
fn error(text: &str) -> (String, Fault) {
    let error = parse(text).unwrap_err();
    let message = error.to_string();
    let ConfigError::Wrong { fault, .. } = error else { panic!("{message}") };
    (message, *fault)
}

#[test]
fn nothing_is_the_default() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.mark_mask, 0xFFFC_0000);
    assert_eq!(config.queue, 65_536);
    assert_eq!(config.flow_interval.get().as_secs(), 5);
    assert_eq!(config.counter_interval.get().as_secs(), 30);
    assert_eq!(config.duration, None);
}

#[test]
fn everything_can_be_said() {
    let config = parse(
        r#"
iface = ["eth0", "veth*"]
discover = "off"
ignore = ["session-*.scope", "aa"]
forwarded = true
tunnels = "inner"
drops = "all"
xdp = "native"
transport = "ring"
filter = "tcp port 443"
output = "json"
attach = "clsact"
duration = "1m"
flow-interval = "250ms"
counter-interval = "2m"
queue = 1000
mark-mask = 0x0000FF00
log-format = "json"
socket = "/run/c.sock"
snaplen = 65535
sample = 10

[[trace]]
pu = "web"
direction = "in"
for = "10m"
sample = 3

[[trace]]
pu = "*"

[limits]
flow-slots = 1024
flows = 4096
new-flows-per-second = 10

[[pu]]
id = "web"
namespace = "/prod"
tags = ["app=web", "app=other", "empty="]
interface = ["veth1a2b"]
cidr = ["10.1.0.0/16", "fd00:1::/32"]
cgroup = ["/system.slice/web-*.service"]
netns = ["blue", "/run/other"]
port = [443, "8000-8999", "udp/53"]
uid = [1000, "www-data", "007"]

[[pu]]
id = "db"
cidr = ["10.1.2.3/32"]
"#,
    )
    .unwrap();
    assert_eq!(config.iface.iter().map(IfaceGlob::as_str).collect::<Vec<_>>(), ["eth0", "veth*"]);
    assert_eq!(config.discover, Discover::Off);
    assert_eq!(config.ignore.iter().map(ToString::to_string).collect::<Vec<_>>(), ["session-*.scope", "aa"]);
    assert!(config.forwarded);
    assert_eq!(config.tunnels, Tunnels::Inner);
    assert_eq!((config.drops, config.xdp, config.transport), (Drops::All, Xdp::Native, Transport::Ring));
    assert_eq!(config.filter, Some(Filter::compile("tcp port 443").unwrap()));
    assert_eq!(config.outputs, [OutputConfig::stdout(Output::Json, 1000)]);
    assert_eq!((config.attach, config.log_format), (Attach::Clsact, LogFormat::Json));
    assert_eq!(config.duration.unwrap().get().as_secs(), 60);
    assert_eq!(config.flow_interval.get().as_millis(), 250);
    assert_eq!(config.counter_interval.get().as_secs(), 120);
    assert_eq!((config.queue, config.mark_mask), (1000, 0xFF00));
    assert_eq!(config.socket, Socket::At("/run/c.sock".into()));
    assert_eq!(
        config.limits,
        Limits { flow_slots: 1024, flows: 4096, new_flows_per_second: 10, ..Limits::default() }
    );
    let traces: Vec<_> = config.trace.iter().map(ToString::to_string).collect();
    assert_eq!(traces, ["web:in:10m", "*:both"]);
    let every: Vec<_> = config.trace.iter().map(|trace| trace.wish(config.sample).every.get()).collect();
    assert_eq!((config.snaplen, every), (u16::MAX, vec![3, 10]));
    let [web, db] = config.pu.as_slice() else { panic!("{:?}", config.pu) };
    assert_eq!((&*web.id, &*web.namespace), ("web", "/prod"));
    assert_eq!(web.tags.to_string(), "app=web app=other empty=");
    assert_eq!(web.interface, ["veth1a2b"]);
    assert_eq!(web.cidr.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/16", "fd00:1::/32"]);
    assert_eq!(
        web.cgroup.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["/system.slice/web-*.service"]
    );
    assert_eq!(web.netns, ["blue", "/run/other"]);
    assert_eq!(web.port.iter().map(ToString::to_string).collect::<Vec<_>>(), ["443", "8000-8999", "udp/53"]);
    assert_eq!(web.uid.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1000", "www-data", "7"]);
    assert!(db.interface.is_empty() && db.tags.is_empty() && db.namespace.is_empty());
}

#[test]
fn the_form_of_the_checks_is_understood() {
    assert_eq!(parse("[[pu]]\nid = \"web\"\ninterface = [\"vc0\"]\n").unwrap().pu.len(), 1);
    assert_eq!(parse("mark_mask = 0xFFFC0000").unwrap().mark_mask, DEFAULT_MARK_MASK);
    assert_eq!(parse("mark-mask = 0").unwrap().mark_mask, 0);
    let config = parse("[limits]\nflows = 70").unwrap();
    assert_eq!(config.limits, Limits { flows: 70, ..Limits::default() });
    let old = "log_format = \"json\"\n[limits]\nflow_slots = 64\nnew_flows_per_second = 1";
    let config = parse(old).unwrap();
    assert_eq!(config.limits, Limits { flow_slots: 64, new_flows_per_second: 1, ..Limits::default() });
    assert_eq!(config.log_format, LogFormat::Json);
}

#[test]
fn a_trace_that_cannot_be_is_told_with_its_place() {
    for (text, place, want) in [
        ("[[trace]]\npu = \"wbe\"", "2:6", "no processing unit \"wbe\""),
        ("[[trace]]\npu = \"host\"\ndirection = \"up\"", "3:13", "expected one of `in`, `out`, `both`"),
        ("[[trace]]\npu = \"host\"\nfor = \"ever\"", "3:7", "trace.for: \"ever\" is no length of time"),
        ("[[trace]]\npu = \"host\"\nsample = 0", "3:10", "trace.sample is 0"),
        ("[[trace]]", "1:1", "missing field `pu`"),
        ("sample = 0", "1:10", "sample is 0"),
        ("snaplen = 0", "1:11", "snaplen = 0: expected a number from 1 to 65535"),
        ("snaplen = 65536", "1:11", "snaplen = 65536: expected a number from 1 to 65535"),
    ] {
        let (message, _) = error(text);
        assert!(message.starts_with(&format!("c.toml:{place}: ")) && message.contains(want), "{message}");
    }
}

#[test]
fn every_wrong_value_has_its_place_and_what_was_expected() {
    let pu = "[[pu]]\nid = \"web\"\n";
    for (text, want) in [
        ("forwarded = 1", r"c.toml:1:13: invalid type: integer `1`, expected a boolean"),
        ("\nifaces = []", "c.toml:2:1: unknown field `ifaces`, expected one of `iface`, "),
        ("output = \"xml\"", "c.toml:1:10: unknown variant `xml`, expected `text` or `json`"),
        ("queue = ", "c.toml:1:9: "),
        ("queue = 0", "c.toml:1:9: queue is 0: expected a number from 1 on"),
        (
            "queue = -1",
            "c.toml:1:9: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
        ),
        ("iface = [\"eth0\", \"\"]", "c.toml:1:18: iface: an empty pattern matches no interface"),
        ("iface = [\"eth[\"]", "c.toml:1:10: iface: \"eth[\" is no pattern: "),
        (
            "flow-interval = \"5\"",
            "c.toml:1:17: flow-interval: \"5\" is no length of time: expected a number and",
        ),
        (
            "flow-interval = 5",
            "c.toml:1:17: invalid type: integer `5`, expected a number and a unit in quotes",
        ),
        ("counter-interval = \"0s\"", "c.toml:1:20: counter-interval: \"0s\" is not above zero"),
        ("duration = \"-1s\"", "c.toml:1:12: duration: \"-1s\" is not above zero"),
        ("mark-mask = 5", "c.toml:1:13: mark-mask 0x00000005 has holes"),
        ("[limits]\nflows = 0", "c.toml:2:9: limits.flows = 0: expected a number from 64 to 16777216"),
        ("[limits]\nflow-slots = 1", "c.toml:2:14: limits.flow-slots = 1: expected a number from 64 to "),
        ("[limits]\nslots = 1", "c.toml:2:1: unknown field `slots`, expected one of `flow-slots`, "),
        ("socket = \"\"", "c.toml:1:10: socket: \"\" is no place of a socket: expected a path of"),
        ("log-format = \"xml\"", "c.toml:1:14: unknown variant `xml`, expected `text` or `json`"),
        (
            "transport = \"both\"",
            "c.toml:1:13: unknown variant `both`, expected one of `auto`, `ring`, `perf`",
        ),
        ("[[pu]]\ncidr = []", "c.toml:1:1: missing field `id`"),
        (&format!("{pu}name = 1"), "c.toml:3:1: unknown field `name`, expected one of `id`, `namespace`, "),
    ] {
        let message = error(text).0;
        assert!(message.starts_with(want), "{text:?}: {message:?} does not start with {want:?}");
    }
}
