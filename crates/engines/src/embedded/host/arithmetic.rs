//! Element-wise arithmetic, comparison, logic and selection for every dtype.
//!
//! Integers wrap, floats follow IEEE 754 with NaN passed on, short floats are computed as float and
//! rounded after each operator: as TensorFlow's kernels on a CPU do.

use vesta_model::{DType, Element, Status, StringsBuilder, Tensor};

use super::broadcast::{for_each_pair, joined_shape, zip};
use super::elements::{Assembler, Source, booleans, elements, narrowed, tensor, truths, widened};

/// An operator with two operands of one dtype and a result of that dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    FloorModulo,
    Maximum,
    Minimum,
    SquaredDifference,
}

/// An operator with one operand and a result of its dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Negate,
    Absolute,
    Sign,
    Square,
}

/// An operator that compares two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Comparison::Equal => a == b,
            Comparison::NotEqual => a != b,
            Comparison::Less => a < b,
            Comparison::LessEqual => a <= b,
            Comparison::Greater => a > b,
            Comparison::GreaterEqual => a >= b,
        }
    }
}

/// What arithmetic means for one element type.
pub(crate) trait Number: Element + PartialOrd + Send + Sync {
    fn binary(op: Binary, a: Self, b: Self) -> Self;
    fn unary(op: Unary, a: Self) -> Self;
    /// Whether dividing by it is an error rather than a value.
    fn refuses_as_divisor(self) -> bool;
    const ZERO: Self;
    const ONE: Self;
    /// Below or equal to all others.
    const LOWEST: Self;
    /// Above or equal to all others.
    const HIGHEST: Self;
    fn from_usize(value: usize) -> Self;
}

macro_rules! integer_numbers {
    ($($type:ty: $absolute:expr, $sign:expr;)*) => {$(
        impl Number for $type {
            fn binary(op: Binary, a: $type, b: $type) -> $type {
                match op {
                    Binary::Add => a.wrapping_add(b),
                    Binary::Subtract => a.wrapping_sub(b),
                    Binary::Multiply => a.wrapping_mul(b),
                    // A zero divisor was refused before.
                    Binary::Divide => if b == 0 { 0 } else { a.wrapping_div(b) },
                    Binary::FloorDivide => {
                        if b == 0 {
                            return 0;
                        }
                        let (quotient, rest) = (a.wrapping_div(b), a.wrapping_rem(b));
                        // Truncation went up exactly when the rest's sign is not the divisor's.
                        if rest != 0 && (rest > 0) != (b > 0) { quotient - 1 } else { quotient }
                    }
                    Binary::FloorModulo => {
                        if b == 0 {
                            return 0;
                        }
                        let rest = a.wrapping_rem(b);
                        if rest != 0 && (rest > 0) != (b > 0) { rest + b } else { rest }
                    }
                    Binary::Maximum => a.max(b),
                    Binary::Minimum => a.min(b),
                    Binary::SquaredDifference => {
                        let difference = a.wrapping_sub(b);
                        difference.wrapping_mul(difference)
                    }
                }
            }

            fn unary(op: Unary, a: $type) -> $type {
                match op {
                    Unary::Negate => (0 as $type).wrapping_sub(a),
                    Unary::Absolute => $absolute(a),
                    Unary::Sign => $sign(a),
                    Unary::Square => a.wrapping_mul(a),
                }
            }

            fn refuses_as_divisor(self) -> bool {
                self == 0
            }

            const ZERO: $type = 0;
            const ONE: $type = 1;
            const LOWEST: $type = <$type>::MIN;
            const HIGHEST: $type = <$type>::MAX;

            fn from_usize(value: usize) -> $type {
                value as $type
            }
        }
    )*};
}

integer_numbers! {
    i8: i8::wrapping_abs, i8::signum;
    i16: i16::wrapping_abs, i16::signum;
    i32: i32::wrapping_abs, i32::signum;
    i64: i64::wrapping_abs, i64::signum;
    u8: |a| a, |a: u8| a.min(1);
    u16: |a| a, |a: u16| a.min(1);
    u32: |a| a, |a: u32| a.min(1);
    u64: |a| a, |a: u64| a.min(1);
}

/// Zero of the same sign in the place of a subnormal number. TensorFlow's threads take and give
/// subnormals as zero, and its users see it.
macro_rules! flushed {
    ($value:expr) => {{
        let value = $value;
        if value.is_subnormal() { value * 0.0 } else { value }
    }};
}

