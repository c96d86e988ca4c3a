//! Operators that take parts of a tensor, or put something around it.

use vesta_protos::onnx::NodeProto;

use super::{
    Outcome, axis_of, expect_attributes, expect_inputs, int, ints, output, output_at, signed, text,
};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::{Dims, Fact};
use crate::embedded::onnx::graph::{Graph, Written, input};

pub(super) const ALL: &[&str] = &["Gather", "Pad", "Slice", "Split"];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "Gather" => gather(g, node),
        "Pad" => pad(g, node),
        "Slice" => slice(g, node),
        _ => split(g, node),
    }
}

/// How one axis is cut: the first place, the one behind the last, and the step. Ends are counted from the
/// start of the axis; of a step below zero the last end may be before it.
struct Cut {
    start: Extent,
    end: Extent,
    step: i64,
    size: Extent,
}

/// Further than any axis goes.
const FAR: i64 = i32::MAX as i64;

/// The axes that are cut, and how.
fn cuts(g: &mut Graph, node: &NodeProto) -> Result<Vec<(usize, Cut)>, String> {
    let dims = g.dims(node, 0)?;
    let (starts, ends, axes, steps) = if g.opset < 10 {
        expect_inputs(node, 1..=1)?;
        expect_attributes(node, &["axes", "ends", "starts"])?;
        let of = |name: &str| ints(node, name).unwrap_or_default().into_iter().map(Extent::from);
        (of("starts").collect(), of("ends").collect::<Vec<_>>(), ints(node, "axes"), None)
    } else {
        expect_inputs(node, 3..=5)?;
        expect_attributes(node, &[])?;
        let given = |at: usize| input(node, at).map(|_| g.integers(node, at)).transpose();
        (g.numbers(node, 1)?, g.numbers(node, 2)?, given(3)?, given(4)?)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("its ends are not of as many axes".to_owned());
    }
    let mut cuts = Vec::new();
    for at in 0..starts.len() {
        let axis = axis_of(axes[at], dims.len())?;
        if cuts.iter().any(|(own, _)| *own == axis) {
            return Err("it names an axis twice".to_owned());
        }
        let cut = match steps[at] {
            0 => return Err("it has a step of nothing".to_owned()),
            step if step > 0 => up(g, &dims[axis], &starts[at], &ends[at], step)?,
            step => down(&dims[axis], &starts[at], &ends[at], step)?,
        };
        cuts.push((axis, cut));
    }
    Ok(cuts)
}

fn up(g: &mut Graph, dim: &Extent, start: &Extent, end: &Extent, step: i64) -> Result<Cut, String> {
    let zero = Extent::from(0);
    let mut place = |of: &Extent| match of.known() {
        Some(of) if of >= FAR => Ok(dim.clone()),
        Some(of) if of <= -FAR => Ok(zero.clone()),
        Some(of) if of < 0 => {
            let from_end = dim.plus(&Extent::from(of))?;
            g.extents.larger(&from_end, &zero)
        }
        Some(_) => g.extents.smaller(of, dim),
        None if of.times(&Extent::from(-1))?.is_natural() => {
            let from_end = dim.plus(of)?;
            g.extents.larger(&from_end, &zero)
        }
        // Below zero it would count from the end.
        None => {
            let of = g.extents.natural(of);
            g.extents.smaller(&of, dim)
        }
    };
    let (start, end) = (place(start)?, place(end)?);
    let way = g.extents.larger(&end.minus(&start)?, &zero)?;
    let rounded = way.plus(&Extent::from(step.min(FAR) - 1))?;
    let size = g.extents.quotient(&rounded, &Extent::from(step.min(FAR)))?;
    Ok(Cut { start, end, step: step.min(FAR), size })
}

/// Of a known size, or all of it turned around.
fn down(dim: &Extent, start: &Extent, end: &Extent, step: i64) -> Result<Cut, String> {
    let lost = "its way back cannot be followed";
    let (start, end) = (start.known().ok_or(lost)?, end.known().ok_or(lost)?);
    let Some(size) = dim.known() else {
        if step == -1 && (start == -1 || start >= FAR) && end <= -FAR {
            let last = dim.minus(&Extent::from(1))?;
            return Ok(Cut { start: last, end: (-FAR).into(), step, size: dim.clone() });
        }
        return Err(lost.to_owned());
    };
    let from_start = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let start = from_start(start).clamp(-1, size - 1);
    let end = from_start(end).clamp(-1, size - 1);
    let step = step.max(-FAR);
    let count = ((start - end).max(0) - step - 1) / -step;
    let end = if end < 0 { -FAR } else { end };
    let start = start.max(0);
    Ok(Cut { start: start.into(), end: end.into(), step, size: count.into() })
}

