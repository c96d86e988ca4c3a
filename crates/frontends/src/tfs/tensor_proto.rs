//! TensorFlow's tensor message, to a tensor and back.
//!
//! Owns: which field holds which dtype, what happens when values are too few or too many, the
//! message's exact bytes. May not know: signatures, aliases.
//! Invariant: values that lie in the message as a tensor holds them are borrowed, not copied, and a
//! message cannot make a tensor that is larger than what its sender paid for out of the budget.

mod decode;
mod encode;
mod wire;

pub(crate) use decode::{ParseError, tensor};
pub(crate) use encode::Encoded;
pub(crate) use wire::TensorWire;

use vesta_model::DType;

/// Which of its two forms a tensor takes in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TensorForm {
    /// A list of values in the field of the dtype.
    #[default]
    Fields,
    /// Raw bytes in `tensor_content`.
    Content,
}

/// The field of the message that holds the values of a dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Float,
    Double,
    Int,
    Text,
    Complex64,
    Int64,
    Bool,
    Complex128,
    Half,
    Uint32,
    Uint64,
    Float8,
}

impl Field {
    /// The field of `dtype`; `None` where no message holds such a tensor.
    fn of(dtype: DType) -> Option<Field> {
        Some(match dtype {
            DType::F32 => Field::Float,
            DType::F64 => Field::Double,
            DType::I32
            | DType::I16
            | DType::I8
            | DType::U8
            | DType::U16
            | DType::QI8
            | DType::QU8
            | DType::QI16
            | DType::QU16
            | DType::QI32 => Field::Int,
            DType::String => Field::Text,
            DType::Complex64 => Field::Complex64,
            DType::I64 => Field::Int64,
            DType::Bool => Field::Bool,
            DType::Complex128 => Field::Complex128,
            DType::F16 | DType::BF16 => Field::Half,
            DType::U32 => Field::Uint32,
            DType::U64 => Field::Uint64,
            DType::F8E5M2
            | DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E4M3B11FNUZ
            | DType::F8E5M2FNUZ => Field::Float8,
            DType::Invalid
            | DType::Resource
            | DType::Variant
            | DType::I4
            | DType::U4
            | DType::I2
            | DType::U2
            | DType::F4E2M1FN => return None,
        })
    }

    /// Its number in the message.
    const fn number(self) -> u32 {
        match self {
            Field::Float => 5,
            Field::Double => 6,
            Field::Int => 7,
            Field::Text => 8,
            Field::Complex64 => 9,
            Field::Int64 => 10,
            Field::Bool => 11,
            Field::Complex128 => 12,
            Field::Half => 13,
            Field::Uint32 => 16,
            Field::Uint64 => 17,
            Field::Float8 => 18,
        }
    }

    /// Bytes of one value on the wire; `None` for varints and texts.
    const fn fixed_width(self) -> Option<usize> {
        match self {
            Field::Float | Field::Complex64 => Some(4),
            Field::Double | Field::Complex128 => Some(8),
            _ => None,
        }
    }

    /// The field of this number.
    fn from_number(number: u32) -> Option<Field> {
        const ALL: [Field; 12] = [
            Field::Float,
            Field::Double,
            Field::Int,
            Field::Text,
            Field::Complex64,
            Field::Int64,
            Field::Bool,
            Field::Complex128,
            Field::Half,
            Field::Uint32,
            Field::Uint64,
            Field::Float8,
        ];
        ALL.into_iter().find(|field| field.number() == number)
    }
}

#[cfg(test)]
mod tests;
