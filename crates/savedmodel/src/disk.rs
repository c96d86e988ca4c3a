//! Files as statuses: the texts that clients of the original know for files that are absent,
//! unreadable or damaged. Knows nothing of what the files hold.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use vesta_model::{Code, Status};

/// The status for `error` at `path`, in the original's form: path, semicolon, reason.
pub(crate) fn io_status(path: &Path, error: io::Error) -> Status {
    let (code, reason) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            (Code::NotFound, "No such file or directory".to_owned())
        }
        ErrorKind::PermissionDenied => (Code::PermissionDenied, "Permission denied".to_owned()),
        ErrorKind::IsADirectory => (Code::FailedPrecondition, "Is a directory".to_owned()),
        _ => (Code::Unknown, error.to_string()),
    };
    Status::new(code, format!("{}; {reason}", path.display())).with_cause(error)
}

/// The status for a file whose content is not what it should be.
pub(crate) fn damaged(path: &Path, what: impl Display) -> Status {
    Status::data_loss(format!("{}: {what}", path.display()))
}

/// Opens a regular file; pipes and devices are refused, for reading them may never end.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Status> {
    // Looked at before it is opened: opening a pipe would already wait.
    let metadata = std::fs::metadata(path).map_err(|error| io_status(path, error))?;
    if metadata.is_dir() {
        return Err(io_status(path, ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(Status::failed_precondition(format!("{}; not a regular file", path.display())));
    }
    let file = File::open(path).map_err(|error| io_status(path, error))?;
    Ok((file, metadata.len()))
}

/// All bytes of a file of at most `bytes_max` bytes.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Status> {
    let (file, len) = open(path)?;
    let too_large = || {
        Status::resource_exhausted(format!(
            "{}: larger than the {bytes_max} bytes that such a file may have",
            path.display()
        ))
    };
    if len > bytes_max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    // A file that grows meanwhile must not be read without end.
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| io_status(path, error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    Ok(bytes)
}
