//! Complex numbers and their transforms, as networks for sound use them.
//!
//! ONNX Runtime and others take no complex tensors, so one is a pair of real ones ([`Value::parts`]). A
//! transform of known length is a product with the matrix of its waves, in the precision of any other
//! product. Invariant: no complex tensor leaves a signature, a branch or a loop.

use std::f64::consts::TAU;

use vesta_model::DType;
use vesta_protos::tensorflow::TensorProto;

use super::formula::Formula;
use super::{expect_dtype, functions};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome, Translator};
use crate::value::{Dim, Value, ValueId};

pub(super) const FAMILY: Family = &[
    ("Angle", angle),
    ("Complex", |g, c| {
        let (real, imaginary) = (c.input(0)?, c.input(1)?);
        // Both broadcast against each other.
        let mut f = formula(g, real)?;
        let zero = f.number(0.0)?;
        let like = f.node("Mul", &[imaginary, zero])?;
        let none = f.node("Mul", &[real, zero])?;
        let (real, imaginary) = (f.node("Add", &[real, like])?, f.node("Add", &[imaginary, none])?);
        Ok(vec![pair(g, real, imaginary)])
    }),
    ("ComplexAbs", magnitude),
    ("Conj", |g, c| {
        let (real, imaginary) = parts(g, c, 0)?;
        let imaginary = formula(g, imaginary)?.node("Neg", &[imaginary])?;
        Ok(vec![pair(g, real, imaginary)])
    }),
    ("FFT", |g, c| between(g, c, Direction::Forward)),
    ("IFFT", |g, c| between(g, c, Direction::Backward)),
    ("IRFFT", to_real),
    ("Imag", |g, c| Ok(vec![parts(g, c, 0)?.1])),
    ("RFFT", of_real),
    ("Real", |g, c| Ok(vec![parts(g, c, 0)?.0])),
];

/// Longer transforms would need too large a matrix.
const LENGTH_MAX: usize = 4096;

/// The reason of who takes real numbers alone.
const IS_COMPLEX: &str = "it takes complex numbers";

/// Translates an operator one of whose inputs is complex.
pub(crate) fn of_complex(g: &mut Graph, c: &Call<'_>, translator: Translator) -> Outcome {
    match c.node.op.as_str() {
        "Exp" => return power(g, c),
        "Mul" => return product(g, c),
        // What they ask is the same of both parts.
        "Rank" | "Shape" | "Size" => {
            let call = Call { inputs: halves(g, c)?.0, ..c.clone() };
            return translator(g, &call);
        }
        "Add" | "AddV2" | "Sub" => {
            parts(g, c, 0)?;
            parts(g, c, 1)?;
        }
        "ConcatV2" | "ExpandDims" | "Gather" | "GatherV2" | "Neg" | "Pack" | "Pad" | "Reshape"
        | "ReverseV2" | "Slice" | "Squeeze" | "StridedSlice" | "Transpose" => {}
        op if FAMILY.iter().any(|(own, _)| *own == op) => return translator(g, c),
        "Identity" | "IdentityN" | "StopGradient" | "Snapshot" => return translator(g, c),
        _ => return refuse(IS_COMPLEX),
    }
    // Linear: what becomes of the parts becomes of the whole.
    let (real, imaginary) = halves(g, c)?;
    let real = translator(g, &Call { inputs: real, ..c.clone() })?;
    let imaginary = translator(g, &Call { inputs: imaginary, ..c.clone() })?;
    Ok(real.into_iter().zip(imaginary).map(|(real, other)| pair(g, real, other)).collect())
}

/// The inputs with real parts in the place of complex ones, and with the others'.
fn halves(g: &mut Graph, c: &Call<'_>) -> Result<(Vec<ValueId>, Vec<ValueId>), Reason> {
    let (mut reals, mut imaginaries) = (Vec::new(), Vec::new());
    for &id in &c.inputs {
        let (real, imaginary) = g.get(id).parts.unwrap_or((id, id));
        // They are read once for each part.
        g.get_mut(id).uses += 1;
        reals.push(real);
        imaginaries.push(imaginary);
    }
    Ok((reals, imaginaries))
}

fn pair(g: &mut Graph, real: ValueId, imaginary: ValueId) -> ValueId {
    let dims = g.get(real).dims.clone();
    let value = Value::new(DType::Complex64, dims);
    g.add(Value { parts: Some((real, imaginary)), ..value })
}

fn parts(g: &Graph, c: &Call<'_>, input: usize) -> Result<(ValueId, ValueId), Reason> {
    match g.get(c.input(input)?).parts {
        Some(parts) => Ok(parts),
        None => refuse("it takes what is not complex here"),
    }
}

