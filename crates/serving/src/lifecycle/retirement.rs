//! Out of the catalog and back into it, and unloading. A part of the manager.
//!
//! Invariant: a session goes to an unloader only when no hold on it is left, but for a shutdown
//! whose time is over.

use super::event::{Event, Ticket};
use super::manager::Manager;
use super::phase::{State, Step};
use crate::servable::ServableId;

impl Manager {
    /// Takes versions out of the catalog and puts others back, in one publication.
    pub(super) fn exchange(&mut self, retired: &[ServableId], revived: &[ServableId]) {
        for id in retired {
            tracing::info!("Quiescing servable version {id}");
            if let Some(entry) = self.fleet.entry(id) {
                // A replacement under way comes too late, and becomes an orphan.
                entry.repair = None;
                // It ends because nobody wants it, whatever ailed it.
                entry.error = None;
            }
            self.step(id, Step::Retire);
            self.show(id);
            self.list(id, None);
        }
        for id in revived {
            let ticket = self.fleet.entry(id).and_then(|entry| entry.ticket);
            let lease = ticket.and_then(|ticket| self.lease(ticket));
            self.list(id, lease);
        }
        self.publish();
        for id in revived {
            tracing::info!("Servable version {id} is wanted again before it was unloaded");
            self.step(id, Step::Revive);
            self.show(id);
            self.resume(id);
        }
    }

    /// A hold ended; the last one lets a retired or replaced session go.
    pub(super) fn on_released(&mut self, ticket: Ticket) {
        let Some(instance) = self.fleet.instances.get_mut(&ticket) else { return };
        instance.holds = instance.holds.saturating_sub(1);
        if instance.holds > 0 || instance.servable.is_none() {
            return;
        }
        let id = instance.id.clone();
        match self.fleet.entry(&id) {
            Some(entry) if entry.ticket == Some(ticket) => {
                if entry.state == State::Draining {
                    tracing::info!("Done quiescing servable version {id}");
                    self.step(&id, Step::Release);
                }
            }
            _ => self.hand_to_unloader(ticket),
        }
    }

    /// Unloads a version that nobody holds.
    pub(super) fn unload(&mut self, id: &ServableId) {
        let ticket = self.fleet.entry(id).and_then(|entry| entry.ticket);
        if let Some(ticket) = ticket
            && self.step(id, Step::Unload)
        {
            self.hand_to_unloader(ticket);
        }
    }

    /// Lets an unloader drop a session.
    pub(super) fn hand_to_unloader(&mut self, ticket: Ticket) {
        let Some(instance) = self.fleet.instances.get_mut(&ticket) else { return };
        let Some(servable) = instance.servable.take() else { return };
        self.leaving.push_back((ticket, servable));
        self.start_unloads();
    }

    /// Gives work to free unloaders.
    pub(super) fn start_unloads(&mut self) {
        let now = self.now();
        while self.unloaders.has_room(now) {
            let Some((ticket, servable)) = self.leaving.pop_front() else { return };
            let report = UnloadReport { ticket, events: self.parts.sender.clone() };
            self.unloaders.begin(ticket, now, move || {
                // Sent even when the engine panics.
                let _report = report;
                tracing::info!("Unloading servable version {}", servable.id);
                drop(servable);
            });
        }
    }

    pub(super) fn on_unloaded(&mut self, ticket: Ticket) {
        self.unloaders.done(ticket);
        self.start_unloads();
        let Some(instance) = self.fleet.instances.remove(&ticket) else { return };
        let id = instance.id;
        tracing::info!("Done unloading servable version {id}");
        let Some(entry) = self.fleet.entry(&id) else { return };
        if entry.ticket == Some(ticket) {
            entry.ticket = None;
            self.step(&id, Step::Vanish);
            self.show(&id);
        }
    }
}

/// Tells the life cycle, when dropped, that an unloader is done.
struct UnloadReport {
    ticket: Ticket,
    events: std::sync::mpsc::Sender<Event>,
}

impl Drop for UnloadReport {
    fn drop(&mut self) {
        // Without a life cycle there is nobody left to tell.
        let _ = self.events.send(Event::Unloaded { ticket: self.ticket });
    }
}
