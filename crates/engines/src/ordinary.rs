//! Ordinary runs, which need none of the guards that an engine is given for NaN.
//!
//! A guard around each activation keeps an engine from fusing it with what comes before, and from its own
//! layouts. A run is *ordinary* if its inputs are numbers of at most [`INPUT_MAX`], and the sum of a few values
//! that the model gives besides its outputs is at most [`SUM_MAX`]: behind those nothing is NaN, by [`Magnitudes`]. A
//! model is made for ordinary runs; the first that is not has the careful form made, from the version's files,
//! which has all guards and answers from then on what is not ordinary.
//!
//! May not know: any engine. Invariant: an answer comes from a run that was ordinary, or from the careful form.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vesta_ffi::return_freed_memory;
use vesta_model::{DType, LoadRequest, RunRequest, Session, Status, Tensor};
use vesta_onnx::{Translation, ValueFacts};
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::type_proto::{Tensor as TensorKind, Value as Kind};
use vesta_protos::onnx::{GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto};

use crate::bounds::{Bounds, Magnitudes};
use crate::guards::{node, node_with};

/// The largest magnitude of an input in an ordinary run, 2^32.
const INPUT_MAX: f32 = 4_294_967_296.0;

/// The largest sum of magnitudes of all that is looked at within an ordinary run, 2^60: of large images many
/// at a time, too.
const SUM_MAX: f32 = 1_152_921_504_606_846_976.0;

/// The bound of a value that is looked at: a sum of floats may have been rounded down.
const LOOKED_AT_MAX: f64 = 2.0 * 1_152_921_504_606_846_976.0;

/// Values that a run looks at; guards behind more of them stay.
const LOOKED_AT_COUNT_MAX: usize = 48;

/// The output that says whether a run was ordinary. No tensor of TensorFlow's has such a name.
const SUMS: &str = "?sums_of_ordinary_runs";

/// Operators whose results may be looked at without a fusion that is lost.
const LOOKED_AT: [&str; 8] =
    ["AveragePool", "Clip", "Concat", "LeakyRelu", "MaxPool", "Relu", "Sigmoid", "Tanh"];

/// What is known of ordinary runs of a model.
#[derive(Debug, Default)]
pub(crate) struct Ordinary {
    /// Nodes, by the names of their first outputs, that need no guard.
    unguarded: HashSet<String>,
    /// Values that a run has to look at.
    looked_at: Vec<String>,
}

impl Ordinary {
    /// Finds the nodes that need no guard in ordinary runs, of those that `is_guarded` names.
    pub(crate) fn of(translation: &Translation, is_guarded: fn(&str, DType) -> bool) -> Ordinary {
        let Translation { model, inputs, values, .. } = translation;
        let Some(graph) = &model.graph else { return Ordinary::default() };
        let guarded = guarded(graph, values, is_guarded);
        let needed = behind(graph, &guarded);
        let magnitudes = Magnitudes::new(graph, inputs, values, Some(&needed));
        let (bounds, looked_at) = bounded(graph, &magnitudes);
        let is_finite = |name: &String| {
            bounds.known.contains_key(name.as_str()) || magnitudes.is_finite_weight(name)
        };
        let is_floats = |name: &&String| {
            values.get(*name).is_none_or(|facts| facts.dtype == DType::F32) && !name.is_empty()
        };
        let unguarded: HashSet<String> = guarded
            .into_iter()
            .filter(|node| node.input.iter().filter(is_floats).all(is_finite))
            .filter_map(|node| node.output.first().cloned())
            .collect();
        if unguarded.is_empty() { Ordinary::default() } else { Ordinary { unguarded, looked_at } }
    }

    /// Whether a node needs no guard.
    pub(crate) fn needs_no_guard(&self, node: &NodeProto) -> bool {
        node.output.first().is_some_and(|output| self.unguarded.contains(output))
    }

    /// Whether there are runs that only the careful form may answer.
    pub(crate) fn is_limited(&self) -> bool {
        !self.unguarded.is_empty()
    }

