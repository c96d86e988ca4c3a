//! Opening the library, and what belongs to the process as a whole.

use std::ffi::{CStr, c_char, c_int};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::error::OnnxRuntimeError;
use super::table::{
    API_VERSION, Allocator, Env, FIRST_RELEASE, GetApiBase, MemoryInfo, Status, Table,
};

/// How the library's name begins; its release follows.
const API_FILE: &str = "libonnxruntime.so.";

/// The function that it exports.
const API_BASE: &[u8] = b"OrtGetApiBase";

/// `ORT_LOGGING_LEVEL_FATAL`: what fails is told by the call that fails.
const LOG_FATAL: c_int = 4;
/// `OrtDeviceAllocator` and `OrtArenaAllocator`.
const DEVICE: c_int = 0;
const ARENA: c_int = 1;
/// `OrtMemTypeDefault`.
const MEMORY_DEFAULT: c_int = 0;

/// What the arena is told: grow by what is asked for, not by powers of two.
const ARENA_EXTENDS: &CStr = c"arena_extend_strategy";
const AS_REQUESTED: usize = 1;

/// ONNX Runtime, opened. There is no way to close it.
pub struct OnnxRuntime {
    pub(super) table: Table,
    pub(super) env: *mut Env,
    /// Memory of ours.
    pub(super) host: *mut MemoryInfo,
    pub(super) allocator: *mut Allocator,
}

// SAFETY: all three objects are made before the value is shared and only read by later calls, which
// ONNX Runtime allows from any thread; what is made from them is owned by values with rules of their
// own.
unsafe impl Send for OnnxRuntime {}
// SAFETY: as above.
unsafe impl Sync for OnnxRuntime {}

impl OnnxRuntime {
    /// Opens the library in `folder`. The process keeps it to its end.
    ///
    /// `folder` must hold ONNX Runtime's own library: opening a library runs its code.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `InvalidData` for one that cannot be opened, is too old or does
    /// not start.
    pub fn open(folder: &Path) -> Result<&'static OnnxRuntime> {
        let file = library_in(folder)?;
        let wrong =
            |text: String| Error::new(ErrorKind::InvalidData, format!("{} {text}", file.display()));
        // SAFETY: initialisers of the library run; it is ONNX Runtime's by the caller's word. Local
        // binding keeps its symbols away from those of other engines.
        let library = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| wrong(format!("cannot be opened: {error}")))?;
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: the exported function has this type since the first release.
        let base = unsafe { library.get::<GetApiBase>(API_BASE) }
            .map_err(|_| wrong("does not export ONNX Runtime's API".to_owned()))?;
        // SAFETY: as above; what it gives is a constant of the library's, which is never closed.
        let api = unsafe {
            let base = base();
            if base.is_null() { ptr::null() } else { ((*base).api)(API_VERSION) }
        };
        if api.is_null() {
            return Err(wrong(format!(
                "is older than {FIRST_RELEASE}, the first that can be used"
            )));
        }
        // SAFETY: the struct is that of the version that was asked for.
        let table = unsafe { Table::of(api) }
            .ok_or_else(|| wrong("lacks a function of ONNX Runtime's API".to_owned()))?;
        let opened = start(table).map_err(|error| wrong(format!("does not start: {error}")))?;
        Ok(Box::leak(Box::new(opened)))
    }

    /// What a call came to.
    pub(super) fn check(&self, status: *mut Status) -> std::result::Result<(), OnnxRuntimeError> {
        check(&self.table, status)
    }
}

/// Makes the objects that every session needs. They are never released.
fn start(table: Table) -> std::result::Result<OnnxRuntime, OnnxRuntimeError> {
    let (mut env, mut host, mut arena) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let (mut allocator, mut arena_cfg) = (ptr::null_mut(), ptr::null_mut());
    let keys: [*const c_char; 1] = [ARENA_EXTENDS.as_ptr()];
    let values = [AS_REQUESTED];
    // SAFETY: each result goes to a pointer of ours and is checked before it is used; texts are
    // terminated by zero and readable, with the arrays, during the calls.
    unsafe {
        check(&table, (table.create_env)(LOG_FATAL, c"vesta".as_ptr(), &raw mut env))?;
        check(&table, (table.disable_telemetry)(env))?;
        check(&table, (table.create_memory_info)(DEVICE, MEMORY_DEFAULT, &raw mut host))?;
        check(&table, (table.create_memory_info)(ARENA, MEMORY_DEFAULT, &raw mut arena))?;
        check(&table, (table.default_allocator)(&raw mut allocator))?;
        check(
            &table,
            (table.create_arena_cfg)(keys.as_ptr(), values.as_ptr(), 1, &raw mut arena_cfg),
        )?;
        check(&table, (table.register_allocator)(env, arena, arena_cfg))?;
    }
    Ok(OnnxRuntime { table, env, host, allocator })
}

fn check(table: &Table, status: *mut Status) -> std::result::Result<(), OnnxRuntimeError> {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: the status is ours and alive; its text is terminated by zero and copied before the
    // status is released, once.
    let (code, message) = unsafe {
        let code = (table.error_code)(status);
        let message = CStr::from_ptr((table.error_message)(status)).to_string_lossy().into_owned();
        (table.release_status)(status);
        (code, message)
    };
    Err(OnnxRuntimeError { code, message })
}

/// The library in a folder, whose name ends in its release.
fn library_in(folder: &Path) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(API_FILE) && path.is_file()
        })
        .collect();
    found.sort();
    found.pop().ok_or_else(|| {
        let text = format!("{}* is missing in {}", API_FILE, folder.display());
        Error::new(ErrorKind::NotFound, text)
    })
}
