//! How many bytes all requests together may hold in memory.
//!
//! Owns: one counter for the whole server, shared by all frontends. A request takes bytes out of it
//! as they arrive or as buffers grow, never by what a header promises, and gives them back when its
//! [`Permit`] is dropped.
//! May not know: what the bytes are for.
//! Invariant: the bytes held by all permits never exceed the limit; taking never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vesta_model::Status;

/// A limit in bytes, shared by its clones.
#[derive(Clone, Debug)]
pub struct Budget {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    bytes_max: usize,
    bytes_taken: AtomicUsize,
}

/// Bytes taken out of a [`Budget`]; dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Budget {
    /// A budget of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Budget {
        Budget { pool: Arc::new(Pool { bytes_max, bytes_taken: AtomicUsize::new(0) }) }
    }

    /// A permit for no bytes yet.
    pub fn permit(&self) -> Permit {
        Permit { pool: Arc::clone(&self.pool), bytes: 0 }
    }

    /// A permit for `bytes`.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` at once when they are not to be had.
    pub fn take(&self, bytes: usize) -> Result<Permit, Status> {
        let mut permit = self.permit();
        permit.grow(bytes)?;
        Ok(permit)
    }

    /// Bytes that all permits hold now.
    pub fn bytes_taken(&self) -> usize {
        self.pool.bytes_taken.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn bytes_max(&self) -> usize {
        self.pool.bytes_max
    }
}

impl Permit {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` at once when they are not to be had; what is held already stays held.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Status> {
        let max = self.pool.bytes_max;
        let add = |taken: usize| taken.checked_add(bytes).filter(|&sum| sum <= max);
        // The counter guards no other memory, so no ordering beyond its own is needed.
        match self.pool.bytes_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(taken) => Err(Status::resource_exhausted(format!(
                "the requests under way hold {taken} of the {max} bytes that the server grants \
                 them, and this one needs {bytes} more; send it again later or in smaller parts"
            ))),
        }
    }

    /// Gives `bytes` back early, or all that is held if that is less.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.pool.bytes_taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::Code;

    #[test]
    fn refuses_at_once_and_gives_back_on_drop() {
        let budget = Budget::new(100);
        let mut a = budget.take(60).unwrap();
        let refused = budget.take(41).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(budget.bytes_taken(), 60);
        a.grow(40).unwrap();
        assert!(a.grow(1).is_err());
        a.shrink(50);
        assert_eq!(budget.bytes_taken(), 50);
        drop(a);
        assert_eq!(budget.bytes_taken(), 0);
        assert!(budget.take(usize::MAX).is_err());
    }
}
