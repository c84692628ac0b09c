//! What is done for cgroups in the midst of what takes long. Attaching to an interface takes the kernel some 30 ms; a
//! container that lives for a moment would have gone, and with it the process that tells its network namespace.

use futures_util::FutureExt as _;

use super::{Daemon, DaemonError, alive::Whose};

/// Reads of what is told, each of which takes what fits into 4 KiB: of some ten thousand cgroups.
const AT_ONCE: u32 = 256;

impl Daemon<'_> {
    /// Takes in what is told of cgroups by now, and asks those that have processes for their network namespaces. Whether there
    /// was anything, by which ends may have to be named.
    pub(super) async fn take_cgroups(&mut self) -> Result<bool, DaemonError> {
        let mut has_news = false;
        // Bounded, for others go on meanwhile.
        for _ in 0..AT_ONCE {
            let Some(changes) = self.workloads.next().now_or_never() else { break };
            if !changes.is_empty() {
                has_news = true;
                self.book_cgroups(changes)?;
            }
        }
        if has_news {
            self.find_namespaces(Whose::Recent).await;
        }
        Ok(has_news)
    }
}
