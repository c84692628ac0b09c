//! Debian's kernels: fetched by apt, unpacked below the target folder, never installed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use crate::{
    error::Error,
    packages::{self, depends, entries, file, remove},
    process::{self, which},
    say,
    workspace::Workspace,
};

/// A kernel of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The oldest that is supported.
    V5_10,
    /// Long-lived, without TCX.
    V6_1,
    /// Long-lived, with TCX.
    V6_12,
    /// The same with locks that sleep: programs interrupt one another.
    V6_12Rt,
    /// The newest.
    V7,
}

/// What `--kernel` takes: one, or all of them.
#[derive(Clone)]
pub(super) struct Choice(pub(super) Vec<Kernel>);

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Kernel::ALL;
        if text == "all" {
            return Ok(Self(all.to_vec()));
        }
        let found = all.into_iter().find(|kernel| kernel.to_string() == text);
        found.map(|kernel| Self(vec![kernel])).ok_or_else(|| {
            let names = all.map(|kernel| kernel.to_string()).join(", ");
            format!("expected one of {names}, or all")
        })
    }
}

impl Kernel {
    const ALL: [Self; 5] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::V6_12Rt, Self::V7];

    /// The suite that it comes from, and its flavour there. The `cloud` flavour has every module that the tests use.
    fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::V5_10 => ("bullseye", "cloud-amd64"),
            Self::V6_1 => ("bookworm", "cloud-amd64"),
            Self::V6_12 => ("trixie", "cloud-amd64"),
            Self::V6_12Rt => ("trixie", "rt-amd64"),
            Self::V7 => ("sid", "cloud-amd64"),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V6_12Rt => "6.12-rt",
            Self::V7 => "7",
        })
    }
}

/// A kernel as it lies below the target folder.
pub(super) struct Unpacked {
    pub(super) folder: PathBuf,
    pub(super) image: PathBuf,
    /// Holds `kernel/`, `modules.dep` and `modules.alias`.
    pub(super) modules: PathBuf,
    pub(super) version: String,
}

/// Fetches a kernel where it is missing. One that is there stays, whatever the archive has by now: to have a newer one,
/// its folder is deleted.
pub(super) fn ensure(workspace: &Workspace, kernel: Kernel) -> Result<Unpacked, Error> {
    let folder = workspace.guests().join(kernel.to_string());
    if let Ok(unpacked) = locate(&folder) {
        return Ok(unpacked);
    }
    let (suite, flavour) = kernel.source();
    let outcome = say::waiting(&format!("fetching Linux {kernel} from {suite} (once)"), || {
        packages::fill(&folder, |part| Archive::open(part, suite)?.unpack(flavour))
    });
    outcome.map_err(|cause| Error::NoKernel { kernel: kernel.to_string(), suite, cause: Box::new(cause) })?;
    locate(&folder)
}

