//! The command line of `vesta serve` and `tensorflow_model_server`.
//!
//! Owns the original's parsing rules (`--name=value` alone, unknown words reported and passed over,
//! the last repeat wins). Knows nothing of what a flag does. Help and defaults come from one table.

mod page;
mod table;

use std::fmt::Write as _;

pub(crate) use page::page;
pub(crate) use table::{Cap, Flags};
use table::{FLAGS, Flag};

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    /// Serve with these flags; the words nobody knows are to be reported.
    Serve {
        /// The values.
        flags: Box<Flags>,
        /// Arguments that are no flag of ours, in order.
        unknown: Vec<String>,
    },
    /// Print the usage and end with 255, as the original does.
    Help,
    /// Print the version and end with 0.
    Version,
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// The text for standard error when a value cannot be read; the original prints the usage besides
/// and ends with 255.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Parsed, String> {
    let mut flags = Flags::default();
    let mut unknown = Vec::new();
    let (mut help, mut version) = (false, false);
    for argument in arguments {
        match argument.as_str() {
            "--help" | "--help=true" => help = true,
            "--version" | "--version=true" | "--version=1" => version = true,
            "--help=false" | "--version=false" => {}
            _ => match find(&argument) {
                Some((flag, text)) => {
                    let value = text.unwrap_or("true");
                    (flag.set)(&mut flags, value).map_err(|_| {
                        format!("Couldn't interpret value {value} for flag {}.", flag.name)
                    })?;
                }
                None => unknown.push(argument),
            },
        }
    }
    Ok(if help {
        Parsed::Help
    } else if version {
        Parsed::Version
    } else {
        Parsed::Serve { flags: Box::new(flags), unknown }
    })
}

/// The flag that an argument sets, and its text; a boolean may go without one.
fn find(argument: &str) -> Option<(&'static Flag, Option<&str>)> {
    let body = argument.strip_prefix("--")?;
    let (name, text) = match body.split_once('=') {
        Some((name, text)) => (name, Some(text)),
        None => (body, None),
    };
    let flag = FLAGS.iter().find(|flag| flag.name == name)?;
    (text.is_some() || flag.kind == "bool").then_some((flag, text))
}

/// The first of the words that nobody knows which was meant to ask for an encrypted port. Passing over
/// such a word would serve in the clear somebody who asked for the opposite.
pub(crate) fn asks_for_encryption(unknown: &[String]) -> Option<&str> {
    const FLAGS: [&str; 2] = ["ssl_config_file", "use_alts_credentials"];
    let asks = |word: &str| {
        let Some(body) = word.strip_prefix('-') else { return false };
        let body = body.trim_start_matches('-');
        let (name, value) = body.split_once('=').unwrap_or((body, "true"));
        FLAGS.contains(&&*name.replace('-', "_")) && !["", "false", "0"].contains(&value)
    };
    unknown.iter().map(String::as_str).find(|word| asks(word))
}

/// The usage text for `program`.
pub(crate) fn usage(program: &str) -> String {
    let mut text = format!("usage: {program}\nFlags:\n");
    let defaults = Flags::default();
    for flag in FLAGS {
        let default = (flag.show)(&defaults);
        let shown = if flag.kind == "string" { format!("\"{default}\"") } else { default };
        let setting = format!("--{}={shown}", flag.name);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\t{setting:<48}\t{}\t{}", flag.kind, flag.help);
    }
    text.push_str(
        "\t--version=false                                 \tbool\tPrint the version and end.\n",
    );
    text.push_str(
        "\t--help=false                                    \tbool\tPrint this text and end.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Parsed, String> {
        parse(arguments.iter().map(|&a| a.to_owned()))
    }

    fn served(arguments: &[&str]) -> (Flags, Vec<String>) {
        match read(arguments) {
            Ok(Parsed::Serve { flags, unknown }) => (*flags, unknown),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_repeat_wins_and_strays_are_reported() {
        let (flags, unknown) = served(&[
            "--model_name=a",
            "-port=1",
            "--port",
            "9000",
            "--rest-api-port=2",
            "serve",
            "--model_name=b",
            "--no_such_flag=1",
        ]);
        assert_eq!(flags.model_name, "b");
        assert_eq!(flags.port, 8500);
        assert_eq!(
            unknown,
            ["-port=1", "--port", "9000", "--rest-api-port=2", "serve", "--no_such_flag=1"]
        );
    }

    #[test]
    fn booleans_take_the_originals_forms() {
        for (argument, want) in [
            ("--rest_api_enable_cors_support", true),
            ("--rest_api_enable_cors_support=1", true),
            ("--rest_api_enable_cors_support=True", true),
            ("--rest_api_enable_cors_support=false", false),
            ("--rest_api_enable_cors_support=0", false),
        ] {
            assert_eq!(served(&[argument]).0.rest_api_enable_cors_support, want, "{argument}");
        }
    }

    #[test]
    fn bad_values_have_the_originals_text() {
        for (argument, text) in [
            ("--port=abc", "Couldn't interpret value abc for flag port."),
            (
                "--rest_api_timeout_in_ms=",
                "Couldn't interpret value  for flag rest_api_timeout_in_ms.",
            ),
            (
                "--file_system_poll_wait_seconds=1s",
                "Couldn't interpret value 1s for flag file_system_poll_wait_seconds.",
            ),
            (
                "--rest_api_enable_cors_support=maybe",
                "Couldn't interpret value maybe for flag rest_api_enable_cors_support.",
            ),
        ] {
            assert_eq!(read(&[argument]), Err(text.to_owned()));
        }
    }

    #[test]
    fn encryption_is_never_passed_over() {
        let asked = |word: &str| asks_for_encryption(&[word.to_owned()]).is_some();
        assert!(asked("--ssl_config_file"));
        assert!(asked("--ssl-config-file=/etc/ssl.config"));
        assert!(asked("-ssl_config_file=/etc/ssl.config"));
        assert!(asked("--use-alts-credentials"));
        assert!(!asked("--use-alts-credentials=false"));
        assert!(!asked("--ssl-config-file="));
        assert!(!asked("ssl_config_file"));
        assert!(!asked("--enable_batching"));
    }

    #[test]
    fn help_names_every_flag() {
        let text = usage("tensorflow_model_server");
        assert!(text.starts_with("usage: tensorflow_model_server\nFlags:\n\t--port=8500"));
        for flag in FLAGS {
            assert!(text.contains(&format!("--{}=", flag.name)));
        }
        assert_eq!(read(&["--help", "--port=1"]), Ok(Parsed::Help));
        assert_eq!(read(&["--version"]), Ok(Parsed::Version));
    }
}
