//! What a version directory holds, and what each engine says of it.
//!
//! May not know: terminals. Invariant: looking changes nothing and starts no process; a part that
//! cannot be looked into carries the reason in its place and hides no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vesta_model::{Engine as _, LoadRequest, ModelDescription, Signature, Status};
use vesta_onnx::Translation;
use vesta_savedmodel::{SavedModel, graph_files};

use crate::convert::translated;
use crate::model_settings::open_model;
use crate::translated::resizing;
use crate::{EmbeddedEngine, EngineName, EngineStore, IrModel, LITE_MODEL, LiteModel, OnnxModel};
use crate::{onnxruntime, openvino};

/// Folders within folders that are looked into for sizes.
const DEPTH_MAX: usize = 16;

/// A version directory, looked into.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The directory.
    pub artifact: PathBuf,
    /// What kinds of model lie in it.
    pub formats: Vec<Format>,
    /// The sets of tags of the SavedModel's graphs.
    pub tag_sets: Vec<Vec<String>>,
    /// Bytes of the graph, the variables and the assets.
    pub sizes: Sizes,
    /// Which of the models all that follows is said of.
    pub subject: Subject,
    /// Every signature, by name.
    pub signatures: Vec<SignatureReport>,
    /// What each engine says of the version.
    pub engines: Vec<EngineReport>,
}

/// Which model of a folder is looked into: the SavedModel, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A SavedModel, or a frozen graph.
    SavedModel,
    /// The `model.tflite`.
    Lite,
    /// The ONNX file.
    Onnx,
    /// The OpenVINO IR, whose signature its engine tells when it is loaded.
    Ir,
}

/// A kind of model by the file that makes it one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name, such as `SavedModel`.
    pub name: &'static str,
    /// The file, by name.
    pub file: String,
    /// Whether this build serves it.
    pub is_served: bool,
}

/// Bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// `saved_model.pb`, `saved_model.pbtxt`, the frozen graph, `model.tflite`, the ONNX file, or both files
    /// of the IR.
    pub graph_bytes: u64,
    /// The folder `variables`.
    pub variables_bytes: u64,
    /// The folders `assets` and `assets.extra`.
    pub assets_bytes: u64,
}

/// One signature.
#[derive(Clone, Debug)]
pub struct SignatureReport {
    /// Inputs, outputs, method.
    pub signature: Arc<Signature>,
    /// How often each operator stands in its graph, or why that cannot be told. Of a `model.tflite` or
    /// an ONNX file: in the whole file.
    pub operators: Result<BTreeMap<String, usize>, Status>,
    /// How often each ONNX operator stands in its translation, or why it has none.
    pub onnx: Result<BTreeMap<String, usize>, Status>,
    /// Engines that would not compute the translation as TensorFlow does, and why.
    pub inexact: BTreeMap<EngineName, Status>,
}

/// What one engine says.
#[derive(Clone, Debug)]
pub struct EngineReport {
    /// Which engine.
    pub name: EngineName,
    /// Its releases that could be used, newest first.
    pub versions: Vec<String>,
    /// Whether it runs the model, and how; or why not.
    pub verdict: Result<String, Status>,
}

