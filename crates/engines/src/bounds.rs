//! Which values of a graph are surely finite, given bounds of what it is fed.
//!
//! Sums and products of finite numbers that cannot overflow are never NaN: what an engine makes of NaN does
//! not matter behind them.
//!
//! May not know: any engine. Invariant: a value has a bound only if it holds for every run whose inputs, and
//! what else was given a bound, are within theirs, roundings included.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use vesta_model::{DType, PartialShape};
use vesta_onnx::ValueFacts;
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// The largest bound: so far from overflow that roundings of long sums do not matter.
const BOUND_MAX: f64 = 1e37;

/// The longest sum in which they do not.
const SUMMANDS_MAX: usize = 1 << 22;

/// A graph whose values may have bounds of their magnitudes.
pub(crate) struct Magnitudes<'g> {
    nodes: Vec<&'g NodeProto>,
    /// Inputs of floats.
    inputs: Vec<&'g str>,
    /// Initializers of floats.
    weights: HashMap<&'g str, &'g TensorProto>,
    /// Those of whole numbers in 64 bits.
    axes: HashMap<&'g str, &'g TensorProto>,
    values: &'g BTreeMap<String, ValueFacts>,
    /// Weights that were looked through.
    measured: RefCell<HashMap<&'g str, Option<Measured>>>,
}

/// Bounds of magnitudes.
pub(crate) struct Bounds<'g> {
    /// By the names of values. Weights have none here.
    pub(crate) known: HashMap<&'g str, f64>,
    /// The first node that has no bound because it might overflow, although all that it reads has one.
    pub(crate) overflow: Option<&'g NodeProto>,
}

/// What is known of weights that are all finite.
#[derive(Clone, Copy)]
struct Measured {
    /// The largest magnitude.
    largest: f64,
    /// The smallest.
    smallest: f64,
    /// The largest sum of magnitudes with one index in the first dimension.
    of_one: f64,
    /// The sum of all magnitudes.
    of_all: f64,
}

impl<'g> Magnitudes<'g> {
    /// Those of the graph's nodes that `wanted` has the name of an output of; of all without it.
    pub(crate) fn new(
        graph: &'g GraphProto,
        inputs: &[String],
        values: &'g BTreeMap<String, ValueFacts>,
        wanted: Option<&HashSet<&str>>,
    ) -> Magnitudes<'g> {
        let of = |dtype: i32| {
            let own = graph.initializer.iter().filter(move |tensor| tensor.data_type == dtype);
            own.map(|tensor| (tensor.name.as_str(), tensor)).collect::<HashMap<_, _>>()
        };
        let is_wanted = |node: &&NodeProto| {
            let given = |wanted: &HashSet<&str>| {
                node.output.iter().any(|own| wanted.contains(own.as_str()))
            };
            wanted.is_none_or(given)
        };
        let floats = graph.input.iter().filter_map(float_input);
        Magnitudes {
            nodes: graph.node.iter().filter(is_wanted).collect(),
            inputs: floats.filter(|own| inputs.iter().any(|input| input == own)).collect(),
            weights: of(DataType::Float as i32),
            axes: of(DataType::Int64 as i32),
            values,
            measured: RefCell::default(),
        }
    }

    /// Bounds where inputs have magnitudes up to `input_max`, and values of `cuts` up to what stands there.
    pub(crate) fn bounds(&self, input_max: f64, cuts: &HashMap<&str, f64>) -> Bounds<'g> {
        let inputs = self.inputs.iter().map(|input| (*input, input_max));
        let mut found = Bounds { known: inputs.collect(), overflow: None };
        for node in &self.nodes {
            let step = Step { node, known: &found.known, graph: self };
            let Some(bound) = step.bound() else { continue };
            // A value that might have overflowed cannot be looked at behind an activation.
            if bound > BOUND_MAX {
                found.overflow.get_or_insert(node);
                continue;
            }
            let of = |output: &str| cuts.get(output).map_or(bound, |cut| cut.min(bound));
            found.known.extend(node.output.iter().map(|own| (own.as_str(), of(own))));
        }
        found
    }

    /// Whether `name` is a weight without NaN or infinity.
    pub(crate) fn is_finite_weight(&self, name: &str) -> bool {
        self.measure(name).is_some()
    }

    fn measure(&self, name: &str) -> Option<Measured> {
        let (&name, tensor) = self.weights.get_key_value(name)?;
        *self.measured.borrow_mut().entry(name).or_insert_with(|| Measured::of(tensor))
    }
}

