//! The one thread that owns the state of all versions.
//!
//! It sleeps until an event or an alarm, plans the models that the event touched until nothing is
//! left to plan, and carries the plan out: what may block goes to loaders and unloaders. Invariants:
//!
//! - nothing on this thread blocks but waiting for events;
//! - a version is in the catalog before it is shown as available, and shown as unloading before it
//!   leaves the catalog;
//! - a version is shown as loading before its load begins;
//! - no event is lost: what cannot be used any more (a load of a version that nobody wants) is
//!   brought to its end.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use tokio::sync::oneshot;
use vesta_model::{Engine, ModelName, Status};

use super::crew::Crew;
use super::event::{Event, Failures, Ticket};
use super::fleet::{Entry, Fleet};
use super::phase::{State, Step};
use super::planner::{self, Action};
use super::pool::{Executor, Pool};
use super::shutdown::Closing;
use super::status_board::StatusBoard;
use super::{Aspired, Phase};
use crate::catalog::{Catalog, Labels, Published};
use crate::lease::Lease;
use crate::scheduler::Scheduler;
use crate::servable::{Servable, ServableId};
use crate::{Clock, ServingOptions};

/// What the manager is made of.
pub(crate) struct Parts {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) options: ServingOptions,
    pub(crate) published: Arc<Published>,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) scheduler: Scheduler,
    pub(crate) sender: Sender<Event>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The owner of all state that changes.
pub(crate) struct Manager {
    pub(super) parts: Parts,
    events: Receiver<Event>,
    pub(super) loaders: Crew,
    pub(super) unloaders: Crew,
    pub(super) fleet: Fleet,
    /// What is published; changed here first, then published as a whole.
    pub(super) catalog: Catalog,
    /// Models that have to be planned.
    pub(super) dirty: BTreeSet<ModelName>,
    /// Versions that wait for a loader, in their order. May hold some that need none any more.
    pub(super) queue: VecDeque<ServableId>,
    /// Sessions that wait for an unloader.
    pub(super) leaving: VecDeque<(Ticket, Arc<Servable>)>,
    /// When to look at which version again. May hold some that need it no more.
    pub(super) alarms: BTreeSet<(Instant, ServableId)>,
    /// Labels of versions that do not serve yet.
    pub(super) awaited_labels: Labels,
    waiters: Vec<Waiter>,
    next_ticket: u64,
    pub(super) closing: Option<Closing>,
}

/// Somebody who waits for models to come up.
struct Waiter {
    models: Vec<ModelName>,
    reply: oneshot::Sender<Failures>,
}

impl Manager {
    /// Starts loaders and unloaders; [`Manager::run`] does the rest.
    pub(crate) fn new(parts: Parts, events: Receiver<Event>) -> Result<Manager, Status> {
        let loaders = Box::new(Pool::start("load", parts.options.load_threads)?);
        let unloaders = Box::new(Pool::start("unload", parts.options.unload_threads)?);
        Ok(Manager::with(parts, events, loaders, unloaders))
    }

    /// The same with other means of carrying out what may block.
    pub(super) fn with(
        parts: Parts,
        events: Receiver<Event>,
        loaders: Box<dyn Executor>,
        unloaders: Box<dyn Executor>,
    ) -> Manager {
        Manager {
            loaders: Crew::new(loaders, parts.options.load_threads),
            unloaders: Crew::new(unloaders, parts.options.unload_threads),
            parts,
            events,
            fleet: Fleet::default(),
            catalog: Catalog::default(),
            dirty: BTreeSet::new(),
            queue: VecDeque::new(),
            leaving: VecDeque::new(),
            alarms: BTreeSet::new(),
            awaited_labels: Labels::default(),
            waiters: Vec::new(),
            next_ticket: 0,
            closing: None,
        }
    }

    /// The life of the thread; returns when a shutdown is complete.
    pub(crate) fn run(mut self) {
        loop {
            self.advance();
            if self.is_over() {
                self.finish();
                return;
            }
            match self.next_event() {
                Some(event) => self.on_event(event),
                // What has been told already is taken in first: it may say that nobody holds on.
                None => self.force_end_when_due(),
            }
        }
    }

