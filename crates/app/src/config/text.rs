//! Files in protobuf's text format.
//!
//! Owns: the original's texts for files that cannot be read. May not know: the format itself.

use std::io::ErrorKind;
use std::path::Path;

use tracing::error;
use vesta_model::Status;

/// The largest file read; a configuration is never this long.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads `file` as a message of the type called `name`.
///
/// # Errors
/// `NOT_FOUND` and the like for a file that cannot be read, `INVALID_ARGUMENT` for one that cannot
/// be parsed; then line and column are logged under the words that people search for.
pub(super) fn read<M: prost::Message + Default>(file: &Path, name: &str) -> Result<M, Status> {
    understand(&read_text(file)?, file, name)
}

/// Reads `text`, the content of `file`, as [`read`] does.
///
/// # Errors
/// `INVALID_ARGUMENT` for a text that cannot be parsed.
pub(super) fn understand<M: prost::Message + Default>(
    text: &str,
    file: &Path,
    name: &str,
) -> Result<M, Status> {
    vesta_protos::text::parse(text, name).map_err(|problem| {
        error!("Error parsing text-format {name}: {problem}");
        Status::invalid_argument(format!("Invalid protobuf file: '{}'", file.display()))
    })
}

/// The content of a file.
///
/// # Errors
/// See [`read`].
pub(super) fn read_text(file: &Path) -> Result<String, Status> {
    let path = file.display();
    let problem = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Status::not_found(format!("{path}; No such file or directory")),
        ErrorKind::PermissionDenied => {
            Status::permission_denied(format!("{path}; Permission denied"))
        }
        ErrorKind::InvalidData => {
            Status::invalid_argument(format!("{path}; the file is not UTF-8 text"))
        }
        _ => Status::unknown(format!("{path}; {error}")),
    };
    let size = std::fs::metadata(file).map_err(problem)?.len();
    if size > FILE_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "{path}; the file has {size} bytes, more than the {FILE_BYTES_MAX} that are read"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(problem)?;
    if text.is_empty() {
        return Err(Status::invalid_argument(format!("{path}; Invalid argument")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::tensorflow::serving::ModelServerConfig;

    const NAME: &str = "tensorflow.serving.ModelServerConfig";

    #[test]
    fn files_that_cannot_be_read_have_the_originals_texts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let read = || read::<ModelServerConfig>(&file, NAME).unwrap_err().to_string();
        assert_eq!(read(), format!("NOT_FOUND: {}; No such file or directory", file.display()));
        std::fs::write(&file, "").unwrap();
        assert_eq!(read(), format!("INVALID_ARGUMENT: {}; Invalid argument", file.display()));
        std::fs::write(&file, "improper model config").unwrap();
        assert_eq!(
            read(),
            format!("INVALID_ARGUMENT: Invalid protobuf file: '{}'", file.display())
        );
    }
}
