//! Opening the library, and what belongs to the process as a whole.

use std::ffi::CStr;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::error::OpenVinoError;
use super::table::{Core, OK, Shape, Status, Table, Tensor};

/// How the library's name begins; its release follows.
const API_FILE: &str = "libopenvino_c.so.";

/// Elements whose numbers and widths tell the numbering of a release from that of older ones: `f32`,
/// `i64`, `u8`.
const NUMBERING: [(u32, usize); 3] = [(4, 4), (10, 8), (16, 1)];

/// OpenVINO, opened. There is no way to close it.
pub struct OpenVino {
    pub(super) table: Table,
    pub(super) core: *mut Core,
}

// SAFETY: the one object is made before the value is shared; OpenVINO's core may be called from any
// threads at once.
unsafe impl Send for OpenVino {}
// SAFETY: as above.
unsafe impl Sync for OpenVino {}

impl OpenVino {
    /// Opens the library in `folder`, whose other libraries it finds by itself. The process keeps it
    /// to its end.
    ///
    /// `folder` must hold OpenVINO's own libraries: opening a library runs its code.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `InvalidData` for one that cannot be opened, is too old or does
    /// not start.
    pub fn open(folder: &Path) -> Result<&'static OpenVino> {
        let file = library_in(folder)?;
        let wrong =
            |text: String| Error::new(ErrorKind::InvalidData, format!("{} {text}", file.display()));
        // SAFETY: initialisers of the library run; it is OpenVINO's by the caller's word. Local
        // binding keeps its symbols away from those of other engines.
        let library = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| wrong(format!("cannot be opened: {error}")))?;
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: as above; it is never closed.
        let table = unsafe { Table::of(library) }
            .map_err(|symbol| wrong(format!("lacks {symbol} of OpenVINO's API")))?;
        let mut core = ptr::null_mut();
        // SAFETY: the result goes to a pointer of ours.
        let status = unsafe { (table.create_core)(&raw mut core) };
        let opened = OpenVino { table, core };
        opened.check(status).map_err(|error| wrong(format!("does not start: {error}")))?;
        if !opened.has_known_numbering() {
            return Err(wrong("is older than 2025.0, the first that can be used".to_owned()));
        }
        Ok(Box::leak(Box::new(opened)))
    }

    /// What a call came to.
    pub(super) fn check(&self, status: Status) -> std::result::Result<(), OpenVinoError> {
        if status == OK {
            return Ok(());
        }
        let mut error = OpenVinoError { code: status, message: String::new() };
        // SAFETY: the text is a copy that is ours until it is given back, once.
        let message = unsafe {
            let text = (self.table.last_message)();
            if text.is_null() {
                String::new()
            } else {
                let copied = CStr::from_ptr(text).to_string_lossy().into_owned();
                (self.table.free)(text);
                copied
            }
        };
        // What the C API refuses leaves the text of an earlier failure.
        if error.is_of_the_api() || message.is_empty() {
            // SAFETY: the text of a number is a constant of the library's, which is never closed.
            let text = unsafe { (self.table.error_info)(status) };
            if !text.is_null() {
                // SAFETY: as above; it is terminated by zero.
                error.message = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
            }
        } else {
            error.message = message;
        }
        Err(error)
    }

    fn has_known_numbering(&self) -> bool {
        NUMBERING.iter().all(|&(element, width)| {
            let Ok(tensor) = OwnTensor::new(self, element, &[1]) else { return false };
            let mut bytes = 0;
            // SAFETY: the tensor is alive; the result goes to a place of ours.
            let status = unsafe { (self.table.tensor_bytes)(tensor.tensor, &raw mut bytes) };
            status == OK && bytes == width
        })
    }
}

/// A tensor whose memory is OpenVINO's. What is made of it counts references to that memory.
pub(super) struct OwnTensor<'l> {
    library: &'l OpenVino,
    pub(super) tensor: *mut Tensor,
}

impl<'l> OwnTensor<'l> {
    fn new(
        library: &'l OpenVino,
        element: u32,
        dims: &[i64],
    ) -> std::result::Result<OwnTensor<'l>, OpenVinoError> {
        let mut dims = dims.to_vec();
        let shape = Shape { rank: dims.len() as i64, dims: dims.as_mut_ptr() };
        let mut tensor = ptr::null_mut();
        // SAFETY: the sizes are readable during the call; the result goes to a pointer of ours.
        let status = unsafe { (library.table.create_tensor)(element, shape, &raw mut tensor) };
        library.check(status)?;
        Ok(OwnTensor { library, tensor })
    }

    /// Bytes (`u8`), copied.
    pub(super) fn of_bytes(
        library: &'l OpenVino,
        bytes: &[u8],
    ) -> std::result::Result<OwnTensor<'l>, OpenVinoError> {
        let too_large = |_| OpenVinoError::invalid("there are too many bytes of weights");
        let made = OwnTensor::new(library, 16, &[i64::try_from(bytes.len()).map_err(too_large)?])?;
        let (mut length, mut place) = (0, ptr::null_mut());
        // SAFETY: the tensor is alive; results go to places of ours.
        unsafe {
            library.check((library.table.tensor_bytes)(made.tensor, &raw mut length))?;
            if bytes.is_empty() {
                return Ok(made);
            }
            library.check((library.table.tensor_data)(made.tensor, &raw mut place))?;
        }
        if place.is_null() || length != bytes.len() {
            return Err(OpenVinoError::invalid("a tensor has no memory"));
        }
        // SAFETY: the tensor has as many bytes as was just said, new and known to nobody else.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place.cast::<u8>(), bytes.len()) }
        Ok(made)
    }
}

impl Drop for OwnTensor<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and released here alone.
        unsafe { (self.library.table.free_tensor)(self.tensor) }
    }
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
