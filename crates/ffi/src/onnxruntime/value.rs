//! Tensors of ONNX Runtime: made over memory of ours, or given by a run.
//!
//! Invariant: whatever memory a value may point into is kept by it: its own, that of the inputs of
//! the run that gave it, and that of the session whose weights it may be.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::error::OnnxRuntimeError;
use super::library::OnnxRuntime;
use super::session::Open;
use super::table::Value;

/// `ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING`.
const STRING: i32 = 8;

/// Memory that a value is made over.
pub(super) type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The strings of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxTexts {
    /// All of them, one behind the other.
    pub payload: Vec<u8>,
    /// Where each begins.
    pub starts: Vec<usize>,
}

/// A tensor that ONNX Runtime can read, or has made.
pub struct OnnxValue {
    pub(super) library: &'static OnnxRuntime,
    pub(super) value: *mut Value,
    element: i32,
    dims: Vec<i64>,
    /// What it may point into, besides memory that belongs to the value itself.
    kept: Vec<Bytes>,
    session: Option<Arc<Open>>,
}

// SAFETY: an `OrtValue` has no tie to a thread, and its elements are not written after it was made.
unsafe impl Send for OnnxValue {}
// SAFETY: as above; the calls on `&self` only read.
unsafe impl Sync for OnnxValue {}

impl OnnxValue {
    /// A tensor over `bytes`, in place. `element` is an `ONNXTensorElementDataType`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the number of bytes is not what the rest says, they are not aligned
    /// for their elements, or elements of the type have no width of whole bytes.
    pub fn over(
        library: &'static OnnxRuntime,
        element: i32,
        dims: &[i64],
        bytes: Bytes,
    ) -> Result<OnnxValue, OnnxRuntimeError> {
        let view: &[u8] = (*bytes).as_ref();
        let (place, length) = (view.as_ptr(), view.len());
        let width = check_bytes(element, dims, length)?;
        if !place.addr().is_multiple_of(width) {
            return Err(OnnxRuntimeError::invalid("a tensor's bytes are not aligned"));
        }
        let mut value = ptr::null_mut();
        // SAFETY: the pointer covers `length` readable bytes that `kept` keeps alive and behind an
        // `Arc`, so nobody can have them by `&mut`, for as long as the value, and as each output
        // that shares them. ONNX Runtime does not write to the inputs of a run. The result goes to a
        // pointer of ours.
        let status = unsafe {
            (library.table.create_tensor_over)(
                library.host,
                place.cast_mut().cast::<c_void>(),
                length,
                dims.as_ptr(),
                dims.len(),
                element,
                &raw mut value,
            )
        };
        library.check(status)?;
        let dims = dims.to_vec();
        Ok(OnnxValue { library, value, element, dims, kept: vec![bytes], session: None })
    }

