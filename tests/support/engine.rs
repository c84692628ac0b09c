//! Container engines of a test's own: Debian's Docker and Podman, unpacked and not installed, each on a host of the lab, with
//! all that they keep in a directory of their own.
//!
//! Containers have `/usr` of this machine, read only, and nothing else: what runs in them is its Python, by the programs
//! [`SERVES`] and [`ASKS`], or what a test gives.

use std::{
    env, fs,
    io::Read as _,
    net::Ipv4Addr,
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    PATIENCE, Result,
    lab::End,
    netns::{Place, unique},
    scratch::Scratch,
    served::Served,
};

/// Says where the packages lie; `none` where they are left out, as in guests.
const VARIABLE: &str = "COLLECTOR_ENGINES";

/// The name that Docker's image has.
const IMAGE: &str = "collector-test";

/// Answers every datagram to port 7 with itself, and tells that it does.
pub const SERVES: &str = "\
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(('', 7))
open('/said', 'w').write('serves\\n')
while True:
    question, whom = here.recvfrom(2048)
    here.sendto(question, whom)
";

/// `ASKS PORT ADDRESS PORT NUMBER SIZE`: from a port to an address and port so many datagrams of so many octets, each
/// answered before the next, and ends.
pub const ASKS: &str = "\
import socket, sys
source, address, port, number, size = sys.argv[1:]
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(('', int(source)))
here.connect((address, int(port)))
here.settimeout(60)
for _ in range(int(number)):
    here.send(bytes(int(size)))
    assert len(here.recv(2048)) == int(size)
";

/// What starts every program in a container: no time is lost with what Python could load besides.
const PYTHON: [&str; 4] = ["python3", "-I", "-S", "-c"];

/// An engine on a host of the lab. When this is dropped, its containers are removed, and nothing is left of it.
#[derive(Debug)]
pub struct Engine {
    place: Place,
    /// The command, and what every call of it begins with.
    command: Vec<String>,
    /// What stands for an image.
    image: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The directory above its cgroups.
    above: &'static str,
    /// The last is ended first.
    daemons: Vec<Served>,
    scratch: Scratch,
}

/// The root that the packages are unpacked below; none where these tests are left out, which is said.
#[expect(clippy::print_stdout, reason = "how a test of libtest says that it was left out")]
fn packages() -> Result<Option<PathBuf>> {
    match env::var_os(VARIABLE) {
        Some(root) if root == "none" => {
            println!("SKIP container engines: there are none here");
            Ok(None)
        }
        Some(root) => Ok(Some(root.into())),
        None => bail!("{VARIABLE} does not say where container engines are: run `cargo xtask test kernel`"),
    }
}

/// What the programs of the packages find each other and their libraries by. `LD_LIBRARY_PATH` is for them alone.
fn environment(root: &Path) -> Vec<(&'static str, String)> {
    let below = |places: &[&str]| {
        places.iter().map(|place| root.join(place).display().to_string()).collect::<Vec<_>>().join(":")
    };
    let machine = format!("{}-linux-gnu", env::consts::ARCH);
    let libraries = [format!("usr/lib/{machine}"), format!("lib/{machine}")];
    let libraries: Vec<_> = libraries.iter().map(String::as_str).collect();
    vec![
        ("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", below(&["usr/sbin", "usr/bin"]))),
        ("LD_LIBRARY_PATH", below(&libraries)),
        ("HOME", "/nonexistent".to_owned()),
    ]
}

