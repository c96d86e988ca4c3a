//! `ParseExample` and `ParseExampleV2` for dense features of fixed shape.
//!
//! May not know: the wire format of Examples. Invariant: errors have the words, and the order over
//! examples and features, of TensorFlow's own parser.

use vesta_model::{DType, Shape, Status, StringsBuilder, Tensor};
use vesta_protos::tensorflow::NodeDef;

use super::elements::bounded_shape;
use crate::embedded::example::{
    Malformed, Values, byte_values, features, float_values, integer_values,
};
use crate::embedded::graph::Attributes;

/// What the attributes of a node say: which dense features it gives.
#[derive(Clone, Debug)]
pub(crate) struct ParseExample {
    second: bool,
    dtypes: Vec<DType>,
    shapes: Vec<Shape>,
    /// Sparse features of the first version, whose key operands stand before the dense ones.
    sparse: usize,
    /// Outputs before the first dense one.
    lead: usize,
    /// All outputs.
    outputs: usize,
}

/// One feature's values for all examples.
enum Column {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    Strings(StringsBuilder),
}

impl ParseExample {
    /// Reads a node.
    ///
    /// # Errors
    /// Why the node cannot be run.
    pub(crate) fn new(node: &NodeDef) -> Result<ParseExample, String> {
        let attributes = Attributes(node);
        let dtypes = attributes.dtypes("Tdense");
        let sparse = attributes.dtypes("sparse_types").len();
        let ragged = attributes.dtypes("ragged_value_types").len();
        if let Some(dtype) =
            dtypes.iter().find(|d| !matches!(d, DType::F32 | DType::I64 | DType::String))
        {
            return Err(format!("dense features of dtype {dtype}"));
        }
        let shapes = attributes
            .shapes("dense_shapes")
            .into_iter()
            .map(|dims| {
                let dims = dims.ok_or("dense features of unknown rank")?;
                let dims: Result<Vec<usize>, _> = dims.into_iter().map(usize::try_from).collect();
                let dims = dims.map_err(|_| "dense features of variable length")?;
                Shape::new(dims).map_err(|_| "dense features of impossible shape")
            })
            .collect::<Result<Vec<_>, &str>>()?;
        if shapes.len() != dtypes.len() {
            return Err("as many dense_shapes as Tdense were expected".to_owned());
        }
        let lead = 3 * sparse;
        Ok(ParseExample {
            second: node.op == "ParseExampleV2",
            outputs: lead + dtypes.len() + 2 * ragged,
            dtypes,
            shapes,
            sparse,
            lead,
        })
    }

    /// Whether output `index` is a dense feature; sparse and ragged ones are not computed.
    pub(crate) fn computes(&self, index: usize) -> bool {
        (self.lead..self.lead + self.dtypes.len()).contains(&index)
    }

