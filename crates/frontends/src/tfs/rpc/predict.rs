//! Predict: named tensors in, named tensors out.
//!
//! Owns: matching what was sent with the signature, the output filter, the answer's bytes. May not
//! know: how a run is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType, encode_key, encode_varint};
use prost::{DecodeError, Message};
use vesta_model::{DType, Encoding, Signature, Status, Tensor};
use vesta_protos::tensorflow::serving as proto;
use vesta_serving::{InferRequest, Lease};

use super::{Call, Calls, answered_by, counted_name, required_spec, unparsable, wanted};
use crate::budget::Budget;
use crate::grpc::Reply;
use crate::metrics::Api;
use crate::tfs::predict::{Feed, Signatures, run, signature_or_default};
use crate::tfs::tensor_proto::{self, Encoded, ParseError, TensorForm, TensorWire};

/// More inputs or filtered outputs than any signature has; what is beyond would only cost memory.
const NAMES_MAX: usize = 4096;

/// A received request: its tensors still are bytes.
#[derive(Debug, Default)]
struct PredictWire {
    model_spec: Option<proto::ModelSpec>,
    inputs: BTreeMap<String, TensorWire>,
    output_filter: Vec<String>,
    too_many: bool,
}

/// One entry of the map of inputs.
#[derive(Clone, Message)]
struct InputWire {
    #[prost(string, tag = "1")]
    alias: String,
    #[prost(message, optional, tag = "2")]
    tensor: Option<TensorWire>,
}

/// Only ever read.
impl Message for PredictWire {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match (tag, wire_type) {
            (1, WireType::LengthDelimited) => {
                let spec = self.model_spec.get_or_insert_with(proto::ModelSpec::default);
                encoding::message::merge(wire_type, spec, buf, ctx)
            }
            (2, WireType::LengthDelimited) => {
                let mut input = InputWire::default();
                encoding::message::merge(wire_type, &mut input, buf, ctx)?;
                self.too_many |= self.inputs.len() >= NAMES_MAX;
                if !self.too_many {
                    // Of two entries under one name the later counts.
                    self.inputs.insert(input.alias, input.tensor.unwrap_or_default());
                }
                Ok(())
            }
            (3, WireType::LengthDelimited) => {
                let mut alias = String::new();
                encoding::string::merge(wire_type, &mut alias, buf, ctx)?;
                self.too_many |= self.output_filter.len() >= NAMES_MAX;
                if !self.too_many {
                    self.output_filter.push(alias);
                }
                Ok(())
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = PredictWire::default();
    }
}

impl PredictWire {
    fn check_names(&self) -> Result<(), Status> {
        if self.too_many {
            return Err(Status::resource_exhausted(format!(
                "the request names more than {NAMES_MAX} inputs or outputs"
            )));
        }
        Ok(())
    }
}

impl Calls {
    pub(super) async fn predict(
        &self,
        message: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        let start = Instant::now();
        let bytes = message.len();
        let kept = self.kept(&message);
        let request: PredictWire = self.parse(message).await?;
        if request.inputs.values().any(TensorWire::is_malformed) {
            return Err(unparsable());
        }
        let model = counted_name(request.model_spec.as_ref());
        let chosen = self.choose(&model, kept);
        let outcome = self.predict_parsed(request, bytes, deadline).await;
        self.count(&model, "Predict", start, &outcome);
        Self::record(Call::Predict, chosen, &outcome);
        outcome
    }

