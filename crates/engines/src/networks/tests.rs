//! Networks of signatures that are made of a few nodes.

use std::collections::BTreeMap;

use vesta_model::{DType, PartialShape};
use vesta_onnx::{Translation, ValueFacts};
use vesta_protos::onnx::attribute_proto::AttributeType;
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::type_proto::{Tensor, Value};
use vesta_protos::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto,
};

use super::{Network, unite};
use crate::guards::{node, node_with};
use crate::translated::TranslatedSignature;

fn weights(name: &str, dims: &[i64], value: f32) -> TensorProto {
    let count: i64 = dims.iter().product();
    TensorProto {
        name: name.to_owned(),
        data_type: DataType::Float as i32,
        dims: dims.to_vec(),
        raw_data: value.to_le_bytes().repeat(usize::try_from(count).unwrap()).into(),
        ..TensorProto::default()
    }
}

fn info(name: &str) -> ValueInfoProto {
    let tensor = Tensor { elem_type: DataType::Float as i32, shape: None };
    let r#type = TypeProto { value: Some(Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

/// A signature whose values are floats of these sizes.
struct Made {
    name: &'static str,
    values: BTreeMap<String, ValueFacts>,
    graph: GraphProto,
}

impl Made {
    fn new(name: &'static str) -> Made {
        Made { name, values: BTreeMap::new(), graph: GraphProto::default() }
    }

    fn tell(&mut self, name: &str, sizes: &[i64], is_constant: bool) {
        let sizes = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
        let shape = PartialShape::Ranked(sizes);
        let facts = ValueFacts { dtype: DType::F32, shape, is_constant };
        self.values.insert(name.to_owned(), facts);
    }

    /// An input; a size of -1 is open.
    fn input(mut self, name: &str, sizes: &[i64]) -> Made {
        self.tell(name, sizes, false);
        self.graph.input.push(info(name));
        self
    }

    fn weights(mut self, name: &str, dims: &[i64], value: f32) -> Made {
        self.tell(name, dims, true);
        self.graph.initializer.push(weights(name, dims, value));
        self
    }

    fn node(mut self, node: NodeProto, sizes: &[i64]) -> Made {
        self.tell(&node.output[0], sizes, false);
        self.graph.node.push(node);
        self
    }

    fn gives(mut self, names: &[&str]) -> TranslatedSignature {
        self.graph.output = names.iter().map(|name| info(name)).collect();
        let named = |infos: &[ValueInfoProto]| -> Vec<String> {
            infos.iter().map(|info| info.name.clone()).collect()
        };
        let (inputs, outputs) = (named(&self.graph.input), named(&self.graph.output));
        let shapes = inputs.iter().map(|input| self.values[input].shape.clone()).collect();
        let model = ModelProto { graph: Some(self.graph), ..ModelProto::default() };
        let operators = BTreeMap::new();
        let translation = Translation { model, inputs, outputs, operators, values: self.values };
        TranslatedSignature { name: self.name.to_owned(), shapes, translation }
    }
}

/// A large product with an activation, whose values are called after `prefix`.
fn net(name: &'static str, prefix: &str) -> Made {
    let of = |what: &str| format!("{prefix}{what}");
    Made::new(name)
        .input(&of("x"), &[-1, 5000])
        .weights(&of("w"), &[5000, 100], 0.5)
        .node(node("MatMul", &[&of("x"), &of("w")], &of("p")), &[-1, 100])
        .node(node("Relu", &[&of("p")], &of("features")), &[-1, 100])
}

fn nodes(network: &Network) -> Vec<(&str, &[String], &str)> {
    let graph = network.translation.model.graph.as_ref().unwrap();
    let all = graph.node.iter();
    all.map(|node| (node.op_type.as_str(), &node.input[..], node.output[0].as_str())).collect()
}

/// The names of the signatures of each network.
fn grouped(signatures: Vec<TranslatedSignature>) -> Vec<Vec<String>> {
    let of = |network: Network| network.members.into_iter().map(|member| member.name).collect();
    unite(signatures).into_iter().map(of).collect()
}

#[test]
fn what_is_computed_alike_is_computed_once() {
    let classes = net("classes", "a/")
        .weights("v", &[100, 3], 0.25)
        .node(node("MatMul", &["a/features", "v"], "logits"), &[-1, 3])
        .node(node("Softmax", &["logits"], "y"), &[-1, 3]);
    // Names of its own that the other has for something else.
    let features = net("features", "b/")
        .weights("v", &[100], 2.0)
        .node(node("Mul", &["b/features", "v"], "logits"), &[-1, 100]);
    let networks = unite(vec![classes.gives(&["y"]), features.gives(&["logits", "b/features"])]);
    let [network] = &networks[..] else { panic!("{} networks", networks.len()) };
    let ends = |at: usize| {
        let member = &network.members[at];
        (&member.inputs[..], &member.outputs[..])
    };
    assert_eq!(ends(0), (&["a/x".to_owned()][..], &["y".to_owned()][..]));
    let both = ["logits~2".to_owned(), "a/features".to_owned()];
    assert_eq!(ends(1), (&["a/x".to_owned()][..], &both[..]));
    let last = nodes(network).pop().unwrap();
    assert_eq!(last, ("Mul", &["a/features".to_owned(), "v~2".to_owned()][..], "logits~2"));
    assert_eq!(nodes(network).len(), 5);
    let graph = network.translation.model.graph.as_ref().unwrap();
    let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let weights: Vec<String> = graph.initializer.iter().map(|own| own.name.clone()).collect();
    assert_eq!(weights, named(&["a/w", "v", "v~2"]));
    let outputs: Vec<String> = graph.output.iter().map(|own| own.name.clone()).collect();
    assert_eq!(outputs, named(&["y", "logits~2", "a/features"]));
    assert_eq!(network.translation.outputs, outputs);
    assert!(network.translation.values.contains_key("v~2"));
}

#[test]
fn other_weights_or_inputs_are_another_network() {
    let one = || net("one", "a/").gives(&["a/features"]);
    assert_eq!(grouped(vec![one(), net("same", "b/").gives(&["b/features"])]), [["one", "same"]]);
    let mut other = net("other", "b/");
    other.graph.initializer[0] = weights("b/w", &[5000, 100], 0.25);
    assert_eq!(grouped(vec![one(), other.gives(&["b/features"])]).len(), 2);
    let mut fixed = net("fixed", "b/");
    fixed.tell("b/x", &[1, 5000], false);
    assert_eq!(grouped(vec![one(), fixed.gives(&["b/features"])]).len(), 2);
    let two = net("two", "b/").input("z", &[-1, 5000]);
    assert_eq!(grouped(vec![one(), two.gives(&["b/features"])]).len(), 2);
}

/// Of the network `one` and a signature that computes more, which it must not do for `one` too.
fn are_apart(more: Made, gives: &str) -> bool {
    let one = || net("one", "a/").gives(&["a/features"]);
    let same = || net("more", "b/");
    assert_eq!(grouped(vec![one(), same().gives(&["b/features"])]).len(), 1);
    let more = more.gives(&[gives]);
    let both = grouped(vec![one(), more]).len();
    both == 2
}

#[test]
fn a_run_computes_little_that_is_not_asked_for() {
    let with = |columns: i64| {
        net("more", "b/")
            .weights("v", &[100, columns], 0.25)
            .node(node("MatMul", &["b/features", "v"], "y"), &[-1, columns])
    };
    // 500,000 multiplications in the network, somewhat more than 100 for each column.
    assert!(!are_apart(with(40), "y"));
    assert!(are_apart(with(100), "y"));
    // And so for all of what others ask for together.
    let others = [1.0, 2.0, 3.0, 4.0, 5.0].map(|value| {
        net("other", "b/")
            .weights("v", &[100, 40], value)
            .node(node("MatMul", &["b/features", "v"], "y"), &[-1, 40])
            .gives(&["y"])
    });
    let sizes: Vec<usize> = grouped(others.into()).iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 2]);
}

