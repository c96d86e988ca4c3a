//! The ONNX graph under construction. Owns names, layouts and what is known of every value; knows
//! no operator's meaning.
//!
//! Invariant: a node reads only values that stand before it.

use std::collections::BTreeMap;

use vesta_model::DType;

use crate::constant::Constant;
use crate::ops::spectra::Waves;
use crate::refusal::{Reason, refuse};
use crate::signature::Resizing;
use crate::value::{
    Dim, Dims, Element, Value, ValueId, known_dims, permute, to_channels_first, to_channels_last,
};

/// The value of one attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attr {
    Int(i64),
    Float(f32),
    Text(&'static str),
    Equation(String),
    Ints(Vec<i64>),
    Graph(Box<Subgraph>),
}

/// The graph of a branch, or of a round of a loop. It reads values of the graph around it by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Subgraph {
    pub(crate) inputs: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    /// Each given by a node of its own.
    pub(crate) outputs: Vec<String>,
}

/// One ONNX node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) op: &'static str,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: Vec<(&'static str, Attr)>,
    /// The TensorFlow node that it came from.
    pub(crate) origin: String,
    /// What a run says that ends here with an error, where that is meant to happen.
    pub(crate) error: Option<String>,
}

impl Node {
    /// The graphs within it.
    pub(crate) fn subgraphs(&self) -> impl Iterator<Item = &Subgraph> {
        self.attributes.iter().filter_map(|(_, value)| match value {
            Attr::Graph(graph) => Some(&**graph),
            _ => None,
        })
    }

    /// The graphs within it, to be changed.
    pub(crate) fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut Subgraph> {
        self.attributes.iter_mut().filter_map(|(_, value)| match value {
            Attr::Graph(graph) => Some(&mut **graph),
            _ => None,
        })
    }

    /// It and all nodes within it.
    pub(crate) fn visit<'n>(&'n self, see: &mut dyn FnMut(&'n Node)) {
        see(self);
        for node in self.subgraphs().flat_map(|graph| &graph.nodes) {
            node.visit(see);
        }
    }
}

/// A graph that stands still while one within it is written.
pub(crate) struct Outer {
    values: Vec<Value>,
    nodes: Vec<Node>,
}

/// What a node gives: dtype and sizes.
pub(crate) type Given = (DType, Dims);

/// Nodes, initializers and values so far.
#[derive(Default)]
pub(crate) struct Graph {
    values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) initializers: BTreeMap<String, Constant>,
    /// Dtype and sizes (as they lie) of every ONNX value.
    pub(crate) facts: BTreeMap<String, Given>,
    /// The TensorFlow node under translation.
    pub(crate) origin: String,
    /// Initializers that transforms of one length share.
    pub(crate) waves: BTreeMap<Waves, String>,
    /// How images are resized.
    pub(crate) resizing: Resizing,
    /// Nodes of TensorFlow's that were looked at so far.
    pub(crate) looked_at: usize,
    /// Elements that were computed of constants so far.
    pub(crate) computed_floats: usize,
    symbols: u32,
    names: usize,
}

/// Constant inputs of up to this many bytes are shared between nodes.
const SHARED_CONSTANT_LEN_MAX: usize = 8;

