//! What a model takes and gives. Owns lookup by alias; knows no wire's rules for leniency.

use crate::{DType, PartialShape, Tensor};

/// Where in its graph a declared tensor lives. Kept so that metadata answers are complete.
#[derive(Clone, Debug, PartialEq)]
pub enum Encoding {
    /// One dense tensor, by name, such as `x:0`.
    Dense(String),
    /// A sparse tensor as three dense ones.
    CooSparse {
        /// Name of the values.
        values: String,
        /// Name of the indices.
        indices: String,
        /// Name of the dense shape.
        dense_shape: String,
    },
    /// Something made of several tensors that no engine here takes apart.
    Composite,
}

/// One declared input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// The name that clients use.
    pub alias: String,
    /// Where in the graph it lives.
    pub encoding: Encoding,
    /// The declared dtype.
    pub dtype: DType,
    /// What the graph takes for this input, where that is not what is declared: some models declare
    /// their serialised examples as numbers, and TensorFlow feeds its graph without a look at that.
    pub fed_as: Option<DType>,
    /// Whether the declaration is a reference to a variable (TF1).
    pub is_reference: bool,
    /// The declared shape. TensorFlow does not hold feeds to it, so it is information only.
    pub shape: PartialShape,
    /// What to feed when a request leaves the input out.
    pub default: Option<Tensor>,
}

impl TensorSpec {
    /// A dense tensor called `alias` for clients and in its graph, of any shape.
    pub fn dense(alias: &str, dtype: DType) -> TensorSpec {
        TensorSpec {
            alias: alias.to_owned(),
            encoding: Encoding::Dense(format!("{alias}:0")),
            dtype,
            fed_as: None,
            is_reference: false,
            shape: PartialShape::Unknown,
            default: None,
        }
    }

    /// The dtype that a tensor must have to be fed for this input.
    pub fn fed_dtype(&self) -> DType {
        self.fed_as.unwrap_or(self.dtype)
    }

    /// The same with a declared shape.
    #[must_use]
    pub fn with_shape(mut self, shape: PartialShape) -> TensorSpec {
        self.shape = shape;
        self
    }
}

/// One way to call a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// The name that requests use, such as `serving_default`.
    pub name: String,
    /// What it was made for, such as `tensorflow/serving/predict`; may be empty.
    pub method: String,
    /// Inputs, sorted by alias.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, sorted by alias.
    pub outputs: Vec<TensorSpec>,
    /// Whether running it changes state inside the engine: then it is never run twice for one
    /// request, padded or compared.
    pub stateful: bool,
}

impl Signature {
    /// The signature that a request means when it names none.
    pub const DEFAULT_NAME: &'static str = "serving_default";

    /// A stateless signature; inputs and outputs are put in order of their aliases.
    pub fn new(
        name: &str,
        method: &str,
        mut inputs: Vec<TensorSpec>,
        mut outputs: Vec<TensorSpec>,
    ) -> Signature {
        inputs.sort_by(|a, b| a.alias.cmp(&b.alias));
        outputs.sort_by(|a, b| a.alias.cmp(&b.alias));
        Signature {
            name: name.to_owned(),
            method: method.to_owned(),
            inputs,
            outputs,
            stateful: false,
        }
    }

    /// Position of the input with this alias.
    pub fn input(&self, alias: &str) -> Option<usize> {
        self.inputs.binary_search_by(|spec| spec.alias.as_str().cmp(alias)).ok()
    }

    /// Position of the output with this alias.
    pub fn output(&self, alias: &str) -> Option<usize> {
        self.outputs.binary_search_by(|spec| spec.alias.as_str().cmp(alias)).ok()
    }
}
