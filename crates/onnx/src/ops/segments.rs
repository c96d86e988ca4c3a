//! Sums and extrema of rows that belong together, counts of numbers, rows by their part.
//!
//! Invariant: a segment that TensorFlow refuses is an error of the run, see [`super::guards`].

use vesta_model::DType;

use super::gathering::guarded_wide;
use super::guards::{choose, facts, part, sizes, spread, test, two, whole};
use super::{expect_dtype, guards};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("Bincount", bin_count),
    ("DenseBincount", bin_count),
    ("DynamicPartition", partition),
    ("SegmentMax", |g, c| in_order(g, c, Means::MAX)),
    ("SegmentMean", |g, c| in_order(g, c, Means::MEAN)),
    ("SegmentMin", |g, c| in_order(g, c, Means::MIN)),
    ("SegmentProd", |g, c| in_order(g, c, Means::PRODUCT)),
    ("SegmentSum", |g, c| in_order(g, c, Means::SUM)),
    ("SparseSegmentMean", |g, c| of_picked(g, c, Means::MEAN)),
    ("SparseSegmentSqrtN", |g, c| of_picked(g, c, Means::ROOT)),
    ("SparseSegmentSum", |g, c| of_picked(g, c, Means::SUM)),
    ("SparseToDense", dense),
    ("UnsortedSegmentMax", |g, c| unsorted(g, c, &Means::MAX)),
    ("UnsortedSegmentMin", |g, c| unsorted(g, c, &Means::MIN)),
    ("UnsortedSegmentProd", |g, c| unsorted(g, c, &Means::PRODUCT)),
    ("UnsortedSegmentSum", |g, c| unsorted(g, c, &Means::SUM)),
];

/// What becomes of the rows of a segment.
struct Means {
    /// How ONNX's `ScatterND` says it.
    reduction: &'static str,
    start: Start,
    /// What a sum is divided by.
    divisor: Option<Divisor>,
}

