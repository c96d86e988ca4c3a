//! Stages against rten alone, which computes with two threads.

use vesta_model::{DType, Shape, Tensor};
use vesta_protos::tensorflow::attr_value::{ListValue, Value as Attribute};
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{AttrValue, NodeDef, TensorProto, TensorShapeProto};

use super::super::merge::{Boundary, NumericGraph};
use super::super::numeric::NumericModel;
use super::*;

fn node(name: &str, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> NodeDef {
    let attribute = |(key, value): &(&str, Attribute)| {
        ((*key).to_owned(), AttrValue { value: Some(value.clone()) })
    };
    NodeDef {
        name: name.to_owned(),
        op: op.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        attr: attributes.iter().map(attribute).collect(),
        ..NodeDef::default()
    }
}

fn weights(name: &str, dims: &[usize]) -> NodeDef {
    let count: usize = dims.iter().product();
    let value = |at: usize| ((at * 37 + name.len() * 11) % 23) as f32 / 23.0 - 0.45;
    let sizes = dims.iter().map(|&size| Dim { size: size as i64, name: String::new() });
    let tensor = TensorProto {
        dtype: DType::F32.number(),
        tensor_shape: Some(TensorShapeProto { dim: sizes.collect(), unknown_rank: false }),
        tensor_content: (0..count).flat_map(|at| value(at).to_le_bytes()).collect(),
        ..TensorProto::default()
    };
    node(name, "Const", &[], &[("value", Attribute::Tensor(Box::new(tensor)))])
}

fn conv(name: &str, inputs: &[&str], stride: i64, padding: &str) -> NodeDef {
    let list = ListValue { i: vec![1, stride, stride, 1], ..ListValue::default() };
    let padding = Attribute::S(padding.as_bytes().to_vec());
    let strides = Attribute::List(Box::new(list));
    node(name, "Conv2D", inputs, &[("strides", strides), ("padding", padding)])
}

/// A model of `nodes` over images `x`, which gives `fetches`.
fn model(nodes: Vec<NodeDef>, fetches: &[&str]) -> NumericModel {
    let shape = PartialShape::Ranked(vec![None, Some(30), Some(27), Some(2)]);
    let end =
        |tensor: &str, shape| Boundary { tensor: tensor.to_owned(), dtype: DType::F32, shape };
    let feeds = vec![end("x:0", shape)];
    let fetches = fetches.iter().map(|name| end(name, PartialShape::Unknown)).collect();
    NumericModel::load(NumericGraph { nodes, feeds, fetches }).unwrap()
}

/// What one thread, which stops at the stages, and two, which do not, give for some images.
fn assert_same(model: &NumericModel, rows: usize, extra: f32) {
    let shape = Shape::new(vec![rows, 30, 27, 2]).unwrap();
    let mut images: Vec<f32> =
        (0..shape.elements()).map(|at| (at % 29) as f32 / 29.0 - 0.5).collect();
    if let Some(last) = images.last_mut() {
        *last = extra;
    }
    let images = Tensor::of(shape, &images).unwrap();
    let run = |threads| model.run(&[(0, &images)], &[0], threads).unwrap().remove(0);
    let (staged, plain) = (run(1), run(2));
    assert_eq!(staged.shape(), plain.shape());
    let (staged, plain) = (staged.to_vec::<f32>().unwrap(), plain.to_vec::<f32>().unwrap());
    for (a, b) in staged.iter().zip(&plain) {
        let is_near = (a - b).abs() <= 1e-5 * b.abs().max(1.0);
        assert!(is_near || (a.is_nan() && b.is_nan()) || a == b, "{a} {b}");
    }
}

fn pool(name: &str, input: &str) -> NodeDef {
    let two =
        || Attribute::List(Box::new(ListValue { i: vec![1, 2, 2, 1], ..ListValue::default() }));
    let padding = Attribute::S(b"VALID".to_vec());
    node(name, "MaxPool", &[input], &[("ksize", two()), ("strides", two()), ("padding", padding)])
}

#[test]
fn the_first_layers_are_stages() {
    let nodes = vec![
        weights("k1", &[3, 3, 2, 9]),
        conv("c1", &["x", "k1"], 1, "SAME"),
        weights("b1", &[9]),
        node("a1", "BiasAdd", &["c1", "b1"], &[]),
        node("r1", "Relu", &["a1"], &[]),
        weights("k2", &[1, 5, 9, 12]),
        conv("c2", &["r1", "k2"], 1, "VALID"),
        node("t2", "Tanh", &["c2"], &[]),
        // These are left to rten: a stride, a small image, one cell.
        weights("k3", &[3, 3, 12, 4]),
        conv("c3", &["t2", "k3"], 2, "SAME"),
        node("r3", "Relu", &["c3"], &[]),
        pool("p", "r3"),
        weights("k4", &[3, 3, 4, 4]),
        conv("c4", &["p", "k4"], 1, "SAME"),
        node("y", "Relu", &["c4"], &[]),
    ];
    let model = model(nodes, &["y"]);
    assert_eq!(model.stages(), 2);
    for rows in [1, 3] {
        assert_same(&model, rows, 0.25);
    }
    for odd in [f32::NAN, f32::INFINITY, 1e9] {
        assert_same(&model, 2, odd);
    }
}

/// A convolution of `k1` over `x`, its activation, and `ends`.
fn block(ends: Vec<NodeDef>) -> Vec<NodeDef> {
    let mut nodes = vec![
        weights("k1", &[3, 3, 2, 2]),
        conv("c1", &["x", "k1"], 1, "SAME"),
        node("r1", "Relu", &["c1"], &[]),
    ];
    nodes.extend(ends);
    nodes
}

#[test]
fn what_is_needed_behind_a_stage_is_kept() {
    let around = model(block(vec![node("y", "AddV2", &["r1", "x"], &[])]), &["y"]);
    assert_eq!(around.stages(), 1);
    assert_same(&around, 2, 0.5);
    // The activation is not the only reader: it stays in the graph, and the convolution alone is a stage.
    let both = model(block(vec![node("y", "AddV2", &["r1", "c1"], &[])]), &["y"]);
    assert_eq!(both.stages(), 1);
    assert_same(&both, 2, 0.5);
    let branches = block(vec![
        node("t", "Tanh", &["r1"], &[]),
        weights("k2", &[5, 5, 2, 3]),
        conv("c2", &["t", "k2"], 1, "SAME"),
        node("r2", "Relu", &["c2"], &[]),
        weights("k3", &[1, 3, 2, 3]),
        conv("c3", &["t", "k3"], 1, "SAME"),
        node("a", "AddV2", &["r2", "c3"], &[]),
        node("r3", "Relu", &["a"], &[]),
        weights("k4", &[3, 1, 3, 2]),
        conv("c4", &["r3", "k4"], 1, "SAME"),
        node("b", "AddV2", &["c4", "t"], &[]),
        node("z", "Mul", &["b", "x"], &[]),
        node("y", "AddV2", &["z", "r1"], &[]),
    ]);
    let branches = model(branches, &["y"]);
    assert_eq!(branches.stages(), 4);
    for odd in [0.5, f32::NAN] {
        assert_same(&branches, 3, odd);
    }
}

#[test]
fn sizes_pass_a_stage() {
    let whole = |name: &str, values: &[i32]| {
        let mut own = weights(name, &[values.len()]);
        let tensor = TensorProto {
            dtype: DType::I32.number(),
            tensor_shape: Some(TensorShapeProto {
                dim: vec![Dim { size: values.len() as i64, name: String::new() }],
                unknown_rank: false,
            }),
            tensor_content: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ..TensorProto::default()
        };
        let value = Some(Attribute::Tensor(Box::new(tensor)));
        own.attr.insert("value".to_owned(), AttrValue { value });
        own
    };
    // Rows times columns of the input, which the translation knows as a size of each run alone.
    let nodes = vec![
        node("t", "Tanh", &["x"], &[]),
        node("s", "Shape", &["t"], &[]),
        weights("k1", &[3, 3, 2, 2]),
        conv("c1", &["t", "k1"], 1, "SAME"),
        node("r1", "Relu", &["c1"], &[]),
        whole("two", &[2, 1, 1, 1]),
        node("m", "Mul", &["s", "two"], &[]),
        whole("halves", &[2, 1, 1, 1]),
        node("d", "Tile", &["r1", "halves"], &[]),
        node("y", "Reshape", &["d", "m"], &[]),
    ];
    let sized = model(nodes, &["y"]);
    assert_eq!(sized.stages(), 1);
    for rows in [1, 3] {
        assert_same(&sized, rows, 0.5);
    }
}

#[test]
fn outputs_before_the_last_stage_are_given() {
    // Asked for alone, `r1` does not need the second stage; with `y`, it was computed on the way.
    let nodes = block(vec![
        weights("k2", &[3, 3, 2, 4]),
        conv("c2", &["r1", "k2"], 1, "SAME"),
        node("y", "Relu", &["c2"], &[]),
    ]);
    let both = model(nodes, &["r1", "y"]);
    assert_eq!(both.stages(), 2);
    assert_same(&both, 2, 0.5);
    let shape = Shape::new(vec![1, 30, 27, 2]).unwrap();
    let image = Tensor::of(shape, &vec![0.25f32; 30 * 27 * 2]).unwrap();
    for fetches in [&[1][..], &[0, 1], &[1, 0, 1]] {
        let run = |threads| both.run(&[(0, &image)], fetches, threads).unwrap();
        let (staged, plain) = (run(1), run(2));
        assert_eq!(staged.len(), fetches.len());
        for (staged, plain) in staged.iter().zip(&plain) {
            assert_eq!(staged.shape(), plain.shape());
            let values = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(values(staged).iter().zip(&values(plain)).all(near));
        }
    }
    let several = model(block(vec![node("y", "Tanh", &["x"], &[])]), &["r1", "y"]);
    assert_eq!(several.stages(), 1);
    assert_same(&several, 2, 0.5);
}
