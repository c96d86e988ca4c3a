//! Files of TensorFlow's converter, and files that are damaged on purpose.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use vesta_model::{Code, DType, Encoding, Memory as _, PartialShape};

use super::examples::Parsing;
use super::flatbuffer::File;
use super::schema::Model;
use super::sizes::{self, Follows};
use super::{alone, head, signatures};
use crate::openvino::check_graph;

fn bytes(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models/lite");
    std::fs::read(folder.join(name).with_extension("tflite")).unwrap()
}

const ALL: &[&str] = &[
    "counter",
    "dtypes",
    "examples",
    "examples_alone",
    "half_plus_two",
    "int8",
    "late_sizes",
    "of_tensorflow",
    "positive",
    "random",
    "repeated",
    "scalar",
    "slow_half_plus_two",
    "string_identity",
    "sum_and_difference",
    "the_same",
    "twice_as_many",
    "two_signatures",
    "uint8",
];

/// Reads a file as far as it goes, and what was put before it, too.
fn read_all(bytes: &[u8]) -> Result<(), vesta_model::Status> {
    let file = File::new(bytes);
    let model = Model::read(&file)?;
    let served = signatures::of(&model)?;
    let wanted: Vec<_> = served
        .iter()
        .map(|one| (one.subgraph, Parsing::find(&model.subgraphs[one.subgraph], &model)))
        .collect();
    for one in &served {
        let graph = &model.subgraphs[one.subgraph];
        // What another reader is given is read alike.
        let alone = alone::write(bytes, &model, graph)?;
        let again = File::new(alone.bytes.bytes());
        let anew = Model::read(&again)?;
        assert_eq!(anew.subgraphs.len(), 1);
        assert_eq!(anew.subgraphs[0].inputs.len(), alone.inputs.len());
        assert_eq!(anew.subgraphs[0].outputs.len(), alone.outputs.len());
        let names: BTreeSet<_> = anew.subgraphs[0].tensors.iter().map(|own| own.name).collect();
        assert_eq!(names.len(), anew.subgraphs[0].tensors.len());
        let _ = check_graph(&model, graph, bytes.len());
        sizes::follow(&model, one.subgraph);
    }
    let headed = head::put_before(bytes, &model, &wanted)?;
    let again = File::new(headed.bytes.bytes());
    let anew = Model::read(&again)?;
    assert_eq!(anew.signatures.len(), wanted.len());
    for (number, own) in anew.signatures.iter().enumerate() {
        assert_eq!((own.key, own.subgraph), (head::key(number).as_str(), wanted[number].0));
        let graph = &anew.subgraphs[own.subgraph];
        assert_eq!(own.outputs.len(), graph.outputs.len());
        assert_eq!(own.inputs.len(), graph.inputs.len());
    }
    Ok(())
}

#[test]
fn whole_files_are_read_and_what_is_put_before_them_is_whole() {
    for name in ALL {
        read_all(&bytes(name)).unwrap_or_else(|status| panic!("{name}: {status}"));
    }
}

#[test]
fn signatures_are_those_of_the_file() {
    let bytes = bytes("two_signatures");
    let file = File::new(&bytes);
    let served = signatures::of(&Model::read(&file).unwrap()).unwrap();
    // The original's only name is there besides, for the graph that comes first.
    let names: Vec<&str> = served.iter().map(|one| one.signature.name.as_str()).collect();
    assert_eq!(names, ["add", "halve", "serving_default"]);
    let add = &served[0].signature;
    assert_eq!(add.method, "tensorflow/serving/predict");
    assert_eq!(add.inputs.iter().map(|spec| spec.alias.as_str()).collect::<Vec<_>>(), ["x", "z"]);
    assert_eq!(add.inputs[0].encoding, Encoding::Dense("add_x:0".to_owned()));
    assert_eq!(add.inputs[0].dtype, DType::F32);
    assert_eq!(add.inputs[0].shape, PartialShape::Ranked(vec![Some(2)]));
    let made = &served[2].signature;
    assert_eq!(made.inputs[0].alias, "add_x");
}

#[test]
fn outputs_with_one_legacy_name_keep_theirs() {
    let bytes = bytes("dtypes");
    let file = File::new(&bytes);
    let made = signatures::generated(&Model::read(&file).unwrap()).unwrap().signature;
    let aliases = |specs: &[vesta_model::TensorSpec]| {
        specs.iter().map(|spec| spec.alias.clone()).collect::<Vec<_>>()
    };
    assert_eq!(aliases(&made.inputs), ["serving_default_x"]);
    let whole: Vec<String> = (0..6).map(|n| format!("PartitionedCall:{n}")).collect();
    assert_eq!(aliases(&made.outputs), whole);
}

#[test]
fn sizes_that_vary_are_open() {
    let bytes = bytes("twice_as_many");
    let file = File::new(&bytes);
    let served = signatures::of(&Model::read(&file).unwrap()).unwrap();
    assert_eq!(served[0].signature.inputs[0].shape, PartialShape::Ranked(vec![None, Some(3)]));
}

#[test]
fn state_is_seen() {
    for (name, is_stateful) in [("counter", true), ("random", true), ("positive", false)] {
        let bytes = bytes(name);
        let file = File::new(&bytes);
        assert_eq!(Model::read(&file).unwrap().is_stateful(), is_stateful, "{name}");
    }
}

#[test]
fn sizes_follow_from_inputs_or_from_what_is_fed() {
    for (name, follows) in [
        ("half_plus_two", Follows::Inputs),
        ("two_signatures", Follows::Inputs),
        ("late_sizes", Follows::Computed),
        ("twice_as_many", Follows::Computed),
        ("positive", Follows::Fed),
        ("slow_half_plus_two", Follows::Fed),
    ] {
        let bytes = bytes(name);
        let file = File::new(&bytes);
        assert_eq!(sizes::follow(&Model::read(&file).unwrap(), 0), follows, "{name}");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    for bytes in [&b""[..], b"TFL3", b"\x08\0\0\0TFL3", b"\xff\xff\xff\xffTFL3\0\0\0\0", &[0; 64]] {
        assert_eq!(read_all(bytes).unwrap_err().code(), Code::DataLoss);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_never_panics(
        name in prop::sample::select(ALL),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes(name);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read_all(&bytes);
    }

    #[test]
    fn a_cut_file_never_panics(name in prop::sample::select(ALL), at: prop::sample::Index) {
        let bytes = bytes(name);
        let _ = read_all(&bytes[..at.index(bytes.len())]);
    }

    #[test]
    fn huge_offsets_never_panic(name in prop::sample::select(ALL), at: prop::sample::Index, word: u32) {
        let mut bytes = bytes(name);
        let at = at.index(bytes.len() - 4) & !3;
        bytes[at..at + 4].copy_from_slice(&(word | 0x4000_0000).to_le_bytes());
        let _ = read_all(&bytes);
    }
}
