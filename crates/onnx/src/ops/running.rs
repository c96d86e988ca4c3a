//! Products that go on from cell to cell.

use vesta_model::DType;

use super::guards::{counted, size, two, whole};
use super::{FLOATS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph, Subgraph, axis_of};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, permute};

pub(super) const FAMILY: Family = &[("Cumprod", cumulative_product)];

/// A loop, since only one product after the other overflows where TensorFlow's does.
fn cumulative_product(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    if !FLOATS.contains(&dtype) {
        expect_dtype(dtype, &[DType::I32, DType::I64])?;
    }
    let dims = g.dims(id)?;
    let axis = axis_of(g.constant_int(c.input(1)?, "axis")?, dims.len())?;
    let (is_exclusive, is_reverse) = (c.flag("exclusive", false)?, c.flag("reverse", false)?);
    // The axis first, and from its end where it is asked for.
    let mut order: Vec<usize> = (0..dims.len()).collect();
    order.remove(axis);
    order.insert(0, axis);
    let moved = permute(&dims, &order);
    let name = g.plain(id);
    let name = g.transpose(&name, &order, dtype, Some(moved.clone()));
    let number = size(g, &name, 0);
    let line = Some(vec![moved[0]]);
    let cells = counted(g, &number, moved[0])?;
    let turned = if is_reverse {
        let one = g.scalar(DType::I64, 1.0)?;
        let last = whole(g, "Sub", &number, &one, &Some(vec![]));
        Some(whole(g, "Sub", &last, &cells, &line))
    } else {
        None
    };
    let pick = |g: &mut Graph, name: &str| match &turned {
        None => name.to_owned(),
        Some(from) => {
            let attributes = vec![("axis", Attr::Int(0))];
            g.emit("Gather", &[name, from], attributes, dtype, Some(moved.clone()))
        }
    };
    let rows = pick(g, &name);
    let row_dims: Vec<Dim> = moved[1..].to_vec();
    let one = g.scalar(dtype, 1.0)?;
    let shape = super::guards::sizes(g, &rows, 1, None);
    let start = g.emit("Expand", &[&one, &shape], vec![], dtype, Some(row_dims.clone()));
    let outer = g.enter();
    let at = g.argument(DType::I64, Some(vec![]));
    let goes_on = g.argument(DType::Bool, Some(vec![]));
    let before = g.argument(dtype, Some(row_dims.clone()));
    let attributes = vec![("axis", Attr::Int(0))];
    let row = g.emit("Gather", &[&rows, &at], attributes, dtype, Some(row_dims.clone()));
    let after = two(g, "Mul", &before, &row, (dtype, Some(row_dims.clone())));
    let again = g.emit("Identity", &[&goes_on], vec![], DType::Bool, Some(vec![]));
    let told = if is_exclusive { &before } else { &after };
    let told = g.emit("Identity", &[told], vec![], dtype, Some(row_dims.clone()));
    let nodes = g.leave(outer);
    let graph =
        Subgraph { inputs: vec![at, goes_on, before], nodes, outputs: vec![again, after, told] };
    let given = vec![(dtype, Some(row_dims)), (dtype, Some(moved.clone()))];
    let attributes = vec![("body", Attr::Graph(Box::new(graph)))];
    let mut names = g.emit_many("Loop", &[&number, "", &start], attributes, given);
    let name = names.pop().unwrap_or_default();
    let name = pick(g, &name);
    let mut back = vec![0; dims.len()];
    order.iter().enumerate().for_each(|(at, &axis)| back[axis] = at);
    let name = g.transpose(&name, &back, dtype, Some(dims));
    Ok(vec![g.result(name)])
}
