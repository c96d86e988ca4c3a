//! OpenVINO's C API, opened at run time.
//!
//! Owns the table of functions, and the lifetimes of models and requests behind safe values. May not
//! know: what is in a model; it is bytes here, and its ends are numbered. Invariant: memory that a run
//! reads lives until the run has ended, whatever becomes of its value; no request of a compiled model is
//! made once another may run.

#![expect(unsafe_code, reason = "OpenVINO is reached through C functions that are looked up here")]

mod error;
mod library;
mod model;
mod run;
mod table;

pub use error::OpenVinoError;
pub use library::OpenVino;
pub use model::{OpenVinoModel, OpenVinoPort};
pub use run::{OpenVinoInput, OpenVinoOutput, OpenVinoRequest};

/// `ov_element_type_e`: bytes of an element; `None` for strings and for elements of less than a byte.
fn width(element: u32) -> Option<usize> {
    match element {
        // boolean, i8, u8, the floats of 8 bits.
        1 | 7 | 16 | 21 | 22 | 25 => Some(1),
        // bf16, f16, i16, u16.
        2 | 3 | 8 | 17 => Some(2),
        // f32, i32, u32.
        4 | 9 | 18 => Some(4),
        // f64, i64, u64.
        5 | 10 | 19 => Some(8),
        _ => None,
    }
}

/// How many bytes a tensor has; `None` for negative sizes, overflow and elements without a width.
fn byte_len(element: u32, dims: &[i64]) -> Option<usize> {
    let count = dims
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))?;
    count.checked_mul(width(element)?)
}
