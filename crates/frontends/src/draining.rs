//! Whether the server has been told to end.
//!
//! Owns: one bit that changes once, and the wait for it. May not know: who ends the server, and what
//! becomes of calls meanwhile.
//! Invariant: from the moment it is set, no health check says that the server is ready; calls are
//! taken until the ports close.

use std::sync::Arc;

use tokio::sync::watch;

/// Says to health checks that the server is about to end. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Draining(Arc<watch::Sender<bool>>);

impl Draining {
    /// From now on the server is not ready.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether that has happened.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves once that has happened.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.0.subscribe();
        async move {
            // An error means that the last sender is gone, so that it cannot happen any more.
            if changes.wait_for(|&begun| begun).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Default for Draining {
    fn default() -> Draining {
        Draining(Arc::new(watch::Sender::new(false)))
    }
}

impl PartialEq for Draining {
    fn eq(&self, other: &Draining) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Draining {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clones_are_told() {
        let draining = Draining::default();
        let (clone, begun) = (draining.clone(), draining.begun());
        assert!(!clone.has_begun());
        draining.begin();
        assert!(clone.has_begun());
        begun.await;
        clone.begun().await;
        assert_ne!(clone, Draining::default());
    }
}
