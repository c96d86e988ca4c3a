//! `vesta status`: what a running server serves, and by what, as a table or JSON.
//!
//! Owns: how the server is asked, and what to do where it does not answer. May not know: what the answer
//! looks like on the terminal (`table`).
//! Invariant: it asks one question, of the place that it was given alone, and waits no longer than it was
//! told.

mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reqwest::{StatusCode, Url};
use vesta_model::Status;

use self::table::List;
use crate::commands::{complain, parse, print};

/// What a running server serves: each version with its state, its engine and how that was chosen.
///
/// Asks the server's REST port (GET /v1/models). Milliseconds are processor time of one run of all that
/// the engines were tried on when the choice was measured; memory is that of the version's own process.
#[derive(Debug, Parser)]
#[command(name = "vesta status", bin_name = "vesta status")]
struct Arguments {
    /// Where the server is: HOST, HOST:PORT or PORT; localhost:8501 without it.
    #[arg(conflicts_with = "url")]
    address: Option<String>,
    /// The same as a URL, such as https://models.example.org/prefix.
    #[arg(long)]
    url: Option<String>,
    /// The server's whole answer, as JSON.
    #[arg(long)]
    json: bool,
    /// Milliseconds to wait for the answer.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    timeout_ms: u64,
}

/// The REST port that the image and the documentation use.
const PORT: u16 = 8501;

/// More is no list of models.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Runs the command; `arguments` leave both words out.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let arguments: Arguments = match parse("vesta status", arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match told(&arguments) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(status) => {
            complain(&format!("vesta status: {}\n", status.message()));
            ExitCode::FAILURE
        }
    }
}

fn told(arguments: &Arguments) -> Result<String, Status> {
    let place = place(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Status::internal(format!("there are no threads: {error}")))?;
    let limit = Duration::from_millis(arguments.timeout_ms);
    let body = runtime.block_on(ask(&place, limit))?;
    let strange = |why: serde_json::Error| {
        Status::failed_precondition(format!(
            "what answers at {place} is no Vesta server, or of another release: {why}"
        ))
    };
    if arguments.json {
        let value: serde_json::Value = serde_json::from_slice(&body).map_err(strange)?;
        return Ok(format!("{value:#}\n"));
    }
    Ok(serde_json::from_slice::<List>(&body).map_err(strange)?.to_string())
}

/// Where the list of models is.
fn place(arguments: &Arguments) -> Result<Url, Status> {
    let wrong = |text: &str, why: &str| {
        Status::invalid_argument(format!(
            "{text} is no place of a server: {why}; give HOST:PORT, or --url=http://HOST:PORT"
        ))
    };
    let (given, text) = match (&arguments.url, &arguments.address) {
        (Some(url), _) => (url.as_str(), url.clone()),
        (None, Some(address)) if address.contains("://") => (address.as_str(), address.clone()),
        (None, Some(port)) if port.parse::<u16>().is_ok() => {
            (port.as_str(), format!("http://localhost:{port}"))
        }
        (None, Some(address)) => (address.as_str(), format!("http://{address}")),
        (None, None) => ("", format!("http://localhost:{PORT}")),
    };
    let mut url = Url::parse(&text).map_err(|why| wrong(given, &why.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(given, "only http and https are spoken"));
    }
    let is_url = given.contains("://");
    // A URL means what it says; an address without a port means the usual one.
    if !is_url && url.port().is_none() && !given.ends_with(":80") {
        url.set_port(Some(PORT)).map_err(|()| wrong(given, "it has no host"))?;
    }
    let prefix = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{prefix}/v1/models"));
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

async fn ask(place: &Url, limit: Duration) -> Result<Vec<u8>, Status> {
    // One that is there already does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        // The server is asked itself, whatever pages of the world are fetched through.
        .no_proxy()
        .timeout(limit)
        .build()
        .map_err(|error| Status::internal(format!("requests cannot be sent: {error}")))?;
    let mut answer =
        client.get(place.clone()).send().await.map_err(|error| unheard(place, limit, &error))?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| unheard(place, limit, &error))? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the answer of {place} has more than {ANSWER_BYTES_MAX} bytes"
            )));
        }
        body.extend_from_slice(&part);
    }
    if status == StatusCode::OK { Ok(body) } else { Err(refused(place, status, &body)) }
}

