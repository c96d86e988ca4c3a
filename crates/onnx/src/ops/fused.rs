//! Several operators in one, as TensorFlow's own optimisers leave them in graphs that were saved after
//! they ran.

use vesta_protos::tensorflow::attr_value::Value as Attribute;

use super::{convolution, elementwise, matrix, normalization, padding};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::ValueId;

pub(super) const FAMILY: Family = &[
    ("FusedPadConv2D", padded_convolution),
    ("_FusedConv2D", |g, c| followed(g, c, |g, c| convolution::convolve(g, c, 4))),
    ("_FusedMatMul", |g, c| {
        followed(g, c, |g, c| matrix::product(g, c, "transpose_a", "transpose_b"))
    }),
];

/// Names in a list of strings.
fn names(c: &Call<'_>, attribute: &str) -> Result<Vec<String>, Reason> {
    match c.attribute(attribute) {
        Some(Attribute::List(list)) => {
            Ok(list.s.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        }
        _ => refuse(format!("it has no list {attribute}")),
    }
}

fn with<'c>(c: &Call<'c>, inputs: Vec<ValueId>) -> Call<'c> {
    Call { inputs, ..c.clone() }
}

/// A product of two inputs, then what its node names. What is between has one reader.
fn followed(g: &mut Graph, c: &Call<'_>, product: fn(&mut Graph, &Call<'_>) -> Outcome) -> Outcome {
    let steps = names(c, "fused_ops")?;
    let mut rest = c.inputs.iter().skip(2).copied();
    let mut next =
        || rest.next().ok_or_else(|| Reason("an input of a fused step is absent".into()));
    let mut id = product(g, &with(c, vec![c.input(0)?, c.input(1)?]))?[0];
    for step in &steps {
        g.get_mut(id).uses = 1;
        id = match step.as_str() {
            "BiasAdd" => matrix::bias_add(g, &with(c, vec![id, next()?]))?[0],
            "FusedBatchNorm" => {
                let inputs = vec![id, next()?, next()?, next()?, next()?];
                normalization::with_statistics(g, &with(c, inputs))?[0]
            }
            "LeakyRelu" => {
                let slope = c.float("leakyrelu_alpha", 0.2)?;
                let alpha = vec![("alpha", Attr::Float(slope))];
                elementwise::activation(g, &with(c, vec![id]), "LeakyRelu", alpha)?[0]
            }
            "Elu" | "Relu" | "Relu6" | "Sigmoid" | "Tanh" => {
                let Some(activation) = crate::registry::translator(step) else {
                    return refuse(format!("it is followed by {step}"));
                };
                activation(g, &with(c, vec![id]))?[0]
            }
            other => return refuse(format!("it is followed by {other}")),
        };
    }
    g.get_mut(id).uses = 0;
    Ok(vec![id])
}

/// Padding by mirrors or zeros, then a convolution.
fn padded_convolution(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let image = padding::mirror_pad(g, &with(c, vec![c.input(0)?, c.input(1)?]))?[0];
    convolution::convolve(g, &with(c, vec![image, c.input(2)?]), 4)
}
