//! Things that serve one run at a time, and the wait for one that is free.
//!
//! May not know: what they are. Invariant: there are never more than allowed, and nobody else has one
//! that was taken.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vesta_model::Status;

pub(crate) struct Pool<T> {
    stock: Mutex<Stock<T>>,
    /// Told when one comes back.
    returned: Condvar,
    made_max: usize,
}

struct Stock<T> {
    idle: Vec<T>,
    made: usize,
}

impl<T> Pool<T> {
    /// Those that are there; there may be `made_max` in all.
    pub(crate) fn new(idle: Vec<T>, made_max: usize) -> Pool<T> {
        let made = idle.len();
        Pool { stock: Mutex::new(Stock { idle, made }), returned: Condvar::new(), made_max }
    }

    /// One that nobody else has: an idle one, a new one, or the first that comes back.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` when none became free; those of `make`.
    pub(crate) fn take(
        &self,
        deadline: Option<Instant>,
        make: impl FnOnce() -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut stock = self.stock();
        loop {
            if let Some(idle) = stock.idle.pop() {
                return Ok(idle);
            }
            if stock.made < self.made_max {
                stock.made += 1;
                drop(stock);
                return make().inspect_err(|_| {
                    self.stock().made -= 1;
                    self.returned.notify_one();
                });
            }
            let Some(deadline) = deadline else {
                stock = self.returned.wait(stock).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Status::deadline_exceeded(
                    "no run of the model that came before ended before the deadline",
                ));
            }
            let waited = self.returned.wait_timeout(stock, left);
            stock = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn put_back(&self, one: T) {
        self.stock().idle.push(one);
        self.returned.notify_one();
    }

    /// A panic elsewhere leaves whole values.
    fn stock(&self) -> MutexGuard<'_, Stock<T>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn there_are_no_more_than_allowed() {
        let pool = Pool::new(vec![1], 2);
        let none = || -> Result<i32, Status> { panic!("one is idle") };
        assert_eq!(pool.take(None, none).unwrap(), 1);
        let failed = || Err(Status::internal("it cannot be made"));
        assert!(pool.take(None, failed).is_err());
        assert_eq!(pool.take(None, || Ok(2)).unwrap(), 2, "what was not made does not count");
        let soon = Some(Instant::now() + Duration::from_millis(1));
        let status = pool.take(soon, || -> Result<i32, Status> { panic!("too many") }).unwrap_err();
        assert_eq!(status.code(), vesta_model::Code::DeadlineExceeded);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.take(None, || Ok(3)));
            pool.put_back(2);
            assert_eq!(waiting.join().unwrap().unwrap(), 2);
        });
    }
}
