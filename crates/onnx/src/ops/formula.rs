//! Formulas over tensors of one dtype, written node by node.

use vesta_model::DType;

use super::layout::{broadcast_all, combine};
use crate::constant::Constant;
use crate::graph::Graph;
use crate::refusal::{Reason, refuse};
use crate::value::ValueId;

/// Writes nodes over numbers of one dtype that combine element by element.
pub(super) struct Formula<'g> {
    pub(super) g: &'g mut Graph,
    pub(super) dtype: DType,
}

impl Formula<'_> {
    pub(super) fn number(&mut self, value: f64) -> Result<ValueId, Reason> {
        match Constant::scalar(self.dtype, value) {
            Some(constant) => Ok(self.g.constant(constant)),
            None => refuse(format!("no constant of dtype {} can be written", self.dtype)),
        }
    }

    pub(super) fn into(
        &mut self,
        op: &'static str,
        ids: &[ValueId],
        dtype: DType,
    ) -> Result<ValueId, Reason> {
        let dims = broadcast_all(self.g, ids);
        combine(self.g, op, ids, vec![], dtype, dims)
    }

    pub(super) fn node(&mut self, op: &'static str, ids: &[ValueId]) -> Result<ValueId, Reason> {
        self.into(op, ids, self.dtype)
    }

    pub(super) fn test(&mut self, op: &'static str, ids: &[ValueId]) -> Result<ValueId, Reason> {
        self.into(op, ids, DType::Bool)
    }

    /// Whether a number has a minus, a zero's own too.
    pub(super) fn is_negative(&mut self, id: ValueId, zero: ValueId) -> Result<ValueId, Reason> {
        let one = self.number(1.0)?;
        let is_zero = self.test("Equal", &[id, zero])?;
        let turned = self.node("Div", &[one, id])?;
        let telling = self.node("Where", &[is_zero, turned, id])?;
        self.test("Less", &[telling, zero])
    }
}