/// Looks into the version in `artifact`; `only` leaves the other signatures out.
///
/// # Errors
/// `NOT_FOUND` when the directory holds no model that is known, no graph with these tags or no
/// signature of this name; what opening it answers.
pub fn inspect(
    artifact: &Path,
    tags: &[String],
    only: Option<&str>,
    store: &EngineStore,
) -> Result<Inspection, Status> {
    let formats = formats(artifact)?;
    if !formats.iter().any(|format| format.is_served) && !formats.is_empty() {
        let found: Vec<String> =
            formats.iter().map(|format| format!("{} ({})", format.name, format.file)).collect();
        return Err(Status::unimplemented(format!(
            "{} holds {}, which this build does not serve; give a SavedModel, a frozen graph, a \
             {LITE_MODEL}, an ONNX file or an OpenVINO IR",
            artifact.display(),
            found.join(" and ")
        )));
    }
    let has = |file: &str| formats.iter().any(|format| format.file == file);
    if has(LITE_MODEL) && SavedModel::file_in(artifact).is_none() {
        return inspect_lite(artifact, formats, only, store);
    }
    if OnnxModel::is_alone_in(artifact) {
        return inspect_onnx(artifact, formats, only, store);
    }
    if IrModel::is_alone_in(artifact) {
        return inspect_ir(artifact, formats, only, store);
    }
    let model = open_model(artifact, tags)?;
    let tag_sets = match model.frozen_graph() {
        Some(_) => Vec::new(),
        None => SavedModel::tag_sets(artifact)?,
    };
    let graph_bytes = model.file_bytes();
    let description = model.description();
    if let Some(name) = only.filter(|&name| !description.signatures.contains_key(name)) {
        return Err(unknown_signature(name, description));
    }
    let wanted = description.signatures.values().filter(|s| only.is_none_or(|name| s.name == name));
    let signatures: Vec<SignatureReport> =
        wanted.map(|signature| report(&model, signature)).collect();
    drop(model);
    let engines = EngineName::ALL.iter().map(|&name| match name {
        EngineName::OnnxRuntime | EngineName::OpenVino => by_translation(name, &signatures, store),
        name => said(name, artifact, tags, store),
    });
    let engines = engines.collect();
    Ok(Inspection {
        artifact: artifact.to_owned(),
        formats,
        tag_sets,
        sizes: Sizes { graph_bytes, ..sizes(artifact) },
        subject: Subject::SavedModel,
        signatures,
        engines,
    })
}

/// Looks into the `model.tflite` of a folder without a SavedModel.
fn inspect_lite(
    artifact: &Path,
    formats: Vec<Format>,
    only: Option<&str>,
    store: &EngineStore,
) -> Result<Inspection, Status> {
    let LiteModel { description, operators, unbundled, file_bytes } = LiteModel::open(artifact)?;
    if let Some(name) = only.filter(|&name| !description.signatures.contains_key(name)) {
        return Err(unknown_signature(name, &description));
    }
    let wanted = description.signatures.values().filter(|s| only.is_none_or(|name| s.name == name));
    let report = |signature: &Arc<Signature>| SignatureReport {
        signature: Arc::clone(signature),
        operators: Ok(operators.clone()),
        onnx: Err(Status::unimplemented("a TensorFlow Lite model has no ONNX form here")),
        inexact: BTreeMap::new(),
    };
    let on_openvino = || -> Result<(), Status> {
        let installed = store.find(EngineName::OpenVino, None)?;
        LiteModel::check_for_openvino(artifact, &installed.folder, &installed.version)
    };
    let verdict = |mut said: EngineReport| {
        if said.name == EngineName::OpenVino {
            // What the file is goes before what is installed.
            let held = openvino::check_lite(artifact).and_then(|()| on_openvino());
            said.verdict = held.and(said.verdict);
        } else if said.name != EngineName::LiteRt {
            said.verdict = Err(Status::unimplemented("it runs no TensorFlow Lite models"));
        } else if !unbundled.is_empty() {
            said.verdict = Err(Status::unimplemented(format!(
                "operators are no part of TensorFlow Lite: {}",
                unbundled.join(", ")
            )));
        }
        said
    };
    Ok(Inspection {
        artifact: artifact.to_owned(),
        formats,
        tag_sets: Vec::new(),
        sizes: Sizes { graph_bytes: file_bytes, ..sizes(artifact) },
        subject: Subject::Lite,
        signatures: wanted.map(report).collect(),
        engines: EngineName::ALL.iter().map(|&name| verdict(native(name, store))).collect(),
    })
}

