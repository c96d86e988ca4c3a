//! Padding by constants and by reflection.

use vesta_model::DType;

use super::layout::is_channels_first;
use super::{NUMBERS, expect_dtype};
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
        None if dtype == DType::F16 => return refuse("a padding of half precision"),
        None => g.scalar(dtype, 0.0)?,
    };
    pad(g, c, "constant", Some(value))
}

fn mirror_pad(g: &mut Graph, c: &Call<'_>) -> Outcome {
    expect_dtype(g.get(c.input(0)?).dtype, NUMBERS)?;
    match c.text("mode", "")?.as_str() {
        "REFLECT" => pad(g, c, "reflect", None),
        mode => refuse(format!("there is no padding of mode {mode}")),
    }
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