#[derive(Clone, Copy)]
enum Start {
    Zero,
    One,
    Lowest,
    Highest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Divisor {
    Count,
    RootOfCount,
}

impl Means {
    const SUM: Means = Means { reduction: "add", start: Start::Zero, divisor: None };
    const MEAN: Means = Means { divisor: Some(Divisor::Count), ..Means::SUM };
    const ROOT: Means = Means { divisor: Some(Divisor::RootOfCount), ..Means::SUM };
    const PRODUCT: Means = Means { reduction: "mul", start: Start::One, divisor: None };
    const MAX: Means = Means { reduction: "max", start: Start::Lowest, divisor: None };
    const MIN: Means = Means { reduction: "min", start: Start::Highest, divisor: None };
}

const SUMMED: &[DType] = &[DType::F32, DType::F64, DType::I32, DType::I64];

/// What an empty segment has.
fn start(g: &mut Graph, dtype: DType, start: Start) -> Result<String, Reason> {
    let whole = |low: i64, high: i64| match start {
        Start::Lowest => Some(low),
        Start::Highest => Some(high),
        Start::Zero | Start::One => None,
    };
    let bound = match dtype {
        DType::I32 => whole(i32::MIN.into(), i32::MAX.into()),
        DType::I64 => whole(i64::MIN, i64::MAX),
        _ => None,
    };
    if let Some(constant) = bound.and_then(|bound| Constant::whole(dtype, &[], &[bound])) {
        return Ok(g.initializer(constant));
    }
    let most = if dtype == DType::F64 { f64::MAX } else { f32::MAX.into() };
    g.scalar(
        dtype,
        match start {
            Start::Zero => 0.0,
            Start::One => 1.0,
            Start::Lowest => -most,
            Start::Highest => most,
        },
    )
}

/// Rows to be put together: an ONNX value, and the segment of each as an int64 vector.
struct Rows {
    name: String,
    segments: String,
    /// Sizes of one row.
    dims: Vec<Dim>,
}

/// `count` (int64, vector of one) segments of rows.
fn scattered(
    g: &mut Graph,
    rows: &Rows,
    count: &str,
    dim: Dim,
    means: &Means,
) -> Result<String, Reason> {
    let dtype = facts(g, &rows.name).0;
    let start = start(g, dtype, means.start)?;
    let of_rows = sizes(g, &rows.name, 1, None);
    let shape = guards::joined(g, &[count, &of_rows]);
    let mut dims = vec![dim];
    dims.extend(&rows.dims);
    let empty = g.emit("Expand", &[&start, &shape], vec![], dtype, Some(dims.clone()));
    let places = spread(g, &rows.segments, &[1]);
    let attributes = vec![("reduction", Attr::Text(means.reduction))];
    Ok(g.emit("ScatterND", &[&empty, &places, &rows.name], attributes, dtype, Some(dims)))
}

/// Rows below 0 belong to none, and others have to be below the number of segments.
fn unsorted(g: &mut Graph, c: &Call<'_>, means: &Means) -> Outcome {
    let (id, segments, number) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, SUMMED)?;
    let (dims, own) = (g.dims(id)?, g.dims(segments)?);
    if own.len() > dims.len() {
        return refuse("it has more segments than rows");
    }
    let known = g.constant_int(number, "number").ok().and_then(|n| usize::try_from(n).ok());
    let number = g.wide(number)?;
    let number = g.reshape(&number, &[1], Some(vec![Dim::Known(1)]));
    let (mut name, mut segments) = (g.plain(id), g.wide(segments)?);
    let row_dims = dims[own.len()..].to_vec();
    if own.len() != 1 {
        let flat = g.symbol();
        segments = g.reshape(&segments, &[-1], Some(vec![flat]));
        let (length, of_rows) = (sizes(g, &segments, 0, Some(1)), sizes(g, &name, own.len(), None));
        let shape = guards::joined(g, &[&length, &of_rows]);
        let mut all = vec![flat];
        all.extend(&row_dims);
        name = guards::reshaped(g, &name, &shape, Some(all));
    }
    let lines = facts(g, &segments).1;
    let (zero, one) = (g.scalar(DType::I64, 0.0)?, g.ints(&[1]));
    // One segment more takes the rows that belong to none; it is not open to others.
    let last = g.reshape(&number, &[], Some(vec![]));
    let is_last = test(g, "Equal", &segments, &last, &lines);
    let past = g.scalar(DType::I64, f64::from(i32::MAX))?;
    let others = choose(g, [&is_last, &past, &segments], &lines);
    let is_none = test(g, "Less", &segments, &zero, &lines);
    let segments = choose(g, [&is_none, &last, &others], &lines);
    let count = whole(g, "Add", &number, &one, &Some(vec![Dim::Known(1)]));
    let rows = Rows { name, segments, dims: row_dims };
    let open = g.symbol();
    let all = scattered(g, &rows, &count, open, means)?;
    let kept = known.map_or_else(|| g.symbol(), Dim::Known);
    let mut dims = vec![kept];
    dims.extend(&rows.dims);
    let (starts, axes, steps) = (g.ints(&[0]), g.ints(&[0]), g.ints(&[1]));
    let inputs = [&*all, &starts, &number, &axes, &steps];
    let name = g.emit("Slice", &inputs, vec![], dtype, Some(dims));
    Ok(vec![g.result(name)])
}

fn in_order(g: &mut Graph, c: &Call<'_>, means: Means) -> Outcome {
    let (id, segments) = (c.input(0)?, c.input(1)?);
    let dims = g.dims(id)?;
    let name = g.plain(id);
    ordered(g, (name, dims), segments, &means)
}

/// Of rows that are picked by indices before.
fn of_picked(g: &mut Graph, c: &Call<'_>, means: Means) -> Outcome {
    let (id, indices, segments) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dtype = g.get(id).dtype;
    let mut dims = g.dims(id)?;
    let Some(first) = dims.first_mut() else { return refuse("the rows of a scalar") };
    let [number] = g.dims(indices)?[..] else { return refuse("indices that are no vector") };
    *first = number;
    let (name, indices) = (g.plain(id), guarded_wide(g, indices)?);
    let attributes = vec![("axis", Attr::Int(0))];
    let name = g.emit("Gather", &[&name, &indices], attributes, dtype, Some(dims.clone()));
    ordered(g, (name, dims), segments, &means)
}

