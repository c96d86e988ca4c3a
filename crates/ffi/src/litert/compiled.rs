//! A model file compiled for the processor, and its runs.
//!
//! Invariant: buffers live for one call of `run`. LiteRT remembers their addresses, but reads and
//! writes there only inside of a run, which gives it new ones first; outside of it compares sizes.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::error::LiteRtError;
use super::library::{CPU, LiteRt};
use super::table::{Buffer, Compiled, Layout, Model, OpaqueOptions, Options, TensorType};

/// What LiteRT calls its options of the processor, and those of its runtime.
const CPU_OPTIONS: &CStr = c"xnnpack";
const RUNTIME_OPTIONS: &CStr = c"runtime_options_string";

/// Bytes of a model file, aligned to 64, that stay as they are.
type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// One input of a run.
#[derive(Clone, Copy, Debug)]
pub struct LiteRtInput<'a> {
    /// `LiteRtElementType`.
    pub element: i32,
    /// Its sizes.
    pub dims: &'a [i32],
    /// Its bytes; the first must be aligned to 64.
    pub bytes: &'a [u8],
}

/// Room for one output of a run.
#[derive(Debug)]
pub struct LiteRtOutput<'a> {
    /// `LiteRtElementType`.
    pub element: i32,
    /// Its sizes as far as they are known before the run.
    pub dims: &'a [i32],
    /// Room for its bytes, as many as these sizes say or more; the first must be aligned to 64.
    pub bytes: &'a mut [u8],
}

/// A model, ready to run. One run at a time.
pub struct LiteRtModel {
    library: &'static LiteRt,
    model: *mut Model,
    compiled: *mut Compiled,
    /// How many inputs and outputs each signature has.
    arity: Vec<(usize, usize)>,
    /// What the callback reads, at an address that LiteRT knows.
    deadline: Arc<Deadline>,
    /// What the model points into.
    _bytes: Bytes,
}

/// When a run is to end.
type Deadline = Mutex<Option<Instant>>;

// SAFETY: LiteRT's objects have no tie to a thread; every call that changes them takes `&mut self`.
unsafe impl Send for LiteRtModel {}
// SAFETY: nothing is called through `&self`.
unsafe impl Sync for LiteRtModel {}

/// What computes a model's operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiteRtKernels {
    /// XNNPACK, where it has them. Of a tensor whose sizes show in a run after operators of XNNPACK, LiteRT
    /// does not see that it is too large for its memory, and writes beyond it.
    Fast,
    /// LiteRT's own, whose results are always checked.
    Checked,
}

impl LiteRtModel {
    /// Compiles the model in `bytes`, whose signatures must be called `keys`, in this order. A run
    /// uses up to `threads` threads.
    ///
    /// With [`LiteRtKernels::Fast`], the sizes of all tensors must follow from those of the inputs.
    ///
    /// # Errors
    /// What LiteRT says. Some damaged models end the process instead, now or at a later call.
    pub fn load(
        library: &'static LiteRt,
        bytes: Bytes,
        keys: &[&str],
        threads: usize,
        kernels: LiteRtKernels,
    ) -> Result<LiteRtModel, LiteRtError> {
        let view: &[u8] = (*bytes).as_ref();
        let mut model = LiteRtModel {
            library,
            model: ptr::null_mut(),
            compiled: ptr::null_mut(),
            arity: Vec::new(),
            deadline: Arc::default(),
            _bytes: Arc::clone(&bytes),
        };
        // SAFETY: the bytes are readable and are kept until after the model is destroyed; the
        // result goes to a pointer of ours, as in the calls below.
        let status = unsafe {
            (library.table.create_model)(
                library.environment,
                view.as_ptr().cast(),
                view.len(),
                &raw mut model.model,
            )
        };
        check(status, "reading the model")?;
        model.arity = model.signatures(keys)?;
        let options = OwnOptions::new(library, threads, kernels)?;
        // SAFETY: all three live during the call; the model lives longer than what is made of it.
        let status = unsafe {
            (library.table.create_compiled)(
                library.environment,
                model.model,
                options.options,
                &raw mut model.compiled,
            )
        };
        check(status, "compiling the model")?;
        let data = Arc::as_ptr(&model.deadline).cast_mut();
        // SAFETY: what it points to is shared, changed under its lock alone, and kept for as long as
        // the compiled model.
        let status =
            unsafe { (library.table.set_cancellation)(model.compiled, data.cast(), has_passed) };
        check(status, "setting up cancellation")?;
        Ok(model)
    }