fn float_input(info: &vesta_protos::onnx::ValueInfoProto) -> Option<&str> {
    use vesta_protos::onnx::type_proto::Value;
    match info.r#type.as_ref()?.value.as_ref()? {
        Value::TensorType(tensor) if tensor.elem_type == DataType::Float as i32 => Some(&info.name),
        _ => None,
    }
}

impl Measured {
    /// Looks through an initializer that holds its numbers as bytes; `None` where not all are finite.
    fn of(tensor: &TensorProto) -> Option<Measured> {
        let (chunks, []) = tensor.raw_data.as_chunks::<4>() else { return None };
        let count = tensor.dims.iter().try_fold(1i64, |count, &size| count.checked_mul(size));
        if count.and_then(|count| usize::try_from(count).ok()) != Some(chunks.len()) {
            return None;
        }
        let first = tensor.dims.first().and_then(|&size| usize::try_from(size).ok()).unwrap_or(1);
        let each = (chunks.len() / first.max(1)).max(1);
        let nothing = Measured { largest: 0.0, smallest: f64::INFINITY, of_one: 0.0, of_all: 0.0 };
        let all = chunks.chunks(each).fold(nothing, |all, own| {
            let (mut largest, mut smallest, mut sum) = (0.0f32, f32::INFINITY, 0.0f64);
            for bytes in own {
                let magnitude = f32::from_le_bytes(*bytes).abs();
                largest = largest.max(magnitude);
                smallest = smallest.min(magnitude);
                // A NaN stays in the sum.
                sum += f64::from(magnitude);
            }
            Measured {
                largest: all.largest.max(f64::from(largest)),
                smallest: all.smallest.min(f64::from(smallest)),
                of_one: all.of_one.max(sum),
                of_all: all.of_all + sum,
            }
        });
        all.of_all.is_finite().then_some(all)
    }
}

/// A node whose inputs may have bounds.
struct Step<'s, 'g> {
    node: &'g NodeProto,
    known: &'s HashMap<&'g str, f64>,
    graph: &'s Magnitudes<'g>,
}

impl Step<'_, '_> {
    fn bound(&self) -> Option<f64> {
        let of = |at: usize| self.input(at);
        let given = (0..self.node.input.len()).filter(|&at| self.is_given(at));
        let largest_of_all =
            || given.clone().try_fold(0.0, |most: f64, at| Some(most.max(of(at)?)));
        Some(match self.node.op_type.as_str() {
            "Abs" | "AveragePool" | "DepthToSpace" | "Expand" | "Flatten" | "Gather"
            | "HardSwish" | "Identity" | "MaxPool" | "Neg" | "Relu" | "Reshape" | "Slice"
            | "SpaceToDepth" | "Split" | "Squeeze" | "Tile" | "Transpose" | "Unsqueeze" => of(0)?,
            "Add" | "Sub" | "Sum" => given.clone().map(of).sum::<Option<f64>>()?,
            "Clip" => largest_of_all()?.min(self.range()?),
            "Concat" | "Max" | "Min" => largest_of_all()?,
            "Cast" => self.converted()?,
            "Conv" => self.convolved(|kernel| kernel.of_one)?,
            "ConvTranspose" => self.convolved(|kernel| kernel.of_all)?,
            "Cos" | "Erf" | "HardSigmoid" | "Sigmoid" | "Sin" | "Softmax" | "Softsign" | "Tanh" => {
                of(0)?;
                1.0
            }
            "Div" => self.divided()?,
            "Elu" => of(0)?.max(self.float("alpha", 1.0)),
            "LeakyRelu" => of(0)? * self.float("alpha", 0.01).max(1.0),
            "MatMul" => {
                let tensor = self.graph.weights.get(self.node.input.get(1)?.as_str())?;
                let summands = usize::try_from(*tensor.dims.iter().nth_back(1)?).ok()?;
                of(0)?.max(1.0) * of(1)? * sum_of(summands)?
            }
            // rten may scale weights or a product instead of an operand: what is small is no help before it.
            "Mul" => of(0)?.max(1.0) * of(1)?.max(1.0),
            // Of no elements the mean would be none, too.
            "ReduceMax" | "ReduceMean" | "ReduceMin" if self.reduces_elements() => of(0)?,
            "Resize" if self.interpolates() => of(0)?,
            "Where" => of(1)?.max(of(2)?),
            "Pad" => of(0)?.max(if self.is_given(2) { of(2)? } else { 0.0 }),
            "Softplus" => of(0)? + 1.0,
            _ => return None,
        })
    }

