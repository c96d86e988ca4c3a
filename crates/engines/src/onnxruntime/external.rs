//! Tensors of an ONNX file that lie in other files beside it.
//!
//! Invariant: nothing outside of the version's folder is read, and no more bytes than the files there
//! have, however often they are referred to.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use vesta_model::{Code, Status};
use vesta_protos::onnx::tensor_proto::DataLocation;
use vesta_protos::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

/// Does something with each tensor that is written down in a model: of its graph, of graphs in its
/// nodes, of its functions.
///
/// # Errors
/// The first of `act`'s.
pub(super) fn each_tensor(
    model: &mut ModelProto,
    act: &mut dyn FnMut(&mut TensorProto) -> Result<(), Status>,
) -> Result<(), Status> {
    if let Some(graph) = &mut model.graph {
        in_graph(graph, act)?;
    }
    model.functions.iter_mut().try_for_each(|function| {
        function.attribute_proto.iter_mut().try_for_each(|own| in_attribute(own, act))?;
        function.node.iter_mut().try_for_each(|node| in_node(node, act))
    })
}

type Act<'a> = dyn FnMut(&mut TensorProto) -> Result<(), Status> + 'a;

fn in_graph(graph: &mut GraphProto, act: &mut Act<'_>) -> Result<(), Status> {
    graph.initializer.iter_mut().try_for_each(&mut *act)?;
    let sparse = graph.sparse_initializer.iter_mut();
    sparse.flat_map(|own| own.values.iter_mut().chain(&mut own.indices)).try_for_each(&mut *act)?;
    graph.node.iter_mut().try_for_each(|node| in_node(node, act))
}

fn in_node(node: &mut NodeProto, act: &mut Act<'_>) -> Result<(), Status> {
    node.attribute.iter_mut().try_for_each(|attribute| in_attribute(attribute, act))
}

fn in_attribute(attribute: &mut AttributeProto, act: &mut Act<'_>) -> Result<(), Status> {
    attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *act)?;
    let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
    sparse.flat_map(|own| own.values.iter_mut().chain(&mut own.indices)).try_for_each(&mut *act)?;
    attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| in_graph(graph, act))
}

/// Whether the values of a tensor lie in another file.
pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == DataLocation::External as i32
}

/// The files beside a model that were looked into.
pub(super) struct Beside {
    /// The version's folder, without links.
    folder: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Bytes that may still be read.
    budget: u64,
}

impl Beside {
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn new(folder: &Path) -> Result<Beside, Status> {
        let folder = folder.canonicalize().map_err(|error| unreadable(folder, &error))?;
        Ok(Beside { folder, files: BTreeMap::new(), budget: 0 })
    }