/// Segments one behind the other; as many as the last says. What none belongs to is zero, and one where
/// it is a product.
fn ordered(
    g: &mut Graph,
    (name, dims): (String, Vec<Dim>),
    segments: ValueId,
    means: &Means,
) -> Outcome {
    let dtype = facts(g, &name).0;
    expect_dtype(dtype, SUMMED)?;
    if means.divisor.is_some() && !matches!(dtype, DType::F32 | DType::F64) {
        return refuse("the mean of whole numbers");
    }
    let [length] = g.dims(segments)?[..] else { return refuse("segments that are no vector") };
    let wide = g.wide(segments)?;
    let segments = in_steps(g, &wide, length)?;
    // Of no rows there are no segments: a number below all is put before them.
    let none = g.ints(&[-1]);
    let longer = g.symbol();
    let attributes = vec![("axis", Attr::Int(0))];
    let all = g.emit("Concat", &[&none, &segments], attributes, DType::I64, Some(vec![longer]));
    let (minus_one, one) = (g.ints(&[-1]), g.ints(&[1]));
    let (end, axes) = (g.ints(&[i64::from(i32::MAX)]), g.ints(&[0]));
    let inputs = [&*all, &minus_one, &end, &axes, &one];
    let single = Some(vec![Dim::Known(1)]);
    let last = g.emit("Slice", &inputs, vec![], DType::I64, single.clone());
    let count = whole(g, "Add", &last, &one, &single);
    let number = g.symbol();
    let rows = Rows { name, segments: segments.clone(), dims: dims[1..].to_vec() };
    let sums = scattered(g, &rows, &count, number, means)?;
    let is_done = matches!(means.start, Start::Zero | Start::One) && means.divisor.is_none();
    if is_done {
        return Ok(vec![g.result(sums)]);
    }
    let counts = lengths(g, &segments, &count, (length, number), dims.len())?;
    let name = finished(g, &sums, &counts, means)?;
    Ok(vec![g.result(name)])
}

/// Segments as they are, in a run that fails where one is lower than the one before it, or than 0.
fn in_steps(g: &mut Graph, segments: &str, length: Dim) -> Result<String, Reason> {
    let zero = g.ints(&[0]);
    let (start, stop, axes, steps) = (g.ints(&[0]), g.ints(&[-1]), g.ints(&[0]), g.ints(&[1]));
    let shorter = g.symbol();
    let inputs = [segments, &start, &stop, &axes, &steps];
    let before = g.emit("Slice", &inputs, vec![], DType::I64, Some(vec![shorter]));
    let attributes = vec![("axis", Attr::Int(0))];
    let longer = g.symbol();
    let before = g.emit("Concat", &[&zero, &before], attributes, DType::I64, Some(vec![longer]));
    // Of no segments, there is one too many.
    let own = sizes(g, segments, 0, Some(1));
    let inputs = [&*before, &start, &own, &axes, &steps];
    let before = g.emit("Slice", &inputs, vec![], DType::I64, Some(vec![length]));
    let is_lower = test(g, "Less", segments, &before, &Some(vec![length]));
    Ok(guards::unless(g, segments, &is_lower, "segment ids are not increasing"))
}

/// How many rows each segment has, with axes of size 1 behind up to `rank`.
fn lengths(
    g: &mut Graph,
    segments: &str,
    count: &str,
    (rows, number): (Dim, Dim),
    rank: usize,
) -> Result<String, Reason> {
    let one = g.scalar(DType::I64, 1.0)?;
    let shape = sizes(g, segments, 0, Some(1));
    let ones = g.emit("Expand", &[&one, &shape], vec![], DType::I64, Some(vec![rows]));
    let each = Rows { name: ones, segments: segments.to_owned(), dims: vec![] };
    let counts = scattered(g, &each, count, number, &Means::SUM)?;
    let axes: Vec<i64> = (1..rank as i64).collect();
    Ok(if axes.is_empty() { counts } else { spread(g, &counts, &axes) })
}

fn finished(g: &mut Graph, sums: &str, counts: &str, means: &Means) -> Result<String, Reason> {
    let (dtype, dims) = facts(g, sums);
    let counted = facts(g, counts).1;
    let (zero, one) = (g.scalar(DType::I64, 0.0)?, g.scalar(DType::I64, 1.0)?);
    let is_empty = test(g, "Equal", counts, &zero, &counted);
    let Some(divisor) = means.divisor else {
        let nothing = g.scalar(dtype, 0.0)?;
        return Ok(choose(g, [&is_empty, &nothing, sums], &dims));
    };
    let counts = choose(g, [&is_empty, &one, counts], &counted);
    let mut by = g.cast(&counts, dtype, counted.clone());
    if divisor == Divisor::RootOfCount {
        by = g.emit("Sqrt", &[&by], vec![], dtype, counted);
    }
    Ok(two(g, "Div", sums, &by, (dtype, dims)))
}

