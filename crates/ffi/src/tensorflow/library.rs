//! Opening the library, and what belongs to the process as a whole.

use std::ffi::{CStr, CString};
use std::io::{Error, ErrorKind, Result};
use std::os::raw::c_int;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

use super::error::{OwnStatus, TensorFlowError};
use super::table::Table;

/// The library with the C API; the other one is opened first so that it is found by its name,
/// wherever both lie.
const API_FILE: &str = "libtensorflow_cc.so.2";
const FRAMEWORK_FILE: &str = "libtensorflow_framework.so.2";

/// TensorFlow, opened. There is no way to close it.
pub struct TensorFlow {
    pub(super) table: Table,
    framework: PathBuf,
}

impl TensorFlow {
    /// The files that must lie in the folder given to [`TensorFlow::open`].
    pub const FILES: &'static [&'static str] = &[API_FILE, FRAMEWORK_FILE];

    /// Opens the two libraries in `folder`. The process keeps them to its end.
    ///
    /// `folder` must hold TensorFlow's own libraries: opening a library runs its code.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `InvalidData` for one that cannot be opened or lacks a
    /// function.
    pub fn open(folder: &Path) -> Result<&'static TensorFlow> {
        let framework_file = folder.join(FRAMEWORK_FILE);
        let framework = open(&framework_file, RTLD_LOCAL)?;
        let api = open(&folder.join(API_FILE), RTLD_LOCAL)?;
        // Closing either would leave its threads without code.
        std::mem::forget(framework);
        let api: &'static Library = Box::leak(Box::new(api));
        // SAFETY: the files are TensorFlow's by the caller's word, their functions have had these
        // types since 2.5, and neither is ever closed.
        let table = unsafe { Table::of(api) }.map_err(|missing| {
            Error::new(
                ErrorKind::InvalidData,
                format!(
                    "{} has no function {missing}; TensorFlow 2.5 or newer is needed",
                    folder.join(API_FILE).display()
                ),
            )
        })?;
        Ok(Box::leak(Box::new(TensorFlow { table, framework: framework_file })))
    }

    /// Its version, such as `2.21.0`.
    pub fn version(&self) -> String {
        // SAFETY: takes nothing, and gives a text that lives as long as the library.
        let version = unsafe { CStr::from_ptr((self.table.version)()) };
        version.to_string_lossy().into_owned()
    }

    /// Opens a library of custom operators, which register themselves with TensorFlow. It stays
    /// open; opening it again does nothing.
    ///
    /// # Errors
    /// What TensorFlow says of a file that cannot be opened or operators that are there already.
    pub fn load_op_library(&'static self, file: &Path) -> std::result::Result<(), TensorFlowError> {
        let name = c_path(file)?;
        // Such libraries carry copies of functions of protobuf's, whose hash maps can be read only by
        // the code that filled them: TensorFlow's own must be found first, as it is in Python.
        let framework = open(&self.framework, RTLD_GLOBAL)
            .map_err(|error| TensorFlowError::invalid(error.to_string()))?;
        std::mem::forget(framework);
        let mut status = OwnStatus::new(self);
        // SAFETY: name and status live during the call. The library's code runs, as its owner asked.
        let handle = unsafe { (self.table.load_library)(name.as_ptr(), status.as_ptr()) };
        status.outcome()?;
        if !handle.is_null() {
            // SAFETY: frees the handle alone; the library stays open.
            unsafe { (self.table.delete_library_handle)(handle) };
        }
        Ok(())
    }

    /// The definitions of all operators that are registered, as a serialized `OpList`.
    pub fn operators(&self) -> Vec<u8> {
        // SAFETY: takes nothing; gives a buffer that is ours to free, with bytes that live as long as
        // it does.
        unsafe {
            let buffer = (self.table.all_operators)();
            if buffer.is_null() {
                return Vec::new();
            }
            let (data, length) = ((*buffer).data, (*buffer).length);
            let bytes = match data.is_null() {
                true => Vec::new(),
                false => std::slice::from_raw_parts(data.cast::<u8>(), length).to_vec(),
            };
            (self.table.delete_buffer)(buffer);
            bytes
        }
    }

    /// Bytes of one element of a dtype, by its number; `None` where that varies.
    pub fn dtype_bytes(&self, dtype: i32) -> Option<usize> {
        // SAFETY: takes any number; unknown ones give 0.
        let bytes = unsafe { (self.table.dtype_bytes)(dtype) };
        (bytes > 0).then_some(bytes)
    }
}

fn open(file: &Path, binding: c_int) -> Result<Library> {
    if !file.is_file() {
        return Err(Error::new(ErrorKind::NotFound, format!("{} is missing", file.display())));
    }
    // SAFETY: initialisers of the library run; it is TensorFlow's by the word of the caller of
    // `TensorFlow::open`. Local binding keeps its symbols away from those of other engines; global
    // binding is only for a file that is open already.
    let library = unsafe { Library::open(Some(file), RTLD_NOW | binding) };
    library.map_err(|error| {
        Error::new(ErrorKind::InvalidData, format!("{} cannot be opened: {error}", file.display()))
    })
}

/// A path for C.
pub(super) fn c_path(path: &Path) -> std::result::Result<CString, TensorFlowError> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        TensorFlowError::invalid(format!("the path {} holds a zero byte", path.display()))
    })
}

// The table holds addresses of functions, which any thread may call; the pointers that they take are
// owned by values with rules of their own.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<TensorFlow>();
};