impl Graph {
    pub(crate) fn get(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    pub(crate) fn get_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0]
    }

    /// Adds what is known of a tensor.
    pub(crate) fn add(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() - 1)
    }

    /// A size that no other is known to equal.
    pub(crate) fn symbol(&mut self) -> Dim {
        self.symbols += 1;
        Dim::Symbol(self.symbols)
    }

    /// `rank` such sizes.
    pub(crate) fn symbols(&mut self, rank: usize) -> Vec<Dim> {
        (0..rank).map(|_| self.symbol()).collect()
    }

    fn fresh(&mut self, hint: &str) -> String {
        self.names += 1;
        format!("{}/{hint}_{}", self.origin, self.names)
    }

    /// Begins a graph within this one.
    pub(crate) fn enter(&mut self) -> Outer {
        let outer = Outer { values: self.values.clone(), nodes: std::mem::take(&mut self.nodes) };
        for value in &mut self.values {
            // Its node is not in this graph.
            value.convolution = None;
        }
        outer
    }

    /// Ends it; gives its nodes. Forms of outer values that were made within are forgotten.
    pub(crate) fn leave(&mut self, outer: Outer) -> Vec<Node> {
        for value in self.values.iter_mut().skip(outer.values.len()) {
            *value = Value::new(value.dtype, None);
        }
        for (value, before) in self.values.iter_mut().zip(outer.values) {
            *value = before;
        }
        std::mem::replace(&mut self.nodes, outer.nodes)
    }

    /// How many symbols there are; those that come later have higher numbers.
    pub(crate) fn symbols_len(&self) -> u32 {
        self.symbols
    }

    /// A tensor that has a size of this symbol, and the axis.
    pub(crate) fn sized_by(&self, symbol: u32) -> Option<(ValueId, usize)> {
        self.values.iter().enumerate().find_map(|(at, value)| {
            let is_there = value.plain.is_some() || value.channels_first.is_some();
            let dims = value.dims.as_ref().filter(|_| is_there && value.list.is_none())?;
            let axis = dims.iter().position(|&dim| dim == Dim::Symbol(symbol))?;
            Some((ValueId(at), axis))
        })
    }

    /// An input of a graph within.
    pub(crate) fn argument(&mut self, dtype: DType, dims: Dims) -> String {
        let name = self.fresh("argument");
        self.facts.insert(name.clone(), (dtype, dims));
        name
    }

    /// A graph input called `name`.
    pub(crate) fn feed(&mut self, name: &str, dtype: DType, dims: Dims) -> ValueId {
        self.facts.insert(name.to_owned(), (dtype, dims.clone()));
        self.add(Value { plain: Some(name.to_owned()), ..Value::new(dtype, dims) })
    }

    /// A constant tensor; it takes room in the model only when a node reads it.
    pub(crate) fn constant(&mut self, constant: Constant) -> ValueId {
        let dims = Some(constant.dims.iter().map(|&n| Dim::Known(n)).collect());
        let small = constant.dims.len() <= 1 && constant.len() <= crate::elements::ELEMENTS_MAX;
        let whole = matches!(constant.dtype, DType::I32 | DType::I64) && small;
        let elements = if whole { constant.to_ints() } else { None };
        let elements = elements.map(|ints| ints.into_iter().map(Element::Known).collect());
        let value = Value::new(constant.dtype, dims);
        self.add(Value { constant: Some(constant), elements, ..value })
    }

    /// The ONNX value of a constant.
    pub(crate) fn initializer(&mut self, constant: Constant) -> String {
        if constant.len() <= SHARED_CONSTANT_LEN_MAX
            && let Some((name, _)) = self.initializers.iter().find(|(_, known)| **known == constant)
        {
            return name.clone();
        }
        let name = self.fresh("constant");
        let dims = Some(constant.dims.iter().map(|&n| Dim::Known(n)).collect());
        self.facts.insert(name.clone(), (constant.dtype, dims));
        self.initializers.insert(name.clone(), constant);
        name
    }

    /// Lets go of initializers that one node alone has read.
    pub(crate) fn release(&mut self, names: &[String]) {
        for name in names {
            if self.initializers.get(name).is_some_and(|c| c.len() > SHARED_CONSTANT_LEN_MAX) {
                self.initializers.remove(name);
                self.facts.remove(name);
            }
        }
    }

    /// An int64 vector.
    pub(crate) fn ints(&mut self, values: &[i64]) -> String {
        self.initializer(Constant::ints(values))
    }

    /// A scalar of `dtype`.
    pub(crate) fn scalar(&mut self, dtype: DType, value: f64) -> Result<String, Reason> {
        match Constant::scalar(dtype, value) {
            Some(constant) => Ok(self.initializer(constant)),
            None => refuse(format!("no constant of dtype {dtype} can be written")),
        }
    }

    /// Says what it means when a run ends with an error at the node that was written last.
    pub(crate) fn fails_with(&mut self, error: &str) {
        if let Some(node) = self.nodes.last_mut() {
            node.error = Some(error.to_owned());
        }
    }

    /// Writes a node with one result; gives the result's name.
    pub(crate) fn emit(
        &mut self,
        op: &'static str,
        inputs: &[&str],
        attributes: Vec<(&'static str, Attr)>,
        dtype: DType,
        dims: Dims,
    ) -> String {
        self.emit_many(op, inputs, attributes, vec![(dtype, dims)]).swap_remove(0)
    }

    /// Writes a node; gives the names of its results, as many as `given`.
    pub(crate) fn emit_many(
        &mut self,
        op: &'static str,
        inputs: &[&str],
        attributes: Vec<(&'static str, Attr)>,
        given: Vec<Given>,
    ) -> Vec<String> {
        let outputs: Vec<String> = given.iter().map(|_| self.fresh(op)).collect();
        for (name, fact) in outputs.iter().zip(given) {
            self.facts.insert(name.clone(), fact);
        }
        self.nodes.push(Node {
            op,
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: outputs.clone(),
            attributes,
            origin: self.origin.clone(),
            error: None,
        });
        outputs
    }

    /// The tensor that the ONNX value `name` holds as it lies.
    pub(crate) fn result(&mut self, name: String) -> ValueId {
        let (dtype, dims) = self.facts.get(&name).cloned().unwrap_or((DType::Invalid, None));
        self.add(Value { plain: Some(name), ..Value::new(dtype, dims) })
    }

    /// The tensor that the ONNX value `name` holds with channels second.
    pub(crate) fn result_channels_first(&mut self, name: String) -> ValueId {
        let (dtype, dims) = self.facts.get(&name).cloned().unwrap_or((DType::Invalid, None));
        let dims = dims.map(|dims| permute(&dims, &to_channels_last(dims.len())));
        self.add(Value { channels_first: Some(name), ..Value::new(dtype, dims) })
    }

    /// The ONNX value with the axes in TensorFlow's order.
    pub(crate) fn plain(&mut self, id: ValueId) -> String {
        let value = self.get(id).clone();
        if let Some(name) = value.plain {
            return name;
        }
        let name = match (value.constant, value.channels_first) {
            (Some(constant), _) => self.initializer(constant),
            (None, Some(name)) => {
                let rank = value.dims.as_ref().map_or(0, Vec::len);
                self.transpose(&name, &to_channels_last(rank), value.dtype, value.dims)
            }
            (None, None) => String::new(),
        };
        self.get_mut(id).plain = Some(name.clone());
        name
    }

    /// The ONNX value with channels second; the rank must be known.
    pub(crate) fn channels_first(&mut self, id: ValueId) -> Result<String, Reason> {
        let value = self.get(id).clone();
        if let Some(name) = value.channels_first {
            return Ok(name);
        }
        let Some(dims) = value.dims else {
            return refuse("the rank of its input is not known");
        };
        let order = to_channels_first(dims.len());
        let name = match value.constant.and_then(|constant| constant.permuted(&order)) {
            Some(constant) => self.initializer(constant),
            None => {
                let plain = self.plain(id);
                let moved = permute(&dims, &order);
                self.transpose(&plain, &order, value.dtype, Some(moved))
            }
        };
        self.get_mut(id).channels_first = Some(name.clone());
        Ok(name)
    }

    /// Whole numbers as an int64 value, which is what ONNX takes shapes and indices in.
    pub(crate) fn wide(&mut self, id: ValueId) -> Result<String, Reason> {
        let value = self.get(id).clone();
        if let Some(name) = value.wide {
            return Ok(name);
        }
        let name = match value.dtype {
            DType::I64 => self.plain(id),
            DType::I32 | DType::I16 | DType::I8 | DType::U8 => {
                let ints = value.constant.as_ref().and_then(Constant::to_ints);
                let dims = known_dims(&value.dims);
                match ints.zip(dims).and_then(|(v, d)| Constant::whole(DType::I64, &d, &v)) {
                    Some(constant) => self.initializer(constant),
                    None => {
                        let plain = self.plain(id);
                        self.cast(&plain, DType::I64, value.dims)
                    }
                }
            }
            other => return refuse(format!("whole numbers of dtype {other} are needed as int64")),
        };
        self.get_mut(id).wide = Some(name.clone());
        Ok(name)
    }

    /// An int64 value as a tensor of `dtype` (int32 or int64); remembers the wide form.
    pub(crate) fn narrowed(&mut self, wide: String, dtype: DType) -> ValueId {
        let dims = self.facts.get(&wide).and_then(|fact| fact.1.clone());
        let plain =
            if dtype == DType::I64 { wide.clone() } else { self.cast(&wide, dtype, dims.clone()) };
        self.add(Value { plain: Some(plain), wide: Some(wide), ..Value::new(dtype, dims) })
    }

    pub(crate) fn cast(&mut self, name: &str, dtype: DType, dims: Dims) -> String {
        let to = crate::constant::onnx_number(dtype).unwrap_or(0);
        self.emit("Cast", &[name], vec![("to", Attr::Int(to.into()))], dtype, dims)
    }

    /// Axis `i` of the result is axis `order[i]` of the value.
    pub(crate) fn transpose(
        &mut self,
        name: &str,
        order: &[usize],
        dtype: DType,
        dims: Dims,
    ) -> String {
        if order.iter().copied().eq(0..order.len()) {
            return name.to_owned();
        }
        let perm = order.iter().map(|&axis| axis as i64).collect();
        self.emit("Transpose", &[name], vec![("perm", Attr::Ints(perm))], dtype, dims)
    }

    /// Reshapes to sizes that are all known but one at most.
    pub(crate) fn reshape(&mut self, name: &str, sizes: &[i64], dims: Dims) -> String {
        let dtype = self.facts.get(name).map_or(DType::Invalid, |fact| fact.0);
        let shape = self.ints(sizes);
        let attributes = vec![("allowzero", Attr::Int(0))];
        self.emit("Reshape", &[name, &shape], attributes, dtype, dims)
    }

    /// Sizes of two tensors combined element by element.
    pub(crate) fn broadcast(&mut self, a: &Dims, b: &Dims) -> Dims {
        let (Some(a), Some(b)) = (a, b) else { return None };
        let rank = a.len().max(b.len());
        let at = |dims: &[Dim], i: usize| {
            (i + dims.len()).checked_sub(rank).map_or(Dim::Known(1), |i| dims[i])
        };
        let mut out = Vec::with_capacity(rank);
        for i in 0..rank {
            out.push(match (at(a, i), at(b, i)) {
                (Dim::Known(1), other) | (other, Dim::Known(1)) => other,
                (Dim::Known(n), _) | (_, Dim::Known(n)) => Dim::Known(n),
                (x, y) if x == y => x,
                _ => self.symbol(),
            });
        }
        Some(out)
    }

    /// The values of a small constant of whole numbers.
    pub(crate) fn constant_ints(&self, id: ValueId, what: &str) -> Result<Vec<i64>, Reason> {
        let value = self.get(id);
        value
            .whole_numbers()
            .or_else(|| value.constant.as_ref().and_then(Constant::to_ints))
            .ok_or_else(|| Reason(format!("its {what} are known only when the model runs")))
    }

    /// The value of a constant scalar, or vector of one.
    pub(crate) fn constant_int(&self, id: ValueId, what: &str) -> Result<i64, Reason> {
        match self.constant_ints(id, what)?.as_slice() {
            [one] => Ok(*one),
            many => refuse(format!("its {what} is {} numbers, not one", many.len())),
        }
    }

    /// The rank of an input, which must be known.
    pub(crate) fn rank(&self, id: ValueId) -> Result<usize, Reason> {
        self.get(id).rank().ok_or_else(|| Reason("the rank of its input is not known".into()))
    }

    /// The sizes of an input, whose rank must be known.
    pub(crate) fn dims(&self, id: ValueId) -> Result<Vec<Dim>, Reason> {
        self.get(id).dims.clone().ok_or_else(|| Reason("the rank of its input is not known".into()))
    }
}

/// An axis that may count from the end, as one that counts from the start.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Result<usize, Reason> {
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_start)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| Reason(format!("axis {axis} of a tensor of rank {rank}")))
}
