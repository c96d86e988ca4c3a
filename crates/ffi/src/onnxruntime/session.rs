//! A model in ONNX Runtime, and its runs.
//!
//! Runs of one session may go on at the same time, from any threads.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::Arc;

use super::error::OnnxRuntimeError;
use super::library::OnnxRuntime;
use super::table::{PackedWeights, RunOptions, Session, SessionOptions, Value};
use super::value::OnnxValue;

/// Threads that wait for work sleep: spinning takes the time of others for little.
const NO_SPINNING: [&CStr; 2] =
    [c"session.intra_op.allow_spinning", c"session.inter_op.allow_spinning"];
/// All sessions share the arena that was registered.
const SHARED_ARENA: &CStr = c"session.use_env_allocators";
/// Weights are no part of the arena, which would round them up.
const WEIGHTS_APART: &CStr = c"session.use_device_allocator_for_initializers";

/// A model, ready to run.
pub struct OnnxSession {
    open: Arc<Open>,
}

/// What outputs may point into.
pub(super) struct Open {
    pub(super) library: &'static OnnxRuntime,
    session: *mut Session,
    /// Weights that it reads where they lie.
    _weights: Vec<(CString, OnnxValue)>,
    /// The same as kernels have packed it.
    _packed: OnnxPackedWeights,
}

/// Weights of several sessions as their kernels have packed them: each once, whoever packs it first.
#[derive(Clone)]
pub struct OnnxPackedWeights(Arc<Packed>);

struct Packed {
    library: &'static OnnxRuntime,
    weights: *mut PackedWeights,
}

// SAFETY: ONNX Runtime locks it while a session is made; sessions read what is in it.
unsafe impl Send for Packed {}
// SAFETY: as above.
unsafe impl Sync for Packed {}

impl OnnxPackedWeights {
    /// None so far.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn new(library: &'static OnnxRuntime) -> Result<OnnxPackedWeights, OnnxRuntimeError> {
        let mut weights = ptr::null_mut();
        // SAFETY: the result goes to a pointer of ours.
        library.check(unsafe { (library.table.create_packed_weights)(&raw mut weights) })?;
        Ok(OnnxPackedWeights(Arc::new(Packed { library, weights })))
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        // SAFETY: made once, released here alone, after all sessions that read it: each has a share.
        unsafe { (self.library.table.release_packed_weights)(self.weights) }
    }
}

// SAFETY: ONNX Runtime allows runs of one session from any threads at once; it is released when
// nobody has it any more.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: made once, released here alone, when no run goes on and no output is left; the
        // memory of the weights goes after it.
        unsafe { (self.library.table.release_session)(self.session) }
    }
}

impl OnnxSession {
    /// Makes a session of a serialized model. Initializers that the model declares to lie elsewhere
    /// are given by name in `weights`, which must have been made over memory; what kernels make of them
    /// goes to `packed`. A run uses up to `threads` threads, of which the caller's is one.
    ///
    /// # Errors
    /// What ONNX Runtime says. Some damaged models may end the process instead.
    pub fn load(
        library: &'static OnnxRuntime,
        model: &[u8],
        weights: Vec<(CString, OnnxValue)>,
        packed: &OnnxPackedWeights,
        threads: usize,
    ) -> Result<OnnxSession, OnnxRuntimeError> {
        let options = Options::new(library, threads)?;
        options.add_weights(&weights)?;
        let mut session = ptr::null_mut();
        // SAFETY: the bytes are read during the call and copied as far as they are needed; the
        // options and the packed weights are alive, these for as long as the session; the result goes
        // to a pointer of ours.
        let status = unsafe {
            (library.table.create_session_with_packed_weights)(
                library.env,
                model.as_ptr().cast(),
                model.len(),
                options.options,
                packed.0.weights,
                &raw mut session,
            )
        };
        library.check(status)?;
        Ok(OnnxSession {
            open: Arc::new(Open { library, session, _weights: weights, _packed: packed.clone() }),
        })
    }

    /// Runs the model: `inputs` by name, all of them; gives the outputs of these names.
    ///
    /// # Errors
    /// What ONNX Runtime says; that of a run that was ended by [`OnnxRunOptions::terminate`] has no
    /// number of its own.
    pub fn run(
        &self,
        options: &OnnxRunOptions,
        inputs: &[(&CStr, &OnnxValue)],
        outputs: &[&CStr],
    ) -> Result<Vec<OnnxValue>, OnnxRuntimeError> {
        let library = self.open.library;
        let input_names: Vec<*const c_char> =
            inputs.iter().map(|(name, _)| name.as_ptr()).collect();
        let values: Vec<*const Value> =
            inputs.iter().map(|(_, value)| value.value.cast_const()).collect();
        let output_names: Vec<*const c_char> = outputs.iter().map(|name| name.as_ptr()).collect();
        let mut given: Vec<*mut Value> = vec![ptr::null_mut(); outputs.len()];
        // SAFETY: all arrays have the lengths that are told, names are terminated by zero, values and
        // options are alive; results go to pointers of ours, where null asks for new values.
        let status = unsafe {
            (library.table.run)(
                self.open.session,
                options.options,
                input_names.as_ptr(),
                values.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                outputs.len(),
                given.as_mut_ptr(),
            )
        };
        let outcome = library.check(status);
        let inputs: Vec<&OnnxValue> = inputs.iter().map(|(_, value)| *value).collect();
        // Every value that was given is owned before anything else may fail.
        let owned: Vec<Result<OnnxValue, OnnxRuntimeError>> = given
            .into_iter()
            .map(|value| {
                if value.is_null() {
                    return Err(OnnxRuntimeError::invalid("an output was not given"));
                }
                // SAFETY: the run made it for us.
                unsafe { OnnxValue::given(Arc::clone(&self.open), value, &inputs) }
            })
            .collect();
        outcome?;
        owned.into_iter().collect()
    }
}

