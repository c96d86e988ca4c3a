//! An opened SavedModel: one meta graph of its file and the bundle beside it; or a frozen graph.
//!
//! Owns the order in which things are looked at. Invariant: opening reads no weights; freezing
//! reads those that the signature needs, once for all signatures.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;
use vesta_model::{Code, DType, ModelDescription, Signature, Status};
use vesta_protos::tensorflow::{self as tf, GraphDef, MetaGraphDef};

use crate::bodies::Bodies;
use crate::bundle::Bundle;
use crate::disk;
use crate::effects::{self, Effects};
use crate::flat::Flat;
use crate::flatten::{Request, flatten};
use crate::freeze::{self, Feed, FrozenGraph};
use crate::graph::{Program, functions_named, split_tensor_name};
use crate::graph_file::{self, GraphNames};
use crate::lift;
use crate::plan::{Held, plan};
use crate::signature::{INIT_NAMES, dense_name, from_def, tensor_names};
use crate::variables::{Declared, Origins, declared};
use crate::wire;

/// The files that make a directory a SavedModel, the first of them first: as it is, and as text.
const FILE_NAMES: [&str; 2] = ["saved_model.pb", "saved_model.pbtxt"];
/// Protocol buffers end at 2 GiB.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Text takes about fifty times its size to be parsed.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// An opened SavedModel.
#[derive(Debug)]
pub struct SavedModel {
    dir: PathBuf,
    meta: MetaGraphDef,
    description: ModelDescription,
    /// Why each stateful signature is.
    reasons: BTreeMap<String, String>,
    bundle: Option<Bundle>,
    /// The file, and whether it is a frozen graph.
    file: PathBuf,
    is_frozen: bool,
    origins: OnceLock<Result<Origins, Status>>,
}

impl SavedModel {
    /// Opens the model in `dir`: the meta graph whose tags are exactly `tags`, and the index of the
    /// bundle if there is one.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no SavedModel or none with these tags, `PERMISSION_DENIED` for
    /// unreadable files, `DATA_LOSS` for damaged ones, `INVALID_ARGUMENT` for graphs that make no
    /// sense.
    pub fn open(dir: &Path, tags: &[String]) -> Result<SavedModel, Status> {
        SavedModel::open_named(dir, tags, &GraphNames::default())
    }

    /// As [`SavedModel::open`]; where `dir` holds no SavedModel but a frozen graph (one file `*.pb` that
    /// is a GraphDef), opens that: its one signature `serving_default` has the inputs and outputs that
    /// `names` gives, or those that are found. It has no tags.
    ///
    /// # Errors
    /// Besides those of [`SavedModel::open`]: `FAILED_PRECONDITION` for a graph with variables,
    /// `INVALID_ARGUMENT` for several graphs, and where inputs or outputs cannot be told.
    pub fn open_named(
        dir: &Path,
        tags: &[String],
        names: &GraphNames,
    ) -> Result<SavedModel, Status> {
        let saved_model = SavedModel::file_in(dir);
        let frozen = match &saved_model {
            Some(_) => None,
            None => graph_file::find(dir, names)?,
        };
        let is_frozen = frozen.is_some();
        let (meta, bundle) = match &frozen {
            Some(path) => (graph_file::read(path, names)?, None),
            None => (
                read_meta_graph(dir, tags)?,
                Bundle::open(&dir.join("variables").join("variables"))?,
            ),
        };
        let file = saved_model.or(frozen).unwrap_or_default();
        let mut signatures = BTreeMap::new();
        for (name, def) in &meta.signature_def {
            signatures.insert(name.clone(), from_def(name, def)?);
        }
        let reasons = {
            let program = Program::new(&meta)?;
            stateful_reasons(&program, &signatures)
        };
        for (name, signature) in &mut signatures {
            signature.stateful = reasons.contains_key(name);
        }
        let signatures =
            signatures.into_iter().map(|(name, signature)| (name, Arc::new(signature))).collect();
        Ok(SavedModel {
            dir: dir.to_owned(),
            meta,
            description: ModelDescription { signatures },
            reasons,
            bundle,
            file,
            is_frozen,
            origins: OnceLock::new(),
        })
    }

    /// Bytes of the file that was opened.
    pub fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The graph, where it is a frozen one: those who run a SavedModel by its folder need it.
    pub fn frozen_graph(&self) -> Option<&GraphDef> {
        self.meta.graph_def.as_ref().filter(|_| self.is_frozen)
    }

