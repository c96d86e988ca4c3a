//! One node as its translator sees it: its inputs, and attributes with their defaults.
//!
//! Invariant: an attribute that is absent reads as the operator's default, which the translator
//! names; one of another kind is a refusal, never a default.

use vesta_model::DType;
use vesta_protos::tensorflow::NodeDef;
use vesta_protos::tensorflow::attr_value::Value as Attribute;

use crate::refusal::{Reason, refuse};
use crate::value::ValueId;

/// A node and the values that it reads.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) node: &'a NodeDef,
    pub(crate) inputs: Vec<ValueId>,
    /// `x` and its scale in the unit that the node stands in; see [`crate::gelu`].
    pub(crate) gelu_of: Option<(ValueId, f64)>,
}

impl Call<'_> {
    /// The input at `index`.
    pub(crate) fn input(&self, index: usize) -> Result<ValueId, Reason> {
        self.inputs.get(index).copied().ok_or_else(|| {
            Reason(format!("it has {} inputs and needs {}", self.inputs.len(), index + 1))
        })
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.node.attr.get(name).and_then(|attr| attr.value.as_ref())
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64, Reason> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::I(value)) => Ok(*value),
            Some(_) => wrong_kind(name),
        }
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f32, Reason> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::F(value)) => Ok(*value),
            Some(_) => wrong_kind(name),
        }
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Reason> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::B(value)) => Ok(*value),
            Some(_) => wrong_kind(name),
        }
    }

    pub(crate) fn text(&self, name: &str, default: &str) -> Result<String, Reason> {
        match self.attribute(name) {
            None => Ok(default.to_owned()),
            Some(Attribute::S(value)) => Ok(String::from_utf8_lossy(value).into_owned()),
            Some(_) => wrong_kind(name),
        }
    }

    pub(crate) fn ints(&self, name: &str, default: &[i64]) -> Result<Vec<i64>, Reason> {
        match self.attribute(name) {
            None => Ok(default.to_vec()),
            Some(Attribute::List(list)) => Ok(list.i.clone()),
            Some(_) => wrong_kind(name),
        }
    }

    pub(crate) fn dtype(&self, name: &str, default: DType) -> Result<DType, Reason> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Type(number)) => DType::from_number(*number)
                .ok_or_else(|| Reason(format!("attribute {name} is the unknown dtype {number}"))),
            Some(_) => wrong_kind(name),
        }
    }
}

fn wrong_kind<T>(name: &str) -> Result<T, Reason> {
    refuse(format!("attribute {name} is of another kind than the operator's"))
}
