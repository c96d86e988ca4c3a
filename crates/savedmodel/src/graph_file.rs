//! A frozen graph: a GraphDef in a file of its own, without signatures and variables.
//!
//! Owns: which file of a folder it is, how it is read, and what is said of files that are no such
//! graph. May not know: what an operator gives.
//! Invariant: a graph that needs the value of a variable is not opened, for the file has none.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use vesta_model::Status;
use vesta_protos::tensorflow::{self as tf, GraphDef, MetaGraphDef};

use crate::disk;
use crate::interface;
use crate::wire::{self, NODES_MAX};

/// Files of SavedModels that end as graphs do.
const OTHER_FILES: [&str; 3] = ["saved_model.pb", "fingerprint.pb", "keras_metadata.pb"];
/// Protocol buffers end at 2 GiB.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// What is said of a frozen graph that it does not say itself. All may be left open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphNames {
    /// The file, where a folder has several graphs.
    pub file: Option<String>,
    /// Tensors that requests give, as `x:0` or `x`; without any, its placeholders.
    pub inputs: Vec<String>,
    /// Tensors that requests ask for; without any, those that no node takes.
    pub outputs: Vec<String>,
}

/// The files of a folder that may be frozen graphs, by name in order; none where it cannot be read.
pub fn graph_files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let ends = Path::new(name).extension().is_some_and(|ending| ending == "pb");
            ends && !OTHER_FILES.contains(&name.as_str()) && dir.join(name).is_file()
        })
        .collect();
    names.sort();
    names
}

/// The frozen graph of a folder without a SavedModel; `None` where there is none either.
///
/// # Errors
/// `INVALID_ARGUMENT` for several that `names` does not choose from.
pub(crate) fn find(dir: &Path, names: &GraphNames) -> Result<Option<PathBuf>, Status> {
    if let Some(file) = &names.file {
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(Status::invalid_argument(format!(
                "vesta.toml: [graph] file = \"{file}\" must be the name of a file in the version's folder"
            )));
        }
        return Ok(Some(dir.join(file)));
    }
    let found = graph_files(dir);
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(dir.join(one))),
        [first, ..] => Err(Status::invalid_argument(format!(
            "{} holds several graphs ({}); keep one of them, or name it in vesta.toml: [graph] \
             file = \"{first}\"",
            dir.display(),
            found.join(", ")
        ))),
    }
}

/// Reads the frozen graph in `path`, with the signature `serving_default` over what `names` says, or
/// what is found.
///
/// # Errors
/// `DATA_LOSS` for what is no GraphDef, `RESOURCE_EXHAUSTED` for one of too many nodes,
/// `FAILED_PRECONDITION` for one with variables, `INVALID_ARGUMENT` for tensors that are not there and
/// where inputs and outputs cannot be told; each says what to do.
pub(crate) fn read(path: &Path, names: &GraphNames) -> Result<MetaGraphDef, Status> {
    let bytes = Bytes::from(disk::read(path, FILE_BYTES_MAX)?);
    let graph = parse(path, bytes)?;
    let signature = interface::find(&graph, names)
        .map_err(|error| error.prefixed(&format!("{}: ", path.display())))?;
    let name = vesta_model::Signature::DEFAULT_NAME.to_owned();
    Ok(MetaGraphDef {
        graph_def: Some(graph),
        signature_def: [(name, signature)].into(),
        ..MetaGraphDef::default()
    })
}

fn parse(path: &Path, bytes: Bytes) -> Result<GraphDef, Status> {
    let no_graph = |what: &str| disk::damaged(path, format!("is no frozen graph: {what}"));
    if bytes.is_empty() {
        return Err(no_graph("the file is empty; copy it again"));
    }
    let is_text =
        bytes.iter().take(256).all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if is_text {
        return Err(no_graph(
            "it is text; write the GraphDef in its binary form, with \
             `tf.io.write_graph(graph, folder, name, as_text=False)`",
        ));
    }
    let count = wire::graph_nodes(&bytes);
    if count.is_none_or(|count| count == 0) {
        let saved = tf::SavedModel::decode(bytes);
        return Err(no_graph(match saved {
            Ok(saved) if !saved.meta_graphs.is_empty() => {
                "it is a SavedModel under another name; call it saved_model.pb, with its folder \
                 `variables` beside it"
            }
            _ => {
                "no GraphDef can be read from it; give the file that TensorFlow's freeze_graph writes"
            }
        }));
    }
    if count.is_some_and(|count| count > NODES_MAX) {
        return Err(Status::resource_exhausted(format!(
            "{}: a graph of more than {NODES_MAX} nodes",
            path.display()
        )));
    }
    // Constants borrow from these bytes.
    GraphDef::decode(bytes).map_err(|error| {
        no_graph("it cannot be parsed as a GraphDef; copy it again").with_cause(error)
    })
}
