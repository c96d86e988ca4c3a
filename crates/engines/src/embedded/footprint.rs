//! How much memory a run of the numeric graph may take, told before it runs.
//!
//! rten allocates what a model asks for, and an allocation that cannot be met ends the process. What
//! each value takes is known at load up to the sizes that are open, mostly the rows of a batch.
//!
//! May not know: rten. Invariant: an estimate grows with every input, and is right to a constant
//! factor (a join along the rows counts as one of its parts); graphs with values of unknown rank are
//! told apart.

use vesta_model::{DType, PartialShape, Shape, Status};
use vesta_onnx::Translation;

use super::merge::Boundary;

/// The most bytes that one value of a run may take.
const VALUE_BYTES_MAX: u128 = 4 << 30;

/// What the values of a graph take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// The most bytes of a value for sizes of one, among values with no more open sizes than a feed.
    linear: u128,
    /// The same among values with more: such as every row against every row.
    quadratic: u128,
    /// A value whose rank is not known.
    unknown: Option<String>,
}

impl Footprint {
    /// Reads what the translation knows of its values.
    pub(crate) fn new(translation: &Translation, feeds: &[Boundary]) -> Footprint {
        let open_max = feeds.iter().map(|feed| open_sizes(&feed.shape)).max().unwrap_or(0);
        let mut footprint = Footprint::default();
        for (name, facts) in translation.values.iter().filter(|(_, facts)| !facts.is_constant) {
            let PartialShape::Ranked(dims) = &facts.shape else {
                footprint.unknown.get_or_insert_with(|| name.clone());
                continue;
            };
            let known = dims
                .iter()
                .flatten()
                .fold(bytes_of(facts.dtype), |bytes, &dim| bytes.saturating_mul(dim as u128));
            let worst = if open_sizes(&facts.shape) > open_max {
                &mut footprint.quadratic
            } else {
                &mut footprint.linear
            };
            *worst = known.max(*worst);
        }
        footprint
    }

    /// Whether every value can be estimated.
    ///
    /// # Errors
    /// Which cannot.
    pub(crate) fn is_known(&self) -> Result<(), String> {
        match &self.unknown {
            Some(name) => Err(format!("the size of {name} is known only when it runs")),
            None => Ok(()),
        }
    }

    /// Whether a run with inputs of these shapes stays within bounds.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when a value would take too much.
    pub(crate) fn check<'a>(
        &self,
        inputs: impl Iterator<Item = (&'a Boundary, &'a Shape)>,
    ) -> Result<(), Status> {
        let open = inputs.map(|(feed, shape)| match &feed.shape {
            PartialShape::Ranked(dims) => {
                let open = dims.iter().zip(shape.dims()).filter(|(declared, _)| declared.is_none());
                open.map(|(_, &size)| size as u128).product()
            }
            PartialShape::Unknown => shape.elements() as u128,
        });
        let rows = open.max().unwrap_or(1);
        let linear = self.linear.saturating_mul(rows);
        let quadratic = self.quadratic.saturating_mul(rows).saturating_mul(rows);
        if linear.max(quadratic) > VALUE_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "a batch of this size would need a tensor of more than {VALUE_BYTES_MAX} bytes; \
                 send smaller ones"
            )));
        }
        Ok(())
    }
}

fn open_sizes(shape: &PartialShape) -> usize {
    match shape {
        PartialShape::Ranked(dims) => dims.iter().filter(|dim| dim.is_none()).count(),
        PartialShape::Unknown => 0,
    }
}

/// Bytes of one element as rten holds it.
fn bytes_of(dtype: DType) -> u128 {
    dtype.width().map_or(4, |width| width.clamp(1, 4)) as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(dims: &[Option<usize>]) -> Boundary {
        let shape = PartialShape::Ranked(dims.to_vec());
        Boundary { tensor: "x:0".to_owned(), dtype: DType::F32, shape }
    }

    #[test]
    fn rows_count_once_or_against_each_other() {
        let footprint = Footprint { linear: 1 << 20, quadratic: 4, unknown: None };
        let feed = feed(&[None, Some(8)]);
        let check = |rows: usize| {
            let shape = Shape::new(vec![rows, 8]).unwrap();
            footprint.check([(&feed, &shape)].into_iter())
        };
        assert!(check(0).is_ok());
        assert!(check(4096).is_ok());
        assert!(check(4097).is_err());
        let pairs = Footprint { linear: 4, quadratic: 4, unknown: None };
        let shape = Shape::new(vec![40_000, 8]).unwrap();
        assert!(pairs.check([(&feed, &shape)].into_iter()).is_err());
    }

    #[test]
    fn a_value_of_unknown_rank_is_told() {
        let footprint = Footprint { unknown: Some("y".to_owned()), ..Footprint::default() };
        assert!(footprint.is_known().unwrap_err().contains('y'));
    }
}