    /// Adds an output to the model that [`is_ordinary_sum`] takes, and gives its name; `None` where a run is
    /// known by its inputs.
    pub(crate) fn write_sums(&self, model: &mut ModelProto) -> Option<String> {
        let graph = model.graph.as_mut().filter(|_| !self.looked_at.is_empty())?;
        let named = |at: usize| format!("{SUMS}/{at}");
        let sums: Vec<String> = (0..self.looked_at.len()).map(named).collect();
        for (value, sum) in self.looked_at.iter().zip(&sums) {
            graph.node.push(node_with(("keepdims", 0), "ReduceL1", &[value], sum));
        }
        let sums: Vec<&str> = sums.iter().map(String::as_str).collect();
        graph.node.push(node("Sum", &sums, SUMS));
        let shape = Some(Default::default());
        let tensor = TensorKind { elem_type: DataType::Float as i32, shape };
        let r#type = TypeProto { value: Some(Kind::TensorType(tensor)), ..TypeProto::default() };
        let info =
            ValueInfoProto { name: SUMS.to_owned(), r#type: Some(r#type), ..Default::default() };
        graph.output.push(info);
        Some(SUMS.to_owned())
    }
}

/// Nodes that have guards, of this graph itself.
fn guarded<'g>(
    graph: &'g GraphProto,
    values: &BTreeMap<String, ValueFacts>,
    is_guarded: fn(&str, DType) -> bool,
) -> Vec<&'g NodeProto> {
    let has_guard = |node: &&NodeProto| {
        let facts = node.input.first().and_then(|name| values.get(name));
        facts.is_some_and(|facts| is_guarded(&node.op_type, facts.dtype))
    };
    graph.node.iter().filter(has_guard).collect()
}

/// The values that those nodes are computed from, and their own.
fn behind<'g>(graph: &'g GraphProto, nodes: &[&'g NodeProto]) -> HashSet<&'g str> {
    let producers = producers(graph);
    let mut seen: HashSet<&str> = HashSet::new();
    let mut open: Vec<&NodeProto> = nodes.to_vec();
    while let Some(node) = open.pop() {
        let mut is_new = false;
        for output in &node.output {
            is_new |= seen.insert(output);
        }
        if is_new {
            open.extend(node.input.iter().filter_map(|input| producers.get(input.as_str())));
        }
    }
    seen
}

fn producers(graph: &GraphProto) -> HashMap<&str, &NodeProto> {
    let mut found = HashMap::new();
    for node in &graph.node {
        found.extend(node.output.iter().map(|output| (output.as_str(), node)));
    }
    found
}

/// Bounds, with as many values looked at as it takes.
fn bounded<'g>(graph: &'g GraphProto, magnitudes: &Magnitudes<'g>) -> (Bounds<'g>, Vec<String>) {
    let producers = producers(graph);
    let mut cuts: HashMap<&str, f64> = HashMap::new();
    loop {
        let bounds = magnitudes.bounds(f64::from(INPUT_MAX), &cuts);
        let before = cuts.len();
        if let Some(node) = bounds.overflow {
            let found = nearest(node, &producers, &bounds.known);
            cuts.extend(found.into_iter().map(|value| (value, LOOKED_AT_MAX)));
        }
        if cuts.len() == before || cuts.len() > LOOKED_AT_COUNT_MAX {
            let kept = |value: &&&str| bounds.known.contains_key(**value);
            let mut looked_at: Vec<String> =
                cuts.keys().filter(kept).map(|&value| value.to_owned()).collect();
            looked_at.sort_unstable();
            return (bounds, looked_at);
        }
    }
}

