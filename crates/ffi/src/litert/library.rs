//! Opening the library, and what belongs to the process as a whole.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::table::{Any, Environment, EnvironmentOption, Table};

/// The library with the C API.
const API_FILE: &str = "libLiteRt.so";

/// `kLiteRtEnvOptionTagAutoRegisterAccelerators`.
const ACCELERATORS_TAG: i32 = 24;
/// `kLiteRtEnvOptionTagMinLoggerSeverity`.
const SEVERITY_TAG: i32 = 25;
/// `kLiteRtLogSeveritySilent`: what LiteRT says is asked for after each call.
const SEVERITY_SILENT: i64 = 4;
/// `kLiteRtHwAcceleratorCpu`.
pub(super) const CPU: i32 = 1;

/// LiteRT, opened. There is no way to close it.
pub struct LiteRt {
    pub(super) table: Table,
    pub(super) environment: *mut Environment,
}

// SAFETY: the environment is made before the value is shared and only read by later calls; what is
// made from it is owned by values with rules of their own.
unsafe impl Send for LiteRt {}
// SAFETY: as above.
unsafe impl Sync for LiteRt {}

impl LiteRt {
    /// The files that must lie in the folder given to [`LiteRt::open`].
    pub const FILES: &'static [&'static str] = &[API_FILE];

    /// Opens the library in `folder`. The process keeps it to its end.
    ///
    /// `folder` must hold LiteRT's own library: opening a library runs its code.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `InvalidData` for one that cannot be opened, lacks a function
    /// or does not start.
    pub fn open(folder: &Path) -> Result<&'static LiteRt> {
        let file = folder.join(API_FILE);
        let wrong = |text: String| Error::new(ErrorKind::InvalidData, text);
        if !file.is_file() {
            let text = format!("{} is missing", file.display());
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        // SAFETY: initialisers of the library run; it is LiteRT's by the caller's word. Local
        // binding keeps its symbols away from those of other engines.
        let library = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| wrong(format!("{} cannot be opened: {error}", file.display())))?;
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: the file is LiteRT's by the caller's word and is never closed. Its functions have
        // these types since 2.2; older releases lack one of them.
        let table = unsafe { Table::of(library) }.map_err(|missing| {
            wrong(format!(
                "{} has no function {missing}; LiteRT 2.2 or newer is needed",
                file.display()
            ))
        })?;
        // Nothing but the processor: looking for others opens libraries by their bare names.
        let options = [
            EnvironmentOption { tag: ACCELERATORS_TAG, value: Any::integer(CPU.into()) },
            EnvironmentOption { tag: SEVERITY_TAG, value: Any::integer(SEVERITY_SILENT) },
        ];
        let mut environment = ptr::null_mut();
        // SAFETY: two options are readable during the call, which copies them; the result is written
        // to a pointer that is ours. It is never destroyed.
        let status =
            unsafe { (table.create_environment)(2, options.as_ptr(), &raw mut environment) };
        if status != 0 || environment.is_null() {
            return Err(wrong(format!("LiteRT does not start: status {status}")));
        }
        Ok(Box::leak(Box::new(LiteRt { table, environment })))
    }
}
