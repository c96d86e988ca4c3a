//! Answers as JSON, with the white space of the original.
//!
//! Owns: row and columnar layout, which outputs are bytes, and what has no form in JSON.

use half::{bf16, f16};
use vesta_model::{DType, Status, Tensor, TensorSpec};

use super::predict::Form;
use super::pretty::{Pretty, push_string};
use super::{Refusal, float};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Outputs whose alias ends so hold bytes, not text.
const BYTES_SUFFIX: &str = "_bytes";

/// One output of a signature and its tensor.
type Output<'a> = (&'a TensorSpec, &'a Tensor);

/// The answer to a predict request of `form`.
///
/// # Errors
/// `INVALID_ARGUMENT` for dtypes without a form in JSON and, in rows, for outputs that are not all
/// of one batch.
pub(crate) fn predictions(outputs: &[Output<'_>], form: Form) -> Result<Vec<u8>, Refusal> {
    if outputs.is_empty() {
        return Err(Refusal::invalid("Cannot convert empty tensor map to JSON"));
    }
    match form {
        Form::Row => rows(outputs),
        Form::Columnar => columns(outputs),
    }
}

fn rows(outputs: &[Output<'_>]) -> Result<Vec<u8>, Refusal> {
    let batch = batch_rows(outputs)?;
    let mut elements = outputs
        .iter()
        .map(|(spec, tensor)| Elements::new(spec, tensor))
        .collect::<Result<Vec<_>, Refusal>>()?;
    let mut writer = Pretty::new();
    writer.start_object();
    writer.key(b"predictions");
    writer.start_array();
    let named = outputs.len() > 1;
    if let ([only], [(_, tensor)]) = (&mut elements[..], outputs)
        && tensor.shape().rank() == 1
    {
        writer.single_line(true);
        only.push_run(&mut writer, batch)?;
    } else {
        for _ in 0..batch {
            if named {
                writer.start_object();
            }
            writer.single_line(true);
            for ((spec, tensor), elements) in outputs.iter().zip(&mut elements) {
                if named {
                    writer.key(spec.alias.as_bytes());
                }
                push_tensor(&mut writer, elements, &tensor.shape().dims()[1..])?;
            }
            writer.single_line(false);
            if named {
                writer.end_object();
            }
        }
    }
    writer.single_line(false);
    writer.end_array();
    writer.end_object();
    Ok(writer.finish())
}

/// The size of dimension 0, in which all outputs must agree.
fn batch_rows(outputs: &[Output<'_>]) -> Result<usize, Refusal> {
    let mut batch = None;
    for (spec, tensor) in outputs {
        let alias = &spec.alias;
        let Some(&rows) = tensor.shape().dims().first() else {
            let message = format!("Tensor name: {alias} has no shape information ");
            return Err(Refusal::invalid(message));
        };
        let expected = *batch.get_or_insert(rows);
        if rows != expected {
            return Err(Refusal::invalid(format!(
                "Tensor name: {alias} has inconsistent batch size: {rows} expecting: {expected}"
            )));
        }
    }
    Ok(batch.unwrap_or(0))
}

fn columns(outputs: &[Output<'_>]) -> Result<Vec<u8>, Refusal> {
    let mut writer = Pretty::new();
    writer.start_object();
    writer.key(b"outputs");
    let named = outputs.len() > 1;
    if named {
        writer.start_object();
    }
    for (spec, tensor) in outputs {
        if named {
            writer.key(spec.alias.as_bytes());
        }
        push_tensor(&mut writer, &mut Elements::new(spec, tensor)?, tensor.shape().dims())?;
    }
    if named {
        writer.end_object();
    }
    writer.end_object();
    Ok(writer.finish())
}

/// Writes the next elements as a value of this shape.
fn push_tensor(
    writer: &mut Pretty,
    elements: &mut Elements<'_>,
    dims: &[usize],
) -> Result<(), Refusal> {
    match dims {
        [] => elements.push_run(writer, 1),
        [size] => {
            writer.start_array();
            elements.push_run(writer, *size)?;
            writer.end_array();
            Ok(())
        }
        // A tensor has at most 254 dimensions, so the recursion is bounded.
        [size, inner @ ..] => {
            writer.start_array();
            for _ in 0..*size {
                push_tensor(writer, elements, inner)?;
            }
            writer.end_array();
            Ok(())
        }
    }
}

/// The elements of a tensor that are still to be written.
struct Elements<'a> {
    dtype: DType,
    /// Fixed-width elements.
    bytes: &'a [u8],
    /// Strings.
    strings: Vec<&'a [u8]>,
    next_string: usize,
    as_base64: bool,
}

impl<'a> Elements<'a> {
    fn new(spec: &TensorSpec, tensor: &'a Tensor) -> Result<Elements<'a>, Refusal> {
        let dtype = tensor.dtype();
        let mut strings = Vec::new();
        if dtype == DType::String {
            let broken = || Status::internal("an output's strings cannot be read");
            let view = tensor.strings().ok_or_else(broken)?;
            strings.reserve_exact(view.len());
            for i in 0..view.len() {
                strings.push(view.get(i).ok_or_else(broken)?);
            }
        }
        Ok(Elements {
            dtype,
            bytes: tensor.bytes(),
            strings,
            next_string: 0,
            as_base64: spec.alias.ends_with(BYTES_SUFFIX),
        })
    }

    /// Writes the next `count` elements as values of the innermost array.
    fn push_run(&mut self, writer: &mut Pretty, count: usize) -> Result<(), Refusal> {
        match self.dtype {
            DType::F32 => {
                self.push_fixed(writer, count, |out, v| float::push_f32(out, f32::from_le_bytes(v)))
            }
            DType::F64 => {
                self.push_fixed(writer, count, |out, v| float::push_f64(out, f64::from_le_bytes(v)))
            }
            DType::F16 => self.push_fixed(writer, count, |out, v| {
                float::push_f32(out, f16::from_le_bytes(v).to_f32());
            }),
            DType::BF16 => self.push_fixed(writer, count, |out, v| {
                float::push_f32(out, bf16::from_le_bytes(v).to_f32());
            }),
            DType::I8 => self.push_integers(writer, count, i8::from_le_bytes),
            DType::I16 => self.push_integers(writer, count, i16::from_le_bytes),
            DType::I32 => self.push_integers(writer, count, i32::from_le_bytes),
            DType::I64 => self.push_integers(writer, count, i64::from_le_bytes),
            DType::U8 => self.push_integers(writer, count, u8::from_le_bytes),
            DType::U16 => self.push_integers(writer, count, u16::from_le_bytes),
            DType::U32 => self.push_integers(writer, count, u32::from_le_bytes),
            DType::U64 => self.push_integers(writer, count, u64::from_le_bytes),
            DType::Bool => self.push_fixed(writer, count, |out, [v]| {
                out.extend_from_slice(if v == 0 { b"false" } else { b"true" });
            }),
            DType::String => {
                self.push_strings(writer, count);
                Ok(())
            }
            _ if count == 0 => Ok(()),
            dtype => Err(Refusal::invalid(format!(
                "Failed to write JSON value for tensor type: {dtype}"
            ))),
        }
    }

    fn push_fixed<const N: usize>(
        &mut self,
        writer: &mut Pretty,
        count: usize,
        mut push: impl FnMut(&mut Vec<u8>, [u8; N]),
    ) -> Result<(), Refusal> {
        let (values, _) = self.bytes.as_chunks::<N>();
        let Some(values) = values.get(..count) else {
            return Err(Status::internal("an output has fewer elements than its shape says").into());
        };
        self.bytes = &self.bytes[count * N..];
        let Some((&first, rest)) = values.split_first() else { return Ok(()) };
        writer.value();
        let separator = writer.separator();
        writer.counted(rest.len());
        let out = writer.out();
        push(out, first);
        for &value in rest {
            out.extend_from_slice(&separator);
            push(out, value);
        }
        Ok(())
    }

    fn push_integers<T: Integer, const N: usize>(
        &mut self,
        writer: &mut Pretty,
        count: usize,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<(), Refusal> {
        self.push_fixed(writer, count, |out, v| read(v).push(out))
    }

    fn push_strings(&mut self, writer: &mut Pretty, count: usize) {
        let end = (self.next_string + count).min(self.strings.len());
        for &text in &self.strings[self.next_string..end] {
            if self.as_base64 {
                writer.start_object();
                writer.key(b"b64");
                writer.string(STANDARD.encode(text).as_bytes());
                writer.end_object();
            } else {
                writer.string(text);
            }
        }
        self.next_string = end;
    }
}

/// Integers as decimal text.
trait Integer {
    fn push(self, out: &mut Vec<u8>);
}

macro_rules! integers {
    ($($signed:ty => $unsigned:ty),*) => {$(
        impl Integer for $unsigned {
            fn push(self, out: &mut Vec<u8>) {
                push_digits(out, u64::from(self));
            }
        }
        impl Integer for $signed {
            fn push(self, out: &mut Vec<u8>) {
                if self < 0 {
                    out.push(b'-');
                }
                push_digits(out, u64::from(self.unsigned_abs()));
            }
        }
    )*};
}

integers!(i8 => u8, i16 => u16, i32 => u32, i64 => u64);

fn push_digits(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The answer to a classify request: for each example, pairs of label and score.
///
/// # Errors
/// `INVALID_ARGUMENT` when there is no example.
pub(crate) fn classifications(results: &[Vec<(Vec<u8>, f32)>]) -> Result<Vec<u8>, Refusal> {
    if results.is_empty() {
        return Err(Refusal::invalid("Cannot convert empty ClassificationResults to JSON"));
    }
    let mut writer = Pretty::new();
    writer.start_object();
    writer.key(b"results");
    writer.start_array();
    writer.single_line(true);
    for classes in results {
        writer.start_array();
        for (label, score) in classes {
            writer.start_array();
            writer.value();
            push_string(writer.out(), label);
            writer.value();
            float::push_f32(writer.out(), *score);
            writer.end_array();
        }
        writer.end_array();
    }
    writer.single_line(false);
    writer.end_array();
    writer.end_object();
    Ok(writer.finish())
}

/// The answer to a regress request: a value for each example.
///
/// # Errors
/// `INVALID_ARGUMENT` when there is no example.
pub(crate) fn regressions(values: &[f32]) -> Result<Vec<u8>, Refusal> {
    if values.is_empty() {
        return Err(Refusal::invalid("Cannot convert empty RegressionResults to JSON"));
    }
    let mut writer = Pretty::new();
    writer.start_object();
    writer.key(b"results");
    writer.single_line(true);
    writer.start_array();
    for &value in values {
        writer.value();
        float::push_f32(writer.out(), value);
    }
    writer.end_array();
    writer.end_object();
    Ok(writer.finish())
}
