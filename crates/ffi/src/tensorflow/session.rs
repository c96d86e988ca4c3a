//! A SavedModel or a graph loaded in TensorFlow.

use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::ptr;

use super::error::{OwnStatus, TensorFlowError};
use super::library::{TensorFlow, c_path};
use super::table::{Buffer, Graph, Operation, Output, Session, SessionOptions, Tensor};
use super::value::TensorFlowValue;

/// A session with its graph.
pub struct TensorFlowSession {
    library: &'static TensorFlow,
    graph: *mut Graph,
    session: *mut Session,
}

// SAFETY: TensorFlow's sessions and graphs lock what they change; the C API's documentation lets any
// thread run a session.
unsafe impl Send for TensorFlowSession {}
// SAFETY: as above: runs may go on at the same time.
unsafe impl Sync for TensorFlowSession {}

/// One output of an operation in the graph of a session.
#[derive(Clone, Copy)]
pub struct GraphOutput {
    graph: *mut Graph,
    output: Output,
    dtype: i32,
}

// SAFETY: an address that is only used with the session that it belongs to, which checks that.
unsafe impl Send for GraphOutput {}
// SAFETY: as above.
unsafe impl Sync for GraphOutput {}

impl GraphOutput {
    /// The number of its dtype; 100 is added for a reference to a variable.
    pub fn dtype(&self) -> i32 {
        self.dtype
    }
}

/// `TF_SessionOptions` of our own.
struct OwnOptions {
    library: &'static TensorFlow,
    options: *mut SessionOptions,
}

impl OwnOptions {
    /// `config` is a serialized `ConfigProto`.
    fn new(library: &'static TensorFlow, config: &[u8]) -> Result<OwnOptions, TensorFlowError> {
        let mut status = OwnStatus::new(library);
        // SAFETY: takes nothing; freed when this is dropped.
        let options = unsafe { (library.table.new_session_options)() };
        let options = OwnOptions { library, options };
        // SAFETY: `config` is readable for its length during the call, and is copied.
        unsafe {
            (library.table.set_config)(
                options.options,
                config.as_ptr().cast(),
                config.len(),
                status.as_ptr(),
            );
        }
        status.outcome().map(|()| options)
    }
}

impl Drop for OwnOptions {
    fn drop(&mut self) {
        // SAFETY: made in `load`, freed here alone; sessions copy what they need.
        unsafe { (self.library.table.delete_session_options)(self.options) }
    }
}

impl TensorFlowSession {
    /// Loads the SavedModel in `folder`: the meta graph with exactly these tags, its variables and
    /// tables, its initialising operators run. `config` is a serialized `ConfigProto`.
    ///
    /// # Errors
    /// What TensorFlow says. Some damaged graphs end the process instead, now or at the first run.
    pub fn load(
        library: &'static TensorFlow,
        folder: &Path,
        tags: &[String],
        config: &[u8],
    ) -> Result<TensorFlowSession, TensorFlowError> {
        let folder = c_path(folder)?;
        let tags: Vec<CString> = tags
            .iter()
            .map(|tag| CString::new(tag.as_str()))
            .collect::<Result<_, _>>()
            .map_err(|_| TensorFlowError::invalid("a tag holds a zero byte"))?;
        let tags: Vec<*const c_char> = tags.iter().map(|tag| tag.as_ptr()).collect();
        let tag_count = count(tags.len())?;
        let mut status = OwnStatus::new(library);
        let options = OwnOptions::new(library, config)?;
        let graph = new_graph(library);
        // SAFETY: every pointer is alive during the call; null asks for no run options and for no
        // copy of the meta graph. The graph is empty, as the call wants it.
        let session = unsafe {
            (library.table.load_saved_model)(
                options.options,
                ptr::null(),
                folder.as_ptr(),
                tags.as_ptr(),
                tag_count,
                graph,
                ptr::null_mut(),
                status.as_ptr(),
            )
        };
        TensorFlowSession::of(library, graph, session, status.outcome())
    }

    /// A session over `graph`, a serialized `GraphDef` without variables. `config` is a serialized
    /// `ConfigProto`.
    ///
    /// # Errors
    /// What TensorFlow says. Some damaged graphs end the process instead, now or at the first run.
    pub fn import(
        library: &'static TensorFlow,
        graph: &[u8],
        config: &[u8],
    ) -> Result<TensorFlowSession, TensorFlowError> {
        let options = OwnOptions::new(library, config)?;
        let mut status = OwnStatus::new(library);
        let serialized = Buffer::view(graph);
        let graph = new_graph(library);
        // SAFETY: the options are made and freed here alone; the bytes are readable for their length
        // during the call, which keeps nothing of them; the graph is alive and nobody else's.
        unsafe {
            let import = (library.table.new_import_options)();
            (library.table.import_graph)(graph, &raw const serialized, import, status.as_ptr());
            (library.table.delete_import_options)(import);
        }
        let mut session = ptr::null_mut();
        let mut outcome = status.outcome();
        if outcome.is_ok() {
            // SAFETY: graph and options are alive; the session copies the options and refers to the
            // graph, which goes after it.
            session =
                unsafe { (library.table.new_session)(graph, options.options, status.as_ptr()) };
            outcome = status.outcome();
        }
        TensorFlowSession::of(library, graph, session, outcome)
    }

