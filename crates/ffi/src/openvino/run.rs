//! Requests of a compiled model, and their runs, one after another.
//!
//! Invariant: a request owns what its run reads, and lets go of it only when OpenVINO has ended the run.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::error::OpenVinoError;
use super::library::OpenVino;
use super::model::Open;
use super::table::{OK, RESULT_NOT_READY, Request, Shape, Tensor};
use super::{byte_len, width};

/// An input: memory that is read in place.
pub struct OpenVinoInput {
    /// Its `ov_element_type_e`.
    pub element: u32,
    /// Its shape.
    pub dims: Vec<i64>,
    /// Its elements, row-major and little-endian.
    pub bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

/// One run at a time of a compiled model. Dropping it waits for the end of its run.
pub struct OpenVinoRequest {
    open: Arc<Open>,
    request: *mut Request,
    /// How many inputs the model has.
    inputs_len: usize,
    /// What the last run reads.
    inputs: Vec<OpenVinoInput>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was run, or what the last run read is gone.
    Idle,
    Running,
    Over,
}

// SAFETY: a request has no tie to a thread, and is called by one at a time here.
unsafe impl Send for OpenVinoRequest {}

/// An output, which a run that is over keeps.
#[derive(Debug)]
pub struct OpenVinoOutput<'r> {
    /// Its `ov_element_type_e`.
    pub element: u32,
    /// Its shape.
    pub dims: Vec<i64>,
    /// Its elements, row-major and little-endian.
    pub bytes: &'r [u8],
}

impl OpenVinoRequest {
    /// A request of a compiled model, no request of which may have run yet.
    pub(super) fn new(
        open: &Arc<Open>,
        inputs_len: usize,
    ) -> Result<OpenVinoRequest, OpenVinoError> {
        let library: &OpenVino = open.library;
        let mut request = ptr::null_mut();
        // SAFETY: the model is alive, and no run of it goes on; the result goes to a pointer of ours.
        let status = unsafe { (library.table.create_request)(open.compiled, &raw mut request) };
        library.check(status)?;
        let (open, inputs) = (Arc::clone(open), Vec::new());
        Ok(OpenVinoRequest { open, request, inputs_len, inputs, state: State::Idle })
    }

    /// Starts a run over all inputs, in the model's order.
    ///
    /// # Errors
    /// When they do not fit, or when a run goes on; what OpenVINO says.
    pub fn start(&mut self, inputs: Vec<OpenVinoInput>) -> Result<(), OpenVinoError> {
        let library = self.open.library;
        if self.state == State::Running {
            return Err(OpenVinoError::invalid("a run of this request goes on"));
        }
        if inputs.len() != self.inputs_len {
            return Err(OpenVinoError::invalid("the model has another number of inputs"));
        }
        self.state = State::Idle;
        self.inputs = inputs;
        self.set_inputs()?;
        // SAFETY: the request is alive, and nothing runs on it.
        library.check(unsafe { (library.table.start)(self.request) })?;
        self.state = State::Running;
        Ok(())
    }

    /// Lets go of what the last run read, and of its outputs with it. A run that goes on is ended
    /// first.
    pub fn clear(&mut self) {
        self.end();
        self.state = State::Idle;
        self.inputs = Vec::new();
    }

    /// Ends a run that goes on.
    fn end(&mut self) {
        if self.state == State::Running {
            self.cancel();
            // What it came to is nobody's concern any more.
            let _ = self.wait();
        }
    }

    fn set_inputs(&mut self) -> Result<(), OpenVinoError> {
        let (library, table) = (self.open.library, &self.open.library.table);
        for (index, input) in self.inputs.iter_mut().enumerate() {
            let view: &[u8] = (*input.bytes).as_ref();
            let aligned = |width: usize| view.as_ptr().addr().is_multiple_of(width);
            if byte_len(input.element, &input.dims) != Some(view.len())
                || !width(input.element).is_some_and(aligned)
            {
                return Err(OpenVinoError::invalid(
                    "a tensor's bytes are not aligned, or not as many as its type and shape say",
                ));
            }
            let place = view.as_ptr().cast_mut().cast::<c_void>();
            let shape = Shape { rank: input.dims.len() as i64, dims: input.dims.as_mut_ptr() };
            let mut tensor = ptr::null_mut();
            // SAFETY: the sizes are readable during the call; the memory has as many bytes as type
            // and shape say, and is kept, behind an `Arc`, until the run is over; a next run starts
            // only when all inputs were set anew. OpenVINO does not write to inputs. The result goes
            // to a pointer of ours.
            let made =
                unsafe { (table.create_tensor_over)(input.element, shape, place, &raw mut tensor) };
            library.check(made)?;
            // SAFETY: both are alive; the request takes a share of the tensor, whose own handle is
            // then released, once.
            let set = unsafe {
                let set = (table.set_input)(self.request, index, tensor);
                (table.free_tensor)(tensor);
                set
            };
            library.check(set)?;
        }
        Ok(())
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// What OpenVINO says; that of a run that was cancelled is no other kind.
    pub fn wait(&mut self) -> Result<(), OpenVinoError> {
        // SAFETY: the request is alive.
        let status = unsafe { (self.open.library.table.wait)(self.request) };
        if self.state == State::Running {
            self.state = if status == OK { State::Over } else { State::Idle };
        }
        self.open.library.check(status)
    }

    /// Waits for `time` at most, in whole milliseconds; tells whether the run is over.
    ///
    /// # Errors
    /// What OpenVINO says: the run is over then, too.
    pub fn wait_for(&mut self, time: Duration) -> Result<bool, OpenVinoError> {
        let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX >> 32).min(i64::MAX >> 32);
        // SAFETY: the request is alive.
        let status = unsafe { (self.open.library.table.wait_for)(self.request, time_ms) };
        if status == RESULT_NOT_READY {
            return Ok(false);
        }
        // What else it says need not mean that the run ended.
        self.wait()?;
        Ok(true)
    }