    /// The file of the SavedModel in `dir`: `saved_model.pb`, or where there is none,
    /// `saved_model.pbtxt`; `None` where `dir` holds no SavedModel.
    pub fn file_in(dir: &Path) -> Option<PathBuf> {
        FILE_NAMES.iter().map(|name| dir.join(name)).find(|path| path.exists())
    }

    /// The tags of each meta graph in `dir`, in the file's order.
    ///
    /// # Errors
    /// Those of reading the file in [`SavedModel::open`].
    pub fn tag_sets(dir: &Path) -> Result<Vec<Vec<String>>, Status> {
        let saved = read_saved_model(dir)?;
        let tags = |meta: &MetaGraphDef| {
            meta.meta_info_def.iter().flat_map(|info| info.tags.clone()).collect()
        };
        Ok(saved.meta_graphs.iter().map(tags).collect())
    }

    /// Every signature, those that only initialise included.
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// One signature as a flat graph without functions and variables.
    ///
    /// A stateful signature gives its graph with variables left as nodes and the reason in
    /// [`FrozenGraph::stateful`].
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown signature; `UNIMPLEMENTED` for one of sparse tensors or without
    /// outputs; `INVALID_ARGUMENT` for graphs that make no sense; `RESOURCE_EXHAUSTED` for those
    /// over the limits; `FAILED_PRECONDITION` for a variable without a value; `DATA_LOSS` for a
    /// damaged bundle.
    pub fn freeze(&self, signature: &str) -> Result<FrozenGraph, Status> {
        let signature = self.signature(signature)?;
        let (feeds, fetches) = interface(signature)?;
        let program = Program::new(&self.meta)?;
        let feed_names: Vec<&str> = feeds.iter().map(|feed| feed.tensor.as_str()).collect();
        let request = Request { feeds: &feed_names, fetches: &fetches, targets: &[] };
        let flat = flatten(&program, request).map_err(|error| named(error, signature))?;

        let stateful = self.reasons.get(&signature.name).cloned();
        let plan = plan(&program, &flat, stateful.is_none(), &|_| false)
            .map_err(|error| named(error, signature))?;
        if stateful.is_none() {
            check_placeholders(&flat, &plan).map_err(|error| named(error, signature))?;
        }
        let value = |declared: &Declared| self.value(&program, declared);
        let written = freeze::write(&program, &flat, &plan, &feeds, |held| match held {
            Held::Node(node) => value(&variable(&flat, node)?),
            Held::Argument(_) => Err(Status::internal("a signature's input is no variable")),
        })
        .map_err(|error| named(error, signature))?;
        let mut dropped_checks: Vec<String> =
            plan.checks.iter().map(|&(node, _)| flat.name(node)).collect();
        let (mut bodies, mut unfrozen) = (Vec::new(), None);
        if stateful.is_none() {
            // Whoever runs the model as it is needs no bodies, so it is no error yet.
            let mut freezing = Bodies::new(&program, &value);
            match freezing.of(&flat, &[], &written.controls) {
                Ok(frozen) => bodies = frozen,
                Err(error) => unfrozen = Some(error),
            }
            dropped_checks.append(&mut freezing.checks);
        }
        let versions = self.meta.graph_def.as_ref().and_then(|graph| graph.versions.as_ref());
        let mut graph = FrozenGraph {
            signature: signature.name.clone(),
            functions: freeze::functions(&program, &written.nodes),
            nodes: written.nodes,
            bodies,
            unfrozen,
            feeds,
            fetches: written.fetches,
            stateful,
            dropped_checks,
            checks: written.checks,
            unlifted: None,
            producer: versions.map_or(0, |versions| versions.producer),
        };
        if graph.stateful.is_none() && lift::is_needed(&graph.nodes) {
            match lift::lift(&graph) {
                Ok(lifted) => graph = lifted,
                // It stays, for the reader to refuse by name.
                Err(status) => graph.unlifted = Some(status),
            }
        }
        Ok(graph)
    }

