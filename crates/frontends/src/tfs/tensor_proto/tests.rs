//! The observed vectors, and every rule that they leave out.

use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use serde_json::Value;
use vesta_model::{Shape, Status, StringsBuilder, Tensor};
use vesta_protos::tensorflow::{DataType, TensorProto, TensorShapeProto, tensor_shape_proto::Dim};

use super::*;
use crate::budget::Budget;

fn shape_proto(sizes: &[i64]) -> TensorShapeProto {
    let dim = |&size: &i64| Dim { size, ..Default::default() };
    TensorShapeProto { dim: sizes.iter().map(dim).collect(), unknown_rank: false }
}

fn proto(dtype: DataType, sizes: &[i64]) -> TensorProto {
    TensorProto {
        dtype: dtype.into(),
        tensor_shape: Some(shape_proto(sizes)),
        ..Default::default()
    }
}

fn read_bytes(bytes: Vec<u8>) -> Result<Tensor, ParseError> {
    let wire = TensorWire::decode(Bytes::from(bytes)).unwrap();
    assert!(!wire.is_malformed());
    tensor(&wire, &Budget::new(1 << 20))
}

fn read(proto: &TensorProto) -> Result<Tensor, ParseError> {
    read_bytes(proto.encode_to_vec())
}

fn values<T: vesta_model::Element>(proto: &TensorProto) -> Vec<T> {
    read(proto).unwrap().to_vec().unwrap()
}

fn written(tensor: &Tensor, form: TensorForm) -> TensorProto {
    let encoded = Encoded::new(tensor, form);
    let mut bytes = Vec::new();
    encoded.write(&mut bytes);
    assert_eq!(bytes.len(), encoded.len());
    TensorProto::decode(&bytes[..]).unwrap()
}

/// Elements as the vectors write them.
fn elements(tensor: &Tensor) -> Vec<Value> {
    let floats = |values: Vec<f64>| values.into_iter().map(Value::from).collect();
    match tensor.dtype() {
        DType::F32 => floats(tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()),
        DType::F16 => {
            let bits = tensor.relabelled(DType::U16).unwrap().to_vec::<u16>().unwrap();
            floats(bits.into_iter().map(|bits| half::f16::from_bits(bits).to_f64()).collect())
        }
        DType::BF16 => {
            let bits = tensor.relabelled(DType::U16).unwrap().to_vec::<u16>().unwrap();
            floats(bits.into_iter().map(|bits| half::bf16::from_bits(bits).to_f64()).collect())
        }
        DType::U8 => floats(tensor.bytes().iter().copied().map(f64::from).collect()),
        DType::U16 => floats(tensor.to_vec::<u16>().unwrap().into_iter().map(f64::from).collect()),
        DType::U32 => floats(tensor.to_vec::<u32>().unwrap().into_iter().map(f64::from).collect()),
        DType::String => tensor
            .strings()
            .unwrap()
            .iter()
            .map(|text| Value::from(std::str::from_utf8(text).unwrap()))
            .collect(),
        other => panic!("no vector has {other}"),
    }
}

fn vector_proto(vector: &Value) -> TensorProto {
    let dtype = DataType::from_str_name(vector["dtype"].as_str().unwrap()).unwrap();
    let mut out = TensorProto { dtype: dtype.into(), ..Default::default() };
    out.tensor_shape = match &vector["shape"] {
        Value::Null => None,
        Value::String(_) => Some(TensorShapeProto { unknown_rank: true, ..Default::default() }),
        sizes => {
            let sizes: Vec<i64> = serde_json::from_value(sizes.clone()).unwrap();
            Some(shape_proto(&sizes))
        }
    };
    for (field, values) in vector["fields"].as_object().unwrap() {
        let ints = || -> Vec<i32> { serde_json::from_value(values.clone()).unwrap() };
        match field.as_str() {
            "float_val" => out.float_val = serde_json::from_value(values.clone()).unwrap(),
            "int_val" => out.int_val = ints(),
            "half_val" => out.half_val = ints(),
            "uint32_val" => out.uint32_val = serde_json::from_value(values.clone()).unwrap(),
            "string_val" => {
                let texts: Vec<String> = serde_json::from_value(values.clone()).unwrap();
                out.string_val = texts.into_iter().map(Bytes::from).collect();
            }
            "tensor_content_hex" => {
                let hex = values.as_str().unwrap();
                let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                out.tensor_content = (0..hex.len()).step_by(2).map(byte).collect();
            }
            other => panic!("no such field: {other}"),
        }
    }
    out
}

