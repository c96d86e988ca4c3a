//! Moving blocks of an image to channels or to the batch, and back.
//!
//! Invariant: a block that does not divide what it cuts is an error, when the graph is translated or,
//! where sizes are known only then, in the run.

use vesta_model::DType;

use super::convolution::{Format, image_dims};
use super::guards::{joined, part, reshaped, sizes, whole};
use super::{FLOATS, NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("BatchToSpace", |g, c| batch_to_space(g, c, square(c)?)),
    ("BatchToSpaceND", |g, c| batch_to_space(g, c, blocks(g, c)?)),
    ("DepthToSpace", depth_to_space),
    ("SpaceToBatch", |g, c| space_to_batch(g, c, square(c)?)),
    ("SpaceToBatchND", |g, c| space_to_batch(g, c, blocks(g, c)?)),
    ("SpaceToDepth", space_to_depth),
];

/// The side of a block, from an attribute.
fn block_size(c: &Call<'_>) -> Result<usize, Reason> {
    let block = c.int("block_size", 0)?;
    usize::try_from(block)
        .ok()
        .filter(|&n| n > 1)
        .ok_or_else(|| Reason(format!("a block of size {block}")))
}

fn square(c: &Call<'_>) -> Result<Vec<usize>, Reason> {
    Ok(vec![block_size(c)?; 2])
}

/// The sides of a block, from an input.
fn blocks(g: &Graph, c: &Call<'_>) -> Result<Vec<usize>, Reason> {
    super::convolution::positive(&g.constant_ints(c.input(1)?, "blocks")?, "blocks")
}

/// Where the paddings or crops stand.
fn pairs(g: &Graph, c: &Call<'_>, axes: usize) -> Result<Vec<(usize, usize)>, Reason> {
    let all = g.constant_ints(c.input(pairs_at(c))?, "paddings or crops")?;
    let pairs: Option<Vec<(usize, usize)>> = all
        .chunks_exact(2)
        .map(|pair| Some((usize::try_from(pair[0]).ok()?, usize::try_from(pair[1]).ok()?)))
        .collect();
    pairs
        .filter(|pairs| pairs.len() == axes)
        .ok_or_else(|| Reason("its paddings or crops do not fit its blocks".into()))
}

/// Sizes behind the batch, and paddings or crops.
type Sizes = (Vec<usize>, Vec<(usize, usize)>);

/// `None` where one of them is known only when the model runs.
fn known_sizes(
    g: &Graph,
    c: &Call<'_>,
    dims: &[Dim],
    count: usize,
) -> Result<Option<Sizes>, Reason> {
    let is_known = g.constant_ints(c.input(pairs_at(c))?, "paddings or crops").is_ok();
    match behind_batch(dims) {
        Ok(sizes) if is_known => Ok(Some((sizes, pairs(g, c, count)?))),
        _ => Ok(None),
    }
}

/// Which input the paddings or crops are.
fn pairs_at(c: &Call<'_>) -> usize {
    if c.node.op.ends_with("ND") { 2 } else { 1 }
}

/// Sizes of the axes behind the batch, all of them known.
fn behind_batch(dims: &[Dim]) -> Result<Vec<usize>, Reason> {
    dims[1..]
        .iter()
        .map(|dim| dim.known())
        .collect::<Option<_>>()
        .ok_or_else(|| Reason("the sizes of its input are known only when the model runs".into()))
}

/// Reshapes, permutes, reshapes: how every block moves. The batch is the open size in both.
struct Moves {
    first: Vec<i64>,
    order: Vec<usize>,
    last: Vec<i64>,
}

fn write(g: &mut Graph, name: &str, dtype: DType, moves: &Moves, batch: Dim) -> String {
    let sizes = |g: &mut Graph, all: &[i64], open: Option<Dim>| -> Vec<Dim> {
        let dims = all.iter();
        dims.map(|&n| match usize::try_from(n) {
            Ok(n) => Dim::Known(n),
            Err(_) => open.unwrap_or_else(|| g.symbol()),
        })
        .collect()
    };
    let split = sizes(g, &moves.first, None);
    let moved = crate::value::permute(&split, &moves.order);
    let last = sizes(g, &moves.last, Some(batch));
    let name = g.reshape(name, &moves.first, Some(split));
    let name = g.transpose(&name, &moves.order, dtype, Some(moved));
    g.reshape(&name, &moves.last, Some(last))
}

