//! Recorded requests, run on a version before it is available.
//!
//! Owns: the records' form (TFRecord of PredictionLog), which kinds are run, the original's limits
//! and texts. May not know: where the file lies, when a version is available.
//! Invariant: a request is made of a record as the call would make it, and any failure is one of the
//! whole warm-up.
//!
//! The original's `servables/tensorflow/saved_model_warmup*.cc`.

pub(super) mod records;

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::{Message, Oneof};
use vesta_model::{InputLayout, RunRequest, Session, Status, Tensor};

use self::records::Records;
use super::method_check::{CLASSIFY, REGRESS};
use super::predict::Feed;
use super::rpc::inference::{run_examples, run_multi_inference};
use super::rpc::predict::feed_of;
use crate::budget::Budget;
use crate::metrics::Metrics;

/// Where a version's recorded requests lie, from its own folder.
pub const WARM_UP_FILE: &str = "assets.extra/tf_serving_warmup_requests";

/// The most records that one file may have; the original's limit.
const RECORDS_MAX: usize = 1000;

/// The longest run of one recorded request.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// Runs recorded requests.
#[derive(Clone)]
pub struct WarmUp {
    iterations: u32,
    request_bytes_max: usize,
    metrics: Metrics,
}

/// One record: the kind of call and its request, still as bytes.
#[derive(Clone, PartialEq, Message)]
struct RecordWire {
    #[prost(oneof = "KindWire", tags = "2, 3, 4, 5, 6, 7")]
    kind: Option<KindWire>,
}

#[derive(Clone, PartialEq, Oneof)]
enum KindWire {
    #[prost(message, tag = "2")]
    Classify(LogWire),
    #[prost(message, tag = "3")]
    Regress(LogWire),
    #[prost(message, tag = "4")]
    MultiInference(LogWire),
    #[prost(message, tag = "5")]
    SessionRun(LogWire),
    #[prost(message, tag = "6")]
    Predict(LogWire),
    #[prost(message, tag = "7")]
    PredictStreamed(LogWire),
}

#[derive(Clone, PartialEq, Message)]
struct LogWire {
    #[prost(bytes = "bytes", tag = "1")]
    request: Bytes,
}

impl WarmUp {
    /// Runs each record `iterations` times, at least once. A record and its tensors may take
    /// `request_bytes_max` bytes each.
    pub fn new(iterations: u32, request_bytes_max: usize, metrics: Metrics) -> WarmUp {
        WarmUp { iterations: iterations.max(1), request_bytes_max, metrics }
    }

    /// Runs the records of `file` on a version and counts them and their time under `model_path`,
    /// the version's folder. `path` names the file in errors. Gives the number of records.
    ///
    /// # Errors
    /// `DATA_LOSS` when the file is not in its form; `INVALID_ARGUMENT` for a record that cannot be
    /// read, or too many; `UNIMPLEMENTED` for kinds of calls that are not run; else those of the
    /// requests themselves.
    pub fn run(
        &self,
        session: &dyn Session,
        file: impl Read,
        path: &str,
        model_path: &str,
    ) -> Result<usize, Status> {
        let start = Instant::now();
        let mut records = 0;
        let outcome = self.run_records(session, file, path, &mut records);
        self.metrics.warmed_up(model_path, outcome.as_ref().err(), records, start.elapsed());
        outcome.map(|()| records)
    }

    /// The first `runs_max` runs that the records of `file` come to, as requests with their inputs;
    /// `path` names the file in errors. Each is run once on the way, since a call may need more than
    /// one; nothing is counted.
    ///
    /// # Errors
    /// Those of [`WarmUp::run`].
    pub fn recorded_runs(
        &self,
        session: &dyn Session,
        file: impl Read,
        path: &str,
        runs_max: usize,
    ) -> Result<Vec<(RunRequest, Vec<Tensor>)>, Status> {
        let mut runs = Vec::new();
        let mut records = Records::new(file, self.request_bytes_max as u64);
        while runs.len() < runs_max {
            let Some(record) = records.next().map_err(not_in_form)? else { break };
            let parsed = parsed(record, path)?;
            self.run_record(session, &parsed, &mut |feed| {
                let inputs = feed.inputs.clone();
                let (request, outputs) = run_feed(session, feed)?;
                runs.push((request, inputs));
                Ok(outputs)
            })?;
        }
        runs.truncate(runs_max);
        Ok(runs)
    }

