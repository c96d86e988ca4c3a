//! Isolation of an engine in a worker process, as a decorator of the engine traits.
//!
//! [`IsolatedEngine`] is an [`Engine`](vesta_model::Engine) whose sessions live in processes of
//! their own; the program that it starts calls [`serve_child`] with the engine that does the work.
//! The two talk over a Unix socket in small frames; tensors lie in shared memory.
//!
//! Owns: frames, the arena of shared slots, supervision, the restart policy.
//! May not know: wires, serving, any particular engine.
//! Invariant: whatever a worker process does (dies, hangs, answers garbage), the parent neither
//! panics nor waits without bound nor reads memory that is not there; it answers with a clear
//! status and replaces the worker.
//!
//! The way of one run: `run` lays the inputs out in a slot (`arena`), `link` sends the order and
//! waits, `child` runs it over the same memory and answers, `run` makes tensors over the slot; the
//! slot goes home when the last of them is dropped. `supervisor` owns the process all the while.

mod arena;
mod child;
mod describe;
mod frame;
mod isolated;
mod link;
mod options;
mod priority;
mod probe;
mod process;
mod restart;
mod run;
mod sizes;
mod startup;
mod supervisor;
mod wake;
mod wire;

pub use child::{ChildOptions, serve_child};
pub use isolated::{IsolatedEngine, IsolatedSession, WorkerHealth};
pub use options::{BUILD, WorkerOptions};
pub use priority::{Lowered, LoweredProcess};
pub use probe::{Probed, Tried, probe, probe_session, try_signatures};
pub use process::WorkerCommand;
pub use restart::{Life, RestartPolicy, Restarts, Verdict};