fn space_to_batch(g: &mut Graph, c: &Call<'_>, blocks: Vec<usize>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let dims = g.dims(id)?;
    let count = blocks.len();
    if dims.len() <= count {
        return refuse(format!("blocks of {count} axes over rank {}", dims.len()));
    }
    let Some((sizes, pads)) = known_sizes(g, c, &dims, count)? else {
        return space_to_batch_by_run(g, c, &blocks);
    };
    let mut padded = sizes.clone();
    for (axis, (before, after)) in pads.iter().enumerate() {
        padded[axis] = padded[axis].saturating_add(*before).saturating_add(*after);
        if padded[axis] % blocks[axis] != 0 || padded[axis] == 0 {
            return refuse(format!("blocks of {} over {} cells", blocks[axis], padded[axis]));
        }
    }
    let name = padded_image(g, id, &pads, &padded)?;
    let rest: Vec<i64> = padded[count..].iter().map(|&n| n as i64).collect();
    let mut moves = Moves { first: vec![-1], order: vec![], last: vec![-1] };
    for (axis, &block) in blocks.iter().enumerate() {
        let steps = (padded[axis] / block) as i64;
        moves.first.extend([steps, block as i64]);
        moves.last.push(steps);
    }
    moves.first.extend(&rest);
    moves.last.extend(&rest);
    moves.order.extend((0..count).map(|axis| 2 + 2 * axis));
    moves.order.push(0);
    moves.order.extend((0..count).map(|axis| 1 + 2 * axis));
    moves.order.extend(1 + 2 * count..1 + 2 * count + rest.len());
    let many: usize = blocks.iter().product();
    let batch = match dims[0] {
        Dim::Known(n) => Dim::Known(n.saturating_mul(many)),
        Dim::Symbol(_) => g.symbol(),
    };
    let name = write(g, &name, dtype, &moves, batch);
    Ok(vec![g.result(name)])
}

fn padded_image(
    g: &mut Graph,
    id: ValueId,
    pads: &[(usize, usize)],
    padded: &[usize],
) -> Result<String, Reason> {
    let (name, dtype, dims) = (g.plain(id), g.get(id).dtype, g.dims(id)?);
    if pads.iter().all(|pair| *pair == (0, 0)) {
        return Ok(name);
    }
    let mut ends = vec![0; 2 * dims.len()];
    for (axis, (before, after)) in pads.iter().enumerate() {
        ends[1 + axis] = *before as i64;
        ends[1 + axis + dims.len()] = *after as i64;
    }
    let (ends, zero) = (g.ints(&ends), g.scalar(dtype, 0.0)?);
    let mut all = vec![dims[0]];
    all.extend(padded.iter().map(|&n| Dim::Known(n)));
    let attributes = vec![("mode", Attr::Text("constant"))];
    Ok(g.emit("Pad", &[&name, &ends, &zero], attributes, dtype, Some(all)))
}

fn batch_to_space(g: &mut Graph, c: &Call<'_>, blocks: Vec<usize>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let dims = g.dims(id)?;
    let count = blocks.len();
    if dims.len() <= count {
        return refuse(format!("blocks of {count} axes over rank {}", dims.len()));
    }
    let Some((sizes, crops)) = known_sizes(g, c, &dims, count)? else {
        return batch_to_space_by_run(g, c, &blocks);
    };
    if sizes.contains(&0) {
        return refuse("an image without cells");
    }
    let mut moves = Moves { first: vec![], order: vec![count], last: vec![-1] };
    moves.first.extend(blocks.iter().map(|&block| block as i64));
    moves.first.push(-1);
    moves.first.extend(sizes.iter().map(|&n| n as i64));
    for (axis, &block) in blocks.iter().enumerate() {
        moves.order.extend([count + 1 + axis, axis]);
        moves.last.push(block.saturating_mul(sizes[axis]) as i64);
    }
    moves.order.extend(2 * count + 1..moves.first.len());
    moves.last.extend(sizes[count..].iter().map(|&n| n as i64));
    let many: usize = blocks.iter().product();
    let batch = match dims[0] {
        Dim::Known(n) if n % many == 0 => Dim::Known(n / many),
        Dim::Known(n) => return refuse(format!("blocks of {many} out of a batch of {n}")),
        Dim::Symbol(_) => g.symbol(),
    };
    let name = g.plain(id);
    let name = write(g, &name, dtype, &moves, batch);
    let whole = g.result(name);
    cropped(g, whole, &crops)
}

