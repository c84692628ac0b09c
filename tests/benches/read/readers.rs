//! Who reads a capture.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use collector_tests::Result;
use collector_user::read::container::Capture;
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError, traits::PcapReaderIterator as _};

use crate::taken::{self, Taken};

/// The collector, as it is given to others.
const COLLECTOR: &str = "COLLECTOR_RELEASE";
/// The folder that flow meters of others are unpacked below.
const METERS: &str = "COLLECTOR_METERS";

/// A program that reads a capture.
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where it finds its libraries, if it is not installed.
    libraries: Option<OsString>,
}

impl Reader {
    /// The one that all this is about, as flows.
    pub(crate) fn collector(file: &Path) -> Result<Self> {
        let program = env::var_os(COLLECTOR).with_context(|| {
            format!("{COLLECTOR} says where the collector is: `cargo xtask bench -- --only read` sets it")
        })?;
        let arguments = vec!["read".into(), file.into()];
        Ok(Self { name: "collector read", program: program.into(), arguments, libraries: None })
    }

    /// The same, where each flow is told at its end alone, as others tell theirs.
    pub(crate) fn collector_at_the_end(file: &Path) -> Result<Self> {
        let settings = file.with_extension("toml");
        fs::write(&settings, "flow-interval = \"1h\"\n")?;
        let collector = Self::collector(file)?;
        let arguments = ["read".into(), "--config".into(), settings.into(), file.into()].to_vec();
        Ok(Self { name: "collector read, flows at their end", arguments, ..collector })
    }

    /// Those of others that are here, each told to keep all flows to the end.
    pub(crate) fn others(file: &Path) -> Result<Vec<Self>> {
        let mut readers = Vec::new();
        let file = file.as_os_str();
        if let Some(root) = meters() {
            let libraries = Some(libraries(&root)?);
            // Half a million flows at most, over IPv6 as well; it exports to nobody.
            let words = ["-6", "-m", "500000", "-r"].map(OsString::from);
            readers.push(Self {
                name: "softflowd -r",
                program: root.join("usr/sbin/softflowd"),
                arguments: words.into_iter().chain([file.into()]).collect(),
                libraries: libraries.clone(),
            });
            let settings = Path::new(file).with_extension("pmacctd");
            fs::write(&settings, PMACCTD)?;
            readers.push(Self {
                name: "pmacctd -I",
                program: root.join("usr/sbin/pmacctd"),
                arguments: ["-f".into(), settings.into(), "-I".into(), file.into()].to_vec(),
                libraries,
            });
        }
        if let Some(tshark) = tshark() {
            let words = ["-n", "-q", "-z", "conv,tcp", "-r"].map(OsString::from);
            readers.push(Self {
                name: "tshark -q -z conv,tcp",
                program: tshark,
                arguments: words.into_iter().chain([file.into()]).collect(),
                libraries: None,
            });
        }
        Ok(readers)
    }

    /// This program, which does nothing but go from one frame to the next.
    pub(crate) fn bare(file: &Path, bare: Bare) -> Result<Self> {
        let name = match bare {
            Bare::Ours => "frames alone, collector's reader",
            Bare::PcapParser => "frames alone, pcap-parser",
        };
        let arguments = [BARE.into(), bare.word().into(), file.into()].to_vec();
        Ok(Self { name, program: env::current_exe()?, arguments, libraries: None })
    }

    /// Reads it once.
    pub(crate) fn run(&self) -> Result<Taken> {
        taken::by(&mut self.command())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// Programs of others that are not here.
pub(crate) fn missing() -> Vec<&'static str> {
    let meters: &[_] = if meters().is_none() { &["softflowd -r", "pmacctd -I"] } else { &[] };
    let tshark = tshark().is_none().then_some("tshark -q -z conv,tcp");
    meters.iter().copied().chain(tshark).collect()
}

/// Whether the collector reads all of it. Its lines are not kept: what this process has had in memory it would leave to others.
pub(crate) fn check(file: &Path, frames: u32) -> Result<()> {
    let mut child = Reader::collector(file)?.command().stdout(Stdio::piped()).spawn()?;
    let mut ledger = String::new();
    for line in BufReader::new(child.stdout.take().context("its output is a pipe")?).lines() {
        ledger = line?;
    }
    let status = child.wait()?;
    let is_whole =
        ledger.starts_with(&format!("ledger: seen {frames} =")) && ledger.ends_with("nothing lost");
    ensure!(status.success() && is_whole, "collector read: {status}, {ledger}");
    Ok(())
}

/// Flows as `collector read` has them, printed once at the end. With its own sizes of buffers and cache it takes nearly twice the
/// time.
const PMACCTD: &str = "\
daemonize: false
plugins: print
aggregate: src_host, dst_host, src_port, dst_port, proto
print_refresh_time: 86400
print_cache_entries: 65537
plugin_buffer_size: 65536
plugin_pipe_size: 67108864
";

fn meters() -> Option<PathBuf> {
    env::var_os(METERS).filter(|root| !root.is_empty()).map(PathBuf::from)
}

fn tshark() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("tshark")).find(|program| program.is_file())
}

/// The folders of libraries below a root.
fn libraries(root: &Path) -> Result<OsString> {
    let folders = ["lib", "usr/lib"].map(|place| root.join(place));
    let found = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let architectures = found.map(|entry| entry.path()).filter(|path| path.is_dir());
    Ok(env::join_paths(architectures.chain(folders.clone()))?)
}

/// Has this program be a reader of frames alone.
pub(crate) const BARE: &str = "--bare";

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    Ours,
    PcapParser,
}

impl Bare {
    const fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::PcapParser => "pcap-parser",
        }
    }
}

/// Goes from one frame to the next, and sums up their lengths.
pub(crate) fn bare(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (Some(by), Some(path)) = (arguments.next(), arguments.next()) else {
        bail!("{BARE} wants two words")
    };
    let file = File::open(path)?;
    let octets = if by == Bare::Ours.word() { by_ours(file)? } else { by_pcap_parser(file)? };
    ensure!(octets > 0, "no frames");
    Ok(())
}

fn by_ours(file: File) -> Result<u64> {
    let (mut capture, mut octets) = (Capture::open(file)?, 0);
    while let Some(record) = capture.next_record()? {
        octets += record.octets.len() as u64;
    }
    Ok(octets)
}

fn by_pcap_parser(file: File) -> Result<u64> {
    /// As much as ours reads at once.
    const BUFFER: usize = 256 << 10;
    let (mut reader, mut octets) = (LegacyPcapReader::new(BUFFER, file)?, 0);
    loop {
        match reader.next() {
            Ok((taken, block)) => {
                if let PcapBlockOwned::Legacy(frame) = block {
                    octets += frame.data.len() as u64;
                }
                reader.consume(taken);
            }
            Err(PcapError::Eof) => return Ok(octets),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().ok().context("it cannot be read on")?;
            }
            Err(error) => bail!("pcap-parser: {error:?}"),
        }
    }
}
