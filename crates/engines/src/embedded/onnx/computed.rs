//! What a run of an ONNX file computes before the numeric graph does: the sizes of all its values, and
//! the whole numbers that follow from sizes.
//!
//! May not know: operators, rten. Invariant: no value of a run takes more than the footprint allows, and
//! no number that is given leaves 32 bits.

use std::collections::BTreeSet;

use vesta_model::{DType, Shape, Status, Tensor};

use super::extent::{Extent, Extents};
use crate::embedded::footprint::VALUE_BYTES_MAX;

/// A tensor of whole numbers that follow from sizes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Given {
    pub(crate) dims: Vec<usize>,
    pub(crate) elements: Vec<Extent>,
}

/// A value of a run: its sizes, and the first and the last node that need its memory.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) dims: Vec<Extent>,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What follows from the shapes of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Computed {
    extents: Extents,
    /// The sizes of all values, each once.
    dims: Vec<Vec<Extent>>,
    /// In the order of the nodes: of which sizes a value begins to be held, or is let go.
    changes: Vec<(usize, bool)>,
    given: Vec<Given>,
}

/// The most bytes that all values take which are held at one time.
const HELD_BYTES_MAX: u128 = 4 * VALUE_BYTES_MAX;

impl Computed {
    pub(super) fn new(extents: Extents, held: Vec<Held>, given: Vec<Given>) -> Computed {
        let dims: BTreeSet<&Vec<Extent>> = held.iter().map(|own| &own.dims).collect();
        let dims: Vec<Vec<Extent>> = dims.into_iter().cloned().collect();
        // At one node, values begin before others end.
        let mut changes = Vec::new();
        for own in &held {
            let place = dims.binary_search(&own.dims).unwrap_or_default();
            changes.extend([(own.from, false, place), (own.to, true, place)]);
        }
        changes.sort_unstable();
        let changes = changes.into_iter().map(|(_, is_end, place)| (place, is_end)).collect();
        Computed { extents, dims, changes, given }
    }

    /// Whether there may be runs that stay within bounds.
    ///
    /// # Errors
    /// That there are none.
    pub(crate) fn fits(&self) -> Result<(), String> {
        for dims in &self.dims {
            let known = dims.iter().filter_map(Extent::known);
            if known.clone().any(|dim| dim < 0) {
                return Err("a tensor of it has a size below zero".to_owned());
            }
            let is_empty = known.clone().any(|dim| dim == 0);
            if !is_empty && bytes(known) > VALUE_BYTES_MAX {
                return Err(format!("a tensor of it takes more than {VALUE_BYTES_MAX} bytes"));
            }
        }
        Ok(())
    }

    /// The numbers that the numeric graph is given, in their order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where the shapes do not fit the graph or each other, `RESOURCE_EXHAUSTED` where
    /// a value would take too much.
    pub(crate) fn at(&self, shapes: &[&[usize]]) -> Result<Vec<Tensor>, Status> {
        let values = self.extents.at(shapes)?;
        let exhausted = |what: &str, most: u128| {
            Status::resource_exhausted(format!(
                "a request of this size would need {what} of more than {most} bytes; send smaller \
                 ones"
            ))
        };
        let mut taken = Vec::with_capacity(self.dims.len());
        for dims in &self.dims {
            let sizes: Vec<i64> =
                dims.iter().map(|dim| dim.at(&values)).collect::<Result<_, _>>()?;
            if sizes.iter().any(|&size| size < 0) {
                return Err(Status::invalid_argument(
                    "the shapes of the inputs do not fit the model: a size would be below zero",
                ));
            }
            taken.push(bytes(sizes.into_iter()));
            if taken.last().is_some_and(|&own| own > VALUE_BYTES_MAX) {
                return Err(exhausted("a tensor", VALUE_BYTES_MAX));
            }
        }
        let mut held = 0u128;
        for &(place, is_end) in &self.changes {
            let own = taken.get(place).copied().unwrap_or_default();
            held = if is_end { held.saturating_sub(own) } else { held.saturating_add(own) };
            if held > HELD_BYTES_MAX {
                return Err(exhausted("tensors", HELD_BYTES_MAX));
            }
        }
        self.given.iter().map(|given| given.at(&values)).collect()
    }
}

impl Given {
    fn at(&self, values: &[i64]) -> Result<Tensor, Status> {
        let number = |own: &Extent| {
            let value = own.at(values)?;
            i32::try_from(value).map_err(|_| {
                Status::invalid_argument(format!(
                    "a size of this request is beyond 32 bits: {value}"
                ))
            })
        };
        let numbers: Vec<i32> = self.elements.iter().map(number).collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Tensor::copied(DType::I32, Shape::new(self.dims.clone())?, &bytes)
    }
}

/// Of four bytes each, as the numeric graph holds all.
pub(super) fn bytes(sizes: impl Iterator<Item = i64>) -> u128 {
    sizes.fold(4, |all: u128, size| all.saturating_mul(size.unsigned_abs().into()))
}
