//! What the life cycle remembers: every version ever wanted, and every session that is loaded.
//!
//! Plain data of the manager's. Invariant: a version has at most one session of its own; a session
//! that was replaced, or came too late, is an orphan that is unloaded once nobody holds it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use vesta_model::{ModelName, SessionHealth, Status, Version};

use super::phase::State;
use super::planner::Seen;
use super::{Aspired, Edition, Ticket};
use crate::servable::{Servable, ServableId};

/// How many ended versions of one model stay listed; the lowest numbers go first.
pub(crate) const ENDED_VERSIONS_MAX: usize = 100;

/// How many models of which nothing is wanted nor held stay listed; the longest over go first.
pub(crate) const OVER_MODELS_MAX: usize = 1000;

/// One version.
pub(crate) struct Entry {
    pub(crate) state: State,
    /// What the source wants of it; `None` when it is left out.
    pub(crate) wanted: Option<Aspired>,
    /// What the latest load took.
    pub(crate) tried: Option<Aspired>,
    /// Which states of its files were offered and tried.
    pub(crate) editions: Editions,
    /// Loads that failed since it was queued.
    pub(crate) tries: u32,
    /// When the next try is due, in the state `Retrying`.
    pub(crate) retry_at: Option<Instant>,
    /// Why the latest load failed or was given up, or why the session runs nothing for now.
    pub(crate) error: Option<Status>,
    /// The load that is under way, or the session that came of it.
    pub(crate) ticket: Option<Ticket>,
    /// The replacement of a broken session, in the state `Restarting`.
    pub(crate) repair: Option<Repair>,
    /// When a broken session was last replaced.
    pub(crate) repaired_at: Option<Instant>,
}

/// The states of a version's files, so that one that failed is tried again once they have changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Editions {
    /// The latest that the source told.
    offered: Option<Edition>,
    /// Whether the source told it twice in a row.
    is_settled: bool,
    /// The latest told when the latest load began.
    tried: Option<Edition>,
}

/// A session is to be replaced while its version stays in the catalog.
pub(crate) struct Repair {
    /// The load under way; `None` while it waits.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) tries: u32,
    pub(crate) due: Instant,
}

/// One loaded session.
pub(crate) struct Instance {
    pub(crate) id: ServableId,
    /// `None` once an unloader has it.
    pub(crate) servable: Option<Arc<Servable>>,
    /// Holds whose end was not reported yet.
    pub(crate) holds: usize,
    /// How it said that it is doing.
    pub(crate) health: SessionHealth,
}

/// All versions and sessions.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) models: BTreeMap<ModelName, BTreeMap<Version, Entry>>,
    pub(crate) instances: HashMap<Ticket, Instance>,
    /// Models of which nothing is wanted nor held, the longest over first.
    over: VecDeque<ModelName>,
}

impl Entry {
    /// A version that nothing is known of.
    pub(crate) fn new() -> Entry {
        Entry {
            state: State::Ended,
            wanted: None,
            tried: None,
            editions: Editions::default(),
            tries: 0,
            retry_at: None,
            error: None,
            ticket: None,
            repair: None,
            repaired_at: None,
        }
    }

    /// The source wants it, with these files.
    pub(crate) fn offer(&mut self, aspired: Aspired) {
        self.editions.offer(aspired.edition);
        self.wanted = Some(aspired);
    }

    /// Whether the source now offers files that a version was not tried with when it failed: another
    /// place, or another state of the same place that two polls in a row agree on.
    pub(crate) fn offers_other_files(&self) -> bool {
        let offered = self.wanted.as_ref().map(|wanted| &wanted.artifact);
        let tried = self.tried.as_ref().map(|tried| &tried.artifact);
        match (offered, tried) {
            (Some(Ok(offered)), Some(Ok(tried))) => {
                offered != tried || self.editions.differ_for_good()
            }
            (Some(Ok(_)), _) => true,
            _ => false,
        }
    }
}

