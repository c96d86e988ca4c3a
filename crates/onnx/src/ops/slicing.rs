//! Cutting pieces out of tensors.

use vesta_model::DType;

use super::expect_movable;
use crate::call::Call;
use crate::graph::{Attr, Graph, axis_of};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Element, ValueId};

pub(super) const FAMILY: Family = &[
    ("Reverse", reverse_flagged),
    ("ReverseV2", |g, c| {
        let axes = g.constant_ints(c.input(1)?, "axes")?;
        reverse(g, c, &axes)
    }),
    ("Slice", slice),
    ("StridedSlice", strided_slice),
];

/// ONNX's word for "to the end".
const TO_END: i64 = i64::MAX;

/// ONNX's word for "to before the start", for steps backwards.
const TO_START: i64 = i64::MIN;

/// Where a cut begins or ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    At(i64),
    /// What this place of a vector says when the model runs.
    Read(usize),
}

/// One axis of a cut.
struct Cut {
    axis: usize,
    start: Bound,
    end: Bound,
    step: i64,
}

impl Cut {
    fn at(axis: usize, start: i64, end: i64, step: i64) -> Cut {
        Cut { axis, start: Bound::At(start), end: Bound::At(end), step }
    }

    /// How many are left of an axis.
    fn left(&self, g: &mut Graph, dim: Dim) -> Dim {
        match (dim, self.start, self.end) {
            (Dim::Known(size), Bound::At(start), Bound::At(end)) => {
                Dim::Known(self.left_of(size, start, end))
            }
            _ => g.symbol(),
        }
    }

    fn left_of(&self, size: usize, start: i64, end: i64) -> usize {
        let size = size as i64;
        let from_start = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
        let (low, high) = if self.step > 0 { (0, size) } else { (-1, size - 1) };
        let start = from_start(start).clamp(low, high);
        let end = if end == TO_START { -1 } else { from_start(end).clamp(low, high) };
        let span = if self.step > 0 { end - start } else { start - end };
        usize::try_from(span).map_or(0, |n| n.div_ceil(self.step.unsigned_abs() as usize))
    }
}

/// Writes a `Slice` by bounds that are known.
fn cut(g: &mut Graph, id: ValueId, cuts: &[Cut]) -> Result<String, Reason> {
    cut_by(g, id, cuts, None)
}

/// Writes a `Slice`; without cuts the value itself. `read` are the vectors that bounds are read from.
fn cut_by(
    g: &mut Graph,
    id: ValueId,
    cuts: &[Cut],
    read: Option<(ValueId, ValueId)>,
) -> Result<String, Reason> {
    let name = g.plain(id);
    if cuts.is_empty() {
        return Ok(name);
    }
    let mut dims = g.dims(id)?;
    for cut in cuts {
        dims[cut.axis] = cut.left(g, dims[cut.axis]);
    }
    let starts: Vec<Bound> = cuts.iter().map(|cut| cut.start).collect();
    let ends: Vec<Bound> = cuts.iter().map(|cut| cut.end).collect();
    let starts = bounds(g, &starts, read.map(|read| read.0))?;
    let ends = bounds(g, &ends, read.map(|read| read.1))?;
    let axes = g.ints(&cuts.iter().map(|cut| cut.axis as i64).collect::<Vec<i64>>());
    let steps = g.ints(&cuts.iter().map(|cut| cut.step).collect::<Vec<i64>>());
    let dtype = g.get(id).dtype;
    Ok(g.emit("Slice", &[&name, &starts, &ends, &axes, &steps], vec![], dtype, Some(dims)))
}

