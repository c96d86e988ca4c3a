//! One signature of a SavedModel as an ONNX file for others to run.
//!
//! Owns: the names that the file's inputs and outputs have, and how it is written. May not know: what
//! any engine makes of it. Invariant: a file is complete under its name or not there; what has no
//! exact translation is refused with the operators and where they stand.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use vesta_model::{PartialShape, Status};
use vesta_onnx::{Body, FeedSpec, FrozenSignature, Resizing, Translation, translate};
use vesta_protos::onnx::tensor_proto::DataLocation;
use vesta_protos::onnx::{GraphProto, ModelProto, NodeProto, StringStringEntryProto};
use vesta_savedmodel::{FrozenBody, FrozenGraph};

use crate::model_settings::open_model;

/// The most bytes that a protocol buffer may have.
pub const ONNX_BYTES_MAX: usize = i32::MAX as usize;

/// Weights from this size leave a file that would be too large.
const EXTERNAL_BYTES_MIN: usize = 1024;

/// Where each of them starts in the file of weights; what maps it wants pages.
const ALIGNMENT: usize = 4096;

/// A signature as an ONNX model, whose inputs and outputs have the signature's aliases.
#[derive(Clone, Debug)]
pub struct Conversion {
    model: ModelProto,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The model.
    pub model: PathBuf,
    /// The weights, where they did not fit into the model's own file.
    pub weights: Option<PathBuf>,
    /// Bytes of both.
    pub bytes: u64,
    /// Nodes of the graph.
    pub nodes: usize,
}

/// The signature that clients mean who name none.
const DEFAULT_SIGNATURE: &str = "serving_default";

/// Translates one signature of the SavedModel in `artifact`; without a name `serving_default`, or the
/// only one that there is.
///
/// # Errors
/// Those of opening and freezing; `NOT_FOUND` for a signature that is not there; `UNIMPLEMENTED` for
/// what has no exact translation, naming every operator and where it stands.
pub fn convert(
    artifact: &Path,
    tags: &[String],
    signature: Option<&str>,
) -> Result<Conversion, Status> {
    let model = open_model(artifact, tags)?;
    let known = &model.description().signatures;
    let only = || known.keys().next().filter(|_| known.len() == 1).map(String::as_str);
    let signature = signature.or_else(only).unwrap_or(DEFAULT_SIGNATURE);
    if !known.contains_key(signature) {
        return Err(crate::unknown_signature(signature, model.description()));
    }
    let graph = model.freeze(signature)?;
    if let Some(feed) = graph.feeds.iter().find(|feed| feed.shape == PartialShape::Unknown) {
        return Err(Status::unimplemented(format!(
            "signature {signature} has no ONNX form: its input {} is declared without a rank, and \
             ONNX's checker takes no such input; export the model with the input's shape, -1 for \
             sizes that are open",
            feed.alias
        )));
    }
    let translation = translated(&graph, Resizing::Computed)?;
    let outputs = &model.description().signatures[signature].outputs;
    let aliases: Vec<&str> = outputs.iter().map(|spec| spec.alias.as_str()).collect();
    let inputs: Vec<&str> = graph.feeds.iter().map(|feed| feed.alias.as_str()).collect();
    let Translation { mut model, inputs: fed, outputs: fetched, .. } = translation;
    rename(&mut model, &fed, &inputs, &fetched, &aliases);
    Ok(Conversion { model })
}

/// A frozen signature in ONNX, under its tensors' own names.
///
/// # Errors
/// `UNIMPLEMENTED` for what has no exact translation.
pub(crate) fn translated(graph: &FrozenGraph, resizing: Resizing) -> Result<Translation, Status> {
    let refused = |why: &str| {
        Status::unimplemented(format!("signature {} has no ONNX form: {why}", graph.signature))
    };
    if let Some(reason) = &graph.stateful {
        return Err(refused(&format!("it keeps state ({reason})")));
    }
    if let Some(status) = &graph.unfrozen {
        return Err(refused(status.message()));
    }
    let feeds = graph.feeds.iter().map(|feed| FeedSpec {
        tensor: feed.tensor.clone(),
        dtype: feed.dtype,
        shape: feed.shape.clone(),
    });
    let signature = FrozenSignature {
        nodes: &graph.nodes,
        feeds: feeds.collect(),
        fetches: graph.fetches.clone(),
        checks: &graph.checks,
        bodies: bodies(&graph.bodies),
        resizing,
    };
    translate(&signature).map_err(|error| match &graph.unlifted {
        Some(why) => {
            refused(&format!("{error}; its control flow has no other form: {}", why.message()))
        }
        None => refused(&error.to_string()),
    })
}

