//! Numbers rounded to the steps that a narrower dtype has, as networks are that were trained for it.
//!
//! Invariant: ranges are known, and steps are computed in the order and precision of TensorFlow's, so
//! that a number between two steps goes to the same one.

use vesta_model::DType;

use super::expect_dtype;
use super::layout::{broadcast_all, combine};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::ValueId;

pub(super) const FAMILY: Family = &[
    ("FakeQuantWithMinMaxArgs", |g, c| {
        let range = (vec![c.float("min", -6.0)?], vec![c.float("max", 6.0)?]);
        fake(g, c, range, vec![])
    }),
    ("FakeQuantWithMinMaxVars", |g, c| fake(g, c, range(g, c)?, vec![])),
    ("FakeQuantWithMinMaxVarsPerChannel", |g, c| {
        let range = range(g, c)?;
        let channels = vec![range.0.len()];
        fake(g, c, range, channels)
    }),
    ("QuantizeAndDequantizeV2", there_and_back),
    ("QuantizeAndDequantizeV3", there_and_back),
    ("QuantizeAndDequantizeV4", there_and_back),
];

type Range = (Vec<f32>, Vec<f32>);

/// The ends of the range, which are inputs.
fn range(g: &Graph, c: &Call<'_>) -> Result<Range, Reason> {
    let floats = |input: usize| -> Result<Vec<f32>, Reason> {
        let constant = g.get(c.input(input)?).constant.as_ref().and_then(Constant::to_floats);
        constant.ok_or_else(|| Reason("its range is known only when the model runs".into()))
    };
    let (low, high) = (floats(1)?, floats(2)?);
    if low.len() != high.len() {
        return refuse("a range with more lower than upper ends");
    }
    Ok((low, high))
}

fn constant(g: &mut Graph, dims: &[usize], values: &[f32]) -> Result<ValueId, Reason> {
    match Constant::floats(dims, values) {
        Some(constant) => Ok(g.constant(constant)),
        None => refuse("its steps have no constant"),
    }
}

/// Whether the ends are numbers, and in order.
fn is_range(low: f32, high: f32) -> bool {
    low <= high
}

fn node(g: &mut Graph, op: &'static str, ids: &[ValueId]) -> Result<ValueId, Reason> {
    let dims = broadcast_all(g, ids);
    combine(g, op, ids, vec![], DType::F32, dims)
}

/// A range whose ends are moved until zero is one of its steps.
struct Nudged {
    low: f32,
    high: f32,
    step: f32,
}

fn nudged(low: f32, high: f32, first: f32, last: f32) -> Nudged {
    let step = (high - low) / (last - first);
    let at = first - low / step;
    let zero = if at < first {
        first
    } else if at > last {
        last
    } else {
        at.round()
    };
    Nudged { low: (first - zero) * step, high: (last - zero) * step, step }
}

fn fake(g: &mut Graph, c: &Call<'_>, (low, high): Range, dims: Vec<usize>) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, &[DType::F32])?;
    let bits = c.int("num_bits", 8)?;
    if !(2..=16).contains(&bits) {
        return refuse(format!("steps of {bits} bits"));
    }
    let first = if c.flag("narrow_range", false)? { 1.0 } else { 0.0 };
    let last = ((1i64 << bits) - 1) as f32;
    if low
        .iter()
        .zip(&high)
        .any(|(&low, &high)| !is_range(low, high) || low > 0.0 || high < 0.0 || low == high)
    {
        return refuse("a range without zero, or without width");
    }
    let ranges: Vec<Nudged> =
        low.iter().zip(&high).map(|(&low, &high)| nudged(low, high, first, last)).collect();
    let all = |of: fn(&Nudged) -> f32| ranges.iter().map(of).collect::<Vec<f32>>();
    let low = constant(g, &dims, &all(|range| range.low))?;
    let high = constant(g, &dims, &all(|range| range.high))?;
    let step = constant(g, &dims, &all(|range| range.step))?;
    let steps = constant(g, &dims, &all(|range| 1.0 / range.step))?;
    let half = constant(g, &[], &[0.5])?;
    let capped = node(g, "Min", &[id, high])?;
    let held = node(g, "Max", &[capped, low])?;
    let above = node(g, "Sub", &[held, low])?;
    let scaled = node(g, "Mul", &[above, steps])?;
    let moved = node(g, "Add", &[scaled, half])?;
    let rounded = node(g, "Floor", &[moved])?;
    let back = node(g, "Mul", &[rounded, step])?;
    Ok(vec![node(g, "Add", &[back, low])?])
}

/// The ends and the steps of a range that has zero in its middle, or at its end.
fn centred(low: f32, high: f32, first: f32, last: f32) -> [f32; 4] {
    let side = |first: f32, low: f32| if first * low > 0.0 { first / low } else { f32::MAX };
    let (below, above) = (side(first, low), side(last, high));
    if below < above {
        let step = low / first;
        [low, last * step, below, step]
    } else {
        let step = high / last;
        [first * step, high, above, step]
    }
}

fn there_and_back(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, &[DType::F32])?;
    if !c.flag("range_given", c.node.op == "QuantizeAndDequantizeV3")? {
        return refuse("its range is that of what it is given");
    }
    if c.int("axis", -1)? != -1 {
        return refuse("ranges by axis");
    }
    let known = match c.node.op.as_str() {
        "QuantizeAndDequantizeV3" => g.constant_int(c.input(3)?, "number of bits")?,
        _ => c.int("num_bits", 8)?,
    };
    let is_signed = c.flag("signed_input", true)?;
    let is_narrow = c.flag("narrow_range", false)?;
    if !(2..=24).contains(&known) {
        return refuse(format!("steps of {known} bits"));
    }
    let (first, last) = if is_signed {
        let half = 1i64 << (known - 1);
        (-half + i64::from(is_narrow), half - 1)
    } else {
        (0, (1i64 << known) - 1)
    };
    let (low, high) = range(g, c)?;
    let (&[low], &[high]) = (&low[..], &high[..]) else { return refuse("more ranges than one") };
    if !is_range(low, high) {
        return refuse("a range that ends before it begins");
    }
    let numbers = centred(low, high, first as f32, last as f32);
    let mut ids = [id; 4];
    for (id, number) in ids.iter_mut().zip(numbers) {
        *id = constant(g, &[], &[number])?;
    }
    let [low, high, steps, step] = ids;
    let capped = node(g, "Min", &[id, high])?;
    let held = node(g, "Max", &[capped, low])?;
    let scaled = node(g, "Mul", &[held, steps])?;
    let rounded = match c.text("round_mode", "HALF_TO_EVEN")?.as_str() {
        "HALF_TO_EVEN" => node(g, "Round", &[scaled])?,
        "HALF_UP" => {
            let half = constant(g, &[], &[0.5])?;
            let moved = node(g, "Add", &[scaled, half])?;
            node(g, "Floor", &[moved])?
        }
        other => return refuse(format!("rounding {other}")),
    };
    Ok(vec![node(g, "Mul", &[rounded, step])?])
}