    /// Asks the run to end before its next operator; operators of loops and branches do not look.
    pub fn cancel(&self) {
        // SAFETY: the request is alive. What it answers is of no use: the run may be over.
        unsafe { (self.open.library.table.cancel)(self.request) };
    }

    /// An output, by the model's order.
    ///
    /// # Errors
    /// When the run is not over, for an index that is none, and for elements that have no width of
    /// whole bytes; what OpenVINO says.
    pub fn output(&self, index: usize) -> Result<OpenVinoOutput<'_>, OpenVinoError> {
        if self.state != State::Over || index >= self.open.outputs {
            return Err(OpenVinoError::invalid("there is no such output"));
        }
        let (library, table) = (self.open.library, &self.open.library.table);
        let mut tensor = ptr::null_mut();
        // SAFETY: the request is alive; the result goes to a pointer of ours.
        library.check(unsafe { (table.get_output)(self.request, index, &raw mut tensor) })?;
        let told = self.describe(tensor);
        // SAFETY: ours, and not used after; the request keeps the memory.
        unsafe { (table.free_tensor)(tensor) };
        let (element, dims, place, length) = told?;
        if length == 0 {
            return Ok(OpenVinoOutput { element, dims, bytes: &[] });
        }
        // SAFETY: the tensor has as many bytes as OpenVINO says and type and shape agree to. Its
        // memory is the request's, or an input's, both of which stay while this value is borrowed, for
        // what starts a run or lets go of inputs wants it alone.
        let bytes = unsafe { std::slice::from_raw_parts(place, length) };
        Ok(OpenVinoOutput { element, dims, bytes })
    }

    /// Element type, sizes, place and number of bytes of a tensor that is alive.
    fn describe(
        &self,
        tensor: *const Tensor,
    ) -> Result<(u32, Vec<i64>, *const u8, usize), OpenVinoError> {
        let (library, table) = (self.open.library, &self.open.library.table);
        let (mut element, mut length, mut place) = (0, 0, ptr::null_mut());
        let mut shape = Shape { rank: 0, dims: ptr::null_mut() };
        // SAFETY: the tensor is alive; results go to places of ours. The sizes are as many as the
        // rank says, copied, and released once.
        let dims = unsafe {
            library.check((table.tensor_element)(tensor, &raw mut element))?;
            match library.check((table.tensor_shape)(tensor, &raw mut shape)) {
                // It has no shape for a scalar; that there is one element is seen below.
                Err(error) if error.is_of_the_api() => shape.rank = 0,
                told => told?,
            }
            let rank = usize::try_from(shape.rank).unwrap_or(0);
            let dims = match rank {
                0 => Vec::new(),
                _ => std::slice::from_raw_parts(shape.dims, rank).to_vec(),
            };
            (table.free_shape)(&raw mut shape);
            dims
        };
        let unusable = || OpenVinoError::invalid("an output has elements without a width");
        let wanted = byte_len(element, &dims).ok_or_else(unusable)?;
        if wanted == 0 {
            return Ok((element, dims, ptr::null(), 0));
        }
        // SAFETY: as above; nothing is written through the pointer.
        unsafe {
            library.check((table.tensor_bytes)(tensor, &raw mut length))?;
            library.check((table.tensor_data)(tensor, &raw mut place))?;
        }
        if place.is_null() || length != wanted {
            return Err(unusable());
        }
        Ok((element, dims, place.cast::<u8>().cast_const(), length))
    }
}

impl Drop for OpenVinoRequest {
    fn drop(&mut self) {
        self.end();
        // SAFETY: ours, released here alone, with no run on it; what it read is dropped after.
        unsafe { (self.open.library.table.free_request)(self.request) }
    }
}
