//! Choosing among overlapping boxes, as detectors do behind their networks.
//!
//! Both sides take the better box first, the earlier one of equals, and drop what overlaps by more
//! than the threshold. Invariant: scores are f32; what lowers scores instead of dropping boxes is `soft_suppression`'s.

use vesta_model::DType;

use super::soft_suppression::{Field as SoftField, Taken};
use super::{expect_dtype, soft_suppression};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("CombinedNonMaxSuppression", suppress_by_class),
    ("NonMaxSuppression", suppress),
    ("NonMaxSuppressionV2", suppress),
    ("NonMaxSuppressionV3", suppress),
    ("NonMaxSuppressionV4", suppress),
    ("NonMaxSuppressionV5", suppress),
];

/// A scalar as a vector of one, in its own dtype.
fn vector_of_one(g: &mut Graph, id: ValueId) -> String {
    let name = g.plain(id);
    g.reshape(&name, &[1], Some(vec![Dim::Known(1)]))
}

/// A number of boxes as a vector of one.
fn count_of(g: &mut Graph, id: ValueId) -> Result<String, Reason> {
    if let Ok(count) = g.constant_int(id, "number of boxes") {
        if count < 0 {
            return refuse("a negative number of boxes");
        }
        return Ok(g.ints(&[count]));
    }
    let wide = g.wide(id)?;
    Ok(g.reshape(&wide, &[1], Some(vec![Dim::Known(1)])))
}

/// The rows `batch, class, box` that ONNX's operator gives. Boxes are `[batch, n, 4]`, scores
/// `[batch, classes, n]`.
fn selected(g: &mut Graph, inputs: [&str; 5]) -> (String, Dim) {
    let count = g.symbol();
    let attributes = vec![("center_point_box", Attr::Int(0))];
    let dims = Some(vec![count, Dim::Known(3)]);
    (g.emit("NonMaxSuppression", &inputs, attributes, DType::I64, dims), count)
}

fn suppress(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (boxes, scores, most) = (c.input(0)?, c.input(1)?, c.input(2)?);
    expect_dtype(g.get(boxes).dtype, &[DType::F32])?;
    expect_dtype(g.get(scores).dtype, &[DType::F32])?;
    let version = c.node.op.strip_prefix("NonMaxSuppression").unwrap_or_default();
    let sigma = match version {
        "V5" => {
            let constant = g.get(c.input(5)?).constant.as_ref();
            match constant.and_then(Constant::to_float) {
                Some(sigma) => sigma,
                None => return refuse("its soft_nms_sigma is known only when the model runs"),
            }
        }
        _ => 0.0,
    };
    let overlap = match version {
        "" => {
            let threshold = c.float("iou_threshold", 0.5)?;
            let Some(constant) = Constant::floats(&[1], &[threshold]) else {
                return refuse("its threshold has no constant");
            };
            g.initializer(constant)
        }
        _ => {
            let id = c.input(3)?;
            expect_dtype(g.get(id).dtype, &[DType::F32])?;
            vector_of_one(g, id)
        }
    };
    let lowest = match version {
        "" | "V2" => match Constant::floats(&[1], &[f32::MIN]) {
            Some(constant) => g.initializer(constant),
            None => return refuse("its threshold has no constant"),
        },
        _ => {
            let id = c.input(4)?;
            expect_dtype(g.get(id).dtype, &[DType::F32])?;
            vector_of_one(g, id)
        }
    };
    let known_most = g.constant_int(most, "number").ok().and_then(|n| usize::try_from(n).ok());
    let most = count_of(g, most)?;
    let number = g.get(scores).dims.as_ref().and_then(|dims| dims.first().copied());
    let number = number.unwrap_or_else(|| g.symbol());
    let (boxes, flat_scores) = (g.plain(boxes), g.plain(scores));
    let is_padded = matches!(version, "V4" | "V5") && c.flag("pad_to_max_output_size", false)?;
    let padded_to = is_padded.then(|| (most.clone(), known_most));
    if sigma > 0.0 {
        let (most, lowest) = (&most, &lowest);
        let field =
            SoftField { boxes: &boxes, scores: &flat_scores, most, lowest, sigma: sigma as f32 };
        let taken = soft_suppression::suppress(g, &field)?;
        return results(g, version, taken, padded_to);
    }
    let (first, first_two) = (g.ints(&[0]), g.ints(&[0, 1]));
    let dims = Some(vec![Dim::Known(1), number, Dim::Known(4)]);
    let boxes = g.emit("Unsqueeze", &[&boxes, &first], vec![], DType::F32, dims);
    let dims = Some(vec![Dim::Known(1), Dim::Known(1), number]);
    let scores = g.emit("Unsqueeze", &[&flat_scores, &first_two], vec![], DType::F32, dims);
    let (rows, count) = selected(g, [&boxes, &scores, &most, &overlap, &lowest]);
    let chosen = column(g, &rows, 2, count);
    let own = vec![("axis", Attr::Int(0))];
    let scores = g.emit("Gather", &[&flat_scores, &chosen], own, DType::F32, Some(vec![count]));
    results(g, version, Taken { chosen, scores }, padded_to)
}

