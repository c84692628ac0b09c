//! Network namespaces, without entering one and without keeping one alive: by the numbers that the kernel has for them in
//! ours.
//!
//! A namespace has a number in ours once an interface of ours leads into it (`IFLA_LINK_NETNSID`). The kernel tells that of
//! a process (`RTM_GETNSID`, Linux 4.0), and the addresses in the namespace with a number (`IFA_TARGET_NETNSID`, Linux 4.20,
//! with `CAP_NET_ADMIN` only). Going there ourselves (`setns`) would take `CAP_SYS_ADMIN`.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream::LocalBoxStream};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    sys::AsyncSocket as _,
};
use tokio::task::AbortHandle;

use crate::host::links::{self, Address, HostError};

/// Where a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// In ours.
    Own,
    /// In the one that has this number in ours.
    Numbered(i32),
    /// In another, into which no interface of ours leads; or the process is gone.
    Unknown,
}

/// Asks about network namespaces. The connection is one of its own, for it is one on which the kernel reads more than the
/// family from a question for addresses (`NETLINK_GET_STRICT_CHK`).
pub struct Namespaces {
    handle: Handle,
    tasks: Vec<AbortHandle>,
    /// Messages of addresses in all namespaces that have a number in ours.
    changes: Option<LocalBoxStream<'static, ()>>,
    /// The inode of ours.
    own: Option<u64>,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Namespaces {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`HostError::Open`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn open() -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        let mut tasks = vec![tokio::spawn(connection).abort_handle()];
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (mut connection, _, changes) = rtnetlink::new_multicast_connection(&groups)?;
        let is_everywhere = connection.socket_mut().socket_mut().set_listen_all_namespaces(true).is_ok();
        if is_everywhere {
            tasks.push(tokio::spawn(connection).abort_handle());
        }
        let changes = is_everywhere.then(|| changes.map(|_| ()).boxed_local());
        Ok(Self { handle, tasks, changes, own: inode("thread-self") })
    }

    /// Whether it is told when addresses change in other namespaces, which takes `CAP_NET_BROADCAST`
    /// (`NETLINK_LISTEN_ALL_NSID`, Linux 4.2).
    pub const fn are_followed(&self) -> bool {
        self.changes.is_some()
    }

    /// Waits until an address has come or gone in a namespace that has a number in ours, or in ours; for ever where that is
    /// not told. Which, the messages do not say; and one may be lost when many come at once.
    pub async fn changed(&mut self) {
        let Some(changes) = &mut self.changes else { return std::future::pending().await };
        if changes.next().await.is_none() {
            self.changes = None;
            return;
        }
        // One answer to a burst of them.
        while changes.next().now_or_never().flatten().is_some() {}
    }

    /// The network namespace of a process.
    pub async fn of_process(&self, pid: u32) -> Namespace {
        if self.own.is_some() && inode(&pid.to_string()) == self.own {
            return Namespace::Own;
        }
        self.number(NsidAttribute::Pid(pid)).await
    }

    /// The network namespace of a name: one below `/run/netns`, or a path. It is not kept: the file is closed again.
    pub async fn of_name(&self, name: &str) -> Namespace {
        let Ok(file) = File::open(Path::new("/run/netns").join(name)) else { return Namespace::Unknown };
        if self.own.is_some() && file.metadata().ok().map(|it| it.ino()) == self.own {
            return Namespace::Own;
        }
        // A descriptor is no negative number.
        self.number(NsidAttribute::Fd(file.as_raw_fd() as u32)).await
    }

    async fn number(&self, of: NsidAttribute) -> Namespace {
        let mut question = NsidMessage::default();
        question.attributes.push(of);
        let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
        question.header.flags = NLM_F_REQUEST;
        let Ok(mut answers) = self.handle.clone().request(question) else { return Namespace::Unknown };
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) = answer.payload {
                let id = message.attributes.iter().find_map(|attribute| match attribute {
                    // Not assigned is -1.
                    NsidAttribute::Id(id) => Some(*id).filter(|id| *id >= 0),
                    _ => None,
                });
                return id.map_or(Namespace::Unknown, Namespace::Numbered);
            }
        }
        Namespace::Unknown
    }

    /// The addresses in the namespace with a number in ours, each with the index of its interface there; those of the
    /// loopback device are left out.
    ///
    /// # Errors
    ///
    /// [`HostError::List`] where the kernel refuses (without `CAP_NET_ADMIN`), or the namespace is gone.
    pub async fn addresses(&self, id: i32) -> Result<Vec<(u32, IpAddr)>, HostError> {
        let fail = |source| HostError::List { what: "addresses in another network namespace", source };
        let mut question = AddressMessage::default();
        question.attributes.push(AddressAttribute::TargetNetNsId(id));
        let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(question));
        question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let answers = self.handle.clone().request(question).map_err(fail)?;
        let answers = answers.filter_map(|answer| async {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => Some(Ok(message)),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    Some(Err(rtnetlink::Error::NetlinkError(error)))
                }
                _ => None,
            }
        });
        let messages: Vec<AddressMessage> = answers.try_collect().await.map_err(fail)?;
        let addresses = messages.iter().filter_map(|message| {
            let Address { ip, .. } = links::address(message)?;
            (!ip.is_loopback()).then_some((message.header.index, ip))
        });
        Ok(addresses.collect())
    }
}

/// Whether this is the first PID namespace of the host, in which every process has a number.
pub fn is_first_of_pids() -> bool {
    // PROC_PID_INIT_INO, include/linux/proc_ns.h.
    const FIRST: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").map_or(true, |it| it.ino() == FIRST)
}

/// The inode of a process's network namespace; none where the process is gone, or may not be looked at.
fn inode(process: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/net")).ok().map(|it| it.ino())
}