    /// Checks that LiteRT sees the signatures that are expected; gives their arities.
    fn signatures(&self, keys: &[&str]) -> Result<Vec<(usize, usize)>, LiteRtError> {
        let table = &self.library.table;
        let mut count = 0;
        // SAFETY: the model is alive; results go to places of ours, here and below.
        let status = unsafe { (table.signature_count)(self.model, &raw mut count) };
        check(status, "counting signatures")?;
        if count != keys.len() {
            return Err(LiteRtError::invalid(format!(
                "LiteRT sees {count} signatures, not {}",
                keys.len()
            )));
        }
        let mut arity = Vec::with_capacity(count);
        for (index, &key) in keys.iter().enumerate() {
            let (mut signature, mut found) = (ptr::null_mut(), ptr::null());
            let (mut inputs, mut outputs) = (0, 0);
            // SAFETY: the index is below the count; the signature belongs to the model.
            let statuses = unsafe {
                [
                    (table.signature)(self.model, index, &raw mut signature),
                    (table.signature_key)(signature, &raw mut found),
                    (table.input_count)(signature, &raw mut inputs),
                    (table.output_count)(signature, &raw mut outputs),
                ]
            };
            statuses.into_iter().try_for_each(|status| check(status, "reading a signature"))?;
            // SAFETY: the text is terminated by zero and belongs to the model.
            let is_expected = unsafe { CStr::from_ptr(found) }.to_bytes() == key.as_bytes();
            if !is_expected {
                return Err(LiteRtError::invalid("LiteRT sees the signatures in another order"));
            }
            arity.push((inputs, outputs));
        }
        Ok(arity)
    }

    /// Gives an input other sizes; they count from the next [`LiteRtModel::allocate`] on.
    ///
    /// # Errors
    /// What LiteRT says; sizes must be above 0.
    pub fn resize(
        &mut self,
        signature: usize,
        input: usize,
        dims: &[i32],
    ) -> Result<(), LiteRtError> {
        if dims.is_empty() {
            return Err(LiteRtError::invalid("a tensor without dimensions has one size"));
        }
        // SAFETY: the compiled model is alive, `dims` is readable; LiteRT checks both positions.
        let status = unsafe {
            (self.library.table.resize)(self.compiled, signature, input, dims.as_ptr(), dims.len())
        };
        self.checked(status, "resizing an input")
    }

    /// Lays a signature's tensors out, and gives the sizes of its outputs as far as they are known
    /// then.
    ///
    /// # Errors
    /// What LiteRT says: an operator that it does not know, sizes that do not fit together.
    pub fn allocate(&mut self, signature: usize) -> Result<Vec<Vec<i32>>, LiteRtError> {
        self.layouts(signature, true)
    }

    /// The sizes that the outputs had after the last run.
    ///
    /// # Errors
    /// What LiteRT says.
    pub fn output_dims(&mut self, signature: usize) -> Result<Vec<Vec<i32>>, LiteRtError> {
        self.layouts(signature, false)
    }

