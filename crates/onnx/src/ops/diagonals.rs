//! Diagonals of matrices. Only the main one: TensorFlow's bands of several are refused.

use vesta_model::DType;

use super::guards::{choose, counted, facts, reshaped, size, sizes, spread, test, whole};
use super::{expect_movable, guards};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("Diag", |g, c| {
        let id = c.input(0)?;
        if g.rank(id)? != 1 {
            return refuse("a diagonal of more axes than one");
        }
        matrix_of(g, id, None)
    }),
    ("MatrixDiag", |g, c| matrix_of(g, c.input(0)?, None)),
    ("MatrixDiagPart", |g, c| diagonal_of(g, c.input(0)?)),
    ("MatrixDiagPartV2", |g, c| {
        expect_main(g, c.input(1)?)?;
        diagonal_of(g, c.input(0)?)
    }),
    ("MatrixDiagPartV3", |g, c| {
        expect_main(g, c.input(1)?)?;
        diagonal_of(g, c.input(0)?)
    }),
    ("MatrixDiagV2", matrix_of_any_size),
    ("MatrixDiagV3", matrix_of_any_size),
    ("MatrixSetDiag", set_diagonal),
    ("MatrixSetDiagV2", |g, c| {
        expect_main(g, c.input(2)?)?;
        set_diagonal(g, c)
    }),
    ("MatrixSetDiagV3", |g, c| {
        expect_main(g, c.input(2)?)?;
        set_diagonal(g, c)
    }),
];

fn expect_main(g: &Graph, k: ValueId) -> Result<(), Reason> {
    match g.constant_ints(k, "diagonals")?.as_slice() {
        [0] | [0, 0] => Ok(()),
        others => refuse(format!("the diagonals {others:?}, not the main one alone")),
    }
}

fn matrix_of_any_size(g: &mut Graph, c: &Call<'_>) -> Outcome {
    expect_main(g, c.input(1)?)?;
    let shape = [c.input(2)?, c.input(3)?];
    let sizes: Vec<i64> =
        shape.iter().map(|&id| g.constant_int(id, "size")).collect::<Result<_, _>>()?;
    let own = g.dims(c.input(0)?)?.last().and_then(|dim| dim.known());
    let is_square = sizes.iter().all(|&n| n == -1 || usize::try_from(n).ok() == own);
    if !is_square {
        return refuse(format!("a diagonal in a matrix of {sizes:?}"));
    }
    matrix_of(g, c.input(0)?, Some(c.input(4)?))
}

/// Where row and column are the same, of a matrix with these sizes.
fn is_main(g: &mut Graph, sizes: [&str; 2], dims: [Dim; 2]) -> Result<String, Reason> {
    let (rows, columns) = (counted(g, sizes[0], dims[0])?, counted(g, sizes[1], dims[1])?);
    let rows = spread(g, &rows, &[1]);
    Ok(test(g, "Equal", &rows, &columns, &Some(dims.to_vec())))
}

fn matrix_of(g: &mut Graph, id: ValueId, around: Option<ValueId>) -> Outcome {
    let (dtype, mut dims) = (g.get(id).dtype, g.dims(id)?);
    expect_movable(dtype)?;
    let Some(&length) = dims.last() else { return refuse("the diagonal of a scalar") };
    let name = g.plain(id);
    let count = size(g, &name, dims.len() - 1);
    let is_main = is_main(g, [&count, &count], [length, length])?;
    let around = match around {
        Some(id) => g.plain(id),
        None => g.scalar(dtype, 0.0)?,
    };
    let column = spread(g, &name, &[dims.len() as i64]);
    dims.push(length);
    let name = choose(g, [&is_main, &column, &around], &Some(dims));
    Ok(vec![g.result(name)])
}

/// The sizes of the matrices in a tensor, and the length of their diagonals.
struct Matrices {
    rows: String,
    columns: String,
    length: String,
    length_dim: Dim,
}

fn matrices(g: &mut Graph, name: &str, dims: &[Dim]) -> Result<Matrices, Reason> {
    let [.., rows_dim, columns_dim] = dims else {
        return refuse(format!("a matrix of rank {}", dims.len()));
    };
    let rank = dims.len();
    let (rows, columns) = (size(g, name, rank - 2), size(g, name, rank - 1));
    let length_dim = match (rows_dim, columns_dim) {
        (Dim::Known(a), Dim::Known(b)) => Dim::Known(*a.min(b)),
        (a, b) if a == b => *a,
        _ => g.symbol(),
    };
    let length = whole(g, "Min", &rows, &columns, &Some(vec![]));
    Ok(Matrices { rows, columns, length, length_dim })
}

/// Every cell that is one row and one column behind the one before.
fn diagonal_of(g: &mut Graph, id: ValueId) -> Outcome {
    let (dtype, dims) = (g.get(id).dtype, g.dims(id)?);
    expect_movable(dtype)?;
    let name = g.plain(id);
    let it = matrices(g, &name, &dims)?;
    let rank = dims.len();
    let before = &dims[..rank - 2];
    let cells = whole(g, "Mul", &it.rows, &it.columns, &Some(vec![]));
    let cells = g.reshape(&cells, &[1], Some(vec![Dim::Known(1)]));
    let shape = if before.is_empty() {
        cells
    } else {
        let batch = sizes(g, &name, 0, Some(rank - 2));
        guards::joined(g, &[&batch, &cells])
    };
    let mut flat = before.to_vec();
    flat.push(g.symbol());
    let name = reshaped(g, &name, &shape, Some(flat));
    let one = g.scalar(DType::I64, 1.0)?;
    let stride = whole(g, "Add", &it.columns, &one, &Some(vec![]));
    let places = counted(g, &it.length, it.length_dim)?;
    let places = whole(g, "Mul", &places, &stride, &Some(vec![it.length_dim]));
    let mut picked = before.to_vec();
    picked.push(it.length_dim);
    let attributes = vec![("axis", Attr::Int(rank as i64 - 2))];
    let name = g.emit("Gather", &[&name, &places], attributes, dtype, Some(picked));
    Ok(vec![g.result(name)])
}

fn set_diagonal(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, diagonal) = (c.input(0)?, c.input(1)?);
    let (dtype, dims) = (g.get(id).dtype, g.dims(id)?);
    expect_movable(dtype)?;
    let name = g.plain(id);
    let it = matrices(g, &name, &dims)?;
    let rank = dims.len();
    let (rows, columns) = (dims[rank - 2], dims[rank - 1]);
    let is_main = is_main(g, [&it.rows, &it.columns], [rows, columns])?;
    // One number for each column; those past the diagonal's end are not chosen.
    let one = g.scalar(DType::I64, 1.0)?;
    let last = whole(g, "Sub", &it.length, &one, &Some(vec![]));
    let places = counted(g, &it.columns, columns)?;
    let places = whole(g, "Min", &places, &last, &Some(vec![columns]));
    let diagonal = g.plain(diagonal);
    let mut wide = facts(g, &diagonal).1.unwrap_or_default();
    if wide.len() + 1 != rank {
        return refuse("its diagonal is of another rank than its matrices");
    }
    wide[rank - 2] = columns;
    let attributes = vec![("axis", Attr::Int(rank as i64 - 2))];
    let inputs = [&*diagonal, &places];
    let along = g.emit("Gather", &inputs, attributes, dtype, Some(wide));
    let along = spread(g, &along, &[rank as i64 - 2]);
    let name = choose(g, [&is_main, &along, &name], &Some(dims));
    Ok(vec![g.result(name)])
}