    /// Sleeps until something happens; `None` for an alarm.
    fn next_event(&self) -> Option<Event> {
        match self.next_alarm() {
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(self.now())).ok(),
            None => self.events.recv().ok(),
        }
    }

    /// When to look again though nothing happened.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        let now = self.now();
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let closing = self.closing.as_ref().and_then(Closing::next_alarm);
        let loads = (!self.queue.is_empty()).then(|| self.loaders.room_at(now)).flatten();
        let unloads = (!self.leaving.is_empty()).then(|| self.unloaders.room_at(now)).flatten();
        [alarm, closing, loads, unloads].into_iter().flatten().min()
    }

    /// The time.
    pub(super) fn now(&self) -> Instant {
        self.parts.clock.now()
    }

    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Aspire { model, wanted } => self.on_aspire(model, wanted),
            Event::SetLabels { labels, allow_unavailable, coming, reply } => {
                // Whoever asked may have given up.
                let _ = reply.send(self.set_labels(labels, allow_unavailable, &coming));
            }
            Event::Settle { models, reply } => self.waiters.push(Waiter { models, reply }),
            Event::Loaded { id, ticket, result } => self.on_loaded(&id, ticket, result),
            Event::Released { ticket } => self.on_released(ticket),
            Event::Health { ticket, health } => self.on_health(ticket, health),
            Event::Broken { ticket } => self.on_broken(ticket),
            Event::Unloaded { ticket } => self.on_unloaded(ticket),
            Event::Shutdown { until, reply } => self.on_shutdown(Some(until), Some(reply)),
            Event::Deserted => self.on_shutdown(None, None),
        }
    }

    /// Does all that can be done until the next event.
    pub(super) fn advance(&mut self) {
        self.ring_alarms();
        self.start_unloads();
        let policy = self.parts.options.policy;
        let mut touched = BTreeSet::new();
        while !self.dirty.is_empty() {
            let dirty = std::mem::take(&mut self.dirty);
            let plans = dirty
                .iter()
                .map(|model| (model.clone(), planner::plan(&self.fleet.seen(model), policy)))
                .collect();
            touched.extend(dirty);
            self.carry_out(&planner::merge(plans));
            self.start_loads();
        }
        self.start_loads();
        for model in touched {
            for id in self.fleet.prune(&model) {
                self.parts.board.forget(&id);
            }
            for model in self.fleet.prune_models(&model) {
                self.parts.board.forget_model(&model);
            }
        }
        self.answer_waiters();
    }

    fn on_aspire(&mut self, model: ModelName, wanted: Vec<Aspired>) {
        if self.closing.is_some() {
            return;
        }
        self.parts.board.admit(&model);
        let versions = self.fleet.models.entry(model.clone()).or_default();
        for entry in versions.values_mut() {
            entry.wanted = None;
        }
        for aspired in wanted {
            let entry = versions.entry(aspired.version).or_insert_with(Entry::new);
            entry.offer(aspired);
        }
        // A failed version is tried again only with other files, or after it was left out; one that
        // waits for its next try need not wait then.
        for (&version, entry) in versions.iter_mut() {
            if !entry.offers_other_files() {
                continue;
            }
            if entry.state == State::Failed {
                entry.state = entry.state.after(Step::Forgive).unwrap_or(entry.state);
            } else if entry.state == State::Retrying && entry.retry_at.take().is_some() {
                self.queue.push_back(ServableId { model: model.clone(), version });
            }
        }
        self.dirty.insert(model);
    }

    /// One round of a plan: leaving the catalog and coming back to it are one publication.
    fn carry_out(&mut self, actions: &[(ModelName, Action)]) {
        let of = |step: Step| {
            actions
                .iter()
                .filter(move |(_, action)| action.step == step)
                .map(|(model, action)| ServableId { model: model.clone(), version: action.version })
        };
        let retired: Vec<ServableId> = of(Step::Retire).collect();
        let revived: Vec<ServableId> = of(Step::Revive).collect();
        if !retired.is_empty() || !revived.is_empty() {
            self.exchange(&retired, &revived);
        }
        for (model, action) in actions {
            let id = ServableId { model: model.clone(), version: action.version };
            match action.step {
                Step::Queue => self.enqueue(&id),
                Step::Unload => self.unload(&id),
                Step::Cancel => self.cancel(&id),
                Step::Forgive => {
                    self.step(&id, Step::Forgive);
                }
                _ => {}
            }
        }
    }

    /// Takes a step of a version; says whether that was legal. Shows nothing.
    pub(super) fn step(&mut self, id: &ServableId, step: Step) -> bool {
        let Some(entry) = self.fleet.entry(id) else {
            tracing::error!("servable {id} is unknown, so it cannot {step:?}");
            return false;
        };
        let Some(next) = entry.state.after(step) else {
            tracing::error!("servable {id} cannot {step:?} in state {:?}", entry.state);
            return false;
        };
        entry.state = next;
        self.dirty.insert(id.model.clone());
        true
    }

    /// Shows a version as it is.
    pub(super) fn show(&mut self, id: &ServableId) {
        if let Some(entry) = self.fleet.entry(id) {
            let phase = entry.state.phase();
            // What is restarted says why; what loads says why its last try failed.
            let tells = matches!(phase, Phase::End | Phase::Loading);
            let error = entry.error.clone().filter(|_| tells);
            self.parts.board.show(id, entry.state, error);
        }
    }

    /// Puts a version into the next publication, or takes it out.
    pub(super) fn list(&mut self, id: &ServableId, lease: Option<Lease>) {
        let versions = self.catalog.models.entry(id.model.clone()).or_default();
        let listed = Arc::make_mut(versions);
        match lease {
            Some(lease) => listed.insert(id.version, lease),
            None => listed.remove(&id.version),
        };
        if listed.is_empty() {
            self.catalog.models.remove(&id.model);
        }
    }

    pub(super) fn publish(&self) {
        self.parts.published.publish(self.catalog.clone());
    }

    pub(super) fn next_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn answer_waiters(&mut self) {
        let fleet = &self.fleet;
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        for waiter in std::mem::take(&mut self.waiters) {
            let verdicts: Option<Vec<_>> = waiter
                .models
                .iter()
                .map(|model| fleet.verdict(model).map(|verdict| (model, verdict)))
                .collect();
            let Some(verdicts) = verdicts else {
                self.waiters.push(waiter);
                continue;
            };
            let failures = verdicts
                .into_iter()
                .filter_map(|(model, verdict)| {
                    verdict.map(|(version, error)| (model.clone(), version, error))
                })
                .collect();
            // The waiter may have gone away since.
            let _ = waiter.reply.send(failures);
        }
    }

    /// Whoever still waits is told nothing: there is nothing more to come.
    pub(super) fn dismiss_waiters(&mut self) {
        self.waiters.clear();
    }
}