    /// The bytes of a tensor that lie in another file.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a place outside of the folder, `DATA_LOSS` for one that the file does
    /// not have.
    pub(super) fn read(&mut self, tensor: &TensorProto) -> Result<Bytes, Status> {
        let entry = |key: &str| {
            let found = tensor.external_data.iter().find(|entry| entry.key == key);
            found.map(|entry| entry.value.as_str())
        };
        let number = |key: &str| {
            let parsed = entry(key).map(str::parse::<u64>).transpose();
            parsed.map_err(|_| broken(tensor, &format!("its {key} is no number")))
        };
        let location = entry("location").ok_or_else(|| broken(tensor, "it names no file"))?;
        let offset = number("offset")?.unwrap_or(0);
        let path = self.path(tensor, location)?;
        let size = self.open(&path)?;
        let length = match number("length")? {
            Some(length) => length,
            None => size.saturating_sub(offset),
        };
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(broken(tensor, &format!("{location} has {size} bytes alone")));
        }
        self.budget = self
            .budget
            .checked_sub(length)
            .ok_or_else(|| broken(tensor, "the model refers to the same bytes again and again"))?;
        let length = usize::try_from(length).map_err(|_| broken(tensor, "it is too large"))?;
        let mut bytes = vec![0; length];
        let file = &self.files[&path];
        file.read_exact_at(&mut bytes, offset).map_err(|error| unreadable(&path, &error))?;
        Ok(bytes.into())
    }

    /// The file of this name in the folder.
    fn path(&self, tensor: &TensorProto, location: &str) -> Result<PathBuf, Status> {
        let outside = || {
            Status::invalid_argument(format!(
                "tensor `{}` of the model is to be read from {location}, which is outside of the \
                 version's folder; put the file beside the model",
                tensor.name
            ))
        };
        let is_inside =
            |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !Path::new(location).components().all(is_inside) {
            return Err(outside());
        }
        let path = self.folder.join(location);
        let path = path.canonicalize().map_err(|error| unreadable(&path, &error))?;
        if path.starts_with(&self.folder) { Ok(path) } else { Err(outside()) }
    }

    /// Opens a file once, and gives its size.
    fn open(&mut self, path: &Path) -> Result<u64, Status> {
        if let Some(file) = self.files.get(path) {
            return Ok(file.metadata().map_err(|error| unreadable(path, &error))?.len());
        }
        let opened = path.metadata().and_then(|metadata| {
            // Opening a pipe would wait for somebody to write to it.
            let file = File::open(path).map(|file| (metadata.is_file(), file));
            if metadata.is_file() { file } else { Err(std::io::ErrorKind::InvalidInput.into()) }
        });
        let (_, file) = opened.map_err(|error| unreadable(path, &error))?;
        let size = file.metadata().map_err(|error| unreadable(path, &error))?.len();
        self.files.insert(path.to_owned(), file);
        self.budget = self.budget.saturating_add(size);
        Ok(size)
    }
}

fn broken(tensor: &TensorProto, why: &str) -> Status {
    Status::new(
        Code::DataLoss,
        format!(
            "tensor `{}` of the model cannot be read: {why}; write the model again",
            tensor.name
        ),
    )
}

/// What a file answers.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Status {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => Code::NotFound,
        std::io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::FailedPrecondition,
    };
    Status::new(code, format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::onnx::StringStringEntryProto;

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        TensorProto {
            name: "w".to_owned(),
            external_data: entries.iter().map(entry).collect(),
            ..TensorProto::default()
        }
    }

    fn read(folder: &Path, entries: &[(&str, &str)]) -> Result<Bytes, Status> {
        Beside::new(folder)?.read(&tensor(entries))
    }

    #[test]
    fn bytes_are_those_of_the_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w"), b"0123456789").unwrap();
        let place = [("location", "w"), ("offset", "2"), ("length", "3")];
        assert_eq!(read(folder.path(), &place).unwrap(), "234");
        assert_eq!(read(folder.path(), &[("location", "./w"), ("offset", "8")]).unwrap(), "89");
        for bad in [("offset", "11"), ("length", "11"), ("offset", "-1"), ("length", "x")] {
            let status = read(folder.path(), &[("location", "w"), bad]).unwrap_err();
            assert_eq!(status.code(), Code::DataLoss, "{bad:?}: {status}");
        }
    }

    #[test]
    fn nothing_outside_of_the_folder_is_read() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("1");
        std::fs::create_dir(&folder).unwrap();
        let secret = outer.path().join("secret");
        std::fs::write(&secret, b"secret").unwrap();
        std::os::unix::fs::symlink(&secret, folder.join("link")).unwrap();
        for place in ["../secret", secret.to_str().unwrap(), "link", "", "a/../../secret"] {
            let status = read(&folder, &[("location", place)]).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{place}: {status}");
        }
        let status = read(&folder, &[("location", "none")]).unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }

    #[test]
    fn a_file_is_not_read_more_often_than_it_has_bytes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w"), [0; 100]).unwrap();
        let mut beside = Beside::new(folder.path()).unwrap();
        let half = tensor(&[("location", "w"), ("length", "50")]);
        assert!(beside.read(&half).is_ok());
        assert!(beside.read(&half).is_ok());
        let status = beside.read(&half).unwrap_err();
        assert!(status.message().contains("again and again"), "{status}");
    }
}
