//! The encoding of ONNX models that rten reads: its parser takes repeated numbers one by one, as
//! ONNX's own schema writes them, where others pack them into one field.

use prost::Message as _;
use prost::encoding::{decode_varint, encode_varint};
use vesta_protos::onnx::ModelProto;

/// Paths of field numbers from the model to packed numbers; the last is the number itself.
const PACKED: &[&[u64]] = &[&[7, 1, 5, 8], &[7, 5, 1]];

/// The model with those numbers one by one.
pub(crate) fn encode(model: &ModelProto) -> Vec<u8> {
    unpack(&model.encode_to_vec(), PACKED)
}

fn unpack(mut message: &[u8], paths: &[&[u64]]) -> Vec<u8> {
    let mut out = Vec::new();
    while !message.is_empty() {
        let tag = decode_varint(&mut message).unwrap();
        let (field, kind) = (tag >> 3, tag & 7);
        let below: Vec<&[u64]> =
            paths.iter().filter(|path| path[0] == field).map(|path| &path[1..]).collect();
        if kind != 2 {
            encode_varint(tag, &mut out);
            match kind {
                0 => encode_varint(decode_varint(&mut message).unwrap(), &mut out),
                _ => {
                    let (word, rest) = message.split_at(if kind == 1 { 8 } else { 4 });
                    out.extend_from_slice(word);
                    message = rest;
                }
            }
            continue;
        }
        let length = decode_varint(&mut message).unwrap() as usize;
        let (mut block, rest) = message.split_at(length);
        message = rest;
        if below.iter().any(|path| path.is_empty()) {
            while !block.is_empty() {
                encode_varint(field << 3, &mut out);
                encode_varint(decode_varint(&mut block).unwrap(), &mut out);
            }
        } else {
            let inner = if below.is_empty() { block.to_vec() } else { unpack(block, &below) };
            encode_varint(tag, &mut out);
            encode_varint(inner.len() as u64, &mut out);
            out.extend_from_slice(&inner);
        }
    }
    out
}
