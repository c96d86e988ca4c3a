//! What becomes of a version whose session cannot run anything for a while, or ever again. A part of
//! the manager.
//!
//! A session that says that it is being restarted keeps its place in the catalog, so that whoever
//! asks meanwhile is told why; one that was given up ends as a version that failed to load does. A
//! session that panicked does not come back by itself: another is loaded in its stead.
//! Invariant: a version is shown as AVAILABLE only while its session says that it serves.

use std::sync::Arc;

use vesta_model::{Session, SessionHealth, Status};

use super::event::{Event, Ticket};
use super::fleet::Repair;
use super::manager::Manager;
use super::phase::{State, Step};
use crate::servable::ServableId;
use crate::texts;

impl Manager {
    /// Begins to listen to a session; gives how it is now.
    pub(super) fn listen(&self, ticket: Ticket, session: &dyn Session) -> SessionHealth {
        let events = self.parts.sender.clone();
        session.watch(Arc::new(move |health| {
            // Without a life cycle there is nobody left to tell.
            let _ = events.send(Event::Health { ticket, health });
        }))
    }

    pub(super) fn on_health(&mut self, ticket: Ticket, health: SessionHealth) {
        let Some(instance) = self.fleet.instances.get_mut(&ticket) else { return };
        instance.health = health;
        let id = instance.id.clone();
        self.follow_health(&id, ticket);
    }

    /// Brings a version in line with how its session is doing.
    pub(super) fn follow_health(&mut self, id: &ServableId, ticket: Ticket) {
        let Some(health) = self.fleet.instances.get(&ticket).map(|one| one.health.clone()) else {
            return;
        };
        let Some(entry) = self.fleet.entry(id).filter(|entry| entry.ticket == Some(ticket)) else {
            return;
        };
        // A session that is being replaced has nothing to say any more.
        let replaced = entry.repair.is_some();
        match (entry.state, health) {
            (State::Serving | State::Restarting, SessionHealth::GivenUp(status)) if !replaced => {
                self.lose(id, status);
            }
            (State::Serving, SessionHealth::Restarting(status)) => self.falter(id, status),
            (State::Restarting, SessionHealth::Restarting(status)) if !replaced => {
                entry.error = Some(status);
                self.show(id);
            }
            (State::Restarting, SessionHealth::Serving) if !replaced => self.recover(id),
            // Whether it may be put back into the catalog may have changed.
            _ => {
                self.dirty.insert(id.model.clone());
            }
        }
    }

    /// Sees to a version that was put back into the catalog: what happened to its session meanwhile
    /// was nobody's concern.
    pub(super) fn resume(&mut self, id: &ServableId) {
        let Some(ticket) = self.fleet.entry(id).and_then(|entry| entry.ticket) else { return };
        let Some(instance) = self.fleet.instances.get(&ticket) else { return };
        match &instance.health {
            SessionHealth::GivenUp(status) => {
                let status = status.clone();
                self.replace(id, status);
            }
            _ if instance.is_broken() => self.replace(id, texts::session_broken(id)),
            _ => self.follow_health(id, ticket),
        }
    }

    /// Shows a version that serves as one that does not for now.
    fn falter(&mut self, id: &ServableId, status: Status) {
        tracing::warn!("servable {id} cannot run anything for now: {status}");
        if let Some(entry) = self.fleet.entry(id) {
            entry.error = Some(status);
        }
        self.step(id, Step::Falter);
        self.show(id);
    }

    fn recover(&mut self, id: &ServableId) {
        tracing::info!("servable {id} runs again");
        if let Some(entry) = self.fleet.entry(id) {
            entry.error = None;
        }
        self.step(id, Step::Recover);
        self.show(id);
    }

    /// Ends a version that was in the catalog.
    fn lose(&mut self, id: &ServableId, status: Status) {
        self.give_up(id, status);
        self.list(id, None);
        self.publish();
    }

    /// A session panicked: it refuses requests from now on, and another is loaded in its stead.
    pub(super) fn on_broken(&mut self, ticket: Ticket) {
        let Some(instance) = self.fleet.instances.get(&ticket) else { return };
        let id = instance.id.clone();
        self.dirty.insert(id.model.clone());
        if self.fleet.entry(&id).is_some_and(|entry| entry.ticket == Some(ticket)) {
            self.replace(&id, texts::session_broken(&id));
        }
    }

    /// Has a version in the catalog loaded anew, from the files that it was loaded from. One that
    /// breaks again soon after it was replaced waits as long as a load that failed.
    fn replace(&mut self, id: &ServableId, why: Status) {
        let interval = self.parts.options.load_retry_interval;
        let now = self.now();
        let Some(entry) = self.fleet.entry(id).filter(|entry| entry.repair.is_none()) else {
            return;
        };
        let serves = entry.state == State::Serving;
        if !serves && entry.state != State::Restarting {
            return;
        }
        let due = entry.repaired_at.map_or(now, |at| now.max(at + interval));
        entry.repair = Some(Repair { ticket: None, tries: 0, due });
        self.alarms.insert((due, id.clone()));
        if serves {
            self.falter(id, why);
        }
        self.ring_alarms();
    }

    /// The load of a replacement ended.
    pub(super) fn on_repaired(
        &mut self,
        id: &ServableId,
        ticket: Ticket,
        result: Result<Arc<dyn Session>, Status>,
    ) {
        let now = self.now();
        match result {
            Ok(session) => {
                self.adopt(id, ticket, session);
                if let Some(entry) = self.fleet.entry(id) {
                    entry.repair = None;
                    entry.repaired_at = Some(now);
                    entry.ticket = Some(ticket);
                }
                // The broken session goes when its last lease does.
                let lease = self.lease(ticket);
                self.list(id, lease);
                self.publish();
                self.follow_health(id, ticket);
                tracing::info!("Successfully loaded servable version {id}");
            }
            Err(status) => self.repair_failed(id, status),
        }
    }

    fn repair_failed(&mut self, id: &ServableId, status: Status) {
        let tries_max = self.parts.options.load_retries_max;
        let due = self.now() + self.parts.options.load_retry_interval;
        let Some(entry) = self.fleet.entry(id) else { return };
        match &mut entry.repair {
            Some(repair) if repair.tries < tries_max => {
                repair.ticket = None;
                repair.tries += 1;
                repair.due = due;
                self.alarms.insert((due, id.clone()));
            }
            _ => self.lose(id, status),
        }
    }
}
