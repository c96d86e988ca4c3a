//! Protobuf's text format.
//!
//! Owns: what the format takes beyond what the parser of the library knows, and a bound on nesting.
//! May not know: files, and what any message means. Invariant: an error has the line and column of the
//! text as it is.

use miette::Diagnostic;
use prost_reflect::DynamicMessage;
use prost_reflect::text_format::ParseError;

/// How deep messages may be nested in each other: as deep as in their binary form.
const DEPTH_MAX: usize = 100;

/// A text as the parser takes it.
#[derive(Debug)]
struct Prepared {
    text: String,
    /// Where bytes were put in, in order.
    inserted: Vec<usize>,
}

impl Prepared {
    /// The place in the original text of a place in this one.
    fn original(&self, offset: usize) -> usize {
        offset - self.inserted.iter().take_while(|&&at| at < offset).count()
    }
}

/// Puts the colon between the name of a field and its list, where it may be left out and the parser
/// asks for it; `Err` is the place where messages are nested too deep for a parser that recurses.
fn prepare(text: &str) -> Result<Prepared, usize> {
    let bytes = text.as_bytes();
    let mut prepared = Prepared { text: String::with_capacity(text.len()), inserted: Vec::new() };
    let (mut copied, mut at, mut depth) = (0, 0, 0usize);
    // What came last, white space and comments aside: the start of a word, or another character.
    let (mut before, mut last) = (0u8, 0u8);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'#' => {
                at = first_or_end(bytes, at, |b| b == b'\n');
                continue;
            }
            b'"' | b'\'' => {
                while let Some(&inside) = bytes.get(at) {
                    at += if inside == b'\\' { 2 } else { 1 };
                    if inside == byte {
                        break;
                    }
                }
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'0'..=b'9' => {
                at = first_or_end(bytes, at, |b| !b.is_ascii_alphanumeric() && b != b'_');
                (before, last) = (last, b'w');
                continue;
            }
            b'{' | b'<' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(start);
                }
            }
            b'}' | b'>' => depth = depth.saturating_sub(1),
            // A word that is no value is the name of a field.
            b'[' if last == b'w' && !matches!(before, b':' | b'-' | b'.' | b'/') => {
                prepared.text.push_str(&text[copied..start]);
                prepared.inserted.push(prepared.text.len());
                prepared.text.push(':');
                copied = start;
            }
            _ if byte.is_ascii_whitespace() => continue,
            _ => {}
        }
        (before, last) = (last, byte);
    }
    prepared.text.push_str(&text[copied..]);
    Ok(prepared)
}

/// The first place from `at` on whose byte is `wanted`, or the end.
fn first_or_end(bytes: &[u8], at: usize, wanted: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|&byte| wanted(byte)).unwrap_or(rest.len())
}

/// Parses text as a message of the type called `name`, with all the liberties that the format allows.
///
/// # Errors
/// `LINE:COLUMN: what is wrong`, both from 1.
pub fn parse<M: prost::Message + Default>(text: &str, name: &str) -> Result<M, String> {
    // Editors on some systems put a byte order mark first; it says nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let descriptor = crate::descriptor_pool()
        .get_message_by_name(name)
        .ok_or_else(|| format!("1:1: no message type is called {name}"))?;
    let prepared = prepare(text).map_err(|offset| {
        format!("{}: messages are nested deeper than {DEPTH_MAX}", position(text, offset))
    })?;
    let message =
        DynamicMessage::parse_text_format(descriptor, &prepared.text).map_err(|problem| {
            let offset = offset(&problem).map_or(text.len(), |offset| prepared.original(offset));
            format!("{}: {problem}", position(text, offset))
        })?;
    message.transcode_to::<M>().map_err(|problem| format!("1:1: {problem}"))
}

/// Where a problem lies; `None` for the end of the text.
fn offset(problem: &ParseError) -> Option<usize> {
    Some(problem.labels()?.next()?.offset())
}

