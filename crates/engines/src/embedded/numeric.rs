//! The numeric graph in rten: translated, checked against the table, loaded, run.
//!
//! May not know: placement, signatures. Invariant: nothing is handed to rten that it would round,
//! saturate or reorder silently: every operator passed the table, every value that comes in is
//! checked against the shape and the range that the graph was made for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use prost::Message as _;
use rten::{Model, ModelOptions, NodeId, RunError, RunOptions, Value, ValueOrView, ValueView};
use rten_tensor::prelude::*;
use vesta_model::{DType, Shape, Status, Tensor};
use vesta_onnx::{FeedSpec, FrozenSignature, Refusal, Resizing, Translation, translate};
use vesta_protos::onnx::{ModelProto, StringStringEntryProto, tensor_proto::DataLocation};

use super::adaptation;
use super::capability::{self, Source};
use super::footprint::Footprint;
use super::host;
use super::merge::{Boundary, NumericGraph};
use super::onnx::Computed;
use super::stages::{Stages, plan};
use super::threads;
use super::twin;

/// Weights from this size lie in one block that rten reads in place.
const EXTERNAL_BYTES_MIN: usize = 256;
/// Where each of them starts in the block.
const ALIGNMENT: usize = 64;
/// The name of the block; rten wants one with this ending.
const WEIGHTS: &str = "weights.data";

/// Why a numeric graph cannot be loaded.
#[derive(Debug)]
pub(crate) enum NumericObstacle {
    /// Nodes that have no exact counterpart.
    Nodes(Vec<Refusal>),
    /// The whole is too large, or rten refused it.
    Engine(String),
}

/// A numeric graph, loaded.
pub(crate) struct NumericModel {
    model: Model,
    feeds: Vec<(NodeId, Boundary)>,
    fetches: Vec<(NodeId, DType)>,
    /// The fetches of a twin for inputs within bounds, see [`twin`].
    bounded: Option<Vec<NodeId>>,
    /// Convolutions of our own in runs of the twin.
    stages: Option<Stages<NodeId>>,
    footprint: Footprint,
    /// Of an ONNX file: the sizes of all values, and the inputs that follow from sizes.
    computed: Option<(Computed, Vec<NodeId>)>,
    /// ONNX operators in use.
    #[cfg(test)]
    operators: std::collections::BTreeSet<String>,
}

impl NumericModel {
    /// ONNX operators in use.
    #[cfg(test)]
    pub(crate) fn operators(&self) -> &std::collections::BTreeSet<String> {
        &self.operators
    }

    /// How many convolutions are our own.
    #[cfg(test)]
    pub(super) fn stages(&self) -> usize {
        self.stages.as_ref().map_or(0, Stages::len)
    }

    /// Translates and loads a graph.
    ///
    /// # Errors
    /// What of it has no exact counterpart.
    pub(crate) fn load(graph: NumericGraph) -> Result<NumericModel, NumericObstacle> {
        let NumericGraph { nodes, feeds, fetches } = graph;
        let spec = |feed: &Boundary| FeedSpec {
            tensor: feed.tensor.clone(),
            dtype: feed.dtype,
            shape: feed.shape.clone(),
        };
        let signature = FrozenSignature {
            nodes: &nodes,
            feeds: feeds.iter().map(spec).collect(),
            fetches: fetches.iter().map(|fetch| fetch.tensor.clone()).collect(),
            checks: &[],
            bodies: Vec::new(),
            // Its own operator needs no indices that are computed in the run.
            resizing: Resizing::Operator,
        };
        let translation =
            translate(&signature).map_err(|error| NumericObstacle::Nodes(error.operators))?;
        drop(nodes);
        NumericModel::of(translation, feeds, &fetches, None)
    }