#[test]
fn observed_vectors_are_met() {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("VESTA_SHARED").map_or(default, PathBuf::from);
    let file = folder.join("contracts/tensorproto-vectors.jsonl");
    let Ok(text) = std::fs::read_to_string(&file) else {
        assert!(std::env::var_os("CI").is_none(), "no vectors at {}", file.display());
        eprintln!("skipped: no vectors at {}; set VESTA_SHARED", file.display());
        return;
    };
    let mut met = 0;
    for line in text.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let got = read(&vector_proto(&vector));
        let number = |value: &Value| value.as_f64().map_or(value.clone(), Value::from);
        match &vector["expect"] {
            Value::String(_) => assert_eq!(got, Err(ParseError::Invalid), "{vector}"),
            Value::Array(want) => {
                let want: Vec<Value> = want.iter().map(number).collect();
                assert_eq!(elements(&got.unwrap()), want, "{vector}");
            }
            scalar => {
                let got = got.unwrap();
                assert_eq!(got.shape(), &Shape::scalar(), "{vector}");
                assert_eq!(elements(&got), [number(scalar)], "{vector}");
            }
        }
        met += 1;
    }
    assert!(met >= 19, "{met}");
}

#[test]
fn values_are_wrapped_into_narrow_dtypes() {
    let mut message = proto(DataType::DtInt8, &[4]);
    message.int_val = vec![-1, 300, 127, -129];
    assert_eq!(values::<i8>(&message), [-1, 44, 127, 127]);
    let mut message = proto(DataType::DtUint16, &[2]);
    message.int_val = vec![-1, 65537];
    assert_eq!(values::<u16>(&message), [65535, 1]);
    let mut message = proto(DataType::DtInt64, &[3]);
    message.int64_val = vec![i64::MIN, 5];
    assert_eq!(values::<i64>(&message), [i64::MIN, 5, 5]);
    let mut message = proto(DataType::DtUint64, &[2]);
    message.uint64_val = vec![u64::MAX];
    assert_eq!(values::<u64>(&message), [u64::MAX, u64::MAX]);
    let mut message = proto(DataType::DtBool, &[3]);
    message.bool_val = vec![true, false];
    assert_eq!(read(&message).unwrap().bytes(), [1, 0, 0]);
    message.bool_val.clear();
    message.tensor_content = vec![0, 2, 1].into();
    assert_eq!(read(&message).unwrap().bytes(), [0, 1, 1]);
}

