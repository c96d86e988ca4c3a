//! Loading and trying again. A part of the manager.
//!
//! Invariant: at most `load_threads` loads that do not hang are in the hands of loaders, so that the
//! order of what waits is decided here and a load that is no longer wanted never begins.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use vesta_model::{LoadRequest, ModelName, Session, Status};

use super::event::{Event, Ticket};
use super::fleet::{Instance, Repair};
use super::manager::Manager;
use super::phase::{State, Step};
use super::planner;
use crate::lease::Lease;
use crate::servable::{Servable, ServableId};
use crate::texts;

impl Manager {
    /// Puts a version behind all others that wait for a loader.
    pub(super) fn enqueue(&mut self, id: &ServableId) {
        if !self.step(id, Step::Queue) {
            return;
        }
        if let Some(entry) = self.fleet.entry(id) {
            entry.tries = 0;
            entry.error = None;
            entry.retry_at = None;
        }
        self.show(id);
        self.queue.push_back(id.clone());
    }

    /// Ends a version that no loader has yet. One that failed before keeps its error.
    pub(super) fn cancel(&mut self, id: &ServableId) {
        if self.step(id, Step::Cancel) {
            self.show(id);
        }
    }

    /// Queues every version whose alarm is due.
    pub(super) fn ring_alarms(&mut self) {
        let now = self.now();
        while self.alarms.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, id)) = self.alarms.pop_first() {
                self.queue.push_back(id);
            }
        }
    }

    /// Gives work to free loaders. What has to wait for memory keeps its place.
    pub(super) fn start_loads(&mut self) {
        let now = self.now();
        let mut waiting = VecDeque::new();
        while self.loaders.has_room(now) && self.closing.is_none() {
            let Some(id) = self.queue.pop_front() else { break };
            let must_wait = self.must_wait(&id.model);
            let Some(entry) = self.fleet.entry(&id) else { continue };
            let due = entry.retry_at.is_none_or(|at| at <= now);
            let repairable = |repair: &Repair| repair.ticket.is_none() && repair.due <= now;
            match entry.state {
                State::Queued if must_wait => waiting.push_back(id),
                State::Retrying if due && must_wait => waiting.push_back(id),
                State::Queued => self.begin(&id),
                State::Retrying if due => self.begin(&id),
                State::Restarting if entry.repair.as_ref().is_some_and(repairable) => {
                    self.begin_repair(&id);
                }
                // What it waited for has been done or is no longer wanted.
                _ => {}
            }
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
    }

    /// Whether loads of a model have to wait until something of it is gone.
    fn must_wait(&self, model: &ModelName) -> bool {
        planner::must_wait(&self.fleet.seen(model), self.parts.options.policy)
    }

    fn begin(&mut self, id: &ServableId) {
        let ticket = self.next_ticket();
        let Some(entry) = self.fleet.entry(id) else { return };
        let Some(wanted) = entry.wanted.clone() else { return };
        entry.tried = Some(wanted.clone());
        entry.editions.tried();
        match wanted.artifact {
            Ok(artifact) => {
                entry.ticket = Some(ticket);
                if self.step(id, Step::Begin) {
                    self.show(id);
                    self.load(id, ticket, artifact, wanted.tags);
                }
            }
            Err(status) => {
                tracing::error!("Loading servable: {id} failed: {status}");
                self.give_up(id, status);
            }
        }
    }

    fn begin_repair(&mut self, id: &ServableId) {
        let ticket = self.next_ticket();
        let Some(entry) = self.fleet.entry(id) else { return };
        // The same files that serve now, whatever the source offers since.
        let Some(tried) = entry.tried.clone() else { return };
        let (Some(repair), Ok(artifact)) = (entry.repair.as_mut(), tried.artifact) else { return };
        repair.ticket = Some(ticket);
        self.load(id, ticket, artifact, tried.tags);
    }

    /// Hands a load to a loader.
    fn load(&mut self, id: &ServableId, ticket: Ticket, artifact: PathBuf, tags: Vec<String>) {
        let request = LoadRequest {
            model: id.model.clone(),
            version: id.version,
            artifact,
            tags,
            threads: self.parts.options.engine_threads,
        };
        let engine = Arc::clone(&self.parts.engine);
        let events = self.parts.sender.clone();
        let id = id.clone();
        let now = self.now();
        self.loaders.begin(ticket, now, move || {
            tracing::info!("Loading servable version {id}");
            let loaded = catch_unwind(AssertUnwindSafe(|| engine.load(&request)));
            let result = loaded.unwrap_or_else(|_| Err(texts::load_panicked(&id)));
            // Without a life cycle the session is of no use, and goes with the event.
            let _ = events.send(Event::Loaded { id, ticket, result });
        });
    }

    pub(super) fn on_loaded(
        &mut self,
        id: &ServableId,
        ticket: Ticket,
        result: Result<Arc<dyn Session>, Status>,
    ) {
        self.loaders.done(ticket);
        if let Err(status) = &result {
            tracing::error!("Loading servable: {id} failed: {status}");
        }
        let tries_max = self.parts.options.load_retries_max;
        let Some(entry) = self.fleet.entry(id) else { return self.orphan(id, ticket, result) };
        if entry.repair.as_ref().is_some_and(|repair| repair.ticket == Some(ticket)) {
            return self.on_repaired(id, ticket, result);
        }
        if entry.ticket != Some(ticket) || entry.state != State::Loading {
            return self.orphan(id, ticket, result);
        }
        // A session of files that were exchanged meanwhile is not what is wanted; after a failure
        // the next try takes the other ones.
        let is_outdated = result.is_ok() && entry.offers_other_files();
        let wanted = entry.wanted.is_some() && !is_outdated;
        let step = planner::after_load(result.is_ok(), wanted, entry.tries < tries_max);
        match (step, result) {
            (Step::Publish, Ok(session)) => {
                self.adopt(id, ticket, session);
                self.come_up(id, ticket);
            }
            (Step::Discard, Ok(session)) => {
                entry.error = Some(texts::load_cancelled());
                self.adopt(id, ticket, session);
                self.step(id, Step::Discard);
                self.show(id);
                self.hand_to_unloader(ticket);
            }
            (Step::TryLater, Err(status)) => self.try_later(id, status),
            (_, Err(status)) => self.give_up(id, status),
            (_, result) => self.orphan(id, ticket, result),
        }
    }

    /// The catalog first, the status second, so that whoever reads AVAILABLE can use it.
    fn come_up(&mut self, id: &ServableId, ticket: Ticket) {
        let lease = self.lease(ticket);
        self.list(id, lease);
        self.list_awaited_labels(id);
        self.publish();
        self.step(id, Step::Publish);
        self.show(id);
        self.follow_health(id, ticket);
        tracing::info!("Successfully loaded servable version {id}");
    }

    fn try_later(&mut self, id: &ServableId, status: Status) {
        let at = self.now() + self.parts.options.load_retry_interval;
        if let Some(entry) = self.fleet.entry(id) {
            entry.tries += 1;
            entry.retry_at = Some(at);
            entry.error = Some(status);
            entry.ticket = None;
        }
        self.step(id, Step::TryLater);
        self.show(id);
        self.alarms.insert((at, id.clone()));
    }

    /// Ends a version with an error.
    pub(super) fn give_up(&mut self, id: &ServableId, status: Status) {
        tracing::error!("Servable {id} cannot be loaded: {status}");
        if let Some(entry) = self.fleet.entry(id) {
            entry.error = Some(status);
            entry.ticket = None;
            entry.repair = None;
        }
        self.step(id, Step::GiveUp);
        self.show(id);
    }

    /// Remembers a session.
    pub(super) fn adopt(&mut self, id: &ServableId, ticket: Ticket, session: Arc<dyn Session>) {
        let events = self.parts.sender.clone();
        let health = self.listen(ticket, &*session);
        let scheduler = &self.parts.scheduler;
        let servable = Arc::new(Servable::new(id.clone(), ticket, session, scheduler, events));
        let instance = Instance { id: id.clone(), servable: Some(servable), holds: 0, health };
        self.fleet.instances.insert(ticket, instance);
    }

    /// Brings a session to its end that nobody waits for any more.
    fn orphan(
        &mut self,
        id: &ServableId,
        ticket: Ticket,
        result: Result<Arc<dyn Session>, Status>,
    ) {
        if let Ok(session) = result {
            self.adopt(id, ticket, session);
            self.hand_to_unloader(ticket);
        }
    }

    /// A new hold on a session; `None` when it is gone.
    pub(super) fn lease(&mut self, ticket: Ticket) -> Option<Lease> {
        let events = self.parts.sender.clone();
        let instance = self.fleet.instances.get_mut(&ticket)?;
        let servable = instance.servable.clone()?;
        instance.holds += 1;
        Some(Lease::new(servable, events))
    }
}