    /// Loads what was translated, with `feeds` and `fetches` in the order of its ends; of an ONNX file with
    /// what a run computes first, whose tensors are the inputs behind the feeds.
    ///
    /// # Errors
    /// What of it has no exact counterpart.
    pub(crate) fn of(
        translation: Translation,
        feeds: Vec<Boundary>,
        fetches: &[Boundary],
        computed: Option<Computed>,
    ) -> Result<NumericModel, NumericObstacle> {
        let source = if computed.is_some() { Source::OnnxFile } else { Source::SavedModel };
        let refused = capability::check(&translation, source);
        if !refused.is_empty() {
            return Err(NumericObstacle::Nodes(refused));
        }
        let footprint = Footprint::new(&translation, &feeds);
        // rten computes with sizes as it loads, too.
        let fits = computed.as_ref().map_or_else(|| footprint.fits(), Computed::fits);
        fits.map_err(NumericObstacle::Engine)?;
        let Translation { mut model, inputs, outputs, values, .. } = translation;
        #[cfg(test)]
        let operators = vesta_onnx::count_operators(&model).keys().map(|&op| op.into()).collect();
        let twin = twin::write_twin(&mut model, &inputs, &outputs, &values);
        let own = twin.as_ref().map(|twin| twin.own.clone()).unwrap_or_default();
        let planned = twin.as_ref().and_then(|twin| plan(&mut model, &inputs, twin, &values));
        adaptation::adapt(&mut model, &own);
        let weights = extract_weights(&mut model);
        let bytes = model.encode_to_vec();
        drop(model);
        let mut options = ModelOptions::with_all_ops();
        options.external_data(WEIGHTS, weights);
        let failed = |text: String| NumericObstacle::Engine(text);
        let model = options.load(bytes).map_err(|error| failed(error.to_string()))?;
        let find = |name: &String| model.node_id(name).map_err(|error| failed(error.to_string()));
        let mut feed_ids = inputs.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let given_ids = feed_ids.split_off(feeds.len());
        let fetch_ids = outputs.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let stages = planned.map(|planned| planned.in_model(&model).map_err(failed)).transpose()?;
        let bounded = twin.map(|twin| twin.outputs.iter().map(find).collect::<Result<_, _>>());
        Ok(NumericModel {
            bounded: bounded.transpose()?,
            stages,
            feeds: feed_ids.into_iter().zip(feeds).collect(),
            fetches: fetch_ids.into_iter().zip(fetches.iter().map(|f| f.dtype)).collect(),
            model,
            footprint,
            computed: computed.map(|computed| (computed, given_ids)),
            #[cfg(test)]
            operators,
        })
    }

    /// Computes `fetches` (positions) from `inputs` (positions and values).
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for values that do not fit, or on which an operator fails.
    pub(crate) fn run(
        &self,
        inputs: &[(usize, &Tensor)],
        fetches: &[usize],
        threads: usize,
    ) -> Result<Vec<Tensor>, Status> {
        for (at, tensor) in inputs {
            self.check(*at, tensor)?;
        }
        let shapes = inputs.iter().map(|(at, tensor)| (&self.feeds[*at].1, tensor.shape()));
        if self.computed.is_none() {
            self.footprint.check(shapes)?;
        }
        let given = self.given(inputs)?;
        if inputs.iter().all(|(_, tensor)| tensor.shape().elements() != 0) {
            return self.run_checked(inputs, &given, fetches, threads);
        }
        // Most kernels know empty tensors; those that do not fail or panic.
        let run = || self.run_checked(inputs, &given, fetches, threads).ok();
        match catch_unwind(AssertUnwindSafe(run)).ok().flatten() {
            Some(outputs) => Ok(outputs),
            None => self.run_empty(inputs, fetches, threads),
        }
    }

    /// Whether what a run takes can be told before it.
    ///
    /// # Errors
    /// What of it cannot.
    pub(crate) fn is_bounded(&self) -> Result<(), String> {
        self.footprint.is_known()
    }