/// `LINE:COLUMN` of a place, both from 1.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::serving::model_server_config::Config;
    use crate::tensorflow::serving::{self as proto, ModelServerConfig};
    use proptest::prelude::*;

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

    fn read_as<M: prost::Message + Default>(text: &str, name: &str) -> M {
        parse(text, &format!("tensorflow.serving.{name}")).unwrap()
    }

    #[test]
    fn lists_go_with_and_without_a_colon_and_angles_are_braces() {
        let config = "{ name: 'a' }, < name: 'b' >";
        for text in [
            format!("model_config_list {{ config [{config}] }}"),
            format!("model_config_list: < config: [{config}] >"),
            format!("model_config_list {{ config[{config}]; }},"),
            format!("model_config_list {{ config # why\n [ {config} ] }}"),
            format!("model_config_list {{ config [] config [{config}] }}"),
        ] {
            assert_eq!(names(&text), ["a", "b"], "{text}");
        }
        let batching: proto::BatchingParameters = read_as(
            "max_batch_size { value: 0x10 } allowed_batch_sizes: [ 010, 16 ], \
             pad_variable_length_inputs: t; thread_pool_name < value: 'a[b' \"c\" >",
            "BatchingParameters",
        );
        assert_eq!(batching.max_batch_size, Some(16));
        assert_eq!(batching.allowed_batch_sizes, [8, 16]);
        assert!(batching.pad_variable_length_inputs);
        assert_eq!(batching.thread_pool_name.as_deref(), Some("a[bc"));
    }

    #[test]
    fn numbers_escapes_and_names_of_enums_are_read() {
        let config: crate::tensorflow::ConfigProto = parse(
            "gpu_options { per_process_gpu_memory_fraction: inf } \
             graph_options { optimizer_options { global_jit_level: ON_1 } } \
             device_count: { key: 'C\\x50\\125' value: -0 } log_device_placement: True",
            "tensorflow.ConfigProto",
        )
        .unwrap();
        assert_eq!(config.gpu_options.unwrap().per_process_gpu_memory_fraction, f64::INFINITY);
        let optimizer = config.graph_options.unwrap().optimizer_options.unwrap();
        assert_eq!(optimizer.global_jit_level, 1);
        assert_eq!(config.device_count["CPU"], 0);
        assert!(config.log_device_placement);
        let sampled: proto::SamplingConfig =
            read_as("sampling_rate: nan attributes: 3", "SamplingConfig");
        assert!(sampled.sampling_rate.is_nan());
    }

    #[test]
    fn any_is_expanded_with_and_without_a_colon() {
        for colon in ["", ":"] {
            let map: proto::PlatformConfigMap = read_as(
                &format!(
                    "platform_configs {{ key: 'tensorflow' value {{ source_adapter_config {{ \
                     [type.googleapis.com/tensorflow.serving.SSLConfig]{colon} {{ server_key: 'k' \
                     }} }} }} }}"
                ),
                "PlatformConfigMap",
            );
            let any = map.platform_configs["tensorflow"].source_adapter_config.clone().unwrap();
            assert_eq!(any.type_url, "type.googleapis.com/tensorflow.serving.SSLConfig");
            assert_eq!(any.value, [10, 1, b'k']);
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let open = "custom_model_config { [type.googleapis.com/tensorflow.serving.ModelServerConfig] \
                    { ";
        let nested = |levels: usize| format!("{}{}", open.repeat(levels), "}}".repeat(levels));
        let read = |levels| parse::<ModelServerConfig>(&nested(levels), NAME);
        assert!(read(DEPTH_MAX / 2).is_ok());
        let problem = read(100_000).unwrap_err();
        assert!(problem.ends_with("messages are nested deeper than 100"), "{problem}");
        assert!(problem.starts_with("1:"), "{problem}");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "[a-z:{}<>\\[\\]'\"#\\\\ ,;/.0-9\\n-]{0,60}") {
            let _ = parse::<ModelServerConfig>(&text, NAME);
        }
    }

    #[test]
    fn errors_say_line_and_column() {
        let problem =
            parse::<ModelServerConfig>("model_config_list {\n  config { foo: 1 } }", NAME);
        assert!(problem.clone().unwrap_err().starts_with("2:12: "), "{problem:?}");
        let problem = parse::<ModelServerConfig>("model_config_list {", NAME);
        assert!(problem.clone().unwrap_err().starts_with("1:20: "), "{problem:?}");
        let shifted = "model_config_list {\n config [] config [] config [{ foo: 1 }] }";
        let problem = parse::<ModelServerConfig>(shifted, NAME);
        assert!(problem.clone().unwrap_err().starts_with("2:32: "), "{problem:?}");
        let twice = "model_config_list {} model_config_list {}";
        assert!(parse::<ModelServerConfig>(twice, NAME).is_err());
    }
}