fn formula(g: &mut Graph, of: ValueId) -> Result<Formula<'_>, Reason> {
    expect_dtype(g.get(of).dtype, &[DType::F32])?;
    Ok(Formula { g, dtype: DType::F32 })
}

fn magnitude(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (real, imaginary) = parts(g, c, 0)?;
    let mut f = formula(g, real)?;
    let squares = [f.node("Mul", &[real, real])?, f.node("Mul", &[imaginary, imaginary])?];
    let sum = f.node("Add", &squares)?;
    Ok(vec![f.node("Sqrt", &[sum])?])
}

fn angle(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (real, imaginary) = parts(g, c, 0)?;
    functions::atan2(g, &Call { inputs: vec![imaginary, real], ..c.clone() })
}

fn product(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ((a, b), (x, y)) = (parts(g, c, 0)?, parts(g, c, 1)?);
    let mut f = formula(g, a)?;
    let (ax, by) = (f.node("Mul", &[a, x])?, f.node("Mul", &[b, y])?);
    let (ay, bx) = (f.node("Mul", &[a, y])?, f.node("Mul", &[b, x])?);
    let (real, imaginary) = (f.node("Sub", &[ax, by])?, f.node("Add", &[ay, bx])?);
    Ok(vec![pair(g, real, imaginary)])
}

/// The exponential: as long as that of the real part, turned by the imaginary one.
fn power(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (real, imaginary) = parts(g, c, 0)?;
    let mut f = formula(g, real)?;
    let length = f.node("Exp", &[real])?;
    let (cosine, sine) = (f.node("Cos", &[imaginary])?, f.node("Sin", &[imaginary])?);
    let (real, imaginary) = (f.node("Mul", &[length, cosine])?, f.node("Mul", &[length, sine])?);
    Ok(vec![pair(g, real, imaginary)])
}

/// A real tensor as complex numbers.
pub(super) fn widened(g: &mut Graph, real: ValueId) -> Outcome {
    let mut f = formula(g, real)?;
    let zero = f.number(0.0)?;
    // Whatever it is compared with, both sides of the choice are zero.
    let is_it = f.test("Equal", &[real, zero])?;
    let imaginary = f.node("Where", &[is_it, zero, zero])?;
    Ok(vec![pair(g, real, imaginary)])
}

/// A constant of complex numbers, each with its real part first.
pub(super) fn constant(g: &mut Graph, proto: &TensorProto) -> Outcome {
    let numbers: Vec<f32> = if proto.tensor_content.is_empty() {
        proto.scomplex_val.clone()
    } else {
        let words = proto.tensor_content.chunks_exact(4);
        words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
    };
    let mut part = |first: usize| -> Result<ValueId, Reason> {
        let constant = Constant::read(&TensorProto {
            dtype: DType::F32.number(),
            tensor_shape: proto.tensor_shape.clone(),
            float_val: numbers.iter().skip(first).step_by(2).copied().collect(),
            ..Default::default()
        })?;
        Ok(g.constant(constant))
    };
    let (real, imaginary) = (part(0)?, part(1)?);
    Ok(vec![pair(g, real, imaginary)])
}

/// Which matrix of waves, and the length of its transform.
pub(crate) type Waves = (&'static str, usize);

/// Numbers of all matrices of waves of one model. Such of one length are shared.
const WAVES_MAX: usize = 1 << 26;

/// The matrix `which` with what `of` makes of cosine and sine of row by column; the row is told, too.
fn waves(
    g: &mut Graph,
    which: Waves,
    (rows, columns): (usize, usize),
    of: impl Fn(usize, f64, f64) -> f32,
) -> Result<String, Reason> {
    if let Some(name) = g.waves.get(&which) {
        return Ok(name.clone());
    }
    let made = g.waves.values().filter_map(|name| g.initializers.get(name));
    if made.map(Constant::len).sum::<usize>() + rows * columns > WAVES_MAX {
        return refuse("transforms of too many lengths");
    }
    let length = which.1;
    let mut numbers = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            // Whole turns are taken off before they cost precision.
            let turn = TAU * ((row * column) % length) as f64 / length as f64;
            // What is zero but for the digits of a whole turn is zero.
            let exact = |wave: f64| if wave.abs() < 1e-15 { 0.0 } else { wave };
            numbers.push(of(row, exact(turn.cos()), exact(turn.sin())));
        }
    }
    let Some(constant) = Constant::floats(&[rows, columns], &numbers) else {
        return refuse("its waves have no constant");
    };
    let name = g.initializer(constant);
    g.waves.insert(which, name.clone());
    Ok(name)
}

