//! One loaded version: its session, and where its runs wait.
//!
//! May not know when it is loaded or unloaded. Invariant: a session that panicked is never run
//! again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use vesta_model::{ModelName, Session, Version};

use crate::batching::Queues;
use crate::lifecycle::{Event, Ticket};
use crate::scheduler::{LaneKey, Scheduler};

/// A model's name with one of its versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServableId {
    pub(crate) model: ModelName,
    pub(crate) version: Version,
}

/// Prints as the original's logs and errors do.
impl fmt::Display for ServableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{name: {} version: {}}}", self.model, self.version)
    }
}

/// A session with what belongs to it. Dropping the last reference unloads it.
pub(crate) struct Servable {
    pub(crate) id: ServableId,
    /// Which load it came from; a version that is loaded twice has two.
    pub(crate) ticket: Ticket,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) lane: LaneKey,
    /// Where its requests are batched; `None` to run each alone.
    pub(crate) queues: Option<Queues>,
    broken: AtomicBool,
    events: Sender<Event>,
}

impl Servable {
    pub(crate) fn new(
        id: ServableId,
        ticket: Ticket,
        session: Arc<dyn Session>,
        scheduler: &Scheduler,
        events: Sender<Event>,
    ) -> Servable {
        let lane = scheduler.lane(id.clone());
        let queues = session
            .batching()
            .map(|parameters| Queues::new(id.clone(), scheduler.clone(), parameters));
        Servable { id, ticket, session, lane, queues, broken: AtomicBool::new(false), events }
    }

    /// Whether the session panicked.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Marks the session as never to be run again and asks for another.
    pub(crate) fn mark_broken(&self) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            // Without a life cycle there is nobody left to replace it.
            let _ = self.events.send(Event::Broken { ticket: self.ticket });
        }
    }
}
