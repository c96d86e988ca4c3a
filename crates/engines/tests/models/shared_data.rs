//! Where the shared test data lies, and short ways to load and call its models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vesta_engines::{EmbeddedEngine, EmbeddedSession};
use vesta_model::{
    InputLayout, LoadRequest, RunRequest, Session, Shape, Status, StringsBuilder, Tensor, Version,
};

/// The folder of shared test data, or `None` with a word about it on a person's machine.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("VESTA_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is not there", folder.display());
    eprintln!("skipped: {} is not there", folder.display());
    None
}

/// Asks for the version in `artifact`.
pub(crate) fn request(artifact: &Path) -> LoadRequest {
    LoadRequest {
        model: "m".into(),
        version: Version(1),
        artifact: artifact.to_owned(),
        tags: vec!["serve".to_owned()],
        threads: 1,
    }
}

/// Loads the version in `artifact`.
pub(crate) fn load(artifact: &Path) -> Result<Arc<EmbeddedSession>, Status> {
    EmbeddedEngine.load_session(&request(artifact)).map(Arc::new)
}

/// Calls a signature with its inputs in the order of their aliases; gives all its outputs.
pub(crate) fn call(
    session: &dyn Session,
    signature: &str,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, Status> {
    let outputs = session
        .description()
        .signatures
        .get(signature)
        .map_or(0, |signature| signature.outputs.len());
    let layouts = inputs.iter().map(InputLayout::of).collect();
    let mut run = session.prepare(&RunRequest {
        signature: signature.to_owned(),
        inputs: layouts,
        outputs: (0..outputs).collect(),
    })?;
    for (index, tensor) in inputs.iter().enumerate() {
        run.input(index).copy_from_slice(tensor.bytes());
    }
    run.run(None)
}

/// The output of this alias.
pub(crate) fn output<'t>(
    session: &dyn Session,
    signature: &str,
    outputs: &'t [Tensor],
    alias: &str,
) -> &'t Tensor {
    let at = session.description().signatures[signature].output(alias).unwrap();
    &outputs[at]
}

pub(crate) fn floats(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::of(Shape::new(dims.to_vec()).unwrap(), values).unwrap()
}

pub(crate) fn strings(texts: &[&[u8]]) -> Tensor {
    let mut builder = StringsBuilder::new();
    texts.iter().for_each(|text| builder.push(text));
    Tensor::of_strings(Shape::vector(texts.len()), &builder).unwrap()
}