/// Start, step and count.
pub(super) type WholeCut = (i64, i64, usize);

/// How each axis is cut, if all of it is known.
pub(super) fn whole_cuts(g: &mut Graph, node: &NodeProto) -> Result<Option<Vec<WholeCut>>, String> {
    let dims = g.dims(node, 0)?;
    let Some(mut all) =
        dims.iter().map(|dim| Some((0, 1, dim.size()?))).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    for (axis, cut) in cuts(g, node)? {
        let (Some(start), Some(size)) = (cut.start.known(), cut.size.size()) else {
            return Ok(None);
        };
        all[axis] = (start, cut.step, size);
    }
    Ok(Some(all))
}

fn slice(g: &mut Graph, node: &NodeProto) -> Outcome {
    let mut fact = g.fact(node, 0)?.clone();
    fact.elements = None;
    let cuts = cuts(g, node)?;
    let is_cut = |(axis, cut): &(usize, Cut)| cut.step != 1 || cut.size != fact.dims[*axis];
    let cuts: Vec<(usize, Cut)> = cuts.into_iter().filter(is_cut).collect();
    if cuts.is_empty() {
        return g.emit_all("Identity", &[&node.input[0]], vec![], &[(output(node), fact)]);
    }
    write_cuts(g, &node.input[0], output(node), fact, cuts)
}

fn write_cuts(
    g: &mut Graph,
    from: &str,
    output: &str,
    mut fact: Fact,
    cuts: Vec<(usize, Cut)>,
) -> Outcome {
    let of = |each: fn(&Cut) -> Extent| -> Dims { cuts.iter().map(|(_, cut)| each(cut)).collect() };
    let (starts, ends) = (of(|cut| cut.start.clone()), of(|cut| cut.end.clone()));
    let (starts, ends) = (g.vector(&starts), g.vector(&ends));
    let axes: Vec<usize> = cuts.iter().map(|(axis, _)| *axis).collect();
    let axes = g.ints(&signed(&axes));
    let steps: Vec<i64> = cuts.iter().map(|(_, cut)| cut.step).collect();
    let steps = g.ints(&steps);
    for (axis, cut) in cuts {
        fact.dims[axis] = cut.size;
    }
    g.emit_all("Slice", &[from, &starts, &ends, &axes, &steps], vec![], &[(output, fact)])
}

/// Into parts of sizes that are named, or equal ones; of the latter the last may be smaller where the file
/// says how many there are.
fn split(g: &mut Graph, node: &NodeProto) -> Outcome {
    let in_input = g.opset >= 13;
    expect_inputs(node, 1..=if in_input { 2 } else { 1 })?;
    expect_attributes(node, &["axis", "num_outputs", "split"])?;
    let fact = g.fact(node, 0)?.clone();
    let axis = axis_of(int(node, "axis", 0), fact.dims.len())?;
    let dim = fact.dims[axis].clone();
    let count = node.output.len() as i64;
    let parts = match in_input {
        true => input(node, 1).map(|_| g.integers(node, 1)).transpose()?,
        false => ints(node, "split"),
    };
    let sizes: Vec<Extent> = match parts {
        Some(parts) => {
            let sum = parts.iter().try_fold(0i64, |sum, &own| sum.checked_add(own));
            let is_odd = parts.len() as i64 != count || parts.iter().any(|&own| own < 0);
            if is_odd || sum.is_none_or(|sum| !dim.is(sum)) {
                return Err("its parts are not all of a known size".to_owned());
            }
            parts.into_iter().map(Extent::from).collect()
        }
        None => {
            let all = dim.known().ok_or("it splits an open size")?;
            let own = if count > 0 { (all + count - 1) / count } else { 0 };
            let last = all - own * (count - 1);
            if count == 0 || last < 0 || (last != own && g.opset < 18) {
                return Err("its parts are not equal".to_owned());
            }
            (0..count).map(|at| if at + 1 < count { own } else { last }.into()).collect()
        }
    };
    let mut start = Extent::from(0);
    for (at, size) in sizes.into_iter().enumerate() {
        let end = start.plus(&size)?;
        let name = output_at(node, at);
        if !name.is_empty() {
            let cut = Cut { start, end: end.clone(), step: 1, size };
            let mut own = fact.clone();
            own.elements = None;
            write_cuts(g, &node.input[0], name, own, vec![(axis, cut)])?;
        }
        start = end;
    }
    Ok(())
}

