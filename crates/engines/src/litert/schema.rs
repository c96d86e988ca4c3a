//! A `model.tflite` as far as serving it needs: subgraphs, tensors, operators, signatures.
//!
//! Owns what is checked before the native library sees a file. Invariant: every index in here is
//! one of something that is there, and every signature names each input of its subgraph once.

use std::collections::BTreeMap;

use vesta_model::{DType, Status};

use super::flatbuffer::{File, Table, broken};
use super::operators;

/// What the fifth to eighth byte of such a file say.
pub(crate) const IDENTIFIER: &[u8] = b"TFL3";
/// The most dimensions that the runtime can tell of.
const RANK_MAX: usize = 8;
/// The metadata that signatures are kept under by TensorFlow's tools, and read by the original.
const SIGNATURES: &str = "signature_defs_metadata";

/// A model file.
pub(crate) struct Model<'f> {
    pub(crate) version: u32,
    /// The tables, which are as many as the operators are of kinds.
    pub(crate) operator_codes: Vec<(usize, String)>,
    pub(crate) subgraphs: Vec<Subgraph<'f>>,
    /// Where the vectors of buffers and of metadata lie.
    pub(crate) buffers_at: usize,
    pub(crate) metadata_at: Option<usize>,
    /// A buffer without bytes, for tensors that are computed.
    pub(crate) empty_buffer: Option<u32>,
    pub(crate) signatures: Vec<NativeSignature<'f>>,
    /// Serialized signatures in the metadata, a flexbuffer.
    pub(crate) signature_map: Option<&'f [u8]>,
}

/// A graph, or the body of a loop or a branch.
pub(crate) struct Subgraph<'f> {
    pub(crate) at: Table<'f>,
    pub(crate) tensors: Vec<TensorInfo<'f>>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
    pub(crate) operators: Vec<Operator<'f>>,
}

/// A tensor of a subgraph.
pub(crate) struct TensorInfo<'f> {
    pub(crate) at: Table<'f>,
    pub(crate) name: &'f str,
    /// The number of its dtype in the schema.
    pub(crate) kind: u8,
    /// Sizes; `None` for those that vary.
    pub(crate) dims: Vec<Option<usize>>,
    /// Its bytes, where they are in the file.
    pub(crate) constant: Option<&'f [u8]>,
}

/// An operator of a subgraph.
pub(crate) struct Operator<'f> {
    pub(crate) at: Table<'f>,
    /// Its position among the operator codes.
    pub(crate) code: usize,
    /// `None` for those that it goes without.
    pub(crate) inputs: Vec<Option<usize>>,
    pub(crate) outputs: Vec<usize>,
}

/// A signature of the schema itself.
pub(crate) struct NativeSignature<'f> {
    pub(crate) key: &'f str,
    pub(crate) subgraph: usize,
    /// Tensors by name.
    pub(crate) inputs: BTreeMap<&'f str, usize>,
    pub(crate) outputs: BTreeMap<&'f str, usize>,
}

/// The dtype with a number of the schema, with the runtime's number of it.
pub(crate) fn dtype(kind: u8) -> Option<(DType, i32)> {
    Some(match kind {
        0 => (DType::F32, 1),
        1 => (DType::F16, 10),
        2 => (DType::I32, 2),
        3 => (DType::U8, 3),
        4 => (DType::I64, 4),
        5 => (DType::String, 5),
        6 => (DType::Bool, 6),
        7 => (DType::I16, 7),
        8 => (DType::Complex64, 8),
        9 => (DType::I8, 9),
        10 => (DType::F64, 11),
        12 => (DType::U64, 13),
        15 => (DType::U32, 16),
        16 => (DType::U16, 17),
        18 => (DType::BF16, 19),
        _ => return None,
    })
}

impl<'f> Model<'f> {
    /// Reads a file.
    ///
    /// # Errors
    /// `DATA_LOSS` for a damaged one, `UNIMPLEMENTED` for one whose weights lie elsewhere.
    pub(crate) fn read(file: &'f File<'f>) -> Result<Model<'f>, Status> {
        if file.bytes.get(4..8) != Some(IDENTIFIER) {
            return Err(broken("it does not begin as a TensorFlow Lite model does"));
        }
        let root = file.root()?;
        if root.place(8)?.is_some() || root.place(9)?.is_some() {
            return Err(outside());
        }
        let buffers = root.tables(4)?;
        let mut contents = Vec::with_capacity(buffers.len());
        for buffer in &buffers {
            if buffer.long(1)? > 1 {
                return Err(outside());
            }
            contents.push(buffer.bytes(0)?.unwrap_or_default());
        }
        let codes = root.tables(1)?;
        let operator_codes = codes.iter().map(operator_code).collect::<Result<Vec<_>, _>>()?;
        let subgraphs = root
            .tables(2)?
            .into_iter()
            .map(|at| Subgraph::read(at, &contents, operator_codes.len()))
            .collect::<Result<Vec<_>, _>>()?;
        if subgraphs.is_empty() {
            return Err(broken("it has no graph"));
        }
        let signatures = root
            .tables(7)?
            .iter()
            .map(|at| NativeSignature::read(at, &subgraphs))
            .collect::<Result<Vec<_>, _>>()?;
        let mut signature_map = None;
        for entry in root.tables(6)? {
            let buffer = buffers.get(entry.number(1)? as usize);
            let buffer = buffer.ok_or_else(|| broken("metadata lies in no buffer"))?;
            if entry.text(0)? == Some(SIGNATURES) {
                signature_map = buffer.bytes(0)?;
            }
        }
        Ok(Model {
            version: root.number(0)?,
            operator_codes,
            subgraphs,
            buffers_at: root.place(4)?.ok_or_else(|| broken("it has no buffers"))?,
            metadata_at: root.place(6)?,
            empty_buffer: contents
                .iter()
                .position(|bytes| bytes.is_empty())
                .and_then(|n| u32::try_from(n).ok()),
            signatures,
            signature_map,
        })
    }

    /// How often each operator stands in the file.
    pub(crate) fn operator_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for operator in self.subgraphs.iter().flat_map(|subgraph| &subgraph.operators) {
            *counts.entry(self.operator_codes[operator.code].1.clone()).or_default() += 1;
        }
        counts
    }

    /// Whether something is kept from run to run, or is random.
    pub(crate) fn is_stateful(&self) -> bool {
        let keeps = |tensor: &TensorInfo<'_>| tensor.at.byte(5).unwrap_or(1) != 0;
        self.operator_counts().keys().any(|name| operators::is_stateful(name))
            || self.subgraphs.iter().any(|subgraph| subgraph.tensors.iter().any(keeps))
    }
}

