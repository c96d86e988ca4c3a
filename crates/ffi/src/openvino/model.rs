//! Models as they were read, and compiled ones.

use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use super::error::OpenVinoError;
use super::library::{OpenVino, OwnTensor};
use super::run::OpenVinoRequest;
use super::table::{Compiled, Dimension, Model, OK, PartialShape, Port, Status};

/// The most dimensions that are believed.
const RANK_MAX: i64 = 1024;

/// A model, read and not compiled yet.
pub struct OpenVinoModel {
    library: &'static OpenVino,
    model: *mut Model,
}

/// An input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenVinoPort {
    /// One of its tensor's names; `None` where it has none.
    pub name: Option<String>,
    /// Its `ov_element_type_e`.
    pub element: u32,
    /// Its sizes, `None` where one is open; `None` for an unknown rank.
    pub dims: Option<Vec<Option<usize>>>,
}

/// What requests need.
pub(super) struct Open {
    pub(super) library: &'static OpenVino,
    pub(super) compiled: *mut Compiled,
    pub(super) outputs: usize,
}

// SAFETY: nothing is called on the compiled model once its requests are made, but its release, when
// nobody has it any more; requests may run at the same time, on any threads.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: made once, released here alone, when no request is left.
        unsafe { (self.library.table.free_compiled)(self.compiled) }
    }
}

// SAFETY: a model has no tie to a thread; it is changed through `&mut` alone, and what was compiled from it
// has a copy of its own.
unsafe impl Send for OpenVinoModel {}

impl Drop for OpenVinoModel {
    fn drop(&mut self) {
        // SAFETY: made once, released here alone; what was compiled from it has its own share.
        unsafe { (self.library.table.free_model)(self.model) }
    }
}

type Count = unsafe extern "C" fn(*const Model, *mut usize) -> Status;
type ByIndex = unsafe extern "C" fn(*const Model, usize, *mut *mut Port) -> Status;

impl OpenVinoModel {
    /// Reads a model: ONNX, or the text of an IR with its `weights`.
    ///
    /// # Errors
    /// What OpenVINO says. Some damaged models may end the process instead.
    pub fn read(
        library: &'static OpenVino,
        model: &[u8],
        weights: Option<&[u8]>,
    ) -> Result<OpenVinoModel, OpenVinoError> {
        let weights = weights.map(|bytes| OwnTensor::of_bytes(library, bytes)).transpose()?;
        let weights = weights.as_ref().map_or(ptr::null_mut(), |own| own.tensor);
        let mut read = ptr::null_mut();
        // SAFETY: the bytes are copied during the call; the weights are alive, and shared by what is
        // made of them; the result goes to a pointer of ours.
        let status = unsafe {
            (library.table.read_model)(
                library.core,
                model.as_ptr().cast(),
                model.len(),
                weights,
                &raw mut read,
            )
        };
        library.check(status)?;
        Ok(OpenVinoModel { library, model: read })
    }