/// Bounds as an int64 vector, put together from those that are known and those that are read.
fn bounds(g: &mut Graph, bounds: &[Bound], from: Option<ValueId>) -> Result<String, Reason> {
    let known: Option<Vec<i64>> = bounds
        .iter()
        .map(|bound| match bound {
            Bound::At(n) => Some(*n),
            Bound::Read(_) => None,
        })
        .collect();
    if let Some(known) = known {
        return Ok(g.ints(&known));
    }
    let Some(from) = from else { return refuse("its bounds are known only when the model runs") };
    let vector = g.wide(from)?;
    let mut pieces = Vec::new();
    for bound in bounds {
        pieces.push(match *bound {
            // Past the end of any axis is far enough, and more than 32 bits some engines lack.
            Bound::At(n) => g.ints(&[n.clamp(i32::MIN.into(), i32::MAX.into())]),
            Bound::Read(at) => {
                let (start, end) = (g.ints(&[at as i64]), g.ints(&[at as i64 + 1]));
                let (axes, steps) = (g.ints(&[0]), g.ints(&[1]));
                let inputs = [&*vector, &start, &end, &axes, &steps];
                g.emit("Slice", &inputs, vec![], DType::I64, Some(vec![Dim::Known(1)]))
            }
        });
    }
    if let [one] = &pieces[..] {
        return Ok(one.clone());
    }
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let dims = Some(vec![Dim::Known(pieces.len())]);
    Ok(g.emit("Concat", &pieces, vec![("axis", Attr::Int(0))], DType::I64, dims))
}

/// TensorFlow answers a cut past the end with an error, ONNX with less; so sizes that are not known
/// are stated once more by a `Reshape`, which fails where TensorFlow does.
fn slice(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_movable(g.get(id).dtype)?;
    let dims = g.dims(id)?;
    let Ok(begins) = g.constant_ints(c.input(1)?, "beginnings") else {
        return slice_by_run(g, c);
    };
    let sizes = match g.constant_ints(c.input(2)?, "sizes") {
        Ok(sizes) => sizes,
        Err(_) => return slice_by_sizes(g, c, &begins),
    };
    if begins.len() != dims.len() || sizes.len() != dims.len() {
        return refuse("its beginnings and sizes are for another rank");
    }
    let mut cuts = Vec::new();
    let mut stated = Vec::new();
    let mut is_sure = true;
    for (axis, dim) in dims.iter().enumerate() {
        let (start, size) = (begins[axis], sizes[axis]);
        let end = if size == -1 { TO_END } else { start.saturating_add(size) };
        let within = match dim.known() {
            Some(n) => start >= 0 && start <= n as i64 && (end == TO_END || end <= n as i64),
            None => start >= 0,
        };
        if !within || size < -1 {
            return refuse(format!("it cuts {size} from {start} on of axis {axis}"));
        }
        is_sure &= dim.known().is_some() || size == -1;
        stated.push(if size == -1 { dim.known().map_or(-1, |n| n as i64 - start) } else { size });
        if start != 0 || size != -1 {
            cuts.push(Cut::at(axis, start, end, 1));
        }
    }
    let name = cut(g, id, &cuts)?;
    if is_sure {
        return Ok(vec![g.result(name)]);
    }
    if stated.iter().filter(|&&size| size == -1).count() > 1 || stated.contains(&0) {
        return refuse("it cuts axes whose sizes are known only when the model runs");
    }
    let known = stated
        .iter()
        .zip(&dims)
        .map(|(&n, dim)| usize::try_from(n).map_or(*dim, Dim::Known))
        .collect();
    let name = g.reshape(&name, &stated, Some(known));
    Ok(vec![g.result(name)])
}

