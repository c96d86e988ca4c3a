//! The heart: which versions of which models are loaded, who may use them, and where runs wait.
//!
//! Owns the catalog that requests are resolved against, the leases that keep versions alive, the
//! life cycle that loads and unloads, and the lanes and threads of runs. May not know files, engines,
//! wires or configuration: artifacts are paths that it hands on, engines are
//! [`vesta_model::Engine`]. Sources say what is wanted ([`Serving::aspire`]), never what to do.
//!
//! # How a request goes
//!
//! [`Serving::resolve`] finds its version once, in an immutable snapshot, and gives a [`Lease`];
//! [`Lease::infer`] checks it against its signature and puts it into the version's lane; the
//! scheduler's threads take lanes in turn, run, and answer.
//!
//! # How a version lives
//!
//! ```text
//!            loader free        loaded           not wanted         last lease    unloader
//!   Queued ------------> Loading -----> Serving -----------> Draining ---> Drained ---> Unloading
//!    START               LOADING        AVAILABLE  <----------- UNLOADING ----+              |
//!                        |    ^                    wanted again                              |
//!                 failed |    | later                                                        |
//!                        v    |                                                              v
//!                       Retrying -----> Failed (END, error) ------- not wanted ------> Ended (END)
//! ```
//!
//! # Invariants
//!
//! - **Readers never wait for writers.** `resolve` takes no lock; loads and unloads that hang, and
//!   requests that take for ever, hold up no other model and no lookup.
//! - **A lease keeps exactly one version alive.** A version is handed to an unloader only after its
//!   last lease and its listing are gone; the end of the last hold is an event, nobody waits for it.
//!   After a version left the catalog, no new lease on it is given.
//! - **Availability.** While something is wanted and nothing wanted serves, the last serving version
//!   stays. Versions that fail leave the old one serving.
//! - **One owner.** All state that changes belongs to one thread, which wakes by event or alarm,
//!   blocks on nothing else, and plans to a fixpoint. One version is in one step at a time.
//! - **Order of publication.** LOADING is shown before a load begins; a version can be resolved
//!   before it is shown as AVAILABLE; it is shown as UNLOADING before it can no longer be resolved.
//!   A version wanted again before it was unloaded goes from UNLOADING back to AVAILABLE.
//! - **Failures are final while wanted.** A load is tried `1 + load_retries_max` times, then the
//!   version stays at END with its error until it is aspired with other files, or again after it was
//!   left out.
//! - **AVAILABLE is the truth.** A version whose session says that it is being restarted goes back
//!   to LOADING with the reason and stays in the catalog (`Restarting`); it does not count as serving
//!   when an old version is to go. One whose session was given up ends like one that failed to load.
//! - **A session that panicked is never run again.** Its version refuses requests with UNAVAILABLE,
//!   is shown like one that is being restarted, and is loaded anew.
//! - **Bounds.** Each version lets `queue_runs_max` requests wait and refuses more at once; of ended
//!   versions the newest 100 of each model stay listed, of models that are over the latest 1000;
//!   `load_threads` bounds loads and `unload_threads` unloads, but a load or unload that hangs does
//!   not keep others waiting for ever: after a minute another thread comes in its place.

mod administer;
mod batching;
mod catalog;
mod clock;
mod lane;
mod lease;
mod lifecycle;
mod line;
mod options;
mod readiness;
mod reconfigure;
mod run;
mod scheduler;
mod servable;
mod serving;
mod texts;

pub use administer::{Administer, Administered};
pub use batching::{FormedBatch, RunObserver};
pub use clock::{Clock, RealClock};
pub use lease::{InferRequest, Lease};
pub use lifecycle::{Aspired, AspiredVersionPolicy, Edition, Phase, VersionStatus};
pub use options::ServingOptions;
pub use readiness::Readiness;
pub use reconfigure::Reconfigure;
pub use serving::{QueueDepth, Serving};
