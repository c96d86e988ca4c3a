//! Classify, Regress and MultiInference over gRPC.
//!
//! Owns: the requests' and answers' messages and MultiInference's rules. May not know: what outputs
//! must look like; that is the same for REST.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::try_join_all;
use prost::Message;
use vesta_model::{Signature, Status, Tensor};
use vesta_protos::tensorflow::serving as proto;
use vesta_protos::tensorflow::serving::inference_result;
use vesta_serving::{InferRequest, Lease};

use super::examples::InputWire;
use super::{Call, Calls, answered_by, counted_name, required_spec, wanted};
use crate::budget::Budget;
use crate::grpc::Reply;
use crate::metrics::{Api, Metrics};
use crate::tfs::classify::{self, Classes, ClassifyOutputs, classes_of, find_signature};
use crate::tfs::method_check::{CLASSIFY, MethodCheck, REGRESS};
use crate::tfs::predict::{Feed, Signatures, run, signature_or_default};
use crate::tfs::regress;

/// A request of Classify or Regress.
#[derive(Clone, Message)]
struct ExamplesRequest {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<proto::ModelSpec>,
    #[prost(message, optional, tag = "2")]
    input: Option<InputWire>,
}

/// A request of MultiInference.
#[derive(Clone, Message)]
struct TasksRequest {
    #[prost(message, repeated, tag = "1")]
    tasks: Vec<proto::InferenceTask>,
    #[prost(message, optional, tag = "2")]
    input: Option<InputWire>,
}

/// A task that passed its checks.
enum Task<'l> {
    Classify { name: &'l str, outputs: ClassifyOutputs },
    Regress { name: &'l str, output: usize },
}

impl Calls {
    pub(super) async fn classify(
        &self,
        message: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        self.over_examples(Call::Classify, message, deadline).await
    }

    pub(super) async fn regress(
        &self,
        message: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        self.over_examples(Call::Regress, message, deadline).await
    }

    /// Classify or Regress, whichever `call` is.
    async fn over_examples(
        &self,
        call: Call,
        message: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        let start = Instant::now();
        let (method, api) = match call {
            Call::Regress => (REGRESS, Api::Regress),
            _ => (CLASSIFY, Api::Classify),
        };
        let kept = self.kept(&message);
        let request: ExamplesRequest = self.parse(message).await?;
        let model = counted_name(request.model_spec.as_ref());
        let chosen = self.choose(&model, kept);
        let outcome = self.examples_parsed(method, api, request, deadline).await;
        self.count(&model, api.name(), start, &outcome);
        Self::record(call, chosen, &outcome);
        outcome
    }

    async fn examples_parsed(
        &self,
        method: &str,
        api: Api,
        request: ExamplesRequest,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        let spec = required_spec(request.model_spec.as_ref())?;
        let lease = self.serving.resolve(&wanted(spec))?;
        let name = signature_or_default(&spec.signature_name);
        let signature = find_signature(lease.signatures(), name)?;
        let task = check_task(method, name, signature, self.method_check)?;
        let input = request.input.unwrap_or_default();
        let Feed { signature, inputs, outputs } = task.feed(input.tensor(&self.budget)?);
        let request = InferRequest { signature, inputs, outputs, deadline };
        let tensors = run(&lease, request, api, &self.metrics).await?;
        let result = task.result(&tensors, input.len())?;
        let model_spec = Some(answered_by(&lease, name));
        Ok(match result {
            inference_result::Result::ClassificationResult(result) => {
                let result = Some(result);
                Reply::of(&proto::ClassificationResponse { result, model_spec })
            }
            inference_result::Result::RegressionResult(result) => {
                let result = Some(result);
                Reply::of(&proto::RegressionResponse { result, model_spec })
            }
        })
    }

    pub(super) async fn multi_inference(
        &self,
        message: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        let kept = self.kept(&message);
        let request: TasksRequest = self.parse(message).await?;
        let first = request.tasks.first().and_then(|task| task.model_spec.as_ref());
        let chosen = self.choose(&counted_name(first), kept);
        let outcome = self.multi_inference_parsed(request, deadline).await;
        Self::record(Call::MultiInference, chosen, &outcome);
        outcome
    }

    async fn multi_inference_parsed(
        &self,
        request: TasksRequest,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        let none = proto::ModelSpec::default();
        let first = request.tasks.first().and_then(|task| task.model_spec.as_ref());
        let lease = self.serving.resolve(&wanted(first.unwrap_or(&none)))?;
        let tasks = check_tasks(lease.signatures(), &request.tasks, self.method_check)?;
        let input = request.input.unwrap_or_default();
        let tensor = input.tensor(&self.budget)?;
        // The original computes the outputs of all tasks in one run. Runs here are of one
        // signature each, at the same time, on the same examples.
        let runs =
            tasks.iter().map(|task| task.run(&lease, tensor.clone(), deadline, &self.metrics));
        let outputs = try_join_all(runs).await?;
        self.metrics.examples(lease.model().as_str(), input.len());
        let mut results = Vec::with_capacity(tasks.len());
        for (task, tensors) in tasks.iter().zip(&outputs) {
            results.push(proto::InferenceResult {
                model_spec: Some(answered_by(&lease, task.name())),
                result: Some(task.result(tensors, input.len())?),
            });
        }
        Ok(Reply::of(&proto::MultiInferenceResponse { results }))
    }
}

impl Task<'_> {
    fn name(&self) -> &str {
        match self {
            Task::Classify { name, .. } | Task::Regress { name, .. } => name,
        }
    }

    async fn run(
        &self,
        lease: &Lease,
        input: Tensor,
        deadline: Option<Instant>,
        metrics: &Metrics,
    ) -> Result<Vec<Tensor>, Status> {
        let Feed { signature, inputs, outputs } = self.feed(input);
        let start = Instant::now();
        let outputs = lease.infer(InferRequest { signature, inputs, outputs, deadline }).await?;
        metrics.ran_signature(lease.model().as_str(), self.name(), start.elapsed());
        Ok(outputs)
    }

    fn feed(&self, input: Tensor) -> Feed {
        let outputs = match self {
            Task::Classify { outputs, .. } => outputs.positions(),
            Task::Regress { output, .. } => vec![*output],
        };
        Feed { signature: self.name().to_owned(), inputs: vec![input], outputs }
    }

    fn result(&self, tensors: &[Tensor], count: usize) -> Result<inference_result::Result, Status> {
        Ok(match self {
            Task::Classify { outputs, .. } => inference_result::Result::ClassificationResult(
                classification(classes_of(outputs, tensors, count)?),
            ),
            Task::Regress { .. } => {
                inference_result::Result::RegressionResult(regression(values_of(tensors, count)?))
            }
        })
    }
}