    async fn predict_parsed(
        &self,
        request: PredictWire,
        bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<Reply, Status> {
        let spec = required_spec(request.model_spec.as_ref())?;
        let name = signature_or_default(&spec.signature_name).to_owned();
        let lease = self.serving.resolve(&wanted(spec))?;
        let signature = Arc::clone(find_signature(lease.signatures(), &name)?);
        self.method_check.predict(&signature)?;
        request.check_names()?;
        let PredictWire { inputs, output_filter, .. } = request;
        let budget = self.budget.clone();
        let for_inputs = Arc::clone(&signature);
        let bytes = inputs.values().map(TensorWire::expanded_bytes).fold(bytes, usize::max);
        let inputs =
            self.offload.run(bytes, move || read_inputs(&for_inputs, &inputs, &budget)).await?;
        let outputs = filter_outputs(&signature, &output_filter)?;
        let request =
            InferRequest { signature: name.clone(), inputs, outputs: outputs.clone(), deadline };
        let tensors = run(&lease, request, Api::Predict, &self.metrics).await?;
        self.answer(&lease, &name, signature, outputs, tensors).await
    }

    async fn answer(
        &self,
        lease: &Lease,
        name: &str,
        signature: Arc<Signature>,
        outputs: Vec<usize>,
        tensors: Vec<Tensor>,
    ) -> Result<Reply, Status> {
        if tensors.len() != outputs.len() {
            return Err(Status::internal("the run did not give the outputs that were asked for"));
        }
        let spec = answered_by(lease, name);
        let budget = self.budget.clone();
        let form = self.form;
        let bytes = tensors.iter().map(|tensor| tensor.bytes().len()).sum();
        self.offload
            .run(bytes, move || {
                let mut named: Vec<(&str, &Tensor)> = Vec::with_capacity(tensors.len());
                for (&output, tensor) in outputs.iter().zip(&tensors) {
                    named.push((&signature.outputs[output].alias, tensor));
                }
                named.sort_by_key(|&(alias, _)| alias);
                encode(RESPONSE, &named, &spec, form, &budget)
            })
            .await
    }
}

/// What a recorded request asks a version with these signatures to compute.
///
/// # Errors
/// Those of the call, and `INVALID_ARGUMENT` for bytes that are not its request.
pub(crate) fn feed_of(
    message: Bytes,
    signatures: &Signatures,
    budget: &Budget,
) -> Result<Feed, Status> {
    let request = PredictWire::decode(message).map_err(|error| {
        Status::invalid_argument(format!("a recorded request cannot be read: {error}"))
    })?;
    if request.inputs.values().any(TensorWire::is_malformed) {
        return Err(Status::invalid_argument("a recorded request cannot be read"));
    }
    let spec = required_spec(request.model_spec.as_ref())?;
    let name = signature_or_default(&spec.signature_name);
    let signature = find_signature(signatures, name)?;
    request.check_names()?;
    Ok(Feed {
        signature: name.to_owned(),
        inputs: read_inputs(signature, &request.inputs, budget)?,
        outputs: filter_outputs(signature, &request.output_filter)?,
    })
}

fn find_signature<'s>(
    signatures: &'s Signatures,
    name: &str,
) -> Result<&'s Arc<Signature>, Status> {
    signatures.get(name).ok_or_else(|| {
        Status::failed_precondition(format!("Serving signature key \"{name}\" not found."))
    })
}

/// Names in braces or not, as the original joins them.
fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(",")
}

/// The tensors of a signature's inputs, in its order.
fn read_inputs(
    signature: &Signature,
    sent: &BTreeMap<String, TensorWire>,
    budget: &Budget,
) -> Result<Vec<Tensor>, Status> {
    check_count(signature, sent)?;
    let mut inputs = Vec::with_capacity(signature.inputs.len());
    for spec in &signature.inputs {
        inputs.push(match (sent.get(&spec.alias), &spec.default) {
            (Some(wire), _) => tensor_proto::tensor(wire, budget).map_err(|error| match error {
                ParseError::Invalid => {
                    Status::invalid_argument(format!("tensor parsing error: {}", spec.alias))
                }
                ParseError::Refused(status) => status,
            })?,
            (None, Some(default)) => default.clone(),
            (None, None) => return Err(missing_input(signature, &spec.alias, sent)),
        });
    }
    let known = |alias: &&str| signature.input(alias).is_some();
    let used: Vec<&str> = sent.keys().map(String::as_str).filter(known).collect();
    if used.len() != sent.len() {
        return Err(Status::invalid_argument(format!(
            "Inputs contains invalid name. Used request inputs: {}, request input: {}",
            joined(used),
            joined(sent.keys().map(String::as_str))
        )));
    }
    check_dtypes(signature, &inputs)?;
    Ok(inputs)
}

fn check_count(signature: &Signature, sent: &BTreeMap<String, TensorWire>) -> Result<(), Status> {
    let wanted = signature.inputs.len();
    let has_defaults = signature.inputs.iter().any(|spec| spec.default.is_some());
    if sent.len() == wanted || (sent.len() < wanted && has_defaults) {
        return Ok(());
    }
    let names = || signature.inputs.iter().map(|spec| spec.alias.as_str());
    let sent_names = || sent.keys().map(String::as_str);
    Err(Status::invalid_argument(format!(
        "input size does not match signature: {}!={wanted} len({{{}}}) != len({{{}}}). Sent \
         extra: {{{}}}. Missing but required: {{{}}}.",
        sent.len(),
        joined(sent_names()),
        joined(names()),
        joined(sent_names().filter(|alias| signature.input(alias).is_none())),
        joined(names().filter(|alias| !sent.contains_key(*alias))),
    )))
}

