//! Where the work on a message is done.
//!
//! Owns: the choice between the wire's own threads and those that may be busy for long. May not
//! know: what the work is.
//! Invariant: work on a large message never holds up the wire's threads, and no more of it than
//! there are processors is done at once.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vesta_model::Status;

/// Work on fewer bytes is done where it arises: the hand-off would cost more.
const BYTES_IN_PLACE_MAX: usize = 1 << 20;

/// A bounded number of places for long work.
#[derive(Clone, Debug)]
pub(crate) struct Offload {
    places: Arc<Semaphore>,
}

impl Offload {
    /// As many places as processors.
    pub(crate) fn new() -> Offload {
        let places = std::thread::available_parallelism().map_or(1, usize::from);
        Offload { places: Arc::new(Semaphore::new(places)) }
    }

    /// Does `work`, which is on `bytes` bytes.
    ///
    /// # Errors
    /// `INTERNAL` when it panicked, besides its own.
    pub(crate) async fn run<T, W>(&self, bytes: usize, work: W) -> Result<T, Status>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T, Status> + Send + 'static,
    {
        if bytes < BYTES_IN_PLACE_MAX {
            return work();
        }
        let place = Arc::clone(&self.places).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is over, even if nobody waits for it any more.
            let _place = place;
            work()
        });
        done.await.unwrap_or_else(|error| {
            Err(Status::internal("the request could not be read or answered").with_cause(error))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_work_moves_and_panics_are_errors() {
        let offload = Offload::new();
        let here = std::thread::current().id();
        let small = offload.run(10, || Ok(std::thread::current().id())).await;
        assert_eq!(small, Ok(here));
        let large = offload.run(BYTES_IN_PLACE_MAX, || Ok(std::thread::current().id())).await;
        assert_ne!(large, Ok(here));
        let panicked: Result<(), Status> =
            offload.run(BYTES_IN_PLACE_MAX, || panic!("on purpose")).await;
        assert_eq!(panicked.unwrap_err().code(), vesta_model::Code::Internal);
        assert_eq!(offload.places.available_permits(), Offload::new().places.available_permits());
    }
}
