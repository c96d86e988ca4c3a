//! What networks were trained by, where a graph still has it.

use vesta_model::DType;

use super::arithmetic::{over, pair};
use super::expect_dtype;
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::refuse;
use crate::registry::{Family, Outcome};

pub(super) const FAMILY: Family = &[("SoftmaxCrossEntropyWithLogits", cross_entropy)];

/// The loss of each row, and its gradient.
fn cross_entropy(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [features, labels] = pair(c)?;
    let dtype = g.get(features).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let dims = g.dims(features)?;
    if dims.len() != 2 || g.rank(labels)? != 2 {
        return refuse("its features and labels are no matrices");
    }
    let name = g.plain(features);
    let along = || vec![("axis", Attr::Int(-1))];
    let logarithms = g.emit("LogSoftmax", &[&name], along(), dtype, Some(dims.clone()));
    let shares = g.emit("Softmax", &[&name], along(), dtype, Some(dims));
    let (logarithms, shares) = (g.result(logarithms), g.result(shares));
    let products = over(g, "Mul", &[labels, logarithms])?;
    let rows = g.get(products).dims.as_ref().map(|dims| vec![dims[0]]);
    let (products, axes) = (g.plain(products), g.ints(&[1]));
    let attributes = vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    let sums = g.emit("ReduceSum", &[&products, &axes], attributes, dtype, rows.clone());
    let losses = g.emit("Neg", &[&sums], vec![], dtype, rows);
    let gradient = over(g, "Sub", &[shares, labels])?;
    Ok(vec![g.result(losses), gradient])
}