fn missing_input(
    signature: &Signature,
    alias: &str,
    sent: &BTreeMap<String, TensorWire>,
) -> Status {
    let defaults = signature.inputs.iter().filter(|spec| spec.default.is_some());
    let feed = signature.input(alias).map_or("", |at| feed_name(signature, at));
    Status::invalid_argument(format!(
        "Signature input alias: {alias}(feed name: {feed}) not found in request and no default \
         value provided. Inputs expected to be in the request {{{}}}, or default input alias set: \
         {}",
        joined(sent.keys().map(String::as_str)),
        joined(defaults.map(|spec| spec.alias.as_str())),
    ))
}

/// The name that the graph has for an input.
fn feed_name(signature: &Signature, input: usize) -> &str {
    match &signature.inputs[input].encoding {
        Encoding::Dense(name) => name,
        Encoding::CooSparse { .. } | Encoding::Composite => "",
    }
}

/// Holds dtypes to the signature. The original finds them out when it feeds its graph, and counts
/// the arguments in the order of the graph's names.
fn check_dtypes(signature: &Signature, inputs: &[Tensor]) -> Result<(), Status> {
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|&input| feed_name(signature, input));
    for (argument, &input) in order.iter().enumerate() {
        let (want, got) = (signature.inputs[input].fed_dtype(), inputs[input].dtype());
        if want != got && want != DType::Invalid {
            return Err(Status::invalid_argument(format!(
                "Expects arg[{argument}] to be {want} but {got} is provided"
            )));
        }
    }
    Ok(())
}

/// Positions of the outputs wanted; a filter that names none wants all.
fn filter_outputs(signature: &Signature, filter: &[String]) -> Result<Vec<usize>, Status> {
    if filter.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut outputs = Vec::with_capacity(filter.len());
    for alias in filter {
        let output = signature.output(alias).ok_or_else(|| {
            Status::invalid_argument(format!(
                "output tensor alias not found in signature: {alias} Outputs expected to be in \
                 the set {{{}}}.",
                joined(signature.outputs.iter().map(|spec| spec.alias.as_str()))
            ))
        })?;
        if outputs.contains(&output) {
            return Err(Status::invalid_argument(format!(
                "duplicate output tensor alias: {alias}"
            )));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// Where a message of Predict has its map of tensors and its model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tags {
    tensors: u32,
    model_spec: u32,
}

/// Of a request.
pub(crate) const REQUEST: Tags = Tags { tensors: 2, model_spec: 1 };
/// Of an answer.
pub(crate) const RESPONSE: Tags = Tags { tensors: 1, model_spec: 2 };

/// The bytes of a message: the map of tensors, then the model.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` when they are not to be had.
pub(crate) fn encode(
    tags: Tags,
    tensors: &[(&str, &Tensor)],
    spec: &proto::ModelSpec,
    form: TensorForm,
    budget: &Budget,
) -> Result<Reply, Status> {
    const KEY: u32 = 1;
    const VALUE: u32 = 2;
    let mut entries = Vec::with_capacity(tensors.len());
    let mut len = encoding::message::encoded_len(tags.model_spec, spec);
    for &(alias, tensor) in tensors {
        let tensor = Encoded::new(tensor, form);
        let tensor_len = tensor.len();
        let entry_len = 2
            + encoding::encoded_len_varint(alias.len() as u64)
            + alias.len()
            + encoding::encoded_len_varint(tensor_len as u64)
            + tensor_len;
        len += 1 + encoding::encoded_len_varint(entry_len as u64) + entry_len;
        entries.push((alias, tensor, tensor_len, entry_len));
    }
    let permit = budget.take(len)?;
    let mut reply = Reply::with_capacity(len);
    let buf = reply.buffer();
    for (alias, tensor, tensor_len, entry_len) in &entries {
        encode_key(tags.tensors, WireType::LengthDelimited, buf);
        encode_varint(*entry_len as u64, buf);
        encode_key(KEY, WireType::LengthDelimited, buf);
        encode_varint(alias.len() as u64, buf);
        buf.put_slice(alias.as_bytes());
        encode_key(VALUE, WireType::LengthDelimited, buf);
        encode_varint(*tensor_len as u64, buf);
        tensor.write(buf);
    }
    encoding::message::encode(tags.model_spec, spec, buf);
    reply.hold(permit);
    Ok(reply)
}

#[cfg(test)]
mod tests;
