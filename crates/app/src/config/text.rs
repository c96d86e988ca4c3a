//! Files in protobuf's text format. Owns the original's texts for files that cannot be read.

use std::io::ErrorKind;
use std::path::Path;

use miette::Diagnostic;
use prost_reflect::DynamicMessage;
use prost_reflect::text_format::ParseError;
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
    parse(text, name).map_err(|problem| {
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

/// Parses text; the error is `LINE:COLUMN: what is wrong`.
fn parse<M: prost::Message + Default>(text: &str, name: &str) -> Result<M, String> {
    // Editors on some systems put a byte order mark first; it says nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let descriptor = vesta_protos::descriptor_pool()
        .get_message_by_name(name)
        .ok_or_else(|| format!("1:1: no message type is called {name}"))?;
    let message = DynamicMessage::parse_text_format(descriptor, text)
        .map_err(|problem| format!("{}: {problem}", position(text, &problem)))?;
    message.transcode_to::<M>().map_err(|problem| format!("1:1: {problem}"))
}

/// `LINE:COLUMN` of a problem, both from 1; the end of the text when it has no place of its own.
fn position(text: &str, problem: &ParseError) -> String {
    let offset = problem
        .labels()
        .and_then(|mut labels| labels.next())
        .map_or(text.len(), |label| label.offset());
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::tensorflow::serving::ModelServerConfig;
    use vesta_protos::tensorflow::serving::model_server_config::Config;

    const NAME: &str = "tensorflow.serving.ModelServerConfig";

    fn names(text: &str) -> Vec<String> {
        match parse::<ModelServerConfig>(text, NAME).unwrap().config {
            Some(Config::ModelConfigList(list)) => {
                list.config.into_iter().map(|c| c.name).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_formats_liberties_are_taken() {
        let text = "\u{feff}# a comment\r\nmodel_config_list: {\r\n  config: [\r\n    \
                    { name: 'a', base_path: \"/a\"; model_platform: \"tensorflow\" },\r\n    \
                    { name: \"b\" 'c' }\r\n  ]\r\n}\r\n";
        assert_eq!(names(text), ["a", "bc"]);
        assert_eq!(names("# nothing\n"), Vec::<String>::new());
    }

    #[test]
    fn errors_say_line_and_column() {
        let problem =
            parse::<ModelServerConfig>("model_config_list {\n  config { foo: 1 } }", NAME);
        assert!(problem.clone().unwrap_err().starts_with("2:12: "), "{problem:?}");
        let problem = parse::<ModelServerConfig>("model_config_list {", NAME);
        assert!(problem.clone().unwrap_err().starts_with("1:20: "), "{problem:?}");
    }

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
