//! Operators of ONNX files, each in the forms that were held to ONNX Runtime.
//!
//! May not know: rten. Invariant: an attribute that is not known, or a form that another version of the
//! operator means otherwise, is refused; defaults are written out.

mod activations;
mod elements;
mod layout;
mod normal;
mod numbers;
mod picks;
mod places;
mod products;
mod recurrent;
mod reduce;
mod resize;
mod windows;

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::extent::{Extent, Extents};
use super::facts::{Dims, Fact};
use super::graph::{Graph, Written, input};

/// What is said of a form that is not taken.
type Outcome = Result<(), String>;

/// Writes nodes of some operators.
type Form = fn(&mut Graph, &NodeProto) -> Outcome;

/// The operators that have a form here.
static FORMS: &[(&[&str], Form)] = &[
    (elements::ALIKE, elements::alike),
    (elements::SCALED, elements::scaled),
    (elements::BROADCAST, elements::broadcast),
    (elements::VARIADIC, elements::variadic),
    (elements::COMPARISONS, elements::compare),
    (elements::LOGIC, elements::logic),
    (elements::OTHERS, elements::other),
    (activations::ALL, activations::write),
    (reduce::ALL, reduce::reduce),
    (normal::ALL, normal::write),
    (layout::ALL, layout::write),
    (numbers::ALL, numbers::write),
    (picks::ALL, picks::write),
    (places::ALL, places::write),
    (products::ALL, products::write),
    (recurrent::ALL, recurrent::write),
    (resize::ALL, resize::write),
    (windows::ALL, windows::write),
];

/// Operators of several outputs; of all others the first alone may be read.
const SEVERAL: &[&str] = &["Split", "LSTM", "GRU", "Dropout"];

/// The operators that have a form here.
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    FORMS.iter().flat_map(|(ops, _)| ops.iter().copied())
}

/// Writes a node.
pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    let op = node.op_type.as_str();
    if !SEVERAL.contains(&op) && node.output.iter().skip(1).any(|output| !output.is_empty()) {
        return Err("more than its first output is read".to_owned());
    }
    // What follows from sizes alone is no work for the numeric graph.
    if numbers::fold(g, node)? {
        return Ok(());
    }
    let form = FORMS.iter().find(|(ops, _)| ops.contains(&op));
    let (_, form) = form.ok_or_else(|| "it has no form".to_owned())?;
    form(g, node)
}

/// Refuses attributes beside these.
fn expect_attributes(node: &NodeProto, known: &[&str]) -> Outcome {
    match node.attribute.iter().find(|own| !known.contains(&own.name.as_str())) {
        Some(odd) => Err(format!("its attribute {} is not known", odd.name)),
        None => Ok(()),
    }
}

fn expect_inputs(node: &NodeProto, counts: std::ops::RangeInclusive<usize>) -> Outcome {
    let absent = (0..*counts.start()).any(|at| input(node, at).is_none());
    match counts.contains(&node.input.len()) && !absent {
        true => Ok(()),
        false => Err(format!("it has {} inputs", node.input.len())),
    }
}

fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    let own = node.attribute.iter().find(|own| own.name == name);
    own.map_or(default, |own| own.i.unwrap_or_default())
}

fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    let own = node.attribute.iter().find(|own| own.name == name);
    own.map_or(default, |own| own.f.unwrap_or_default())
}

fn ints(node: &NodeProto, name: &str) -> Option<Vec<i64>> {
    node.attribute.iter().find(|own| own.name == name).map(|own| own.ints.clone())
}

fn text<'n>(node: &'n NodeProto, name: &str) -> Option<&'n [u8]> {
    node.attribute.iter().find(|own| own.name == name)?.s.as_deref()
}

fn output(node: &NodeProto) -> &str {
    output_at(node, 0)
}

/// Empty where it is not read.
fn output_at(node: &NodeProto, at: usize) -> &str {
    node.output.get(at).map_or("", String::as_str)
}

/// An axis of so many, counted from the end if it is negative.
fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let own = if axis < 0 { axis.saturating_add(signed) } else { axis };
    let own = usize::try_from(own).ok().filter(|&own| own < rank);
    own.ok_or_else(|| format!("axis {axis} is none of {rank}"))
}

/// Axes of so many, in order; none twice.
fn axes_of(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let own = axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut sorted = own;
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("it names an axis twice".to_owned());
    }
    Ok(sorted)
}

/// Axes are an attribute up to `in_input`, then input 1.
fn axes(g: &Graph, node: &NodeProto, in_input: i64) -> Result<Option<Vec<i64>>, String> {
    if g.opset < in_input {
        return Ok(ints(node, "axes"));
    }
    input(node, 1).map(|_| g.integers(node, 1)).transpose()
}

/// Sizes after broadcasting.
fn joined(extents: &mut Extents, a: &[Extent], b: &[Extent]) -> Result<Dims, String> {
    let rank = a.len().max(b.len());
    let one = Extent::from(1);
    let of = |dims: &[Extent], at: usize| match (at + dims.len()).checked_sub(rank) {
        Some(at) => dims[at].clone(),
        None => one.clone(),
    };
    (0..rank).map(|at| extents.joined(&of(a, at), &of(b, at))).collect()
}

fn product(dims: &[Extent]) -> Result<Extent, String> {
    dims.iter().try_fold(Extent::from(1), |all, dim| all.times(dim))
}

fn extents(dims: &[usize]) -> Dims {
    dims.iter().map(|&dim| Extent::from(dim as i64)).collect()
}

fn signed(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&value| value as i64).collect()
}

impl Graph {
    /// A node of floats whose output is read within the form alone; gives its name.
    fn step(&mut self, op: &str, inputs: &[&str], dims: &[Extent]) -> Result<String, String> {
        self.step_with(op, inputs, vec![], Fact::new(DType::F32, dims.to_vec()))
    }

    fn step_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Written)>,
        fact: Fact,
    ) -> Result<String, String> {
        let name = self.new_name("step");
        self.emit_all(op, inputs, attributes, &[(&name, fact)])?;
        Ok(name)
    }

    /// The same elements in other sizes, whose product is known to be the same or is found out by the run.
    fn reshape(&mut self, from: &str, output: &str, dims: Dims) -> Outcome {
        let mut fact = self.fact_of(from)?.clone();
        let sizes = self.vector(&dims);
        fact.dims = dims;
        fact.elements = None;
        let attributes = vec![("allowzero", Written::Int(1))];
        self.emit_all("Reshape", &[from, &sizes], attributes, &[(output, fact)])
    }

    fn reshaped(&mut self, from: &str, dims: Dims) -> Result<String, String> {
        let name = self.new_name("step");
        self.reshape(from, &name, dims)?;
        Ok(name)
    }

    fn transpose(&mut self, from: &str, output: &str, order: &[usize]) -> Outcome {
        let mut fact = self.fact_of(from)?.clone();
        fact.dims = order.iter().map(|&axis| fact.dims[axis].clone()).collect();
        fact.elements = None;
        let perm = vec![("perm", Written::Ints(signed(order)))];
        self.emit_all("Transpose", &[from], perm, &[(output, fact)])
    }

    fn transposed(&mut self, from: &str, order: &[usize]) -> Result<String, String> {
        let name = self.new_name("step");
        self.transpose(from, &name, order)?;
        Ok(name)
    }

    fn number(&mut self, value: f32) -> String {
        self.float(&[], &[value])
    }
}