/// Sizes that are known only in a run, from the beginning of each axis.
fn slice_by_sizes(g: &mut Graph, c: &Call<'_>, begins: &[i64]) -> Outcome {
    let (id, sizes) = (c.input(0)?, c.input(2)?);
    let dims = g.dims(id)?;
    let rank = dims.len();
    let Some(elements) = g.get(sizes).elements.clone().filter(|all| all.len() == rank) else {
        return slice_by_run(g, c);
    };
    if begins.iter().any(|&begin| begin != 0) {
        return slice_by_run(g, c);
    }
    let (mut ends, mut stated, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for (axis, element) in elements.iter().enumerate() {
        match (element, dims[axis]) {
            // All of an axis, whatever its size: it can be stated when it is known.
            (Element::Known(-1), Dim::Known(size)) => {
                ends.push(Bound::At(TO_END));
                stated.push(Bound::At(size as i64));
                left.push(dims[axis]);
            }
            (Element::Known(n), _) if *n < 0 => return slice_by_run(g, c),
            // It may turn out to be -1, for all of the axis.
            (Element::Unknown, _) => return slice_by_run(g, c),
            _ => {
                ends.push(Bound::Read(axis));
                stated.push(Bound::Read(axis));
                left.extend(super::shaping::target_dims(g, &elements[axis..=axis])?);
            }
        }
    }
    let name = g.plain(id);
    let ends = bounds(g, &ends, Some(sizes))?;
    let starts = g.ints(&vec![0; rank]);
    let all: Vec<i64> = (0..rank as i64).collect();
    let (axes, steps) = (g.ints(&all), g.ints(&vec![1; rank]));
    let dtype = g.get(id).dtype;
    let inputs = [&*name, &starts, &ends, &axes, &steps];
    let name = g.emit("Slice", &inputs, vec![], dtype, Some(left.clone()));
    let stated = bounds(g, &stated, Some(sizes))?;
    let attributes = vec![("allowzero", Attr::Int(1))];
    let name = g.emit("Reshape", &[&name, &stated], attributes, dtype, Some(left));
    Ok(vec![g.result(name)])
}

/// Beginnings and sizes that are known only in a run. What is left is stated once more by a `Reshape`,
/// and nothing may be negative, so that it fails where TensorFlow does.
fn slice_by_run(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, begins, sizes) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (dims, dtype) = (g.dims(id)?, g.get(id).dtype);
    let rank = dims.len();
    let left = dims_left(g, &dims, begins, sizes);
    let numbers = Some(vec![Dim::Known(rank)]);
    let int = |g: &mut Graph, op: &'static str, a: &str, b: &str| {
        g.emit(op, &[a, b], vec![], DType::I64, numbers.clone())
    };
    let choose = |g: &mut Graph, of: [&str; 2], then: &str, other: &str| {
        let holds = g.emit("Equal", &of, vec![], DType::Bool, numbers.clone());
        g.emit("Where", &[&holds, then, other], vec![], DType::I64, numbers.clone())
    };
    let (begins, sizes) = (g.wide(begins)?, g.wide(sizes)?);
    let all = g.scalar(DType::I64, -1.0)?;
    let shape = super::shaping::runtime_shape(g, id);
    let starts = super::shaping::none_below_zero(g, &begins, numbers.clone())?;
    let ends = int(g, "Add", &starts, &sizes);
    let ends = choose(g, [&sizes, &all], &shape, &ends);
    let rest = int(g, "Sub", &shape, &starts);
    let stated = choose(g, [&sizes, &all], &rest, &sizes);
    let stated = super::shaping::none_below_zero(g, &stated, numbers.clone())?;
    let axes: Vec<i64> = (0..rank as i64).collect();
    let (name, axes, steps) = (g.plain(id), g.ints(&axes), g.ints(&vec![1; rank]));
    let open = g.symbols(rank);
    let inputs = [&*name, &starts, &ends, &axes, &steps];
    let name = g.emit("Slice", &inputs, vec![], dtype, Some(open));
    let attributes = vec![("allowzero", Attr::Int(1))];
    let name = g.emit("Reshape", &[&name, &stated], attributes, dtype, Some(left));
    Ok(vec![g.result(name)])
}

/// What is known of the sizes that a slice leaves.
fn dims_left(g: &mut Graph, dims: &[Dim], begins: ValueId, sizes: ValueId) -> Vec<Dim> {
    let elements = |g: &Graph, id: ValueId| {
        let all = g.get(id).elements.clone().filter(|all| all.len() == dims.len());
        all.unwrap_or_else(|| vec![Element::Unknown; dims.len()])
    };
    let (begins, sizes) = (elements(g, begins), elements(g, sizes));
    let left = dims.iter().zip(begins).zip(sizes).map(|((dim, begin), size)| match (size, begin) {
        (Element::Known(-1), Element::Known(0)) => Some(*dim),
        (Element::Known(-1), Element::Known(begin)) => {
            let left = dim.known()?.checked_sub(usize::try_from(begin).ok()?)?;
            Some(Dim::Known(left))
        }
        (Element::Known(size), _) => usize::try_from(size).ok().map(Dim::Known),
        (Element::Size(symbol), _) => Some(Dim::Symbol(symbol)),
        (Element::Unknown, _) => None,
    });
    let left: Vec<Option<Dim>> = left.collect();
    left.into_iter().map(|dim| dim.unwrap_or_else(|| g.symbol())).collect()
}

