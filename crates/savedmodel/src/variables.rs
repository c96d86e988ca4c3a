//! Where each variable's value comes from: the model's restore operator, then its initialisation.
//!
//! Both are flattened and searched for assignments, so that TF1's `Assign` of `RestoreV2` outputs
//! and TF2's restore function are one case. Invariant: a value is used only when it is certain;
//! else the variable is named in an error.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::OnceLock;

use vesta_model::{Code, DType, Status, Tensor};
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{MetaGraphDef, TensorProto, collection_def::Kind, tensor_info};

use crate::bundle::Bundle;
use crate::effects::{self, Effect, known_effect};
use crate::flat::{Flat, FlatNode, Source};
use crate::flatten::{Request, flatten};
use crate::graph::Program;
use crate::object_graph;
use crate::signature::{INIT_NAMES, partial_shape};
use crate::tensor::{shape_from_proto, tensor_from_proto};

/// The most bytes of the names that one restore operator lists.
const NAMES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a variable holds once the model is loaded.
#[derive(Clone, Debug)]
enum Origin {
    /// A tensor of the bundle, or the part of it that `slice` names.
    Stored { tensor: String, slice: String },
    /// This value.
    Given(Box<TensorProto>),
    /// Something that cannot be told without running the graph.
    Untold(String),
}

/// The origins of all variables of a meta graph.
#[derive(Debug)]
pub(crate) struct Origins {
    by_name: HashMap<String, Origin>,
    /// Why no variable can be told.
    spoiled: Option<String>,
    by_object: OnceLock<HashMap<String, String>>,
}

/// What the graph says of a variable.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) dtype: Option<DType>,
    pub(crate) shape: vesta_model::PartialShape,
}

impl Origins {
    /// Searches the restore and initialisation operators of `meta`, whose files lie in `dir`.
    ///
    /// # Errors
    /// As [`flatten`], for those operators.
    pub(crate) fn find(
        program: &Program<'_>,
        meta: &MetaGraphDef,
        dir: &Path,
    ) -> Result<Origins, Status> {
        let mut origins =
            Origins { by_name: HashMap::new(), spoiled: None, by_object: OnceLock::new() };
        let restore = meta.saver_def.as_ref().map_or("", |saver| &saver.restore_op_name);
        if !restore.is_empty() {
            let targets = [restore];
            let flat = flatten(program, Request { targets: &targets, ..Request::default() })
                .map_err(|error| error.prefixed("restore operator: "))?;
            origins.add_restored(&flat);
        }
        if let Some(init) = init_operator(meta) {
            let targets = [init];
            let flat = flatten(program, Request { targets: &targets, ..Request::default() })
                .map_err(|error| error.prefixed("initialisation operator: "))?;
            origins.add_initialised(program, &flat, &assets(meta, dir));
        }
        Ok(origins)
    }

    fn add_restored(&mut self, flat: &Flat<'_>) {
        let mut lists: HashMap<u32, Option<Vec<(String, String)>>> = HashMap::new();
        for node in &flat.nodes {
            let (Some(name), Some(&value)) = (assigned(flat, node), node.inputs.get(1)) else {
                continue;
            };
            let origin = match flat.follow(value, |op| op == "Identity") {
                Some(Source::Node { node: from, output }) => {
                    let restore = &flat.nodes[from as usize];
                    let list =
                        lists.entry(from).or_insert_with(|| restored_names(flat, &restore.inputs));
                    match list.as_ref().and_then(|list| list.get(output as usize)) {
                        Some((tensor, slice)) if restore.def.op == "RestoreV2" => {
                            Origin::Stored { tensor: tensor.clone(), slice: slice.clone() }
                        }
                        _ => Origin::Untold(format!(
                            "it is restored through operator {}",
                            restore.def.op
                        )),
                    }
                }
                _ => Origin::Untold("its restore leads nowhere".to_owned()),
            };
            self.by_name.insert(name.to_owned(), origin);
        }
    }

