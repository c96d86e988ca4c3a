//! Tensors of TensorFlow: made over memory of ours, or given by a run.
//!
//! Invariant: the memory under a value lives until TensorFlow has let go of it, which may be later
//! than the value is dropped.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use super::error::TensorFlowError;
use super::library::TensorFlow;
use super::table::{TString, Tensor};

/// `TF_STRING`.
const STRING: i32 = 7;

/// Memory that a value is made over.
type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A tensor that TensorFlow can read, or has made.
pub struct TensorFlowValue {
    library: &'static TensorFlow,
    tensor: *mut Tensor,
}

// SAFETY: a `TF_Tensor` is a count of references (changed atomically) to a buffer that is not written
// after the tensor was made; it has no tie to a thread.
unsafe impl Send for TensorFlowValue {}
// SAFETY: as above; the calls on `&self` only read.
unsafe impl Sync for TensorFlowValue {}

/// The strings of a value, and who frees them.
struct Strings {
    library: &'static TensorFlow,
    words: Box<[TString]>,
}

impl Drop for Strings {
    fn drop(&mut self) {
        for word in &mut self.words {
            // SAFETY: each was initialised when it was made and is freed here alone.
            unsafe { (self.library.table.string_free)(word) }
        }
    }
}

impl TensorFlowValue {
    /// A tensor over `bytes[start..start + length]`, in place where that is aligned to 64 bytes,
    /// else over a copy. TensorFlow does not write into it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the range is outside the bytes, its length is not what dtype and
    /// shape say, or elements of the dtype have no fixed width.
    pub fn over(
        library: &'static TensorFlow,
        dtype: i32,
        dims: &[i64],
        bytes: Bytes,
        start: usize,
        length: usize,
    ) -> Result<TensorFlowValue, TensorFlowError> {
        let wrong = |what: &str| TensorFlowError::invalid(format!("a tensor {what}"));
        let width = library
            .dtype_bytes(dtype)
            .filter(|_| dtype != STRING)
            .ok_or_else(|| wrong("of this dtype has no bytes to be made over"))?;
        if elements(dims).and_then(|count| count.checked_mul(width)) != Some(length) {
            return Err(wrong("has another number of bytes than its dtype and shape say"));
        }
        let view: &[u8] = (*bytes).as_ref();
        let view = view
            .get(start..)
            .and_then(|rest| rest.get(..length))
            .ok_or_else(|| wrong("lies outside its memory"))?;
        let place: *const u8 = view.as_ptr();
        let owner: *mut Bytes = Box::into_raw(Box::new(bytes));
        // SAFETY: the pointer covers `length` readable bytes: it was borrowed from `bytes`, which
        // `owner` keeps alive and behind an `Arc`, so nobody can have it by `&mut`, until
        // `release_bytes` is called, once, when TensorFlow needs it no more. TensorFlow takes memory
        // that is not its own (`owns_memory` is false in `TF_NewTensor`) as read-only.
        unsafe {
            Self::adopt(
                library,
                dtype,
                dims,
                place.cast_mut().cast(),
                length,
                release_bytes,
                owner.cast(),
            )
        }
    }