/// The form of the first releases, which says of each axis whether it is turned.
fn reverse_flagged(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let flags = g.constant_ints(c.input(1)?, "axes")?;
    if flags.len() != g.rank(c.input(0)?)? {
        return refuse("it does not tell of each axis");
    }
    let turned = flags.iter().enumerate().filter(|(_, flag)| **flag != 0);
    let axes: Vec<i64> = turned.map(|(axis, _)| axis as i64).collect();
    reverse(g, c, &axes)
}

fn reverse(g: &mut Graph, c: &Call<'_>, axes: &[i64]) -> Outcome {
    let id = c.input(0)?;
    expect_movable(g.get(id).dtype)?;
    let rank = g.rank(id)?;
    let mut cuts = Vec::new();
    for &axis in axes {
        let axis = axis_of(axis, rank)?;
        cuts.push(Cut::at(axis, -1, TO_START, -1));
    }
    let dims = g.get(id).dims.clone();
    let name = cut(g, id, &cuts)?;
    let result = g.result(name);
    g.get_mut(result).dims = dims;
    Ok(vec![result])
}

/// What a strided slice does with one place of its specification.
enum Place {
    Cut(Bound, Bound, i64),
    /// Takes one and drops the axis.
    Take(i64),
    /// The same, with the index at this place of the beginnings.
    TakeRead(usize),
    NewAxis,
    /// Leaves one axis as it is.
    Keep,
}

fn strided_slice(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_movable(g.get(id).dtype)?;
    let rank = g.rank(id)?;
    let places = places(g, c, rank)?;
    let (mut cuts, mut dropped, mut inserted) = (Vec::new(), Vec::new(), Vec::new());
    let (mut picked, mut axis, mut at) = (Vec::new(), 0usize, 0i64);
    for place in places {
        match place {
            Place::NewAxis => {
                inserted.push(at);
                at += 1;
                continue;
            }
            Place::Keep => at += 1,
            Place::Cut(start, end, step) => {
                cuts.push(Cut { axis, start, end, step });
                at += 1;
            }
            Place::Take(index) => {
                let end = if index == -1 { TO_END } else { index.saturating_add(1) };
                cuts.push(Cut::at(axis, index, end, 1));
                dropped.push(axis);
            }
            Place::TakeRead(index) => picked.push((axis, index)),
        }
        axis += 1;
    }
    let whole = |cut: &Cut| (cut.start, cut.end, cut.step) == (Bound::At(0), Bound::At(TO_END), 1);
    cuts.retain(|cut| !whole(cut));
    let mut name = cut_by(g, id, &cuts, Some((c.input(1)?, c.input(2)?)))?;
    let dtype = g.get(id).dtype;
    let mut dims = g.facts.get(&name).and_then(|fact| fact.1.clone()).unwrap_or_default();
    if !picked.is_empty() && dims.is_empty() {
        dims = g.dims(id)?;
    }
    for (axis, index) in picked {
        name = pick(g, (name, axis, &mut dims), c.input(1)?, index)?;
        dropped.push(axis);
    }
    dropped.sort_unstable();
    if !dropped.is_empty() {
        let axes = g.ints(&dropped.iter().map(|&axis| axis as i64).collect::<Vec<_>>());
        let mut kept = dims.iter().enumerate().filter(|(i, _)| !dropped.contains(i));
        let kept: Vec<Dim> = kept.by_ref().map(|(_, dim)| *dim).collect();
        dims = kept;
        name = g.emit("Squeeze", &[&name, &axes], vec![], dtype, Some(dims.clone()));
    }
    if !inserted.is_empty() {
        for &at in &inserted {
            dims.insert((at as usize).min(dims.len()), Dim::Known(1));
        }
        let axes = g.ints(&inserted);
        name = g.emit("Unsqueeze", &[&name, &axes], vec![], dtype, Some(dims));
    }
    Ok(vec![g.result(name)])
}

