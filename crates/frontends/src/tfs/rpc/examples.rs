//! Examples as the input of Classify, Regress and MultiInference: bytes that are passed on.
//!
//! Owns: reading the input message without parsing an example, joining the context to each. May not
//! know: what an example says.
//! Invariant: an example costs eight bytes besides its own.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use vesta_model::{DType, Shape, Status, Tensor};

use crate::budget::Budget;
use crate::tfs::texts::Texts;

/// A received input message.
#[derive(Clone, Debug, Default)]
pub(super) struct InputWire {
    /// The field of the kind that came last, which is the one that counts.
    kind: u32,
    list: ListWire,
}

/// A received list of examples, with or without a context.
#[derive(Clone, Debug, Default)]
struct ListWire {
    examples: Texts,
    context: Vec<u8>,
}

const LIST: u32 = 1;
const LIST_WITH_CONTEXT: u32 = 2;

impl InputWire {
    /// Number of examples.
    pub(super) fn len(&self) -> usize {
        self.list.examples.len()
    }

    /// The examples as the one tensor that they are fed as. Bytes of the context stand before those
    /// of each example, which merges the two messages.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there is none, `RESOURCE_EXHAUSTED` when the budget is used up.
    pub(super) fn tensor(&self, budget: &Budget) -> Result<Tensor, Status> {
        if self.len() == 0 {
            return Err(Status::invalid_argument("Input is empty."));
        }
        let context: &[u8] = if self.kind == LIST_WITH_CONTEXT { &self.list.context } else { &[] };
        let memory = self.list.examples.prefixed(context, budget)?;
        Tensor::whole(DType::String, Shape::vector(self.len()), Arc::new(memory))
    }
}

/// Only ever read.
impl Message for InputWire {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if !matches!(tag, LIST | LIST_WITH_CONTEXT) || wire_type != WireType::LengthDelimited {
            return encoding::skip_field(wire_type, tag, buf, ctx);
        }
        if self.kind != tag {
            *self = InputWire { kind: tag, list: ListWire::default() };
        }
        encoding::message::merge(wire_type, &mut self.list, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = InputWire::default();
    }
}

/// Only ever read.
impl Message for ListWire {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if !matches!(tag, 1 | 2) || wire_type != WireType::LengthDelimited {
            return encoding::skip_field(wire_type, tag, buf, ctx);
        }
        let mut bytes = Bytes::new();
        encoding::bytes::merge(wire_type, &mut bytes, buf, ctx)?;
        if tag == 1 {
            self.examples.push(&bytes);
        } else {
            // A message that comes twice is merged, which for bytes is one after the other.
            self.context.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = ListWire::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::tensorflow::serving::serialized_input::Kind;
    use vesta_protos::tensorflow::serving::{
        SerializedExampleList, SerializedExampleListWithContext, SerializedInput,
    };

    fn strings(kind: Option<Kind>) -> Result<Vec<Vec<u8>>, Status> {
        let bytes = SerializedInput { kind }.encode_to_vec();
        let input = InputWire::decode(Bytes::from(bytes)).unwrap();
        let tensor = input.tensor(&Budget::new(1000))?;
        Ok(tensor.strings().unwrap().iter().map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn contexts_stand_before_each_example() {
        let examples = vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"bc")];
        let list = SerializedExampleList { examples: examples.clone() };
        assert_eq!(
            strings(Some(Kind::ExampleList(list))).unwrap(),
            [b"a".to_vec(), Vec::new(), b"bc".to_vec()]
        );
        let context = Bytes::from_static(b"C");
        let list = SerializedExampleListWithContext { examples, context };
        assert_eq!(
            strings(Some(Kind::ExampleListWithContext(list))).unwrap(),
            [b"Ca".to_vec(), b"C".to_vec(), b"Cbc".to_vec()]
        );
    }

    #[test]
    fn no_example_is_an_error() {
        let empty = Status::invalid_argument("Input is empty.");
        assert_eq!(strings(None), Err(empty.clone()));
        assert_eq!(strings(Some(Kind::ExampleList(SerializedExampleList::default()))), Err(empty));
    }

    #[test]
    fn a_context_cannot_multiply_out_of_the_budget() {
        let list = SerializedExampleListWithContext {
            examples: vec![Bytes::new(); 100],
            context: vec![7; 100].into(),
        };
        let refused = strings(Some(Kind::ExampleListWithContext(list))).unwrap_err();
        assert_eq!(refused.code(), vesta_model::Code::ResourceExhausted);
    }
}