/// Looks into the ONNX file of a folder without another model.
fn inspect_onnx(
    artifact: &Path,
    formats: Vec<Format>,
    only: Option<&str>,
    store: &EngineStore,
) -> Result<Inspection, Status> {
    let OnnxModel { description, operators, file_bytes } = OnnxModel::open(artifact)?;
    if let Some(name) = only.filter(|&name| !description.signatures.contains_key(name)) {
        return Err(unknown_signature(name, &description));
    }
    let report = |signature: &Arc<Signature>| SignatureReport {
        signature: Arc::clone(signature),
        operators: Err(Status::unimplemented("an ONNX file has no operators of TensorFlow")),
        onnx: Ok(operators.clone()),
        inexact: BTreeMap::new(),
    };
    let verdict = |name: EngineName| match name {
        EngineName::Embedded => embedded(artifact, &[]),
        EngineName::OnnxRuntime | EngineName::OpenVino => native(name, store),
        EngineName::TensorFlow | EngineName::LiteRt => EngineReport {
            verdict: Err(Status::unimplemented("it runs no ONNX files")),
            ..native(name, store)
        },
    };
    Ok(Inspection {
        artifact: artifact.to_owned(),
        formats,
        tag_sets: Vec::new(),
        sizes: Sizes { graph_bytes: file_bytes, ..sizes(artifact) },
        subject: Subject::Onnx,
        signatures: description.signatures.values().map(report).collect(),
        engines: EngineName::ALL.iter().map(|&name| verdict(name)).collect(),
    })
}

/// Looks into the IR of a folder without another model.
fn inspect_ir(
    artifact: &Path,
    formats: Vec<Format>,
    only: Option<&str>,
    store: &EngineStore,
) -> Result<Inspection, Status> {
    let ir = IrModel::open(artifact)?;
    if let Some(name) = only.filter(|&name| name != Signature::DEFAULT_NAME) {
        return Err(Status::not_found(format!(
            "the model has no signature {name}; choose {}",
            Signature::DEFAULT_NAME
        )));
    }
    let verdict = |mut said: EngineReport| {
        if said.name != EngineName::OpenVino {
            said.verdict = Err(Status::unimplemented("it runs no OpenVINO IR"));
        }
        said
    };
    Ok(Inspection {
        artifact: artifact.to_owned(),
        formats,
        tag_sets: Vec::new(),
        sizes: Sizes { graph_bytes: ir.file_bytes, ..sizes(artifact) },
        subject: Subject::Ir,
        signatures: Vec::new(),
        engines: EngineName::ALL.iter().map(|&name| verdict(native(name, store))).collect(),
    })
}

/// The error of a signature that is not there, with those that are.
///
/// Code `NOT_FOUND`.
pub fn unknown_signature(name: &str, description: &ModelDescription) -> Status {
    let known: Vec<&str> = description.signatures.keys().map(String::as_str).collect();
    Status::not_found(format!(
        "the model has no signature {name}; choose one of {}",
        known.join(", ")
    ))
}

fn report(model: &SavedModel, signature: &Arc<Signature>) -> SignatureReport {
    let graph = model.freeze(&signature.name);
    let for_engine = |engine| -> Result<Translation, Status> {
        translated(graph.as_ref().map_err(Clone::clone)?, resizing(engine))
    };
    let translation = for_engine(EngineName::OnnxRuntime);
    let judge = |translation: &Translation| {
        let held = [
            (EngineName::OnnxRuntime, onnxruntime::check_exactness(translation)),
            (
                EngineName::OpenVino,
                for_engine(EngineName::OpenVino).and_then(|mut own| {
                    openvino::narrow_constants(&mut own);
                    openvino::check_exactness(&own)
                }),
            ),
        ];
        held.into_iter().filter_map(|(name, held)| Some((name, held.err()?))).collect()
    };
    let counted = |translation: Translation| {
        let counts = vesta_onnx::count_operators(&translation.model);
        counts.into_iter().map(|(op, count)| (op.to_owned(), count)).collect()
    };
    SignatureReport {
        signature: Arc::clone(signature),
        operators: model.operators(&signature.name),
        inexact: translation.as_ref().map(judge).unwrap_or_default(),
        onnx: translation.map(counted),
    }
}

/// What an engine makes of the model.
fn said(name: EngineName, artifact: &Path, tags: &[String], store: &EngineStore) -> EngineReport {
    match name {
        EngineName::Embedded => embedded(artifact, tags),
        EngineName::LiteRt => EngineReport {
            verdict: Err(Status::unimplemented(format!("it runs a {LITE_MODEL} alone"))),
            ..native(name, store)
        },
        _ => native(name, store),
    }
}

