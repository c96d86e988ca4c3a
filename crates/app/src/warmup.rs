//! Recorded requests run on every version before it is available: a decorator of the engine.
//!
//! Owns: where the file lies and when it is run. May not know: what a record says.
//! Invariant: a version whose recorded requests fail does not load.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::sync::Arc;

use tracing::info;
use vesta_frontends::{WARM_UP_FILE, WarmUp};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};

/// An engine whose versions have run their recorded requests by the time they are loaded.
pub(crate) struct WarmedUp {
    engine: Arc<dyn Engine>,
    warm_up: WarmUp,
}

impl WarmedUp {
    /// The same engine with warm-up.
    pub(crate) fn new(engine: Arc<dyn Engine>, warm_up: WarmUp) -> WarmedUp {
        WarmedUp { engine, warm_up }
    }

    fn run(&self, request: &LoadRequest, session: &dyn Session) -> Result<(), Status> {
        let path = request.artifact.join(WARM_UP_FILE);
        let shown = path.display();
        let file = match File::open(&path) {
            Ok(file) => BufReader::new(file),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                info!("No warmup data file found at {shown}");
                return Ok(());
            }
            Err(error) => {
                return Err(Status::unknown(format!("{shown}; {error}")).with_cause(error));
            }
        };
        info!("Starting to read warmup data for model at {shown}");
        let model_path = request.artifact.display().to_string();
        let records = self.warm_up.run(session, file, &shown.to_string(), &model_path)?;
        info!(
            "Finished reading warmup data for model at {shown}. Number of warmup records read: \
             {records}."
        );
        Ok(())
    }
}

impl Engine for WarmedUp {
    fn identity(&self) -> EngineIdentity {
        self.engine.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let session = self.engine.load(request)?;
        self.run(request, &*session)?;
        Ok(session)
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.engine.host_runs(work);
    }
}
