//! The end of everything. A part of the manager.
//!
//! Nothing new begins; what runs has until a time limit; then everything is unloaded, and unloaders
//! that hang are waited for no longer than [`UNLOAD_GRACE`]. Loads under way are not waited for.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::manager::Manager;
use super::phase::{State, Step};
use crate::servable::ServableId;

/// How long unloading may take once the time for runs is over.
const UNLOAD_GRACE: Duration = Duration::from_secs(5);

/// A shutdown under way.
pub(super) struct Closing {
    /// When to stop waiting for runs; `None` to wait for as long as leases are held.
    until: Option<Instant>,
    /// Once runs are no longer waited for: when to stop waiting for unloaders.
    give_up_at: Option<Instant>,
    replies: Vec<SyncSender<()>>,
}

impl Closing {
    /// When the life cycle must look again though nothing happened.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.give_up_at.or(self.until)
    }
}

impl Manager {
    pub(super) fn on_shutdown(&mut self, until: Option<Instant>, reply: Option<SyncSender<()>>) {
        let begun = self.closing.is_some();
        let closing = self.closing.get_or_insert(Closing {
            until: None,
            give_up_at: None,
            replies: Vec::new(),
        });
        closing.until = closing.until.into_iter().chain(until).min();
        closing.replies.extend(reply);
        if begun {
            return;
        }
        self.catalog.closed = true;
        self.publish();
        self.dismiss_waiters();
        self.queue.clear();
        self.alarms.clear();
        for entry in self.fleet.models.values_mut().flat_map(|versions| versions.values_mut()) {
            entry.wanted = None;
        }
        self.dirty.extend(self.fleet.models.keys().cloned());
    }

    /// Stops waiting for runs when their time is over.
    pub(super) fn force_end_when_due(&mut self) {
        let now = self.now();
        match &mut self.closing {
            Some(closing)
                if closing.give_up_at.is_none() && closing.until.is_some_and(|at| at <= now) =>
            {
                closing.give_up_at = Some(now + UNLOAD_GRACE);
            }
            _ => return,
        }
        self.parts.scheduler.close();
        let held: Vec<_> = self
            .fleet
            .instances
            .iter()
            .filter(|(_, instance)| instance.servable.is_some())
            .map(|(&ticket, instance)| (ticket, instance.id.clone()))
            .collect();
        for (ticket, id) in held {
            tracing::warn!("servable {id} is still in use at the end of the time to shut down");
            if self.is_draining(&id) {
                self.step(&id, Step::Abandon);
            }
            self.hand_to_unloader(ticket);
        }
    }

    fn is_draining(&mut self, id: &ServableId) -> bool {
        self.fleet.entry(id).is_some_and(|entry| entry.state == State::Draining)
    }

    /// Whether a shutdown is complete.
    pub(super) fn is_over(&self) -> bool {
        let Some(closing) = &self.closing else { return false };
        let out_of_time = closing.give_up_at.is_some_and(|at| at <= self.now());
        self.fleet.instances.is_empty() || out_of_time
    }

    /// Tells everyone who waits.
    pub(super) fn finish(self) {
        self.parts.scheduler.close();
        let waiting = self.closing.map(|closing| closing.replies).unwrap_or_default();
        for reply in waiting {
            // Whoever asked may have given up.
            let _ = reply.send(());
        }
    }
}
