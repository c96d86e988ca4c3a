//! What the life cycle remembers: every version ever wanted, and every session that is loaded.
//!
//! Plain data of the manager's. Invariant: a version has at most one session of its own; a session
//! that was replaced, or came too late, is an orphan that is unloaded once nobody holds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use vesta_model::{ModelName, Status, Version};

use super::phase::State;
use super::planner::Seen;
use super::{Aspired, Ticket};
use crate::servable::{Servable, ServableId};

/// How many ended versions of one model stay listed; the lowest numbers go first.
pub(crate) const ENDED_VERSIONS_MAX: usize = 100;

/// One version.
pub(crate) struct Entry {
    pub(crate) state: State,
    /// What the source wants of it; `None` when it is left out.
    pub(crate) wanted: Option<Aspired>,
    /// What the latest load took.
    pub(crate) tried: Option<Aspired>,
    /// Loads that failed since it was queued.
    pub(crate) tries: u32,
    /// When the next try is due, in the state `Retrying`.
    pub(crate) retry_at: Option<Instant>,
    /// Why the latest load failed or was given up.
    pub(crate) error: Option<Status>,
    /// The load that is under way, or the session that came of it.
    pub(crate) ticket: Option<Ticket>,
    /// The replacement of a broken session, in the state `Serving`.
    pub(crate) repair: Option<Repair>,
    /// When a broken session was last replaced.
    pub(crate) repaired_at: Option<Instant>,
}

/// A session is to be replaced while its version stays listed as serving.
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
}

/// All versions and sessions.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) models: BTreeMap<ModelName, BTreeMap<Version, Entry>>,
    pub(crate) instances: HashMap<Ticket, Instance>,
}

impl Entry {
    /// A version that nothing is known of.
    pub(crate) fn new() -> Entry {
        Entry {
            state: State::Ended,
            wanted: None,
            tried: None,
            tries: 0,
            retry_at: None,
            error: None,
            ticket: None,
            repair: None,
            repaired_at: None,
        }
    }

    /// Whether the source now offers files that a failed version was not tried with.
    pub(crate) fn offers_other_files(&self) -> bool {
        let offered = self.wanted.as_ref().map(|wanted| &wanted.artifact);
        let tried = self.tried.as_ref().map(|tried| &tried.artifact);
        match (offered, tried) {
            (Some(Ok(offered)), Some(Ok(tried))) => offered != tried,
            (Some(Ok(_)), _) => true,
            _ => false,
        }
    }
}

impl Entry {
    /// Whether what leaves was loaded from other files than those wanted now, so that it must not
    /// come back.
    fn must_end_first(&self) -> bool {
        matches!(self.state, State::Draining | State::Drained) && self.offers_other_files()
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
                wanted: entry.wanted.is_some() && !entry.must_end_first(),
                state: entry.state,
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
