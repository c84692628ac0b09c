//! Tells when interfaces or addresses change, and when filters go. The messages themselves are not followed: one may be
//! lost when many come at once, so whoever listens lists everything anew.

use futures_util::{StreamExt as _, future::ready, stream::Stream};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup, packet_core::NetlinkPayload};
use tokio::task::AbortHandle;

use crate::host::{links::HostError, queues};

/// Something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Interfaces or addresses.
    Links,
    /// A filter or a queueing discipline of the interface with this index came or went.
    Filters(u32),
    /// The queueing discipline that an interface sent by is no more, and its counters are not.
    Queue,
    /// What could not be understood: anything.
    Any,
    /// More than there was room for: anything, and how much nobody knows.
    Overrun,
}

/// A netlink connection for questions, and one for changes. Both end when this is dropped.
pub struct Netlink {
    /// For questions.
    pub handle: Handle,
    tasks: [AbortHandle; 2],
}

impl Netlink {
    /// Changes are of no more interest: whoever makes some shall not be told of them.
    pub fn stop_listening(&self) {
        let [_, changes] = &self.tasks;
        changes.abort();
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Opens both connections in the network namespace of the calling thread. The stream has an item for each message
/// that may mean a change.
///
/// # Errors
///
/// [`HostError::Open`].
///
/// # Panics
///
/// Outside a tokio runtime with I/O.
pub fn open() -> Result<(Netlink, impl Stream<Item = Change> + Unpin + use<>), HostError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let groups =
        [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Tc];
    let (changes, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    let tasks = [tokio::spawn(connection).abort_handle(), tokio::spawn(changes).abort_handle()];
    Ok((Netlink { handle, tasks }, messages.filter_map(|(message, _)| ready(change(&message.payload)))))
}

/// What a message means, if anything. One filter may be put in another's place.
fn change(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Change::Overrun),
        _ => return Some(Change::Any),
    };
    match message {
        RouteNetlinkMessage::DelQueueDiscipline(queue) if queues::kind(queue).is_some() => {
            Some(Change::Queue)
        }
        RouteNetlinkMessage::NewTrafficFilter(filter)
        | RouteNetlinkMessage::DelTrafficFilter(filter)
        | RouteNetlinkMessage::DelQueueDiscipline(filter) => {
            u32::try_from(filter.header.index).ok().map(Change::Filters)
        }
        RouteNetlinkMessage::NewQueueDiscipline(_)
        | RouteNetlinkMessage::NewTrafficChain(_)
        | RouteNetlinkMessage::DelTrafficChain(_)
        | RouteNetlinkMessage::NewTrafficClass(_)
        | RouteNetlinkMessage::DelTrafficClass(_)
        | RouteNetlinkMessage::NewTrafficAction(_)
        | RouteNetlinkMessage::DelTrafficAction(_) => None,
        _ => Some(Change::Links),
    }
}
