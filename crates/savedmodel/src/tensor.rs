//! `TensorProto` to tensor and back, by the rules of TensorFlow's own decoder.
//!
//! Contents win over typed values; too few values repeat the last one, surplus ones are dropped,
//! values of another dtype's field are not seen. Invariant: no more than the caller's limit is
//! allocated, whatever shape the message claims.

use std::sync::Arc;

use bytes::Bytes;
use vesta_model::{AlignedBytes, DType, Memory, Shape, Status, StringsBuilder, Tensor};
use vesta_protos::tensorflow::{TensorProto, TensorShapeProto, tensor_shape_proto::Dim};

/// Shared bytes as the memory of a tensor.
struct SharedBytes(Bytes);

impl Memory for SharedBytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The tensor that `proto` stands for. `tensor_content` of numbers is borrowed, not copied.
///
/// # Errors
/// `INVALID_ARGUMENT` for an unknown dtype, one without a layout in memory, a negative dimension or
/// content of the wrong length; `RESOURCE_EXHAUSTED` when it would take more than `bytes_max` bytes.
pub fn tensor_from_proto(proto: &TensorProto, bytes_max: usize) -> Result<Tensor, Status> {
    let dtype = DType::from_number(proto.dtype)
        .filter(|&dtype| dtype != DType::Invalid)
        .ok_or_else(|| Status::invalid_argument(format!("{} is no dtype", proto.dtype)))?;
    let shape = shape_from_proto(proto.tensor_shape.as_ref())?;
    if dtype == DType::String {
        return strings_from_proto(proto, shape, bytes_max);
    }
    let width = dtype.width().ok_or_else(|| {
        Status::invalid_argument(format!("a tensor of dtype {dtype} cannot be held in memory"))
    })?;
    let len = shape.bytes(width)?;
    if !proto.tensor_content.is_empty() {
        let memory = Arc::new(SharedBytes(proto.tensor_content.clone()));
        return Tensor::whole(dtype, shape, memory);
    }
    check_limit(len, bytes_max, &shape)?;
    let mut memory = AlignedBytes::zeroed(len);
    fill_typed(memory.bytes_mut(), proto, dtype);
    Tensor::whole(dtype, shape, Arc::new(memory))
}

/// The message for `tensor`: numbers as content, strings as values.
pub fn tensor_to_proto(tensor: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        dtype: tensor.dtype().number(),
        tensor_shape: Some(shape_to_proto(tensor.shape().dims())),
        ..TensorProto::default()
    };
    match tensor.strings() {
        Some(strings) => {
            proto.string_val = strings.iter().map(Bytes::copy_from_slice).collect();
        }
        None => proto.tensor_content = Bytes::copy_from_slice(tensor.bytes()),
    }
    proto
}

/// The shape of a tensor: an absent one and one of unknown rank are a scalar's.
pub(crate) fn shape_from_proto(proto: Option<&TensorShapeProto>) -> Result<Shape, Status> {
    let Some(proto) = proto.filter(|proto| !proto.unknown_rank) else {
        return Ok(Shape::scalar());
    };
    let dims: Vec<usize> = proto
        .dim
        .iter()
        .map(|dim| {
            usize::try_from(dim.size).map_err(|_| {
                Status::invalid_argument(format!("a tensor has no dimension of size {}", dim.size))
            })
        })
        .collect::<Result<_, _>>()?;
    Shape::new(dims)
}

