//! Signatures of one network as one model, for engines that lay out weights anew for each session.
//!
//! What two translations compute from the same is one node, whatever it is called: signatures that
//! share a network are one model with the outputs of all. A run computes all of the model, so they are one
//! only where what a signature does not ask for is next to nothing and cannot fail.
//!
//! May not know: any engine. Invariant: each signature's outputs are computed by the nodes of its own
//! translation, and a run for it fails in no other case than one of its own model would.

mod behind;
mod spare;
mod union;

use vesta_model::PartialShape;
use vesta_onnx::Translation;

use self::behind::follow;
use self::union::Union;
use crate::translated::TranslatedSignature;

/// A model for one or more signatures.
pub(crate) struct Network {
    pub(crate) translation: Translation,
    /// What its inputs take.
    shapes: Vec<PartialShape>,
    pub(crate) members: Vec<Member>,
}

/// A signature of a network.
#[derive(Clone)]
pub(crate) struct Member {
    /// The signature's name.
    pub(crate) name: String,
    /// The shapes that it takes, one for each input.
    pub(crate) shapes: Vec<PartialShape>,
    /// A model that comes before the network: its inputs are the signature's, and its only output is what the
    /// network is fed.
    pub(crate) before: Option<Translation>,
    /// The network's inputs, one for each of the signature's, or the one that is fed by what comes before.
    pub(crate) inputs: Vec<String>,
    /// The network's outputs, one for each of the signature's.
    pub(crate) outputs: Vec<String>,
}

/// Networks that another signature is looked for in; beyond it, one has a network for itself.
const TRIED_MAX: usize = 8;

/// Makes as few networks of signatures as may be.
pub(crate) fn unite(signatures: Vec<TranslatedSignature>) -> Vec<Network> {
    let mut networks: Vec<Network> = Vec::new();
    for signature in signatures {
        let tried = || (0..networks.len()).rev().take(TRIED_MAX);
        let joined = |join: fn(&Network, &TranslatedSignature) -> Option<Network>| {
            tried().find_map(|at| Some((at, join(&networks[at], &signature)?)))
        };
        match joined(join).or_else(|| joined(follow)) {
            Some((at, network)) => networks[at] = network,
            None => networks.push(Network::of(signature)),
        }
    }
    networks
}

impl Network {
    /// The network of one signature.
    fn of(signature: TranslatedSignature) -> Network {
        let TranslatedSignature { name, shapes, translation } = signature;
        let (inputs, outputs) = (translation.inputs.clone(), translation.outputs.clone());
        let member = Member { name, shapes: shapes.clone(), before: None, inputs, outputs };
        Network { translation, shapes, members: vec![member] }
    }

    /// The network with what another model computes from `inputs`, values that are there; and the outputs for
    /// that model's.
    fn with(&self, added: &Translation, inputs: &[String]) -> Option<(Translation, Vec<String>)> {
        let mut union = Union::new(&self.translation);
        let outputs = union.add(added, inputs)?;
        let united = union.finish();
        let is_little = |own: &[String]| spare::is_little(&united, own);
        let is_one = is_little(&outputs) && self.members.iter().all(|own| is_little(&own.outputs));
        is_one.then_some((united, outputs))
    }

    /// The same network, changed for one member more.
    fn and(&self, translation: Translation, member: Member) -> Network {
        let mut members = self.members.clone();
        members.push(member);
        Network { translation, shapes: self.shapes.clone(), members }
    }
}

/// A network with another signature in it that is fed alike, if it may be one of it.
fn join(network: &Network, signature: &TranslatedSignature) -> Option<Network> {
    let TranslatedSignature { name, shapes, translation } = signature;
    let inputs = alike_inputs(network, shapes, translation)?;
    let (united, outputs) = network.with(translation, &inputs)?;
    let (name, shapes) = (name.clone(), shapes.clone());
    Some(network.and(united, Member { name, shapes, before: None, inputs, outputs }))
}

/// The network's inputs for those of a signature: of the same names, or in their order; of the same dtypes
/// and shapes.
fn alike_inputs(
    network: &Network,
    shapes: &[PartialShape],
    added: &Translation,
) -> Option<Vec<String>> {
    let held = &network.translation.inputs;
    let is_named_so = added.inputs.iter().all(|name| held.contains(name));
    let inputs = if is_named_so { &added.inputs } else { held };
    let is_alike = |((input, shape), name): ((&String, &PartialShape), &String)| {
        let at = held.iter().position(|own| own == input);
        at.and_then(|at| network.shapes.get(at)) == Some(shape)
            && are_alike(&network.translation, input, added, name)
    };
    let is_each = held.len() == added.inputs.len() && shapes.len() == inputs.len();
    let is_one_model = is_each && inputs.iter().zip(shapes).zip(&added.inputs).all(is_alike);
    is_one_model.then(|| inputs.clone())
}

/// Whether two values have one dtype, and are known to have the same sizes.
fn are_alike(a: &Translation, of_a: &str, b: &Translation, of_b: &str) -> bool {
    let (a, b) = (a.values.get(of_a), b.values.get(of_b));
    a.zip(b).is_some_and(|(a, b)| a.dtype == b.dtype && a.shape == b.shape)
}

#[cfg(test)]
mod tests;
