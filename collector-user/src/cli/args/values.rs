//! The words that options take, each with what it means.

use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    collector::stash::Aggregate,
    config::{Attach, Discover, Drops, LogFormat, Output, Tunnels, Xdp},
    kernel::settings::Transport,
};

impl ValueEnum for Output {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Text => PossibleValue::new("text").help("For people: a line a record"),
            Self::Json => PossibleValue::new("json").help("For programs: a JSON object a line"),
        })
    }
}

impl ValueEnum for Discover {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Off, Self::On]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Off => "Only what is declared is a unit",
            Self::On => "Each container, service and scope is one",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Text => PossibleValue::new("text").help("For people"),
            Self::Json => PossibleValue::new("json").help("For programs: a JSON object a line"),
        })
    }
}

impl ValueEnum for Tunnels {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Outer, Self::Inner]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(match self {
            Self::Outer => "The tunnel",
            Self::Inner => "The tunnel, and what it carries as another flow",
        }))
    }
}

impl ValueEnum for Drops {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Off, Self::On, Self::All]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(match self {
            Self::Off => "Do not look at them",
            Self::On => "Report those that somebody may miss, at most 100 a second of each unit",
            Self::All => "Report duplicates, leftovers and what was for other hosts, too",
        }))
    }
}

impl ValueEnum for Aggregate {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Connection, Self::Service]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(match self {
            Self::Service => "One a second for all between the same ends, to the same port",
            _ => "One for each connection, when it is over",
        }))
    }
}

impl ValueEnum for Attach {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Tcx, Self::Clsact]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => PossibleValue::new("auto").help("TCX, or clsact where the kernel has none"),
            Self::Tcx => PossibleValue::new("tcx").help("TCX (Linux 6.6 and newer) or not at all"),
            Self::Clsact => PossibleValue::new("clsact").help("A clsact qdisc"),
        })
    }
}

impl ValueEnum for Xdp {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Off, Self::Auto, Self::Native, Self::Generic]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(match self {
            Self::Off => "At TC alone",
            Self::Auto => "In the driver of a physical device that can, behind the driver elsewhere",
            Self::Native => {
                "In the driver or not at all; on a veth, TCP from its other end falls to a quarter"
            }
            Self::Generic => "Behind the driver",
        }))
    }
}

impl ValueEnum for Transport {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Ring, Self::Perf]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(match self {
            Self::Ring => "All by ring buffers of all CPUs: one each for events, packets and drops",
            Self::Perf => "All by perf buffers of each CPU: one each for events, packets and drops",
            _ => "Events of flows by a ring buffer, packets and drops by perf buffers",
        }))
    }
}