    fn is_given(&self, at: usize) -> bool {
        self.node.input.get(at).is_some_and(|name| !name.is_empty())
    }

    /// Whether a reduction surely has elements along each axis that it reduces.
    fn reduces_elements(&self) -> bool {
        let of = |at: usize| self.node.input.get(at).map(String::as_str);
        let facts = of(0).and_then(|name| self.graph.values.get(name));
        let Some(PartialShape::Ranked(dims)) = facts.map(|facts| &facts.shape) else {
            return false;
        };
        let Some(axes) = of(1).and_then(|name| self.graph.axes.get(name)) else { return false };
        let (axes, []) = axes.raw_data.as_chunks::<8>() else { return false };
        !axes.is_empty()
            && axes.iter().all(|axis| {
                let axis = i64::from_le_bytes(*axis);
                let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
                let size = usize::try_from(axis).ok().and_then(|axis| dims.get(axis));
                size.copied().flatten().is_some_and(|size| size > 0)
            })
    }

    /// The bound of an input.
    fn input(&self, at: usize) -> Option<f64> {
        let name = self.node.input.get(at)?.as_str();
        let own = || self.graph.measure(name).map(|own| own.largest);
        self.known.get(name).copied().or_else(own)
    }

    /// The largest magnitude between the bounds of a clip; without bound where there is only one.
    fn range(&self) -> Option<f64> {
        if self.is_given(1) && self.is_given(2) {
            Some(self.input(1)?.max(self.input(2)?))
        } else {
            Some(f64::INFINITY)
        }
    }

    /// A convolution whose kernel is no input.
    fn convolved(&self, gain: fn(Measured) -> f64) -> Option<f64> {
        let name = self.node.input.get(1)?;
        let tensor = self.graph.weights.get(name.as_str())?;
        sum_of(tensor.raw_data.len() / 4 / usize::try_from(*tensor.dims.first()?).ok()?.max(1))?;
        let gain = gain(self.graph.measure(name)?);
        let bias = if self.is_given(2) { self.input(2)? } else { 0.0 };
        Some(self.input(0)?.max(1.0) * gain + bias)
    }

    /// A conversion to floats of 32 bits.
    fn converted(&self) -> Option<f64> {
        if attribute(self.node, "to")?.i != Some(i64::from(DataType::Float as i32)) {
            return None;
        }
        let read = self.node.input.first()?;
        let bits = match self.graph.values.get(read)?.dtype {
            DType::Bool => 0,
            DType::I8 | DType::U8 => 8,
            DType::I16 | DType::U16 => 16,
            DType::I32 | DType::U32 => 32,
            DType::I64 | DType::U64 => 64,
            DType::F32 => return self.input(0),
            _ => return None,
        };
        Some(f64::from(bits).exp2())
    }

    /// A quotient whose divisor is no input.
    fn divided(&self) -> Option<f64> {
        let divisor = self.graph.measure(self.node.input.get(1)?)?;
        let is_normal = divisor.smallest >= f64::from(f32::MIN_POSITIVE);
        is_normal.then_some(self.input(0)?.max(1.0) / divisor.smallest.min(1.0))
    }

    /// Whether an image is resized by means of its own values.
    fn interpolates(&self) -> bool {
        let text = |name: &str| attribute(self.node, name).and_then(|own| own.s.as_deref());
        !matches!(text("mode"), Some(b"cubic"))
            && text("coordinate_transformation_mode") != Some(b"tf_crop_and_resize")
    }