/// The values nearest before a node that may be looked at, and whose bounds would become smaller.
fn nearest<'g>(
    before: &'g NodeProto,
    producers: &HashMap<&'g str, &'g NodeProto>,
    known: &HashMap<&'g str, f64>,
) -> Vec<&'g str> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut open: VecDeque<&str> = before.input.iter().map(String::as_str).collect();
    while let Some(name) = open.pop_front() {
        if !known.get(name).is_some_and(|bound| *bound > LOOKED_AT_MAX) || !seen.insert(name) {
            continue;
        }
        let Some(producer) = producers.get(name) else { continue };
        if LOOKED_AT.contains(&producer.op_type.as_str()) {
            found.push(name);
        } else {
            open.extend(producer.input.iter().map(String::as_str));
        }
    }
    found
}

/// Whether a run over these inputs may be ordinary. It says nothing of whole numbers.
pub(crate) fn is_ordinary(inputs: &[Tensor]) -> bool {
    let floats = inputs.iter().filter(|tensor| tensor.dtype() == DType::F32);
    floats.map(Tensor::bytes).all(are_ordinary)
}

/// Whether an ordinary run may have these floats.
pub(crate) fn are_ordinary(bytes: &[u8]) -> bool {
    let (values, _) = bytes.as_chunks::<4>();
    // Without a way out of the loop, it is done with vectors.
    let within = |all: bool, value: &[u8; 4]| all & (f32::from_le_bytes(*value).abs() <= INPUT_MAX);
    values.iter().fold(true, within)
}

/// Whether a run that gave these bytes for the output of [`Ordinary::write_sums`] was ordinary.
pub(crate) fn is_ordinary_sum(bytes: &[u8]) -> bool {
    bytes.try_into().is_ok_and(|bytes| f32::from_le_bytes(bytes) <= SUM_MAX)
}

type Load = Box<dyn Fn() -> Result<Arc<dyn Session>, Status> + Send + Sync>;

/// The form of a version that any run may take, made when one is first needed.
pub(crate) struct Careful {
    load: Load,
    made: Mutex<Option<Arc<dyn Session>>>,
    /// The version, for errors.
    name: String,
}

