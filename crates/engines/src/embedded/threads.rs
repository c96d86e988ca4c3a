//! The numeric engine's thread pools.
//!
//! Each thread that runs sessions has pools of its own, one per size, so two callers never wait for
//! each other's pool: the number of threads that compute is callers times threads per run, which is
//! what the server's budget counts.
//!
//! A call from outside a pool wakes another thread and waits for it, about 90 µs; a call from inside
//! takes a microsecond. [`run_inside`] puts a whole loop inside.

use std::cell::RefCell;
use std::sync::Arc;

use rten::ThreadPool;

thread_local! {
    static POOLS: RefCell<Vec<(usize, Arc<ThreadPool>)>> = const { RefCell::new(Vec::new()) };
}

/// The pool of `threads` threads that belongs to the calling thread, made at its first use.
pub(crate) fn pool(threads: usize) -> Arc<ThreadPool> {
    let threads = threads.max(1);
    POOLS.with_borrow_mut(|pools| {
        if let Some((_, pool)) = pools.iter().find(|(size, _)| *size == threads) {
            return Arc::clone(pool);
        }
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        pools.push((threads, Arc::clone(&pool)));
        pool
    })
}

/// Runs `work` on the one thread of a new pool, and waits for it.
///
/// Runs of sessions that were loaded for one thread happen in place there, without waking any other
/// thread. Meant for loops that serve for as long as the server lives.
pub fn run_inside<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let pool = Arc::new(ThreadPool::with_num_threads(1));
    let own = Arc::clone(&pool);
    pool.run(move || {
        POOLS.with_borrow_mut(|pools| pools.push((1, own)));
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_pools() {
        assert!(Arc::ptr_eq(&pool(2), &pool(2)));
        assert!(!Arc::ptr_eq(&pool(2), &pool(1)));
    }

    #[test]
    fn inside_a_pool_runs_stay_on_its_thread() {
        run_inside(|| {
            let outer = std::thread::current().id();
            assert_eq!(pool(1).run(|| std::thread::current().id()), outer);
        });
        let outer = std::thread::current().id();
        assert_ne!(pool(1).run(|| std::thread::current().id()), outer);
    }
}
