//! What is done for cgroups in the midst of what takes long. Attaching to an interface takes the kernel some 30 ms; a
//! container that lives for a moment would have gone, and with it the process that tells its network namespace.

use futures_util::FutureExt as _;

use super::{Daemon, DaemonError, alive::Whose};

impl Daemon<'_> {
    /// Takes in what is told of cgroups by now, and asks those that have processes for their network namespaces. Whether there
    /// was anything, by which ends may have to be named.
    pub(super) async fn take_cgroups(&mut self) -> Result<bool, DaemonError> {
        let told = self.workloads.next().now_or_never();
        let Some(changes) = told.filter(|changes| !changes.is_empty()) else { return Ok(false) };
        self.book_cgroups(changes)?;
        self.find_namespaces(Whose::Recent).await;
        Ok(true)
    }
}