/// An index may count from the end; one out of range ends the run.
fn gather(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &["axis"])?;
    let mut fact = g.fact(node, 0)?.clone();
    let which = g.fact(node, 1)?.clone();
    if !matches!(which.dtype, vesta_model::DType::I32 | vesta_model::DType::I64) {
        return Err(format!("its indices are of {}", which.dtype));
    }
    let axis = axis_of(int(node, "axis", 0), fact.dims.len())?;
    let known = which.elements.iter().flat_map(|all| all.iter()).filter_map(Extent::known);
    if let Some(dim) = fact.dims[axis].known()
        && known.into_iter().any(|own| own < -dim || own >= dim)
    {
        return Err("its indices are out of range".to_owned());
    }
    fact.dims.splice(axis..=axis, which.dims);
    fact.elements = None;
    let attributes = vec![("axis", Written::Int(axis as i64))];
    let inputs = [node.input[0].as_str(), &node.input[1]];
    g.emit_all("Gather", &inputs, attributes, &[(output(node), fact)])
}

fn pad(g: &mut Graph, node: &NodeProto) -> Outcome {
    let dims = g.float_dims(node, 0)?;
    let is_early = g.opset < 11;
    expect_inputs(node, if is_early { 1..=1 } else { 2..=4 })?;
    expect_attributes(node, if is_early { &["mode", "pads", "value"] } else { &["mode"] })?;
    let (stated, axes) = match is_early {
        true => {
            (ints(node, "pads").unwrap_or_default().into_iter().map(Extent::from).collect(), None)
        }
        false => {
            let axes = input(node, 3).map(|_| g.integers(node, 3)).transpose()?;
            (g.numbers(node, 1)?, axes)
        }
    };
    let axes = axes.unwrap_or_else(|| (0..dims.len() as i64).collect());
    if stated.len() != 2 * axes.len() {
        return Err("its ends are not of as many axes".to_owned());
    }
    let mut pads = vec![Extent::from(0); 2 * dims.len()];
    for (at, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, dims.len())?;
        for (from, to) in [(at, axis), (at + axes.len(), axis + dims.len())] {
            if stated[from].known().is_some_and(|own| own < 0) {
                return Err("it cuts off".to_owned());
            }
            pads[to] = g.extents.natural(&stated[from]);
        }
    }
    let value = match (is_early, input(node, 2)) {
        (true, _) => super::float(node, "value", 0.0),
        (false, None) => 0.0,
        (false, Some(_)) => *g.floats(node, 2)?.first().ok_or("its value is no number")?,
    };
    let mode = match text(node, "mode").unwrap_or(b"constant") {
        b"constant" => "constant",
        b"reflect" => "reflect",
        b"edge" => "edge",
        _ => return Err("its mode is not known".to_owned()),
    };
    pad_by(g, &node.input[0], output(node), &pads, (mode, value))
}

/// Puts something around floats: the ends before all axes, then those behind.
pub(super) fn pad_by(
    g: &mut Graph,
    from: &str,
    output: &str,
    pads: &[Extent],
    (mode, value): (&'static str, f32),
) -> Outcome {
    let dims = g.fact_of(from)?.dims.clone();
    let rank = dims.len();
    let outer = |at: usize| rank >= 3 && at % rank < rank - 2 && !pads[at].is(0);
    if mode != "constant" && rank == 2 {
        // Such as a row of sound for each of a batch.
        let one = || std::iter::once(Extent::from(1));
        let image = g.reshaped(from, one().chain(dims.iter().cloned()).collect())?;
        let zero = || std::iter::once(Extent::from(0));
        let [before, behind] =
            [&pads[..2], &pads[2..]].map(|own| zero().chain(own.iter().cloned()));
        let padded = g.new_name("step");
        pad_by(g, &image, &padded, &before.chain(behind).collect::<Dims>(), (mode, value))?;
        let dims = g.fact_of(&padded)?.dims[1..].to_vec();
        return g.reshape(&padded, output, dims);
    }
    if mode != "constant" && (rank < 3 || (0..pads.len()).any(outer)) {
        return Err("it continues other axes than the last two of an image".to_owned());
    }
    let whole = |axis: usize| dims[axis].plus(&pads[axis])?.plus(&pads[axis + rank]);
    let padded: Dims = (0..rank).map(whole).collect::<Result<_, _>>()?;
    let (ends, value) = (g.vector(pads), g.number(value));
    let inputs: &[&str] = &[from, &ends, &value];
    let inputs = if mode == "constant" { inputs } else { &inputs[..2] };
    g.emit("Pad", inputs, output, vec![("mode", Written::Text(mode))], padded)
}
