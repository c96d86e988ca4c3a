//! Activations that are written as formulas, as ONNX defines them.

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::{Outcome, expect_attributes, expect_inputs, float, output, text};
use crate::embedded::onnx::facts::{Dims, Fact};
use crate::embedded::onnx::graph::Graph;

pub(super) const ALL: &[&str] =
    &["Celu", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Sign", "ThresholdedRelu"];

/// A chain of steps over values of the same sizes.
struct Chain<'g> {
    g: &'g mut Graph,
    dims: Dims,
}

impl Chain<'_> {
    fn one(&mut self, op: &str, x: &str) -> Result<String, String> {
        self.g.step(op, &[x], &self.dims)
    }

    fn two(&mut self, op: &str, x: &str, y: &str) -> Result<String, String> {
        self.g.step(op, &[x, y], &self.dims)
    }

    fn with(&mut self, op: &str, x: &str, number: f32) -> Result<String, String> {
        let number = self.g.number(number);
        self.two(op, x, &number)
    }

    fn is(&mut self, op: &str, x: &str, number: f32) -> Result<String, String> {
        let number = self.g.number(number);
        let fact = Fact::new(DType::Bool, self.dims.clone());
        self.g.step_with(op, &[x, &number], vec![], fact)
    }
}

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    let known: &[&str] = match node.op_type.as_str() {
        "Celu" | "ThresholdedRelu" => &["alpha"],
        "Gelu" => &["approximate"],
        "HardSigmoid" => &["alpha", "beta"],
        _ => &[],
    };
    expect_attributes(node, known)?;
    let dims = g.float_dims(node, 0)?;
    let (x, out) = (node.input[0].as_str(), output(node));
    let mut chain = Chain { g, dims: dims.clone() };
    let c = &mut chain;
    let (op, inputs): (&str, [String; 2]) = match node.op_type.as_str() {
        "HardSigmoid" => {
            let (alpha, beta) = (float(node, "alpha", 0.2), float(node, "beta", 0.5));
            let line = line(c, x, alpha, beta)?;
            let low = c.with("Max", &line, 0.0)?;
            ("Min", [low, c.g.number(1.0)])
        }
        "HardSwish" => {
            let line = line(c, x, 1.0 / 6.0, 0.5)?;
            let low = c.with("Max", &line, 0.0)?;
            ("Mul", [x.to_owned(), c.with("Min", &low, 1.0)?])
        }
        "Mish" => {
            let soft = c.one("Softplus", x)?;
            ("Mul", [x.to_owned(), c.one("Tanh", &soft)?])
        }
        "Sign" => return sign(c, x, out),
        "ThresholdedRelu" => {
            let above = c.is("Greater", x, float(node, "alpha", 1.0))?;
            let zero = c.g.number(0.0);
            return c.g.emit("Where", &[&above, x, &zero], out, vec![], dims);
        }
        "Celu" => {
            let below = below(c, x, float(node, "alpha", 1.0))?;
            ("Add", [c.with("Max", x, 0.0)?, below])
        }
        _ => {
            let inner = match text(node, "approximate").unwrap_or(b"none") {
                b"none" => {
                    let scaled = c.with("Mul", x, std::f32::consts::FRAC_1_SQRT_2)?;
                    c.one("Erf", &scaled)?
                }
                b"tanh" => near_error(c, x)?,
                _ => return Err("its approximation is not known".to_owned()),
            };
            let sum = c.with("Add", &inner, 1.0)?;
            ("Mul", [c.with("Mul", x, 0.5)?, sum])
        }
    };
    c.g.emit(op, &[&inputs[0], &inputs[1]], out, vec![], dims)
}

/// `alpha` times, and `beta` more.
fn line(c: &mut Chain<'_>, x: &str, alpha: f32, beta: f32) -> Result<String, String> {
    let scaled = c.with("Mul", x, alpha)?;
    c.with("Add", &scaled, beta)
}

/// Minus one, nothing or one; what is no number stays so.
fn sign(c: &mut Chain<'_>, x: &str, output: &str) -> Outcome {
    let dims = c.dims.clone();
    let mut mark = |op: &str| {
        let is = c.is(op, x, 0.0)?;
        let (one, zero) = (c.g.number(1.0), c.g.number(0.0));
        c.g.step("Where", &[&is, &one, &zero], &dims)
    };
    let (above, below) = (mark("Greater")?, mark("Less")?);
    let sign = c.two("Sub", &above, &below)?;
    let odd = Fact::new(DType::Bool, dims.clone());
    let odd = c.g.step_with("IsNaN", &[x], vec![], odd)?;
    c.g.emit("Where", &[&odd, x, &sign], output, vec![], dims)
}

/// What `Celu` makes of numbers below zero, and nothing of others.
fn below(c: &mut Chain<'_>, x: &str, alpha: f32) -> Result<String, String> {
    let share = c.with("Div", x, alpha)?;
    let power = c.one("Exp", &share)?;
    let less = c.with("Sub", &power, 1.0)?;
    let scaled = c.with("Mul", &less, alpha)?;
    c.with("Min", &scaled, 0.0)
}

/// `Gelu`'s approximation of the error function.
fn near_error(c: &mut Chain<'_>, x: &str) -> Result<String, String> {
    let square = c.two("Mul", x, x)?;
    let cube = c.two("Mul", &square, x)?;
    let small = c.with("Mul", &cube, 0.044_715)?;
    let sum = c.two("Add", x, &small)?;
    let scaled = c.with("Mul", &sum, 0.797_884_6)?;
    c.one("Tanh", &scaled)
}
