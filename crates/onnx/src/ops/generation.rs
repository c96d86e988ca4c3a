//! Tensors made from their shape.

use vesta_model::DType;

use super::shaping::{runtime_shape, target_dims};
use super::{expect_dtype, guards};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Dims, Element, ValueId};

pub(super) const FAMILY: Family = &[
    ("Fill", fill),
    ("LinSpace", lin_space),
    ("OnesLike", |g, c| like(g, c, 1.0)),
    ("Range", range),
    ("ZerosLike", |g, c| like(g, c, 0.0)),
];

fn fill(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (target, value) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(value).dtype;
    super::expect_movable(dtype)?;
    let dims: Dims = match g.get(target).elements.clone() {
        Some(elements) => Some(target_dims(g, &elements)?),
        None => match g.get(target).dims.as_deref() {
            Some([Dim::Known(rank)]) => Some(g.symbols(*rank)),
            _ => None,
        },
    };
    let (value, shape) = (g.plain(value), g.wide(target)?);
    let name = g.emit("Expand", &[&value, &shape], vec![], dtype, dims);
    Ok(vec![g.result(name)])
}

fn like(g: &mut Graph, c: &Call<'_>, value: f64) -> Outcome {
    let id = c.input(0)?;
    let (dtype, dims) = (g.get(id).dtype, g.get(id).dims.clone());
    let value = g.scalar(dtype, value)?;
    let shape = shape_of(g, id)?;
    let name = g.emit("Expand", &[&value, &shape], vec![], dtype, dims);
    Ok(vec![g.result(name)])
}

/// The sizes of a tensor, stated when they are known.
fn shape_of(g: &mut Graph, id: ValueId) -> Result<String, Reason> {
    match crate::value::known_dims(&g.get(id).dims) {
        Some(dims) => {
            let sizes: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
            Ok(g.ints(&sizes))
        }
        None => Ok(runtime_shape(g, id)),
    }
}

fn range(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids: Vec<ValueId> = vec![c.input(0)?, c.input(1)?, c.input(2)?];
    let dtype = g.get(ids[0]).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64, DType::I32, DType::I64])?;
    let step = g.get(ids[2]).constant.as_ref();
    let step =
        step.and_then(crate::constant::Constant::to_ints).and_then(|all| all.first().copied());
    if step == Some(0) {
        return refuse("its step is 0");
    }
    let mut names: Vec<String> = ids.iter().map(|&id| g.plain(id)).collect();
    if matches!(dtype, DType::I32 | DType::I64) && !surely_ascends(g, &ids, step) {
        names[2] = towards(g, &names, dtype)?;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let size = g.symbol();
    // The operator set has no attributes for it; those of later ones are their defaults.
    let attributes: Vec<(&'static str, Attr)> = vec![];
    let name = g.emit("Range", &names, attributes, dtype, Some(vec![size]));
    Ok(vec![g.result(name)])
}

/// Whether a range is one from 0 up to a size.
fn surely_ascends(g: &Graph, ids: &[ValueId], step: Option<i64>) -> bool {
    let first = |id: ValueId| g.get(id).elements.as_ref().and_then(|all| all.first().copied());
    let (start, limit) = (first(ids[0]), first(ids[1]));
    match (step, start, limit) {
        (Some(1..), Some(Element::Known(..=0)), Some(Element::Size(_))) => true,
        (Some(1..), Some(Element::Known(a)), Some(Element::Known(b))) => a <= b,
        (Some(..=-1), Some(Element::Known(a)), Some(Element::Known(b))) => a >= b,
        _ => false,
    }
}

/// The step, in a run that fails where it is 0 or leads away from the end.
fn towards(g: &mut Graph, names: &[String], dtype: DType) -> Result<String, Reason> {
    let [start, limit, step] = names else { return refuse("a range without its ends") };
    let (scalar, zero) = (Some(vec![]), g.scalar(dtype, 0.0)?);
    let is_none = guards::test(g, "Equal", step, &zero, &scalar);
    let is_down = guards::test(g, "Less", step, &zero, &scalar);
    let is_up = guards::test(g, "Greater", step, &zero, &scalar);
    let is_past = guards::test(g, "Greater", start, limit, &scalar);
    let is_before = guards::test(g, "Less", start, limit, &scalar);
    let above = guards::test(g, "And", &is_up, &is_past, &scalar);
    let below = guards::test(g, "And", &is_down, &is_before, &scalar);
    let away = guards::test(g, "Or", &above, &below, &scalar);
    let is_wrong = guards::test(g, "Or", &is_none, &away, &scalar);
    Ok(guards::unless(
        g,
        step,
        &is_wrong,
        "the step of a range must lead from its start to its limit",
    ))
}

/// Steps of one width from one number to another, the last of them the other itself.
fn lin_space(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (start, stop, number) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dtype = g.get(start).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let known = g.constant_int(number, "number").ok();
    let dim = match known.map(usize::try_from) {
        Some(Ok(n)) if n > 0 => Dim::Known(n),
        Some(_) => return refuse("a number of steps that is not above 0"),
        None => g.symbol(),
    };
    let (start, stop) = (g.plain(start), g.plain(stop));
    let (scalar, line) = (Some(vec![]), Some(vec![dim]));
    let wide = g.wide(number)?;
    let wide = g.reshape(&wide, &[], scalar.clone());
    let one = g.scalar(DType::I64, 1.0)?;
    let wide = match known {
        Some(_) => wide,
        None => {
            let is_none = guards::test(g, "Less", &wide, &one, &scalar);
            guards::unless(g, &wide, &is_none, "Requires num > 0")
        }
    };
    let steps = guards::whole(g, "Sub", &wide, &one, &scalar);
    // One number alone is the start.
    let divisor = guards::whole(g, "Max", &steps, &one, &scalar);
    let divisor = g.cast(&divisor, dtype, scalar.clone());
    let span = guards::two(g, "Sub", &stop, &start, (dtype, scalar.clone()));
    let step = guards::two(g, "Div", &span, &divisor, (dtype, scalar.clone()));
    let at = guards::counted(g, &wide, dim)?;
    let numbers = g.cast(&at, dtype, line.clone());
    let way = guards::two(g, "Mul", &numbers, &step, (dtype, line.clone()));
    let all = guards::two(g, "Add", &start, &way, (dtype, line.clone()));
    let are_many = guards::test(g, "Greater", &wide, &one, &scalar);
    let last = guards::choose(g, [&are_many, &stop, &start], &scalar);
    let is_last = guards::test(g, "Equal", &at, &steps, &line);
    let name = guards::choose(g, [&is_last, &last, &all], &line);
    Ok(vec![g.result(name)])
}