fn cropped(g: &mut Graph, id: ValueId, crops: &[(usize, usize)]) -> Outcome {
    if crops.iter().all(|pair| *pair == (0, 0)) {
        return Ok(vec![id]);
    }
    let (mut dims, dtype) = (g.dims(id)?, g.get(id).dtype);
    let (mut starts, mut ends, mut axes) = (vec![], vec![], vec![]);
    for (axis, (before, after)) in crops.iter().enumerate() {
        let size = dims[axis + 1].known().unwrap_or(0);
        let Some(left) = size.checked_sub(before.saturating_add(*after)) else {
            return refuse(format!("crops of {before} and {after} from {size} cells"));
        };
        dims[axis + 1] = Dim::Known(left);
        starts.push(*before as i64);
        ends.push((before + left) as i64);
        axes.push(axis as i64 + 1);
    }
    let steps = g.ints(&vec![1; axes.len()]);
    let (name, starts, ends, axes) = (g.plain(id), g.ints(&starts), g.ints(&ends), g.ints(&axes));
    let inputs = [&*name, &starts, &ends, &axes, &steps];
    let name = g.emit("Slice", &inputs, vec![], dtype, Some(dims));
    Ok(vec![g.result(name)])
}

/// The first and the second number of each pair, as int64 vectors; a run with one below 0 fails.
fn sides(g: &mut Graph, c: &Call<'_>, count: usize) -> Result<(String, String), Reason> {
    let wide = g.wide(c.input(pairs_at(c))?)?;
    let dims = Some(vec![Dim::Known(count), Dim::Known(2)]);
    let all = super::shaping::none_below_zero(g, &wide, dims)?;
    let side = |g: &mut Graph, at: f64| -> Result<String, Reason> {
        let at = g.scalar(DType::I64, at)?;
        let attributes = vec![("axis", Attr::Int(1))];
        let dims = Some(vec![Dim::Known(count)]);
        Ok(g.emit("Gather", &[&all, &at], attributes, DType::I64, dims))
    };
    Ok((side(g, 0.0)?, side(g, 1.0)?))
}

/// As the other, with shapes that are computed. A `Reshape` fails where blocks do not divide.
fn space_to_batch_by_run(g: &mut Graph, c: &Call<'_>, blocks: &[usize]) -> Outcome {
    let id = c.input(0)?;
    let (dtype, dims) = (g.get(id).dtype, g.dims(id)?);
    let (rank, count) = (dims.len(), blocks.len());
    let (before, after) = sides(g, c, count)?;
    let (none, rest) = (g.ints(&[0]), g.ints(&vec![0; rank - count - 1]));
    let pads = joined(g, &[&none, &before, &rest, &none, &after, &rest]);
    let (name, zero) = (g.plain(id), g.scalar(dtype, 0.0)?);
    let mut all = vec![dims[0]];
    all.extend(g.symbols(count));
    all.extend(&dims[count + 1..]);
    let attributes = vec![("mode", Attr::Text("constant"))];
    let name = g.emit("Pad", &[&name, &pads, &zero], attributes, dtype, Some(all));
    let line = Some(vec![Dim::Known(count)]);
    let sides: Vec<i64> = blocks.iter().map(|&n| n as i64).collect();
    let sides = g.ints(&sides);
    let (batch, cells) = (sizes(g, &name, 0, Some(1)), sizes(g, &name, 1, Some(count + 1)));
    let kept = sizes(g, &name, count + 1, None);
    let steps = whole(g, "Div", &cells, &sides, &line);
    let (mut first, mut order) = (vec![batch.clone()], Vec::new());
    for axis in 0..count {
        first.extend([part(g, &steps, axis, axis + 1), part(g, &sides, axis, axis + 1)]);
    }
    first.push(kept.clone());
    order.extend((0..count).map(|axis| 2 + 2 * axis));
    order.push(0);
    order.extend((0..count).map(|axis| 1 + 2 * axis));
    order.extend(1 + 2 * count..rank + count);
    let many = g.ints(&[blocks.iter().product::<usize>() as i64]);
    let batch = whole(g, "Mul", &batch, &many, &Some(vec![Dim::Known(1)]));
    let name = moved_by_run(g, &name, (&first, &order), &[batch, steps, kept], &dims[count + 1..]);
    Ok(vec![g.result(name)])
}

/// Reshapes, permutes, reshapes by shapes of these parts.
fn moved_by_run(
    g: &mut Graph,
    name: &str,
    (first, order): (&[String], &[usize]),
    last: &[String],
    rest: &[Dim],
) -> String {
    let dtype = super::guards::facts(g, name).0;
    let vector = |g: &mut Graph, parts: &[String]| {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        joined(g, &parts)
    };
    let split = g.symbols(order.len());
    let shape = vector(g, first);
    let name = reshaped(g, name, &shape, Some(split.clone()));
    let turned = crate::value::permute(&split, order);
    let name = g.transpose(&name, order, dtype, Some(turned));
    let shape = vector(g, last);
    let known = super::guards::facts(g, &shape).1;
    let rank = known.and_then(|dims| dims.first()?.known()).unwrap_or(rest.len());
    let mut dims = g.symbols(rank.saturating_sub(rest.len()));
    dims.extend(rest);
    reshaped(g, &name, &shape, Some(dims))
}

