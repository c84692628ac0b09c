//! What `collector capture` is told.

use std::path::PathBuf;

use clap::{Args, value_parser};

use crate::{
    config::{Attach, Config, Drops, IfaceGlob, Interval, LogFormat, Xdp},
    host::pcap::Filter,
    kernel::settings::Transport,
};

/// What follows the options in its help.
pub(super) const HELP: &str = "\
The file is pcapng with times in nanoseconds. What its format has no field for is in each packet's comment: the processing
unit (pu=), the mark of the socket buffer (mark=), how many wire packets a super-packet stands for (packets=); of one that
was dropped why (dropped=) and where (at=), and of one without an IP packet what it is (ethertype=) and how long (length=).
Packets stand in the order in which they were seen, whichever CPU saw them; each is written some tenths of a second later.
The last line on standard error says how many packets were written and what was lost, by name.
Exit codes: 0 done, 1 failure at the start or later (of the file, too), 2 bad usage or configuration.";

/// What `collector capture` is told.
#[derive(Clone, Debug, Args)]
pub struct CaptureArgs {
    /// Write to this file, or - for standard output. A file that is there is overwritten, a named pipe must have a reader.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub write: PathBuf,

    /// Attach to these interfaces only: a name, or a pattern with *, ?, [a-z], {a,b}; may be given more than once.
    ///
    /// An interface that is named must exist; a pattern may match later. No pattern matches lo, only its name does.
    /// [default: the host's uplinks and the host-side ends of its containers]
    #[arg(long, value_name = "GLOB")]
    pub iface: Vec<IfaceGlob>,

    /// Capture the packets of this processing unit only: host, forwarded, unknown, overlay, one that the configuration
    /// declares, or a container or service that is there (`collector pu list` has their ids). [default: all]
    ///
    /// With --drops, what is dropped of others is left out, too.
    #[arg(long, value_name = "PU")]
    pub pu: Option<String>,

    /// Capture only packets that this expression matches: that of tcpdump, see pcap-filter(7).
    ///
    /// It is compiled by libpcap (Debian: libpcap0.8), and sees the first 256 octets of a packet. [default: every packet]
    #[arg(long, value_name = "EXPR", value_parser = super::filter::Expression)]
    pub filter: Option<Filter>,

    /// Capture what the kernel drops, too: each packet again, with the reason and the place.
    ///
    /// By --transport ring, as far as its first 192 octets that lie in one piece.
    /// Where --iface names interfaces, what is dropped on others is left out.
    #[arg(long)]
    pub drops: bool,

    /// Keep at most so many octets of each packet, from its link-layer header on; its length is kept.
    ///
    /// The kernel's buffers take records below 64 KiB: of a longer packet at most 65,452 octets are had.
    #[arg(long, value_name = "OCTETS", default_value_t = u16::MAX, value_parser = value_parser!(u16).range(1..))]
    pub snaplen: u16,

    /// End after so many packets. [default: capture until interrupted]
    #[arg(long, value_name = "N", value_parser = count)]
    pub count: Option<u64>,

    /// End after capturing for this long. [default: capture until interrupted]
    #[arg(long, value_name = "TIME")]
    pub duration: Option<Interval>,

    /// Read processing units and limits from this configuration (TOML); its outputs are left alone.
    ///
    /// A capture only watches: whatever the file says, no policy holds and no packet is dropped (`enforce`), nothing hangs
    /// at XDP, and no mark is written.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Attach by this mechanism. [default: auto]
    #[arg(long, value_name = "HOW")]
    pub attach: Option<Attach>,

    /// How packets and drops come from the kernel: by perf buffers of each CPU (auto, perf), or by a ring buffer of all.
    /// [default: auto]
    #[arg(long, value_name = "HOW")]
    pub transport: Option<Transport>,

    /// Write the collector's own log, on standard error, for people or for programs. [default: text]
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<LogFormat>,
}

/// How many packets end a capture.
fn count(given: &str) -> Result<u64, &'static str> {
    match given.parse() {
        Ok(0) => Err(
            "a capture of no packets writes nothing: expected 1 or more, or no --count for one without an end",
        ),
        Ok(count) => Ok(count),
        Err(_) => Err("expected a number of packets, 1 or more"),
    }
}