    fn run_records(
        &self,
        session: &dyn Session,
        file: impl Read,
        path: &str,
        count: &mut usize,
    ) -> Result<(), Status> {
        let mut records = Records::new(file, self.request_bytes_max as u64);
        while let Some(record) = records.next().map_err(not_in_form)? {
            if *count >= RECORDS_MAX {
                return Err(Status::invalid_argument(format!(
                    "Number of warmup records exceeds the maximum ({RECORDS_MAX}) at {path}"
                )));
            }
            let parsed = parsed(record, path)?;
            for _ in 0..self.iterations {
                self.run_record(session, &parsed, &mut |feed| {
                    run_feed(session, feed).map(|(_, outputs)| outputs)
                })?;
            }
            *count += 1;
        }
        Ok(())
    }

    /// Makes the runs of a record by `run`.
    fn run_record(
        &self,
        session: &dyn Session,
        record: &RecordWire,
        run: &mut dyn FnMut(Feed) -> Result<Vec<Tensor>, Status>,
    ) -> Result<(), Status> {
        let signatures = &session.description().signatures;
        // Nobody else is served from it, so that clients lose nothing to a warm-up.
        let budget = Budget::new(self.request_bytes_max);
        let mut run = |feed: Feed| run(feed);
        let unsupported = |number: u32| {
            Err(Status::unimplemented(format!("Unsupported log_type for warmup: {number}")))
        };
        match &record.kind {
            None => Ok(()),
            Some(KindWire::Classify(log)) => {
                run_examples(CLASSIFY, log.request.clone(), signatures, &budget, &mut run)
            }
            Some(KindWire::Regress(log)) => {
                run_examples(REGRESS, log.request.clone(), signatures, &budget, &mut run)
            }
            Some(KindWire::MultiInference(log)) => {
                run_multi_inference(log.request.clone(), signatures, &budget, &mut run)
            }
            Some(KindWire::Predict(log)) => {
                run(feed_of(log.request.clone(), signatures, &budget)?).map(drop)
            }
            Some(KindWire::SessionRun(_)) => unsupported(5),
            Some(KindWire::PredictStreamed(_)) => unsupported(7),
        }
    }
}

fn parsed(record: Vec<u8>, path: &str) -> Result<RecordWire, Status> {
    RecordWire::decode(Bytes::from(record)).map_err(|error| {
        Status::invalid_argument(format!("Failed to parse warmup record: from {path}"))
            .with_cause(error)
    })
}

fn not_in_form(status: Status) -> Status {
    if status.code() != vesta_model::Code::DataLoss {
        return status;
    }
    Status::data_loss(format!(
        "{}. Please verify your warmup data is in TFRecord format.",
        status.message()
    ))
}

fn run_feed(session: &dyn Session, feed: Feed) -> Result<(RunRequest, Vec<Tensor>), Status> {
    let Feed { signature, inputs, outputs } = feed;
    let wanted = outputs.len();
    let layouts = inputs.iter().map(InputLayout::of).collect();
    let request = RunRequest { signature, inputs: layouts, outputs };
    let tensors = session.run_over(&request, inputs, Instant::now().checked_add(RUN_LIMIT))?;
    if tensors.len() != wanted {
        return Err(Status::internal("the run did not give the outputs that were asked for"));
    }
    Ok((request, tensors))
}

#[cfg(test)]
mod tests;