    /// Takes over what a call made, or frees it.
    fn of(
        library: &'static TensorFlow,
        graph: *mut Graph,
        session: *mut Session,
        outcome: Result<(), TensorFlowError>,
    ) -> Result<TensorFlowSession, TensorFlowError> {
        if session.is_null() || outcome.is_err() {
            // SAFETY: no session holds the graph.
            unsafe { (library.table.delete_graph)(graph) };
            outcome?;
            return Err(TensorFlowError::invalid("TensorFlow gave no session and no reason"));
        }
        Ok(TensorFlowSession { library, graph, session })
    }

    /// The output at `index` of the operation called `operation`; `None` when the graph has none.
    pub fn output(&self, operation: &str, index: usize) -> Option<GraphOutput> {
        let operation = self.find(operation)?;
        let index = c_int::try_from(index).ok()?;
        // SAFETY: the operation belongs to the graph, which lives as long as the session; reads.
        if index >= unsafe { (self.library.table.operation_outputs)(operation) } {
            return None;
        }
        let output = Output { operation, index };
        // SAFETY: the output exists; reads.
        let dtype = unsafe { (self.library.table.output_dtype)(output) };
        Some(GraphOutput { graph: self.graph, output, dtype })
    }

    /// Whether the graph has an operation of this name.
    pub fn has_operation(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<*mut Operation> {
        let name = CString::new(name).ok()?;
        // SAFETY: graph and name live during the call.
        let found = unsafe { (self.library.table.operation_by_name)(self.graph, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }

    /// Runs the graph: `feeds` stand for the outputs that they name, `fetches` are computed, and the
    /// operations called in `targets` are run. `options` is a serialized `RunOptions`.
    ///
    /// # Errors
    /// What TensorFlow says; `INVALID_ARGUMENT` for outputs of another session and for a target
    /// that the graph does not have.
    pub fn run(
        &self,
        options: &[u8],
        feeds: &[(GraphOutput, &TensorFlowValue)],
        fetches: &[GraphOutput],
        targets: &[&str],
    ) -> Result<Vec<TensorFlowValue>, TensorFlowError> {
        let mut outputs = feeds.iter().map(|(output, _)| output).chain(fetches);
        if outputs.any(|output| output.graph != self.graph) {
            return Err(TensorFlowError::invalid(
                "an output belongs to the graph of another session",
            ));
        }
        let fed: Vec<Output> = feeds.iter().map(|(output, _)| output.output).collect();
        let values: Vec<*mut Tensor> = feeds.iter().map(|(_, value)| value.as_ptr()).collect();
        let wanted: Vec<Output> = fetches.iter().map(|output| output.output).collect();
        let targets: Vec<*const Operation> = targets
            .iter()
            .map(|name| {
                self.find(name).map(|operation| operation.cast_const()).ok_or_else(|| {
                    TensorFlowError::invalid(format!("the graph has no operation {name}"))
                })
            })
            .collect::<Result<_, _>>()?;
        let mut given: Vec<*mut Tensor> = vec![ptr::null_mut(); wanted.len()];
        let options = Buffer::view(options);
        let mut status = OwnStatus::new(self.library);
        // SAFETY: every list has the length that is passed with it and lives during the call, as do
        // the values, which are borrowed; TensorFlow keeps references of its own. Outputs and
        // targets belong to this session's graph, which was checked.
        unsafe {
            (self.library.table.session_run)(
                self.session,
                &raw const options,
                fed.as_ptr(),
                values.as_ptr(),
                count(fed.len())?,
                wanted.as_ptr(),
                given.as_mut_ptr(),
                count(wanted.len())?,
                targets.as_ptr(),
                count(targets.len())?,
                ptr::null_mut(),
                status.as_ptr(),
            );
        }
        let outcome = status.outcome();
        let missing = given.iter().any(|tensor| tensor.is_null());
        let given = given.into_iter().filter(|tensor| !tensor.is_null()).map(|tensor| {
            // SAFETY: what the run gave is ours to free, whether or not it succeeded.
            unsafe { TensorFlowValue::from_raw(self.library, tensor) }
        });
        // Collected before anything returns, so that all of it is freed.
        let given: Vec<TensorFlowValue> = given.collect();
        outcome?;
        if missing {
            return Err(TensorFlowError::invalid("TensorFlow left an output out without a reason"));
        }
        Ok(given)
    }
}

impl Drop for TensorFlowSession {
    fn drop(&mut self) {
        let mut status = OwnStatus::new(self.library);
        // SAFETY: session and graph were made together, no run is under way since runs borrow the
        // session, and each is freed once; the graph goes last, for the session refers to it.
        unsafe {
            (self.library.table.close_session)(self.session, status.as_ptr());
            (self.library.table.delete_session)(self.session, status.as_ptr());
            (self.library.table.delete_graph)(self.graph);
        }
    }
}

/// An empty graph; freed with its session, or by `TensorFlowSession::of`.
fn new_graph(library: &'static TensorFlow) -> *mut Graph {
    // SAFETY: takes nothing.
    let graph = unsafe { (library.table.new_graph)() };
    if let Some(require_shape_functions) = library.table.require_shape_functions {
        // Operators that others wrote may lack one; the original loads their graphs all the same.
        // SAFETY: the graph is alive and nobody else's.
        unsafe { require_shape_functions(graph, false) };
    }
    graph
}

fn count(length: usize) -> Result<c_int, TensorFlowError> {
    c_int::try_from(length).map_err(|_| TensorFlowError::invalid("a run of too many tensors"))
}