/// Holds all tasks to the rules, in the original's order. Their input tensors may differ: its own
/// end-to-end test asks for two signatures of a TF2 model, which have one placeholder each.
fn check_tasks<'l>(
    signatures: &Signatures,
    tasks: &'l [proto::InferenceTask],
    check: MethodCheck,
) -> Result<Vec<Task<'l>>, Status> {
    let mut model = "";
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (of, signature) =
            task.model_spec.as_ref().map_or(("", ""), |spec| (&*spec.name, &*spec.signature_name));
        if of.is_empty() {
            return Err(Status::invalid_argument("Found ModelSpec with an empty model name."));
        }
        if model.is_empty() {
            model = of;
        } else if model != of {
            return Err(Status::invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ));
        }
        let name = signature_or_default(signature);
        if !names.insert(name) {
            return Err(Status::invalid_argument(format!(
                "Duplicate evaluation of signature: {name}"
            )));
        }
        let signature = signatures.get(name).ok_or_else(|| {
            Status::invalid_argument(format!(
                "Requested signature not found in model graph: {name}"
            ))
        })?;
        checked.push(check_task(&task.method_name, name, signature, check)?);
    }
    Ok(checked)
}

fn check_task<'l>(
    method: &str,
    name: &'l str,
    signature: &Signature,
    check: MethodCheck,
) -> Result<Task<'l>, Status> {
    match method {
        CLASSIFY => {
            check.classify(signature)?;
            Ok(Task::Classify { name, outputs: classify::check_signature(signature)? })
        }
        REGRESS => {
            check.regress(signature)?;
            Ok(Task::Regress { name, output: regress::check_signature(signature)? })
        }
        _ => Err(Status::unimplemented(format!("Unsupported signature method_name: {method}"))),
    }
}

/// How a recorded request is run. Its answer is made and dropped, since what cannot be answered is no
/// success.
pub(crate) type RunFeed<'r> = dyn FnMut(Feed) -> Result<Vec<Tensor>, Status> + 'r;

/// Runs a recorded request of Classify or Regress, whichever `method` names.
///
/// # Errors
/// Those of the call, and `INVALID_ARGUMENT` for bytes that are not its request.
pub(crate) fn run_examples(
    method: &str,
    message: Bytes,
    signatures: &Signatures,
    budget: &Budget,
    run: &mut RunFeed<'_>,
) -> Result<(), Status> {
    let request: ExamplesRequest = recorded(message)?;
    let spec = required_spec(request.model_spec.as_ref())?;
    let name = signature_or_default(&spec.signature_name);
    let signature = find_signature(signatures, name)?;
    let task = check_task(method, name, signature, MethodCheck::default())?;
    run_task(&task, &request.input.unwrap_or_default(), budget, run)
}

/// Runs a recorded request of MultiInference.
///
/// # Errors
/// As [`run_examples`].
pub(crate) fn run_multi_inference(
    message: Bytes,
    signatures: &Signatures,
    budget: &Budget,
    run: &mut RunFeed<'_>,
) -> Result<(), Status> {
    let request: TasksRequest = recorded(message)?;
    let input = request.input.unwrap_or_default();
    for task in check_tasks(signatures, &request.tasks, MethodCheck::default())? {
        run_task(&task, &input, budget, run)?;
    }
    Ok(())
}

fn recorded<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| {
        Status::invalid_argument(format!("a recorded request cannot be read: {error}"))
    })
}

fn run_task(
    task: &Task<'_>,
    input: &InputWire,
    budget: &Budget,
    run: &mut RunFeed<'_>,
) -> Result<(), Status> {
    let tensors = run(task.feed(input.tensor(budget)?))?;
    task.result(&tensors, input.len()).map(drop)
}

fn values_of(tensors: &[Tensor], count: usize) -> Result<Vec<f32>, Status> {
    let tensor = tensors.first().ok_or_else(|| Status::internal("the run gave no output"))?;
    regress::values_of(tensor, count)
}

pub(crate) fn classification(rows: Vec<Classes>) -> proto::ClassificationResult {
    let class = |(label, score): (Vec<u8>, f32)| proto::Class {
        label: String::from_utf8_lossy(&label).into_owned(),
        score,
    };
    let row = |classes: Classes| proto::Classifications {
        classes: classes.into_iter().map(class).collect(),
    };
    proto::ClassificationResult { classifications: rows.into_iter().map(row).collect() }
}

pub(crate) fn regression(values: Vec<f32>) -> proto::RegressionResult {
    proto::RegressionResult {
        regressions: values.into_iter().map(|value| proto::Regression { value }).collect(),
    }
}
