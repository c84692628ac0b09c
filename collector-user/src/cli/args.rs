//! The command line: what can be said, and its help.

mod capture;
mod filter;
mod pu;
mod read;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, value_parser};

use crate::{
    collector::stash::Aggregate,
    config::{
        Attach, Config, Discover, Drops, IfaceGlob, Interval, LogFormat, Output, OutputConfig, Socket,
        TraceConfig, Tunnels, Xdp,
    },
    host::pcap::Filter,
    kernel::settings::Transport,
    pu::unit_glob::UnitGlob,
};

pub use capture::CaptureArgs;
pub use pu::{AskArgs, PuCommand};
pub use read::ReadArgs;

/// Shows who talks to whom on this host: flows and counters per processing unit, from the kernel's datapath.
#[derive(Debug, Parser)]
#[command(name = "collector", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attaches to interfaces and reports what passes, until it is interrupted.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),

    /// Writes packets to a file that Wireshark, tshark and tcpdump open.
    #[command(after_help = capture::HELP)]
    Capture(CaptureArgs),

    /// Reads captures, as `run` and its programs read what passes.
    #[command(after_help = read::HELP)]
    Read(ReadArgs),

    /// Asks the collector that runs in this network namespace what it knows of its processing units.
    #[command(subcommand)]
    Pu(PuCommand),

    /// Asks the collector that runs in this network namespace how it stands: what was dropped until now and what to do
    /// about it, and the ledger, as `run` tells it at its end.
    #[command(after_help = pu::STATUS_HELP)]
    Status(AskArgs),

    /// Prints the JSON Schema of the lines that `run --output json` writes.
    Schema,

    /// Sends known traffic through hosts of its own, and prints what was sent, what was counted and what was lost.
    ///
    /// Needs root. The hosts are network namespaces without a name, which go with the process: nothing is left behind,
    /// whatever ends it. Exit codes: 0 if all that could be tried here was exact, else 1.
    Selftest(SelftestArgs),

    /// Checks a configuration file, shows one with its defaults, or prints an example.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// How a self-test is told.
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// A table for people, or a JSON object a row.
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub output: Output,
}

const RUN_HELP: &str = "\
Lengths of time are a number and a unit: 250ms, 10s, 2m, 1h.
Events go to standard output or to the outputs of the configuration file, everything else to standard error.
With --config, SIGHUP and another file in its place have it read anew: all of it is taken over, or nothing where anything in it is
wrong, which is said. What may change: pu (uid and port where a unit had some at the start), ignore, policy, network, enforce,
trace, sample, forwarded, flow-interval and counter-interval, and filter to another; for everything else start the collector anew. Without --config, SIGHUP ends it.
At the end outputs have 10 s to make room for the last events, and 10 s to write them; a second Ctrl-C ends that at once.
Exit codes: 0 done (also where the reader has gone), 1 failure at the start or later (of an output too), 2 bad usage or configuration.";

/// What can be asked of a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Says whether `run` would take a file: all the checks that need no privilege.
    ///
    /// An interface that `iface` names must exist on this host. Outputs are not opened. Exit codes: 0 and a summary, 2 and
    /// the first fault with its file, line and column, and what was expected, or 1 where that cannot be found out or told.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Prints the configuration that holds, every default written out, as a file that `check` takes.
    Show {
        /// Of this file. [default: of no file]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Prints a file with every key and what it is for.
    Example,
}