fn locate(folder: &Path) -> Result<Unpacked, Error> {
    let root = folder.join("root");
    let incomplete = |part| Error::Incomplete { part, root: root.clone() };
    // From 6.12 on modules lie below usr, and from 7 on the kernel beside them.
    let modules = ["usr/lib/modules", "lib/modules"]
        .iter()
        .flat_map(|place| entries(&root.join(place)))
        .find(|path| path.join("modules.dep").is_file())
        .ok_or_else(|| incomplete("modules.dep"))?;
    let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let image = [root.join("boot").join(format!("vmlinuz-{version}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| incomplete("vmlinuz"))?;
    Ok(Unpacked { folder: folder.to_path_buf(), image, modules, version })
}

/// One suite of the package archive, with lists and cache of its own: the machine's stay as they are, and no root is
/// needed.
struct Archive {
    folder: PathBuf,
    configuration: PathBuf,
}

impl Archive {
    fn open(folder: &Path, suite: &str) -> Result<Self, Error> {
        for needed in ["lists/partial", "cache/archives/partial", "root"] {
            let path = folder.join(needed);
            file("create", &path, fs::create_dir_all(&path))?;
        }
        let mirror = mirror(&process::silent(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ]))?)
        .ok_or(Error::NoMirror)?
        .to_owned();
        let list = folder.join("list");
        let line =
            format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {suite} main\n");
        file("write", &list, fs::write(&list, line))?;
        let configuration = folder.join("apt.conf");
        let place = folder.display();
        // Downloads by another user than the caller would fail where that one may not enter.
        let text = format!(
            "Dir::Etc::sourcelist \"{place}/list\"; Dir::Etc::sourceparts \"-\";\n\
             Dir::State::lists \"{place}/lists\"; Dir::Cache \"{place}/cache\";\n\
             APT::Sandbox::User \"root\"; Acquire::Languages \"none\"; Acquire::Check-Valid-Until \"false\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
        );
        file("write", &configuration, fs::write(&configuration, text))?;
        let archive = Self { folder: folder.to_path_buf(), configuration };
        // Lists that cannot be had are a warning to apt otherwise, and the kernel then looks unknown.
        process::silent(archive.apt("apt-get").args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]))?;
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).env("LC_ALL", "C").current_dir(&self.folder);
        command
    }

    /// Unpacks the kernel of this flavour and what it was split into.
    fn unpack(&self, flavour: &str) -> Result<(), Error> {
        // Names carry the version and change with each release: the flavour's own package says which.
        let needs = |package: &str| process::silent(self.apt("apt-cache").args(["depends", package]));
        let newest = needs(&format!("linux-image-{flavour}"))?;
        let image = dependencies(&newest, &["linux-image-"]).next().ok_or(Error::NoImage)?.to_owned();
        let rest = needs(&image)?;
        let parts = dependencies(&rest, &["linux-binary-", "linux-modules-", "linux-base-"]);
        process::silent(self.apt("apt-get").args(["-qq", "download", &image]).args(parts))?;
        let root = self.folder.join("root");
        packages::unpack(&self.folder, &root)?;
        for rest in ["lists", "cache"].map(|rest| self.folder.join(rest)) {
            remove(&rest)?;
        }
        // No package ships the dependencies of its modules; depmod looks for them below lib.
        if !root.join("lib").exists() {
            let link = root.join("lib");
            file("link", &link, std::os::unix::fs::symlink("usr/lib", &link))?;
        }
        let version = image.trim_start_matches("linux-image-");
        let depmod = which("depmod").unwrap_or_else(|| "depmod".into());
        process::silent(Command::new(depmod).arg("-b").arg(&root).arg(version)).map(drop)
    }
}

/// The machine's own source of packages; those for security have no suites of other releases.
fn mirror(sources: &str) -> Option<&str> {
    sources.lines().map(str::trim).find(|uri| !uri.is_empty() && !uri.contains("security"))
}

/// The packages that a listing of `apt-cache depends` names as needed, with one of these prefixes and a version.
fn dependencies<'a>(listing: &'a str, prefixes: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let is_wanted = |package: &&str| {
        prefixes
            .iter()
            .filter_map(|prefix| package.strip_prefix(prefix))
            .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    depends(listing).filter(is_wanted)
}

#[cfg(test)]
mod tests {
    use super::{Choice, Kernel, dependencies, mirror};

    #[test]
    fn a_kernel_is_chosen_by_its_name() {
        let choice = |text: &str| text.parse().map(|Choice(kernels)| kernels);
        assert_eq!(choice("6.12-rt"), Ok(vec![Kernel::V6_12Rt]));
        assert_eq!(choice("all").map(|kernels| kernels.len()), Ok(5));
        assert_eq!(choice("6"), Err("expected one of 5.10, 6.1, 6.12, 6.12-rt, 7, or all".to_owned()));
    }

    #[test]
    fn the_source_is_the_first_that_is_not_for_security() {
        let sources = "http://one/debian-security\nhttp://two/debian\nhttp://three/debian\n";
        assert_eq!(mirror(sources), Some("http://two/debian"));
        assert_eq!(mirror("\n"), None);
    }

    #[test]
    fn the_kernel_and_its_parts_are_found_by_their_versions() {
        let newest = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n";
        assert_eq!(dependencies(newest, &["linux-image-"]).next(), Some("linux-image-6.1.0-50-cloud-amd64"));
        let parts = "linux-image-7.2\n  PreDepends: x\n  Depends: kmod\n  Depends: linux-base\n  Depends: \
                     linux-binary-7.2.13-cloud\n  Depends: linux-modules-7.2.13-cloud\n |Depends: linux-image-9\n";
        let found: Vec<_> =
            dependencies(parts, &["linux-binary-", "linux-modules-", "linux-base-"]).collect();
        assert_eq!(found, ["linux-binary-7.2.13-cloud", "linux-modules-7.2.13-cloud"]);
    }
}
