//! A predict request from JSON.
//!
//! Owns: which members hold the inputs and in which form, and the original's words for what is
//! wrong with them. A request is *row* (`instances`, one element per row of the batch) or
//! *columnar* (`inputs`, whole tensors).

use vesta_model::{Signature, Tensor, TensorSpec};

use super::cursor::Cursor;
use super::examine::{Extent, check_rank, examine};
use super::scan::{Document, Kind, Value, skip_value};
use super::tensor::{Builder, Halt};
use super::{Refusal, open};
use crate::budget::Permit;

/// The form of a request, which its answer takes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Row,
    Columnar,
}

const SIGNATURE: usize = 0;
const INSTANCES: usize = 1;
const INPUTS: usize = 2;

/// A well-formed request whose inputs are not read yet, since they depend on the signature.
#[derive(Debug)]
pub(crate) struct PredictRequest<'a> {
    document: Document<'a, 3>,
    signature: Vec<u8>,
}

/// The inputs of a request by their position in the signature; `None` for those it leaves out.
#[derive(Debug)]
pub(crate) struct PredictInputs {
    pub(crate) form: Form,
    pub(crate) tensors: Vec<Option<Tensor>>,
}

impl<'a> PredictRequest<'a> {
    /// Checks that `json` is a request.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is not JSON, no object, or its signature's name is no string.
    pub(crate) fn parse(json: &'a [u8]) -> Result<PredictRequest<'a>, Refusal> {
        let (document, signature) =
            open(json, ["signature_name", "instances", "inputs"], SIGNATURE)?;
        Ok(PredictRequest { document, signature })
    }

    /// The name of the signature as the request says it; may be empty and need not be UTF-8.
    pub(crate) fn signature_name(&self) -> &[u8] {
        &self.signature
    }

    /// Reads the inputs; `permit` grows by their bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` and `UNIMPLEMENTED` with the original's words; `RESOURCE_EXHAUSTED` when
    /// the bytes are not to be had.
    pub(crate) fn inputs(
        &self,
        signature: &Signature,
        permit: &mut Permit,
    ) -> Result<PredictInputs, Refusal> {
        if signature.inputs.is_empty() {
            let name: &[u8] = if self.signature.is_empty() { b"DEFAULT" } else { &self.signature };
            let before = b"Failed to get input map for signature: ".as_slice();
            return Err(Refusal::invalid([before, name].concat()));
        }
        let refuse = |after| Err(Refusal::quoting("JSON Value: ", self.document.root, after));
        match (self.document.members[INSTANCES], self.document.members[INPUTS]) {
            (Some(_), Some(_)) => refuse(
                " Not formatted correctly expecting only one of 'inputs' or 'instances' keys to \
                 exist ",
            ),
            (Some(list), None) if list.kind() != Kind::Array => {
                refuse(" Expecting 'instances' to be an list/array")
            }
            (Some(list), None) if list.is_empty_array() => {
                refuse(" No values in 'instances' array")
            }
            (Some(list), None) => Ok(PredictInputs {
                form: Form::Row,
                tensors: rows(list, &signature.inputs, permit)?,
            }),
            (None, Some(value)) => Ok(PredictInputs {
                form: Form::Columnar,
                tensors: columns(value, &signature.inputs, permit)?,
            }),
            (None, None) => Err(Refusal::invalid("Missing 'inputs' or 'instances' key")),
        }
    }
}

/// Reads a request in one pass, on the guess that it is right, means `signature` and holds plain
/// values for its only input; most large requests are so. `None` when the guess fails, whatever the
/// reason: then [`PredictRequest`] finds out.
pub(crate) fn read_at_once(
    json: &[u8],
    signature: &Signature,
    permit: &mut Permit,
) -> Option<PredictInputs> {
    let [spec] = &signature.inputs[..] else { return None };
    let held = permit.bytes();
    let read = read_members(json, &signature.name, spec, permit);
    if read.is_none() {
        permit.shrink(permit.bytes() - held);
    }
    let (form, tensor) = read?;
    Some(PredictInputs { form, tensors: vec![Some(tensor)] })
}

fn read_members(
    json: &[u8],
    signature: &str,
    spec: &TensorSpec,
    permit: &mut Permit,
) -> Option<(Form, Tensor)> {
    let mut cursor = Cursor::new(json);
    let mut found = None;
    cursor.skip_space();
    if !cursor.eat(b'{') {
        return None;
    }
    loop {
        cursor.skip_space();
        let name = if cursor.peek() == b'"' { cursor.string().ok()? } else { return None };
        cursor.skip_space();
        if !cursor.eat(b':') {
            return None;
        }
        cursor.skip_space();
        let form = match name.raw {
            b"instances" => Some(Form::Row),
            b"inputs" => Some(Form::Columnar),
            _ => None,
        };
        if let Some(form) = form {
            // An empty list of rows is a fault, and objects have rules of their own.
            if found.is_some() || cursor.peek() != b'[' {
                return None;
            }
            let mut builder = Builder::new(spec.dtype, permit);
            let sizes = builder.push_next(&mut cursor).ok()?;
            if form == Form::Row && sizes.first() == Some(&0) {
                return None;
            }
            found = Some((form, builder.finish(sizes).ok()?));
        } else if name.raw == b"signature_name" {
            let text = if cursor.peek() == b'"' { cursor.string().ok()? } else { return None };
            if text.raw != signature.as_bytes() {
                return None;
            }
        } else if name.escaped {
            return None;
        } else {
            skip_value(&mut cursor).ok()?;
        }
        cursor.skip_space();
        if cursor.eat(b'}') {
            return found;
        }
        if !cursor.eat(b',') {
            return None;
        }
    }
}

/// Whether a value names inputs rather than being one.
fn names_inputs(value: &Value<'_>) -> bool {
    value.kind() == Kind::Object && value.as_base64().is_none()
}

fn columns(
    value: Value<'_>,
    specs: &[TensorSpec],
    permit: &mut Permit,
) -> Result<Vec<Option<Tensor>>, Refusal> {
    if names_inputs(&value) {
        let found = find_members(value, specs);
        return found
            .into_iter()
            .zip(specs)
            .map(|(value, spec)| match value {
                Some(value) => column(value, spec, permit).map(Some),
                None => Err(Refusal::invalid(format!(
                    "Missing named input: {} in 'inputs' object.",
                    spec.alias
                ))),
            })
            .collect();
    }
    match specs {
        [spec] => Ok(vec![Some(column(value, spec, permit)?)]),
        _ => Err(Refusal::invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors \
             required as per tensorinfo_map",
        )),
    }
}

