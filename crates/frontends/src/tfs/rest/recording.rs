//! Records of REST calls, as the messages of the same calls over gRPC.
//!
//! Owns: what those messages hold. May not know: which calls are chosen, where records go.

use bytes::Bytes;
use prost::Message as _;
use vesta_model::{ModelSpec, Signature, Tensor, TensorSpec, VersionChoice};
use vesta_protos::tensorflow::serving as proto;
use vesta_protos::tensorflow::serving::model_spec;
use vesta_protos::tensorflow::serving::serialized_input::Kind;
use vesta_serving::Lease;

use super::Rest;
use crate::budget::Budget;
use crate::tfs::classify::Classes;
use crate::tfs::predict::signature_or_default;
use crate::tfs::request_log::{Call, Chosen};
use crate::tfs::rpc::answered_by;
use crate::tfs::rpc::inference::{classification, regression};
use crate::tfs::rpc::predict::{REQUEST, RESPONSE, Tags, encode};
use crate::tfs::tensor_proto::TensorForm;

/// A predict request that was chosen before it was read.
pub(super) struct ChosenPredict {
    chosen: Chosen,
    asked: proto::ModelSpec,
    budget: Budget,
}

/// The same with its inputs.
pub(super) struct FedPredict {
    chosen: ChosenPredict,
    lease: Lease,
    inputs: Vec<Tensor>,
}

/// A request of examples that was chosen.
pub(super) struct ChosenExamples {
    chosen: Chosen,
    asked: proto::ModelSpec,
    answered: proto::ModelSpec,
}

impl Rest {
    /// Whether the next predict request of this model is recorded.
    pub(super) fn choose_predict(&self, spec: &ModelSpec) -> Option<ChosenPredict> {
        let chosen = self.inner.options.request_log.choose(spec.name.as_str())?;
        Some(ChosenPredict { chosen, asked: asked(spec, ""), budget: self.inner.budget.clone() })
    }

    /// Whether the next classify or regress request of this model is recorded.
    pub(super) fn choose_examples(
        &self,
        spec: &ModelSpec,
        signature: &str,
        lease: &Lease,
    ) -> Option<ChosenExamples> {
        let chosen = self.inner.options.request_log.choose(spec.name.as_str())?;
        let answered = answered_by(lease, signature_or_default(signature));
        Some(ChosenExamples { chosen, asked: asked(spec, signature), answered })
    }
}

impl ChosenPredict {
    /// Keeps what the run is fed with.
    pub(super) fn with_inputs(self, lease: &Lease, inputs: &[Tensor]) -> FedPredict {
        FedPredict { chosen: self, lease: lease.clone(), inputs: inputs.to_vec() }
    }
}

impl FedPredict {
    /// Records the call with its answer, unless there is no memory for it.
    pub(super) fn answered(self, signature: &Signature, outputs: &[Tensor]) {
        let ChosenPredict { chosen, mut asked, budget } = self.chosen;
        signature.name.clone_into(&mut asked.signature_name);
        let answered = answered_by(&self.lease, &signature.name);
        let message = |tags: Tags, named: Vec<(&str, &Tensor)>, spec: &proto::ModelSpec| {
            let reply = encode(tags, &named, spec, TensorForm::Fields, &budget).ok()?;
            Some(Bytes::copy_from_slice(reply.message()))
        };
        let request = message(REQUEST, named(&signature.inputs, &self.inputs), &asked);
        let response = message(RESPONSE, named(&signature.outputs, outputs), &answered);
        if let (Some(request), Some(response)) = (request, response) {
            chosen.answered(Call::Predict, request, response);
        }
    }
}

impl ChosenExamples {
    /// Records a classification with its answer.
    pub(super) fn classified(self, examples: &[Bytes], rows: Vec<Classes>) {
        let response = proto::ClassificationResponse {
            result: Some(classification(rows)),
            model_spec: Some(self.answered),
        };
        let request = examples_request(self.asked, examples);
        self.chosen.answered(Call::Classify, request, response.encode_to_vec().into());
    }

    /// Records a regression with its answer.
    pub(super) fn regressed(self, examples: &[Bytes], values: Vec<f32>) {
        let response = proto::RegressionResponse {
            result: Some(regression(values)),
            model_spec: Some(self.answered),
        };
        let request = examples_request(self.asked, examples);
        self.chosen.answered(Call::Regress, request, response.encode_to_vec().into());
    }
}

/// Tensors by their aliases.
fn named<'t>(specs: &'t [TensorSpec], tensors: &'t [Tensor]) -> Vec<(&'t str, &'t Tensor)> {
    specs.iter().map(|spec| spec.alias.as_str()).zip(tensors).collect()
}

/// The bytes of a request to classify; those of one to regress are the same.
fn examples_request(asked: proto::ModelSpec, examples: &[Bytes]) -> Bytes {
    let list = proto::SerializedExampleList { examples: examples.to_vec() };
    let request = proto::SerializedClassificationRequest {
        model_spec: Some(asked),
        input: Some(proto::SerializedInput { kind: Some(Kind::ExampleList(list)) }),
    };
    request.encode_to_vec().into()
}

/// What the path of a request asks for.
fn asked(spec: &ModelSpec, signature: &str) -> proto::ModelSpec {
    let choice = match &spec.choice {
        VersionChoice::Latest => None,
        VersionChoice::Version(version) => Some(model_spec::VersionChoice::Version(version.0)),
        VersionChoice::Label(label) => {
            Some(model_spec::VersionChoice::VersionLabel(label.as_str().to_owned()))
        }
    };
    proto::ModelSpec {
        name: spec.name.as_str().to_owned(),
        version_choice: choice,
        signature_name: signature.to_owned(),
    }
}