    fn add_initialised(
        &mut self,
        program: &Program<'_>,
        flat: &Flat<'_>,
        assets: &BTreeMap<String, TensorProto>,
    ) {
        if effects::of(program, flat).writes_unknown {
            self.spoiled = Some(
                "the model's initialisation operator may change any variable, so their values \
                 cannot be told"
                    .to_owned(),
            );
        }
        for node in &flat.nodes {
            let op = node.def.op.as_str();
            let Some(&handle) = node.inputs.first() else { continue };
            if !matches!(known_effect(op), Some(Effect::Writes(_))) {
                continue;
            }
            let Some(name) = flat.state_behind(handle) else { continue };
            let source = assigned(flat, node)
                .and_then(|_| flat.follow(*node.inputs.get(1)?, |op| op == "Identity"));
            let value = source.and_then(|source| given(flat, source, assets));
            // Two assignments, whose order is not looked at, cancel each other out.
            let twice = matches!(self.by_name.get(name), Some(Origin::Given(_)));
            let origin = match value.filter(|_| !twice) {
                Some(value) => Origin::Given(Box::new(value)),
                None => {
                    let by = match source {
                        Some(Source::Node { node, .. }) => &flat.nodes[node as usize].def.op,
                        _ => op,
                    };
                    Origin::Untold(format!(
                        "the model's initialisation sets it to what operator {by} gives, which is \
                         not known before it runs"
                    ))
                }
            };
            self.by_name.insert(name.to_owned(), origin);
        }
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for a variable without a value that can be told, `DATA_LOSS` for a
    /// damaged one or one that does not fit its declaration.
    pub(crate) fn value(
        &self,
        declared: &Declared,
        meta: &MetaGraphDef,
        bundle: Option<&Bundle>,
    ) -> Result<TensorProto, Status> {
        let name = declared.name.as_str();
        if let Some(reason) = &self.spoiled {
            return Err(Status::failed_precondition(reason.clone()));
        }
        let tensor = match self.by_name.get(name) {
            Some(Origin::Given(value)) => (**value).clone(),
            Some(Origin::Untold(why)) => return Err(untold(name, why)),
            Some(Origin::Stored { tensor, slice }) => stored(name, tensor, slice, bundle)?,
            None => {
                let keys = self.by_object.get_or_init(|| {
                    bundle.map_or_else(HashMap::new, |bundle| {
                        object_graph::keys(meta.object_graph_def.as_ref(), bundle)
                    })
                });
                let key = keys.get(name).ok_or_else(|| {
                    untold(name, "neither the model's restore nor its initialisation sets it")
                })?;
                stored(name, key, "", bundle)?
            }
        };
        check(declared, &tensor)?;
        Ok(tensor)
    }
}

fn stored(
    name: &str,
    tensor: &str,
    slice: &str,
    bundle: Option<&Bundle>,
) -> Result<TensorProto, Status> {
    let bundle =
        bundle.ok_or_else(|| untold(name, "the model has no file variables/variables.index"))?;
    bundle.tensor(tensor, slice).map_err(|error| match error.code() {
        Code::NotFound if !error.message().contains("; ") => {
            untold(name, &format!("the checkpoint has no tensor `{tensor}`"))
        }
        _ => error,
    })
}

fn untold(name: &str, why: &str) -> Status {
    Status::failed_precondition(format!("variable `{name}` has no value: {why}"))
}

fn check(declared: &Declared, tensor: &TensorProto) -> Result<(), Status> {
    let shape = shape_from_proto(tensor.tensor_shape.as_ref())?;
    let dtype = DType::from_number(tensor.dtype).unwrap_or(DType::Invalid);
    if declared.dtype.is_some_and(|want| want != dtype) || !declared.shape.accepts(&shape) {
        return Err(Status::data_loss(format!(
            "variable `{}` is declared {} {:?}, but its value is {dtype} {shape}",
            declared.name,
            declared.dtype.unwrap_or(DType::Invalid),
            declared.shape
        )));
    }
    Ok(())
}

/// What a variable's node declares of it.
pub(crate) fn declared(flat: &Flat<'_>, node: u32) -> Option<Declared> {
    let attr = |key| flat.attr(node, key).and_then(|value| value.value.as_ref());
    let dtype = match attr("dtype") {
        Some(Value::Type(number)) => DType::from_number(*number),
        _ => None,
    };
    let shape = match attr("shape") {
        Some(Value::Shape(shape)) => partial_shape(Some(shape)),
        _ => vesta_model::PartialShape::Unknown,
    };
    Some(Declared { name: flat.state_name(node)?.to_owned(), dtype, shape })
}

/// The variable that a plain assignment sets.
fn assigned<'f>(flat: &'f Flat<'_>, node: &FlatNode<'_>) -> Option<&'f str> {
    let is_assignment = matches!(node.def.op.as_str(), "Assign" | "AssignVariableOp");
    flat.state_behind(*node.inputs.first().filter(|_| is_assignment)?)
}