/// Why there is no answer, and what to do.
fn unheard(place: &Url, limit: Duration, error: &reqwest::Error) -> Status {
    let asked = origin(place);
    if error.is_timeout() {
        return Status::deadline_exceeded(format!(
            "{asked} does not answer within {} ms; is it busy, or is that another server's port? \
             --timeout-ms=MS waits longer",
            limit.as_millis()
        ));
    }
    if error.is_connect() {
        return Status::unavailable(format!(
            "nothing can be reached at {asked} ({}); the REST port is open once models serve, and only \
             where the server has --rest_api_port=PORT; say where it is by `vesta status HOST:PORT` or \
             --url=URL",
            root(error)
        ));
    }
    Status::unavailable(format!(
        "what listens at {asked} does not speak HTTP/1.1 ({}); is that the gRPC port? the REST port is \
         needed",
        root(error)
    ))
}

/// What to say of an answer that is no list.
fn refused(place: &Url, status: StatusCode, body: &[u8]) -> Status {
    let text = String::from_utf8_lossy(body);
    // The original's answer to the same question.
    if text.contains("Missing model name in request") {
        return Status::unimplemented(format!(
            "{} is a server of TensorFlow, or an older Vesta, which has no list of models",
            origin(place)
        ));
    }
    let said: String = text.chars().take(200).collect();
    Status::failed_precondition(format!(
        "{place} answers {status}: {}; is that a Vesta server's REST port?",
        table::printable(&said)
    ))
}

/// The place without the path that was added to it.
fn origin(place: &Url) -> String {
    place.as_str().trim_end_matches("/v1/models").to_owned()
}

/// The innermost cause, which says most.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<String, String> {
        let words = std::iter::once("vesta status").chain(arguments.iter().copied());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        place(&arguments).map(String::from).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn places_are_understood() {
        for (given, want) in [
            (&[][..], "http://localhost:8501/v1/models"),
            (&["9000"], "http://localhost:9000/v1/models"),
            (&["models"], "http://models:8501/v1/models"),
            (&["10.0.0.1:99"], "http://10.0.0.1:99/v1/models"),
            (&["[::1]:99"], "http://[::1]:99/v1/models"),
            (&["models:80"], "http://models/v1/models"),
            (&["http://models"], "http://models/v1/models"),
            (&["--url=https://models/a/"], "https://models/a/v1/models"),
            (&["--url", "http://models:8501/?x#y"], "http://models:8501/v1/models"),
        ] {
            assert_eq!(of(given).as_deref(), Ok(want), "{given:?}");
        }
        for (given, word) in [
            (&["a b"][..], "a b is no place of a server"),
            (&["--url=ftp://x"], "only http and https"),
            (&["--url=x"], "x is no place"),
            (&["a", "--url=http://b"], "cannot be used with"),
            (&["host:99999"], "invalid port"),
        ] {
            assert!(of(given).unwrap_err().contains(word), "{given:?}: {:?}", of(given));
        }
    }

    #[test]
    fn the_original_and_strangers_are_told_apart() {
        let place = Url::parse("http://h:1/v1/models").unwrap();
        let of = |text: &str| {
            refused(&place, StatusCode::BAD_REQUEST, text.as_bytes()).message().to_owned()
        };
        let original = of("{ \"error\": \"Missing model name in request.\" }");
        assert!(original.starts_with("http://h:1 is a server of TensorFlow"), "{original}");
        assert_eq!(
            of("no\u{1b}[2J\n"),
            "http://h:1/v1/models answers 400 Bad Request: no [2J ; is that a Vesta server's REST port?"
        );
    }
}
