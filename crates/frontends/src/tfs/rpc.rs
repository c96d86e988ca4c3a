//! TensorFlow Serving's gRPC calls: request bytes in, answer bytes out.
//!
//! Owns: the paths of the methods and what each does, in the original's order of checks. May not
//! know: HTTP, trailers, sockets.
//! Invariant: a request that cannot be parsed is `INTERNAL` with an empty text, as in the original,
//! before anything else is looked at.

mod examples;
pub(crate) mod inference;
mod models;
pub(crate) mod predict;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use vesta_model::{Code, Label, ModelSpec, Status, Version, VersionChoice};
use vesta_protos::tensorflow::serving as proto;
use vesta_protos::tensorflow::serving::model_spec;
use vesta_serving::{Lease, Reconfigure, Serving};

use crate::budget::Budget;
use crate::grpc::Reply;
use crate::metrics::Metrics;
use crate::offload::Offload;
use crate::tfs::method_check::MethodCheck;
use crate::tfs::request_log::{Call, Chosen, RequestLog};
use crate::tfs::tensor_proto::TensorForm;

pub(crate) use self::models::version_status;

/// A method that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Predict,
    Classify,
    Regress,
    MultiInference,
    GetModelMetadata,
    GetModelStatus,
    HandleReloadConfigRequest,
}

impl Method {
    /// The method at a request's path.
    pub(crate) fn from_path(path: &str) -> Option<Method> {
        let (package, method) = path.strip_prefix('/')?.split_once('/')?;
        Some(match (package.strip_prefix("tensorflow.serving.")?, method) {
            ("PredictionService", "Predict") => Method::Predict,
            ("PredictionService", "Classify") => Method::Classify,
            ("PredictionService", "Regress") => Method::Regress,
            ("PredictionService", "MultiInference") => Method::MultiInference,
            ("PredictionService", "GetModelMetadata") => Method::GetModelMetadata,
            ("ModelService", "GetModelStatus") => Method::GetModelStatus,
            ("ModelService", "HandleReloadConfigRequest") => Method::HandleReloadConfigRequest,
            _ => return None,
        })
    }
}

/// Everything that the calls need.
pub(crate) struct Calls {
    pub(crate) serving: Serving,
    pub(crate) reconfigure: Arc<dyn Reconfigure>,
    pub(crate) metrics: Metrics,
    pub(crate) budget: Budget,
    pub(crate) offload: Offload,
    pub(crate) form: TensorForm,
    pub(crate) method_check: MethodCheck,
    pub(crate) request_log: RequestLog,
}

impl Calls {
    /// Answers one call.
    ///
    /// # Errors
    /// Those of the method; `INTERNAL` for bytes that are not its request.
    pub(crate) async fn call(
        &self,
        method: Method,
        message: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        match method {
            Method::Predict => self.predict(message, deadline).await,
            Method::Classify => self.classify(message, deadline).await,
            Method::Regress => self.regress(message, deadline).await,
            Method::MultiInference => self.multi_inference(message, deadline).await,
            Method::GetModelMetadata => self.model_metadata(message).await,
            Method::GetModelStatus => self.model_status(message).await,
            Method::HandleReloadConfigRequest => self.reload_config(message).await,
        }
    }

    /// The request in `message`.
    async fn parse<M: Message + Default + 'static>(&self, message: Bytes) -> Result<M, Status> {
        let bytes = message.len();
        self.offload
            .run(bytes, move || M::decode(message).map_err(|error| unparsable().with_cause(error)))
            .await
    }

    /// Whether the request in `message` is to be recorded, and what is needed for it.
    fn choose(&self, model: &str, message: Option<Bytes>) -> Option<(Chosen, Bytes)> {
        Some((self.request_log.choose(model)?, message?))
    }

    /// Records a request that was chosen, if it was answered.
    fn record(call: Call, chosen: Option<(Chosen, Bytes)>, outcome: &Result<Reply, Status>) {
        if let (Some((chosen, request)), Ok(reply)) = (chosen, outcome) {
            chosen.answered(call, request, Bytes::copy_from_slice(reply.message()));
        }
    }

    /// `message` again, where requests are recorded.
    fn kept(&self, message: &Bytes) -> Option<Bytes> {
        self.request_log.is_on().then(|| message.clone())
    }

    /// Counts the outcome of a call that the original counts.
    fn count(&self, model: &str, api: &str, start: Instant, outcome: &Result<Reply, Status>) {
        let code: Option<Code> = outcome.as_ref().err().map(Status::code);
        self.metrics.answered(model, code);
        if code.is_none() {
            self.metrics.took(model, api, "GRPC", start.elapsed());
        }
    }
}

/// The error for a request that cannot be parsed.
fn unparsable() -> Status {
    Status::internal("")
}

/// What a request says of the model that it wants.
fn required_spec(spec: Option<&proto::ModelSpec>) -> Result<&proto::ModelSpec, Status> {
    spec.ok_or_else(|| Status::invalid_argument("Missing ModelSpec"))
}

/// The same in the vocabulary.
fn wanted(spec: &proto::ModelSpec) -> ModelSpec {
    let choice = match &spec.version_choice {
        None => VersionChoice::Latest,
        Some(model_spec::VersionChoice::Version(version)) => {
            VersionChoice::Version(Version(*version))
        }
        Some(model_spec::VersionChoice::VersionLabel(label)) => {
            VersionChoice::Label(Label::from(label.as_str()))
        }
    };
    ModelSpec { name: spec.name.as_str().into(), choice }
}

/// Who answered: always with the version, never with a label.
pub(crate) fn answered_by(lease: &Lease, signature: &str) -> proto::ModelSpec {
    proto::ModelSpec {
        name: lease.model().to_string(),
        signature_name: signature.to_owned(),
        version_choice: Some(model_spec::VersionChoice::Version(lease.version().0)),
    }
}

/// The name of the model that a request is counted under.
fn counted_name(spec: Option<&proto::ModelSpec>) -> String {
    spec.map(|spec| spec.name.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_methods() {
        let path = |path| Method::from_path(path);
        assert_eq!(path("/tensorflow.serving.PredictionService/Predict"), Some(Method::Predict));
        assert_eq!(
            path("/tensorflow.serving.ModelService/GetModelStatus"),
            Some(Method::GetModelStatus)
        );
        for unknown in [
            "/tensorflow.serving.PredictionService/Nope",
            "/tensorflow.serving.SessionService/SessionRun",
            "/tensorflow.serving.ModelService/Predict",
            "/PredictionService/Predict",
            "/tensorflow.serving.PredictionService/Predict/",
            "/Predict",
            "",
        ] {
            assert_eq!(path(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn specs_are_converted() {
        let version = model_spec::VersionChoice::Version(7);
        let label = model_spec::VersionChoice::VersionLabel(String::new());
        let spec = |choice| proto::ModelSpec {
            name: "m".into(),
            version_choice: choice,
            ..Default::default()
        };
        assert_eq!(wanted(&spec(None)), ModelSpec::latest("m"));
        assert_eq!(wanted(&spec(Some(version))).choice, VersionChoice::Version(Version(7)));
        assert_eq!(wanted(&spec(Some(label))).choice, VersionChoice::Label("".into()));
        assert_eq!(required_spec(None).unwrap_err().message(), "Missing ModelSpec");
    }
}