    /// A string tensor with copies of `strings`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there are not as many strings as the shape says.
    pub fn strings<'a>(
        library: &'static TensorFlow,
        dims: &[i64],
        strings: impl Iterator<Item = &'a [u8]>,
    ) -> Result<TensorFlowValue, TensorFlowError> {
        let empty = TString { words: [0; 3] };
        let mut owner = Strings { library, words: Box::default() };
        let words: Vec<TString> = strings
            .map(|text| {
                let mut word = empty;
                // SAFETY: `word` is memory for a string, which the first call initialises; the
                // second copies `text.len()` readable bytes. Moving the 24 bytes later is what
                // TensorFlow itself does with them: they hold no pointer to themselves.
                unsafe {
                    (library.table.string_init)(&raw mut word);
                    (library.table.string_copy)(
                        &raw mut word,
                        text.as_ptr().cast::<c_char>(),
                        text.len(),
                    );
                }
                word
            })
            .collect();
        let count = words.len();
        owner.words = words.into_boxed_slice();
        if elements(dims) != Some(count) {
            return Err(TensorFlowError::invalid(
                "a tensor has another number of strings than its shape",
            ));
        }
        let owner = Box::new(owner);
        let place = owner.words.as_ptr();
        let length = count * size_of::<TString>();
        // SAFETY: the pointer covers `count` initialised strings, which `owner` keeps where they are
        // until `release_strings` is called, once.
        unsafe {
            Self::adopt(
                library,
                STRING,
                dims,
                place.cast_mut().cast(),
                length,
                release_strings,
                Box::into_raw(owner).cast(),
            )
        }
    }

    /// Hands memory to TensorFlow.
    ///
    /// # Safety
    /// `data` must be readable for `length` bytes until `release` is called with `owner`.
    unsafe fn adopt(
        library: &'static TensorFlow,
        dtype: i32,
        dims: &[i64],
        data: *mut c_void,
        length: usize,
        release: super::table::Deallocator,
        owner: *mut c_void,
    ) -> Result<TensorFlowValue, TensorFlowError> {
        let Ok(rank) = c_int::try_from(dims.len()) else {
            // SAFETY: TensorFlow never saw it, so this is the one call.
            unsafe { release(data, length, owner) };
            return Err(TensorFlowError::invalid("a tensor of too many dimensions"));
        };
        // SAFETY: `dims` has `rank` sizes; the rest is the caller's word. When TensorFlow refuses the
        // memory it calls `release` itself.
        let tensor = unsafe {
            (library.table.new_tensor)(dtype, dims.as_ptr(), rank, data, length, release, owner)
        };
        if tensor.is_null() {
            return Err(TensorFlowError::invalid(
                "TensorFlow does not take a tensor of this shape",
            ));
        }
        Ok(TensorFlowValue { library, tensor })
    }

    /// Takes over what a run gave.
    ///
    /// # Safety
    /// The pointer must be a `TF_Tensor` that nobody else frees.
    pub(super) unsafe fn from_raw(
        library: &'static TensorFlow,
        tensor: *mut Tensor,
    ) -> TensorFlowValue {
        TensorFlowValue { library, tensor }
    }

    pub(super) fn as_ptr(&self) -> *mut Tensor {
        self.tensor
    }

    /// The number of its dtype.
    pub fn dtype(&self) -> i32 {
        // SAFETY: the tensor is alive; the call reads.
        unsafe { (self.library.table.tensor_dtype)(self.tensor) }
    }

    /// Its shape.
    pub fn dims(&self) -> Vec<i64> {
        // SAFETY: the tensor is alive; the calls read, and each index is below the rank.
        unsafe {
            let rank = (self.library.table.tensor_rank)(self.tensor);
            (0..rank).map(|index| (self.library.table.tensor_dim)(self.tensor, index)).collect()
        }
    }

    /// Its elements, row-major and little-endian; `None` where they have no fixed width.
    pub fn bytes(&self) -> Option<&[u8]> {
        let dtype = self.dtype();
        let width = self.library.dtype_bytes(dtype).filter(|_| dtype != STRING)?;
        let expected = elements(&self.dims())?.checked_mul(width)?;
        // SAFETY: the tensor is alive; both calls read.
        let (data, length) = unsafe {
            (
                (self.library.table.tensor_data)(self.tensor),
                (self.library.table.tensor_bytes)(self.tensor),
            )
        };
        if expected == 0 {
            return Some(&[]);
        }
        if data.is_null() || length < expected {
            return None;
        }
        // SAFETY: TensorFlow gives `length` bytes there, initialised by its kernels, that live as
        // long as the tensor. A variable's buffer may be written by another run meanwhile, as in
        // TensorFlow itself; the values are plain bytes, so any is valid.
        Some(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), expected) })
    }

    /// Its strings; `None` when it holds none.
    pub fn texts(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let count = elements(&self.dims()).filter(|_| self.dtype() == STRING)?;
        // SAFETY: the tensor is alive; both calls read.
        let (data, length) = unsafe {
            (
                (self.library.table.tensor_data)(self.tensor),
                (self.library.table.tensor_bytes)(self.tensor),
            )
        };
        if count > 0 && (data.is_null() || length < count.checked_mul(size_of::<TString>())?) {
            return None;
        }
        let first = data.cast::<TString>().cast_const();
        Some((0..count).map(move |index| {
            // SAFETY: there are `count` strings at `first`, which live as long as the tensor, hence
            // as the borrow; pointer and size of each belong together.
            unsafe {
                let string = first.add(index);
                let length = (self.library.table.string_bytes)(string);
                let bytes = (self.library.table.string_pointer)(string);
                if length == 0 {
                    &[]
                } else {
                    std::slice::from_raw_parts(bytes.cast::<u8>(), length)
                }
            }
        }))
    }
}

impl Drop for TensorFlowValue {
    fn drop(&mut self) {
        // SAFETY: owned by this value alone; TensorFlow keeps a reference of its own where it needs
        // the buffer longer.
        unsafe { (self.library.table.delete_tensor)(self.tensor) }
    }
}

/// How many elements a shape has; `None` for negative sizes and overflow.
fn elements(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
}

/// Drops what [`TensorFlowValue::over`] kept.
///
/// # Safety
/// `owner` must come from there, and this must be the only call for it.
unsafe extern "C" fn release_bytes(_: *mut c_void, _: usize, owner: *mut c_void) {
    // SAFETY: made by `Box::into_raw` there.
    drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
}

/// Drops what [`TensorFlowValue::strings`] kept.
///
/// # Safety
/// As for [`release_bytes`].
unsafe extern "C" fn release_strings(_: *mut c_void, _: usize, owner: *mut c_void) {
    // SAFETY: made by `Box::into_raw` there.
    drop(unsafe { Box::from_raw(owner.cast::<Strings>()) });
}
