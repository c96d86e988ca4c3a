//! Sizes of tensors. Owns overflow checks: an element count always fits in `usize`.

use std::fmt;

use crate::Status;

/// The sizes of a tensor's dimensions, outermost first. Rank 0 is a scalar.
///
/// Invariant: the product of the sizes fits in `isize`, so byte counts of the fixed-width dtypes
/// are checked in one place, [`Shape::bytes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The most dimensions that a tensor may have (TensorFlow's own limit).
    pub const RANK_MAX: usize = 254;

    /// A shape of these sizes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the rank or the number of elements is too large.
    pub fn new(dims: impl Into<Vec<usize>>) -> Result<Shape, Status> {
        let dims = dims.into();
        if dims.len() > Shape::RANK_MAX {
            return Err(Status::invalid_argument(format!(
                "a tensor has at most {} dimensions, not {}",
                Shape::RANK_MAX,
                dims.len()
            )));
        }
        // Zero-sized dimensions must not hide an overflow of the others.
        let mut elements = 1usize;
        for &dim in &dims {
            elements = elements
                .checked_mul(dim.max(1))
                .filter(|&n| n <= isize::MAX as usize)
                .ok_or_else(|| {
                    Status::invalid_argument(format!(
                        "a tensor of shape {dims:?} has too many elements"
                    ))
                })?;
        }
        Ok(Shape(dims))
    }

    /// The shape of a scalar.
    pub const fn scalar() -> Shape {
        Shape(Vec::new())
    }

    /// The shape of a vector.
    pub fn vector(len: usize) -> Shape {
        Shape(vec![len.min(isize::MAX as usize)])
    }

    /// Sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// Bytes of a tensor of this shape whose elements take `width` bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the product overflows.
    pub fn bytes(&self, width: usize) -> Result<usize, Status> {
        self.elements().checked_mul(width).filter(|&n| n <= isize::MAX as usize).ok_or_else(|| {
            Status::invalid_argument(format!("a tensor of shape {self} takes too many bytes"))
        })
    }
}

/// Prints as TensorFlow does: `[2,3]`, `[]` for a scalar.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// A shape as a signature declares it: each size, or the rank itself, may be unknown.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PartialShape {
    /// Nothing is known, not even the rank.
    #[default]
    Unknown,
    /// The rank is known; `None` is a size that may vary.
    Ranked(Vec<Option<usize>>),
}

impl PartialShape {
    /// Whether a tensor of `shape` fits the declaration.
    pub fn accepts(&self, shape: &Shape) -> bool {
        match self {
            PartialShape::Unknown => true,
            PartialShape::Ranked(dims) => {
                dims.len() == shape.rank()
                    && dims
                        .iter()
                        .zip(shape.dims())
                        .all(|(want, got)| want.is_none_or(|w| w == *got))
            }
        }
    }
}

/// Prints sizes as TensorFlow does, open ones as `?`: `[?,3]`, `<unknown>` without a rank.
impl fmt::Display for PartialShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartialShape::Ranked(dims) = self else {
            return f.write_str("<unknown>");
        };
        let sizes = dims.iter().map(|dim| dim.map_or("?".to_owned(), |size| size.to_string()));
        write!(f, "[{}]", sizes.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_is_an_error_even_beside_a_zero() {
        assert!(Shape::new(vec![usize::MAX, 2]).is_err());
        assert!(Shape::new(vec![0, usize::MAX, 2]).is_err());
        assert!(Shape::new(vec![0, 5]).is_ok());
        assert!(Shape::new(vec![isize::MAX as usize]).unwrap().bytes(4).is_err());
        assert!(Shape::new(vec![1; 255]).is_err());
    }

    #[test]
    fn prints_as_tensorflow_does() {
        assert_eq!(Shape::new(vec![2, 3]).unwrap().to_string(), "[2,3]");
        assert_eq!(Shape::scalar().to_string(), "[]");
        assert_eq!(PartialShape::Ranked(vec![None, Some(3)]).to_string(), "[?,3]");
        assert_eq!(PartialShape::Unknown.to_string(), "<unknown>");
    }

    #[test]
    fn partial_shapes_accept_what_they_leave_open() {
        let declared = PartialShape::Ranked(vec![None, Some(3)]);
        assert!(declared.accepts(&Shape::new(vec![7, 3]).unwrap()));
        assert!(!declared.accepts(&Shape::new(vec![7, 4]).unwrap()));
        assert!(!declared.accepts(&Shape::new(vec![3]).unwrap()));
    }
}