#[test]
fn complex_values_are_pairs() {
    let mut message = proto(DataType::DtComplex64, &[3]);
    message.scomplex_val = vec![1.0, 2.0, 3.0, 4.0, 5.0];
    let floats: Vec<f32> = bytemuck_floats(read(&message).unwrap().bytes());
    // The lone real part counts for nothing.
    assert_eq!(floats, [1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    message.scomplex_val = vec![1.0];
    assert_eq!(read(&message).unwrap().bytes(), [0; 24]);
}

fn bytemuck_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn dtypes_without_tensors_are_refused() {
    for number in [0, 20, 21, 29, 33, 99, 101, -1] {
        let message = TensorProto { dtype: number, ..Default::default() };
        assert_eq!(read(&message), Err(ParseError::Invalid), "{number}");
    }
    for sizes in [&[-1, 0][..], &[i64::MAX, 2], &[1; 255], &[i64::MAX]] {
        assert_eq!(read(&proto(DataType::DtFloat, sizes)), Err(ParseError::Invalid), "{sizes:?}");
    }
    assert!(read(&proto(DataType::DtFloat, &[1; 254])).is_ok());
}

#[test]
fn string_content_is_checked() {
    let mut message = proto(DataType::DtString, &[2]);
    for wrong in [&[1, 2, b'a'][..], &[1, 1, b'a', b'b', b'c'], &[1], &[0x80, 1], &[0xff; 8]] {
        message.tensor_content = wrong.to_vec().into();
        assert_eq!(read(&message), Err(ParseError::Invalid), "{wrong:?}");
    }
    let mut message = proto(DataType::DtString, &[1]);
    message.string_val = vec!["a".into(), "b".into()];
    assert_eq!(read(&message).unwrap().strings().unwrap().get(0), Some(&b"a"[..]));
}

#[test]
fn a_small_message_cannot_claim_much_memory() {
    let mut message = proto(DataType::DtFloat, &[1 << 30]);
    message.float_val = vec![1.0];
    let wire = TensorWire::decode(Bytes::from(message.encode_to_vec())).unwrap();
    let budget = Budget::new(1 << 20);
    let Err(ParseError::Refused(status)) = tensor(&wire, &budget) else { panic!() };
    assert_eq!(status.code(), vesta_model::Code::ResourceExhausted);
    assert_eq!(budget.bytes_taken(), 0);
    let mut message = proto(DataType::DtString, &[10_000]);
    message.string_val = vec![vec![7; 1000].into()];
    assert!(matches!(read(&message), Err(ParseError::Refused(_))));
    let mut message = proto(DataType::DtInt64, &[10]);
    message.int64_val = vec![3];
    let wire = TensorWire::decode(Bytes::from(message.encode_to_vec())).unwrap();
    let held = tensor(&wire, &budget).unwrap();
    assert!(budget.bytes_taken() >= 80);
    drop(held);
    assert_eq!(budget.bytes_taken(), 0);
}

#[test]
fn values_are_borrowed_where_they_lie_as_wanted() {
    let mut content = proto(DataType::DtInt32, &[3]);
    content.tensor_content = vec![9; 12].into();
    let mut floats = proto(DataType::DtFloat, &[3]);
    floats.float_val = vec![1.5, 2.5, 3.5, 4.5];
    let mut bools = proto(DataType::DtBool, &[3]);
    bools.bool_val = vec![true, false, true];
    for message in [content, floats, bools] {
        let bytes = Bytes::from(message.encode_to_vec());
        let within = bytes.as_ptr_range();
        let wire = TensorWire::decode(bytes.clone()).unwrap();
        let got = tensor(&wire, &Budget::new(0)).unwrap();
        assert!(within.contains(&got.bytes().as_ptr()), "{message:?}");
    }
}

#[test]
fn values_may_come_one_by_one_and_in_several_lists() {
    let mut bytes = proto(DataType::DtFloat, &[4]).encode_to_vec();
    let mut lone = vec![0x2d];
    lone.extend(1.0f32.to_le_bytes());
    let mut list = vec![0x2a, 8];
    list.extend(2.0f32.to_le_bytes());
    list.extend(3.0f32.to_le_bytes());
    bytes.extend([&lone[..], &list, &lone].concat());
    let got = read_bytes(bytes).unwrap();
    assert_eq!(got.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 1.0]);
    // int_val: 300, then a list of 1 and 2.
    let mut bytes = proto(DataType::DtInt32, &[3]).encode_to_vec();
    bytes.extend([0x38, 0xac, 2, 0x3a, 2, 1, 2]);
    assert_eq!(read_bytes(bytes).unwrap().to_vec::<i32>().unwrap(), [300, 1, 2]);
}

#[test]
fn broken_lists_are_malformed() {
    for bytes in [&[0x2a, 3, 0, 0, 0][..], &[0x3a, 1, 0x80], &[0x5a, 2, 1, 0xff]] {
        let wire = TensorWire::decode(Bytes::copy_from_slice(bytes)).unwrap();
        assert!(wire.is_malformed(), "{bytes:?}");
    }
    assert!(TensorWire::decode(Bytes::from_static(&[0x2a, 30])).is_err());
}

#[test]
fn answers_are_lists_of_values() {
    let shape = || Shape::new(vec![2, 1]).unwrap();
    let check = |tensor: &Tensor, want: TensorProto| {
        let want = TensorProto {
            dtype: tensor.dtype().number(),
            tensor_shape: Some(shape_proto(&[2, 1])),
            ..want
        };
        assert_eq!(written(tensor, TensorForm::Fields), want);
    };
    let none = TensorProto::default;
    let float = Tensor::of(shape(), &[1.5f32, f32::INFINITY]).unwrap();
    check(&float, TensorProto { float_val: vec![1.5, f32::INFINITY], ..none() });
    let double = Tensor::of(shape(), &[1.5f64, -2.0]).unwrap();
    check(&double, TensorProto { double_val: vec![1.5, -2.0], ..none() });
    let narrow = Tensor::of(shape(), &[-1i8, 5]).unwrap();
    check(&narrow, TensorProto { int_val: vec![-1, 5], ..none() });
    let wide = Tensor::of(shape(), &[i64::MIN, 5]).unwrap();
    check(&wide, TensorProto { int64_val: vec![i64::MIN, 5], ..none() });
    let unsigned = Tensor::of(shape(), &[u32::MAX, 5]).unwrap();
    check(&unsigned, TensorProto { uint32_val: vec![u32::MAX, 5], ..none() });
    let halves = Tensor::of(shape(), &[15360u16, 65535]).unwrap();
    let halves = halves.relabelled(DType::F16).unwrap();
    check(&halves, TensorProto { half_val: vec![15360, 65535], ..none() });
    let bools = Tensor::of_bools(shape(), &[true, false]).unwrap();
    check(&bools, TensorProto { bool_val: vec![true, false], ..none() });
    let mut texts = StringsBuilder::new();
    texts.push(b"a");
    texts.push(b"");
    let texts = Tensor::of_strings(shape(), &texts).unwrap();
    check(&texts, TensorProto { string_val: vec!["a".into(), Bytes::new()], ..none() });
    let empty = Tensor::of::<f32>(Shape::vector(0), &[]).unwrap();
    assert_eq!(written(&empty, TensorForm::Fields), proto(DataType::DtFloat, &[0]));
    let scalar = Tensor::of(Shape::scalar(), &[7i32]).unwrap();
    let want = TensorProto { int_val: vec![7], ..proto(DataType::DtInt32, &[]) };
    assert_eq!(written(&scalar, TensorForm::Fields), want);
}

#[test]
fn answers_can_be_raw_content() {
    let float = Tensor::of(Shape::vector(1), &[1.0f32]).unwrap();
    let content = written(&float, TensorForm::Content);
    assert_eq!(content.tensor_content, vec![0, 0, 128, 63]);
    assert!(content.float_val.is_empty());
    let mut texts = StringsBuilder::new();
    texts.push(b"a");
    texts.push(b"bc");
    let texts = Tensor::of_strings(Shape::vector(2), &texts).unwrap();
    let content = written(&texts, TensorForm::Content);
    assert_eq!(content.tensor_content, &[1, 2, b'a', b'b', b'c'][..]);
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let held: Vec<DType> = DType::ALL
        .iter()
        .copied()
        .filter(|&dtype| Field::of(dtype).is_some() && dtype != DType::String)
        .collect();
    let bytes = prop::collection::vec(any::<u8>(), 0..160);
    (prop::sample::select(held), bytes).prop_map(|(dtype, mut bytes)| {
        let width = dtype.width().unwrap();
        bytes.truncate(bytes.len() / width * width);
        if dtype == DType::Bool {
            bytes.iter_mut().for_each(|byte| *byte &= 1);
        }
        Tensor::copied(dtype, Shape::vector(bytes.len() / width), &bytes).unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(tensor in any_tensor(), content in any::<bool>()) {
        let form = if content { TensorForm::Content } else { TensorForm::Fields };
        let message = written(&tensor, form);
        prop_assert_eq!(read(&message), Ok(tensor));
    }

    #[test]
    fn strings_are_read_back(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..9),
        content in any::<bool>(),
    ) {
        let mut builder = StringsBuilder::new();
        texts.iter().for_each(|text| builder.push(text));
        let tensor = Tensor::of_strings(Shape::vector(texts.len()), &builder).unwrap();
        let form = if content { TensorForm::Content } else { TensorForm::Fields };
        prop_assert_eq!(read(&written(&tensor, form)), Ok(tensor));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = TensorWire::decode(Bytes::from(bytes))
            && !wire.is_malformed()
        {
            let _: Result<Tensor, ParseError> = tensor(&wire, &Budget::new(1 << 16));
        }
    }
}

#[test]
fn status_is_kept_when_memory_is_refused() {
    let status = Status::resource_exhausted("x");
    assert_eq!(ParseError::from(status.clone()), ParseError::Refused(status));
}
