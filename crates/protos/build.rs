//! Compiles every file under `proto/` to Rust messages and to one descriptor set.
//!
//! The protobuf compiler is a library, so a build needs no `protoc`. Nothing is
//! generated for services: the server routes request bytes itself.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// Fields that hold model inputs or weights. As `Bytes` they are views of the
/// received buffer rather than copies of it.
const BYTES_FIELDS: [&str; 6] = [
    ".tensorflow.TensorProto.tensor_content",
    ".tensorflow.TensorProto.string_val",
    ".tensorflow.BytesList.value",
    ".tensorflow.serving.SerializedExampleList",
    ".tensorflow.serving.SerializedExampleListWithContext",
    ".onnx.TensorProto.raw_data",
];

/// Alternatives that dwarf the others of their choice. A graph has an attribute
/// value for nearly every word in it, and few of them are tensors or lists.
const BOXED_FIELDS: [&str; 3] = [
    ".tensorflow.AttrValue.value.tensor",
    ".tensorflow.AttrValue.value.list",
    ".tensorflow.StructuredValue.kind.bounded_tensor_spec_value",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");

    let root = Path::new("proto");
    let mut files = Vec::new();
    collect_protos(root, &mut files)?;
    // The order of a directory listing is not fixed, that of the output shall be.
    files.sort();

    let mut descriptors = protox::compile(&files, [root])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut config = prost_build::Config::new();
    for field in BOXED_FIELDS {
        config.boxed(field);
    }
    config
        .out_dir(&out)
        .bytes(BYTES_FIELDS)
        // A hash map would encode the same message to different bytes each time.
        .btree_map(["."])
        .compile_fds(without_deprecation(descriptors.clone()))?;

    // Comments and positions are of use to the generator only.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Ok(())
}

/// Drops the marks of superseded fields and values, for Rust only: serving old
/// clients and files means reading those, so a warning at each use would be noise.
/// The exported descriptors keep the marks.
fn without_deprecation(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    fn clear_message(message: &mut DescriptorProto) {
        for options in message.field.iter_mut().filter_map(|field| field.options.as_mut()) {
            options.deprecated = None;
        }
        message.enum_type.iter_mut().for_each(clear_enum);
        message.nested_type.iter_mut().for_each(clear_message);
    }
    fn clear_enum(kind: &mut EnumDescriptorProto) {
        for options in kind.value.iter_mut().filter_map(|value| value.options.as_mut()) {
            options.deprecated = None;
        }
    }
    for file in &mut descriptors.file {
        file.message_type.iter_mut().for_each(clear_message);
        file.enum_type.iter_mut().for_each(clear_enum);
    }
    descriptors
}

/// Adds all `.proto` files at any depth below `folder`.
fn collect_protos(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_protos(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