#[test]
fn a_run_does_not_fail_for_what_is_not_asked_for() {
    let more = || net("more", "b/").weights("two", &[2, 1], 1.0).weights("one", &[1, 1], 1.0);
    let of = |op: &str, inputs: &[&str]| more().node(node(op, inputs, "y"), &[-1, 100]);
    assert!(!are_apart(of("Add", &["b/features", "one"]), "y"));
    // Two rows alone.
    assert!(are_apart(of("Add", &["b/features", "two"]), "y"));
    assert!(are_apart(of("Add", &["b/features", "b/features"]), "y"));
    assert!(are_apart(of("Gather", &["b/features", "one"]), "y"));
    // Weights of their own for each of two rows.
    let rows = more()
        .weights("w", &[2, 100, 1], 1.0)
        .node(node("Unsqueeze", &["b/features", "one"], "u"), &[-1, 1, 100])
        .node(node("MatMul", &["u", "w"], "y"), &[-1, 1, 1]);
    assert!(are_apart(rows, "y"));
    let reshaped = |sizes: &[i64]| {
        let node = node("Reshape", &["b/features", "one"], "y");
        are_apart(more().node(node, sizes), "y")
    };
    assert!(!reshaped(&[-1, 10, 10]));
    assert!(reshaped(&[-1, 50]));
    assert!(reshaped(&[-1, -1]));
    let largest = |axis| {
        let node = node_with(("axis", axis), "ArgMax", &["b/features"], "y");
        are_apart(more().node(node, &[-1]), "y")
    };
    assert!(!largest(1));
    assert!(!largest(-1));
    assert!(largest(0));
    assert!(largest(-2));
}

fn attribute(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    let ints = ints.to_vec();
    node.attribute.push(AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints,
        ..AttributeProto::default()
    });
    node
}