macro_rules! float_numbers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn binary(op: Binary, a: $type, b: $type) -> $type {
                let (a, b) = (flushed!(a), flushed!(b));
                flushed!(match op {
                    Binary::Add => a + b,
                    Binary::Subtract => a - b,
                    Binary::Multiply => a * b,
                    Binary::Divide => a / b,
                    Binary::FloorDivide => (a / b).floor(),
                    Binary::FloorModulo => {
                        let rest = a % b;
                        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
                    }
                    // Not `f32::max`, which drops NaN.
                    Binary::Maximum => if a.is_nan() || a > b { a } else { b },
                    Binary::Minimum => if a.is_nan() || a < b { a } else { b },
                    Binary::SquaredDifference => (a - b) * (a - b),
                })
            }

            fn unary(op: Unary, a: $type) -> $type {
                let a = flushed!(a);
                flushed!(match op {
                    Unary::Negate => -a,
                    Unary::Absolute => a.abs(),
                    // Not `signum`, which knows no zero.
                    Unary::Sign => {
                        if a > 0.0 { 1.0 } else if a < 0.0 { -1.0 } else if a == 0.0 { 0.0 } else { a }
                    }
                    Unary::Square => a * a,
                })
            }

            fn refuses_as_divisor(self) -> bool {
                false
            }

            const ZERO: $type = 0.0;
            const ONE: $type = 1.0;
            const LOWEST: $type = <$type>::NEG_INFINITY;
            const HIGHEST: $type = <$type>::INFINITY;

            fn from_usize(value: usize) -> $type {
                value as $type
            }
        }
    )*};
}

float_numbers!(f32, f64);

/// Calls a generic function for the element type of a numeric dtype.
macro_rules! for_number {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::F32 => $function::<f32>($($argument),*),
            DType::F64 => $function::<f64>($($argument),*),
            DType::I8 => $function::<i8>($($argument),*),
            DType::I16 => $function::<i16>($($argument),*),
            DType::I32 => $function::<i32>($($argument),*),
            DType::I64 => $function::<i64>($($argument),*),
            DType::U8 => $function::<u8>($($argument),*),
            DType::U16 => $function::<u16>($($argument),*),
            DType::U32 => $function::<u32>($($argument),*),
            DType::U64 => $function::<u64>($($argument),*),
            dtype => Err(Status::internal(format!("no arithmetic for {dtype}"))),
        }
    };
}
pub(crate) use for_number;

/// Whether [`for_number`] knows the dtype, or it is a short float, which is widened.
pub(crate) fn is_number(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::F32
            | DType::F64
            | DType::F16
            | DType::BF16
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
    )
}

pub(crate) fn is_short_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