    /// An attribute that is a float.
    fn float(&self, name: &str, otherwise: f32) -> f64 {
        f64::from(attribute(self.node, name).and_then(|own| own.f).unwrap_or(otherwise).abs())
    }
}

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|own| own.name == name)
}

/// The number of summands, where their roundings do not matter.
fn sum_of(summands: usize) -> Option<f64> {
    (summands <= SUMMANDS_MAX).then_some(summands as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guards::node;
    use vesta_protos::onnx::attribute_proto::AttributeType;

    fn facts(dtype: DType) -> ValueFacts {
        ValueFacts { dtype, shape: PartialShape::Unknown, is_constant: false }
    }

    fn weights(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorProto {
            name: name.to_owned(),
            data_type: DataType::Float as i32,
            dims: dims.to_vec(),
            raw_data: bytes.into(),
            ..TensorProto::default()
        }
    }

    fn attribute(name: &str, number: Option<i64>, text: Option<&str>) -> AttributeProto {
        AttributeProto {
            name: name.to_owned(),
            r#type: AttributeType::Int as i32,
            i: number,
            s: text.map(|text| text.as_bytes().to_vec()),
            ..AttributeProto::default()
        }
    }

    /// The bound of one operator's result, whose first input is `Tanh` of anything.
    fn bound(op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Option<f64> {
        let known = node("Softsign", &["one"], "x");
        let own = NodeProto { attribute: attributes, ..node(op, inputs, "y") };
        let initializer = vec![
            weights("one", &[], &[1.0]),
            weights("parts", &[3], &[-0.5, 0.25, 2.0]),
            weights("none", &[2], &[0.0, 1.0]),
            weights("nan", &[2], &[f32::NAN, 1.0]),
            weights("kernel", &[2, 1, 2], &[1.0, -2.0, 3.0, 0.5]),
        ];
        let graph = GraphProto { node: vec![known, own], initializer, ..GraphProto::default() };
        let named = [("bytes", DType::U8), ("longs", DType::I64), ("halves", DType::F16)];
        let values = named.map(|(name, dtype)| (name.to_owned(), facts(dtype))).into();
        let magnitudes = Magnitudes::new(&graph, &[], &values, None);
        magnitudes.bounds(1.0, &HashMap::new()).known.get("y").copied()
    }

    #[test]
    fn each_operator_has_the_bound_of_its_result() {
        let to = |number: DataType| vec![attribute("to", Some(number as i64), None)];
        assert_eq!(bound("Cast", &["bytes"], to(DataType::Float)), Some(256.0));
        assert_eq!(bound("Cast", &["longs"], to(DataType::Float)), Some(64f64.exp2()));
        assert_eq!(bound("Cast", &["halves"], to(DataType::Float)), None);
        assert_eq!(bound("Cast", &["bytes"], to(DataType::Float16)), None);
        assert_eq!(bound("Div", &["x", "parts"], vec![]), Some(4.0));
        assert_eq!(bound("Div", &["x", "none"], vec![]), None);
        assert_eq!(bound("Div", &["x", "nan"], vec![]), None);
        assert_eq!(bound("Div", &["x", "x"], vec![]), None);
        assert_eq!(bound("Mul", &["x", "nan"], vec![]), None);
        assert_eq!(bound("Conv", &["x", "kernel"], vec![]), Some(3.5));
        assert_eq!(bound("ConvTranspose", &["x", "kernel"], vec![]), Some(6.5));
        assert_eq!(bound("Where", &["bytes", "x", "parts"], vec![]), Some(2.0));
        assert_eq!(bound("LeakyRelu", &["x"], vec![]), Some(1.0));
    }

    #[test]
    fn images_are_bounded_where_they_are_resized_within() {
        let by = |mode: &str, way: &str| {
            let mode = attribute("mode", None, Some(mode));
            let way = attribute("coordinate_transformation_mode", None, Some(way));
            bound("Resize", &["x"], vec![mode, way])
        };
        assert_eq!(by("linear", "half_pixel"), Some(1.0));
        assert_eq!(by("nearest", "asymmetric"), Some(1.0));
        assert_eq!(by("cubic", "half_pixel"), None);
        assert_eq!(by("linear", "tf_crop_and_resize"), None);
    }
}