/// The outputs of each version; `padded_to` is the number of boxes that they are filled up to.
fn results(
    g: &mut Graph,
    version: &str,
    it: Taken,
    padded_to: Option<(String, Option<usize>)>,
) -> Outcome {
    let Taken { mut chosen, mut scores } = it;
    let one = Some(vec![Dim::Known(1)]);
    let valid = g.emit("Shape", &[&chosen], vec![("start", Attr::Int(0))], DType::I64, one.clone());
    if let Some((most, known)) = padded_to {
        let missing = g.emit("Sub", &[&most, &valid], vec![], DType::I64, one);
        let zero = g.ints(&[0]);
        let attributes = vec![("axis", Attr::Int(0))];
        let two = Some(vec![Dim::Known(2)]);
        let pads = g.emit("Concat", &[&zero, &missing], attributes, DType::I64, two);
        let count = known.map_or_else(|| g.symbol(), Dim::Known);
        for (name, dtype) in [(&mut chosen, DType::I64), (&mut scores, DType::F32)] {
            let fill = g.scalar(dtype, 0.0)?;
            let attributes = vec![("mode", Attr::Text("constant"))];
            let dims = Some(vec![count]);
            *name = g.emit("Pad", &[&*name, &pads, &fill], attributes, dtype, dims);
        }
    }
    let chosen = g.narrowed(chosen, DType::I32);
    let valid = g.reshape(&valid, &[], Some(vec![]));
    let valid = g.narrowed(valid, DType::I32);
    Ok(match version {
        "V4" => vec![chosen, valid],
        "V5" => vec![chosen, g.result(scores), valid],
        _ => vec![chosen],
    })
}

/// One of the three numbers of each row.
fn column(g: &mut Graph, rows: &str, at: i64, count: Dim) -> String {
    let at = g.scalar(DType::I64, at as f64).unwrap_or_default();
    g.emit("Gather", &[rows, &at], vec![("axis", Attr::Int(1))], DType::I64, Some(vec![count]))
}

/// Sizes of what is chosen from, per image.
struct Field {
    batch: Dim,
    classes: usize,
    /// Boxes for each class, or for all.
    boxes: Dim,
    /// Whether each class has boxes of its own.
    is_by_class: bool,
    /// Boxes that are given for each image.
    most: usize,
}

fn suppress_by_class(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (boxes, scores) = (c.input(0)?, c.input(1)?);
    expect_dtype(g.get(boxes).dtype, &[DType::F32])?;
    let each = g.constant_int(c.input(2)?, "number of boxes of a class")?;
    let total = g.constant_int(c.input(3)?, "number of boxes")?;
    let (own, scored) = (g.dims(boxes)?, g.dims(scores)?);
    let (&[batch, number, Dim::Known(groups), _], &[_, _, Dim::Known(classes)]) =
        (&own[..], &scored[..])
    else {
        return refuse("the number of its classes is not known");
    };
    if groups != 1 && groups != classes {
        return refuse(format!("boxes for {groups} classes and scores for {classes}"));
    }
    let (Ok(each), Ok(total)) = (usize::try_from(each), usize::try_from(total)) else {
        return refuse("a negative number of boxes");
    };
    let most = if c.flag("pad_per_class", false)? {
        total.min(each.saturating_mul(classes))
    } else {
        total
    };
    if most == 0 || most > 1 << 20 || each == 0 || classes == 0 {
        return refuse(format!("{most} boxes of {classes} classes"));
    }
    let field = Field { batch, classes, boxes: number, is_by_class: groups > 1, most };
    let limit = g.ints(&[each as i64]);
    let thresholds = [vector_of_one(g, c.input(4)?), vector_of_one(g, c.input(5)?)];
    let (boxes, scores) = (lines_of_boxes(g, boxes, &field), lines_of_scores(g, scores, &field));
    let kept = kept_scores(g, &field, [&boxes, &scores, &limit, &thresholds[0], &thresholds[1]]);
    let best = best(g, &field, &kept, &scores)?;
    let is_clipped = c.flag("clip_boxes", true)?;
    finish(g, &field, best, &boxes, is_clipped)
}

