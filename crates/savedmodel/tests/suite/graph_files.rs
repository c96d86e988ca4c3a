//! Graphs in files of their own: what is found in them, and what is said of other files.

use proptest::prelude::*;
use prost::Message as _;
use tempfile::TempDir;
use vesta_model::{Code, PartialShape, Status};
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{GraphDef, NodeDef, TensorShapeProto, VersionDef};
use vesta_savedmodel::{GraphNames, SavedModel, graph_files};

use crate::support::{F32, constant, float, lines, node, placeholder, with};

fn open(nodes: Vec<NodeDef>, names: &GraphNames) -> Result<SavedModel, Status> {
    open_version(nodes, names, 27)
}

fn open_version(
    nodes: Vec<NodeDef>,
    names: &GraphNames,
    producer: i32,
) -> Result<SavedModel, Status> {
    let versions = Some(VersionDef { producer, ..VersionDef::default() });
    let graph = GraphDef { node: nodes, versions, ..GraphDef::default() };
    open_bytes(&graph.encode_to_vec(), names)
}

fn open_bytes(bytes: &[u8], names: &GraphNames) -> Result<SavedModel, Status> {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("g.pb"), bytes).unwrap();
    let opened = SavedModel::open_named(folder.path(), &["serve".to_owned()], names);
    let place = format!("{}/", folder.path().display());
    opened.map_err(|error| Status::new(error.code(), error.message().replace(&place, "")))
}

fn typed(node: NodeDef) -> NodeDef {
    with(node, "T", Value::Type(F32))
}

/// A graph of two inputs, one of them with a default, and two ends, one of them of two outputs.
fn nodes() -> Vec<NodeDef> {
    vec![
        placeholder("x"),
        constant("two", float(2.0)),
        typed(node("rate", "PlaceholderWithDefault", &["two"])),
        typed(node("y", "Mul", &["x", "rate"])),
        typed(node("top", "TopKV2", &["y", "two"])),
        typed(node("z", "Neg", &["y"])),
        typed(node("alone", "Neg", &["two"])),
        node("init", "NoOp", &["^y"]),
    ]
}

fn names(inputs: &[&str], outputs: &[&str]) -> GraphNames {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    GraphNames { file: None, inputs: owned(inputs), outputs: owned(outputs) }
}

fn interface(model: &SavedModel) -> (Vec<String>, Vec<String>) {
    let signature = &model.description().signatures["serving_default"];
    let told = |specs: &[vesta_model::TensorSpec]| {
        specs.iter().map(|spec| format!("{} {}", spec.alias, spec.dtype.name())).collect()
    };
    (told(&signature.inputs), told(&signature.outputs))
}

fn refusal(nodes: Vec<NodeDef>, names: &GraphNames) -> String {
    open(nodes, names).unwrap_err().to_string()
}

#[test]
fn inputs_are_placeholders_and_outputs_what_nobody_takes() {
    let model = open(nodes(), &GraphNames::default()).unwrap();
    let (inputs, outputs) = interface(&model);
    assert_eq!(inputs, ["x float"]);
    assert_eq!(outputs, ["top float", "top:1 int32", "z float"]);
    let frozen = model.freeze("serving_default").unwrap();
    assert_eq!(frozen.fetches, ["top:0", "top:1", "z:0"]);
    assert!(lines(&frozen.nodes).contains(&"y Mul x:0 two:0".to_owned()));
    assert!(model.frozen_graph().is_some() && model.file_bytes() == 0);
}

#[test]
fn named_tensors_are_those_alone() {
    let model = open(nodes(), &names(&["rate:0", "x"], &["top:1"])).unwrap();
    let (inputs, outputs) = interface(&model);
    assert_eq!(inputs, ["rate float", "x float"]);
    assert_eq!(outputs, ["top:1 int32"]);
    let model = open(nodes(), &names(&["y"], &[])).unwrap();
    assert_eq!(interface(&model).1, ["top float", "top:1 int32", "z float"]);
    assert_eq!(lines(&model.freeze("serving_default").unwrap().nodes).len(), 3);
}

#[test]
fn what_is_named_and_not_there_is_told() {
    assert_eq!(
        refusal(nodes(), &names(&["X"], &[])),
        "INVALID_ARGUMENT: g.pb: vesta.toml: [graph] inputs names `X`, which the graph does not have; it \
         has x"
    );
    assert_eq!(
        refusal(nodes(), &names(&[], &["q:0"])),
        "INVALID_ARGUMENT: g.pb: vesta.toml: [graph] outputs names `q:0`, which the graph does not have; \
         it has top, z, alone"
    );
    let told = refusal(nodes(), &names(&[], &["top:2"]));
    assert!(told.contains("`top:2` is named, but operator TopKV2 gives 2 tensors"), "{told}");
    let custom = vec![placeholder("x"), node("q", "MyOp", &["x"])];
    let told = refusal(custom, &GraphNames::default());
    assert!(told.contains("the dtype of `q` (operator MyOp) is not known"), "{told}");
}

