//! Tells when interfaces or addresses change. The messages themselves are not followed: one may be lost when many come
//! at once, so whoever listens lists everything anew.

use futures_util::{StreamExt as _, stream::Stream};
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::AbortHandle;

use crate::host::links::HostError;

/// A netlink connection for questions, and one for changes. Both end when this is dropped.
pub struct Netlink {
    /// For questions.
    pub handle: Handle,
    tasks: [AbortHandle; 2],
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Opens both connections in the network namespace of the calling thread. The stream has an item for each message
/// about an interface or an address.
///
/// # Errors
///
/// [`HostError::Open`].
///
/// # Panics
///
/// Outside a tokio runtime with I/O.
pub fn open() -> Result<(Netlink, impl Stream<Item = ()> + Unpin + use<>), HostError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (changes, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    let tasks = [tokio::spawn(connection).abort_handle(), tokio::spawn(changes).abort_handle()];
    Ok((Netlink { handle, tasks }, messages.map(|_| ())))
}