/// Names and slices that a restore operator reads, by output.
fn restored_names(flat: &Flat<'_>, inputs: &[Source]) -> Option<Vec<(String, String)>> {
    let strings = |input: usize| -> Option<Vec<String>> {
        let proto = constant(flat, *inputs.get(input)?)?;
        let tensor: Tensor = tensor_from_proto(proto, NAMES_BYTES_MAX).ok()?;
        tensor
            .strings()?
            .iter()
            .map(|text| String::from_utf8(text.to_vec()).ok())
            .collect::<Option<Vec<_>>>()
    };
    let names = strings(1)?;
    let slices = strings(2)?;
    (names.len() == slices.len()).then(|| names.into_iter().zip(slices).collect())
}

/// The tensor of a constant, followed through nodes that pass it on.
fn constant<'f>(flat: &'f Flat<'_>, source: Source) -> Option<&'f TensorProto> {
    let Source::Node { node, .. } = flat.follow(source, |op| op == "Identity")? else {
        return None;
    };
    match (flat.nodes[node as usize].def.op.as_str(), &flat.attr(node, "value")?.value) {
        ("Const", Some(Value::Tensor(tensor))) => Some(tensor),
        _ => None,
    }
}

/// The value that an initialisation assigns: the path of an asset, or a constant.
fn given(
    flat: &Flat<'_>,
    source: Source,
    assets: &BTreeMap<String, TensorProto>,
) -> Option<TensorProto> {
    if let Source::Node { node, output } = source
        && flat.is_in_main(node)
        && let Some(path) = assets.get(&format!("{}:{output}", flat.name(node)))
    {
        return Some(path.clone());
    }
    constant(flat, source).cloned()
}

/// The operator that is run once after variables are restored.
fn init_operator(meta: &MetaGraphDef) -> Option<&str> {
    let signature = meta.signature_def.get(INIT_NAMES[0]);
    if let Some(info) = signature.and_then(|signature| signature.outputs.get(INIT_NAMES[0]))
        && let Some(tensor_info::Encoding::Name(name)) = &info.encoding
    {
        return Some(name);
    }
    ["saved_model_main_op", "legacy_init_op"].into_iter().find_map(|key| {
        match &meta.collection_def.get(key)?.kind {
            Some(Kind::NodeList(list)) => list.value.first().map(String::as_str),
            _ => None,
        }
    })
}

/// The path of each asset, as TensorFlow feeds it to the initialisation, by the tensor it is fed to.
fn assets(meta: &MetaGraphDef, dir: &Path) -> BTreeMap<String, TensorProto> {
    let asset = |file: &vesta_protos::tensorflow::AssetFileDef| {
        let name = match &file.tensor_info.as_ref()?.encoding {
            Some(tensor_info::Encoding::Name(name)) => name,
            _ => return None,
        };
        let path = dir.join("assets").join(&file.filename);
        let proto = TensorProto {
            dtype: DType::String.number(),
            tensor_shape: Some(crate::tensor::shape_to_proto(&[])),
            string_val: vec![path.into_os_string().into_encoded_bytes().into()],
            ..TensorProto::default()
        };
        let (node, output) = crate::graph::split_tensor_name(name);
        Some((format!("{node}:{output}"), proto))
    };
    meta.asset_file_def.iter().filter_map(asset).collect()
}