/// One of an axis, which stays with size 1, by a number out of the vector `from`. `Gather` counts a
/// negative one from the end and refuses what is past it, as TensorFlow does here.
fn pick(
    g: &mut Graph,
    (name, axis, dims): (String, usize, &mut [Dim]),
    from: ValueId,
    at: usize,
) -> Result<String, Reason> {
    let index = bounds(g, &[Bound::Read(at)], Some(from))?;
    if let Some(dim) = dims.get_mut(axis) {
        *dim = Dim::Known(1);
    }
    let dtype = g.facts.get(&name).map_or(DType::Invalid, |fact| fact.0);
    let attributes = vec![("axis", Attr::Int(axis as i64))];
    Ok(g.emit("Gather", &[&name, &index], attributes, dtype, Some(dims.to_vec())))
}

/// A vector of bounds, as far as its elements are known.
fn read_bounds(g: &Graph, id: ValueId) -> Result<Vec<Bound>, Reason> {
    if let Ok(known) = g.constant_ints(id, "bounds") {
        return Ok(known.into_iter().map(Bound::At).collect());
    }
    let value = g.get(id);
    if let Some(elements) = &value.elements {
        let bound = |(at, element): (usize, &Element)| match element {
            Element::Known(n) => Bound::At(*n),
            _ => Bound::Read(at),
        };
        return Ok(elements.iter().enumerate().map(bound).collect());
    }
    match value.dims.as_deref() {
        Some([Dim::Known(count)]) => Ok((0..*count).map(Bound::Read).collect()),
        _ => refuse("how many bounds it has is known only when the model runs"),
    }
}

/// The specification, with masks applied and the ellipsis written out.
fn places(g: &Graph, c: &Call<'_>, rank: usize) -> Result<Vec<Place>, Reason> {
    let (begin, end) = (read_bounds(g, c.input(1)?)?, read_bounds(g, c.input(2)?)?);
    let step = g.constant_ints(c.input(3)?, "steps")?;
    let count = begin.len();
    if end.len() != count || step.len() != count || count > 32 {
        return refuse("its beginnings, ends and steps differ in number");
    }
    let mask = |name: &str| -> Result<Vec<bool>, Reason> {
        let bits = c.int(name, 0)?;
        Ok((0..count).map(|i| bits >> i & 1 == 1).collect())
    };
    let (no_begin, no_end) = (mask("begin_mask")?, mask("end_mask")?);
    let (ellipsis, new_axis) = (mask("ellipsis_mask")?, mask("new_axis_mask")?);
    let shrink = mask("shrink_axis_mask")?;
    let named = (0..count).filter(|&i| !ellipsis[i] && !new_axis[i]).count();
    let Some(open) = rank.checked_sub(named) else {
        return refuse(format!("it cuts {named} axes of a tensor of rank {rank}"));
    };
    if ellipsis.iter().filter(|&&is| is).count() > 1 {
        return refuse("it has two ellipses");
    }
    let mut places = Vec::new();
    for i in 0..count {
        if ellipsis[i] {
            places.extend((0..open).map(|_| Place::Keep));
        } else if new_axis[i] {
            places.push(Place::NewAxis);
        } else if shrink[i] {
            places.push(match begin[i] {
                Bound::At(index) => Place::Take(index),
                Bound::Read(at) => Place::TakeRead(at),
            });
        } else if step[i] == 0 {
            return refuse("a step of 0");
        } else {
            let (first, last) = if step[i] > 0 { (0, TO_END) } else { (TO_END, TO_START) };
            let start = if no_begin[i] { Bound::At(first) } else { begin[i] };
            let end = if no_end[i] { Bound::At(last) } else { end[i] };
            places.push(Place::Cut(start, end, step[i]));
        }
    }
    if !ellipsis.contains(&true) {
        places.extend((0..open).map(|_| Place::Keep));
    }
    Ok(places)
}
