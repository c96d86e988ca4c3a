//! A model's description on its way from the child to the parent.
//!
//! Owns the mirror of signatures, defaults included. Knows nothing of runs.
//! Invariant: what is rebuilt obeys the vocabulary's invariants (order of aliases, length of
//! defaults), or is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vesta_model::{
    DType, Encoding, ModelDescription, PartialShape, Signature, Status, Tensor, TensorSpec,
};

use crate::wire::{broken, dtype, length, shape, wire_shape};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireDescription {
    signatures: Vec<WireSignature>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct WireSignature {
    /// The name in the table, which need not be the signature's own.
    key: String,
    name: String,
    method: String,
    inputs: Vec<WireSpec>,
    outputs: Vec<WireSpec>,
    stateful: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct WireSpec {
    alias: String,
    encoding: WireEncoding,
    dtype: i32,
    fed_as: Option<i32>,
    is_reference: bool,
    /// `None` for an unknown rank.
    shape: Option<Vec<Option<u64>>>,
    default: Option<WireTensor>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum WireEncoding {
    Dense(String),
    CooSparse { values: String, indices: String, dense_shape: String },
    Composite,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct WireTensor {
    dtype: i32,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl WireDescription {
    pub(crate) fn of(description: &ModelDescription) -> WireDescription {
        let signatures = description
            .signatures
            .iter()
            .map(|(key, signature)| WireSignature {
                key: key.clone(),
                name: signature.name.clone(),
                method: signature.method.clone(),
                inputs: signature.inputs.iter().map(WireSpec::of).collect(),
                outputs: signature.outputs.iter().map(WireSpec::of).collect(),
                stateful: signature.stateful,
            })
            .collect();
        WireDescription { signatures }
    }

    pub(crate) fn description(self) -> Result<ModelDescription, Status> {
        let mut signatures = BTreeMap::new();
        for wire in self.signatures {
            let key = wire.key.clone();
            if signatures.insert(key, Arc::new(wire.signature()?)).is_some() {
                return Err(broken("a description names a signature twice"));
            }
        }
        Ok(ModelDescription { signatures })
    }
}

impl WireSignature {
    fn signature(self) -> Result<Signature, Status> {
        let specs = |wire: Vec<WireSpec>| -> Result<Vec<TensorSpec>, Status> {
            wire.into_iter().map(WireSpec::spec).collect()
        };
        let mut signature =
            Signature::new(&self.name, &self.method, specs(self.inputs)?, specs(self.outputs)?);
        signature.stateful = self.stateful;
        Ok(signature)
    }
}

impl WireSpec {
    fn of(spec: &TensorSpec) -> WireSpec {
        let encoding = match &spec.encoding {
            Encoding::Dense(name) => WireEncoding::Dense(name.clone()),
            Encoding::CooSparse { values, indices, dense_shape } => WireEncoding::CooSparse {
                values: values.clone(),
                indices: indices.clone(),
                dense_shape: dense_shape.clone(),
            },
            Encoding::Composite => WireEncoding::Composite,
        };
        let shape = match &spec.shape {
            PartialShape::Unknown => None,
            PartialShape::Ranked(dims) => {
                Some(dims.iter().map(|dim| dim.map(|dim| dim as u64)).collect())
            }
        };
        WireSpec {
            alias: spec.alias.clone(),
            encoding,
            dtype: spec.dtype.number(),
            fed_as: spec.fed_as.map(DType::number),
            is_reference: spec.is_reference,
            shape,
            default: spec.default.as_ref().map(|tensor| WireTensor {
                dtype: tensor.dtype().number(),
                shape: wire_shape(tensor.shape()),
                bytes: tensor.bytes().to_vec(),
            }),
        }
    }

    fn spec(self) -> Result<TensorSpec, Status> {
        let encoding = match self.encoding {
            WireEncoding::Dense(name) => Encoding::Dense(name),
            WireEncoding::CooSparse { values, indices, dense_shape } => {
                Encoding::CooSparse { values, indices, dense_shape }
            }
            WireEncoding::Composite => Encoding::Composite,
        };
        let declared = match self.shape {
            None => PartialShape::Unknown,
            Some(dims) => PartialShape::Ranked(
                dims.into_iter()
                    .map(|dim| dim.map(length).transpose())
                    .collect::<Result<_, _>>()?,
            ),
        };
        let default = self
            .default
            .map(|wire| Tensor::copied(dtype(wire.dtype)?, shape(&wire.shape)?, &wire.bytes))
            .transpose()?;
        Ok(TensorSpec {
            alias: self.alias,
            encoding,
            dtype: dtype(self.dtype)?,
            fed_as: self.fed_as.map(dtype).transpose()?,
            is_reference: self.is_reference,
            shape: declared,
            default,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::{Shape, StringsBuilder};

    fn described() -> ModelDescription {
        let mut strings = StringsBuilder::new();
        strings.push(b"by default");
        let mut text = TensorSpec::dense("text", DType::String);
        text.default = Some(Tensor::of_strings(Shape::vector(1), &strings).unwrap());
        text.fed_as = Some(DType::F32);
        let mut sparse = TensorSpec::dense("s", DType::I64)
            .with_shape(PartialShape::Ranked(vec![None, Some(3)]));
        sparse.encoding = Encoding::CooSparse {
            values: "v:0".to_owned(),
            indices: "i:0".to_owned(),
            dense_shape: "d:0".to_owned(),
        };
        let mut odd = TensorSpec::dense("odd", DType::Variant);
        odd.encoding = Encoding::Composite;
        odd.is_reference = true;
        let mut signature = Signature::new("own", "predict", vec![text, sparse], vec![odd]);
        signature.stateful = true;
        let signatures = BTreeMap::from([("key".to_owned(), Arc::new(signature))]);
        ModelDescription { signatures }
    }

    #[test]
    fn descriptions_round_trip() {
        let description = described();
        let body = crate::wire::encode(&WireDescription::of(&description)).unwrap();
        let back: WireDescription = crate::wire::decode(&body).unwrap();
        assert_eq!(back.description().unwrap(), description);
    }

    #[test]
    fn what_breaks_an_invariant_is_refused() {
        let good = WireDescription::of(&described());
        let mut twice = good.clone();
        twice.signatures.push(good.signatures[0].clone());
        assert!(twice.description().is_err());
        let mut no_dtype = good.clone();
        no_dtype.signatures[0].inputs[0].dtype = 1000;
        assert!(no_dtype.description().is_err());
        let mut short = good;
        if let Some(tensor) = &mut short.signatures[0].inputs[1].default {
            tensor.bytes.truncate(3);
        }
        assert!(short.description().is_err());
    }
}