/// What `collector run` is told. What is not said is the configuration file's, or else has its default.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Read this configuration (TOML). The command line wins over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Attach to these interfaces only: a name, or a pattern with *, ?, [a-z], {a,b}; may be given more than once.
    ///
    /// An interface that is named must exist; a pattern may match later. No pattern matches lo, only its name does.
    /// [default: the host's uplinks and the host-side ends of its containers]
    #[arg(long, value_name = "GLOB")]
    pub iface: Vec<IfaceGlob>,

    /// Find the containers and services of this host. [default: on]
    #[arg(long, value_name = "WHICH")]
    pub discover: Option<Discover>,

    /// Of those, leave out the ones with such an id: a name, or a pattern with *, ?, [a-z], {a,b}; may be given more than once.
    ///
    /// They count as if nobody had found them: what their sockets send by an uplink is the host's, an interface that leads to
    /// one is unknown's. [default: none]
    #[arg(long, value_name = "GLOB")]
    pub ignore: Vec<UnitGlob>,

    /// Report the flows that this host only forwards, too; their counters are always reported.
    #[arg(long)]
    pub forwarded: bool,

    /// Count what tunnels carry (VXLAN, GENEVE, GRE, IP in IP) as flows of their own, too. [default: outer]
    #[arg(long, value_name = "WHICH")]
    pub tunnels: Option<Tunnels>,

    /// Count what the kernel drops, and report single ones. [default: on]
    #[arg(long, value_name = "WHICH")]
    pub drops: Option<Drops>,

    /// Make one record of those of a connection, or of a service. [default: each record as it comes]
    #[arg(long, value_name = "HOW")]
    pub aggregate: Option<Aggregate>,

    /// Of single packets, want only those that this expression matches: that of tcpdump, see pcap-filter(7).
    ///
    /// It is compiled by libpcap (Debian: libpcap0.8), and sees the first 256 octets of a packet. Flows and counters are of
    /// all packets. [default: every packet]
    #[arg(long, value_name = "EXPR", value_parser = filter::Expression)]
    pub filter: Option<Filter>,

    /// Write events to standard output only, for people or for programs. [default: text]
    ///
    /// Takes the place of all outputs of the configuration file.
    #[arg(long, value_name = "FORM")]
    pub output: Option<Output>,

    /// Report the packets of a processing unit one by one, as in web, web:in or web:both:10m; may be given more than once.
    ///
    /// PU is the id of a unit that is declared or found, or host, forwarded, unknown, overlay, or * for all. A packet is in where the unit
    /// receives it, out where it sends it. Of traces of one unit, each direction lasts as long as the longest. Takes the
    /// place of all traces of the configuration file.
    #[arg(long, value_name = "PU[:in|out|both][:TIME]")]
    pub trace: Vec<TraceConfig>,

    /// Report so many octets of a traced packet, or of a drop, from its IP header on, 1 to 65535. [default: 64]
    ///
    /// The kernel's buffers take records below 64 KiB: of a longer packet at most 65,452 octets are had, its link-layer
    /// header among them.
    #[arg(long, value_name = "OCTETS", value_parser = value_parser!(u16).range(1..))]
    pub snaplen: Option<u16>,

    /// Report one of so many packets of a traced unit, each CPU counting for itself. [default: 1]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub sample: Option<u32>,

    /// End after counting for this long. [default: run until interrupted]
    #[arg(long, value_name = "TIME")]
    pub duration: Option<Interval>,

    /// Report each living flow this often. [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub flow_interval: Option<Interval>,

    /// Report counters this often. [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub counter_interval: Option<Interval>,

    /// Attach by this mechanism. [default: auto]
    #[arg(long, value_name = "HOW")]
    pub attach: Option<Attach>,

    /// Look at frames at XDP as well, before the stack does, on interfaces with Ethernet but lo. [default: off]
    #[arg(long, value_name = "WHERE")]
    pub xdp: Option<Xdp>,

    /// How the programs' records come to user space. [default: auto]
    ///
    /// A record is told or counted as lost, whichever way it goes. At most 65,452 octets of a packet go by either.
    #[arg(long, value_name = "HOW")]
    pub transport: Option<Transport>,

    /// Enforce the policies even where that cuts off somebody who is logged in by SSH.
    ///
    /// Where the configuration says enforce = true and a policy would reject a connection to an SSH server of this host that
    /// there is now, the collector does not start without this.
    #[arg(long)]
    pub enforce_anyway: bool,

    /// Write the collector's own log, on standard error, for people or for programs. [default: text]
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<LogFormat>,

    /// Take questions of `collector pu` and `collector status` at this socket, which is for root alone; none for no socket.
    ///
    /// [default: /run/collector/INODE.sock, INODE being the inode number of the network namespace]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<Socket>,
}

