//! Applies the file that lists the models whenever it changes.
//!
//! Owns: when it is read, and the words of the log. May not know: how a configuration is applied.
//! Invariant: a file that cannot be read, understood or applied leaves everything as it was. One that
//! was refused is tried again at each poll, for what it was refused for may have come true.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_blocking};
use tracing::{error, info};
use vesta_model::{ModelConfig, Status};

use crate::config::{ModelFile, Refusal};
use crate::models::Models;

/// What the file said that is not applied yet.
type Pending = Option<Vec<ModelConfig>>;

/// Polls the file until the runtime ends.
pub(crate) async fn run(mut file: ModelFile, interval: Duration, models: Arc<Models>) {
    let mut pending: Pending = None;
    let mut refused: Option<Status> = None;
    let mut wait: Option<AbortHandle> = None;
    loop {
        tokio::time::sleep(interval).await;
        // Its disk may hang, which must not hold up the wire's threads.
        let read = spawn_blocking(move || {
            let read = file.read_if_changed();
            (file, read)
        });
        let Ok((returned, read)) = read.await else { return };
        file = returned;
        match read {
            None => {}
            Some(Ok(Some(list))) => {
                info!("{} has changed", file.path().display());
                (pending, refused) = (Some(list), None);
            }
            Some(Ok(None)) => {
                info!("Taking no action for empty config.");
                pending = None;
            }
            Some(Err(Refusal::File(problem))) => {
                error!("Failed to read ModelServerConfig file: {}", problem.message());
                pending = None;
            }
            Some(Err(Refusal::List(problem))) => {
                complain(&problem);
                pending = None;
            }
        }
        let Some(list) = &pending else { continue };
        match models.replace(list.clone()).await {
            Ok(applied) => {
                pending = None;
                if let Some(former) = wait.take() {
                    former.abort();
                }
                let models = Arc::clone(&models);
                let told = tokio::spawn(async move {
                    if let Err(problem) = models.arrived(applied).await {
                        complain(&problem);
                    }
                });
                wait = Some(told.abort_handle());
            }
            Err(problem) => {
                if refused.as_ref() != Some(&problem) {
                    complain(&problem);
                }
                refused = Some(problem);
            }
        }
    }
}

fn complain(problem: &Status) {
    error!("PollFilesystemAndReloadConfig failed to ReloadConfig: {}", problem.message());
}
