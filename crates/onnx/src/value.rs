//! What is known of a tensor while its graph is translated.
//!
//! Invariant: two equal [`Dim::Symbol`]s are the same size in every run.

use vesta_model::{DType, PartialShape};

use crate::constant::Constant;

/// One size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    Known(usize),
    /// Known only when the model runs.
    Symbol(u32),
}

impl Dim {
    pub(crate) fn known(self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(n),
            Dim::Symbol(_) => None,
        }
    }
}

/// Sizes, or `None` where not even their number is known.
pub(crate) type Dims = Option<Vec<Dim>>;

/// One element of a small tensor of whole numbers, mostly a size on its way to a `Reshape`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Known(i64),
    /// The size that this symbol stands for.
    Size(u32),
    Unknown,
}

impl From<Dim> for Element {
    fn from(dim: Dim) -> Element {
        match dim {
            Dim::Known(n) => i64::try_from(n).map_or(Element::Unknown, Element::Known),
            Dim::Symbol(symbol) => Element::Size(symbol),
        }
    }
}

/// Which tensor, among those of one translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueId(pub(crate) usize);

/// A convolution that a following bias or normalisation can still be folded into.
#[derive(Clone, Debug)]
pub(crate) struct ConvolutionOrigin {
    /// Its place among the nodes written so far.
    pub(crate) node: usize,
    /// Its weights, output channels outermost.
    pub(crate) kernel: Constant,
    pub(crate) bias: Option<Vec<f32>>,
}

/// A list of tensors of one dtype and shape. ONNX knows it as one tensor, whose first axis counts
/// the elements; [`Value::dtype`] is TensorFlow's, which no other operator takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct List {
    /// Of the elements.
    pub(crate) dtype: DType,
    /// Of the elements, as far as they are known.
    pub(crate) dims: Dims,
    /// The number of elements, an int64 vector of one, where the list has no tensor yet because the
    /// sizes of its elements are not known.
    pub(crate) unmade: Option<String>,
    /// Set where the sizes of its elements come with the first of them: until then the tensor has no
    /// rows.
    pub(crate) grown: Option<Grown>,
}

/// How many elements a list has whose tensor may have no rows yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grown {
    /// An int64 vector of one.
    pub(crate) count: String,
    /// The same as it is known; zero where the tensor's rows tell it.
    pub(crate) number: Dim,
}

/// A tensor of the TensorFlow graph and the ONNX values that hold it.
///
/// At least one of `plain`, `channels_first` and `constant` is there; the others are made when
/// somebody asks. That is how transposes come to stand at the ends of a network only.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) dtype: DType,
    /// Sizes in TensorFlow's order of axes.
    pub(crate) dims: Dims,
    /// The ONNX value with TensorFlow's order of axes.
    pub(crate) plain: Option<String>,
    /// The ONNX value with the last axis moved behind the first.
    pub(crate) channels_first: Option<String>,
    /// The ONNX value with the same whole numbers as int64.
    pub(crate) wide: Option<String>,
    pub(crate) constant: Option<Constant>,
    /// The elements, row-major, of a small tensor of whole numbers.
    pub(crate) elements: Option<Vec<Element>>,
    pub(crate) convolution: Option<ConvolutionOrigin>,
    pub(crate) list: Option<List>,
    /// Real and imaginary part, which are all that there is of complex numbers.
    pub(crate) parts: Option<(ValueId, ValueId)>,
    /// How many edges of the graph read it.
    pub(crate) uses: usize,
}

impl Value {
    pub(crate) fn new(dtype: DType, dims: Dims) -> Value {
        Value {
            dtype,
            dims,
            plain: None,
            channels_first: None,
            wide: None,
            constant: None,
            elements: None,
            convolution: None,
            list: None,
            parts: None,
            uses: 0,
        }
    }

    pub(crate) fn rank(&self) -> Option<usize> {
        self.dims.as_ref().map(Vec::len)
    }

    /// The elements, when all are known.
    pub(crate) fn whole_numbers(&self) -> Option<Vec<i64>> {
        self.elements
            .as_ref()?
            .iter()
            .map(|e| match e {
                Element::Known(n) => Some(*n),
                _ => None,
            })
            .collect()
    }
}

/// All sizes, when all are known.
pub(crate) fn known_dims(dims: &Dims) -> Option<Vec<usize>> {
    dims.as_ref()?.iter().map(|dim| dim.known()).collect()
}

/// The order of axes that puts channels second.
pub(crate) fn to_channels_first(rank: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rank.saturating_sub(1)).collect();
    if rank > 1 {
        order.insert(1, rank - 1);
    }
    order
}

/// The order of axes that puts channels last again.
pub(crate) fn to_channels_last(rank: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rank).collect();
    if rank > 1 {
        let channels = order.remove(1);
        order.push(channels);
    }
    order
}

/// `items` in the order of axes `order`; shorter when an axis is out of range.
pub(crate) fn permute<T: Copy>(items: &[T], order: &[usize]) -> Vec<T> {
    order.iter().filter_map(|&axis| items.get(axis).copied()).collect()
}

/// As the vocabulary states shapes.
pub(crate) fn to_partial(dims: &Dims) -> PartialShape {
    match dims {
        None => PartialShape::Unknown,
        Some(dims) => PartialShape::Ranked(dims.iter().map(|dim| dim.known()).collect()),
    }
}