/// A convolution of an image whose channels come last, or come first already.
fn convolved(made: Made, image: &str, prefix: &str, is_turned: bool) -> Made {
    let of = |what: &str| format!("{prefix}{what}");
    let turn = attribute(node("Transpose", &[image], &of("turned")), "perm", &[0, 3, 1, 2]);
    let made = if is_turned { made.node(turn, &[-1, 3, 32, 32]) } else { made };
    let from = if is_turned { of("turned") } else { image.to_owned() };
    made.weights(&of("k"), &[8, 3, 5, 5], 0.5)
        .node(node("Conv", &[&from, &of("k")], &of("c")), &[-1, 8, 28, 28])
        .node(node("Relu", &[&of("c")], &of("y")), &[-1, 8, 28, 28])
}

/// Operators of what comes before a signature, and its ends.
fn before(network: &Network, at: usize) -> Option<(Vec<&str>, &[String], &[String])> {
    let before = network.members[at].before.as_ref()?;
    let nodes = &before.model.graph.as_ref()?.node;
    let operators = nodes.iter().map(|node| node.op_type.as_str()).collect();
    Some((operators, &before.inputs, &before.outputs))
}

#[test]
fn what_prepares_an_input_comes_before_the_network() {
    let plain = || {
        let made = Made::new("plain").input("x", &[-1, 32, 32, 3]);
        convolved(made, "x", "a/", true).gives(&["a/y"])
    };
    // Turned first, and then made smaller.
    let raw = || {
        let made = Made::new("raw").input("picture", &[-1, -1, -1, 3]);
        let turn = attribute(node("Transpose", &["picture"], "first"), "perm", &[0, 3, 1, 2]);
        let made = made
            .node(turn, &[-1, 3, -1, -1])
            .node(node("Resize", &["first"], "image"), &[-1, 3, 32, 32]);
        convolved(made, "image", "b/", false).gives(&["b/y"])
    };
    let networks = unite(vec![plain(), raw()]);
    let [network] = &networks[..] else { panic!("{} networks", networks.len()) };
    let named = |name: &str| [name.to_owned()];
    assert_eq!(network.translation.inputs, named("x"));
    assert!(before(network, 0).is_none());
    let (operators, inputs, outputs) = before(network, 1).unwrap();
    assert_eq!(operators, ["Transpose", "Resize", "Transpose"]);
    assert_eq!((inputs, outputs), (&named("picture")[..], &named("image~turned_back")[..]));
    let graph = network.members[1].before.as_ref().unwrap().model.graph.as_ref().unwrap();
    assert_eq!(graph.node[2].attribute[0].ints, [0, 2, 3, 1]);
    assert!(graph.initializer.is_empty());
    assert_eq!(
        (&network.members[1].inputs, &network.members[1].outputs[..]),
        (&named("x").to_vec(), &named("a/y")[..])
    );

    // The other way round, the network is cut where the second comes to it.
    let networks = unite(vec![raw(), plain()]);
    let [network] = &networks[..] else { panic!("{} networks", networks.len()) };
    assert_eq!(network.translation.inputs, named("image"));
    assert_eq!(nodes(network).len(), 2);
    assert_eq!(before(network, 0).unwrap().0, ["Transpose", "Resize"]);
    assert_eq!(before(network, 1).unwrap().0, ["Transpose"]);
    assert_eq!(network.members[1].inputs, named("image"));
}

#[test]
fn what_is_read_behind_the_cut_keeps_signatures_apart() {
    let plain = || {
        let made = Made::new("plain").input("x", &[-1, 32, 32, 3]);
        convolved(made, "x", "a/", true).gives(&["a/y"])
    };
    let prepared = |sizes: &[i64]| {
        let made = Made::new("raw").input("picture", sizes);
        convolved(made.node(node("Neg", &["picture"], "image"), sizes), "image", "b/", true)
    };
    let networks = unite(vec![plain(), prepared(&[-1, 32, 32, 3]).gives(&["b/y"])]);
    assert_eq!(networks.len(), 1);
    assert_eq!(before(&networks[0], 1).unwrap().0, ["Neg"]);
    // Sizes that the network does not take.
    let mut other = prepared(&[-1, -1, -1, 3]);
    other.tell("b/turned", &[-1, 3, -1, -1], false);
    assert_eq!(grouped(vec![plain(), other.gives(&["b/y"])]).len(), 2);
    // What was sent is an output as well.
    let both = prepared(&[-1, 32, 32, 3]).gives(&["b/y", "image"]);
    assert_eq!(grouped(vec![plain(), both]).len(), 2);
    // It is added to what the network gives.
    let later = prepared(&[-1, 32, 32, 3])
        .input("z", &[-1, 8, 28, 28])
        .node(node("Add", &["b/y", "z"], "sum"), &[-1, 8, 28, 28]);
    assert_eq!(grouped(vec![plain(), later.gives(&["sum"])]).len(), 2);
}
