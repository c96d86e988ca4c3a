//! From a tensor to the bytes of its message.
//!
//! Owns: the order of fields and the packing of values. May not know: who asked.
//! Invariant: the length that was told is the length that is written, and floats are copied as they
//! lie in memory.

use bytes::BufMut;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use vesta_model::{DType, Tensor};
use vesta_protos::tensorflow::TensorShapeProto;
use vesta_protos::tensorflow::tensor_shape_proto::Dim;

use super::{Field, TensorForm};

const DTYPE: u32 = 1;
const SHAPE: u32 = 2;
const CONTENT: u32 = 4;

/// A tensor ready to be written, with its length known.
pub(crate) struct Encoded<'a> {
    tensor: &'a Tensor,
    shape: TensorShapeProto,
    /// Where the values go and how many bytes they take there; `None` when there are none.
    values: Option<(u32, usize)>,
}

impl<'a> Encoded<'a> {
    /// Measures `tensor`.
    pub(crate) fn new(tensor: &'a Tensor, form: TensorForm) -> Encoded<'a> {
        let dims = tensor.shape().dims();
        // A shape's sizes fit an isize.
        let dim = |&size: &usize| Dim { size: size as i64, name: String::new() };
        let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), unknown_rank: false };
        let values = match (Field::of(tensor.dtype()), form) {
            _ if tensor.shape().elements() == 0 => None,
            (None, _) => None,
            (Some(Field::Text), TensorForm::Fields) => Some((Field::Text.number(), 0)),
            (Some(field), TensorForm::Fields) => Some((field.number(), values_len(tensor, field))),
            (Some(field), TensorForm::Content) => Some((CONTENT, content_len(tensor, field))),
        };
        Encoded { tensor, shape, values }
    }

    /// Bytes of the message.
    pub(crate) fn len(&self) -> usize {
        let dtype = self.tensor.dtype().number() as u64;
        let shape = self.shape.encoded_len();
        let values = match self.values {
            None => 0,
            Some((number, _)) if number == Field::Text.number() => self.texts_len(),
            Some((number, len)) => key_len(number) + encoded_len_varint(len as u64) + len,
        };
        key_len(DTYPE)
            + encoded_len_varint(dtype)
            + key_len(SHAPE)
            + encoded_len_varint(shape as u64)
            + shape
            + values
    }

    /// Writes the message.
    pub(crate) fn write(&self, buf: &mut impl BufMut) {
        encode_key(DTYPE, WireType::Varint, buf);
        encode_varint(self.tensor.dtype().number() as u64, buf);
        encode_key(SHAPE, WireType::LengthDelimited, buf);
        encode_varint(self.shape.encoded_len() as u64, buf);
        self.shape.encode_raw(buf);
        let Some((number, len)) = self.values else { return };
        if number == Field::Text.number() {
            for_each_text(self.tensor, |text| {
                encode_key(number, WireType::LengthDelimited, buf);
                encode_varint(text.len() as u64, buf);
                buf.put_slice(text);
            });
            return;
        }
        encode_key(number, WireType::LengthDelimited, buf);
        encode_varint(len as u64, buf);
        if number == CONTENT {
            write_content(self.tensor, buf);
        } else {
            write_values(self.tensor, buf);
        }
    }

    fn texts_len(&self) -> usize {
        let mut len = 0;
        for_each_text(self.tensor, |text| {
            len += key_len(Field::Text.number()) + encoded_len_varint(text.len() as u64);
            len += text.len();
        });
        len
    }
}

fn for_each_text(tensor: &Tensor, each: impl FnMut(&[u8])) {
    // Only ever called for texts, which always can be read.
    if let Some(texts) = tensor.strings() {
        texts.iter().for_each(each);
    }
}

fn values_len(tensor: &Tensor, field: Field) -> usize {
    match field {
        Field::Float
        | Field::Double
        | Field::Complex64
        | Field::Complex128
        | Field::Float8
        | Field::Bool => tensor.bytes().len(),
        _ => {
            let mut len = 0;
            for_each_varint(tensor, |value| len += encoded_len_varint(value));
            len
        }
    }
}

fn write_values(tensor: &Tensor, buf: &mut impl BufMut) {
    match Field::of(tensor.dtype()) {
        Some(
            Field::Float | Field::Double | Field::Complex64 | Field::Complex128 | Field::Float8,
        ) => buf.put_slice(tensor.bytes()),
        Some(Field::Bool) => {
            tensor.bytes().iter().for_each(|&byte| buf.put_u8(u8::from(byte != 0)));
        }
        _ => for_each_varint(tensor, |value| encode_varint(value, buf)),
    }
}

fn content_len(tensor: &Tensor, field: Field) -> usize {
    if field != Field::Text {
        return tensor.bytes().len();
    }
    let mut len = 0;
    for_each_text(tensor, |text| len += encoded_len_varint(text.len() as u64) + text.len());
    len
}

fn write_content(tensor: &Tensor, buf: &mut impl BufMut) {
    if tensor.dtype() != DType::String {
        buf.put_slice(tensor.bytes());
        return;
    }
    for_each_text(tensor, |text| encode_varint(text.len() as u64, buf));
    for_each_text(tensor, |text| buf.put_slice(text));
}

/// The elements as the varints that stand for them; negative ones fill all 64 bits.
fn for_each_varint(tensor: &Tensor, mut each: impl FnMut(u64)) {
    fn elements<const N: usize>(
        tensor: &Tensor,
        each: &mut impl FnMut(u64),
        value: impl Fn([u8; N]) -> u64,
    ) {
        for chunk in tensor.bytes().chunks_exact(N) {
            let mut element = [0u8; N];
            element.copy_from_slice(chunk);
            each(value(element));
        }
    }
    let each = &mut each;
    match tensor.dtype() {
        DType::I8 | DType::QI8 => {
            elements(tensor, each, |[byte]| i64::from(byte as i8) as u64);
        }
        DType::U8 | DType::QU8 => elements(tensor, each, |[byte]| u64::from(byte)),
        DType::I16 | DType::QI16 => {
            elements(tensor, each, |bytes| i64::from(i16::from_le_bytes(bytes)) as u64);
        }
        DType::U16 | DType::QU16 | DType::F16 | DType::BF16 => {
            elements(tensor, each, |bytes| u64::from(u16::from_le_bytes(bytes)));
        }
        DType::I32 | DType::QI32 => {
            elements(tensor, each, |bytes| i64::from(i32::from_le_bytes(bytes)) as u64);
        }
        DType::U32 => elements(tensor, each, |bytes| u64::from(u32::from_le_bytes(bytes))),
        DType::I64 | DType::U64 => elements(tensor, each, u64::from_le_bytes),
        _ => {}
    }
}