fn bodies(frozen: &[FrozenBody]) -> Vec<Body<'_>> {
    fn body(frozen: &FrozenBody) -> Body<'_> {
        Body {
            node: frozen.node.clone(),
            attribute: frozen.attribute.clone(),
            nodes: &frozen.nodes,
            arguments: frozen.arguments.clone(),
            results: frozen.results.clone(),
            checks: &frozen.checks,
            bodies: bodies(&frozen.bodies),
        }
    }
    frozen.iter().map(body).collect()
}

/// Every node of a graph, those of branches and loops included.
fn visit(graph: &mut GraphProto, see: &mut dyn FnMut(&mut NodeProto)) {
    for node in &mut graph.node {
        see(node);
        for inner in node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_mut()) {
            visit(inner, see);
        }
    }
}

/// Gives inputs and outputs the names that clients know; a name that is both an input and an output
/// stays the input's.
fn rename(
    model: &mut ModelProto,
    fed: &[String],
    inputs: &[&str],
    fetched: &[String],
    outputs: &[&str],
) {
    let Some(graph) = &mut model.graph else { return };
    let mut taken: HashSet<String> = graph.initializer.iter().map(|own| own.name.clone()).collect();
    visit(graph, &mut |node| taken.extend(node.output.iter().cloned()));
    let mut names: HashMap<&str, String> = HashMap::new();
    for (tensor, alias) in fed.iter().zip(inputs).chain(fetched.iter().zip(outputs)) {
        let mut name = (*alias).to_owned();
        while !taken.insert(name.clone()) {
            name.push_str("_output");
        }
        names.entry(tensor).or_insert(name);
    }
    let renamed = |name: &mut String| {
        if let Some(new) = names.get(name.as_str()) {
            name.clone_from(new);
        }
    };
    visit(graph, &mut |node| node.input.iter_mut().chain(&mut node.output).for_each(renamed));
    graph.input.iter_mut().chain(&mut graph.output).for_each(|value| renamed(&mut value.name));
}

impl Conversion {
    /// How often each ONNX operator stands in the model.
    pub fn operators(&self) -> std::collections::BTreeMap<&str, usize> {
        vesta_onnx::count_operators(&self.model)
    }

    /// Writes the model to `path`. One of more than `bytes_max` (see [`ONNX_BYTES_MAX`]) has its
    /// weights in a file of their own beside it, called `path` with `.data` at its end.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the graph alone is larger; what the files answer.
    pub fn write(mut self, path: &Path, bytes_max: usize) -> Result<Written, Status> {
        let nodes = self.model.graph.as_ref().map_or(0, |graph| graph.node.len());
        let mut weights = None;
        let mut bytes = 0;
        if self.model.encoded_len() > bytes_max {
            let file = beside(path, ".data");
            bytes += self.write_weights(&file)?;
            weights = Some(file);
        }
        let encoded = self.model.encoded_len();
        if encoded > bytes_max {
            return Err(Status::resource_exhausted(format!(
                "the graph takes {encoded} bytes without its weights, and a protocol buffer has room \
                 for {bytes_max}; convert a smaller model"
            )));
        }
        bytes += encoded as u64;
        publish(path, |file| file.write_all(&self.model.encode_to_vec()))?;
        Ok(Written { model: path.to_owned(), weights, bytes, nodes })
    }

    /// Moves the weights out to `path`; gives how many bytes they are.
    fn write_weights(&mut self, path: &Path) -> Result<u64, Status> {
        let location = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(graph) = &mut self.model.graph else { return Ok(0) };
        let mut at = 0usize;
        publish(path, |file| {
            for tensor in &mut graph.initializer {
                let len = tensor.raw_data.len();
                if len < EXTERNAL_BYTES_MIN {
                    continue;
                }
                let start = at.next_multiple_of(ALIGNMENT);
                file.write_all(&vec![0; start - at])?;
                file.write_all(&tensor.raw_data)?;
                at = start + len;
                tensor.raw_data = bytes::Bytes::new();
                tensor.data_location = DataLocation::External as i32;
                tensor.external_data = [
                    ("location", location.clone()),
                    ("offset", start.to_string()),
                    ("length", len.to_string()),
                ]
                .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
                .to_vec();
            }
            Ok(())
        })?;
        Ok(at as u64)
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Writes a file under another name first, so that nobody reads half of it.
fn publish(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), Status> {
    let draft = beside(path, ".part");
    let written = File::create(&draft)
        .map(BufWriter::new)
        .and_then(|mut file| write(&mut file).and_then(|()| file.flush()))
        .and_then(|()| std::fs::rename(&draft, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&draft);
        Status::unknown(format!("{} cannot be written: {error}", path.display()))
    })
}