/// A root for containers, in which `/usr` can be mounted.
fn container_root(scratch: &Scratch) -> Result<()> {
    let root = scratch.join("rootfs");
    for directory in ["", "usr", "etc", "proc", "dev", "sys", "tmp", "run"] {
        fs::create_dir(root.join(directory))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    Ok(())
}

impl Engine {
    /// A Docker daemon, and a containerd of its own; with a proxy for every published port or without. None where it is left out.
    pub fn docker(place: &Place, proxy: bool) -> Result<Option<Self>> {
        let Some(root) = packages()? else { return Ok(None) };
        let scratch = Scratch::new()?;
        container_root(&scratch)?;
        let environment = environment(&root);
        let daemon = |program: &str, arguments: &[(&str, String)]| {
            let mut command = Command::new(root.join(program));
            command.envs(environment.iter().cloned());
            for (option, value) in arguments {
                command.args([*option, value]);
            }
            command
        };
        // The machine's own containerd would know of the containers, if there is one.
        let settings = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        let containerd = daemon(
            "usr/bin/containerd",
            &[
                ("--config", scratch.write("containerd.toml", settings)?),
                ("--root", scratch.text("containerd")),
                ("--state", scratch.text("state")),
                ("--address", scratch.text("containerd.sock")),
            ],
        );
        let mut dockerd = daemon(
            "usr/sbin/dockerd",
            &[
                ("--config-file", scratch.write("daemon.json", "{}")?),
                ("--containerd", scratch.text("containerd.sock")),
                ("--data-root", scratch.text("data")),
                ("--exec-root", scratch.text("exec")),
                ("--pidfile", scratch.text("pid")),
                ("--host", format!("unix://{}", scratch.text("docker.sock"))),
                ("--exec-opt", "native.cgroupdriver=cgroupfs".to_owned()),
            ],
        );
        dockerd.arg(format!("--userland-proxy={proxy}"));
        let containerd = Served::start(containerd, place, "containerd successfully booted")?;
        let dockerd = Served::start(dockerd, place, "API listen on")?;
        let host = format!("unix://{}", scratch.text("docker.sock"));
        let engine = Self {
            place: place.clone(),
            command: vec![root.join("usr/bin/docker").display().to_string(), "--host".to_owned(), host],
            image: vec![IMAGE.to_owned()],
            environment,
            above: "docker",
            daemons: vec![containerd, dockerd],
            scratch,
        };
        let archive = engine.scratch.text("image.tar");
        crate::command::run("tar", &["-C", &engine.scratch.text("rootfs"), "-cf", &archive, "."])?;
        engine.run(&["import", &archive, IMAGE])?;
        Ok(Some(engine))
    }

    /// Podman, which has no daemon. None where it is left out.
    pub fn podman(place: &Place) -> Result<Option<Self>> {
        let Some(root) = packages()? else { return Ok(None) };
        let scratch = Scratch::new()?;
        container_root(&scratch)?;
        let mut environment = environment(&root);
        let [runc, conmon, plugins] =
            ["usr/sbin/runc", "usr/bin/conmon", "usr/lib/cni"].map(|place| root.join(place));
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            scratch.text("storage"),
            scratch.text("run")
        );
        environment.push(("CONTAINERS_STORAGE_CONF", scratch.write("storage.conf", &storage)?));
        environment.push(("CONTAINERS_REGISTRIES_CONF", scratch.write("registries.conf", "")?));
        // Its monitors have no other environment, and start it themselves once a container has ended.
        let of_monitors: Vec<_> =
            environment.iter().map(|(name, value)| format!("\"{name}={value}\"")).collect();
        let settings = format!(
            // Raising limits is not allowed everywhere. crun refuses a host with both versions of cgroups.
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nconmon_path = [\"{}\"]\nconmon_env_vars = [{}]\n\
             events_logger = \"file\"\nlock_type = \"file\"\nruntime = \"runc\"\n\
             [engine.runtimes]\nrunc = [\"{}\"]\n\
             [network]\ncni_plugin_dirs = [\"{}\"]\nnetwork_backend = \"cni\"\n",
            conmon.display(),
            of_monitors.join(", "),
            runc.display(),
            plugins.display()
        );
        environment.push(("CONTAINERS_CONF", scratch.write("containers.conf", &settings)?));
        let command = [
            root.join("usr/bin/podman").display().to_string(),
            "--root".to_owned(),
            scratch.text("storage"),
            "--runroot".to_owned(),
            scratch.text("run"),
            "--tmpdir".to_owned(),
            scratch.text("tmp"),
            "--network-config-dir".to_owned(),
            scratch.text("networks"),
        ];
        Ok(Some(Self {
            place: place.clone(),
            command: command.to_vec(),
            image: vec!["--rootfs".to_owned(), scratch.text("rootfs")],
            environment,
            above: "libpod_parent",
            daemons: Vec::new(),
            scratch,
        }))
    }

    /// Runs the engine's command, and returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(arguments).envs(self.environment.iter().cloned());
        let output = self.place.within(|| Ok(command.stdin(Stdio::null()).output()?))?;
        ensure!(
            output.status.success(),
            "{} {arguments:?} failed: {}",
            self.command[0],
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts a container with a program and its arguments; `options` are the engine's. Its whole id.
    pub fn start(&self, options: &[&str], program: &str, arguments: &[&str]) -> Result<String> {
        let image = self.image.iter().map(String::as_str);
        let words: Vec<_> = ["run", "--detach", "--volume", "/usr:/usr:ro"]
            .into_iter()
            .chain(options.iter().copied())
            .chain(image)
            .chain(PYTHON)
            .chain([program])
            .chain(arguments.iter().copied())
            .collect();
        self.run(&words)
    }

    /// Starts a container that [`SERVES`], and returns once it does.
    pub fn serve(&self, options: &[&str]) -> Result<Serving> {
        let name = unique("said");
        let pipe = self.scratch.text(&name);
        crate::command::run("mkfifo", &[&pipe])?;
        // With an end to write to of our own, it has no end between two starts.
        let said =
            fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&pipe)?;
        let volume = format!("{pipe}:/said");
        let options: Vec<_> = ["--volume", &volume].into_iter().chain(options.iter().copied()).collect();
        let mut serving = Serving { id: self.start(&options, SERVES, &[])?, said };
        serving.wait().with_context(|| format!("its log: {:?}", self.run(&["logs", &serving.id])))?;
        Ok(serving)
    }

    /// Runs a program in a container that is there, to its end.
    pub fn execute(&self, id: &str, program: &str, arguments: &[&str]) -> Result<String> {
        let words: Vec<_> = ["exec", id]
            .into_iter()
            .chain(PYTHON)
            .chain([program])
            .chain(arguments.iter().copied())
            .collect();
        self.run(&words)
    }

    /// Opens the network namespace of a container to the calling test.
    pub fn enter(&self, id: &str) -> Result<Inside> {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", id])?;
        let name = Named::attach(&pid)?;
        let place = Place::named(&name.0);
        // `2: eth0@if7: <...`: the interface with this index is on the host.
        let link = place.ip("-o link show eth0")?;
        let [own, beyond] = indexes(&link).with_context(|| format!("no end of a veth: {link}"))?;
        let links = self.place.ip("-o link show")?;
        let begins = format!("{beyond}: ");
        let dev = links.lines().find_map(|line| line.strip_prefix(&begins)?.split('@').next());
        let dev = dev.with_context(|| format!("nothing leads to {id} on the host: {links}"))?.to_owned();
        let address = place.ip("-4 -o addr show eth0")?;
        let address = address.split_whitespace().nth(3).and_then(|word| word.split('/').next());
        let v4: Ipv4Addr = address.context("eth0 has no address")?.parse()?;
        let end = |place: &Place, dev: String, ifindex| End {
            place: place.clone(),
            dev,
            ifindex,
            mac: [0; 6],
            v4,
            v6: std::net::Ipv6Addr::UNSPECIFIED,
        };
        let inside = Inside {
            end: end(&place, "eth0".to_owned(), own),
            port: end(&self.place, dev, beyond),
            _name: name,
        };
        inside.end.without_offloads()?;
        inside.port.without_offloads()?;
        Ok(inside)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok(all) = self.run(&["ps", "--all", "--quiet"]) {
            let all: Vec<_> = all.lines().collect();
            if !all.is_empty() {
                // Else each would be given its time to stop.
                let _ = self.run(&[&["kill"], &all[..]].concat());
                let _ = self.run(&[&["rm", "--force"], &all[..]].concat());
            }
        }
        while self.daemons.pop().is_some() {}
        // Of each version and controller; of Podman's there may be one of its monitors in it. Those that another has containers
        // in stay.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
            let above = hierarchy.join(self.above);
            let _ = fs::remove_dir(above.join("conmon"));
            let _ = fs::remove_dir(above);
        }
    }
}

