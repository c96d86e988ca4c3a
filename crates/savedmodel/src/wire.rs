//! How much a message is before memory is taken for it.
//!
//! Owns: counting parts of an encoded message. May not know: what they mean.
//! Invariant: counting takes no memory that grows with the message.

use bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Nodes of one graph file, those of its functions too. A node takes hundreds of bytes in memory, and as
/// few as two in the file.
pub(crate) const NODES_MAX: usize = 1_000_000;

/// Numbers of the fields that lead to the nodes of a `SavedModel`.
const OF_SAVED_MODEL: [&[u32]; 2] = [&[2, 2, 1], &[2, 2, 2, 1, 3]];
/// The same of a `GraphDef`.
const OF_GRAPH: [&[u32]; 2] = [&[1], &[2, 1, 3]];

/// How many nodes a `SavedModel` says that it has; what is no message has those before the fault.
pub(crate) fn saved_model_nodes(bytes: &Bytes) -> usize {
    OF_SAVED_MODEL.iter().map(|path| count(bytes.clone(), path).0).sum()
}

/// How many nodes a `GraphDef` says that it has; `None` for what is no message.
pub(crate) fn graph_nodes(bytes: &Bytes) -> Option<usize> {
    let counts = OF_GRAPH.iter().map(|path| count(bytes.clone(), path));
    counts.map(|(found, is_whole)| is_whole.then_some(found)).sum()
}

/// How many fields lie at the end of a path of fields, and whether all of the message could be read.
fn count(mut bytes: Bytes, path: &[u32]) -> (usize, bool) {
    let Some((first, rest)) = path.split_first() else { return (1, true) };
    let mut found = 0;
    while bytes.has_remaining() {
        let Ok((field, wire)) = decode_key(&mut bytes) else { return (found, false) };
        if field != *first {
            if skip_field(wire, field, &mut bytes, DecodeContext::default()).is_err() {
                return (found, false);
            }
            continue;
        }
        let length = decode_varint(&mut bytes).ok().and_then(|n| usize::try_from(n).ok());
        match length {
            Some(length) if wire == WireType::LengthDelimited && length <= bytes.remaining() => {
                let (more, is_whole) = count(bytes.split_to(length), rest);
                found += more;
                if !is_whole {
                    return (found, false);
                }
            }
            _ => return (found, false),
        }
    }
    (found, true)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use vesta_protos::tensorflow::{
        FunctionDef, FunctionDefLibrary, GraphDef, MetaGraphDef, NodeDef, SavedModel,
    };

    use super::*;

    fn graph() -> GraphDef {
        let node = |name: &str| NodeDef { name: name.to_owned(), ..NodeDef::default() };
        let function = FunctionDef { node_def: vec![node("c")], ..FunctionDef::default() };
        GraphDef {
            node: vec![node("a"), node("b"), NodeDef::default()],
            library: Some(FunctionDefLibrary {
                function: vec![function.clone(), function],
                ..FunctionDefLibrary::default()
            }),
            ..GraphDef::default()
        }
    }

    #[test]
    fn nodes_of_graphs_and_functions_are_counted() {
        let meta = MetaGraphDef { graph_def: Some(graph()), ..MetaGraphDef::default() };
        let saved = SavedModel { meta_graphs: vec![meta.clone(), meta], ..SavedModel::default() };
        assert_eq!(saved_model_nodes(&Bytes::from(saved.encode_to_vec())), 10);
        assert_eq!(graph_nodes(&Bytes::from(graph().encode_to_vec())), Some(5));
        assert_eq!(graph_nodes(&Bytes::from(saved.encode_to_vec())), None);
    }

    #[test]
    fn what_ends_early_is_no_message() {
        let whole = graph().encode_to_vec();
        for end in 1..whole.len() {
            // It may end between two fields; else it is told, and nothing is read beyond the end.
            let (_, is_whole) = count(Bytes::copy_from_slice(&whole[..end]), &[1]);
            assert_eq!(is_whole, GraphDef::decode(&whole[..end]).is_ok(), "{end}");
        }
    }
}
