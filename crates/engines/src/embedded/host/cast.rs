//! Conversion between dtypes, as TensorFlow's `Cast` does it on x86.
//!
//! Values that the target cannot hold are undefined in TensorFlow and there depend on the number of
//! elements; here they are what a single element gives there. Invariant: values that fit are exact.

use half::{bf16, f16};
use vesta_model::{DType, Status, Tensor};

use super::arithmetic::{is_number, is_short_float};
use super::elements::{booleans, elements, narrowed, tensor, truths, widened};

/// Whether `Cast` between these dtypes is implemented.
pub(crate) fn knows(from: DType, to: DType) -> bool {
    let known = |dtype| is_number(dtype) || dtype == DType::Bool;
    let complex = |dtype| matches!(dtype, DType::Complex64 | DType::Complex128);
    (known(from) && (known(to) || complex(to))) || from == to
}

/// One element on its way: integers and floats keep all their bits.
#[derive(Clone, Copy)]
enum Value {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

impl Value {
    fn to_f64(self) -> f64 {
        match self {
            Value::Signed(value) => value as f64,
            Value::Unsigned(value) => value as f64,
            Value::Float(value) => value,
        }
    }

    /// Rounds once: an integer must not pass through a double on its way to a float.
    fn to_f32(self) -> f32 {
        match self {
            Value::Signed(value) => value as f32,
            Value::Unsigned(value) => value as f32,
            Value::Float(value) => value as f32,
        }
    }

    /// The low bits for an integer of `bits` bits.
    fn to_bits(self, bits: u32, signed: bool) -> u64 {
        match self {
            Value::Signed(value) => value as u64,
            Value::Unsigned(value) => value,
            // The hardware has conversions to 32 and 64 bits only, which give the smallest integer
            // for what does not fit; narrower and unsigned ones take the low bits of those.
            Value::Float(value) if bits < 32 || (bits == 32 && signed) => truncated32(value) as u64,
            Value::Float(value) if signed || bits == 32 => truncated64(value) as u64,
            Value::Float(value) => {
                let low = truncated64(value);
                let high = truncated64(value - 9_223_372_036_854_775_808.0);
                (low | (high & (low >> 63))) as u64
            }
        }
    }
}

fn truncated32(value: f64) -> i32 {
    let whole = value.trunc();
    if (-2_147_483_648.0..=2_147_483_647.0).contains(&whole) { whole as i32 } else { i32::MIN }
}

fn truncated64(value: f64) -> i64 {
    let whole = value.trunc();
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole);
    if fits { whole as i64 } else { i64::MIN }
}

fn values(input: &Tensor) -> Result<Vec<Value>, Status> {
    macro_rules! read {
        ($type:ty, $to:expr) => {
            Ok(elements::<$type>(input)?.iter().map(|&value| $to(value)).collect())
        };
    }
    match input.dtype() {
        DType::F32 => read!(f32, |value| Value::Float(f64::from(value))),
        DType::F64 => read!(f64, Value::Float),
        DType::I8 => read!(i8, |value| Value::Signed(i64::from(value))),
        DType::I16 => read!(i16, |value| Value::Signed(i64::from(value))),
        DType::I32 => read!(i32, |value| Value::Signed(i64::from(value))),
        DType::I64 => read!(i64, Value::Signed),
        DType::U8 => read!(u8, |value| Value::Unsigned(u64::from(value))),
        DType::U16 => read!(u16, |value| Value::Unsigned(u64::from(value))),
        DType::U32 => read!(u32, |value| Value::Unsigned(u64::from(value))),
        DType::U64 => read!(u64, Value::Unsigned),
        DType::Bool => {
            Ok(truths(input)?.iter().map(|&value| Value::Unsigned((value != 0).into())).collect())
        }
        dtype => Err(Status::internal(format!("no conversion from {dtype}"))),
    }
}

