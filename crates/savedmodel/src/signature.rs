//! Signatures: from the messages of a meta graph to the vocabulary, and the tensor names in them.
//!
//! Knows no graph. Invariant: nothing that a metadata answer shows is lost.

use vesta_model::{DType, Encoding, PartialShape, Signature, Status, TensorSpec};
use vesta_protos::tensorflow::{SignatureDef, TensorInfo, TensorShapeProto, tensor_info};

use crate::tensor::tensor_from_proto;

/// Signatures under these names run an operator once after loading; requests do not name them.
pub(crate) const INIT_NAMES: [&str; 2] = ["__saved_model_init_op", "__saved_model_train_op"];
/// The most bytes of one default value.
const DEFAULT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The signature `name` as `def` declares it.
///
/// # Errors
/// `INVALID_ARGUMENT` when a default value cannot be read.
pub fn from_def(name: &str, def: &SignatureDef) -> Result<Signature, Status> {
    let specs = |infos: &std::collections::BTreeMap<String, TensorInfo>| {
        infos.iter().map(|(alias, info)| spec(alias, info)).collect::<Vec<_>>()
    };
    let mut inputs = specs(&def.inputs);
    for input in &mut inputs {
        if let Some(proto) = def.defaults.get(&input.alias) {
            let default = tensor_from_proto(proto, DEFAULT_BYTES_MAX).map_err(|error| {
                error.prefixed(&format!("default of input {} of signature {name}: ", input.alias))
            })?;
            input.default = Some(default);
        }
    }
    Ok(Signature::new(name, &def.method_name, inputs, specs(&def.outputs)))
}

fn spec(alias: &str, info: &TensorInfo) -> TensorSpec {
    let is_reference = info.dtype > DType::REFERENCE_OFFSET;
    let number = if is_reference { info.dtype - DType::REFERENCE_OFFSET } else { info.dtype };
    let encoding = match &info.encoding {
        Some(tensor_info::Encoding::Name(name)) => Encoding::Dense(name.clone()),
        Some(tensor_info::Encoding::CooSparse(sparse)) => Encoding::CooSparse {
            values: sparse.values_tensor_name.clone(),
            indices: sparse.indices_tensor_name.clone(),
            dense_shape: sparse.dense_shape_tensor_name.clone(),
        },
        Some(tensor_info::Encoding::CompositeTensor(_)) => Encoding::Composite,
        None => Encoding::Dense(String::new()),
    };
    TensorSpec {
        alias: alias.to_owned(),
        encoding,
        dtype: DType::from_number(number).unwrap_or(DType::Invalid),
        fed_as: None,
        is_reference,
        shape: partial_shape(info.tensor_shape.as_ref()),
        default: None,
    }
}

/// A declared shape; negative sizes are unknown ones, and no shape at all is a scalar's.
pub(crate) fn partial_shape(proto: Option<&TensorShapeProto>) -> PartialShape {
    match proto {
        Some(proto) if proto.unknown_rank => PartialShape::Unknown,
        Some(proto) => PartialShape::Ranked(
            proto.dim.iter().map(|dim| usize::try_from(dim.size).ok()).collect(),
        ),
        None => PartialShape::Ranked(Vec::new()),
    }
}

/// The names in the graph that a signature stands for.
#[derive(Debug)]
pub(crate) struct TensorNames<'s> {
    pub(crate) feeds: Vec<&'s str>,
    pub(crate) fetches: Vec<&'s str>,
    /// Operators that outputs without a dtype name, to be run for their effect.
    pub(crate) targets: Vec<&'s str>,
}

/// The names of all tensors of a signature, those of sparse ones taken apart.
pub(crate) fn tensor_names(signature: &Signature) -> TensorNames<'_> {
    let (targets, outputs): (Vec<&TensorSpec>, _) =
        signature.outputs.iter().partition(|output| output.dtype == DType::Invalid);
    // Without a name there is nothing to look up; such a signature fails when it is frozen.
    let mut feeds = Vec::new();
    signature.inputs.iter().for_each(|spec| push_names(spec, &mut feeds));
    let mut fetches = Vec::new();
    outputs.into_iter().for_each(|spec| push_names(spec, &mut fetches));
    let mut ran = Vec::new();
    targets.into_iter().for_each(|spec| push_names(spec, &mut ran));
    TensorNames { feeds, fetches, targets: ran }
}

fn push_names<'s>(spec: &'s TensorSpec, names: &mut Vec<&'s str>) {
    match &spec.encoding {
        Encoding::Dense(name) => names.push(name),
        Encoding::CooSparse { values, indices, dense_shape } => {
            names.extend([values.as_str(), indices.as_str(), dense_shape.as_str()]);
        }
        Encoding::Composite => {}
    }
}

/// The one dense tensor of a spec.
///
/// # Errors
/// `UNIMPLEMENTED` for sparse and composite ones, `INVALID_ARGUMENT` for one without a name.
pub(crate) fn dense_name<'s>(signature: &str, spec: &'s TensorSpec) -> Result<&'s str, Status> {
    let kind = match &spec.encoding {
        Encoding::Dense(name) if name.is_empty() => {
            return Err(Status::invalid_argument(format!(
                "signature {signature} names no tensor for `{}`",
                spec.alias
            )));
        }
        Encoding::Dense(name) => return Ok(name),
        Encoding::CooSparse { .. } => "a sparse",
        Encoding::Composite => "a composite",
    };
    Err(Status::unimplemented(format!(
        "`{}` of signature {signature} is {kind} tensor, which cannot be frozen; give the model a \
         signature of dense tensors",
        spec.alias
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::tensorflow::TensorProto;
    use vesta_protos::tensorflow::tensor_shape_proto::Dim;

    fn info(name: &str, dtype: i32) -> TensorInfo {
        TensorInfo {
            encoding: Some(tensor_info::Encoding::Name(name.to_owned())),
            dtype,
            tensor_shape: Some(TensorShapeProto {
                dim: vec![
                    Dim { size: -1, name: String::new() },
                    Dim { size: 3, name: String::new() },
                ],
                unknown_rank: false,
            }),
        }
    }

    #[test]
    fn references_defaults_and_operators_are_told() {
        let mut def = SignatureDef { method_name: "m".to_owned(), ..SignatureDef::default() };
        def.inputs.insert("x".to_owned(), info("in:0", 1));
        def.outputs.insert("r".to_owned(), info("v:0", 101));
        def.outputs.insert("op".to_owned(), info("NoOp", 0));
        def.defaults.insert(
            "x".to_owned(),
            TensorProto { dtype: 1, float_val: vec![2.0], ..TensorProto::default() },
        );
        let signature = from_def("s", &def).unwrap();
        let x = &signature.inputs[0];
        assert_eq!(x.shape, PartialShape::Ranked(vec![None, Some(3)]));
        assert_eq!(x.default.as_ref().unwrap().to_vec::<f32>(), Some(vec![2.0]));
        let r = &signature.outputs[signature.output("r").unwrap()];
        assert!(r.is_reference && r.dtype == DType::F32);
        let names = tensor_names(&signature);
        assert_eq!((names.feeds, names.fetches), (vec!["in:0"], vec!["v:0"]));
        assert_eq!(names.targets, ["NoOp"]);
    }

    #[test]
    fn an_impossible_default_is_named() {
        let mut def = SignatureDef::default();
        def.inputs.insert("x".to_owned(), info("in:0", 1));
        def.defaults.insert("x".to_owned(), TensorProto::default());
        let error = from_def("s", &def).unwrap_err();
        assert!(error.message().starts_with("default of input x of signature s: "), "{error}");
    }
}