impl Editions {
    fn offer(&mut self, edition: Option<Edition>) {
        self.is_settled = edition.is_some() && edition == self.offered;
        self.offered = edition.or(self.offered);
    }

    /// A load takes the files as they are, which may be newer than what was last offered: then they
    /// differ at the next poll, and a load that fails is tried once more for nothing.
    pub(crate) fn tried(&mut self) {
        self.tried = self.offered;
    }

    fn differ_for_good(&self) -> bool {
        self.is_settled && self.tried.is_some() && self.offered != self.tried
    }
}

impl Instance {
    /// Whether it can run something now.
    fn is_sound(&self) -> bool {
        self.health == SessionHealth::Serving && !self.is_broken()
    }

    /// Whether it panicked.
    pub(crate) fn is_broken(&self) -> bool {
        self.servable.as_ref().is_some_and(|servable| servable.is_broken())
    }
}

impl Fleet {
    pub(crate) fn entry(&mut self, id: &ServableId) -> Option<&mut Entry> {
        self.models.get_mut(&id.model)?.get_mut(&id.version)
    }

    /// What the planner sees of a model.
    pub(crate) fn seen(&self, model: &ModelName) -> Vec<Seen> {
        let versions = self.models.get(model).into_iter().flatten();
        versions
            .map(|(&version, entry)| Seen {
                version,
                wanted: entry.wanted.is_some(),
                state: entry.state,
                sound: entry
                    .ticket
                    .and_then(|ticket| self.instances.get(&ticket))
                    .is_none_or(Instance::is_sound),
                outdated: entry.offers_other_files(),
            })
            .collect()
    }

    /// Forgets what is more than enough of a model's ended versions, and names it.
    pub(crate) fn prune(&mut self, model: &ModelName) -> Vec<ServableId> {
        let Some(versions) = self.models.get_mut(model) else { return Vec::new() };
        let ended: Vec<Version> = versions
            .iter()
            .filter(|(_, entry)| entry.state == State::Ended && entry.wanted.is_none())
            .map(|(&version, _)| version)
            .collect();
        let surplus = ended.len().saturating_sub(ENDED_VERSIONS_MAX);
        ended[..surplus]
            .iter()
            .map(|&version| {
                versions.remove(&version);
                ServableId { model: model.clone(), version }
            })
            .collect()
    }

    /// Forgets the models that are over longest when there are more than enough; names what it
    /// forgot. Call it whenever something changed in `model`.
    pub(crate) fn prune_models(&mut self, model: &ModelName) -> Vec<ModelName> {
        let is_over = self.models.get(model).is_some_and(|versions| {
            versions.values().all(|entry| entry.state == State::Ended && entry.wanted.is_none())
        });
        let listed = self.over.iter().position(|over| over == model);
        match (is_over, listed) {
            (true, None) => self.over.push_back(model.clone()),
            (false, Some(index)) => {
                self.over.remove(index);
            }
            _ => {}
        }
        let surplus = self.over.len().saturating_sub(OVER_MODELS_MAX);
        let forgotten: Vec<ModelName> = self.over.drain(..surplus).collect();
        for model in &forgotten {
            self.models.remove(model);
        }
        forgotten
    }

    /// Whether a model came up: `None` while that is open, else the error if it did not.
    ///
    /// The original's rule at start: of the versions, newest first, the first that is available or
    /// ended decides (`core/servable_state_monitor`). Ended versions that are not wanted do not
    /// count, as the original's fresh monitor has not seen them end.
    pub(crate) fn verdict(&self, model: &ModelName) -> Option<Option<(Version, Status)>> {
        let versions = self.models.get(model)?;
        versions.iter().rev().find_map(|(&version, entry)| match (entry.state, &entry.error) {
            (State::Serving, _) => Some(None),
            (State::Failed, Some(error)) => Some(Some((version, error.clone()))),
            _ => None,
        })
    }
}
