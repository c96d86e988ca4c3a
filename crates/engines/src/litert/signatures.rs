//! The signatures that a model file is served by.
//!
//! Owns where they come from: the metadata of TensorFlow's tools first, as in the original; then the
//! format's own, which the original passes over; else one is made of the tensors' names. May not
//! know: how a model runs. Invariant: every input of a subgraph has one name in each signature of it.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use vesta_model::{Code, DType, Encoding, PartialShape, Signature, Status, TensorSpec};
use vesta_protos::tensorflow::SignatureDef;

use super::flatbuffer::broken;
use super::flexmap;
use super::schema::{Model, Subgraph};

/// What a signature is made for, where the file does not say.
const PREDICT: &str = "tensorflow/serving/predict";

/// A signature in terms of the file.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) signature: Signature,
    pub(crate) subgraph: usize,
    /// The tensors of its inputs and outputs, in their order.
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
}

/// Reads the signatures of a file.
///
/// # Errors
/// `DATA_LOSS`, `INVALID_ARGUMENT` for signatures that do not fit the graph, `UNIMPLEMENTED` for
/// tensors that a request cannot carry.
pub(crate) fn of(model: &Model<'_>) -> Result<Vec<Served>, Status> {
    let mut served = declared(model)?;
    if served.is_empty() {
        served = model.signatures.iter().map(|own| native(model, own)).collect::<Result<_, _>>()?;
        // The original knows the graph by this name alone, whatever signatures there are.
        if served.iter().all(|own| own.signature.name != Signature::DEFAULT_NAME) {
            match generated(model) {
                Ok(made) => served.push(made),
                Err(status) if served.is_empty() => return Err(status),
                Err(_) => {}
            }
        }
    }
    let is_stateful = model.is_stateful();
    served.iter_mut().for_each(|one| one.signature.stateful = is_stateful);
    Ok(served)
}

/// The signatures in the metadata.
fn declared(model: &Model<'_>) -> Result<Vec<Served>, Status> {
    let Some(map) = model.signature_map else { return Ok(Vec::new()) };
    let unreadable = || broken("the signatures in its metadata cannot be read");
    let read = |(name, bytes): (String, &[u8])| {
        let def = SignatureDef::decode(bytes).map_err(|_| unreadable())?;
        declared_one(model, &name, &def)
    };
    flexmap::entries(map).ok_or_else(unreadable)?.into_iter().map(read).collect()
}

fn declared_one(model: &Model<'_>, name: &str, def: &SignatureDef) -> Result<Served, Status> {
    let graph = main(model)?;
    let signature = vesta_savedmodel::signature_from_def(name, def)?;
    let bind = |specs: &[TensorSpec], ends: &[usize], side: &str| {
        specs
            .iter()
            .map(|spec| {
                let Encoding::Dense(tensor) = &spec.encoding else {
                    return Err(unknown(side, spec));
                };
                let found = find(graph, ends, tensor).ok_or_else(|| unknown(side, spec))?;
                let (dtype, _) = graph.tensors[found].dtype()?;
                if dtype != spec.dtype {
                    return Err(Status::invalid_argument(format!(
                        "Signature {side} {} is declared as {}, but its tensor is of {dtype}",
                        spec.alias, spec.dtype
                    )));
                }
                Ok(found)
            })
            .collect::<Result<Vec<usize>, Status>>()
    };
    let inputs = bind(&signature.inputs, &graph.inputs, "input")?;
    let outputs = bind(&signature.outputs, &graph.outputs, "output")?;
    let mut served = Served { signature, subgraph: 0, inputs, outputs };
    // The name in the file, which may lack the `:0` of the declared one.
    for (spec, &tensor) in served.signature.inputs.iter_mut().zip(&served.inputs) {
        spec.encoding = Encoding::Dense(graph.tensors[tensor].name.to_owned());
    }
    for (spec, &tensor) in served.signature.outputs.iter_mut().zip(&served.outputs) {
        spec.encoding = Encoding::Dense(graph.tensors[tensor].name.to_owned());
    }
    check_inputs(graph, &served)?;
    Ok(served)
}

/// The original's words for a signature that does not fit the graph.
fn unknown(side: &str, spec: &TensorSpec) -> Status {
    let tensor = match &spec.encoding {
        Encoding::Dense(name) => name.as_str(),
        _ => "",
    };
    Status::internal(format!(
        "Unknown tensor '{tensor}'.\n\tSignature {side} {} references an unknown tensor",
        spec.alias
    ))
}

