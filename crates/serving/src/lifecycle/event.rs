//! What the life cycle's thread is told. Everything that wakes it, but for its own alarms, is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use tokio::sync::oneshot;
use vesta_model::{ModelName, Session, SessionHealth, Status, Version};

use super::Aspired;
use crate::catalog::Labels;
use crate::servable::ServableId;

/// Names one load, and the session that came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Versions that did not come up.
pub(crate) type Failures = Vec<(ModelName, Version, Status)>;

/// Something that happened or is asked for.
pub(crate) enum Event {
    /// A source says which versions of a model it wants.
    Aspire { model: ModelName, wanted: Vec<Aspired> },
    /// Labels are to be replaced; those of versions that are coming once these serve.
    SetLabels {
        labels: Labels,
        allow_unavailable: bool,
        coming: BTreeMap<ModelName, BTreeSet<Version>>,
        reply: SyncSender<Result<(), Status>>,
    },
    /// Somebody waits for models to come up.
    Settle { models: Vec<ModelName>, reply: oneshot::Sender<Failures> },
    /// A loader is done.
    Loaded { id: ServableId, ticket: Ticket, result: Result<Arc<dyn Session>, Status> },
    /// A hold on a session ended: the catalog's and every lease of it are gone.
    Released { ticket: Ticket },
    /// A session says how it is doing from now on.
    Health { ticket: Ticket, health: SessionHealth },
    /// A session panicked.
    Broken { ticket: Ticket },
    /// An unloader is done.
    Unloaded { ticket: Ticket },
    /// Everything is to end; runs in flight have until `until`.
    Shutdown { until: Instant, reply: SyncSender<()> },
    /// Nobody is left who could ask for anything, but for those who hold leases.
    Deserted,
}