/// The first member of each input's name.
fn find_members<'a>(value: Value<'a>, specs: &[TensorSpec]) -> Vec<Option<Value<'a>>> {
    let mut found = vec![None; specs.len()];
    for (name, member) in value.members() {
        let name = name.unescaped();
        if let Some(i) = specs.iter().position(|spec| spec.alias.as_bytes() == &*name) {
            found[i].get_or_insert(member);
        }
    }
    found
}

fn column(value: Value<'_>, spec: &TensorSpec, permit: &mut Permit) -> Result<Tensor, Refusal> {
    let mut builder = Builder::new(spec.dtype, permit);
    match builder.push(value) {
        Ok(sizes) => Ok(builder.finish(sizes)?),
        Err(Halt::Refused(status)) => Err(status.into()),
        Err(Halt::Wrong) => {
            let extent = examine(value, spec.dtype)?;
            check_rank(extent.sizes.len(), &spec.alias)?;
            Err(unreadable())
        }
    }
}

/// For a value that neither made a tensor nor had a fault; there is none.
fn unreadable() -> Refusal {
    Refusal::invalid("the inputs cannot be read as tensors of the signature's dtypes")
}

fn rows(
    list: Value<'_>,
    specs: &[TensorSpec],
    permit: &mut Permit,
) -> Result<Vec<Option<Tensor>>, Refusal> {
    let Some(first) = list.first_open() else { return Err(unreadable()) };
    let read = if names_inputs(&first) {
        named_rows(list, specs, permit)
    } else if first.kind() == Kind::Object || specs.len() == 1 {
        plain_rows(list, specs, permit)
    } else {
        return Err(Refusal::invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors \
             required as per tensorinfo_map",
        ));
    };
    match read {
        Ok(tensors) => Ok(tensors),
        Err(Halt::Refused(status)) => Err(status.into()),
        Err(Halt::Wrong) => {
            examine_rows(list, specs, names_inputs(&first))?;
            Err(unreadable())
        }
    }
}

/// Rows that are plain values are, all together, the value of one tensor.
fn plain_rows(
    list: Value<'_>,
    specs: &[TensorSpec],
    permit: &mut Permit,
) -> Result<Vec<Option<Tensor>>, Halt> {
    let mut tensors = vec![None; specs.len()];
    let mut builder = Builder::new(specs[0].dtype, permit);
    let sizes = builder.push(list)?;
    tensors[0] = Some(builder.finish(sizes).map_err(Halt::Refused)?);
    Ok(tensors)
}