/// Boxes as ONNX's operator takes them: `[images, n, 4]`, where a class with boxes of its own counts
/// as an image.
fn lines_of_boxes(g: &mut Graph, boxes: ValueId, field: &Field) -> String {
    let name = g.plain(boxes);
    if !field.is_by_class {
        let axes = g.ints(&[2]);
        let dims = Some(vec![field.batch, field.boxes, Dim::Known(4)]);
        return g.emit("Squeeze", &[&name, &axes], vec![], DType::F32, dims);
    }
    let dims = vec![field.batch, Dim::Known(field.classes), field.boxes, Dim::Known(4)];
    let turned = g.transpose(&name, &[0, 2, 1, 3], DType::F32, Some(dims));
    regrouped(g, &turned, &[-1], 2)
}

/// Scores as ONNX's operator takes them: `[images, classes, n]`.
fn lines_of_scores(g: &mut Graph, scores: ValueId, field: &Field) -> String {
    let name = g.plain(scores);
    let dims = Some(vec![field.batch, Dim::Known(field.classes), field.boxes]);
    let turned = g.transpose(&name, &[0, 2, 1], DType::F32, dims);
    if field.is_by_class { regrouped(g, &turned, &[-1, 1], 2) } else { turned }
}

/// The tensor with `sizes` in place of its first axes, those from `from` on as they are.
fn regrouped(g: &mut Graph, name: &str, sizes: &[i64], from: i64) -> String {
    let rank = g.facts.get(name).and_then(|fact| fact.1.as_ref()).map_or(0, Vec::len);
    let left = rank.saturating_sub(from as usize);
    let start = vec![("start", Attr::Int(from))];
    let kept = g.emit("Shape", &[name], start, DType::I64, Some(vec![Dim::Known(left)]));
    let sizes_name = g.ints(sizes);
    let all = Some(vec![Dim::Known(sizes.len() + left)]);
    let attributes = vec![("axis", Attr::Int(0))];
    let shape = g.emit("Concat", &[&sizes_name, &kept], attributes, DType::I64, all);
    let mut dims: Vec<Dim> = sizes
        .iter()
        .map(|&size| usize::try_from(size).map_or_else(|_| g.symbol(), Dim::Known))
        .collect();
    let own = g.facts.get(name).and_then(|fact| fact.1.clone()).unwrap_or_default();
    dims.extend(own.get(from as usize..).unwrap_or_default());
    let dtype = g.facts.get(name).map_or(DType::Invalid, |fact| fact.0);
    g.emit("Reshape", &[name, &shape], vec![("allowzero", Attr::Int(0))], dtype, Some(dims))
}

/// The number of boxes of a class, as an int64 scalar.
fn number_of_boxes(g: &mut Graph, lines_of_scores: &str) -> String {
    let attributes = vec![("start", Attr::Int(2)), ("end", Attr::Int(3))];
    let one = Some(vec![Dim::Known(1)]);
    let number = g.emit("Shape", &[lines_of_scores], attributes, DType::I64, one);
    g.reshape(&number, &[], Some(vec![]))
}

