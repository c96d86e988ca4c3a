//! Finds the complementary error functions that stand inside a Gaussian error linear unit.
//!
//! TensorFlow writes the unit as `x / 2 * erfc(-x / √2)`. ONNX has no such function, and `1 - erf`
//! loses its small values. Inside the unit they are multiplied with `x`, so that what is lost is no
//! more than a rounding of `x` itself: there, and only there, `1 + erf(x / √2)` takes its place.
//!
//! Invariant: every reader of a function that is given here multiplies it with its own `x`, or with a
//! constant share of it.

use std::collections::HashMap;

use vesta_protos::tensorflow::NodeDef;

use crate::constant::Constant;
use crate::signature::{canonical, producer};

/// 1 / √2, and how far the digits that a graph states may be off.
const SCALE: f64 = std::f64::consts::FRAC_1_SQRT_2;
const SCALE_OFF_MAX: f64 = 1e-6;

/// The largest share of `x` that the function may be multiplied with.
const SHARE_MAX: f64 = 1.0;

struct Finder<'a> {
    nodes: HashMap<&'a str, &'a NodeDef>,
}

/// What a unit is of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unit {
    /// The tensor `x`.
    pub(crate) x: String,
    /// 1 / √2 in the digits that the graph has.
    pub(crate) scale: f64,
}

/// For each such `Erfc` node, its unit.
pub(crate) fn units<'a>(nodes: &'a [NodeDef], fetches: &[String]) -> HashMap<&'a str, Unit> {
    let functions: Vec<&NodeDef> = nodes.iter().filter(|node| node.op == "Erfc").collect();
    if functions.is_empty() {
        return HashMap::new();
    }
    let finder = Finder { nodes: nodes.iter().map(|node| (node.name.as_str(), node)).collect() };
    let unit = |function: &'a NodeDef| {
        let unit = finder.unit_of(function)?;
        let own = canonical(&function.name);
        let fetched = fetches.iter().any(|fetch| finder.resolve(fetch) == own);
        let mut readers = nodes.iter().filter(|node| {
            node.op != "Identity" && node.input.iter().any(|edge| finder.resolve(edge) == own)
        });
        let fits = !fetched && readers.all(|reader| finder.is_product_with(reader, &own, &unit.x));
        fits.then_some((function.name.as_str(), unit))
    };
    functions.into_iter().filter_map(unit).collect()
}

impl Finder<'_> {
    /// The tensor behind any number of names for it.
    fn resolve(&self, edge: &str) -> String {
        let mut name = canonical(edge);
        for _ in 0..self.nodes.len() {
            match self.nodes.get(producer(&name)) {
                Some(node) if node.op == "Identity" && !node.input.is_empty() => {
                    name = canonical(&node.input[0]);
                }
                _ => break,
            }
        }
        name
    }

    fn node(&self, edge: &str) -> Option<&NodeDef> {
        self.nodes.get(producer(&self.resolve(edge))).copied()
    }

    fn scalar(&self, edge: &str) -> Option<f64> {
        let mut node = self.node(edge)?;
        if node.op == "Cast" {
            node = self.node(node.input.first()?)?;
        }
        if node.op != "Const" {
            return None;
        }
        let value = match node.attr.get("value")?.value.as_ref()? {
            vesta_protos::tensorflow::attr_value::Value::Tensor(tensor) => tensor,
            _ => return None,
        };
        Constant::read(value).ok()?.to_float()
    }

    /// A product with a constant: the other side, and the constant.
    fn scaled(&self, edge: &str) -> Option<(String, f64)> {
        let node = self.node(edge)?;
        let [a, b] = &node.input[..] else { return None };
        match (node.op.as_str(), self.scalar(a), self.scalar(b)) {
            ("Mul", None, Some(by)) => Some((self.resolve(a), by)),
            ("Mul", Some(by), None) => Some((self.resolve(b), by)),
            ("RealDiv", None, Some(by)) => Some((self.resolve(a), 1.0 / by)),
            _ => None,
        }
    }

    fn negated(&self, edge: &str) -> Option<String> {
        let node = self.node(edge).filter(|node| node.op == "Neg")?;
        Some(self.resolve(node.input.first()?))
    }

    /// The unit when the function is of `-x / √2`.
    fn unit_of(&self, function: &NodeDef) -> Option<Unit> {
        let argument = function.input.first()?;
        let (x, by) = match self.negated(argument) {
            Some(scaled) => {
                let (x, by) = self.scaled(&scaled)?;
                (x, -by)
            }
            None => {
                let (inner, by) = self.scaled(argument)?;
                match self.negated(&inner) {
                    Some(x) => (x, -by),
                    None => (inner, by),
                }
            }
        };
        ((by + SCALE).abs() < SCALE_OFF_MAX).then_some(Unit { x, scale: -by })
    }

    fn is_product_with(&self, reader: &NodeDef, function: &str, x: &str) -> bool {
        let [a, b] = &reader.input[..] else { return false };
        let (a, b) = (self.resolve(a), self.resolve(b));
        let other = match (a == function, b == function) {
            (true, false) => b,
            (false, true) => a,
            _ => return false,
        };
        let is_share =
            || self.scaled(&other).is_some_and(|(of, by)| of == x && by.abs() <= SHARE_MAX);
        reader.op == "Mul" && (other == x || is_share())
    }
}
