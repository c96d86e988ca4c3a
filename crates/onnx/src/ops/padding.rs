//! Padding by constants and by reflection.

use vesta_model::DType;

use super::layout::is_channels_first;
use super::{NUMBERS, expect_dtype, guards};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId, permute, to_channels_first};

pub(super) const FAMILY: Family = &[
    ("MirrorPad", mirror_pad),
    ("Pad", |g, c| constant_pad(g, c, None)),
    ("PadV2", |g, c| {
        let value = c.input(2)?;
        constant_pad(g, c, Some(value))
    }),
];

fn constant_pad(g: &mut Graph, c: &Call<'_>, value: Option<ValueId>) -> Outcome {
    let dtype = g.get(c.input(0)?).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let value = match value {
        Some(id) => g.plain(id),
        None => g.scalar(dtype, 0.0)?,
    };
    if g.constant_ints(c.input(1)?, "paddings").is_err() {
        return pad_by_run(g, c, &value);
    }
    pad(g, c, "constant", Some(value))
}

/// Paddings that are known only in a run. TensorFlow refuses negative ones, by which ONNX would cut.
fn pad_by_run(g: &mut Graph, c: &Call<'_>, value: &str) -> Outcome {
    let (id, paddings) = (c.input(0)?, c.input(1)?);
    let (dtype, rank) = (g.get(id).dtype, g.rank(id)?);
    let dims = g.symbols(rank);
    let wide = g.wide(paddings)?;
    let pairs = Some(vec![Dim::Known(rank), Dim::Known(2)]);
    let guarded = super::shaping::none_below_zero(g, &wide, pairs)?;
    let sides = Some(vec![Dim::Known(2), Dim::Known(rank)]);
    let sides = g.transpose(&guarded, &[1, 0], DType::I64, sides);
    let pads = g.reshape(&sides, &[2 * rank as i64], Some(vec![Dim::Known(2 * rank)]));
    let name = g.plain(id);
    let attributes = vec![("mode", Attr::Text("constant"))];
    let name = g.emit("Pad", &[&name, &pads, value], attributes, dtype, Some(dims));
    Ok(vec![g.result(name)])
}

fn mirror_pad(g: &mut Graph, c: &Call<'_>) -> Outcome {
    expect_dtype(g.get(c.input(0)?).dtype, NUMBERS)?;
    let skipped = match c.text("mode", "")?.as_str() {
        "REFLECT" => 1,
        "SYMMETRIC" => 0,
        mode => return refuse(format!("there is no padding of mode {mode}")),
    };
    let id = c.input(0)?;
    let pads = g.constant_ints(c.input(1)?, "paddings")?;
    let dims = g.dims(id)?;
    let pairs = pairs(&pads, dims.len())?;
    let is_moved = is_channels_first(g, id);
    let order = if is_moved { to_channels_first(dims.len()) } else { (0..dims.len()).collect() };
    let mut name = if is_moved { g.channels_first(id)? } else { g.plain(id) };
    let mut lying = permute(&dims, &order);
    for (at, (before, after)) in permute(&pairs, &order).into_iter().enumerate() {
        let needed = before.max(after) + skipped;
        match lying[at].known() {
            _ if before + after == 0 => continue,
            Some(size) if needed > size => {
                return refuse(format!("it mirrors {} of {size} cells", before.max(after)));
            }
            Some(_) => {}
            None => name = with_cells(g, &name, at, needed)?,
        }
        name = mirror(g, &name, &mut lying, at, (before, after), skipped);
    }
    Ok(vec![if is_moved { g.result_channels_first(name) } else { g.result(name) }])
}

/// The value as it is, in a run that fails where an axis has fewer cells than are mirrored.
fn with_cells(g: &mut Graph, name: &str, axis: usize, needed: usize) -> Result<String, Reason> {
    let (size, needed) = (guards::size(g, name, axis), g.scalar(DType::I64, needed as f64)?);
    let is_short = guards::test(g, "Less", &size, &needed, &Some(vec![]));
    Ok(guards::unless(g, name, &is_short, "paddings must be no greater than the dimension size"))
}