/// Scores of the chosen boxes in their places, all others at the bottom: `[batch, classes * n]`.
fn kept_scores(g: &mut Graph, field: &Field, inputs: [&str; 5]) -> String {
    let scores = inputs[1];
    let (rows, count) = selected(g, inputs);
    let lines = Some(vec![count]);
    let int = |op: &'static str, a: &str, b: &str, g: &mut Graph| {
        g.emit(op, &[a, b], vec![], DType::I64, lines.clone())
    };
    let number = number_of_boxes(g, scores);
    let (image, class, place) =
        (column(g, &rows, 0, count), column(g, &rows, 1, count), column(g, &rows, 2, count));
    let classes = if field.is_by_class { 1 } else { field.classes };
    let classes = g.scalar(DType::I64, classes as f64).unwrap_or_default();
    let line = int("Mul", &image, &classes, g);
    let line = int("Add", &line, &class, g);
    let line = int("Mul", &line, &number, g);
    let at = int("Add", &line, &place, g);
    let open = g.symbol();
    let flat = g.reshape(scores, &[-1], Some(vec![open]));
    let own = vec![("axis", Attr::Int(0))];
    let found = g.emit("Gather", &[&flat, &at], own, DType::F32, Some(vec![count]));
    let attributes = vec![("start", Attr::Int(0))];
    let shape = g.emit("Shape", &[&flat], attributes, DType::I64, Some(vec![Dim::Known(1)]));
    let lowest = g.scalar(DType::F32, f64::NEG_INFINITY).unwrap_or_default();
    let bottom = g.emit("Expand", &[&lowest, &shape], vec![], DType::F32, Some(vec![open]));
    let attributes = vec![("axis", Attr::Int(0)), ("reduction", Attr::Text("none"))];
    let kept = g.emit(
        "ScatterElements",
        &[&bottom, &at, &found],
        attributes,
        DType::F32,
        Some(vec![open]),
    );
    let classes = g.scalar(DType::I64, field.classes as f64).unwrap_or_default();
    let width = g.emit("Mul", &[&number, &classes], vec![], DType::I64, Some(vec![]));
    let width = g.reshape(&width, &[1], Some(vec![Dim::Known(1)]));
    // With no boxes at all, the batch is not what is left over; so it is stated.
    let all = batch_of(g, field, scores);
    let attributes = vec![("axis", Attr::Int(0))];
    let two = Some(vec![Dim::Known(2)]);
    let shape = g.emit("Concat", &[&all, &width], attributes, DType::I64, two);
    let wide = g.symbol();
    let dims = Some(vec![field.batch, wide]);
    g.emit("Reshape", &[&kept, &shape], vec![("allowzero", Attr::Int(1))], DType::F32, dims)
}

/// The number of images, as an int64 vector of one.
fn batch_of(g: &mut Graph, field: &Field, lines: &str) -> String {
    let attributes = vec![("start", Attr::Int(0)), ("end", Attr::Int(1))];
    let one = Some(vec![Dim::Known(1)]);
    let lines = g.emit("Shape", &[lines], attributes, DType::I64, one.clone());
    if !field.is_by_class {
        return lines;
    }
    let classes = g.ints(&[field.classes as i64]);
    g.emit("Div", &[&lines, &classes], vec![], DType::I64, one)
}

/// The best of each image.
struct Best {
    scores: String,
    is_valid: String,
    /// The class of each, int64.
    classes: String,
    /// The row of each in the image's boxes, and past them all where none is left.
    places: String,
    count: String,
}

