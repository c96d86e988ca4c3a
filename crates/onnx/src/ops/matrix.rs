//! Products of matrices, and the bias that follows them.

use super::layout::{combine, is_channels_first};
use super::{FLOATS, NUMBERS, WIDE_NUMBERS, expect_dtype, expect_movable, folding};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Dims, ValueId};
use vesta_model::DType;

pub(super) const FAMILY: Family = &[
    ("BatchMatMul", |g, c| product(g, c, "adj_x", "adj_y")),
    ("BatchMatMulV2", |g, c| product(g, c, "adj_x", "adj_y")),
    ("BatchMatMulV3", |g, c| product(g, c, "adj_x", "adj_y")),
    ("BiasAdd", bias_add),
    ("BiasAddV1", bias_add),
    ("Cross", cross),
    ("Einsum", einsum),
    ("MatrixBandPart", band),
    ("MatMul", |g, c| product(g, c, "transpose_a", "transpose_b")),
];

pub(super) fn product(g: &mut Graph, c: &Call<'_>, left: &str, right: &str) -> Outcome {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(a).dtype;
    expect_dtype(dtype, WIDE_NUMBERS)?;
    if c.dtype("Tout", dtype)? != dtype || g.get(b).dtype != dtype {
        return refuse("a product into another dtype");
    }
    let (a, a_dims) = side(g, a, c.flag(left, false)?)?;
    let (b, b_dims) = side(g, b, c.flag(right, false)?)?;
    let dims = product_dims(g, a_dims, b_dims);
    let name = g.emit("MatMul", &[&a, &b], vec![], dtype, dims);
    Ok(vec![g.result(name)])
}

/// One side, with its last two axes swapped when asked.
fn side(g: &mut Graph, id: ValueId, is_transposed: bool) -> Result<(String, Dims), Reason> {
    if !is_transposed {
        return Ok((g.plain(id), g.get(id).dims.clone()));
    }
    let mut dims = g.dims(id)?;
    let rank = dims.len();
    if rank < 2 {
        return refuse(format!("a matrix of rank {rank}"));
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 1, rank - 2);
    dims.swap(rank - 1, rank - 2);
    let turned = g.get(id).constant.as_ref().and_then(|constant| constant.permuted(&order));
    let name = match turned {
        Some(constant) => g.initializer(constant),
        None => {
            let (plain, dtype) = (g.plain(id), g.get(id).dtype);
            g.transpose(&plain, &order, dtype, Some(dims.clone()))
        }
    };
    Ok((name, Some(dims)))
}

fn product_dims(g: &mut Graph, a: Dims, b: Dims) -> Dims {
    let (mut a, mut b) = (a?, b?);
    let (columns, _) = (b.pop()?, b.pop()?);
    let (_, rows) = (a.pop()?, a.pop()?);
    let mut dims = g.broadcast(&Some(a), &Some(b))?;
    dims.extend([rows, columns]);
    Some(dims)
}

/// Products of vectors of three along the last axis.
fn cross(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let (dtype, dims) = (g.get(a).dtype, g.dims(a)?);
    expect_dtype(dtype, NUMBERS)?;
    if dims.last() != Some(&Dim::Known(3)) {
        return refuse("its vectors are not known to be of three");
    }
    let (names, all) = ([g.plain(a), g.plain(b)], Some(dims));
    let turned = |g: &mut Graph, name: &str, order: &[i64]| {
        let order = g.ints(order);
        g.emit("Gather", &[name, &order], vec![("axis", Attr::Int(-1))], dtype, all.clone())
    };
    let (next, last) = ([1, 2, 0], [2, 0, 1]);
    let [a_next, b_next] = [turned(g, &names[0], &next), turned(g, &names[1], &next)];
    let [a_last, b_last] = [turned(g, &names[0], &last), turned(g, &names[1], &last)];
    let with = g.emit("Mul", &[&a_next, &b_last], vec![], dtype, all.clone());
    let against = g.emit("Mul", &[&a_last, &b_next], vec![], dtype, all.clone());
    let name = g.emit("Sub", &[&with, &against], vec![], dtype, all);
    Ok(vec![g.result(name)])
}

pub(super) fn bias_add(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, bias) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let dims = g.get(id).dims.clone();
    if c.text("data_format", "NHWC")? == "NHWC" {
        if let Some(folded) = folding::add_bias(g, id, bias) {
            return Ok(vec![folded]);
        }
        if is_channels_first(g, id) && g.get(bias).constant.is_none() {
            let rank = g.rank(id)?;
            let name = behind_batch(g, bias, rank)?;
            let image = g.channels_first(id)?;
            let fact = g.facts.get(&image).and_then(|fact| fact.1.clone());
            let name = g.emit("Add", &[&image, &name], vec![], dtype, fact);
            return Ok(vec![g.result_channels_first(name)]);
        }
        return Ok(vec![combine(g, "Add", &[id, bias], vec![], dtype, dims)?]);
    }
    let rank = g.rank(id)?;
    let (image, bias) = (g.plain(id), behind_batch(g, bias, rank)?);
    let name = g.emit("Add", &[&image, &bias], vec![], dtype, dims);
    Ok(vec![g.result(name)])
}

/// A vector as it adds to the second axis of a tensor of `rank`.
fn behind_batch(g: &mut Graph, bias: ValueId, rank: usize) -> Result<String, Reason> {
    let [length] = g.dims(bias)?[..] else { return refuse("a bias that is no vector") };
    let trailing = rank.saturating_sub(2);
    if let (Dim::Known(n), Some(constant)) = (length, g.get(bias).constant.as_ref()) {
        let mut dims = vec![n];
        dims.resize(trailing + 1, 1);
        if let Some(constant) = constant.reshaped(&dims) {
            return Ok(g.initializer(constant));
        }
    }
    let mut dims = vec![length];
    dims.resize(trailing + 1, Dim::Known(1));
    let mut sizes = vec![-1];
    sizes.resize(trailing + 1, 1);
    let name = g.plain(bias);
    Ok(g.reshape(&name, &sizes, Some(dims)))
}

