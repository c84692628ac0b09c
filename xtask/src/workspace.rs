//! Where things lie, whatever the current directory is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::Error;

/// The workspace that xtask belongs to.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace of the package that cargo runs, or that this program was built from.
    pub(crate) fn find() -> Self {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().map_or_else(|| package.clone(), Path::to_path_buf);
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Programs that setup fetched; nothing is installed outside of the workspace.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// Kernels for guests, as they were fetched.
    pub(crate) fn guests(&self) -> PathBuf {
        self.root.join("target/vm")
    }

    /// Everything built for the BPF target. Fixed, even where `CARGO_TARGET_DIR` moves the host's files:
    /// the collector's build script looks for the object here.
    pub(crate) fn bpf(&self) -> PathBuf {
        self.root.join("target/bpf")
    }

    /// The eBPF object that the collector embeds.
    pub(crate) fn object(&self) -> PathBuf {
        self.bpf().join("datapath.o")
    }

    /// The toolchain that `rust-toolchain.toml` names.
    pub(crate) fn channel(&self) -> Result<String, Error> {
        let path = self.root.join("rust-toolchain.toml");
        let text = fs::read_to_string(&path).map_err(|cause| Error::File {
            act: "read",
            path: path.clone(),
            cause,
        })?;
        channel(&text).map(str::to_owned).ok_or(Error::NoChannel { path })
    }

    /// The caller's cargo, in the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }
}

fn channel(toml: &str) -> Option<&str> {
    toml.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "channel")
        .map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::channel;

    #[test]
    fn the_channel_is_read_from_its_line() {
        assert_eq!(channel("[toolchain]\nchannel = \"1.95.0\"\n"), Some("1.95.0"));
        assert_eq!(channel("[toolchain]\nprofile = \"minimal\"\n"), None);
    }
}