    /// What follows from the shapes of the inputs, for an ONNX file.
    fn given(&self, inputs: &[(usize, &Tensor)]) -> Result<Vec<Tensor>, Status> {
        let Some((computed, _)) = &self.computed else { return Ok(Vec::new()) };
        let mut shapes: Vec<&[usize]> = vec![&[]; self.feeds.len()];
        for (at, tensor) in inputs {
            shapes[*at] = tensor.shape().dims();
        }
        computed.at(&shapes)
    }

    fn check(&self, at: usize, tensor: &Tensor) -> Result<(), Status> {
        let (_, boundary) =
            self.feeds.get(at).ok_or_else(|| Status::internal("a step names an unknown feed"))?;
        if tensor.dtype() != boundary.dtype {
            return Err(Status::internal(format!(
                "the numeric graph takes {} and was given {}",
                boundary.dtype,
                tensor.dtype()
            )));
        }
        if boundary.shape.accepts(tensor.shape()) {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "an input has shape {}, but the model declares {}, and the embedded engine holds it to \
             that; send a tensor of the declared shape",
            tensor.shape(),
            boundary.shape
        )))
    }

    fn run_checked(
        &self,
        inputs: &[(usize, &Tensor)],
        given: &[Tensor],
        fetches: &[usize],
        threads: usize,
    ) -> Result<Vec<Tensor>, Status> {
        let entered = || {
            let ids = self.computed.iter().flat_map(|(_, ids)| ids.iter().copied());
            let own = inputs.iter().map(|(at, tensor)| (self.feeds[*at].0, *tensor));
            let all = own.chain(ids.zip(given)).map(|(id, tensor)| Ok((id, entering(tensor)?)));
            all.collect::<Result<Vec<_>, Status>>()
        };
        // Two values that a program holds may be one node here; rten gives each node once.
        let mut wanted = fetches.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let bounded = self.bounded.as_ref().filter(|_| inputs.iter().all(|(_, x)| is_bounded(x)));
        let id = |&at: &usize| bounded.map_or(self.fetches[at].0, |twin| twin[at]);
        let ids: Vec<NodeId> = wanted.iter().map(id).collect();
        let options = || RunOptions::default().with_thread_pool(Some(threads::pool(threads)));
        let failed = |error: RunError| {
            let text = error.to_string();
            let raised = vesta_onnx::raised_error(&text);
            let own = || format!("the embedded engine failed: {text}");
            Status::invalid_argument(raised.unwrap_or_else(own))
        };
        // A convolution of our own knows one thread.
        let stages = self.stages.as_ref().filter(|_| bounded.is_some() && threads <= 1);
        let staged = match stages {
            Some(stages) => stages.run(&self.model, entered()?, &ids, &options).map_err(failed)?,
            None => None,
        };
        let results = match staged {
            Some(results) => results,
            None => self.model.run(entered()?, &ids, Some(options())).map_err(failed)?,
        };
        let tensors = wanted
            .iter()
            .zip(results)
            .map(|(&at, value)| leaving(value, self.fetches[at].1))
            .collect::<Result<Vec<Tensor>, Status>>()?;
        let find = |at: &usize| {
            let place = wanted.binary_search(at).ok().and_then(|place| tensors.get(place));
            place.cloned().ok_or_else(|| Status::internal("a result is missing"))
        };
        fetches.iter().map(find).collect()
    }

    /// Runs for inputs of no elements, such as a batch of no rows.
    ///
    /// For models with a kernel of rten that knows no empty tensors. What an axis of size zero makes of the outputs'
    /// shapes is then found from runs with one and two rows of zeros: a size that grows with the
    /// rows is zero for none. Outputs that would have elements all the same are refused.
    fn run_empty(
        &self,
        inputs: &[(usize, &Tensor)],
        fetches: &[usize],
        threads: usize,
    ) -> Result<Vec<Tensor>, Status> {
        let rows = |rows: usize| -> Result<Vec<Tensor>, Status> {
            let filled = inputs
                .iter()
                .map(|(at, tensor)| Ok((*at, with_rows(tensor, rows)?)))
                .collect::<Result<Vec<(usize, Tensor)>, Status>>()?;
            let filled: Vec<(usize, &Tensor)> = filled.iter().map(|(at, t)| (*at, t)).collect();
            self.run_checked(&filled, &self.given(&filled)?, fetches, threads)
        };
        let refused = || {
            Status::unimplemented(
                "the embedded engine cannot run this model on an input without elements; send at \
                 least one row",
            )
        };
        let (one, two) = catch_unwind(AssertUnwindSafe(|| Ok((rows(1)?, rows(2)?))))
            .map_err(|_| refused())??;
        one.iter()
            .zip(&two)
            .map(|(one, two)| {
                let (a, b) = (one.shape().dims(), two.shape().dims());
                if a.len() != b.len() {
                    return Err(refused());
                }
                let dims: Vec<usize> =
                    a.iter().zip(b).map(|(a, b)| (2 * a).saturating_sub(*b)).collect();
                let shape = Shape::new(dims)?;
                if shape.elements() != 0 {
                    return Err(refused());
                }
                Tensor::copied(one.dtype(), shape, &[])
            })
            .collect()
    }
}