impl CaptureArgs {
    /// Puts what was said over `config`, of which the outputs do not count, nor how long it would run, nor what would change
    /// anything for a packet: a capture only watches.
    pub fn apply(&self, config: &mut Config) {
        if !self.iface.is_empty() {
            config.iface.clone_from(&self.iface);
        }
        if let Some(filter) = &self.filter {
            config.filter = Some(filter.clone());
        }
        config.drops = if self.drops { Drops::All } else { Drops::Off };
        config.limits.drop_reports_per_second = 1_000_000;
        config.outputs.clear();
        config.aggregate = None;
        (config.enforce, config.enforce_anyway) = (false, false);
        config.policy.clear();
        // A card may lose its link for a moment when a program is put there.
        config.xdp = Xdp::Off;
        // What runs beside it may mark packets with numbers of its own.
        config.mark_mask = 0;
        config.duration = self.duration;
        config.attach = self.attach.unwrap_or(config.attach);
        config.transport = self.transport.unwrap_or(config.transport);
        config.log_format = self.log_format.unwrap_or(config.log_format);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::CaptureArgs;
    use crate::{
        cli::args::{Cli, Command},
        config::{Attach, Config, Interval, LogFormat, Xdp},
        host::pcap::Filter,
        kernel::settings::Transport,
    };

    fn capture(line: &str) -> Result<CaptureArgs, clap::Error> {
        // An underscore stands for a space within a word.
        let words = line.split_whitespace().map(|word| word.replace('_', " "));
        let words = ["collector", "capture"].into_iter().map(str::to_owned).chain(words);
        Cli::try_parse_from(words).map(|cli| {
            let Command::Capture(args) = cli.command else { panic!("{line} is another verb") };
            args
        })
    }

    #[test]
    fn everything_can_be_said_and_wins() {
        let args = capture(
            "-w c.pcapng --iface eth0 --iface veth* --pu web --snaplen 96 --count 7 --duration 2s \
             --attach clsact --log-format json --config c.toml --filter udp_port_7001 --transport ring",
        )
        .unwrap();
        assert_eq!((args.write.as_path(), args.pu.as_deref()), (Path::new("c.pcapng"), Some("web")));
        assert_eq!((args.snaplen, args.count), (96, Some(7)));
        let mut config = Config::default();
        args.apply(&mut config);
        assert_eq!(config.iface.iter().map(ToString::to_string).collect::<Vec<_>>(), ["eth0", "veth*"]);
        assert_eq!((config.attach, config.log_format), (Attach::Clsact, LogFormat::Json));
        assert_eq!((config.duration, config.transport), (Some(Interval::from_seconds(2)), Transport::Ring));
        assert!(config.outputs.is_empty());
        assert_eq!(config.filter.as_ref().map(Filter::expression), Some("udp port 7001"));
    }

    #[test]
    fn whatever_the_file_says_a_capture_only_watches() {
        let file = "enforce = true\nxdp = \"generic\"\nmark-mask = 0xFF00\n[[pu]]\nid = \"web\"\ncidr = [\"10.0.0.1/32\"]\n\
                    [[policy]]\nid = \"p\"\npu = [\"web\"]\ndirection = \"in\"\naction = \"reject\"\n";
        let mut config = Config::parse(file, Path::new("c.toml")).unwrap();
        assert!(config.enforce && config.policy.len() == 1 && config.xdp == Xdp::Generic);
        capture("-w -").unwrap().apply(&mut config);
        assert!(!config.enforce && !config.enforce_anyway && config.policy.is_empty());
        assert_eq!((config.xdp, config.mark_mask), (Xdp::Off, 0));
        assert_eq!(config.pu.len(), 1, "what is declared counts");
    }

    #[test]
    fn whole_packets_without_an_end_where_nothing_is_said() {
        let args = capture("-w -").unwrap();
        assert_eq!((args.snaplen, args.count, args.duration, args.pu), (65_535, None, None, None));
        assert_eq!(args.write, Path::new("-"));
    }

    #[test]
    fn bad_usage_ends_with_2_and_says_why() {
        for (line, want) in [
            ("", "--write <FILE>"),
            ("-w f --snaplen 0", "1..=65535"),
            ("-w f --snaplen 65536", "1..=65535"),
            ("-w f --count 0", "a capture of no packets writes nothing"),
            ("-w f --count x", "a number of packets"),
            ("-w f --filter udp_prot", "is no filter (pcap-filter(7))"),
            ("-w f --duration 10", "expected a number and a unit"),
            ("-w f stray", "unexpected argument"),
        ] {
            let error = capture(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(want), "{line}: {error}");
        }
    }
}