/// Rows that are objects with a value for every input.
fn named_rows(
    list: Value<'_>,
    specs: &[TensorSpec],
    permit: &mut Permit,
) -> Result<Vec<Option<Tensor>>, Halt> {
    let mut columns: Vec<Vec<Value<'_>>> = vec![Vec::new(); specs.len()];
    let mut rows = 0;
    for row in list.elements() {
        if !names_inputs(&row) {
            return Err(Halt::Wrong);
        }
        rows += 1;
        for (name, value) in row.members() {
            let name = name.unescaped();
            let at = specs.iter().position(|spec| spec.alias.as_bytes() == &*name);
            let column = &mut columns[at.ok_or(Halt::Wrong)?];
            // The first of equal names counts.
            if column.len() < rows {
                permit.grow(size_of::<Value<'_>>()).map_err(Halt::Refused)?;
                column.push(value);
            }
        }
        if columns.iter().any(|column| column.len() != rows) {
            return Err(Halt::Wrong);
        }
    }
    let mut tensors = Vec::with_capacity(specs.len());
    for (spec, column) in specs.iter().zip(columns) {
        let mut builder = Builder::new(spec.dtype, permit);
        let mut shape: Option<Vec<usize>> = None;
        for value in column {
            let sizes = builder.push(value)?;
            if *shape.get_or_insert_with(|| sizes.clone()) != sizes {
                return Err(Halt::Wrong);
            }
        }
        let mut sizes = vec![rows];
        sizes.extend(shape.unwrap_or_default());
        tensors.push(Some(builder.finish(sizes).map_err(Halt::Refused)?));
    }
    Ok(tensors)
}

/// Finds what is wrong with rows, in the order in which the original looks at them.
fn examine_rows(list: Value<'_>, specs: &[TensorSpec], named: bool) -> Result<(), Refusal> {
    let mut extents: Vec<Option<Extent>> = vec![None; specs.len()];
    for (i, row) in list.elements().enumerate() {
        if named {
            if !names_inputs(&row) {
                return Err(Refusal::invalid(format!(
                    "Expecting object but got list at item {i} of input list"
                )));
            }
            examine_named_row(i, row, specs, &mut extents)?;
        } else {
            if names_inputs(&row) {
                return Err(Refusal::invalid(format!(
                    "Expecting value/list but got object at item {i} of input list"
                )));
            }
            examine_item(row, &specs[0], &mut extents[0]).map_err(|inner| {
                wrapped(&format!("Failed to process element: {i} of 'instances' list."), &inner)
            })?;
        }
    }
    for (spec, extent) in specs.iter().zip(extents) {
        // The batch adds a dimension.
        check_rank(extent.map_or(0, |extent| extent.sizes.len() + 1), &spec.alias)?;
    }
    Ok(())
}

fn examine_named_row(
    i: usize,
    row: Value<'_>,
    specs: &[TensorSpec],
    extents: &mut [Option<Extent>],
) -> Result<(), Refusal> {
    let mut seen = vec![false; specs.len()];
    for (name, value) in row.members() {
        let name = name.unescaped();
        let at = specs.iter().position(|spec| spec.alias.as_bytes() == &*name);
        let result = match at {
            Some(at) if seen[at] => Ok(()),
            Some(at) => {
                seen[at] = true;
                examine_item(value, &specs[at], &mut extents[at])
            }
            None => {
                let before = b"JSON object: does not have named input: ".as_slice();
                Err(Refusal::invalid([before, &*name].concat()))
            }
        };
        result.map_err(|inner| {
            let before = format!("Failed to process element: {i} key: ");
            let before = [before.as_bytes(), &*name, b" of 'instances' list."].concat();
            wrapped_bytes(before, &inner)
        })?;
    }
    if seen.contains(&false) {
        let names: Vec<&str> = specs.iter().map(|spec| spec.alias.as_str()).collect();
        return Err(Refusal::quoting(
            &format!("Failed to process element: {i} of 'instances' list. JSON object: "),
            row,
            &format!(" keys must be equal to: {}", names.join(",")),
        ));
    }
    Ok(())
}

/// Looks at one row's value of one input, which must be like those of the rows before.
fn examine_item(
    value: Value<'_>,
    spec: &TensorSpec,
    first: &mut Option<Extent>,
) -> Result<(), Refusal> {
    let extent = examine(value, spec.dtype)?;
    let first = first.get_or_insert_with(|| extent.clone());
    if first.count != extent.count {
        return Err(Refusal::invalid(format!(
            "Expecting tensor size: {} but got: {}",
            first.count, extent.count
        )));
    }
    if first.sizes != extent.sizes {
        return Err(Refusal::invalid(format!(
            "Expecting shape {} but got: {}",
            sizes_text(&first.sizes),
            sizes_text(&extent.sizes)
        )));
    }
    Ok(())
}

fn sizes_text(sizes: &[usize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    format!("[{}]", sizes.join(","))
}

/// The error of a row: always `INVALID_ARGUMENT`, whatever is inside.
fn wrapped(before: &str, inner: &Refusal) -> Refusal {
    wrapped_bytes(before.as_bytes().to_vec(), inner)
}

fn wrapped_bytes(mut message: Vec<u8>, inner: &Refusal) -> Refusal {
    message.extend_from_slice(format!(" Error: {}: ", inner.code.name()).as_bytes());
    message.extend_from_slice(&inner.message);
    Refusal::invalid(message)
}