impl Careful {
    /// `load` makes it from the version's files.
    pub(crate) fn new<S: Session + 'static>(
        request: &LoadRequest,
        load: impl Fn(&LoadRequest) -> Result<S, Status> + Send + Sync + 'static,
    ) -> Careful {
        let name = format!("model {} version {}", request.model, request.version);
        let request = request.clone();
        let load = move || Ok(Arc::new(load(&request)?) as Arc<dyn Session>);
        Careful { load: Box::new(load), made: Mutex::default(), name }
    }

    /// Answers a run that is not ordinary.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the version does not load once more, as when its files are gone; those of the
    /// run.
    pub(crate) fn run(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        self.session()?.run_over(request, inputs, deadline)
    }

    /// Others wait while one thread makes it.
    fn session(&self) -> Result<Arc<dyn Session>, Status> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*made {
            return Ok(Arc::clone(session));
        }
        let session = (self.load)().map_err(|status| {
            Status::failed_precondition(format!(
                "a run with NaN, infinity or numbers beyond 2^32 needs the files of {} once more, and \
                 loading them failed: {}",
                self.name,
                status.message()
            ))
        })?;
        return_freed_memory();
        Ok(Arc::clone(made.insert(session)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::{PartialShape, Shape};
    use vesta_protos::onnx::TensorProto;

    fn info(name: &str) -> ValueInfoProto {
        let tensor = TensorKind { elem_type: DataType::Float as i32, shape: None };
        let r#type = TypeProto { value: Some(Kind::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..Default::default() }
    }

    /// `times` products with `weight` on the diagonal, an activation behind each: `r1`, `r2` ...
    fn chain(times: usize, weight: f32, first: &str) -> Translation {
        let mut nodes = vec![node(first, &["x"], "r0")];
        for at in 1..=times {
            nodes.push(node("MatMul", &[&format!("r{}", at - 1), "w"], &format!("p{at}")));
            nodes.push(node("Relu", &[&format!("p{at}")], &format!("r{at}")));
        }
        let bytes: Vec<u8> =
            [weight, 0.0, 0.0, weight].iter().flat_map(|w| w.to_le_bytes()).collect();
        let weights = TensorProto {
            name: "w".to_owned(),
            data_type: DataType::Float as i32,
            dims: vec![2, 2],
            raw_data: bytes.into(),
            ..TensorProto::default()
        };
        let facts = |name: &String| {
            let shape = PartialShape::Ranked(vec![None, Some(2)]);
            (name.clone(), ValueFacts { dtype: DType::F32, shape, is_constant: false })
        };
        let values = nodes.iter().flat_map(|node| &node.output).map(facts).collect();
        let graph = GraphProto {
            output: vec![info(&format!("r{times}"))],
            node: nodes,
            initializer: vec![weights],
            input: vec![info("x")],
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let inputs = vec!["x".to_owned()];
        Translation { model, inputs, values, outputs: vec![], operators: Default::default() }
    }

    fn relus(op: &str, dtype: DType) -> bool {
        op == "Relu" && dtype == DType::F32
    }

    fn unguarded(ordinary: &Ordinary, translation: &Translation) -> usize {
        let nodes = &translation.model.graph.as_ref().unwrap().node;
        nodes.iter().filter(|node| ordinary.needs_no_guard(node)).count()
    }

    #[test]
    fn a_short_chain_is_known_by_its_inputs() {
        let mut short = chain(3, 1e4, "Neg");
        let ordinary = Ordinary::of(&short, relus);
        assert_eq!(unguarded(&ordinary, &short), 3);
        assert_eq!(ordinary.write_sums(&mut short.model), None);
    }

    #[test]
    fn a_long_chain_is_looked_at() {
        let mut long = chain(60, 1e4, "Neg");
        let ordinary = Ordinary::of(&long, relus);
        assert_eq!(unguarded(&ordinary, &long), 60);
        // Each time it is some four products until numbers might overflow.
        assert!((10..25).contains(&ordinary.looked_at.len()), "{:?}", ordinary.looked_at);
        assert_eq!(ordinary.write_sums(&mut long.model).as_deref(), Some(SUMS));
        let graph = long.model.graph.unwrap();
        let sums = graph.node.iter().filter(|node| node.op_type == "ReduceL1");
        assert!(sums.clone().all(|sum| sum.input[0].starts_with('r')));
        assert_eq!(sums.count(), ordinary.looked_at.len());
        assert_eq!(graph.output[1].name, SUMS);
    }

    #[test]
    fn guards_stay_where_nothing_can_be_said() {
        for (times, weight, first) in
            [(3, f32::NAN, "Neg"), (3, f32::INFINITY, "Neg"), (3, 1e38, "Neg"), (3, 1.0, "Log")]
        {
            let translation = chain(times, weight, first);
            let ordinary = Ordinary::of(&translation, relus);
            assert_eq!(unguarded(&ordinary, &translation), 0, "{weight} {first}");
            assert!(!ordinary.is_limited());
        }
        let endless = chain(400, 1e20, "Neg");
        let ordinary = Ordinary::of(&endless, relus);
        assert!(unguarded(&ordinary, &endless) < 400);
        assert!(ordinary.looked_at.len() <= LOOKED_AT_COUNT_MAX + 1);
    }

    #[test]
    fn numbers_are_ordinary_up_to_the_limits() {
        let of = |values: &[f32]| Tensor::of(Shape::vector(values.len()), values).unwrap();
        assert!(is_ordinary(&[of(&[0.0, -INPUT_MAX, INPUT_MAX]), of(&[])]));
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, INPUT_MAX.next_up()] {
            assert!(!is_ordinary(&[of(&[1.0]), of(&[0.0, odd, 1.0])]), "{odd}");
        }
        assert!(is_ordinary_sum(&SUM_MAX.to_le_bytes()));
        for odd in [f32::NAN, f32::INFINITY, SUM_MAX.next_up()] {
            assert!(!is_ordinary_sum(&odd.to_le_bytes()), "{odd}");
        }
        assert!(!is_ordinary_sum(&[]));
    }
}
