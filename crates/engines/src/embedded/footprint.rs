//! How much memory a run may take: of the numeric graph, told before it runs; of the steps on the
//! host, counted as they go.
//!
//! rten allocates what a model asks for, and an allocation that cannot be met ends the process. What
//! each value takes is known at load up to the sizes that are open, mostly the rows of a batch.
//!
//! May not know: rten. Invariant: an estimate grows with every input, and is right to a constant
//! factor (a join along the rows counts as one of its parts); graphs with values of unknown rank are
//! told apart.

use vesta_model::{DType, PartialShape, Shape, Status, Tensor};
use vesta_onnx::Translation;

use super::merge::Boundary;

/// The most bytes that one value of a run may take. A whole run takes up to four times that much at
/// its peak, and a request of a hundred bytes can ask for it, so this is kept low; it still holds 64
/// channels of floats for a picture of 3840 x 2160.
pub(super) const VALUE_BYTES_MAX: u128 = 2 << 30;

/// The most bytes that the steps of a run on the host may make together; each is bounded by itself.
const HOST_BYTES_MAX: u64 = 4 << 30;

/// What the steps of one run on the host have made so far, all of which is kept to its end.
#[derive(Debug)]
pub(crate) struct HostBytes {
    made: u64,
    bytes_max: u64,
}

impl Default for HostBytes {
    fn default() -> HostBytes {
        HostBytes { made: 0, bytes_max: HOST_BYTES_MAX }
    }
}

impl HostBytes {
    /// Counts what a step made of `operands`, but for what it only passed on.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when it all is too much.
    pub(crate) fn count(&mut self, operands: &[&Tensor], results: &[Tensor]) -> Result<(), Status> {
        let start = |tensor: &Tensor| tensor.bytes().as_ptr();
        let passed_on = |of: &Tensor| operands.iter().any(|operand| start(operand) == start(of));
        let made = results.iter().filter(|result| !passed_on(result));
        let bytes: u64 = made.map(|result| result.bytes().len() as u64).sum();
        self.made = self.made.saturating_add(bytes);
        if self.made > self.bytes_max {
            return Err(Status::resource_exhausted(format!(
                "a batch of this size makes tensors of more than {} bytes together; send smaller \
                 ones",
                self.bytes_max
            )));
        }
        Ok(())
    }
}

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
            // A size of zero among absurd ones is no help: rten multiplies the others all the same.
            let known = dims.iter().flatten().fold(bytes_of(facts.dtype), |bytes, &dim| {
                bytes.saturating_mul(dim.max(1) as u128)
            });
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

    /// Whether there are runs that stay within bounds: those of one row, if any.
    ///
    /// # Errors
    /// That there are none.
    pub(crate) fn fits(&self) -> Result<(), String> {
        if self.linear.max(self.quadratic) > VALUE_BYTES_MAX {
            return Err(format!("a tensor of it takes more than {VALUE_BYTES_MAX} bytes"));
        }
        Ok(())
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
        assert!(check(2048).is_ok());
        assert!(check(2049).is_err());
        assert!(check(1 << 50).is_err());
        let pairs = Footprint { linear: 4, quadratic: 4, unknown: None };
        let shape = Shape::new(vec![40_000, 8]).unwrap();
        assert!(pairs.check([(&feed, &shape)].into_iter()).is_err());
    }

    #[test]
    fn what_the_host_makes_is_counted_once() {
        let floats = |count: usize| {
            Tensor::of(Shape::new(vec![count]).unwrap(), &vec![0f32; count]).unwrap()
        };
        let mut held = HostBytes { made: 0, bytes_max: 100 };
        let (a, b) = (floats(10), floats(15));
        assert_eq!(held.count(&[&a], std::slice::from_ref(&b)), Ok(()));
        assert_eq!(held.count(&[&a, &b], &[b.clone(), a.clone()]), Ok(()), "passed on");
        assert_eq!(held.count(&[&b], &[floats(10)]), Ok(()));
        let status = held.count(&[&b], &[floats(1)]).unwrap_err();
        assert_eq!(status.code(), vesta_model::Code::ResourceExhausted);
    }

    #[test]
    fn a_size_of_zero_hides_no_absurd_one() {
        let shape = PartialShape::Ranked(vec![Some(2), Some(1 << 58), Some(0)]);
        let facts = vesta_onnx::ValueFacts { dtype: DType::F32, shape, is_constant: false };
        let translation = Translation {
            model: vesta_protos::onnx::ModelProto::default(),
            inputs: vec![],
            outputs: vec![],
            operators: std::collections::BTreeMap::new(),
            values: [("y".to_owned(), facts)].into(),
        };
        assert!(Footprint::new(&translation, &[]).fits().is_err());
    }

    #[test]
    fn a_value_of_unknown_rank_is_told() {
        let footprint = Footprint { unknown: Some("y".to_owned()), ..Footprint::default() };
        assert!(footprint.is_known().unwrap_err().contains('y'));
    }
}
