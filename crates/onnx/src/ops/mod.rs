//! The translators, one file for each family of operators.

mod arithmetic;
mod bits;
mod blocks;
mod cells;
pub(crate) mod checks;
mod colours;
mod convolution;
mod cropping;
mod decoding;
mod detection;
mod diagonals;
mod division;
mod elementwise;
mod folding;
mod formula;
mod functions;
mod fused;
mod gathering;
mod generation;
pub(crate) mod guards;
mod joining;
mod layout;
mod list_parts;
pub(crate) mod lists;
mod losses;
mod matrix;
mod moving;
mod normalization;
mod padding;
mod passing;
mod patches;
mod pooling;
mod quantization;
mod reduction;
mod resampling;
mod resampling_open;
mod resizing;
mod running;
mod sampling;
mod scattering;
mod searching;
mod segments;
mod shaping;
mod slicing;
mod soft_suppression;
pub(crate) mod spectra;
mod stitching;
mod transposed;

pub(crate) use functions::negative_zero;

use vesta_model::DType;

use crate::refusal::{Reason, refuse};
use crate::registry::Family;

/// All families.
pub(crate) const FAMILIES: &[Family] = &[
    arithmetic::FAMILY,
    bits::FAMILY,
    blocks::FAMILY,
    cells::FAMILY,
    colours::FAMILY,
    convolution::FAMILY,
    cropping::FAMILY,
    decoding::FAMILY,
    detection::FAMILY,
    diagonals::FAMILY,
    division::FAMILY,
    elementwise::FAMILY,
    functions::FAMILY,
    fused::FAMILY,
    gathering::FAMILY,
    generation::FAMILY,
    joining::FAMILY,
    list_parts::FAMILY,
    lists::FAMILY,
    losses::FAMILY,
    matrix::FAMILY,
    moving::FAMILY,
    normalization::FAMILY,
    padding::FAMILY,
    passing::FAMILY,
    patches::FAMILY,
    pooling::FAMILY,
    quantization::FAMILY,
    reduction::FAMILY,
    resampling::FAMILY,
    resizing::FAMILY,
    running::FAMILY,
    sampling::FAMILY,
    scattering::FAMILY,
    searching::FAMILY,
    segments::FAMILY,
    shaping::FAMILY,
    slicing::FAMILY,
    spectra::FAMILY,
    stitching::FAMILY,
    transposed::FAMILY,
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

/// Refuses what is neither a truth nor a number.
fn expect_movable(dtype: DType) -> Result<(), Reason> {
    if dtype == DType::Bool { Ok(()) } else { expect_dtype(dtype, NUMBERS) }
}

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