/// Whether all numbers are within what a twin is made for. It says nothing of whole numbers.
fn is_bounded(tensor: &Tensor) -> bool {
    if tensor.dtype() != DType::F32 {
        return true;
    }
    // Without a way out of the loop, it is done with vectors.
    let within = |all: bool, value: &f32| all & (value.abs() <= twin::INPUT_MAX);
    tensor.as_slice::<f32>().is_some_and(|values| values.iter().fold(true, within))
}

/// The tensor itself if it has elements, else zeros with `rows` in place of each size of zero.
fn with_rows(tensor: &Tensor, rows: usize) -> Result<Tensor, Status> {
    if tensor.shape().elements() != 0 {
        return Ok(tensor.clone());
    }
    let dims = tensor.shape().dims().iter().map(|&dim| if dim == 0 { rows } else { dim }).collect();
    let shape = host::bounded_shape(dims, tensor.dtype())?;
    let bytes = shape.bytes(tensor.dtype().width().unwrap_or(0))?;
    Tensor::copied(tensor.dtype(), shape, &vec![0; bytes])
}

/// Moves large weights out of the model into one block, without any further copy in rten.
fn extract_weights(model: &mut ModelProto) -> Vec<u8> {
    let Some(graph) = &mut model.graph else { return Vec::new() };
    let large = |len: usize| len >= EXTERNAL_BYTES_MIN;
    let total: usize = graph
        .initializer
        .iter()
        .map(|tensor| tensor.raw_data.len())
        .filter(|&len| large(len))
        .map(|len| len.next_multiple_of(ALIGNMENT))
        .sum();
    let mut block = Vec::with_capacity(total);
    for tensor in &mut graph.initializer {
        if !large(tensor.raw_data.len()) {
            continue;
        }
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        tensor.external_data = vec![
            entry("location", WEIGHTS.into()),
            entry("offset", block.len().to_string()),
            entry("length", tensor.raw_data.len().to_string()),
        ];
        tensor.data_location = DataLocation::External as i32;
        block.extend_from_slice(&std::mem::take(&mut tensor.raw_data));
        block.resize(block.len().next_multiple_of(ALIGNMENT), 0);
    }
    block
}

