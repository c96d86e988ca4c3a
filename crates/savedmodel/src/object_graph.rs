//! Checkpoint keys by way of the object graph: the objects of the model and those of its
//! checkpoint are walked side by side.
//!
//! Used where the model's restore function does not tell. Invariant: a name that two variables
//! share is not answered for.

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use vesta_protos::tensorflow::saved_object::Kind;
use vesta_protos::tensorflow::{SavedObjectGraph, TrackableObjectGraph};

use crate::bundle::Bundle;

/// Where a checkpoint keeps its object graph.
const KEY: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// What the value of a variable is called among the attributes of its object.
const VALUE: &str = "VARIABLE_VALUE";

/// The checkpoint key of each variable, by the variable's name. Empty when there is no graph.
pub(crate) fn keys(model: Option<&SavedObjectGraph>, bundle: &Bundle) -> HashMap<String, String> {
    let stored = bundle.tensor(KEY, "").ok().and_then(|tensor| tensor.string_val.first().cloned());
    let checkpoint = stored.and_then(|bytes| TrackableObjectGraph::decode(bytes).ok());
    match (model, checkpoint) {
        (Some(model), Some(checkpoint)) => walk(model, &checkpoint),
        _ => HashMap::new(),
    }
}

fn walk(model: &SavedObjectGraph, checkpoint: &TrackableObjectGraph) -> HashMap<String, String> {
    let mut found: HashMap<String, Option<String>> = HashMap::new();
    let mut seen = HashSet::new();
    let mut pending = vec![(0i32, 0i32)];
    while let Some((ours, theirs)) = pending.pop() {
        let object = usize::try_from(ours).ok().and_then(|at| model.nodes.get(at));
        let stored = usize::try_from(theirs).ok().and_then(|at| checkpoint.nodes.get(at));
        // Object by object: cycles end, and a damaged pairing cannot multiply.
        let (Some(object), Some(stored)) = (object, stored) else { continue };
        if !seen.insert(ours) {
            continue;
        }
        if let Some(Kind::Variable(variable)) = &object.kind {
            let value = stored.attributes.iter().find(|attribute| attribute.name == VALUE);
            if let Some(value) = value {
                found
                    .entry(variable.name.clone())
                    .and_modify(|key| *key = None)
                    .or_insert_with(|| Some(value.checkpoint_key.clone()));
            }
        }
        let children: HashMap<&str, i32> = stored
            .children
            .iter()
            .map(|child| (child.local_name.as_str(), child.node_id))
            .collect();
        for child in &object.children {
            if let Some(&theirs) = children.get(child.local_name.as_str()) {
                pending.push((child.node_id, theirs));
            }
        }
    }
    found.into_iter().filter_map(|(name, key)| Some((name, key?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::tensorflow::trackable_object_graph::TrackableObject;
    use vesta_protos::tensorflow::trackable_object_graph::trackable_object::{
        ObjectReference, SerializedTensor,
    };
    use vesta_protos::tensorflow::{SavedObject, SavedVariable};

    fn child(local_name: &str, node_id: i32) -> ObjectReference {
        ObjectReference { node_id, local_name: local_name.to_owned() }
    }

    fn variable(name: &str) -> SavedObject {
        let variable = SavedVariable { name: name.to_owned(), ..SavedVariable::default() };
        SavedObject { kind: Some(Kind::Variable(variable)), ..SavedObject::default() }
    }

    fn stored(key: &str) -> TrackableObject {
        let value = SerializedTensor {
            name: VALUE.to_owned(),
            checkpoint_key: key.to_owned(),
            ..SerializedTensor::default()
        };
        TrackableObject { attributes: vec![value], ..TrackableObject::default() }
    }

    #[test]
    fn both_graphs_are_walked_by_the_names_of_children() {
        let root = SavedObject {
            children: vec![child("a", 1), child("b", 2), child("again", 0), child("gone", 99)],
            ..SavedObject::default()
        };
        let model = SavedObjectGraph {
            nodes: vec![root, variable("va"), variable("vb")],
            ..SavedObjectGraph::default()
        };
        let checkpoint = TrackableObjectGraph {
            nodes: vec![
                TrackableObject {
                    children: vec![child("b", 1), child("a", 2), child("again", 0)],
                    ..TrackableObject::default()
                },
                stored("b/.ATTRIBUTES/VARIABLE_VALUE"),
                stored("a/.ATTRIBUTES/VARIABLE_VALUE"),
            ],
        };
        let keys = walk(&model, &checkpoint);
        assert_eq!(keys["va"], "a/.ATTRIBUTES/VARIABLE_VALUE");
        assert_eq!(keys["vb"], "b/.ATTRIBUTES/VARIABLE_VALUE");
    }
}