/// The end of the graph with this name, or with it up to its colon.
fn find(graph: &Subgraph<'_>, ends: &[usize], name: &str) -> Option<usize> {
    let called = |wanted: &str| ends.iter().copied().find(|&n| graph.tensors[n].name == wanted);
    called(name).or_else(|| called(legacy(name)))
}

/// A tensor's name without the number of its output, which early converters left out.
fn legacy(name: &str) -> &str {
    name.split_once(':').map_or(name, |(before, _)| before)
}

/// A signature of the format's own.
fn native(model: &Model<'_>, own: &super::schema::NativeSignature<'_>) -> Result<Served, Status> {
    let graph = &model.subgraphs[own.subgraph];
    let named = |tensors: &BTreeMap<&str, usize>| {
        tensors.iter().map(|(name, &tensor)| ((*name).to_owned(), tensor)).collect()
    };
    let served = make(graph, own.key, named(&own.inputs), named(&own.outputs), own.subgraph)?;
    check_inputs(graph, &served)?;
    Ok(served)
}

/// The signature that the original makes for a file without any.
pub(crate) fn generated(model: &Model<'_>) -> Result<Served, Status> {
    let graph = main(model)?;
    let named = |ends: &[usize], side: &str| {
        let mut names = BTreeMap::new();
        for &tensor in ends {
            let full = graph.tensors[tensor].name;
            let is_same = |other: &&usize| legacy(graph.tensors[**other].name) == legacy(full);
            // Two outputs of one operator have one legacy name; the original keeps only one of them.
            let is_taken = ends.iter().filter(is_same).count() > 1;
            let name = if is_taken { full } else { legacy(full) };
            if names.insert(name.to_owned(), tensor).is_some() {
                return Err(Status::new(
                    Code::AlreadyExists,
                    format!("{side} tensor name: {full} has multiple indices"),
                ));
            }
        }
        Ok(names)
    };
    let inputs = named(&graph.inputs, "Input")?;
    let outputs = named(&graph.outputs, "Output")?;
    make(graph, Signature::DEFAULT_NAME, inputs, outputs, 0)
}

fn make(
    graph: &Subgraph<'_>,
    name: &str,
    inputs: BTreeMap<String, usize>,
    outputs: BTreeMap<String, usize>,
    subgraph: usize,
) -> Result<Served, Status> {
    let specs = |tensors: &BTreeMap<String, usize>| {
        let spec = |(alias, &tensor): (&String, &usize)| {
            let tensor = &graph.tensors[tensor];
            let (dtype, _): (DType, i32) = tensor.dtype()?;
            let spec = TensorSpec::dense(alias, dtype)
                .with_shape(PartialShape::Ranked(tensor.dims.clone()));
            Ok(TensorSpec { encoding: Encoding::Dense(tensor.name.to_owned()), ..spec })
        };
        tensors.iter().map(spec).collect::<Result<Vec<_>, Status>>()
    };
    // Maps are in the order of names, as specs are.
    Ok(Served {
        signature: Signature::new(name, PREDICT, specs(&inputs)?, specs(&outputs)?),
        subgraph,
        inputs: inputs.into_values().collect(),
        outputs: outputs.into_values().collect(),
    })
}

/// Checks that a request can feed the whole graph.
fn check_inputs(graph: &Subgraph<'_>, served: &Served) -> Result<(), Status> {
    let name = &served.signature.name;
    let fed: BTreeSet<usize> = served.inputs.iter().copied().collect();
    let graph_inputs: BTreeSet<usize> = graph.inputs.iter().copied().collect();
    if let Some(&left) = graph_inputs.difference(&fed).next() {
        return Err(Status::invalid_argument(format!(
            "signature {name} leaves out the input {} of its graph",
            graph.tensors[left].name
        )));
    }
    if fed.len() != served.inputs.len() || graph_inputs.len() != graph.inputs.len() {
        return Err(Status::invalid_argument(format!(
            "signature {name} has two names for one input"
        )));
    }
    Ok(())
}

/// The graph that is no body of another.
fn main<'m, 'f>(model: &'m Model<'f>) -> Result<&'m Subgraph<'f>, Status> {
    model.subgraphs.first().ok_or_else(|| broken("it has no graph"))
}