/// A value as rten takes it.
fn entering(tensor: &Tensor) -> Result<ValueOrView<'_>, Status> {
    let dims = tensor.shape().dims();
    let wrong = || Status::internal("a tensor does not fit its shape");
    macro_rules! shared {
        ($type:ty) => {
            match tensor.as_slice::<$type>() {
                Some(values) => ValueView::from_shape(dims, values).map_err(|_| wrong())?.into(),
                None => owned(dims, tensor.to_vec::<$type>().ok_or_else(wrong)?)?,
            }
        };
    }
    Ok(match tensor.dtype() {
        DType::F32 => shared!(f32),
        DType::I32 => shared!(i32),
        DType::Bool => {
            owned(dims, tensor.bytes().iter().map(|&value| i32::from(value != 0)).collect())?
        }
        DType::U8 => owned(dims, tensor.bytes().iter().copied().map(i32::from).collect())?,
        DType::I64 => {
            let values = tensor.to_vec::<i64>().ok_or_else(wrong)?;
            let narrow = |value: i64| {
                i32::try_from(value).map_err(|_| {
                    Status::invalid_argument(format!(
                        "the embedded engine takes no int64 value beyond 32 bits there: {value}; \
                         send a smaller one"
                    ))
                })
            };
            owned(dims, values.into_iter().map(narrow).collect::<Result<Vec<i32>, _>>()?)?
        }
        dtype => return Err(Status::internal(format!("rten takes no {dtype}"))),
    })
}

fn owned<T>(dims: &[usize], values: Vec<T>) -> Result<ValueOrView<'static>, Status>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    let tensor = rten_tensor::Tensor::try_from_data(dims, values)
        .map_err(|_| Status::internal("a tensor does not fit its shape"))?;
    Ok(ValueOrView::Value(Value::from(tensor)))
}