/// Rows of `id` times a matrix of waves.
fn times(g: &mut Graph, id: ValueId, matrix: &str, columns: usize) -> ValueId {
    let mut dims = g.get(id).dims.clone();
    if let Some(last) = dims.as_mut().and_then(|dims| dims.last_mut()) {
        *last = Dim::Known(columns);
    }
    let name = g.plain(id);
    let name = g.emit("MatMul", &[&name, matrix], vec![], DType::F32, dims);
    g.result(name)
}

fn expect_length(length: usize) -> Result<usize, Reason> {
    if (1..=LENGTH_MAX).contains(&length) {
        Ok(length)
    } else {
        refuse(format!("a transform of length {length}; up to {LENGTH_MAX} are there"))
    }
}

/// The stated length of a transform.
fn stated(g: &Graph, c: &Call<'_>) -> Result<usize, Reason> {
    let length = g.constant_int(c.input(1)?, "length of transform")?;
    expect_length(usize::try_from(length).unwrap_or(0))
}

/// A tensor whose last axis has this size: cut, where it is longer. A shorter one is an error of the run, as
/// it is in TensorFlow.
fn cut(g: &mut Graph, id: ValueId, size: usize) -> Result<ValueId, Reason> {
    let mut dims = g.dims(id)?;
    let Some(last) = dims.last_mut() else { return refuse("a transform of a scalar") };
    match last {
        Dim::Known(n) if *n == size => return Ok(id),
        Dim::Known(n) if *n < size => return refuse("a transform of less than its length"),
        _ => *last = Dim::Known(size),
    }
    let (starts, ends) = (g.ints(&[0]), g.ints(&[size as i64]));
    let (axes, steps, name) = (g.ints(&[-1]), g.ints(&[1]), g.plain(id));
    let inputs = [&*name, &starts, &ends, &axes, &steps];
    let name = g.emit("Slice", &inputs, vec![], DType::F32, Some(dims));
    Ok(g.result(name))
}

/// Half of the waves: the others are their mirror.
fn of_real(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, &[DType::F32])?;
    let length = stated(g, c)?;
    let bins = length / 2 + 1;
    let id = cut(g, id, length)?;
    let shape = (length, bins);
    let cosines = waves(g, ("cosines of half", length), shape, |_, cosine, _| cosine as f32)?;
    let sines = waves(g, ("sines of half", length), shape, |_, _, sine| -sine as f32)?;
    let (real, imaginary) = (times(g, id, &cosines, bins), times(g, id, &sines, bins));
    Ok(vec![pair(g, real, imaginary)])
}

/// Real numbers of half of the waves. What the first and the middle one have besides is not looked at.
fn to_real(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (real, imaginary) = parts(g, c, 0)?;
    let length = stated(g, c)?;
    let bins = length / 2 + 1;
    let (real, imaginary) = (cut(g, real, bins)?, cut(g, imaginary, bins)?);
    let share = |row: usize, wave: f64| {
        let times = if row == 0 || 2 * row == length { 1.0 } else { 2.0 };
        (wave * times / length as f64) as f32
    };
    let shape = (bins, length);
    let cosines =
        waves(g, ("cosines to reals", length), shape, |row, cosine, _| share(row, cosine))?;
    let sines = waves(g, ("sines to reals", length), shape, |row, _, sine| share(row, -sine))?;
    let sides = [times(g, real, &cosines, length), times(g, imaginary, &sines, length)];
    Ok(vec![formula(g, sides[0])?.node("Add", &sides)?])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// A transform of complex numbers, along the last axis.
fn between(g: &mut Graph, c: &Call<'_>, direction: Direction) -> Outcome {
    let (real, imaginary) = parts(g, c, 0)?;
    let dims = g.dims(real)?;
    let Some(Dim::Known(length)) = dims.last().copied() else {
        return refuse("the length of its transform is not known");
    };
    let length = expect_length(length)?;
    let (names, sign, scale) = match direction {
        Direction::Forward => (["cosines", "sines"], -1.0, 1.0),
        Direction::Backward => (["cosines back", "sines back"], 1.0, 1.0 / length as f64),
    };
    let shape = (length, length);
    let cosines = waves(g, (names[0], length), shape, |_, cosine, _| (cosine * scale) as f32)?;
    let sines = waves(g, (names[1], length), shape, |_, _, sine| (sine * sign * scale) as f32)?;
    let (ac, bs) = (times(g, real, &cosines, length), times(g, imaginary, &sines, length));
    let (as_, bc) = (times(g, real, &sines, length), times(g, imaginary, &cosines, length));
    let mut f = formula(g, ac)?;
    let (real, imaginary) = (f.node("Sub", &[ac, bs])?, f.node("Add", &[as_, bc])?);
    Ok(vec![pair(g, real, imaginary)])
}
