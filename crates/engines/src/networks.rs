//! Signatures of one network as one model, for engines that lay out weights anew for each session.
//!
//! What two translations compute from the same is one node, whatever it is called: signatures that
//! share a network are one model with the outputs of all. A run computes all of the model, so they are one
//! only where what a signature does not ask for is next to nothing and cannot fail.
//!
//! May not know: any engine. Invariant: each signature's outputs are computed by the nodes of its own
//! translation, and a run for it fails in no other case than one of its own model would.

mod spare;
mod union;

use vesta_model::PartialShape;
use vesta_onnx::Translation;

use self::union::Union;
use crate::translated::TranslatedSignature;

/// A model for one or more signatures.
pub(crate) struct Network {
    pub(crate) translation: Translation,
    pub(crate) members: Vec<Member>,
}

/// A signature of a network.
pub(crate) struct Member {
    /// The signature's name.
    pub(crate) name: String,
    /// The shapes that it takes, one for each input.
    pub(crate) shapes: Vec<PartialShape>,
    /// The network's inputs, one for each of the signature's.
    pub(crate) inputs: Vec<String>,
    /// The network's outputs, one for each of the signature's.
    pub(crate) outputs: Vec<String>,
}

/// Networks that another signature is looked for in; beyond it, one has a network for itself.
const TRIED_MAX: usize = 8;

/// Makes as few networks of signatures as may be.
pub(crate) fn unite(signatures: Vec<TranslatedSignature>) -> Vec<Network> {
    let mut networks: Vec<Network> = Vec::new();
    for TranslatedSignature { name, shapes, translation } in signatures {
        let joined = networks.iter().rev().take(TRIED_MAX).enumerate().find_map(|(at, network)| {
            let (united, inputs, outputs) = join(network, &shapes, &translation)?;
            Some((networks.len() - 1 - at, united, inputs, outputs))
        });
        match joined {
            Some((at, united, inputs, outputs)) => {
                networks[at].translation = united;
                networks[at].members.push(Member { name, shapes, inputs, outputs });
            }
            None => {
                let (inputs, outputs) = (translation.inputs.clone(), translation.outputs.clone());
                let members = vec![Member { name, shapes, inputs, outputs }];
                networks.push(Network { translation, members });
            }
        }
    }
    networks
}

/// A network with another signature in it, and that signature's ends, if it may be one of it.
fn join(
    network: &Network,
    shapes: &[PartialShape],
    added: &Translation,
) -> Option<(Translation, Vec<String>, Vec<String>)> {
    let inputs = alike_inputs(network, shapes, added)?;
    let mut union = Union::new(&network.translation);
    let outputs = union.add(added, &inputs)?;
    let united = union.finish();
    let is_little = |own: &[String]| spare::is_little(&united, own);
    let is_one = is_little(&outputs) && network.members.iter().all(|own| is_little(&own.outputs));
    is_one.then_some((united, inputs, outputs))
}

/// The network's inputs for those of a signature: of the same names, or in their order; of the same dtypes
/// and shapes.
fn alike_inputs(
    network: &Network,
    shapes: &[PartialShape],
    added: &Translation,
) -> Option<Vec<String>> {
    let held = network.members.first()?;
    let is_named_so = added.inputs.iter().all(|name| held.inputs.contains(name));
    let inputs = if is_named_so { &added.inputs } else { &held.inputs };
    let (own, other) = (&network.translation.values, &added.values);
    let is_alike = |((input, shape), name): ((&String, &PartialShape), &String)| {
        let at = held.inputs.iter().position(|own| own == input);
        at.and_then(|at| held.shapes.get(at)) == Some(shape)
            && own
                .get(input)
                .zip(other.get(name))
                .is_some_and(|(a, b)| a.dtype == b.dtype && a.shape == b.shape)
    };
    let is_each = held.inputs.len() == added.inputs.len() && shapes.len() == inputs.len();
    let is_one_model = is_each && inputs.iter().zip(shapes).zip(&added.inputs).all(is_alike);
    is_one_model.then(|| inputs.clone())
}

#[cfg(test)]
mod tests;
