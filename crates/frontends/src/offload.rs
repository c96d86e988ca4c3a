//! Where the work on a message is done.
//!
//! Owns: the choice between the wire's own threads and those that may be busy for long. May not
//! know: what the work is.
//! Invariant: work on a large message never holds up the wire's threads, and no more of it than
//! there are places is done at once, whoever still waits for it.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vesta_model::Status;

/// A bounded number of places for long work. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Offload {
    places: Arc<Semaphore>,
    bytes_in_place_max: usize,
}

impl Offload {
    /// `places` for long work, at least one. Work on fewer than `bytes_in_place_max` bytes is done
    /// where it arises: the hand-off would cost more.
    pub(crate) fn new(places: usize, bytes_in_place_max: usize) -> Offload {
        Offload { places: Arc::new(Semaphore::new(places.max(1))), bytes_in_place_max }
    }

    /// Does `work`, which is on `bytes` bytes.
    ///
    /// # Errors
    /// `INTERNAL` when it panicked on a thread for long work, besides its own.
    pub(crate) async fn run<T, E, W>(&self, bytes: usize, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Status> + Send + 'static,
        W: FnOnce() -> Result<T, E> + Send + 'static,
    {
        if bytes < self.bytes_in_place_max { work() } else { self.run_long(work).await }
    }

    /// Does `work`, which may take long whatever it is on.
    ///
    /// # Errors
    /// `INTERNAL` when it panicked, besides its own.
    pub(crate) async fn run_long<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Status> + Send + 'static,
        W: FnOnce() -> Result<T, E> + Send + 'static,
    {
        // The semaphore is never closed; without a place the work would only run unbounded.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is over, even if nobody waits for it any more.
            let _place = place;
            work()
        });
        done.await.unwrap_or_else(|error| {
            let status = Status::internal("the request could not be read or answered");
            Err(status.with_cause(error).into())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn large_work_moves_and_panics_are_errors() {
        let offload = Offload::new(2, 1000);
        let here = std::thread::current().id();
        let thread = || Ok::<_, Status>(std::thread::current().id());
        assert_eq!(offload.run(999, thread).await, Ok(here));
        assert_ne!(offload.run(1000, thread).await, Ok(here));
        assert_ne!(offload.run_long(thread).await, Ok(here));
        let panicked: Result<(), Status> = offload.run(1000, || panic!("on purpose")).await;
        assert_eq!(panicked.unwrap_err().code(), vesta_model::Code::Internal);
        assert_eq!(offload.places.available_permits(), 2);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_place() {
        let offload = Offload::new(1, 0);
        let (go, wait) = mpsc::channel::<()>();
        let done = Arc::new(AtomicUsize::new(0));
        let counted = |done: &Arc<AtomicUsize>| {
            let done = Arc::clone(done);
            move || Ok::<_, Status>(done.fetch_add(1, Ordering::SeqCst))
        };
        let first = counted(&done);
        let given_up = offload.run_long(move || {
            let _ = wait.recv();
            first()
        });
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(20), given_up).await.is_err()
        );
        let second = tokio::spawn({
            let (offload, work) = (offload.clone(), counted(&done));
            async move { offload.run_long(work).await }
        });
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(done.load(Ordering::SeqCst), 0, "the place is still taken");
        go.send(()).unwrap();
        assert_eq!(second.await.unwrap(), Ok(1));
    }
}
