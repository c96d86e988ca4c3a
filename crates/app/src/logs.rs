//! The log on standard error.
//!
//! Text lines have the form of the original (`I1122 13:44:05.123456 PID target] message`), since
//! people search and parse them; the other form is one JSON object a line.

use std::fmt;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, UtcTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;
use vesta_model::Status;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for people, in the original's form.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word for it in the flag `log_format`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }

    /// Reads the flag `log_format`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another word.
    pub(crate) fn parse(text: &str) -> Result<LogFormat, Status> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(Status::invalid_argument(format!(
                "--log_format={text} is unknown; choose text or json"
            ))),
        }
    }
}

/// Starts logging. `VESTA_LOG` holds directives such as `info,vesta_worker=debug`; without it
/// the original's `TF_CPP_MIN_LOG_LEVEL` decides.
pub(crate) fn start(format: LogFormat) {
    let filter = std::env::var("VESTA_LOG")
        .ok()
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(default_level()));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.event_format(GlogLines).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Whether the original's environment asks for a line for each REST request:
/// `TF_CPP_VMODULE=http_server=1` or `TF_CPP_MAX_VLOG_LEVEL=1`.
pub(crate) fn requests_are_logged() -> bool {
    let variable = |name| std::env::var(name).unwrap_or_default();
    asks_for_requests(&variable("TF_CPP_VMODULE"), &variable("TF_CPP_MAX_VLOG_LEVEL"))
}

fn asks_for_requests(modules: &str, level: &str) -> bool {
    let is_on = |level: &str| level.trim().parse::<i32>().is_ok_and(|level| level > 0);
    let of_server = modules
        .split(',')
        .filter_map(|module| module.split_once('='))
        .find(|(name, _)| name.trim() == "http_server");
    // A module's own level counts for it.
    of_server.map_or_else(|| is_on(level), |(_, own)| is_on(own))
}

fn default_level() -> &'static str {
    match std::env::var("TF_CPP_MIN_LOG_LEVEL").as_deref() {
        Ok("1") => "warn",
        Ok("2") => "error",
        Ok("3") => "off",
        _ => "info",
    }
}

/// Month, day and time of day, as the original writes them.
const GLOG_TIME: &[BorrowedFormatItem<'static>] =
    format_description!("[month][day] [hour]:[minute]:[second].[subsecond digits:6]");

/// The original's line form.
struct GlogLines;

impl<S, N> FormatEvent<S, N> for GlogLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let letter = match *metadata.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            Level::INFO => 'I',
            Level::DEBUG | Level::TRACE => 'D',
        };
        write!(writer, "{letter}")?;
        UtcTime::new(GLOG_TIME).format_time(&mut writer)?;
        write!(writer, " {:7} {}] ", std::process::id(), metadata.target())?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{}{{{fields}}} ", span.name())?;
            }
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_forms_are_taken() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(LogFormat::parse(format.as_str()), Ok(format));
        }
        assert!(LogFormat::parse("xml").is_err());
    }
}