    /// How often each operator occurs in a signature's graph, inlined and pruned. Where inlining
    /// fails, in everything that the signature may reach, each function counted once.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown signature.
    pub fn operators(&self, signature: &str) -> Result<BTreeMap<String, usize>, Status> {
        let signature = self.signature(signature)?;
        let names = tensor_names(signature);
        let flattened = Program::new(&self.meta).and_then(|program| {
            let request =
                Request { feeds: &names.feeds, fetches: &names.fetches, targets: &names.targets };
            let flat = flatten(&program, request)?;
            Ok((program, flat))
        });
        let Ok((program, flat)) = flattened else {
            let wanted: Vec<&str> = names.fetches.iter().chain(&names.targets).copied().collect();
            return Ok(reachable_operators(&self.meta, &wanted));
        };
        // What a stateful graph runs beside its outputs is part of what it does.
        if self.reasons.contains_key(&signature.name) || names.fetches.is_empty() {
            let mut counts = BTreeMap::new();
            for node in &flat.nodes {
                *counts.entry(node.def.op.clone()).or_insert(0) += 1;
            }
            return Ok(counts);
        }
        Ok(plan(&program, &flat, true, &|_| false)
            .map(|plan| freeze::operators(&flat, &plan))
            .unwrap_or_default())
    }

    fn signature(&self, name: &str) -> Result<&Signature, Status> {
        let found = self.description.signatures.get(name).map(Arc::as_ref);
        found.ok_or_else(|| Status::not_found(format!("the model has no signature {name}")))
    }

    /// The value of a variable.
    fn value(&self, program: &Program<'_>, declared: &Declared) -> Result<tf::TensorProto, Status> {
        let origins = self
            .origins
            .get_or_init(|| Origins::find(program, &self.meta, &self.dir))
            .as_ref()
            .map_err(Status::clone)?;
        origins.value(declared, &self.meta, self.bundle.as_ref())
    }
}

/// The variable that a node stands for.
fn variable(flat: &Flat<'_>, node: u32) -> Result<Declared, Status> {
    declared(flat, node)
        .ok_or_else(|| Status::internal(format!("node `{}` is no variable", flat.name(node))))
}

/// Reads the file of the SavedModel in `dir`.
fn read_saved_model(dir: &Path) -> Result<tf::SavedModel, Status> {
    let [binary, text] = FILE_NAMES;
    let path = SavedModel::file_in(dir).unwrap_or_else(|| dir.join(binary));
    let is_text = path.ends_with(text);
    let bytes_max = if is_text { TEXT_BYTES_MAX } else { FILE_BYTES_MAX };
    let bytes = disk::read(&path, bytes_max).map_err(|error| match error.code() {
        Code::NotFound => Status::not_found(format!(
            "Specified file path does not appear to contain a SavedModel bundle (should have a \
             file called `{binary}`)\nSpecified file path: {}",
            dir.display()
        )),
        _ => error,
    })?;
    if is_text {
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| disk::damaged(&path, "is no text").with_cause(error))?;
        return vesta_protos::text::parse(text, "tensorflow.SavedModel")
            .map_err(|problem| disk::damaged(&path, format_args!("cannot be parsed: {problem}")));
    }
    // Constants borrow from these bytes.
    let bytes = Bytes::from(bytes);
    if wire::saved_model_nodes(&bytes) > wire::NODES_MAX {
        return Err(Status::resource_exhausted(format!(
            "{} has more than {} nodes; export a smaller graph",
            path.display(),
            wire::NODES_MAX
        )));
    }
    tf::SavedModel::decode(bytes)
        .map_err(|error| disk::damaged(&path, "cannot be parsed").with_cause(error))
}

/// Reads the SavedModel's file and picks the meta graph.
fn read_meta_graph(dir: &Path, tags: &[String]) -> Result<MetaGraphDef, Status> {
    let saved = read_saved_model(dir)?;
    let wanted: BTreeSet<&str> = tags.iter().map(String::as_str).collect();
    let chosen = saved.meta_graphs.into_iter().find(|meta| {
        let tags = meta.meta_info_def.iter().flat_map(|info| &info.tags);
        tags.map(String::as_str).collect::<BTreeSet<_>>() == wanted
    });
    chosen.ok_or_else(|| {
        let tags: Vec<&str> = wanted.into_iter().collect();
        Status::not_found(format!(
            "Could not find meta graph def matching supplied tags: {{ {} }}. To inspect available \
             tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
            tags.join(" ")
        ))
    })
}