fn operator_code(at: &Table<'_>) -> Result<(usize, String), Status> {
    // Numbers that do not fit the old field stand in the new one alone.
    let number = at.number(3)?.max(u32::from(at.byte(0)?));
    Ok((at.at, operators::name(number, at.text(1)?)))
}

fn outside() -> Status {
    Status::unimplemented(
        "the model.tflite keeps its weights outside of the part that is a flatbuffer, as models of \
         more than 2 GB do; give the SavedModel that it was made from",
    )
}

impl<'f> Subgraph<'f> {
    fn read(at: Table<'f>, buffers: &[&'f [u8]], codes: usize) -> Result<Subgraph<'f>, Status> {
        let tensors = at
            .tables(0)?
            .into_iter()
            .map(|at| TensorInfo::read(at, buffers))
            .collect::<Result<Vec<_>, _>>()?;
        let known = |index: i32| {
            let known = usize::try_from(index).ok().filter(|&n| n < tensors.len());
            known.ok_or_else(|| broken("it has no tensor of some number"))
        };
        let all = |indices: Vec<i32>| indices.into_iter().map(known).collect::<Result<Vec<_>, _>>();
        let some = |index: i32| (index != -1).then(|| known(index)).transpose();
        let mut operators = Vec::new();
        for operator in at.tables(3)? {
            let inputs = operator.numbers(1)?.into_iter().map(some).collect::<Result<_, _>>()?;
            let outputs = operator.numbers(2)?.into_iter().map(some);
            let outputs = outputs.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            let code = operator.number(0)? as usize;
            if code >= codes {
                return Err(broken("it has no operator of some number"));
            }
            operators.push(Operator { at: operator, code, inputs, outputs });
        }
        let (inputs, outputs) = (all(at.numbers(1)?)?, all(at.numbers(2)?)?);
        Ok(Subgraph { at, inputs, outputs, operators, tensors })
    }
}

impl<'f> TensorInfo<'f> {
    fn read(at: Table<'f>, buffers: &[&'f [u8]]) -> Result<TensorInfo<'f>, Status> {
        let buffer = buffers.get(at.number(2)? as usize);
        let bytes = *buffer.ok_or_else(|| broken("a tensor lies in no buffer"))?;
        let mut dims = at.numbers(0)?;
        let varying = at.numbers(7)?;
        let mut elements = 1i64;
        for &dim in &dims {
            let product = elements.checked_mul(i64::from(dim)).filter(|_| dim >= 0);
            elements = product.ok_or_else(|| broken("a tensor has impossible sizes"))?;
        }
        if varying.len() == dims.len() {
            dims = varying;
        }
        Ok(TensorInfo {
            name: at.text(3)?.unwrap_or_default(),
            kind: at.byte(1)?,
            dims: dims.into_iter().map(|dim| usize::try_from(dim).ok()).collect(),
            constant: Some(bytes).filter(|bytes| !bytes.is_empty()),
            at,
        })
    }

    /// Its dtype, and the runtime's number of it.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for what cannot be fed or fetched.
    pub(crate) fn dtype(&self) -> Result<(DType, i32), Status> {
        if self.dims.len() > RANK_MAX {
            return Err(Status::unimplemented(format!(
                "tensor {} has {} dimensions; at most {RANK_MAX} can be served",
                self.name,
                self.dims.len()
            )));
        }
        dtype(self.kind).ok_or_else(|| {
            Status::unimplemented(format!(
                "tensor {} is of a dtype (number {} of the format) that a request cannot carry",
                self.name, self.kind
            ))
        })
    }
}

impl<'f> NativeSignature<'f> {
    fn read(at: &Table<'f>, subgraphs: &[Subgraph<'_>]) -> Result<NativeSignature<'f>, Status> {
        let subgraph = at.number(4)? as usize;
        let graph = subgraphs.get(subgraph).ok_or_else(|| broken("a signature has no graph"))?;
        let tensors = |slot: usize, ends: &[usize]| {
            let mut tensors = BTreeMap::new();
            for entry in at.tables(slot)? {
                let tensor = entry.number(1)? as usize;
                if !ends.contains(&tensor) {
                    return Err(broken("a signature names a tensor that is no end of its graph"));
                }
                tensors.insert(entry.text(0)?.unwrap_or_default(), tensor);
            }
            Ok(tensors)
        };
        Ok(NativeSignature {
            key: at.text(2)?.unwrap_or_default(),
            subgraph,
            inputs: tensors(0, &graph.inputs)?,
            outputs: tensors(1, &graph.outputs)?,
        })
    }
}