fn best(g: &mut Graph, field: &Field, kept: &str, scores: &str) -> Result<Best, Reason> {
    let most = g.ints(&[field.most as i64]);
    let lowest = g.scalar(DType::F32, f64::NEG_INFINITY)?;
    // As many more at the bottom, so that there are enough to choose from.
    let pads = g.ints(&[0, 0, 0, field.most as i64]);
    let wide = g.symbol();
    let attributes = vec![("mode", Attr::Text("constant"))];
    let dims = Some(vec![field.batch, wide]);
    let padded = g.emit("Pad", &[kept, &pads, &lowest], attributes, DType::F32, dims);
    let dims = Some(vec![field.batch, Dim::Known(field.most)]);
    let attributes =
        vec![("axis", Attr::Int(-1)), ("largest", Attr::Int(1)), ("sorted", Attr::Int(1))];
    let given = vec![(DType::F32, dims.clone()), (DType::I64, dims.clone())];
    let [values, at] = &g.emit_many("TopK", &[&padded, &most], attributes, given)[..] else {
        return refuse("its best are not two tensors");
    };
    let is_valid = g.emit("Greater", &[values, &lowest], vec![], DType::Bool, dims.clone());
    let (zero, nothing) = (g.scalar(DType::F32, 0.0)?, g.scalar(DType::I64, 0.0)?);
    let best = g.emit("Where", &[&is_valid, values, &zero], vec![], DType::F32, dims.clone());
    let at = g.emit("Where", &[&is_valid, at, &nothing], vec![], DType::I64, dims.clone());
    let number = number_of_boxes(g, scores);
    let one = g.scalar(DType::I64, 1.0)?;
    // Without boxes there is nothing to divide, and no engine shall divide by it.
    let is_none = g.emit("Equal", &[&number, &nothing], vec![], DType::Bool, Some(vec![]));
    let inputs = [&*is_none, &one, &number];
    let divisor = g.emit("Where", &inputs, vec![], DType::I64, Some(vec![]));
    let class = g.emit("Div", &[&at, &divisor], vec![], DType::I64, dims.clone());
    let (place, end) = if field.is_by_class {
        let classes = g.scalar(DType::I64, field.classes as f64)?;
        (at, g.emit("Mul", &[&number, &classes], vec![], DType::I64, Some(vec![])))
    } else {
        let before = g.emit("Mul", &[&class, &divisor], vec![], DType::I64, dims.clone());
        (g.emit("Sub", &[&at, &before], vec![], DType::I64, dims.clone()), number)
    };
    let places = g.emit("Where", &[&is_valid, &place, &end], vec![], DType::I64, dims.clone());
    let numbers = g.cast(&is_valid, DType::I32, dims);
    let axes = g.ints(&[1]);
    let attributes = vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    let per_image = Some(vec![field.batch]);
    let count = g.emit("ReduceSum", &[&numbers, &axes], attributes, DType::I32, per_image);
    Ok(Best { scores: best, is_valid, classes: class, places, count })
}

fn finish(g: &mut Graph, field: &Field, best: Best, boxes: &str, is_clipped: bool) -> Outcome {
    let dims = vec![field.batch, Dim::Known(field.most)];
    let mut rows = boxes.to_owned();
    if field.is_by_class {
        let per_image = g.symbol();
        let images = batch_of(g, field, boxes);
        let rest = g.ints(&[-1, 4]);
        let attributes = vec![("axis", Attr::Int(0))];
        let three = Some(vec![Dim::Known(3)]);
        let shape = g.emit("Concat", &[&images, &rest], attributes, DType::I64, three);
        let all = Some(vec![field.batch, per_image, Dim::Known(4)]);
        rows =
            g.emit("Reshape", &[&rows, &shape], vec![("allowzero", Attr::Int(0))], DType::F32, all);
    }
    // A row of zeros at the end is what stands where no box is left.
    let (pads, zero) = (g.ints(&[0, 0, 0, 0, 1, 0]), g.scalar(DType::F32, 0.0)?);
    let longer = g.symbol();
    let all = Some(vec![field.batch, longer, Dim::Known(4)]);
    let attributes = vec![("mode", Attr::Text("constant"))];
    let rows = g.emit("Pad", &[&rows, &pads, &zero], attributes, DType::F32, all);
    let (last, mut lengthened) = (g.ints(&[2]), dims.clone());
    lengthened.push(Dim::Known(1));
    let places = g.emit("Unsqueeze", &[&best.places, &last], vec![], DType::I64, Some(lengthened));
    let mut of_boxes = dims.clone();
    of_boxes.push(Dim::Known(4));
    let attributes = vec![("batch_dims", Attr::Int(1))];
    let mut chosen =
        g.emit("GatherND", &[&rows, &places], attributes, DType::F32, Some(of_boxes.clone()));
    if is_clipped {
        let one = g.scalar(DType::F32, 1.0)?;
        chosen = g.emit("Min", &[&chosen, &one], vec![], DType::F32, Some(of_boxes.clone()));
        chosen = g.emit("Max", &[&chosen, &zero], vec![], DType::F32, Some(of_boxes));
    }
    let classes = g.cast(&best.classes, DType::F32, Some(dims.clone()));
    let inputs = [&*best.is_valid, &classes, &zero];
    let classes = g.emit("Where", &inputs, vec![], DType::F32, Some(dims));
    Ok([chosen, best.scores, classes, best.count].into_iter().map(|name| g.result(name)).collect())
}