impl RunArgs {
    /// Puts what was said over `config`. `--iface`, `--ignore`, `--output` and `--trace` replace the file's
    /// lists; `--forwarded` and
    /// `--enforce-anyway` can only switch on; `--sample` is for all traces.
    pub fn apply(&self, config: &mut Config) {
        if !self.iface.is_empty() {
            config.iface.clone_from(&self.iface);
        }
        config.discover = self.discover.unwrap_or(config.discover);
        if !self.ignore.is_empty() {
            config.ignore.clone_from(&self.ignore);
        }
        config.forwarded |= self.forwarded;
        config.enforce_anyway |= self.enforce_anyway;
        if let Some(filter) = &self.filter {
            config.filter = Some(filter.clone());
        }
        if let Some(output) = self.output {
            config.outputs = vec![OutputConfig::stdout(output, config.queue)];
        }
        config.tunnels = self.tunnels.unwrap_or(config.tunnels);
        config.drops = self.drops.unwrap_or(config.drops);
        config.aggregate = self.aggregate.or(config.aggregate);
        config.log_format = self.log_format.unwrap_or(config.log_format);
        if let Some(socket) = &self.socket {
            config.socket.clone_from(socket);
        }
        config.attach = self.attach.unwrap_or(config.attach);
        config.xdp = self.xdp.unwrap_or(config.xdp);
        config.transport = self.transport.unwrap_or(config.transport);
        if !self.trace.is_empty() {
            config.trace.clone_from(&self.trace);
        }
        config.snaplen = self.snaplen.unwrap_or(config.snaplen);
        if let Some(sample) = self.sample {
            config.sample = sample;
            for trace in &mut config.trace {
                trace.sample = None;
            }
        }
        config.duration = self.duration.or(config.duration);
        config.flow_interval = self.flow_interval.unwrap_or(config.flow_interval);
        config.counter_interval = self.counter_interval.unwrap_or(config.counter_interval);
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

    use super::{Cli, Command, RunArgs};
    use crate::{
        collector::stash::Aggregate,
        config::{
            Attach, Config, Discover, Interval, LogFormat, Output, OutputConfig, Socket, TraceConfig,
            Tunnels, Xdp,
        },
        host::pcap::Filter,
        kernel::settings::Transport,
    };

    fn run(line: &str) -> Result<RunArgs, clap::Error> {
        let words = ["collector", "run"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| {
            let Command::Run(args) = cli.command else { panic!("{line} is another verb") };
            args
        })
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_can_be_said_and_wins() {
        let args =
            run("--config c.toml --iface eth0 --iface veth* --forwarded --output json --duration 10s \
             --flow-interval 2s --counter-interval 250ms --attach clsact --xdp auto --log-format json \
             --aggregate service --tunnels inner --trace web:in:10s --trace * --snaplen 128 --sample 7 \
             --transport perf --discover off --ignore *.scope --socket none --enforce-anyway")
            .unwrap();
        assert_eq!(args.config.as_deref(), Some(std::path::Path::new("c.toml")));
        let mut config = Config {
            iface: vec!["wlan0".parse().unwrap()],
            trace: vec!["db".parse().unwrap()],
            ..Config::default()
        };
        args.apply(&mut config);
        let traces: Vec<_> = config.trace.iter().map(ToString::to_string).collect();
        assert_eq!(traces, ["web:in:10s", "*:both"]);
        assert_eq!((config.snaplen, config.sample), (128, 7));
        assert_eq!(config.iface.iter().map(ToString::to_string).collect::<Vec<_>>(), ["eth0", "veth*"]);
        assert_eq!((config.discover, config.ignore.len()), (Discover::Off, 1));
        assert!(config.forwarded && config.enforce_anyway && !config.enforce);
        assert_eq!(config.socket, Socket::None);
        assert_eq!(config.tunnels, Tunnels::Inner);
        assert_eq!(config.outputs, [OutputConfig::stdout(Output::Json, config.queue)]);
        assert_eq!(
            (config.attach, config.log_format, config.xdp),
            (Attach::Clsact, LogFormat::Json, Xdp::Auto)
        );
        assert_eq!((config.aggregate, config.transport), (Some(Aggregate::Service), Transport::Perf));
        assert_eq!(config.duration, Some(Interval::from_seconds(10)));
        assert_eq!(config.flow_interval, Interval::from_seconds(2));
        assert_eq!(config.counter_interval.get().as_millis(), 250);
    }

    #[test]
    fn a_filter_is_one_argument_and_wins() {
        let of = |words: &[&str]| {
            let words = ["collector", "run"].into_iter().chain(words.iter().copied());
            Cli::try_parse_from(words).map(|cli| {
                let Command::Run(args) = cli.command else { panic!("another verb") };
                args
            })
        };
        let args = of(&["--filter", "tcp port 443"]).unwrap();
        let file = Filter::compile("udp").unwrap();
        let mut config = Config { filter: Some(file.clone()), ..Config::default() };
        args.apply(&mut config);
        assert_eq!(config.filter.as_ref().map(Filter::expression), Some("tcp port 443"));
        let mut config = Config { filter: Some(file.clone()), ..Config::default() };
        of(&[]).unwrap().apply(&mut config);
        assert_eq!(config.filter, Some(file));
        let error = of(&["--filter", "tcp port"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("--filter: \"tcp port\" is no filter (pcap-filter(7)): "),
            "{error}"
        );
        assert_eq!(error.to_string().matches("tcp port").count(), 1, "{error}");
        let long = format!("tcp prot 443 or {}", ["host 192.0.2.1"; 100].join(" or "));
        let said = of(&["--filter", &long]).unwrap_err().to_string();
        assert!(said.contains("or ho…\" is no filter") && said.len() < 500, "{said}");
    }

    #[test]
    fn what_is_not_said_stays_the_files() {
        let file_trace: TraceConfig = "db:out".parse().unwrap();
        let mut file = Config {
            iface: vec!["wlan0".parse().unwrap()],
            forwarded: true,
            outputs: vec![OutputConfig::stdout(Output::Json, 5)],
            aggregate: Some(Aggregate::Connection),
            log_format: LogFormat::Json,
            duration: Some(Interval::from_seconds(9)),
            transport: Transport::Ring,
            snaplen: 1000,
            sample: 10,
            socket: Socket::At("s".into()),
            trace: vec![TraceConfig { sample: Some(5), ..file_trace }],
            ..Config::default()
        };
        let before = file.clone();
        run("").unwrap().apply(&mut file);
        assert_eq!(file, before);
        run("--sample 3").unwrap().apply(&mut file);
        assert_eq!(
            file.trace.iter().map(|trace| trace.wish(file.sample).every.get()).collect::<Vec<_>>(),
            [3]
        );
    }

    #[test]
    fn bad_usage_ends_with_2_and_says_why() {
        for (line, want) in [
            ("--duration 10", "expected a number and a unit"),
            ("--flow-interval 0s", "is not above zero"),
            ("--iface eth[", "is no pattern"),
            ("--output xml", "[possible values: text, json]"),
            ("--log-format xml", "[possible values: text, json]"),
            ("--attach xdp", "[possible values: auto, tcx, clsact]"),
            ("--xdp on", "[possible values: off, auto, native, generic]"),
            ("--transport both", "[possible values: auto, ring, perf]"),
            ("--trace :in", "names no processing unit"),
            ("--trace web:in:10", "expected a number and a unit"),
            ("--snaplen 0", "1..=65535"),
            ("--snaplen 65536", "1..=65535"),
            ("--sample 0", "1.."),
            ("--socket ", "a value is required"),
            ("--nonsense", "unexpected argument"),
            ("stray", "unexpected argument"),
        ] {
            let error = run(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(want), "{line}: {error}");
        }
        assert_eq!(Cli::try_parse_from(["collector"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn version_and_help_are_no_errors() {
        for word in ["--version", "-V"] {
            let error = Cli::try_parse_from(["collector", word]).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayVersion, 0));
            assert!(error.to_string().starts_with("collector "), "{error}");
        }
        let help = run("--help").unwrap_err().to_string();
        let config = Config::default();
        for want in [
            format!("[default: {}]", config.flow_interval),
            format!("[default: {}]", config.counter_interval),
            format!("[default: {}]", config.snaplen),
            "[default: text]".to_owned(),
            "[default: auto]".to_owned(),
            "Exit codes: 0 done".to_owned(),
        ] {
            assert!(help.contains(&want), "{want} in {help}");
        }
    }
}
