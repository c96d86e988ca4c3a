//! OpenVINO's own form of a model: which files of a folder are it, and the signature that is made of it.
//!
//! May not know: how a model runs. Invariant: the files are read whole, so that what is changed in its
//! place does not change what serves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vesta_ffi::{OpenVino, OpenVinoModel, OpenVinoPort};
use vesta_model::{
    Code, Encoding, LoadRequest, ModelDescription, PartialShape, Signature, Status, TensorSpec,
};
use vesta_savedmodel::SavedModel;

use super::runner::{BoundModel, Ends, Runs};
use super::values::{from_openvino, unfit, words};
use crate::OnnxModel;
use crate::bound::BoundSession;

/// The name that is taken when a folder has several IRs.
const PREFERRED: &str = "model.xml";

/// The largest description of a graph, without its weights.
const XML_BYTES_MAX: u64 = 512 << 20;

/// What a signature is made for.
const PREDICT: &str = "tensorflow/serving/predict";

/// An IR: a graph as XML, and its weights beside it.
#[derive(Debug)]
pub struct IrModel {
    /// The name of the XML file.
    pub file: String,
    /// Bytes of both files.
    pub file_bytes: u64,
    xml: Vec<u8>,
    weights: PathBuf,
}

impl IrModel {
    /// Looks into the IR of a version's folder, without the library.
    ///
    /// # Errors
    /// `NOT_FOUND`, `INVALID_ARGUMENT`, `DATA_LOSS`, as when it is loaded.
    pub fn open(artifact: &Path) -> Result<IrModel, Status> {
        let path = chosen(artifact)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unreadable = |error: std::io::Error| {
            Status::failed_precondition(format!("{} cannot be read: {error}", path.display()))
        };
        let weights = path.with_extension("bin");
        let xml_bytes = path.metadata().map_err(unreadable)?.len();
        let weights_bytes = weights.metadata().map_err(unreadable)?.len();
        if xml_bytes > XML_BYTES_MAX {
            return Err(Status::unimplemented(format!(
                "{file} has more than {XML_BYTES_MAX} bytes without its weights"
            )));
        }
        let xml = std::fs::read(&path).map_err(unreadable)?;
        let is_net = std::str::from_utf8(&xml).is_ok_and(|text| {
            let text = text.trim_start_matches('\u{feff}').trim();
            text.starts_with('<') && text.contains("<net") && text.ends_with("</net>")
        });
        if !is_net {
            return Err(Status::new(
                Code::DataLoss,
                format!("{file} is damaged: it is no whole OpenVINO IR; write it again"),
            ));
        }
        Ok(IrModel { file, file_bytes: xml_bytes + weights_bytes, xml, weights })
    }

    /// Whether a version's folder has an IR and neither a SavedModel nor an ONNX file.
    pub fn is_alone_in(artifact: &Path) -> bool {
        SavedModel::file_in(artifact).is_none()
            && !OnnxModel::is_alone_in(artifact)
            && candidates(artifact).is_ok_and(|found| !found.is_empty())
    }
}

/// The XML files of a folder that have weights beside them.
fn candidates(artifact: &Path) -> Result<Vec<PathBuf>, Status> {
    let entries = std::fs::read_dir(artifact).map_err(|error| {
        Status::failed_precondition(format!("{} cannot be read: {error}", artifact.display()))
    })?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "xml"))
        .filter(|path| path.is_file() && path.with_extension("bin").is_file())
        .collect();
    found.sort();
    Ok(found)
}

/// The one that is the model.
fn chosen(artifact: &Path) -> Result<PathBuf, Status> {
    let mut found = candidates(artifact)?;
    if let Some(preferred) = found.iter().position(|path| path.ends_with(PREFERRED)) {
        return Ok(found.swap_remove(preferred));
    }
    match found.len() {
        0 => Err(Status::not_found(format!("{} has no OpenVINO IR", artifact.display()))),
        1 => Ok(found.remove(0)),
        _ => Err(Status::invalid_argument(format!(
            "{} has several OpenVINO IRs; keep one, or call one {PREFERRED}",
            artifact.display()
        ))),
    }
}

/// Loads one version.
pub(super) fn load(
    library: &'static OpenVino,
    request: &LoadRequest,
) -> Result<BoundSession<Runs>, Status> {
    let IrModel { file, xml, weights, .. } = IrModel::open(&request.artifact)?;
    let refused =
        |code, why: &str| Status::new(code, format!("OpenVINO does not take {file}: {why}"));
    let weights = std::fs::read(&weights).map_err(|error| {
        Status::failed_precondition(format!("{} cannot be read: {error}", weights.display()))
    })?;
    let model = OpenVinoModel::read(library, &xml, Some(&weights))
        .map_err(|error| refused(Code::InvalidArgument, &words(&error)))?;
    drop((xml, weights));
    let ends = |ports: Result<Vec<OpenVinoPort>, _>, side: &str| {
        let ports = ports.map_err(|error| refused(Code::InvalidArgument, &words(&error)))?;
        specs(&file, side, ports)
    };
    let inputs = ends(model.inputs(), "input")?;
    let outputs = ends(model.outputs(), "output")?;
    // A signature sorts its ends.
    let (input_specs, output_specs) = (inputs, outputs);
    let (inputs, outputs) = (aliases(&input_specs), aliases(&output_specs));
    let signature =
        Arc::new(Signature::new(Signature::DEFAULT_NAME, PREDICT, input_specs, output_specs));
    let ends = Ends {
        inputs: Ends::find(&aliases(&signature.inputs), &inputs)?,
        outputs: Ends::find(&aliases(&signature.outputs), &outputs)?,
    };
    let shapes = signature.inputs.iter().map(|spec| spec.shape.clone()).collect();
    let bound = BoundModel::compile(&model, Arc::clone(&signature), shapes, ends, request.threads)
        .map_err(|status| refused(status.code(), status.message()))?;
    let name = signature.name.clone();
    let description = ModelDescription { signatures: [(name.clone(), signature)].into() };
    Ok(BoundSession::new(description, Runs::default(), [(name, bound)].into()))
}

fn aliases(specs: &[TensorSpec]) -> Vec<String> {
    specs.iter().map(|spec| spec.alias.clone()).collect()
}

/// What ends are called and take. Those without a name of their own are called by their number.
fn specs(file: &str, side: &str, ports: Vec<OpenVinoPort>) -> Result<Vec<TensorSpec>, Status> {
    let mut names = BTreeSet::new();
    let numbered = ports.into_iter().enumerate();
    numbered
        .map(|(index, port)| {
            let name = port.name.filter(|name| !name.is_empty() && !names.contains(name));
            let name = name.unwrap_or_else(|| format!("{side}_{index}"));
            if !names.insert(name.clone()) {
                return Err(Status::invalid_argument(format!(
                    "{file} has two {side}s called `{name}`; rename one"
                )));
            }
            let dtype = from_openvino(port.element).ok_or_else(|| {
                unfit(&format!("{side} `{name}` of {file}"), &format!("type {}", port.element))
            })?;
            let shape = port.dims.map_or(PartialShape::Unknown, PartialShape::Ranked);
            let spec = TensorSpec::dense(&name, dtype).with_shape(shape);
            Ok(TensorSpec { encoding: Encoding::Dense(name), ..spec })
        })
        .collect()
}