/// Equations of named axes alone; ONNX writes them as TensorFlow does.
fn einsum(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let first = c.input(0)?;
    let dtype = g.get(first).dtype;
    expect_dtype(dtype, FLOATS)?;
    let equation: String =
        c.text("equation", "")?.chars().filter(|letter| !letter.is_whitespace()).collect();
    let equation = without_ellipsis(g, c, equation)?;
    let Some((inputs, output)) = equation.split_once("->") else {
        return refuse("an equation without a result");
    };
    let named = |axes: &str| axes.chars().all(|axis| axis.is_ascii_alphabetic());
    let terms: Vec<&str> = inputs.split(',').collect();
    if !named(output) || !terms.iter().all(|axes| named(axes)) || terms.len() != c.inputs.len() {
        return refuse(format!("the equation {equation}"));
    }
    let mut sizes: Vec<(char, Dim)> = Vec::new();
    for (term, &id) in terms.iter().zip(&c.inputs) {
        let dims = g.dims(id)?;
        let repeats = term.chars().enumerate().any(|(i, a)| term[..i].contains(a));
        if repeats || dims.len() != term.len() {
            return refuse(format!("the equation {equation}"));
        }
        sizes.extend(term.chars().zip(dims));
    }
    let size = |axis: char| {
        let all = || sizes.iter().filter(move |(name, _)| *name == axis).map(|(_, dim)| *dim);
        all().find(|dim| dim.known().is_some()).or_else(|| all().next())
    };
    let Some(dims) = output.chars().map(size).collect::<Option<Vec<Dim>>>() else {
        return refuse(format!("the equation {equation}"));
    };
    let names: Vec<String> = c.inputs.iter().map(|&id| g.plain(id)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let attributes = vec![("equation", Attr::Equation(equation))];
    let name = g.emit("Einsum", &names, attributes, dtype, Some(dims));
    Ok(vec![g.result(name)])
}

/// An equation in which the axes of an ellipsis have letters, too: not every engine knows one.
fn without_ellipsis(g: &Graph, c: &Call<'_>, equation: String) -> Result<String, Reason> {
    const DOTS: &str = "...";
    let Some((inputs, output)) = equation.split_once("->").filter(|_| equation.contains(DOTS))
    else {
        return Ok(equation);
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    let mut ranks = Vec::new();
    for (term, &id) in terms.iter().zip(&c.inputs) {
        if term.contains(DOTS) {
            let named = term.len() - DOTS.len();
            ranks.push(g.rank(id)?.saturating_sub(named));
        }
    }
    // Letters broadcast over nothing: an ellipsis that stands for fewer axes, or for one of size 1
    // beside a larger one, has no equation of letters.
    let rank = ranks.first().copied().unwrap_or(0);
    let free: String = ('A'..='Z').filter(|&letter| !equation.contains(letter)).collect();
    if ranks.iter().any(|&other| other != rank) || rank > free.len() {
        return refuse(format!("the equation {equation}"));
    }
    let sizes = |term: &str, id: ValueId| -> Option<Vec<Dim>> {
        let at = term.find(DOTS)?;
        Some(g.get(id).dims.as_ref()?.get(at..at + rank)?.to_vec())
    };
    let mut known: Option<Vec<Dim>> = None;
    for (term, &id) in terms.iter().zip(&c.inputs).filter(|(term, _)| term.contains(DOTS)) {
        let own = sizes(term, id);
        let alike = match (&known, &own) {
            (None, _) => true,
            (Some(known), Some(own)) => known == own,
            _ => false,
        };
        if !alike {
            return refuse(format!("the axes that the equation {equation} leaves open may differ"));
        }
        known = own;
    }
    let letters = &free[..rank];
    let written: Vec<String> = terms.iter().map(|term| term.replace(DOTS, letters)).collect();
    Ok(format!("{}->{}", written.join(","), output.replace(DOTS, letters)))
}

/// The diagonal with some below and some above; less than none means all.
fn band(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_movable(dtype)?;
    // Engines have few kernels of it; in these, each value of the others is there exactly.
    let wide = match dtype {
        DType::Bool | DType::F16 => DType::F32,
        DType::I8 | DType::I16 | DType::I32 | DType::U8 | DType::U16 | DType::U32 => DType::I64,
        _ => dtype,
    };
    let (below, above) =
        (g.constant_int(c.input(1)?, "lower band")?, g.constant_int(c.input(2)?, "upper band")?);
    let dims = g.dims(id)?;
    if dims.len() < 2 {
        return refuse(format!("a matrix of rank {}", dims.len()));
    }
    let mut name = g.plain(id);
    if wide != dtype {
        name = g.cast(&name, wide, Some(dims.clone()));
    }
    for (upper, shift) in [(0, above), (1, below)] {
        if shift < 0 {
            continue;
        }
        let shift = if upper == 1 { -shift } else { shift };
        let Some(shift) = Constant::whole(DType::I64, &[], &[shift]) else {
            return refuse("its band has no constant");
        };
        let scalar = g.initializer(shift);
        let attributes = vec![("upper", Attr::Int(upper))];
        name = g.emit("Trilu", &[&name, &scalar], attributes, wide, Some(dims.clone()));
    }
    if wide != dtype {
        name = g.cast(&name, dtype, Some(dims));
    }
    Ok(vec![g.result(name)])
}