/// A container that [`SERVES`].
#[derive(Debug)]
pub struct Serving {
    /// Its whole id.
    pub id: String,
    said: fs::File,
}

impl Serving {
    /// The id of its unit.
    pub fn unit(&self) -> &str {
        unit(&self.id)
    }

    /// Waits until it serves: once for each time that it was started.
    pub fn wait(&mut self) -> Result<()> {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let mut waiting = [PollFd::new(&self.said, PollFlags::IN)];
        ensure!(poll(&mut waiting, Some(&patience))? == 1, "{} does not serve", self.id);
        let mut line = [0; 16];
        let length = self.said.read(&mut line)?;
        ensure!(line[..length] == *b"serves\n", "{} does not serve", self.id);
        Ok(())
    }
}

/// The id of a container's unit.
pub fn unit(id: &str) -> &str {
    &id[..12]
}

/// The first end's index, and the other's.
fn indexes(link: &str) -> Option<[u32; 2]> {
    let (own, rest) = link.split_once(": ")?;
    let (_, beyond) = rest.split_once("@if")?;
    Some([own.parse().ok()?, beyond.split(':').next()?.parse().ok()?])
}

/// The network namespace of a container, and the interfaces that lead there. It has to be left before the container ends, or
/// it would outlive it.
#[derive(Debug)]
pub struct Inside {
    /// The container's interface.
    pub end: End,
    /// The host's end of it.
    pub port: End,
    _name: Named,
}

/// A name that a network namespace has below `/run/netns`.
#[derive(Debug)]
struct Named(String);

impl Named {
    fn attach(pid: &str) -> Result<Self> {
        let name = unique("ct");
        crate::command::run("ip", &["netns", "attach", &name, pid])?;
        Ok(Self(name))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = crate::command::run("ip", &["netns", "del", &self.0]);
    }
}