    /// A string tensor with copies of `strings`, which may hold any bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there are not as many strings as the shape says.
    pub fn strings<'a>(
        library: &'static OnnxRuntime,
        dims: &[i64],
        strings: impl Iterator<Item = &'a [u8]>,
    ) -> Result<OnnxValue, OnnxRuntimeError> {
        let other_count =
            || OnnxRuntimeError::invalid("a tensor has another number of strings than its shape");
        let count = elements(dims).ok_or_else(other_count)?;
        let made = OnnxValue::made(library, STRING, dims)?;
        let mut filled = 0;
        for text in strings {
            if filled == count {
                return Err(other_count());
            }
            let mut buffer = ptr::null_mut();
            // SAFETY: the index is below the number of strings; the result goes to a pointer of ours.
            let status = unsafe {
                (library.table.string_buffer)(made.value, filled, text.len(), &raw mut buffer)
            };
            library.check(status)?;
            if !text.is_empty() {
                if buffer.is_null() {
                    return Err(OnnxRuntimeError::invalid("a string has no memory"));
                }
                // SAFETY: the string was given room for `text.len()` bytes by the call above.
                unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), text.len()) }
            }
            filled += 1;
        }
        if filled != count {
            return Err(other_count());
        }
        Ok(made)
    }

    /// A tensor in memory of its own, not written yet; strings are empty.
    fn made(
        library: &'static OnnxRuntime,
        element: i32,
        dims: &[i64],
    ) -> Result<OnnxValue, OnnxRuntimeError> {
        let mut value = ptr::null_mut();
        // SAFETY: the allocator lives as long as the process, `dims` is readable; the result goes to
        // a pointer of ours.
        let status = unsafe {
            (library.table.create_tensor)(
                library.allocator,
                dims.as_ptr(),
                dims.len(),
                element,
                &raw mut value,
            )
        };
        library.check(status)?;
        let dims = dims.to_vec();
        Ok(OnnxValue { library, value, element, dims, kept: Vec::new(), session: None })
    }

    /// Takes over what a run of `session` gave.
    ///
    /// # Safety
    /// The pointer must be an `OrtValue` that nobody else releases.
    pub(super) unsafe fn given(
        session: Arc<Open>,
        value: *mut Value,
        inputs: &[&OnnxValue],
    ) -> Result<OnnxValue, OnnxRuntimeError> {
        let library = session.library;
        let mut given = OnnxValue {
            library,
            value,
            element: 0,
            dims: Vec::new(),
            kept: Vec::new(),
            session: Some(session),
        };
        let mut is_tensor: c_int = 0;
        // SAFETY: the value is alive; the result goes to a place of ours.
        library.check(unsafe { (library.table.is_tensor)(value, &raw mut is_tensor) })?;
        if is_tensor == 0 {
            return Err(OnnxRuntimeError::invalid("an output is no tensor"));
        }
        given.learn_type()?;
        given.keep_shared(inputs)?;
        Ok(given)
    }

    /// Asks for element type and shape.
    fn learn_type(&mut self) -> Result<(), OnnxRuntimeError> {
        let (library, table) = (self.library, &self.library.table);
        let mut described = ptr::null_mut();
        // SAFETY: the value is alive; the result goes to a pointer of ours.
        library.check(unsafe { (table.type_and_shape)(self.value, &raw mut described) })?;
        let mut rank = 0;
        // SAFETY: the description is alive until it is released below; `dims` has room for `rank`
        // sizes when it is asked for them.
        let outcome = unsafe {
            library
                .check((table.element_type)(described, &raw mut self.element))
                .and_then(|()| library.check((table.dims_count)(described, &raw mut rank)))
                .and_then(|()| {
                    self.dims = vec![0; rank];
                    library.check((table.dims)(described, self.dims.as_mut_ptr(), rank))
                })
        };
        // SAFETY: it is ours, and not used after.
        unsafe { (table.release_type_and_shape)(described) };
        outcome
    }

    /// Keeps the inputs whose memory this output is: a graph may give an input back as it is.
    fn keep_shared(&mut self, inputs: &[&OnnxValue]) -> Result<(), OnnxRuntimeError> {
        if self.element == STRING {
            // Strings are shared by counting, never by address.
            return Ok(());
        }
        let at = self.data()?.addr();
        for bytes in inputs.iter().flat_map(|input| &input.kept) {
            let view: &[u8] = (**bytes).as_ref();
            let start = view.as_ptr().addr();
            if (start..=start + view.len()).contains(&at) {
                self.kept.push(Arc::clone(bytes));
            }
        }
        Ok(())
    }

    fn data(&self) -> Result<*const u8, OnnxRuntimeError> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is alive and a tensor of numbers; nothing is written through the pointer.
        let status = unsafe { (self.library.table.tensor_data)(self.value, &raw mut data) };
        self.library.check(status)?;
        Ok(data.cast::<u8>().cast_const())
    }

    /// The memory that it was made over; `None` for a value that was not made over any.
    pub(super) fn memory(&self) -> Option<Bytes> {
        self.kept.first().filter(|_| self.session.is_none()).cloned()
    }

    /// Its `ONNXTensorElementDataType`.
    pub fn element(&self) -> i32 {
        self.element
    }

    /// Its shape.
    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    /// Its elements, row-major and little-endian; `None` where they have no width of whole bytes.
    pub fn bytes(&self) -> Option<&[u8]> {
        let length = elements(&self.dims)?.checked_mul(width(self.element)?)?;
        if length == 0 {
            return Some(&[]);
        }
        let data = self.data().ok().filter(|data| !data.is_null())?;
        // SAFETY: ONNX Runtime gives as many bytes as shape and type say, written by its kernels or
        // by whoever made the value; they live as long as the value with what it keeps, and are not
        // written any more.
        Some(unsafe { std::slice::from_raw_parts(data, length) })
    }

    /// Its strings.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it holds none; what ONNX Runtime says.
    pub fn texts(&self) -> Result<OnnxTexts, OnnxRuntimeError> {
        let count = elements(&self.dims)
            .filter(|_| self.element == STRING)
            .ok_or_else(|| OnnxRuntimeError::invalid("a tensor holds no strings"))?;
        let table = &self.library.table;
        let mut length = 0;
        // SAFETY: the value is alive; the result goes to a place of ours.
        self.library.check(unsafe { (table.strings_length)(self.value, &raw mut length) })?;
        let (mut payload, mut starts) = (vec![0u8; length], vec![0usize; count]);
        if count > 0 {
            // SAFETY: both buffers have the lengths that are told, and are written during the call.
            let status = unsafe {
                (table.strings_content)(
                    self.value,
                    payload.as_mut_ptr().cast(),
                    length,
                    starts.as_mut_ptr(),
                    count,
                )
            };
            self.library.check(status)?;
        }
        Ok(OnnxTexts { payload, starts })
    }
}

impl Drop for OnnxValue {
    fn drop(&mut self) {
        // SAFETY: owned by this value alone; ONNX Runtime counts references of its own to memory
        // that it made. It goes before what it points into, which is dropped after.
        unsafe { (self.library.table.release_value)(self.value) }
    }
}

/// How many elements a shape has; `None` for negative sizes and overflow.
fn elements(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
}

/// Bytes of an element; `None` for strings and for elements of less than a byte.
fn width(element: i32) -> Option<usize> {
    match element {
        // uint8, int8, bool, the four floats of 8 bits.
        2 | 3 | 9 | 17..=20 => Some(1),
        // uint16, int16, float16, bfloat16.
        4 | 5 | 10 | 16 => Some(2),
        // float, int32, uint32.
        1 | 6 | 12 => Some(4),
        // int64, double, uint64, complex64.
        7 | 11 | 13 | 14 => Some(8),
        // complex128.
        15 => Some(16),
        _ => None,
    }
}

/// Checks that there are as many bytes as the type and the shape say; gives the width of an element.
fn check_bytes(element: i32, dims: &[i64], length: usize) -> Result<usize, OnnxRuntimeError> {
    let width = width(element).ok_or_else(|| {
        OnnxRuntimeError::invalid("a tensor of this type has no bytes to be made over")
    })?;
    if elements(dims).and_then(|count| count.checked_mul(width)) != Some(length) {
        return Err(OnnxRuntimeError::invalid(
            "a tensor has another number of bytes than its type and shape say",
        ));
    }
    Ok(width)
}
