//! Signals that end the server.

use tokio::signal::unix::{Signal, SignalKind, signal};
use vesta_model::Status;

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals over from their default action.
    pub(crate) fn take() -> Result<Signals, Status> {
        let take = |kind| {
            signal(kind).map_err(|e| Status::internal("signals cannot be received").with_cause(e))
        };
        Ok(Signals {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Waits for either; gives its name.
    pub(crate) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for `work` to end, or for a signal; says which it was.
    pub(crate) async fn interrupt<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            signal = self.recv() => {
                tracing::warn!("{signal} again: ending at once");
                None
            }
        }
    }
}