    /// Operands: those of the node.
    pub(crate) fn compute(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, Status> {
        let (keys, defaults) = self.operands(inputs)?;
        let serialized = inputs[0].strings().ok_or_else(|| {
            Status::invalid_argument(format!(
                "serialized must be strings, not {}",
                inputs[0].dtype()
            ))
        })?;
        let names = inputs[1].strings();
        if inputs[0].shape().rank() > 1 {
            return Err(Status::invalid_argument(format!(
                "Expected serialized to be a scalar or vector, got shape: {}",
                inputs[0].shape()
            )));
        }
        let batched = inputs[0].shape().rank() == 1;
        let mut columns = Vec::with_capacity(keys.len());
        for dtype in &self.dtypes {
            columns.push(match dtype {
                DType::F32 => Column::Floats(Vec::new()),
                DType::I64 => Column::Integers(Vec::new()),
                _ => Column::Strings(StringsBuilder::new()),
            });
        }
        for (index, text) in serialized.iter().enumerate() {
            let name = names.as_ref().and_then(|names| names.get(index));
            let name = name.map_or("<unknown>".into(), String::from_utf8_lossy);
            let at = Place { name: &name, index, batched };
            self.example(text, &keys, &defaults, &at, &mut columns)?;
        }
        self.outputs(columns, batched.then_some(serialized.len()))
    }

    /// Keys and default values out of the operands.
    fn operands<'a>(
        &self,
        inputs: &[&'a Tensor],
    ) -> Result<(Vec<Vec<u8>>, Vec<&'a Tensor>), Status> {
        let few = || Status::internal("a ParseExample node has too few inputs");
        let dense = self.dtypes.len();
        let (keys, first_default) = if self.second {
            // serialized, names, sparse_keys, dense_keys, ragged_keys, defaults
            let keys = inputs.get(3).and_then(|keys| keys.strings()).ok_or_else(few)?;
            (keys.iter().map(<[u8]>::to_vec).collect(), 5)
        } else {
            // serialized, names, a key for each sparse and each dense feature, defaults
            let from = 2 + self.sparse;
            let keys = inputs.get(from..from + dense).ok_or_else(few)?.iter().map(|key| {
                key.strings().and_then(|key| Some(key.get(0)?.to_vec())).ok_or_else(few)
            });
            (keys.collect::<Result<Vec<_>, _>>()?, from + dense)
        };
        let defaults = inputs.get(first_default..first_default + dense).ok_or_else(few)?.to_vec();
        if keys.len() != dense {
            return Err(Status::invalid_argument(format!(
                "Expected len(dense_keys) == len(Tdense), got {} vs. {dense}",
                keys.len()
            )));
        }
        Ok((keys, defaults))
    }

    fn example(
        &self,
        text: &[u8],
        keys: &[Vec<u8>],
        defaults: &[&Tensor],
        at: &Place<'_>,
        columns: &mut [Column],
    ) -> Result<(), Status> {
        let found = features(text).map_err(|Malformed| {
            Status::invalid_argument(format!(
                "Could not parse example input, value: '{}'",
                String::from_utf8_lossy(text)
            ))
        })?;
        let mut values = vec![Values::Unset; keys.len()];
        // From the last entry to the first, since the last counts and its error comes first.
        for &(key, value) in found.iter().rev() {
            let Some(dense) = keys.iter().position(|wanted| wanted == key) else { continue };
            if value == Values::Unset || values[dense] != Values::Unset {
                continue;
            }
            values[dense] = value;
            let size = self.append(dense, value, &mut columns[dense], key, at)?;
            if size != self.shapes[dense].elements() {
                let kind = match self.dtypes[dense] {
                    DType::F32 => "float",
                    DType::I64 => "int64",
                    _ => "bytes",
                };
                return Err(at.error(
                    key,
                    &format!(
                        "Number of {kind} values != expected.  Values size: {size} but output \
                         shape: {}",
                        self.shapes[dense]
                    ),
                ));
            }
        }
        for (dense, value) in values.iter().enumerate() {
            if *value == Values::Unset {
                self.append_default(dense, defaults[dense], &mut columns[dense], &keys[dense], at)?;
            }
        }
        Ok(())
    }

    /// Appends the values of a feature and tells how many they were.
    fn append(
        &self,
        dense: usize,
        values: Values<'_>,
        column: &mut Column,
        key: &[u8],
        at: &Place<'_>,
    ) -> Result<usize, Status> {
        let broken = |Malformed| at.error(key, "Can't parse serialized Example.");
        match (values, column) {
            (Values::Floats(list), Column::Floats(column)) => {
                let values = float_values(list).map_err(broken)?;
                column.extend(&values);
                Ok(values.len())
            }
            (Values::Integers(list), Column::Integers(column)) => {
                let values = integer_values(list).map_err(broken)?;
                column.extend(&values);
                Ok(values.len())
            }
            (Values::Bytes(list), Column::Strings(column)) => {
                let values = byte_values(list).map_err(broken)?;
                values.iter().for_each(|value| column.push(value));
                Ok(values.len())
            }
            (values, _) => {
                let kind = match values {
                    Values::Floats(_) => "float",
                    Values::Integers(_) => "int64",
                    _ => "string",
                };
                Err(at.error(
                    key,
                    &format!(
                        "Data types don't match. Data type: {kind} but expected type: {}",
                        self.dtypes[dense]
                    ),
                ))
            }
        }
    }

    fn append_default(
        &self,
        dense: usize,
        default: &Tensor,
        column: &mut Column,
        key: &[u8],
        at: &Place<'_>,
    ) -> Result<(), Status> {
        let want = self.shapes[dense].elements();
        let have = default.shape().elements();
        if have == 0 && want != 0 {
            return Err(Status::invalid_argument(format!(
                "{}Feature: {} (data type: {}) is required but could not be found.",
                at.lead(),
                String::from_utf8_lossy(key),
                self.dtypes[dense]
            )));
        }
        let wrong = || {
            Status::invalid_argument(format!(
                "the default of feature {} does not have the shape {}",
                String::from_utf8_lossy(key),
                self.shapes[dense]
            ))
        };
        if have != want {
            return Err(wrong());
        }
        match column {
            Column::Floats(column) => column.extend(default.to_vec::<f32>().ok_or_else(wrong)?),
            Column::Integers(column) => column.extend(default.to_vec::<i64>().ok_or_else(wrong)?),
            Column::Strings(column) => {
                default.strings().ok_or_else(wrong)?.iter().for_each(|text| column.push(text));
            }
        }
        Ok(())
    }

    fn outputs(&self, columns: Vec<Column>, batch: Option<usize>) -> Result<Vec<Tensor>, Status> {
        // Outputs that are not computed are not asked for either; they stay empty.
        let empty = Tensor::of::<f32>(Shape::vector(0), &[])?;
        let mut outputs = vec![empty; self.outputs];
        for (dense, column) in columns.into_iter().enumerate() {
            let dims = batch.iter().chain(self.shapes[dense].dims()).copied().collect();
            let shape = bounded_shape(dims, self.dtypes[dense])?;
            outputs[self.lead + dense] = match column {
                Column::Floats(values) => super::elements::tensor(shape, values)?,
                Column::Integers(values) => super::elements::tensor(shape, values)?,
                Column::Strings(values) => Tensor::of_strings(shape, &values)?,
            };
        }
        Ok(outputs)
    }
}

/// Which example an error is about.
struct Place<'a> {
    name: &'a str,
    index: usize,
    batched: bool,
}

impl Place<'_> {
    fn lead(&self) -> String {
        if self.batched { format!("Name: {}, ", self.name) } else { String::new() }
    }

    fn error(&self, key: &[u8], rest: &str) -> Status {
        let index = if self.batched { format!(", Index: {}", self.index) } else { String::new() };
        Status::invalid_argument(format!(
            "{}Key: {}{index}.  {rest}",
            self.lead(),
            String::from_utf8_lossy(key)
        ))
    }
}
