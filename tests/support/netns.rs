//! Network namespaces of a test's own: made with a name that no other run has, entered by threads, deleted at the end.

use std::{
    fs::File,
    marker::PhantomData,
    os::fd::AsFd as _,
    panic, process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Result, command, privilege};

/// A name that neither another run nor another test of this one has; short enough for an interface.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}.{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace; deleted when this is dropped. Stays with the thread that made it.
#[derive(Debug)]
pub struct NetNs {
    place: Place,
    _stays: PhantomData<*const ()>,
}

impl NetNs {
    /// Makes one, with its loopback up.
    pub fn new() -> Result<Self> {
        privilege::check()?;
        let name = unique("ct");
        command::run("ip", &["netns", "add", &name])?;
        let namespace = Self { place: Place { name }, _stays: PhantomData };
        namespace.place.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Where it is, for other threads.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // A test that fails for another reason shall say that one.
        let _ = command::run("ip", &["netns", "del", &self.place.name]);
    }
}

/// The name of a namespace that somebody else keeps.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
}

impl Place {
    /// The one that has this name below `/run/netns`.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name below `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread there until the guard is dropped.
    pub fn enter(&self) -> Result<Entered> {
        let before = File::open("/proc/thread-self/ns/net")?;
        let there = File::open(format!("/run/netns/{}", self.name))
            .with_context(|| format!("the namespace {} is gone", self.name))?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(Entered { before, _stays: PhantomData })
    }

    /// Runs `work` there, on a thread of its own. Sockets made there stay there.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || {
            let _guard = self.enter()?;
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
    }

    /// Runs a command line there.
    pub fn run(&self, line: &str) -> Result<String> {
        self.within(|| command::line(line))
    }

    /// Runs `ip` there.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        command::line(&format!("ip -n {} {arguments}", self.name))
    }

    /// Adds rules to the packet filter there.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.within(|| command::run("nft", &[rules])).map(|_| ())
    }

    /// Sets kernel parameters, each below `/proc/sys/net`.
    pub fn sysctl(&self, parameters: &[(&str, &str)]) -> Result<()> {
        self.within(|| {
            for (name, value) in parameters {
                std::fs::write(format!("/proc/sys/net/{name}"), value)
                    .with_context(|| format!("net/{name} cannot be set"))?;
            }
            Ok(())
        })
    }
}

/// The calling thread is in another namespace; it returns when this is dropped.
#[derive(Debug)]
pub struct Entered {
    before: File,
    _stays: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = move_into_link_name_space(self.before.as_fd(), Some(LinkNameSpaceType::Network));
    }
}