/// Numbers below this are told apart by comparing each value with each.
const BINS_MAX: i64 = 1 << 14;

fn bin_count(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, weights) = (c.input(0)?, c.input(2)?);
    expect_dtype(g.get(id).dtype, &[DType::I32, DType::I64])?;
    let known = g.constant_int(c.input(1)?, "number of bins").ok();
    let own = g.dims(id)?;
    let (dtype, weighed) = (g.get(weights).dtype, g.get(weights).dims.clone());
    expect_dtype(dtype, SUMMED)?;
    let is_plain = matches!(weighed.as_deref(), Some([Dim::Known(0)]));
    if known.is_some_and(|bins| !(1..=BINS_MAX).contains(&bins)) || !(1..=2).contains(&own.len()) {
        return refuse(format!("{known:?} bins of a tensor of rank {}", own.len()));
    }
    let is_binary = c.flag("binary_output", false)?;
    if !is_plain && (is_binary || weighed.map(|dims| dims.len()) != Some(own.len())) {
        return refuse("its weights are not one for each number");
    }
    let wide = g.wide(id)?;
    let zero = g.scalar(DType::I64, 0.0)?;
    let is_below = test(g, "Less", &wide, &zero, &Some(own.clone()));
    let wide = guards::unless(g, &wide, &is_below, "Input arr must be non-negative!");
    let column = spread(g, &wide, &[own.len() as i64]);
    let (numbers, bins) = match known {
        Some(bins) => (g.ints(&(0..bins).collect::<Vec<i64>>()), Dim::Known(bins as usize)),
        None => {
            let (number, bins) = (g.wide(c.input(1)?)?, g.symbol());
            let number = super::shaping::none_below_zero(g, &number, Some(vec![]))?;
            (guards::counted(g, &number, bins)?, bins)
        }
    };
    let mut all = own.clone();
    all.push(bins);
    let is_it = test(g, "Equal", &column, &numbers, &Some(all.clone()));
    let counted = if is_binary { DType::I32 } else { dtype };
    let mut hits = g.cast(&is_it, counted, Some(all.clone()));
    if !is_plain {
        let (weights, none) = (g.plain(weights), g.scalar(dtype, 0.0)?);
        let shape = sizes(g, &wide, 0, None);
        let weights = guards::reshaped(g, &weights, &shape, Some(own.clone()));
        let weights = spread(g, &weights, &[own.len() as i64]);
        hits = choose(g, [&is_it, &weights, &none], &Some(all.clone()));
    }
    all.remove(own.len() - 1);
    let axes = g.ints(&[own.len() as i64 - 1]);
    let attributes = vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    let name = g.emit("ReduceSum", &[&hits, &axes], attributes, counted, Some(all.clone()));
    if !is_binary {
        return Ok(vec![g.result(name)]);
    }
    let none = g.scalar(DType::I32, 0.0)?;
    let is_there = test(g, "Greater", &name, &none, &Some(all.clone()));
    let name = g.cast(&is_there, dtype, Some(all));
    Ok(vec![g.result(name)])
}

/// Rows by the number of their part.
fn partition(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, parts) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    super::expect_movable(dtype)?;
    let dims = g.dims(id)?;
    let number = c.int("num_partitions", 0)?;
    let [length] = g.dims(parts)?[..] else { return refuse("parts that are no vector") };
    if dims.is_empty() || !(1..=1024).contains(&number) {
        return refuse(format!("{number} parts of a tensor of rank {}", dims.len()));
    }
    let (name, parts) = (g.plain(id), g.wide(parts)?);
    let (zero, most) = (g.scalar(DType::I64, 0.0)?, g.scalar(DType::I64, number as f64)?);
    let lines = Some(vec![length]);
    let is_below = test(g, "Less", &parts, &zero, &lines);
    let is_above = test(g, "GreaterOrEqual", &parts, &most, &lines);
    let is_foreign = test(g, "Or", &is_below, &is_above, &lines);
    let parts = guards::unless(g, &parts, &is_foreign, "a partition is not there");
    let mut results = Vec::new();
    for number in 0..number {
        let number = g.scalar(DType::I64, number as f64)?;
        let is_it = test(g, "Equal", &parts, &number, &lines);
        let found = g.symbol();
        let columns = Some(vec![Dim::Known(1), found]);
        let places = g.emit("NonZero", &[&is_it], vec![], DType::I64, columns);
        let places = g.reshape(&places, &[-1], Some(vec![found]));
        let mut own = dims.clone();
        own[0] = found;
        let attributes = vec![("axis", Attr::Int(0))];
        let rows = g.emit("Gather", &[&name, &places], attributes, dtype, Some(own));
        results.push(g.result(rows));
    }
    Ok(results)
}