#[test]
fn a_graph_with_variables_is_not_frozen() {
    let mut graph = nodes();
    graph.push(with(node("w", "VariableV2", &[]), "dtype", Value::Type(F32)));
    let told = open(graph.clone(), &GraphNames::default()).unwrap_err();
    assert_eq!(told.code(), Code::FailedPrecondition);
    assert!(told.message().contains("the value of its variable `w` is not in the file"), "{told}");
    // Nothing that is asked for needs it.
    assert!(open(graph, &names(&[], &["z"])).is_ok());
}

#[test]
fn placeholders_of_old_graphs_have_any_shape() {
    let shaped = |sizes: &[i64]| {
        let dim = sizes.iter().map(|&size| Dim { size, ..Dim::default() }).collect();
        let shape = TensorShapeProto { dim, unknown_rank: false };
        let x = with(placeholder("x"), "shape", Value::Shape(shape));
        vec![x, typed(node("y", "Neg", &["x"]))]
    };
    let shape = |nodes: Vec<NodeDef>, producer| {
        let model = open_version(nodes, &GraphNames::default(), producer).unwrap();
        model.description().signatures["serving_default"].inputs[0].shape.clone()
    };
    assert_eq!(shape(shaped(&[]), 23), PartialShape::Unknown);
    assert_eq!(shape(shaped(&[]), 24), PartialShape::Ranked(vec![]));
    assert_eq!(shape(shaped(&[1, -1]), 23), PartialShape::Ranked(vec![Some(1), None]));
    assert_eq!(
        shape(vec![placeholder("x"), typed(node("y", "Neg", &["x"]))], 24),
        PartialShape::Unknown
    );
}

#[test]
fn other_files_are_told_apart() {
    let told = |bytes: &[u8]| open_bytes(bytes, &GraphNames::default()).unwrap_err().to_string();
    assert!(told(b"").contains("the file is empty"));
    assert!(told(b"node {\n  name: \"x\"\n}\n").contains("it is text"));
    assert!(told(b"\x00\x01\x02").contains("no GraphDef can be read from it"));
    let saved = crate::support::Model::new(nodes(), vec![]).meta;
    let saved = vesta_protos::tensorflow::SavedModel {
        saved_model_schema_version: 1,
        meta_graphs: vec![saved],
    };
    assert!(told(&saved.encode_to_vec()).contains("it is a SavedModel under another name"));
    let many = [0x0a, 0x00].repeat(1_000_001);
    assert!(told(&many).contains("a graph of more than 1000000 nodes"));
}

#[test]
fn one_of_several_files_is_named() {
    let folder = TempDir::new().unwrap();
    let bytes = GraphDef { node: nodes(), ..GraphDef::default() }.encode_to_vec();
    for name in ["b.pb", "a.pb", "fingerprint.pb", "notes.txt"] {
        std::fs::write(folder.path().join(name), &bytes).unwrap();
    }
    assert_eq!(graph_files(folder.path()), ["a.pb", "b.pb"]);
    let open = |file: Option<&str>| {
        let names = GraphNames { file: file.map(str::to_owned), ..GraphNames::default() };
        SavedModel::open_named(folder.path(), &[], &names)
    };
    let told = open(None).unwrap_err();
    assert!(told.message().ends_with(
        "holds several graphs (a.pb, b.pb); keep one of them, or name it in vesta.toml: [graph] file = \
         \"a.pb\""
    ), "{told}");
    assert_eq!(open(Some("b.pb")).unwrap().file_bytes(), bytes.len() as u64);
    assert_eq!(open(Some("c.pb")).unwrap_err().code(), Code::NotFound);
    assert!(open(Some("../a.pb")).unwrap_err().message().contains("must be the name of a file"));
}

proptest! {
    /// Nothing that a file holds makes it panic.
    #[test]
    fn damaged_files_are_refused(at in 0usize..400, byte: u8, cut in 0usize..400) {
        let mut bytes = GraphDef { node: nodes(), ..GraphDef::default() }.encode_to_vec();
        let len = bytes.len();
        bytes[at % len] = byte;
        bytes.truncate(len - cut % len);
        if let Ok(model) = open_bytes(&bytes, &GraphNames::default()) {
            let _ = model.freeze("serving_default");
        }
    }
}