/// The feeds and fetches of a signature of dense tensors.
fn interface(signature: &Signature) -> Result<(Vec<Feed>, Vec<&str>), Status> {
    let name = &signature.name;
    if signature.outputs.iter().all(|output| output.dtype == DType::Invalid) {
        return Err(Status::unimplemented(format!(
            "signature {name} only runs an operator for its effect; it has no outputs to freeze"
        )));
    }
    let feed = |spec: &vesta_model::TensorSpec| {
        let (node, output) = split_tensor_name(dense_name(name, spec)?);
        Ok(Feed {
            alias: spec.alias.clone(),
            tensor: format!("{node}:{output}"),
            dtype: spec.dtype,
            shape: spec.shape.clone(),
        })
    };
    let feeds = signature.inputs.iter().map(feed).collect::<Result<_, Status>>()?;
    let fetches = signature.outputs.iter().map(|spec| dense_name(name, spec));
    Ok((feeds, fetches.collect::<Result<_, _>>()?))
}

fn named(error: Status, signature: &Signature) -> Status {
    error.prefixed(&format!("signature {}: ", signature.name))
}

/// Refuses a graph that waits for a value which no input gives.
fn check_placeholders(flat: &Flat<'_>, plan: &crate::plan::Plan) -> Result<(), Status> {
    for step in &plan.steps {
        if let crate::plan::Step::Keep { node, .. } = step
            && flat.nodes[*node as usize].def.op == "Placeholder"
        {
            return Err(Status::invalid_argument(format!(
                "none of its inputs gives the placeholder `{}`, which its outputs need",
                flat.name(*node)
            )));
        }
    }
    Ok(())
}

/// Why each stateful signature is: by what it runs, or because it reads what another one writes.
fn stateful_reasons(
    program: &Program<'_>,
    signatures: &BTreeMap<String, Signature>,
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<&str, Effects> = BTreeMap::new();
    for (name, signature) in signatures {
        let names = tensor_names(signature);
        let request =
            Request { feeds: &names.feeds, fetches: &names.fetches, targets: &names.targets };
        let effects = match flatten(program, request) {
            Ok(flat) => effects::of(program, &flat),
            // What it does is unknown, and it will not be frozen either.
            Err(error) => Effects {
                reason: Some(format!("it cannot be looked into: {}", error.message())),
                writes_unknown: true,
                ..Effects::default()
            },
        };
        all.insert(name, effects);
    }
    let mut reasons = BTreeMap::new();
    for (&name, effects) in &all {
        let others = all.iter().filter(|(other, _)| !INIT_NAMES.contains(other) && **other != name);
        let disturbed = || {
            others.into_iter().find_map(|(other, writer)| {
                let state = effects
                    .reads
                    .iter()
                    .find(|state| writer.writes_unknown || writer.writes.contains(*state))?;
                Some(format!("it reads `{state}`, which signature {other} may change"))
            })
        };
        if let Some(reason) = effects.reason.clone().or_else(disturbed) {
            reasons.insert(name.to_owned(), reason);
        }
    }
    reasons
}

/// Operators in all nodes and functions that `wanted` may reach, by names alone.
fn reachable_operators(meta: &MetaGraphDef, wanted: &[&str]) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let Some(graph) = &meta.graph_def else { return counts };
    let functions: &[tf::FunctionDef] =
        graph.library.as_ref().map_or(&[], |library| &library.function);
    let mut seen: HashSet<&str> = HashSet::new();
    let mut called: Vec<&str> = Vec::new();
    let mut pending: Vec<&str> = wanted.iter().map(|name| split_tensor_name(name).0).collect();
    let by_name: BTreeMap<&str, &tf::NodeDef> =
        graph.node.iter().map(|node| (node.name.as_str(), node)).collect();
    let mut count = |node: &tf::NodeDef| *counts.entry(node.op.clone()).or_insert(0) += 1;
    while let Some(name) = pending.pop() {
        let Some(node) = by_name.get(name).filter(|_| seen.insert(name)) else { continue };
        count(node);
        called.push(&node.op);
        called.extend(node.attr.values().flat_map(functions_named));
        let inputs = node.input.iter();
        pending.extend(inputs.map(|name| split_tensor_name(name.trim_start_matches('^')).0));
    }
    let mut entered: HashSet<&str> = HashSet::new();
    while let Some(name) = called.pop() {
        let matches = |function: &&tf::FunctionDef| {
            function.signature.as_ref().is_some_and(|signature| signature.name == name)
        };
        let Some(function) = functions.iter().find(matches).filter(|_| entered.insert(name)) else {
            continue;
        };
        for node in &function.node_def {
            count(node);
            called.push(&node.op);
            called.extend(node.attr.values().flat_map(functions_named));
        }
    }
    counts
}