/// One axis between its own ends, backwards. Written as pieces: few engines have the operator's mode
/// that repeats the outermost cell, and not all have the other.
fn mirror(
    g: &mut Graph,
    name: &str,
    dims: &mut [Dim],
    axis: usize,
    (before, after): (usize, usize),
    skipped: usize,
) -> String {
    let dtype = g.facts.get(name).map_or(DType::Invalid, |fact| fact.0);
    let backwards = |g: &mut Graph, dims: &[Dim], start: i64, end: i64, count: usize| {
        let mut own = dims.to_vec();
        own[axis] = Dim::Known(count);
        let (starts, ends) = (g.ints(&[start]), g.ints(&[end]));
        let (axes, steps) = (g.ints(&[axis as i64]), g.ints(&[-1]));
        let inputs = [name, &starts, &ends, &axes, &steps];
        g.emit("Slice", &inputs, vec![], dtype, Some(own))
    };
    let mut pieces = Vec::new();
    if before > 0 {
        let first = (before + skipped) as i64 - 1;
        let end = if skipped == 0 { i64::MIN } else { skipped as i64 - 1 };
        pieces.push(backwards(g, dims, first, end, before));
    }
    pieces.push(name.to_owned());
    if after > 0 {
        let first = -1 - skipped as i64;
        pieces.push(backwards(g, dims, first, first - after as i64, after));
    }
    if pieces.len() == 1 {
        return name.to_owned();
    }
    dims[axis] = match dims[axis] {
        Dim::Known(size) => Dim::Known(size + before + after),
        Dim::Symbol(_) => g.symbol(),
    };
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let attributes = vec![("axis", Attr::Int(axis as i64))];
    g.emit("Concat", &pieces, attributes, dtype, Some(dims.to_vec()))
}

fn pad(g: &mut Graph, c: &Call<'_>, mode: &'static str, value: Option<String>) -> Outcome {
    let id = c.input(0)?;
    let pads = g.constant_ints(c.input(1)?, "paddings")?;
    let dims = g.dims(id)?;
    let pairs = pairs(&pads, dims.len())?;
    let padded: Vec<Dim> = dims
        .iter()
        .zip(&pairs)
        .map(|(dim, (before, after))| match dim {
            Dim::Known(n) => Dim::Known(n.saturating_add(*before).saturating_add(*after)),
            symbol if before + after == 0 => *symbol,
            Dim::Symbol(_) => g.symbol(),
        })
        .collect();
    let moved = is_channels_first(g, id);
    let order = if moved { to_channels_first(dims.len()) } else { (0..dims.len()).collect() };
    let name = if moved { g.channels_first(id)? } else { g.plain(id) };
    let pairs = permute(&pairs, &order);
    let ends = pairs.iter().map(|p| p.0).chain(pairs.iter().map(|p| p.1));
    let ends: Vec<i64> = ends.map(|n| n as i64).collect();
    let ends = g.ints(&ends);
    let mut names = vec![name.as_str(), ends.as_str()];
    names.extend(value.as_deref());
    let dtype = g.get(id).dtype;
    let attributes = vec![("mode", Attr::Text(mode))];
    let name = g.emit("Pad", &names, attributes, dtype, Some(permute(&padded, &order)));
    Ok(vec![if moved { g.result_channels_first(name) } else { g.result(name) }])
}

fn pairs(pads: &[i64], rank: usize) -> Result<Vec<(usize, usize)>, Reason> {
    let pairs: Option<Vec<(usize, usize)>> = pads
        .chunks_exact(2)
        .map(|pair| Some((usize::try_from(pair[0]).ok()?, usize::try_from(pair[1]).ok()?)))
        .collect();
    pairs
        .filter(|pairs| pairs.len() == rank)
        .ok_or_else(|| Reason("its paddings do not fit its input".into()))
}
