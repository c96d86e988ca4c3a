//! Finds tests for negative zeros that look at the bits of a number.
//!
//! Keras asks so before it looks for the largest of floats: `x == 0 && (bits of x & sign) < 0`. ONNX reads
//! no bits of floats; but of a zero, and of nothing else, one over it tells the sign. Invariant: a test
//! that is given here holds for negative zeros of its `x` alone.

use std::collections::HashMap;

use vesta_protos::tensorflow::attr_value::Value as Attribute;
use vesta_protos::tensorflow::{NodeDef, TensorProto};

use crate::constant::Constant;
use crate::signature::{canonical, producer};

/// For each such `LogicalAnd`, the tensor `x`.
pub(crate) fn tests(nodes: &[NodeDef]) -> HashMap<&str, String> {
    if !nodes.iter().any(|node| node.op == "Bitcast") {
        return HashMap::new();
    }
    let finder = Finder { nodes: nodes.iter().map(|node| (node.name.as_str(), node)).collect() };
    let both = nodes.iter().filter(|node| node.op == "LogicalAnd");
    both.filter_map(|node| Some((node.name.as_str(), finder.of(node)?))).collect()
}

struct Finder<'a> {
    nodes: HashMap<&'a str, &'a NodeDef>,
}

impl<'a> Finder<'a> {
    fn of(&self, both: &NodeDef) -> Option<String> {
        let [a, b] = &both.input[..] else { return None };
        let (zero, sign) = (self.zero(a)?, self.sign(b)?);
        (zero == sign).then_some(zero)
    }

    /// The two inputs of a node of this operator.
    fn pair(&self, edge: &str, op: &str) -> Option<(&'a str, &'a str)> {
        let node = self.nodes.get(producer(edge)).filter(|node| node.op == op)?;
        match &node.input[..] {
            [a, b] => Some((a, b)),
            _ => None,
        }
    }

    fn constant(&self, edge: &str) -> Option<&'a TensorProto> {
        let node = self.nodes.get(producer(edge)).filter(|node| node.op == "Const")?;
        match node.attr.get("value")?.value.as_ref()? {
            Attribute::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    fn whole(&self, edge: &str) -> Option<i64> {
        let ints = Constant::read(self.constant(edge)?).ok()?.to_ints()?;
        if let [one] = ints[..] { Some(one) } else { None }
    }

    /// The tensor that is compared with zero.
    fn zero(&self, edge: &str) -> Option<String> {
        let (x, zero) = self.pair(edge, "Equal")?;
        let is_zero = Constant::read(self.constant(zero)?).ok()?.to_float() == Some(0.0);
        is_zero.then(|| canonical(x))
    }

    /// The tensor whose sign is looked at.
    fn sign(&self, edge: &str) -> Option<String> {
        let (bits, zero) = self.pair(edge, "Less")?;
        let (bits, mask) = self.pair(bits, "BitwiseAnd")?;
        let node = self.nodes.get(producer(bits)).filter(|node| node.op == "Bitcast")?;
        let is_sign = self.whole(zero)? == 0 && self.whole(mask)? == i32::MIN.into();
        is_sign.then(|| node.input.first().map(|x| canonical(x)))?
    }
}