    /// Reads a model out of a file, in the form that the file's ending tells. Nothing of the file is needed
    /// afterwards.
    ///
    /// # Errors
    /// What OpenVINO says. Some damaged models may end the process instead.
    pub fn read_file(
        library: &'static OpenVino,
        path: &Path,
    ) -> Result<OpenVinoModel, OpenVinoError> {
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| OpenVinoError::invalid("a path has a zero byte"))?;
        let mut read = ptr::null_mut();
        // SAFETY: the path is terminated by zero and readable during the call; without a second one the
        // weights lie in the same file; the result goes to a pointer of ours.
        let status = unsafe {
            (library.table.read_file)(library.core, path.as_ptr(), ptr::null(), &raw mut read)
        };
        library.check(status)?;
        Ok(OpenVinoModel { library, model: read })
    }

    /// Its inputs, in order.
    ///
    /// # Errors
    /// What OpenVINO says.
    pub fn inputs(&self) -> Result<Vec<OpenVinoPort>, OpenVinoError> {
        self.ports(self.library.table.inputs, self.library.table.input)
    }

    /// Its outputs, in order.
    ///
    /// # Errors
    /// What OpenVINO says.
    pub fn outputs(&self) -> Result<Vec<OpenVinoPort>, OpenVinoError> {
        self.ports(self.library.table.outputs, self.library.table.output)
    }

    /// Opens all sizes of its inputs, whose numbers of dimensions stay.
    ///
    /// # Errors
    /// What OpenVINO says; for an input of unknown rank.
    pub fn open_sizes(&mut self) -> Result<(), OpenVinoError> {
        let unknown = || OpenVinoError::invalid("an input has any number of dimensions");
        let ranks: Option<Vec<usize>> =
            self.inputs()?.into_iter().map(|port| port.dims.map(|dims| dims.len())).collect();
        let ranks = ranks.ok_or_else(unknown)?;
        let open = Dimension { min: 0, max: -1 };
        let mut dims: Vec<Vec<Dimension>> = ranks.iter().map(|&rank| vec![open; rank]).collect();
        let shape = |dims: &mut Vec<Dimension>| {
            let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
            PartialShape { rank: Dimension { min: rank, max: rank }, dims: dims.as_mut_ptr() }
        };
        let shapes: Vec<PartialShape> = dims.iter_mut().map(shape).collect();
        let indices: Vec<usize> = (0..shapes.len()).collect();
        // SAFETY: the model is alive and ours alone; as many numbers and shapes as is told are readable during
        // the call, with the dimensions that each tells of.
        let status = unsafe {
            (self.library.table.reshape)(
                self.model,
                indices.as_ptr(),
                shapes.as_ptr(),
                shapes.len(),
            )
        };
        self.library.check(status)
    }

    fn ports(&self, count: Count, by_index: ByIndex) -> Result<Vec<OpenVinoPort>, OpenVinoError> {
        let mut number = 0;
        // SAFETY: the model is alive; the result goes to a place of ours.
        self.library.check(unsafe { count(self.model, &raw mut number) })?;
        (0..number)
            .map(|index| {
                let mut port = ptr::null_mut();
                // SAFETY: the model is alive; the result goes to a pointer of ours.
                self.library.check(unsafe { by_index(self.model, index, &raw mut port) })?;
                let told = self.port(port);
                // SAFETY: ours, and not used after.
                unsafe { (self.library.table.free_port)(port) };
                told
            })
            .collect()
    }

    /// What a port that is alive says of itself.
    fn port(&self, port: *const Port) -> Result<OpenVinoPort, OpenVinoError> {
        let table = &self.library.table;
        let (mut text, mut element): (*mut c_char, u32) = (ptr::null_mut(), 0);
        // SAFETY: the port is alive; the text is a copy that is ours until it is given back.
        let name = unsafe {
            let status = (table.port_name)(port, &raw mut text);
            (status == OK && !text.is_null()).then(|| {
                let name = CStr::from_ptr(text).to_string_lossy().into_owned();
                (table.free)(text);
                name
            })
        };
        // SAFETY: as above; the result goes to a place of ours.
        self.library.check(unsafe { (table.port_element)(port, &raw mut element) })?;
        let open = Dimension { min: 0, max: -1 };
        let mut shape = PartialShape { rank: open, dims: ptr::null_mut() };
        // SAFETY: as above.
        self.library.check(unsafe { (table.port_shape)(port, &raw mut shape) })?;
        let is_ranked =
            shape.rank.min == shape.rank.max && (0..=RANK_MAX).contains(&shape.rank.max);
        let dims = is_ranked.then(|| {
            (0..shape.rank.max as usize)
                .map(|index| {
                    // SAFETY: a shape of known rank has as many dimensions, until it is released.
                    let dim = unsafe { *shape.dims.add(index) };
                    usize::try_from(dim.max).ok().filter(|_| dim.min == dim.max)
                })
                .collect()
        });
        // SAFETY: filled by the call above, and not used after.
        unsafe { (table.free_partial_shape)(&raw mut shape) };
        Ok(OpenVinoPort { name, element, dims })
    }

    /// Compiles it for this machine's processor, to compute in 32-bit floats, with `threads` threads for
    /// each of `runs` runs at a time, pinned nowhere. Gives that many requests.
    ///
    /// All are made here, before the first runs: making one reads what a run of another one replaces, and
    /// OpenVINO takes no lock for it.
    ///
    /// # Errors
    /// What OpenVINO says.
    pub fn compile(
        &self,
        threads: usize,
        runs: usize,
    ) -> Result<Vec<OpenVinoRequest>, OpenVinoError> {
        let (library, table) = (self.library, &self.library.table);
        let (inputs, outputs) = (self.inputs()?.len(), self.outputs()?.len());
        let (threads, runs) = (threads.max(1), runs.max(1));
        let text = |number: usize| CString::new(number.to_string()).unwrap_or_default();
        let (threads, streams) = (text(threads.saturating_mul(runs)), text(runs));
        let mut compiled = ptr::null_mut();
        // SAFETY: keys and values are texts terminated by zero, as many as is told, readable during
        // the call; the function is declared variadic, as it is in C; the result goes to a pointer of
        // ours.
        let status = unsafe {
            (table.compile_model)(
                library.core,
                self.model,
                c"CPU".as_ptr(),
                10,
                &raw mut compiled,
                // It would compute in bf16 where the processor can.
                c"INFERENCE_PRECISION_HINT".as_ptr(),
                c"f32".as_ptr(),
                // It would round activations to 8 bits where weights are.
                c"EXECUTION_MODE_HINT".as_ptr(),
                c"ACCURACY".as_ptr(),
                c"INFERENCE_NUM_THREADS".as_ptr(),
                threads.as_ptr(),
                c"NUM_STREAMS".as_ptr(),
                streams.as_ptr(),
                // Several workers would be pinned to the same cores.
                c"ENABLE_CPU_PINNING".as_ptr(),
                c"NO".as_ptr(),
            )
        };
        library.check(status)?;
        let open = Arc::new(Open { library, compiled, outputs });
        (0..runs).map(|_| OpenVinoRequest::new(&open, inputs)).collect()
    }
}