/// A result of rten as the dtype that the graph declares.
fn leaving(value: Value, dtype: DType) -> Result<Tensor, Status> {
    let shape = Shape::new(value.shape().to_vec())?;
    let wrong = |has: &Value| {
        Status::internal(format!("the embedded engine gave {} for {dtype}", has.dtype()))
    };
    match (dtype, value) {
        (DType::F32, Value::FloatTensor(tensor)) => host::tensor(shape, tensor.into_data()),
        (DType::I32, Value::Int32Tensor(tensor)) => host::tensor(shape, tensor.into_data()),
        (DType::I64, Value::Int32Tensor(tensor)) => {
            host::tensor(shape, tensor.into_data().into_iter().map(i64::from).collect())
        }
        (DType::Bool, Value::Int32Tensor(tensor)) => {
            let truths: Vec<bool> = tensor.into_data().into_iter().map(|v| v != 0).collect();
            Tensor::of_bools(shape, &truths)
        }
        (_, value) => Err(wrong(&value)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vesta_model::PartialShape;
    use vesta_onnx::ValueFacts;
    use vesta_protos::onnx::type_proto::{Tensor as TensorType, Value as TypeValue};
    use vesta_protos::onnx::{GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto};

    use super::*;

    const OPERATORS: [&str; 9] =
        ["MatMul", "Relu", "Clip", "Add", "Mul", "Sub", "Tanh", "Concat", "Pad"];

    /// Operators one behind the other on rows of four numbers, each with weights of this size.
    fn chain(steps: &[(usize, f32)]) -> NumericModel {
        let mut graph = GraphProto::default();
        let floats = |name: &str, dims: &[i64], value: f32| TensorProto {
            name: name.to_owned(),
            data_type: 1,
            dims: dims.to_vec(),
            raw_data: value
                .to_le_bytes()
                .repeat(usize::try_from(dims.iter().product::<i64>()).unwrap())
                .into(),
            ..TensorProto::default()
        };
        for (at, &(operator, size)) in steps.iter().enumerate() {
            let op = OPERATORS[operator];
            let (from, to, own) = (format!("v{at}"), format!("v{}", at + 1), format!("w{at}"));
            let high = format!("h{at}");
            let mut inputs = vec![from.clone()];
            match op {
                "Relu" | "Tanh" => {}
                "Concat" => {
                    inputs.push(from);
                }
                "Clip" => inputs.extend([own.clone(), high.clone()]),
                _ => inputs.push(own.clone()),
            }
            graph.initializer.push(match op {
                "MatMul" => floats(&own, &[4, 4], size),
                "Pad" => TensorProto {
                    data_type: 7,
                    dims: vec![4],
                    raw_data: [0i64, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect(),
                    ..floats(&own, &[], 0.0)
                },
                "Clip" => floats(&own, &[], -size.abs()),
                _ => floats(&own, &[], size),
            });
            graph.initializer.push(floats(&high, &[], size.abs()));
            let attribute = (op == "Concat").then(|| vesta_protos::onnx::AttributeProto {
                name: "axis".to_owned(),
                r#type: 2,
                i: Some(0),
                ..Default::default()
            });
            graph.node.push(NodeProto {
                name: to.clone(),
                op_type: op.to_owned(),
                input: inputs,
                output: vec![to],
                attribute: attribute.into_iter().collect(),
                ..NodeProto::default()
            });
        }
        let info = |name: &str| {
            let tensor = TensorType { elem_type: 1, shape: None };
            let r#type =
                TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() };
            ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..Default::default() }
        };
        let last = format!("v{}", steps.len());
        graph.input = vec![info("v0")];
        graph.output = vec![info(&last)];
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![vesta_protos::onnx::OperatorSetIdProto {
                version: 17,
                ..Default::default()
            }],
            graph: Some(graph),
            ..ModelProto::default()
        };
        let shape = PartialShape::Ranked(vec![Some(1), Some(4)]);
        let facts = |dtype, shape, is_constant| ValueFacts { dtype, shape, is_constant };
        let mut values: BTreeMap<String, ValueFacts> = (0..=steps.len())
            .map(|at| {
                let shape = PartialShape::Ranked(vec![None, Some(4)]);
                (format!("v{at}"), facts(DType::F32, shape, false))
            })
            .collect();
        values.extend(model.graph.iter().flat_map(|graph| &graph.initializer).map(|tensor| {
            let dtype = if tensor.data_type == 1 { DType::F32 } else { DType::I64 };
            let dims = tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect();
            (tensor.name.clone(), facts(dtype, PartialShape::Ranked(dims), true))
        }));
        let translation = Translation {
            model,
            inputs: vec!["v0".to_owned()],
            outputs: vec![last.clone()],
            operators: BTreeMap::new(),
            values,
        };
        let end = |tensor: String, shape| Boundary { tensor, dtype: DType::F32, shape };
        let fetch = end(last, PartialShape::Unknown);
        let feeds = vec![end("v0".to_owned(), shape)];
        match NumericModel::of(translation, feeds, &[fetch], None) {
            Ok(model) => model,
            Err(obstacle) => panic!("{obstacle:?}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// A NaN that an overflow makes is none less with the twin than without.
        #[test]
        fn a_twin_gives_what_the_graph_gives(
            steps in prop::collection::vec((0..OPERATORS.len(), prop_oneof![-4i32..=4, 28..=38], any::<bool>()), 1..8),
            input in prop::collection::vec(-65_536f32..=65_536.0, 4),
        ) {
            let size = |exponent: i32, negative: bool| {
                let size = 10f32.powi(exponent);
                if negative { -size } else { size }
            };
            let steps: Vec<(usize, f32)> =
                steps.into_iter().map(|(op, e, negative)| (op, size(e, negative))).collect();
            let mut model = chain(&steps);
            let input = Tensor::of(Shape::new(vec![1, 4]).unwrap(), &input).unwrap();
            let run = |model: &NumericModel| -> Vec<f32> {
                model.run(&[(0, &input)], &[0], 1).unwrap()[0].to_vec().unwrap()
            };
            let quick = run(&model);
            model.bounded = None;
            let whole = run(&model);
            prop_assert_eq!(quick.len(), whole.len());
            for (a, b) in quick.iter().zip(&whole) {
                prop_assert!(a == b || (a.is_nan() && b.is_nan()), "{} {} of {:?}", a, b, steps);
            }
        }
    }

    #[test]
    fn a_chain_with_an_activation_has_a_twin() {
        assert!(chain(&[(0, 2.0), (1, 1.0)]).bounded.is_some());
        assert!(chain(&[(0, 2.0)]).bounded.is_none());
        assert!(chain(&[(4, 1e38), (1, 1.0)]).bounded.is_none());
    }
}