/// What an engine that reads ONNX makes of a SavedModel: it needs each signature's translation.
fn by_translation(
    name: EngineName,
    signatures: &[SignatureReport],
    store: &EngineStore,
) -> EngineReport {
    let said = native(name, store);
    let callable = |report: &&SignatureReport| crate::embedded::is_callable(&report.signature);
    let refusal_of = |report: &SignatureReport| {
        report.onnx.clone().err().or_else(|| report.inexact.get(&name).cloned())
    };
    let refusal = signatures.iter().filter(callable).find_map(refusal_of);
    match refusal {
        Some(status) => EngineReport { verdict: Err(status), ..said },
        None => said,
    }
}

/// What is known of an engine without a model.
fn native(name: EngineName, store: &EngineStore) -> EngineReport {
    if name == EngineName::Embedded {
        let versions = vec![EmbeddedEngine.identity().version];
        return EngineReport { name, versions, verdict: Ok("part of the program".to_owned()) };
    }
    let releases = store.installed().into_iter().filter(|engine| engine.name == name);
    let versions: Vec<String> = releases.map(|engine| engine.version).collect();
    let verdict = store.find(name, None).map(|engine| {
        format!("installed in {}; it runs in a worker process", engine.folder.display())
    });
    EngineReport { name, versions, verdict }
}

fn embedded(artifact: &Path, tags: &[String]) -> EngineReport {
    let named = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let request = LoadRequest {
        model: named(artifact.parent()).as_str().into(),
        version: vesta_model::Version(named(Some(artifact)).parse().unwrap_or(0)),
        artifact: artifact.to_owned(),
        tags: tags.to_vec(),
        threads: 1,
    };
    let verdict =
        EmbeddedEngine.load_session(&request).map(|session| match session.inline_verdict() {
            Ok(()) => "runs, in the server's own process".to_owned(),
            Err(reason) => format!("runs, in a worker process ({reason})"),
        });
    let versions = vec![EmbeddedEngine.identity().version];
    EngineReport { name: EngineName::Embedded, versions, verdict }
}

/// The models in a folder, by the files that are there.
fn formats(artifact: &Path) -> Result<Vec<Format>, Status> {
    let unreadable = |error: std::io::Error| {
        let text = format!("{} cannot be read: {error}", artifact.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Status::not_found(text),
            std::io::ErrorKind::PermissionDenied => Status::permission_denied(text),
            _ => Status::failed_precondition(text),
        }
    };
    let graphs = graph_files(artifact);
    let are_graphs_served = SavedModel::file_in(artifact).is_none();
    let mut formats = Vec::new();
    for entry in std::fs::read_dir(artifact).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        let ending = Path::new(&file).extension().and_then(|ending| ending.to_str());
        let (name, is_served) = match (file.as_str(), ending) {
            ("saved_model.pb", _) => ("SavedModel", true),
            ("saved_model.pbtxt", _) => ("SavedModel as text", true),
            (_, Some("onnx")) => ("ONNX", true),
            (_, Some("tflite")) => ("TensorFlow Lite", file == LITE_MODEL),
            (_, Some("xml")) if artifact.join(&file).with_extension("bin").is_file() => {
                ("OpenVINO IR", true)
            }
            (_, Some("pb")) if graphs.contains(&file) => ("frozen graph", are_graphs_served),
            _ => continue,
        };
        formats.push(Format { name, file, is_served });
    }
    formats.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(formats)
}

fn sizes(artifact: &Path) -> Sizes {
    let folder = |name: &str| folder_bytes(&artifact.join(name), DEPTH_MAX);
    Sizes {
        graph_bytes: 0,
        variables_bytes: folder("variables"),
        assets_bytes: folder("assets") + folder("assets.extra"),
    }
}

fn folder_bytes(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.path().metadata() {
        Ok(metadata) if metadata.is_dir() && depth > 0 => folder_bytes(&entry.path(), depth - 1),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(of).sum()
}