fn batch_to_space_by_run(g: &mut Graph, c: &Call<'_>, blocks: &[usize]) -> Outcome {
    let id = c.input(0)?;
    let (dtype, dims) = (g.get(id).dtype, g.dims(id)?);
    let (rank, count) = (dims.len(), blocks.len());
    let name = g.plain(id);
    let line = Some(vec![Dim::Known(count)]);
    let sides_of_blocks: Vec<i64> = blocks.iter().map(|&n| n as i64).collect();
    let block = g.ints(&sides_of_blocks);
    let many = g.ints(&[blocks.iter().product::<usize>() as i64]);
    let (batch, shape) = (sizes(g, &name, 0, Some(1)), sizes(g, &name, 1, None));
    let batch = whole(g, "Div", &batch, &many, &Some(vec![Dim::Known(1)]));
    let (cells, kept) = (sizes(g, &name, 1, Some(count + 1)), sizes(g, &name, count + 1, None));
    let wide = whole(g, "Mul", &cells, &block, &line);
    let mut order = vec![count];
    order.extend((0..count).flat_map(|axis| [count + 1 + axis, axis]));
    order.extend(2 * count + 1..rank + count);
    let first = [block, batch.clone(), shape];
    let rest = &dims[count + 1..];
    let name = moved_by_run(g, &name, (&first, &order), &[batch, wide.clone(), kept], rest);
    let (before, after) = sides(g, c, count)?;
    let end = whole(g, "Sub", &wide, &after, &line);
    let left = whole(g, "Sub", &end, &before, &line);
    let left = super::shaping::none_below_zero(g, &left, line.clone())?;
    let end = whole(g, "Add", &before, &left, &line);
    let axes: Vec<i64> = (1..=count as i64).collect();
    let (axes, steps) = (g.ints(&axes), g.ints(&vec![1; count]));
    let mut cropped = vec![g.symbol()];
    cropped.extend(g.symbols(count));
    cropped.extend(rest);
    let inputs = [&*name, &before, &end, &axes, &steps];
    let name = g.emit("Slice", &inputs, vec![], dtype, Some(cropped));
    Ok(vec![g.result(name)])
}

fn depth_to_space(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, FLOATS)?;
    let format = Format::read(c, 4)?;
    let size = block_size(c)?;
    let image = image_dims(g, id, format, 4)?;
    let mut dims = vec![image[0]];
    dims.push(match image[1] {
        Dim::Known(n) => Dim::Known(n / size.saturating_mul(size)),
        Dim::Symbol(_) => g.symbol(),
    });
    for dim in &image[2..] {
        dims.push(match dim {
            Dim::Known(n) => Dim::Known(n.saturating_mul(size)),
            Dim::Symbol(_) => g.symbol(),
        });
    }
    let name = format.image(g, id)?;
    let attributes = vec![("blocksize", Attr::Int(size as i64)), ("mode", Attr::Text("DCR"))];
    let name = g.emit("DepthToSpace", &[&name], attributes, dtype, Some(dims));
    Ok(vec![format.result(g, name)])
}

/// ONNX's own operator orders channels as TensorFlow does, but few engines have it; so it is three
/// that all have.
fn space_to_depth(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let (format, size) = (Format::read(c, 4)?, block_size(c)?);
    let image = image_dims(g, id, format, 4)?;
    let [channels, height, width] = behind_batch(&image)?[..] else {
        return refuse("an image of another rank than 4");
    };
    if height % size != 0 || width % size != 0 || height * width * channels == 0 {
        return refuse(format!("blocks of {size} over {height} x {width} cells"));
    }
    let n = |value: usize| value as i64;
    let (rows, columns) = (height / size, width / size);
    let moves = Moves {
        first: vec![-1, n(channels), n(rows), n(size), n(columns), n(size)],
        order: vec![0, 3, 5, 1, 2, 4],
        last: vec![-1, n(size * size * channels), n(rows), n(columns)],
    };
    let name = format.image(g, id)?;
    let name = write(g, &name, dtype, &moves, image[0]);
    Ok(vec![format.result(g, name)])
}