/// A tensor of one value but at some places, which ascend.
fn dense(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (places, shape, values, around) = (c.input(0)?, c.input(1)?, c.input(2)?, c.input(3)?);
    let dtype = g.get(values).dtype;
    super::expect_movable(dtype)?;
    let own = g.dims(places)?;
    let Some([Dim::Known(rank)]) = g.get(shape).dims.as_deref() else {
        return refuse("the rank of its result is not known");
    };
    let rank = *rank;
    let dims = match g.get(shape).elements.clone() {
        Some(elements) => super::shaping::target_dims(g, &elements)?,
        None => g.symbols(rank),
    };
    let is_rows = matches!(own[..], [_, Dim::Known(depth)] if depth == rank);
    if rank == 0 || !(is_rows || (rank == 1 && own.len() < 2)) {
        return refuse("its places do not fit its shape");
    }
    let wide = guarded_wide(g, places)?;
    let number = if own.is_empty() { Dim::Known(1) } else { own[0] };
    let rows_dims = vec![number, Dim::Known(rank)];
    let mut rows = g.reshape(&wide, &[-1, rank as i64], Some(rows_dims.clone()));
    let shape = g.wide(shape)?;
    if c.flag("validate_indices", true)? {
        rows = ascending(g, &rows, &shape, number, rank)?;
    }
    let (around, mut values_name) = (g.plain(around), g.plain(values));
    let empty = g.emit("Expand", &[&around, &shape], vec![], dtype, Some(dims.clone()));
    let length = sizes(g, &rows, 0, Some(1));
    // One value may stand for all.
    values_name = g.emit("Expand", &[&values_name, &length], vec![], dtype, Some(vec![number]));
    let attributes = vec![("reduction", Attr::Text("none"))];
    let inputs = [&*empty, &rows, &values_name];
    let name = g.emit("ScatterND", &inputs, attributes, dtype, Some(dims));
    Ok(vec![g.result(name)])
}

/// Places as they are, in a run that fails where one does not lie behind the one before it.
fn ascending(
    g: &mut Graph,
    rows: &str,
    shape: &str,
    number: Dim,
    rank: usize,
) -> Result<String, Reason> {
    // The place of each in all cells one after another.
    let mut flat: Option<String> = None;
    let lines = Some(vec![number]);
    for axis in 0..rank {
        let at = g.scalar(DType::I64, axis as f64)?;
        let attributes = vec![("axis", Attr::Int(1))];
        let own = g.emit("Gather", &[rows, &at], attributes, DType::I64, lines.clone());
        flat = Some(match flat {
            None => own,
            Some(flat) => {
                let size = part(g, shape, axis, axis + 1);
                let before = whole(g, "Mul", &flat, &size, &lines);
                whole(g, "Add", &before, &own, &lines)
            }
        });
    }
    let Some(flat) = flat else { return refuse("places without numbers") };
    let (first, second) = (g.ints(&[0]), g.ints(&[1]));
    let (last, end) = (g.ints(&[-1]), g.ints(&[i64::from(i32::MAX)]));
    let shorter = Some(vec![g.symbol()]);
    let cut = |g: &mut Graph, from: &str, to: &str| {
        let inputs = [&*flat, from, to, &first, &second];
        g.emit("Slice", &inputs, vec![], DType::I64, shorter.clone())
    };
    let (before, after) = (cut(g, &first, &last), cut(g, &second, &end));
    let is_not_behind = test(g, "LessOrEqual", &after, &before, &shorter);
    Ok(guards::unless(g, rows, &is_not_behind, "indices are repeated or out of order"))
}
