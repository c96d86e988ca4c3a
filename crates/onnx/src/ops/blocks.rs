//! Moving blocks of an image to channels or to the batch, and back.
//!
//! Invariant: what follows the batch has known sizes wherever a block has to divide them; the batch
//! itself may be open.

use vesta_model::DType;

use super::convolution::{Format, image_dims};
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
    let at = if c.node.op.ends_with("ND") { 2 } else { 1 };
    let all = g.constant_ints(c.input(at)?, "paddings or crops")?;
    let pairs: Option<Vec<(usize, usize)>> = all
        .chunks_exact(2)
        .map(|pair| Some((usize::try_from(pair[0]).ok()?, usize::try_from(pair[1]).ok()?)))
        .collect();
    pairs
        .filter(|pairs| pairs.len() == axes)
        .ok_or_else(|| Reason("its paddings or crops do not fit its blocks".into()))
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
    let (count, pads) = (blocks.len(), pairs(g, c, blocks.len())?);
    if dims.len() <= count {
        return refuse(format!("blocks of {count} axes over rank {}", dims.len()));
    }
    let sizes = behind_batch(&dims)?;
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
    let (count, crops) = (blocks.len(), pairs(g, c, blocks.len())?);
    if dims.len() <= count {
        return refuse(format!("blocks of {count} axes over rank {}", dims.len()));
    }
    let sizes = behind_batch(&dims)?;
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