/// How a run may be ended from elsewhere.
pub struct OnnxRunOptions {
    library: &'static OnnxRuntime,
    options: *mut RunOptions,
}

// SAFETY: ONNX Runtime's one call here that changes the options is made to be called while a run
// reads them.
unsafe impl Send for OnnxRunOptions {}
// SAFETY: as above.
unsafe impl Sync for OnnxRunOptions {}

impl OnnxRunOptions {
    /// For one run.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn new(library: &'static OnnxRuntime) -> Result<OnnxRunOptions, OnnxRuntimeError> {
        let mut options = ptr::null_mut();
        // SAFETY: the result goes to a pointer of ours.
        library.check(unsafe { (library.table.create_run_options)(&raw mut options) })?;
        Ok(OnnxRunOptions { library, options })
    }

    /// Ends the run before its next operator.
    pub fn terminate(&self) {
        // SAFETY: the options are alive; the call may be made during a run.
        let status = unsafe { (self.library.table.set_terminate)(self.options) };
        // Setting a flag does not fail; if it did, the run would go on to its end.
        let _ = self.library.check(status);
    }
}

impl Drop for OnnxRunOptions {
    fn drop(&mut self) {
        // SAFETY: made in `new`, released here alone; a run borrows them.
        unsafe { (self.library.table.release_run_options)(self.options) }
    }
}

/// `OrtSessionOptions` of our own.
struct Options {
    library: &'static OnnxRuntime,
    options: *mut SessionOptions,
}

impl Options {
    fn new(library: &'static OnnxRuntime, threads: usize) -> Result<Options, OnnxRuntimeError> {
        let mut own = Options { library, options: ptr::null_mut() };
        let table = &library.table;
        // SAFETY: the result goes to a pointer of ours.
        library.check(unsafe { (table.create_session_options)(&raw mut own.options) })?;
        let threads = c_int::try_from(threads.max(1)).unwrap_or(c_int::MAX);
        // SAFETY: the options are alive. Patterns of memory are kept for each set of shapes that was
        // ever seen, without bound, so there are none.
        unsafe {
            library.check((table.set_intra_op_threads)(own.options, threads))?;
            library.check((table.set_inter_op_threads)(own.options, 1))?;
            library.check((table.disable_memory_pattern)(own.options))?;
        }
        for key in NO_SPINNING {
            own.set(key, c"0")?;
        }
        own.set(SHARED_ARENA, c"1")?;
        own.set(WEIGHTS_APART, c"1")?;
        Ok(own)
    }

    fn set(&self, key: &CStr, value: &CStr) -> Result<(), OnnxRuntimeError> {
        // SAFETY: the options are alive; both texts are copied.
        self.library.check(unsafe {
            (self.library.table.add_config_entry)(self.options, key.as_ptr(), value.as_ptr())
        })
    }

    /// The weights must live as long as the session.
    fn add_weights(&self, weights: &[(CString, OnnxValue)]) -> Result<(), OnnxRuntimeError> {
        if weights.iter().any(|(_, value)| value.memory().is_none()) {
            return Err(OnnxRuntimeError::invalid("weights lie in no memory"));
        }
        if weights.is_empty() {
            return Ok(());
        }
        let names: Vec<*const c_char> = weights.iter().map(|(name, _)| name.as_ptr()).collect();
        let values: Vec<*const Value> =
            weights.iter().map(|(_, value)| value.value.cast_const()).collect();
        // SAFETY: both arrays have this length; names are copied, and each value is shared by
        // counting. The caller keeps the memory under them for as long as the session.
        self.library.check(unsafe {
            (self.library.table.add_external_initializers)(
                self.options,
                names.as_ptr(),
                values.as_ptr(),
                weights.len(),
            )
        })?;
        // What kernels pack is shared only of weights that are named here, too.
        for (name, value) in weights {
            // SAFETY: the name is copied; the caller keeps the value for as long as the session.
            self.library.check(unsafe {
                (self.library.table.add_initializer)(
                    self.options,
                    name.as_ptr(),
                    value.value.cast_const(),
                )
            })?;
        }
        Ok(())
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        if !self.options.is_null() {
            // SAFETY: made in `new`, released here alone; a session keeps a copy.
            unsafe { (self.library.table.release_session_options)(self.options) }
        }
    }
}
