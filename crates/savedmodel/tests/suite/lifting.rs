//! TF1's control flow in frozen graphs, as functional branches and loops.

use vesta_protos::tensorflow::NodeDef;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_savedmodel::FrozenGraph;

use crate::support::{Model, boolean, constant, float, lines, node, placeholder, with};

fn frozen(nodes: Vec<NodeDef>) -> FrozenGraph {
    let model = Model::new(nodes, vec![]).signature("s", &["x", "p"], &["y"]).open().unwrap();
    model.freeze("s").unwrap()
}

fn branches(other: NodeDef) -> FrozenGraph {
    let other_name = other.name.clone();
    frozen(vec![
        placeholder("x"),
        placeholder("p"),
        node("in", "Switch", &["x", "p"]),
        node("twice", "Add", &["in:1", "in:1"]),
        other,
        node("merged", "Merge", &[&other_name, "twice"]),
        node("y", "Neg", &["merged"]),
    ])
}

fn enter(name: &str, input: &str) -> NodeDef {
    with(node(name, "Enter", &[input]), "frame_name", Value::S(b"frame"[..].into()))
}

#[test]
fn a_merge_becomes_a_branch_with_what_its_sides_take() {
    let graph = branches(node("less", "Neg", &["in"]));
    assert_eq!(lines(&graph.nodes), ["merged StatelessIf p:0 x:0", "y Neg merged:0"]);
    let [other, then] = &graph.bodies[..] else { panic!("{:?}", graph.bodies) };
    assert_eq!((other.attribute.as_str(), then.attribute.as_str()), ("else_branch", "then_branch"));
    assert_eq!(lines(&then.nodes), ["twice Add <0>:0 <0>:0"]);
    assert_eq!(lines(&other.nodes), ["less Neg <0>:0"]);
    assert_eq!(
        (&then.arguments[..], &then.results[..]),
        (&["<0>:0".to_owned()][..], &["twice:0".to_owned()][..])
    );
    assert_eq!(other.arguments, then.arguments);
}

#[test]
fn a_constant_side_is_the_other_one() {
    let graph = branches(constant("zero", float(0.0)));
    assert_eq!(graph.bodies.len(), 2);
    let other = graph.bodies.iter().find(|body| body.attribute == "else_branch").unwrap();
    assert_eq!(lines(&other.nodes), ["zero Const"]);
}

#[test]
fn a_frame_becomes_a_loop_that_hands_constants_on() {
    let graph = frozen(vec![
        placeholder("x"),
        placeholder("p"),
        enter("first", "x"),
        enter("step", "p"),
        node("head", "Merge", &["first", "next"]),
        node("test", "Less", &["head", "step"]),
        node("cond", "LoopCond", &["test"]),
        node("round", "Switch", &["head", "cond"]),
        node("more", "Add", &["round:1", "step"]),
        node("next", "NextIteration", &["more"]),
        node("left", "Exit", &["round"]),
        node("y", "Neg", &["left"]),
    ]);
    assert_eq!(lines(&graph.nodes), ["cond StatelessWhile x:0 p:0", "y Neg cond:0"]);
    let [test, body] = &graph.bodies[..] else { panic!("{:?}", graph.bodies) };
    assert_eq!(
        (lines(&test.nodes), &test.results[..]),
        (vec!["test Less <0>:0 <1>:0".to_owned()], &["test:0".to_owned()][..])
    );
    assert_eq!(lines(&body.nodes), ["more Add <0>:0 <1>:0"]);
    assert_eq!(body.results, ["more:0", "<1>:0"]);
    assert_eq!((&test.arguments, body.arguments.len()), (&body.arguments, 2));
}

#[test]
fn what_cannot_be_told_stays_as_it_is() {
    // Nothing says which of two constants is which side's.
    let graph = frozen(vec![
        placeholder("x"),
        placeholder("p"),
        constant("zero", float(0.0)),
        constant("one", float(1.0)),
        node("merged", "Merge", &["zero", "one"]),
        node("y", "Add", &["merged", "x"]),
    ]);
    assert!(lines(&graph.nodes).contains(&"merged Merge zero:0 one:0".to_owned()));
    let why = graph.unlifted.unwrap();
    assert_eq!(why.message(), "Merge at merged joins branches whose condition cannot be told");
    assert!(graph.bodies.is_empty());
    // A branch that is read without being merged gives nothing on its other side.
    let graph = frozen(vec![
        placeholder("x"),
        placeholder("p"),
        node("in", "Switch", &["x", "p"]),
        node("merged", "Merge", &["in", "in:1"]),
        node("y", "Add", &["merged", "in:1"]),
    ]);
    assert!(lines(&graph.nodes).contains(&"y Add merged:0 in:1".to_owned()));
    assert!(graph.bodies.is_empty());
}

#[test]
fn a_check_of_a_condition_is_read_outside_of_its_branch() {
    let graph = frozen(vec![
        placeholder("x"),
        placeholder("p"),
        constant("said", boolean(true)),
        node("in", "Switch", &["x", "p"]),
        node("guard", "Switch", &["p", "p"]),
        node("assert", "Assert", &["guard", "said"]),
        node("less", "Neg", &["in"]),
        node("merged", "Merge", &["less", "in:1"]),
        node("y", "Neg", &["merged", "^assert"]),
    ]);
    assert_eq!(graph.bodies.len(), 2, "{:?}", lines(&graph.nodes));
    assert_eq!(lines(&graph.checks), ["assert Assert p:0"]);
}
