//! The file's own form, before its values are checked.

use std::{fmt, ops::Range};

use serde::{Deserialize, Deserializer, de::Visitor};
use toml::Spanned;

use super::{
    Attach, Config, Discover, Drops, Interval, LogFormat, Tunnels, Xdp,
    error::{Fault, Wrong},
    limits::{self, RawLimits},
    network::{self, RawNetwork},
    output::{self, OutputConfig, RawOutputs},
    policy::{self, RawPolicy},
    pu::{self, RawPu},
    trace::{self, RawTrace},
};
use crate::{collector::stash::Aggregate, host::pcap::Filter, kernel::settings::Transport};

/// The keys of the file. Each that is missing leaves the default. The forms with underscores are from before the keys
/// had one spelling.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Raw {
    iface: Vec<Spanned<String>>,
    discover: Option<Discover>,
    ignore: Vec<Spanned<String>>,
    forwarded: Option<bool>,
    tunnels: Option<Tunnels>,
    drops: Option<Drops>,
    aggregate: Option<Aggregate>,
    filter: Option<Spanned<String>>,
    attach: Option<Attach>,
    xdp: Option<Xdp>,
    transport: Option<Transport>,
    duration: Option<Spanned<Length>>,
    flow_interval: Option<Spanned<Length>>,
    counter_interval: Option<Spanned<Length>>,
    queue: Option<Spanned<u32>>,
    #[serde(alias = "mark_mask")]
    mark_mask: Option<Spanned<u32>>,
    #[serde(alias = "log_format")]
    log_format: Option<LogFormat>,
    socket: Option<Spanned<String>>,
    limits: RawLimits,
    output: Option<Spanned<RawOutputs>>,
    snaplen: Option<Spanned<u32>>,
    sample: Option<Spanned<u32>>,
    trace: Vec<RawTrace>,
    pu: Vec<RawPu>,
    enforce: bool,
    network: Vec<RawNetwork>,
    policy: Vec<RawPolicy>,
}

/// A length of time, as it is written.
pub(super) struct Length(String);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number and a unit in quotes, as in \"250ms\", \"10s\", \"2m\" or \"1h\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Length, E> {
                Ok(Length(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Written)
    }
}

/// Reads and checks a file's text.
pub(super) fn read(text: &str) -> Result<Config, Wrong> {
    let raw: Raw = toml::from_str(text).map_err(|source| {
        // A fault without a place concerns the file as a whole.
        Wrong { span: source.span().unwrap_or_default(), fault: Fault::Syntax { source } }
    })?;
    let mut config = Config::default();
    for glob in raw.iface {
        let parsed = glob.get_ref().parse();
        config.iface.push(parsed.map_err(|source| wrong(glob.span(), Fault::Glob { source }))?);
    }
    config.discover = raw.discover.unwrap_or(config.discover);
    for glob in raw.ignore {
        let parsed = glob.get_ref().parse();
        config.ignore.push(parsed.map_err(|source| wrong(glob.span(), Fault::UnitGlob { source }))?);
    }
    config.forwarded = raw.forwarded.unwrap_or(config.forwarded);
    config.tunnels = raw.tunnels.unwrap_or(config.tunnels);
    config.drops = raw.drops.unwrap_or(config.drops);
    config.aggregate = raw.aggregate;
    config.filter = raw.filter.as_ref().map(filter).transpose()?;
    config.attach = raw.attach.unwrap_or(config.attach);
    config.xdp = raw.xdp.unwrap_or(config.xdp);
    config.transport = raw.transport.unwrap_or(config.transport);
    config.log_format = raw.log_format.unwrap_or(config.log_format);
    if let Some(socket) = raw.socket {
        let parsed = socket.get_ref().parse();
        config.socket = parsed.map_err(|source| wrong(socket.span(), Fault::Socket { source }))?;
    }
    config.duration = interval("duration", raw.duration)?;
    if let Some(length) = interval("flow-interval", raw.flow_interval)? {
        config.flow_interval = length;
    }
    if let Some(length) = interval("counter-interval", raw.counter_interval)? {
        config.counter_interval = length;
    }
    config.queue = raw.queue.as_ref().map_or(Ok(config.queue), queue)?;
    config.outputs = match raw.output {
        Some(outputs) => output::check(outputs, config.queue, text)?,
        None => vec![OutputConfig::stdout(output::Output::default(), config.queue)],
    };
    if let Some(mask) = raw.mark_mask {
        config.mark_mask = *mask.get_ref();
        if !is_one_run(config.mark_mask) {
            return Err(wrong(mask.span(), Fault::MarkMask { mask: config.mark_mask }));
        }
    }
    config.limits = limits::check(raw.limits)?;
    if let Some(given) = raw.snaplen {
        config.snaplen = snaplen(&given)?;
    }
    if let Some(given) = raw.sample {
        config.sample = trace::sample("sample", &given)?;
    }
    config.pu = pu::check(raw.pu, text)?;
    config.trace = trace::check(raw.trace, &config.pu)?;
    config.enforce = raw.enforce;
    config.network = network::check(raw.network, text)?;
    config.policy = policy::check(raw.policy, &config.network, &config.pu, text)?;
    Ok(config)
}

const fn wrong(span: Range<usize>, fault: Fault) -> Wrong {
    Wrong { span, fault }
}

/// A number of octets of a packet.
fn snaplen(given: &Spanned<u32>) -> Result<u16, Wrong> {
    let (least, most) = (1, u16::MAX.into());
    let fault = || Fault::OutOfRange { key: "snaplen", given: *given.get_ref(), least, most };
    match u16::try_from(*given.get_ref()) {
        Err(_) | Ok(0) => Err(wrong(given.span(), fault())),
        Ok(octets) => Ok(octets),
    }
}

/// A packet filter.
fn filter(given: &Spanned<String>) -> Result<Filter, Wrong> {
    Filter::compile(given.get_ref()).map_err(|source| wrong(given.span(), Fault::Filter { source }))
}

/// A number of events that may wait.
pub(super) fn queue(given: &Spanned<u32>) -> Result<usize, Wrong> {
    match *given.get_ref() {
        0 => Err(wrong(given.span(), Fault::Zero { key: "queue" })),
        events => Ok(events as usize),
    }
}

pub(super) fn interval(key: &'static str, given: Option<Spanned<Length>>) -> Result<Option<Interval>, Wrong> {
    let Some(given) = given else { return Ok(None) };
    let parsed = given.get_ref().0.parse();
    parsed.map(Some).map_err(|source| wrong(given.span(), Fault::Interval { key, source }))
}

/// Whether the bits that are set lie next to each other, or none is.
const fn is_one_run(mask: u32) -> bool {
    mask.count_ones() + mask.leading_zeros() + mask.trailing_zeros() == u32::BITS || mask == 0
}

#[cfg(test)]
mod tests {
    use super::is_one_run;

    #[test]
    fn runs_of_bits() {
        for mask in [0, 1, u32::MAX, 0xFFFC_0000, 0x0000_FF00] {
            assert!(is_one_run(mask), "{mask:#x}");
        }
        for mask in [5, 0x8000_0001, 0xFF00_FF00] {
            assert!(!is_one_run(mask), "{mask:#x}");
        }
    }
}
