//! The translators, one file for each family of operators.

mod arithmetic;
mod blocks;
mod convolution;
mod cropping;
mod detection;
mod elementwise;
mod folding;
mod gathering;
mod generation;
mod joining;
mod layout;
pub(crate) mod lists;
mod matrix;
mod normalization;
mod padding;
mod passing;
mod pooling;
mod reduction;
mod resizing;
mod scattering;
mod shaping;
mod slicing;

use vesta_model::DType;

use crate::refusal::{Reason, refuse};
use crate::registry::Family;

/// All families.
pub(crate) const FAMILIES: &[Family] = &[
    arithmetic::FAMILY,
    blocks::FAMILY,
    convolution::FAMILY,
    cropping::FAMILY,
    detection::FAMILY,
    elementwise::FAMILY,
    gathering::FAMILY,
    generation::FAMILY,
    joining::FAMILY,
    lists::FAMILY,
    matrix::FAMILY,
    normalization::FAMILY,
    padding::FAMILY,
    passing::FAMILY,
    pooling::FAMILY,
    reduction::FAMILY,
    resizing::FAMILY,
    scattering::FAMILY,
    shaping::FAMILY,
    slicing::FAMILY,
];

/// What most of ONNX's floating-point operators take.
const FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16];

/// What ONNX's reductions and matrix products take.
const WIDE_NUMBERS: &[DType] =
    &[DType::F32, DType::F64, DType::F16, DType::I32, DType::I64, DType::U32, DType::U64];

/// Every dtype of numbers that is translated. bfloat16 is left out: the engines that take it at
/// all round at other places than TensorFlow does.
const NUMBERS: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
];

/// Numbers with a sign.
const SIGNED: &[DType] =
    &[DType::F32, DType::F64, DType::F16, DType::I8, DType::I16, DType::I32, DType::I64];

/// Refuses a dtype that is not `among` those that an operator takes.
fn expect_dtype(dtype: DType, among: &[DType]) -> Result<(), Reason> {
    if among.contains(&dtype) {
        Ok(())
    } else {
        refuse(format!("there is no exact form of it for dtype {dtype}"))
    }
}

#[cfg(test)]
mod tests;