/// The message for a known shape.
pub(crate) fn shape_to_proto(dims: &[usize]) -> TensorShapeProto {
    let dim = dims.iter().map(|&size| Dim { size: size as i64, name: String::new() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

fn check_limit(bytes: usize, bytes_max: usize, shape: &Shape) -> Result<(), Status> {
    if bytes > bytes_max {
        return Err(Status::resource_exhausted(format!(
            "a tensor of shape {shape} takes {bytes} bytes, more than the {bytes_max} allowed"
        )));
    }
    Ok(())
}

/// Writes the typed values of the field that belongs to `dtype`.
fn fill_typed(out: &mut [u8], proto: &TensorProto, dtype: DType) {
    use DType as D;
    match dtype {
        D::F32 => fill(out, proto.float_val.iter().map(|v| v.to_le_bytes())),
        D::F64 => fill(out, proto.double_val.iter().map(|v| v.to_le_bytes())),
        D::I32 | D::QI32 => fill(out, proto.int_val.iter().map(|v| v.to_le_bytes())),
        D::I16 | D::U16 | D::QI16 | D::QU16 => {
            fill(out, proto.int_val.iter().map(|v| (*v as u16).to_le_bytes()));
        }
        D::I8 | D::U8 | D::QI8 | D::QU8 => fill(out, proto.int_val.iter().map(|v| [*v as u8])),
        D::I64 => fill(out, proto.int64_val.iter().map(|v| v.to_le_bytes())),
        D::Bool => fill(out, proto.bool_val.iter().map(|v| [u8::from(*v)])),
        D::F16 | D::BF16 => fill(out, proto.half_val.iter().map(|v| (*v as u16).to_le_bytes())),
        D::U32 => fill(out, proto.uint32_val.iter().map(|v| v.to_le_bytes())),
        D::U64 => fill(out, proto.uint64_val.iter().map(|v| v.to_le_bytes())),
        D::Complex64 => fill(
            out,
            proto.scomplex_val.chunks_exact(2).map(|pair| {
                let mut bytes = [0u8; 8];
                bytes[..4].copy_from_slice(&pair[0].to_le_bytes());
                bytes[4..].copy_from_slice(&pair[1].to_le_bytes());
                bytes
            }),
        ),
        D::Complex128 => fill(
            out,
            proto.dcomplex_val.chunks_exact(2).map(|pair| {
                let mut bytes = [0u8; 16];
                bytes[..8].copy_from_slice(&pair[0].to_le_bytes());
                bytes[8..].copy_from_slice(&pair[1].to_le_bytes());
                bytes
            }),
        ),
        D::F8E5M2 | D::F8E4M3FN | D::F8E4M3FNUZ | D::F8E4M3B11FNUZ | D::F8E5M2FNUZ => {
            fill(out, proto.float8_val.iter().map(|v| [*v]));
        }
        // No layout of whole bytes: refused before.
        D::Invalid | D::String | D::Resource | D::Variant => {}
        D::I4 | D::U4 | D::I2 | D::U2 | D::F4E2M1FN => {}
    }
}

/// Writes values one after the other, then the last one again until `out` is full.
fn fill<const N: usize>(out: &mut [u8], mut values: impl Iterator<Item = [u8; N]>) {
    let mut last = [0u8; N];
    for slot in out.chunks_exact_mut(N) {
        if let Some(value) = values.next() {
            last = value;
        }
        slot.copy_from_slice(&last);
    }
}

fn strings_from_proto(
    proto: &TensorProto,
    shape: Shape,
    bytes_max: usize,
) -> Result<Tensor, Status> {
    let elements = shape.elements();
    let mut builder = StringsBuilder::new();
    if proto.tensor_content.is_empty() {
        let last = proto.string_val.last().map_or(0, Bytes::len);
        let given: usize = proto.string_val.iter().take(elements).map(Bytes::len).sum();
        let repeated = elements.saturating_sub(proto.string_val.len()).saturating_mul(last);
        let bytes = elements.saturating_mul(8).saturating_add(given).saturating_add(repeated);
        check_limit(bytes, bytes_max, &shape)?;
        for index in 0..elements {
            let text = proto.string_val.get(index).or(proto.string_val.last());
            builder.push(text.map_or(&[][..], |text| &text[..]));
        }
    } else {
        let content = &proto.tensor_content[..];
        // A string takes a byte of content at least, which bounds the number of strings.
        check_limit(elements.saturating_mul(8).saturating_add(content.len()), bytes_max, &shape)?;
        for text in split_strings(content, elements).ok_or_else(|| {
            Status::invalid_argument(format!(
                "{} bytes of content are not {elements} strings",
                content.len()
            ))
        })? {
            builder.push(text);
        }
    }
    Tensor::of_strings(shape, &builder)
}

/// Splits `count` lengths as varints, followed by the bytes of all strings; `None` when they do not
/// fit exactly.
fn split_strings(content: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    if count > content.len() {
        return None;
    }
    let mut rest = content;
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(usize::try_from(take_varint(&mut rest)?).ok()?);
    }
    let mut texts = Vec::with_capacity(count);
    for length in lengths {
        let (text, tail) = rest.split_at_checked(length)?;
        texts.push(text);
        rest = tail;
    }
    rest.is_empty().then_some(texts)
}

/// Takes a base-128 number of at most 64 bits off the front of `bytes`.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vesta_model::Code;

    fn proto(dtype: DType, dims: &[i64]) -> TensorProto {
        let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
        TensorProto {
            dtype: dtype.number(),
            tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
            ..TensorProto::default()
        }
    }

    fn read(proto: &TensorProto) -> Result<Tensor, Status> {
        tensor_from_proto(proto, 1 << 20)
    }

    #[test]
    fn few_values_repeat_and_surplus_ones_drop() {
        let mut few = proto(DType::F32, &[4]);
        few.float_val = vec![1.0, 2.0];
        assert_eq!(read(&few).unwrap().to_vec::<f32>(), Some(vec![1.0, 2.0, 2.0, 2.0]));
        few.float_val = vec![1.0; 9];
        assert_eq!(read(&few).unwrap().to_vec::<f32>(), Some(vec![1.0; 4]));
        few.float_val.clear();
        few.int_val = vec![7];
        assert_eq!(read(&few).unwrap().to_vec::<f32>(), Some(vec![0.0; 4]));
    }

    #[test]
    fn narrow_types_wrap_and_halves_are_bits() {
        let mut bytes = proto(DType::U8, &[1]);
        bytes.int_val = vec![300];
        assert_eq!(read(&bytes).unwrap().to_vec::<u8>(), Some(vec![44]));
        let mut half = proto(DType::F16, &[2]);
        half.half_val = vec![15360];
        assert_eq!(read(&half).unwrap().bytes(), [0, 60, 0, 60]);
        let mut flags = proto(DType::Bool, &[2]);
        flags.bool_val = vec![true];
        assert_eq!(read(&flags).unwrap().bytes(), [1, 1]);
        let mut complex = proto(DType::Complex64, &[2]);
        complex.scomplex_val = vec![1.0, 2.0];
        assert_eq!(read(&complex).unwrap().bytes()[8..12], 1f32.to_le_bytes());
    }

    #[test]
    fn content_must_fit_and_wins() {
        let mut content = proto(DType::F32, &[1]);
        content.float_val = vec![9.0];
        content.tensor_content = Bytes::from_static(&[0, 0, 128, 63]);
        assert_eq!(read(&content).unwrap().to_vec::<f32>(), Some(vec![1.0]));
        content.tensor_shape = proto(DType::F32, &[2]).tensor_shape;
        assert_eq!(read(&content).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn strings_come_in_both_forms() {
        let mut content = proto(DType::String, &[2]);
        content.tensor_content = Bytes::from_static(&[1, 2, b'a', b'b', b'c']);
        let tensor = read(&content).unwrap();
        assert!(tensor.strings().unwrap().iter().eq([&b"a"[..], b"bc"]));
        content.tensor_content = Bytes::from_static(&[1, 2, b'a', b'b']);
        assert!(read(&content).is_err());
        let mut values = proto(DType::String, &[3]);
        values.string_val = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let tensor = read(&values).unwrap();
        assert!(tensor.strings().unwrap().iter().eq([&b"a"[..], b"b", b"b"]));
    }

    #[test]
    fn shapes_are_checked_before_memory_is_taken() {
        assert_eq!(read(&proto(DType::F32, &[-1])).unwrap_err().code(), Code::InvalidArgument);
        let huge = read(&proto(DType::F32, &[1 << 40]));
        assert_eq!(huge.unwrap_err().code(), Code::ResourceExhausted);
        assert!(read(&proto(DType::String, &[1 << 60])).is_err());
        assert!(read(&proto(DType::F32, &[i64::MAX, i64::MAX])).is_err());
        assert!(read(&proto(DType::Resource, &[])).is_err());
        assert!(read(&TensorProto::default()).is_err());
    }

    #[test]
    fn no_shape_is_a_scalar() {
        let mut scalar = proto(DType::F32, &[]);
        scalar.float_val = vec![5.0];
        scalar.tensor_shape = None;
        assert_eq!(read(&scalar).unwrap().shape(), &Shape::scalar());
        scalar.tensor_shape = Some(TensorShapeProto { dim: vec![], unknown_rank: true });
        assert_eq!(read(&scalar).unwrap().shape(), &Shape::scalar());
        assert_eq!(read(&proto(DType::F32, &[0, 3])).unwrap().bytes().len(), 0);
    }

    proptest! {
        #[test]
        fn tensors_round_trip(values in prop::collection::vec(any::<i64>(), 0..9)) {
            let tensor = Tensor::of(Shape::vector(values.len()), &values).unwrap();
            prop_assert_eq!(read(&tensor_to_proto(&tensor)).unwrap(), tensor);
        }

        #[test]
        fn garbage_never_panics(
            dtype in -1i32..40,
            dims in prop::collection::vec(prop_oneof![-2i64..5, any::<i64>()], 0..4),
            content in prop::collection::vec(any::<u8>(), 0..32),
            ints in prop::collection::vec(any::<i32>(), 0..4),
        ) {
            let mut message = proto(DType::F32, &dims);
            message.dtype = dtype;
            message.tensor_content = content.into();
            message.half_val.clone_from(&ints);
            message.int_val = ints;
            let _ = tensor_from_proto(&message, 4096);
        }
    }
}
