//! The encoding of ONNX models that rten reads.
//!
//! ONNX's own schema writes repeated numbers one by one, others pack them into one field. Protobuf
//! readers take both; rten's takes the former alone. May not know: what a model means.

use prost::Message;
use vesta_protos::onnx::ModelProto;

/// What a field holds, as far as it has to be rewritten.
#[derive(Clone, Copy)]
enum Content {
    Message(&'static [(u64, Content)]),
    /// Packed integers.
    Integers,
    /// Packed floats.
    Floats,
}

const TENSOR: &[(u64, Content)] = &[(1, Content::Integers)];
const ATTRIBUTE: &[(u64, Content)] =
    &[(5, Content::Message(TENSOR)), (7, Content::Floats), (8, Content::Integers)];
const NODE: &[(u64, Content)] = &[(5, Content::Message(ATTRIBUTE))];
const GRAPH: &[(u64, Content)] = &[(1, Content::Message(NODE)), (5, Content::Message(TENSOR))];
const MODEL: &[(u64, Content)] = &[(7, Content::Message(GRAPH))];

/// The model as bytes with repeated numbers one by one.
pub(crate) fn encode(model: &ModelProto) -> Vec<u8> {
    let packed = model.encode_to_vec();
    // What was just written is well-formed; were it not, rten would be the one to say so.
    rewrite(&packed, MODEL).unwrap_or(packed)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

fn rewrite(mut message: &[u8], fields: &[(u64, Content)]) -> Option<Vec<u8>> {
    use prost::encoding::encode_varint;
    let mut out = Vec::with_capacity(message.len() + message.len() / 8);
    while !message.is_empty() {
        let start = message;
        let tag = varint(&mut message)?;
        let number = tag >> 3;
        let block = match tag & 7 {
            0 => {
                varint(&mut message)?;
                None
            }
            1 => {
                message = message.get(8..)?;
                None
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (block, rest) = message.split_at_checked(length)?;
                message = rest;
                Some(block)
            }
            5 => {
                message = message.get(4..)?;
                None
            }
            _ => return None,
        };
        let content = fields.iter().find(|(known, _)| *known == number).map(|(_, content)| content);
        match (content, block) {
            (Some(Content::Message(fields)), Some(block)) => {
                let inner = rewrite(block, fields)?;
                encode_varint(tag, &mut out);
                encode_varint(inner.len() as u64, &mut out);
                out.extend_from_slice(&inner);
            }
            (Some(Content::Integers), Some(mut block)) => {
                while !block.is_empty() {
                    let value = varint(&mut block)?;
                    encode_varint(number << 3, &mut out);
                    encode_varint(value, &mut out);
                }
            }
            (Some(Content::Floats), Some(block)) => {
                for word in block.as_chunks::<4>().0 {
                    encode_varint(number << 3 | 5, &mut out);
                    out.extend_from_slice(word);
                }
            }
            _ => out.extend_from_slice(&start[..start.len() - message.len()]),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

    #[test]
    fn numbers_come_one_by_one_and_nothing_else_changes() {
        let attribute = AttributeProto {
            name: "pads".into(),
            ints: vec![1, -1, 300],
            floats: vec![0.5, -2.0],
            r#type: 7,
            ..AttributeProto::default()
        };
        let node = NodeProto {
            op_type: "Pad".into(),
            input: vec!["a".into()],
            attribute: vec![attribute],
            ..NodeProto::default()
        };
        let tensor = TensorProto {
            dims: vec![2, 3],
            data_type: 1,
            raw_data: vec![7; 24].into(),
            ..TensorProto::default()
        };
        let graph =
            GraphProto { node: vec![node], initializer: vec![tensor], ..GraphProto::default() };
        let model = ModelProto { ir_version: 8, graph: Some(graph), ..ModelProto::default() };
        let bytes = encode(&model);
        assert_eq!(ModelProto::decode(&bytes[..]).unwrap(), model);
        // Field 1 of the tensor as two varints: tag, 2, tag, 3.
        assert!(bytes.windows(4).any(|window| window == [8, 2, 8, 3]));
    }
}