    fn layouts(&mut self, signature: usize, allocate: bool) -> Result<Vec<Vec<i32>>, LiteRtError> {
        let (_, count) = self.arity_of(signature)?;
        // LiteRT writes as many sizes as a tensor has, and a rank has 7 bits: two layouts more take
        // what does not fit into the last.
        let mut layouts =
            vec![Layout::default(); count + 128usize.div_ceil(super::table::RANK_MAX)];
        // SAFETY: there is room for `count` layouts, and behind them for the sizes of any rank.
        let status = unsafe {
            (self.library.table.output_layouts)(
                self.compiled,
                signature,
                count,
                layouts.as_mut_ptr(),
                allocate,
            )
        };
        self.checked(status, "laying tensors out")?;
        layouts[..count]
            .iter()
            .map(|layout| layout.dims().map(<[i32]>::to_vec))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| LiteRtError::invalid("an output has more than 8 dimensions"))
    }

    /// Runs a signature. Every input must have been given its sizes by [`LiteRtModel::resize`] and
    /// laid out before.
    ///
    /// # Errors
    /// What LiteRT says, with [`LiteRtError::CANCELLED`] when `deadline` passed, which is looked at
    /// between operators. After an error, an input must be resized before the next run.
    pub fn run(
        &mut self,
        signature: usize,
        inputs: &[LiteRtInput<'_>],
        outputs: &mut [LiteRtOutput<'_>],
        deadline: Option<Instant>,
    ) -> Result<(), LiteRtError> {
        if self.arity_of(signature)? != (inputs.len(), outputs.len()) {
            return Err(LiteRtError::invalid("another number of tensors than the signature has"));
        }
        let mut buffers = Buffers { library: self.library, inputs: vec![], outputs: vec![] };
        for input in inputs {
            // LiteRT reads inputs alone, whatever its signature says of the pointer.
            let place = input.bytes.as_ptr().cast_mut();
            let buffer = self.buffer(input.element, input.dims, place, input.bytes.len())?;
            buffers.inputs.push(buffer);
        }
        for output in &mut *outputs {
            let (place, length) = (output.bytes.as_mut_ptr(), output.bytes.len());
            let buffer = self.buffer(output.element, output.dims, place, length)?;
            buffers.outputs.push(buffer);
        }
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
        // SAFETY: the numbers of buffers are those of the signature; each covers memory that is
        // borrowed until this returns, for writing where it is an output. LiteRT fails when
        // a tensor does not fit into its buffer, which it sees where the sizes are known before the run or
        // the kernels are its own: the caller chose them so.
        let status = unsafe {
            (self.library.table.run)(
                self.compiled,
                signature,
                buffers.inputs.len(),
                buffers.inputs.as_mut_ptr(),
                buffers.outputs.len(),
                buffers.outputs.as_mut_ptr(),
            )
        };
        self.checked(status, "running the model")
    }

    fn arity_of(&self, signature: usize) -> Result<(usize, usize), LiteRtError> {
        let arity = self.arity.get(signature).copied();
        arity.ok_or_else(|| LiteRtError::invalid("there is no such signature"))
    }

    /// A buffer over memory that the caller vouches for until it is destroyed.
    fn buffer(
        &self,
        element: i32,
        dims: &[i32],
        place: *mut u8,
        length: usize,
    ) -> Result<*mut Buffer, LiteRtError> {
        let layout = Layout::of(dims)
            .ok_or_else(|| LiteRtError::invalid("a tensor has more than 8 dimensions"))?;
        let kind = TensorType { element, layout };
        let mut buffer = ptr::null_mut();
        // SAFETY: the type is readable during the call and copied; without a destructor LiteRT frees
        // nothing. Whether `length` suffices for `dims` is checked by LiteRT.
        let status = unsafe {
            (self.library.table.create_buffer)(
                &raw const kind,
                place.cast(),
                length,
                None,
                &raw mut buffer,
            )
        };
        check(status, "making a buffer")?;
        Ok(buffer)
    }

    /// What a call came to, with what LiteRT wrote meanwhile.
    fn checked(&mut self, status: i32, what: &str) -> Result<(), LiteRtError> {
        let Err(mut error) = check(status, what) else { return Ok(()) };
        let mut text: *mut c_char = ptr::null_mut();
        // SAFETY: the compiled model is alive; the text is ours to free.
        let found = unsafe { (self.library.table.error_messages)(self.compiled, &raw mut text) };
        if found == 0 && !text.is_null() {
            // SAFETY: terminated by zero, allocated by `malloc`, not used after.
            let said = unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned();
            // SAFETY: as above.
            unsafe { libc::free(text.cast()) };
            if !said.is_empty() {
                error.message = said;
                error.is_explained = true;
            }
        }
        // SAFETY: the compiled model is alive.
        let _ = unsafe { (self.library.table.clear_errors)(self.compiled) };
        Err(error)
    }
}

impl Drop for LiteRtModel {
    fn drop(&mut self) {
        // SAFETY: each was made once and is destroyed here alone, the user before the used.
        unsafe {
            if !self.compiled.is_null() {
                (self.library.table.destroy_compiled)(self.compiled);
            }
            if !self.model.is_null() {
                (self.library.table.destroy_model)(self.model);
            }
        }
    }
}

/// The buffers of one run.
struct Buffers {
    library: &'static LiteRt,
    inputs: Vec<*mut Buffer>,
    outputs: Vec<*mut Buffer>,
}

impl Drop for Buffers {
    fn drop(&mut self) {
        for &buffer in self.inputs.iter().chain(&self.outputs) {
            // SAFETY: made for this run, destroyed here alone; LiteRT counts references of its own.
            unsafe { (self.library.table.destroy_buffer)(buffer) }
        }
    }
}

/// `LiteRtOptions` of our own.
struct OwnOptions {
    library: &'static LiteRt,
    options: *mut Options,
}

impl OwnOptions {
    fn new(
        library: &'static LiteRt,
        threads: usize,
        kernels: LiteRtKernels,
    ) -> Result<OwnOptions, LiteRtError> {
        let mut own = OwnOptions { library, options: ptr::null_mut() };
        // SAFETY: the result goes to a pointer of ours.
        check(unsafe { (library.table.create_options)(&raw mut own.options) }, "making options")?;
        // SAFETY: the options are alive.
        let status = unsafe { (library.table.set_accelerators)(own.options, CPU) };
        check(status, "choosing the processor")?;
        // Mode 2 keeps error texts until they are asked for.
        own.add(RUNTIME_OPTIONS, "error_reporter_mode = 2\n".to_owned())?;
        let mode = match kernels {
            LiteRtKernels::Fast => "",
            LiteRtKernels::Checked => "kernel_mode = 2\n",
        };
        own.add(CPU_OPTIONS, format!("{mode}num_threads = {}\n", threads.max(1)))?;
        Ok(own)
    }

    /// Adds options that LiteRT reads as text.
    fn add(&mut self, name: &CStr, text: String) -> Result<(), LiteRtError> {
        let text = CString::new(text).map_err(|_| LiteRtError::invalid("a zero byte"))?.into_raw();
        let mut opaque: *mut OpaqueOptions = ptr::null_mut();
        // SAFETY: the name is copied; the text is terminated by zero and freed by `free_text`, once,
        // when LiteRT drops the options.
        let status = unsafe {
            (self.library.table.create_opaque)(
                name.as_ptr(),
                text.cast(),
                free_text,
                &raw mut opaque,
            )
        };
        if let Err(error) = check(status, "making options") {
            // SAFETY: LiteRT took nothing.
            unsafe { free_text(text.cast()) };
            return Err(error);
        }
        // SAFETY: both are alive; the options own the opaque ones from here on, unless it fails.
        let status = unsafe { (self.library.table.add_opaque)(self.options, opaque) };
        check(status, "adding options").inspect_err(|_| {
            // SAFETY: still ours.
            unsafe { (self.library.table.destroy_opaque)(opaque) }
        })
    }
}

impl Drop for OwnOptions {
    fn drop(&mut self) {
        if !self.options.is_null() {
            // SAFETY: made in `new`, destroyed here alone; what was compiled keeps none of it.
            unsafe { (self.library.table.destroy_options)(self.options) }
        }
    }
}

/// Frees a text of [`OwnOptions::add`].
///
/// # Safety
/// `text` must come from there, and this must be the only call for it.
unsafe extern "C" fn free_text(text: *mut c_void) {
    // SAFETY: made by `CString::into_raw` there.
    drop(unsafe { CString::from_raw(text.cast()) });
}

/// Whether the deadline of the run under way has passed.
///
/// # Safety
/// `data` must be the [`Deadline`] of a model that lives.
unsafe extern "C" fn has_passed(data: *mut c_void) -> bool {
    // SAFETY: the caller's word.
    let deadline = unsafe { &*data.cast::<Deadline>() };
    let deadline = *deadline.lock().unwrap_or_else(PoisonError::into_inner);
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

fn check(status: i32, what: &str) -> Result<(), LiteRtError> {
    if status == 0 {
        return Ok(());
    }
    let message = format!("{what} failed with LiteRT's status {status}");
    Err(LiteRtError { code: status, message, is_explained: false })
}