pub(crate) fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor, Status> {
    fn typed<T: Number>(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor, Status> {
        let (left, right) = (elements::<T>(a)?, elements::<T>(b)?);
        let divides = matches!(op, Binary::Divide | Binary::FloorDivide | Binary::FloorModulo);
        if divides && right.iter().any(|&value| value.refuses_as_divisor()) {
            joined_shape(a.shape(), b.shape(), T::DTYPE)?;
            return Err(Status::invalid_argument("Integer division by zero"));
        }
        // The operator is picked outside the loop, so that each loop is one vector instruction.
        let (left, right) = ((&left[..], a.shape()), (&right[..], b.shape()));
        let (shape, values) = match op {
            Binary::Add => zip(left, right, T::DTYPE, |a, b| T::binary(Binary::Add, a, b)),
            Binary::Subtract => {
                zip(left, right, T::DTYPE, |a, b| T::binary(Binary::Subtract, a, b))
            }
            Binary::Multiply => {
                zip(left, right, T::DTYPE, |a, b| T::binary(Binary::Multiply, a, b))
            }
            op => zip(left, right, T::DTYPE, |a, b| T::binary(op, a, b)),
        }?;
        tensor(shape, values)
    }
    if is_short_float(a.dtype()) {
        if op == Binary::SquaredDifference {
            // Two operators in one: the difference is rounded, too.
            return unary(Unary::Square, &binary(Binary::Subtract, a, b)?);
        }
        return narrowed(&binary(op, &widened(a)?, &widened(b)?)?, a.dtype());
    }
    if a.dtype() == DType::String && op == Binary::Add {
        return concat_strings(a, b);
    }
    for_number!(a.dtype(), typed(op, a, b))
}

fn concat_strings(a: &Tensor, b: &Tensor) -> Result<Tensor, Status> {
    let joined = joined_shape(a.shape(), b.shape(), DType::String)?;
    let broken = || Status::internal("a string kernel was given another dtype");
    let (left, right) = (a.strings().ok_or_else(broken)?, b.strings().ok_or_else(broken)?);
    let mut builder = StringsBuilder::new();
    for_each_pair(a.shape(), b.shape(), &joined, |a, b| {
        builder.push(&[left.get(a).unwrap_or(&[]), right.get(b).unwrap_or(&[])].concat());
    });
    Tensor::of_strings(joined, &builder)
}

pub(crate) fn unary(op: Unary, a: &Tensor) -> Result<Tensor, Status> {
    fn typed<T: Number>(op: Unary, a: &Tensor) -> Result<Tensor, Status> {
        let values = elements::<T>(a)?.iter().map(|&value| T::unary(op, value)).collect();
        tensor(a.shape().clone(), values)
    }
    if is_short_float(a.dtype()) {
        return narrowed(&unary(op, &widened(a)?)?, a.dtype());
    }
    for_number!(a.dtype(), typed(op, a))
}

pub(crate) fn compare(op: Comparison, a: &Tensor, b: &Tensor) -> Result<Tensor, Status> {
    fn typed<T: Number>(op: Comparison, a: &Tensor, b: &Tensor) -> Result<Tensor, Status> {
        let (left, right) = (elements::<T>(a)?, elements::<T>(b)?);
        let (shape, holds) =
            zip((&left, a.shape()), (&right, b.shape()), DType::Bool, |a, b| op.holds(a, b))?;
        booleans(shape, &holds)
    }
    if is_short_float(a.dtype()) {
        return compare(op, &widened(a)?, &widened(b)?);
    }
    match (a.strings(), b.strings()) {
        (Some(left), Some(right)) => {
            let joined = joined_shape(a.shape(), b.shape(), DType::String)?;
            let mut holds = Vec::with_capacity(joined.elements());
            for_each_pair(a.shape(), b.shape(), &joined, |a, b| {
                holds.push(op.holds(left.get(a), right.get(b)));
            });
            booleans(joined, &holds)
        }
        _ if a.dtype() == DType::Bool => {
            let (left, right) = ((truths(a)?, a.shape()), (truths(b)?, b.shape()));
            let (shape, holds) = zip(left, right, DType::Bool, |a, b| op.holds(a != 0, b != 0))?;
            booleans(shape, &holds)
        }
        _ => for_number!(a.dtype(), typed(op, a, b)),
    }
}

/// `and` or `or` of two boolean tensors.
pub(crate) fn logic(both: bool, a: &Tensor, b: &Tensor) -> Result<Tensor, Status> {
    let (left, right) = ((truths(a)?, a.shape()), (truths(b)?, b.shape()));
    let (shape, holds) =
        zip(
            left,
            right,
            DType::Bool,
            |a, b| {
                if both { a != 0 && b != 0 } else { a != 0 || b != 0 }
            },
        )?;
    booleans(shape, &holds)
}

pub(crate) fn not(a: &Tensor) -> Result<Tensor, Status> {
    let flipped: Vec<bool> = truths(a)?.iter().map(|&value| value == 0).collect();
    booleans(a.shape().clone(), &flipped)
}

/// Elements of `a` where `condition` holds, else of `b`; all three broadcast together.
pub(crate) fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, Status> {
    let chosen = truths(condition)?;
    let values = joined_shape(a.shape(), b.shape(), a.dtype())?;
    let shape = joined_shape(condition.shape(), &values, a.dtype())?;
    let mut positions = Vec::with_capacity(shape.elements());
    for_each_pair(condition.shape(), a.shape(), &shape, |c, a| positions.push((chosen[c] != 0, a)));
    let mut at = 0;
    for_each_pair(condition.shape(), b.shape(), &shape, |c, b| {
        if chosen[c] == 0 {
            positions[at].1 = b;
        }
        at += 1;
    });
    let sources = [Source::of(b)?, Source::of(a)?];
    let mut out = Assembler::new(a.dtype(), positions.len());
    for (chosen, position) in positions {
        out.append(&sources[usize::from(chosen)], position, 1)?;
    }
    out.finish(a.dtype(), shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::Shape;

    fn vector<T: Number>(values: &[T]) -> Tensor {
        Tensor::of(Shape::vector(values.len()), values).unwrap()
    }

    #[test]
    fn floor_division_rounds_down_and_wraps() {
        let a = vector(&[1i32, -7, 7, i32::MIN]);
        let b = vector(&[3i32, 2, -2, -1]);
        let out = binary(Binary::FloorDivide, &a, &b).unwrap();
        assert_eq!(out.to_vec::<i32>().unwrap(), [0, -4, -4, i32::MIN]);
        let out = binary(Binary::FloorModulo, &a, &b).unwrap();
        assert_eq!(out.to_vec::<i32>().unwrap(), [1, 1, -1, 0]);
    }

    #[test]
    fn integers_refuse_zero_divisors_and_floats_do_not() {
        let error = binary(Binary::FloorDivide, &vector(&[1i32]), &vector(&[0i32])).unwrap_err();
        assert_eq!(error.message(), "Integer division by zero");
        let out = binary(Binary::Divide, &vector(&[1f32, 0.0]), &vector(&[0f32, 0.0])).unwrap();
        let values = out.to_vec::<f32>().unwrap();
        assert!(values[0].is_infinite() && values[1].is_nan());
    }

    #[test]
    fn maximum_passes_nan_on() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
            for op in [Binary::Maximum, Binary::Minimum] {
                let out = binary(op, &vector(&[a]), &vector(&[b])).unwrap();
                assert!(out.to_vec::<f32>().unwrap()[0].is_nan(), "{op:?} {a} {b}");
            }
        }
    }

    #[test]
    fn int64_wraps_beyond_two_to_the_31() {
        let out = binary(Binary::Multiply, &vector(&[3_000_000_000i64]), &vector(&[2i64])).unwrap();
        assert_eq!(out.to_vec::<i64>().unwrap(), [6_000_000_000]);
        let out = binary(Binary::Multiply, &vector(&[i64::MAX]), &vector(&[2i64])).unwrap();
        assert_eq!(out.to_vec::<i64>().unwrap(), [-2]);
    }

    #[test]
    fn short_floats_round_after_each_operator() {
        let one = narrowed(&vector(&[1.0f32]), DType::BF16).unwrap();
        let small = narrowed(&vector(&[0.001f32]), DType::BF16).unwrap();
        let sum = binary(Binary::Add, &one, &small).unwrap();
        assert_eq!(widened(&sum).unwrap().to_vec::<f32>().unwrap(), [1.0]);
    }

    #[test]
    fn selection_broadcasts_and_takes_strings() {
        let mut letters = StringsBuilder::new();
        letters.push(b"a");
        letters.push(b"b");
        let letters = Tensor::of_strings(Shape::vector(2), &letters).unwrap();
        let mut other = StringsBuilder::new();
        other.push(b"z");
        let other = Tensor::of_strings(Shape::scalar(), &other).unwrap();
        let condition = Tensor::of_bools(Shape::vector(2), &[true, false]).unwrap();
        let out = select(&condition, &letters, &other).unwrap();
        assert!(out.strings().unwrap().iter().eq([&b"a"[..], b"z"]));
    }

    #[test]
    fn subnormals_are_zero_as_in_tensorflow() {
        let tiny = f32::MIN_POSITIVE / 2.0;
        let made =
            binary(Binary::Multiply, &vector(&[f32::MIN_POSITIVE, -1.0]), &vector(&[0.5, tiny]));
        let made = made.unwrap().to_vec::<f32>().unwrap();
        assert_eq!(made.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), [0, (-0.0f32).to_bits()]);
        let sum = binary(Binary::Add, &vector(&[tiny]), &vector(&[tiny])).unwrap();
        assert_eq!(sum.to_vec::<f32>().unwrap(), [0.0]);
    }

    #[test]
    fn sign_of_zero_and_nan() {
        let out = unary(Unary::Sign, &vector(&[0.0f32, -0.0, -3.0, f32::NAN])).unwrap();
        let out = out.to_vec::<f32>().unwrap();
        assert_eq!(out[..3], [0.0, 0.0, -1.0]);
        assert!(out[3].is_nan());
    }
}
