//! Operators that give what they are given, and constants.

use super::{expect_dtype, spectra};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;
use crate::refusal::refuse;
use crate::registry::{Family, Outcome};
use crate::translate::alias;
use crate::value::Value;
use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value as Attribute;

pub(super) const FAMILY: Family = &[
    ("Assert", assert),
    ("Const", constant),
    ("GuaranteeConst", identity),
    ("Identity", identity),
    ("IdentityN", identity_n),
    ("NoOp", |_, _| Ok(vec![])),
    ("Placeholder", |_, _| refuse("an input of the graph that the signature does not feed")),
    ("PlaceholderWithDefault", identity),
    ("PreventGradient", identity),
    ("Snapshot", identity),
    ("StopGradient", identity),
    ("VarHandleOp", handle),
];

fn constant(g: &mut Graph, c: &Call<'_>) -> Outcome {
    match c.attribute("value") {
        Some(Attribute::Tensor(tensor)) if tensor.dtype == DType::Complex64.number() => {
            spectra::constant(g, tensor)
        }
        Some(Attribute::Tensor(tensor)) => {
            let constant = Constant::read(tensor)?;
            let declared = c.dtype("dtype", constant.dtype)?;
            if declared != constant.dtype {
                return refuse(format!("a {} that is declared as {declared}", constant.dtype));
            }
            Ok(vec![g.constant(constant)])
        }
        _ => refuse("a constant without a value"),
    }
}

fn identity(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    Ok(vec![alias(g, id)])
}

fn identity_n(g: &mut Graph, c: &Call<'_>) -> Outcome {
    Ok(c.inputs.iter().map(|&id| alias(g, id)).collect())
}

/// What a branch or loop hands on to its functions. Their variables are constants by now, so nothing
/// reads it.
fn handle(g: &mut Graph, _: &Call<'_>) -> Outcome {
    Ok(vec![g.add(Value::new(DType::Resource, None))])
}

/// A check of known outcome needs no node; any other could fail, which ONNX cannot say.
fn assert(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let condition = g.get(c.input(0)?);
    expect_dtype(condition.dtype, &[DType::Bool])?;
    let known = condition.constant.as_ref().and_then(Constant::to_ints);
    if known.is_some_and(|values| values.iter().all(|&value| value == 1)) {
        return Ok(vec![]);
    }
    refuse("a check that can fail when the model runs")
}