pub(crate) fn cast(input: &Tensor, to: DType) -> Result<Tensor, Status> {
    if input.dtype() == to {
        return Ok(input.clone());
    }
    if is_short_float(input.dtype()) {
        return cast(&widened(input)?, to);
    }
    // The two conversions that requests meet most often, as plain loops.
    match (input.dtype(), to) {
        (DType::U8, DType::F32) => {
            let values = input.bytes().iter().map(|&value| f32::from(value)).collect();
            return tensor(input.shape().clone(), values);
        }
        (DType::F32, DType::F16 | DType::BF16) => return narrowed(input, to),
        _ => {}
    }
    let shape = input.shape().clone();
    let values = values(input)?;
    macro_rules! write {
        ($type:ty, $bits:literal, $signed:literal) => {
            tensor(shape, values.iter().map(|v| v.to_bits($bits, $signed) as $type).collect())
        };
    }
    match to {
        DType::F32 => tensor(shape, values.iter().map(|value| value.to_f32()).collect()),
        DType::F64 => tensor(shape, values.iter().map(|value| value.to_f64()).collect()),
        DType::I8 => write!(i8, 8, true),
        DType::I16 => write!(i16, 16, true),
        DType::I32 => write!(i32, 32, true),
        DType::I64 => write!(i64, 64, true),
        DType::U8 => write!(u8, 8, false),
        DType::U16 => write!(u16, 16, false),
        DType::U32 => write!(u32, 32, false),
        DType::U64 => write!(u64, 64, false),
        DType::Bool => {
            let truths: Vec<bool> = values.iter().map(|value| value.to_f64() != 0.0).collect();
            booleans(shape, &truths)
        }
        // Through float, as Eigen does.
        DType::F16 | DType::BF16 => {
            let bits: Vec<u8> = values
                .iter()
                .map(|value| match to {
                    DType::F16 => f16::from_f32(value.to_f32()).to_bits(),
                    _ => bf16::from_f32(value.to_f32()).to_bits(),
                })
                .flat_map(u16::to_le_bytes)
                .collect();
            Tensor::copied(to, shape, &bits)
        }
        DType::Complex64 => {
            let pairs: Vec<f32> = values.iter().flat_map(|value| [value.to_f32(), 0.0]).collect();
            Tensor::copied(to, shape, bytemuck::cast_slice(&pairs))
        }
        DType::Complex128 => {
            let pairs: Vec<f64> = values.iter().flat_map(|value| [value.to_f64(), 0.0]).collect();
            Tensor::copied(to, shape, bytemuck::cast_slice(&pairs))
        }
        dtype => Err(Status::internal(format!("no conversion to {dtype}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::Shape;

    /// What TensorFlow 2.21 gives for one float32 at a time.
    const FLOATS: [f32; 12] =
        [1.9, -1.9, 300.0, -1.0, 70_000.0, 3e9, 5e9, -3e9, 9.3e18, 1.9e19, f32::INFINITY, f32::NAN];

    fn cast_floats<T: vesta_model::Element>(to: DType) -> Vec<T> {
        let input = Tensor::of(Shape::vector(FLOATS.len()), &FLOATS).unwrap();
        cast(&input, to).unwrap().to_vec::<T>().unwrap()
    }

    #[test]
    fn floats_become_integers_as_tensorflow_has_it() {
        assert_eq!(cast_floats::<i8>(DType::I8), [1, -1, 44, -1, 112, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cast_floats::<u8>(DType::U8), [1, 255, 44, 255, 112, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            cast_floats::<i32>(DType::I32)[4..],
            [70_000, i32::MIN, i32::MIN, i32::MIN, i32::MIN, i32::MIN, i32::MIN, i32::MIN]
        );
        assert_eq!(
            cast_floats::<u32>(DType::U32)[3..],
            [u32::MAX, 70_000, 3_000_000_000, 705_032_704, 1_294_967_296, 0, 0, 0, 0]
        );
        assert_eq!(
            cast_floats::<i64>(DType::I64)[5..9],
            [3_000_000_000, 5_000_000_000, -3_000_000_000, i64::MIN]
        );
        let top = 1u64 << 63;
        assert_eq!(cast_floats::<u64>(DType::U64)[8..], [9_300_000_300_729_368_576, top, top, top]);
    }

    #[test]
    fn integers_keep_all_bits() {
        let big = [i64::MAX, -3_000_000_000, (1 << 24) + 1];
        let input = Tensor::of(Shape::vector(3), &big).unwrap();
        assert_eq!(cast(&input, DType::U64).unwrap().to_vec::<u64>().unwrap()[0], i64::MAX as u64);
        assert_eq!(cast(&input, DType::I32).unwrap().to_vec::<i32>().unwrap()[1], 1_294_967_296);
        let floats = cast(&input, DType::F32).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(floats, [9.223_372e18, -3e9, 16_777_216.0]);
    }

    #[test]
    fn nan_is_true_and_zero_is_false() {
        let input = Tensor::of(Shape::vector(3), &[f32::NAN, -0.0, 0.5]).unwrap();
        assert_eq!(cast(&input, DType::Bool).unwrap().bytes(), [1, 0, 1]);
    }
}
