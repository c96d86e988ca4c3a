//! TensorFlow Serving's REST interface, from a request in memory to an answer in memory.
//!
//! Owns: which call a request means, the order in which it is checked, and the headers of answers.
//! May not know: sockets, HTTP framing, engines.
//! Invariant: a model is resolved once per request.

mod message_json;
mod models;
mod recording;
mod url;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONNECTION, CONTENT_TYPE, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::Semaphore;
use vesta_model::{
    Code, Label, ModelName, ModelSpec, Signature, Status, Tensor, Version, VersionChoice,
};
use vesta_serving::{Administer, InferRequest, Lease, Serving};

use self::url::{Choice, Verb};
use super::classify::classify;
use super::json::Refusal;
use super::json::example::ExamplesRequest;
use super::json::predict::{Form, PredictInputs, PredictRequest, read_at_once};
use super::json::write;
use super::method_check::MethodCheck;
use super::predict::{deadline_after, run};
use super::regress::regress;
use super::request_log::RequestLog;
use crate::budget::{Budget, Permit};
use crate::health::{Probe, ready_answer};
use crate::metrics::{Api, Metrics};
use crate::offload::Offload;
use crate::status::{error_json_of, http_status};

/// What the operator decides about the interface.
#[derive(Clone)]
pub struct RestOptions {
    /// How long a run may take; `None` for as long as it likes. Reading the request does not count.
    pub timeout: Option<Duration>,
    /// Whether answers tell browsers that pages from anywhere may read them.
    pub cors: bool,
    /// Whether calls are refused on signatures whose method name is another call's.
    pub method_check: MethodCheck,
    /// Calls that may be answered at once; more wait for their turn. `None` for no limit but those
    /// of queues and memory.
    pub calls_max: Option<usize>,
    /// The path of the metrics page; `None` for no page.
    pub metrics_path: Option<String>,
    /// The most bytes that a body may have, before and after it is inflated.
    pub body_bytes_max: usize,
    /// The most bytes that a gzip body may inflate to.
    pub inflated_bytes_max: usize,
    /// Connections that may be open at once; more wait to be accepted.
    pub connections_max: usize,
    /// How long the head of a request may take, and how long a connection may idle.
    pub head_timeout: Duration,
    /// How long a body may pause.
    pub body_timeout: Duration,
    /// How long connections may go on after the server is told to stop.
    pub drain: Duration,
    /// Threads that may read or write large bodies at once. At least 1.
    pub codec_threads: usize,
    /// Who loads and unloads single models on behalf of clients; `None` when clients may not ask.
    pub admin: Option<Arc<dyn Administer>>,
    /// Where calls are recorded.
    pub request_log: RequestLog,
    /// Whether the log has a line for each request.
    pub log_requests: bool,
}

impl Default for RestOptions {
    fn default() -> RestOptions {
        RestOptions {
            timeout: Some(Duration::from_secs(30)),
            cors: false,
            method_check: MethodCheck::default(),
            calls_max: None,
            metrics_path: None,
            body_bytes_max: 1 << 31,
            inflated_bytes_max: 100 << 20,
            connections_max: 10_000,
            head_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            codec_threads: 2,
            admin: None,
            request_log: RequestLog::default(),
            log_requests: false,
        }
    }
}

/// An answer in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, without those that framing adds.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The path of the metrics page unless the operator chose another.
pub const METRICS_PATH: &str = "/monitoring/prometheus/metrics";

/// Bodies up to this size are read and written on the thread that serves the connection.
const INLINE_BYTES_MAX: usize = 1 << 16;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
/// What the original's HTTP library adds to an answer that has no type.
const NO_TYPE: HeaderValue = HeaderValue::from_static("text/html; charset=ISO-8859-1");

/// The interface over one [`Serving`]. Clones are the same one.
#[derive(Clone)]
pub struct Rest {
    inner: Arc<Inner>,
}

struct Inner {
    serving: Serving,
    options: RestOptions,
    metrics: Metrics,
    budget: Budget,
    codec: Offload,
    places: Option<Semaphore>,
}

/// The outcome of an API call: the JSON, or why there is none. `None` in the place of an error's
/// text is an answer without a body.
type Outcome = Result<Bytes, (Code, Option<Vec<u8>>)>;

impl From<Refusal> for (Code, Option<Vec<u8>>) {
    fn from(refusal: Refusal) -> Self {
        (refusal.code, Some(refusal.message))
    }
}

/// A request as metrics name it.
#[derive(Debug, Default)]
struct Named {
    model: String,
    api: &'static str,
}

impl Rest {
    /// The interface.
    pub fn new(serving: Serving, options: RestOptions, metrics: Metrics, budget: Budget) -> Rest {
        let codec = Offload::new(options.codec_threads, INLINE_BYTES_MAX);
        let places = options.calls_max.map(Semaphore::new);
        Rest { inner: Arc::new(Inner { serving, options, metrics, budget, codec, places }) }
    }

    /// The options.
    pub fn options(&self) -> &RestOptions {
        &self.inner.options
    }

    /// The budget that bodies are counted against.
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Answers one request. `target` is the path with its query string; `body` is inflated already;
    /// `permit` holds the bytes of `body`.
    pub async fn answer(
        &self,
        method: &str,
        target: &str,
        headers: &HeaderMap,
        body: Bytes,
        permit: Permit,
    ) -> Answer {
        let start = Instant::now();
        if self.inner.options.log_requests {
            tracing::info!(
                "Processing HTTP request: {method} {target} body: {} bytes.",
                body.len()
            );
        }
        if !is_known_method(method) {
            return page(StatusCode::NOT_IMPLEMENTED);
        }
        if !url::is_valid(target) && target != "*" {
            return page(StatusCode::BAD_REQUEST);
        }
        if let Some(answer) = self.metrics_page(method, target) {
            return answer;
        }
        if let Some(probe) = Probe::of(method, target) {
            return self.probe(probe);
        }
        if !url::is_api(target) {
            return page(StatusCode::NOT_FOUND);
        }
        let mut named = Named::default();
        let (outcome, kind) = if method == "OPTIONS" {
            (preflight(headers), NO_TYPE)
        } else {
            let _place = match &self.inner.places {
                // The semaphore is never closed.
                Some(places) => places.acquire().await.ok(),
                None => None,
            };
            (self.call(method, target, headers, body, permit, &mut named).await, JSON)
        };
        let code = outcome.as_ref().err().map(|(code, _)| *code);
        let metrics = &self.inner.metrics;
        if code.is_none() {
            metrics.took(&named.model, named.api, "REST", start.elapsed());
        }
        metrics.answered(&named.model, code);
        self.api_answer(outcome, kind)
    }

    /// Answers a request whose body was not taken in, with `status` as the reason.
    pub fn refuse(&self, status: &Status) -> Answer {
        self.inner.metrics.answered("", Some(status.code()));
        self.api_answer(Err(Refusal::from(status.clone()).into()), JSON)
    }

    /// Answers a request whose body is larger than [`RestOptions::body_bytes_max`].
    pub fn refuse_size(&self) -> Answer {
        let mut answer = self.refuse(&Status::resource_exhausted(format!(
            "the body is larger than the {} bytes that the server takes",
            self.inner.options.body_bytes_max
        )));
        answer.status = StatusCode::PAYLOAD_TOO_LARGE;
        answer
    }

    fn api_answer(&self, outcome: Outcome, kind: HeaderValue) -> Answer {
        let (status, body) = match outcome {
            Ok(body) => (StatusCode::OK, body),
            Err((code, message)) => {
                let body = message.map(|message| error_json_of(&message));
                (http_status(code), body.unwrap_or_default().into())
            }
        };
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, kind);
        if self.inner.options.cors {
            let mut allow = |name: HeaderName, value: &'static str| {
                headers.insert(name, HeaderValue::from_static(value));
            };
            allow(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
            allow(ACCESS_CONTROL_ALLOW_METHODS, "POST, GET");
            allow(ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type");
        }
        Answer { status, headers, body }
    }

    fn metrics_page(&self, method: &str, target: &str) -> Option<Answer> {
        let want = self.inner.options.metrics_path.as_deref()?;
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if path != want || method == "OPTIONS" {
            return None;
        }
        let (status, body) = if target == want {
            (StatusCode::OK, self.inner.metrics.page())
        } else {
            let text = format!("Unexpected path: {target}. Should be {want}");
            (StatusCode::BAD_REQUEST, text.into_bytes())
        };
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, PLAIN)]);
        Some(Answer { status, headers, body: body.into() })
    }

    /// Says whether the server lives or is ready. Not counted as a request, for it comes from no
    /// client.
    fn probe(&self, probe: Probe) -> Answer {
        let (status, kind, body) = match probe {
            Probe::Live => (StatusCode::OK, PLAIN, b"ok".to_vec()),
            Probe::Ready => {
                let (status, body) = ready_answer(&self.inner.serving.readiness());
                (status, JSON, body)
            }
        };
        Answer { status, headers: HeaderMap::from_iter([(CONTENT_TYPE, kind)]), body: body.into() }
    }

    async fn call(
        &self,
        method: &str,
        target: &str,
        headers: &HeaderMap,
        body: Bytes,
        permit: Permit,
        named: &mut Named,
    ) -> Outcome {
        let malformed = || Refusal::invalid(format!("Malformed request: {method} {target}"));
        match method {
            "POST" => {
                if let Some((model, order)) = self.order(target) {
                    named.model.clone_from(&model);
                    return Ok(self.administer(model, order, headers, body).await?);
                }
                let call = url::match_call(target).ok_or_else(malformed)?;
                named.model.clone_from(&call.model);
                named.api = call.verb.map_or("", verb_name);
                let spec = model_spec(call.model, call.choice)?;
                let verb = call.verb.ok_or_else(malformed)?;
                Ok(match verb {
                    Verb::Predict => self.predict(spec, body, permit).await,
                    Verb::Classify | Verb::Regress => self.examples(verb, spec, body, permit).await,
                }?)
            }
            "GET" => {
                drop((body, permit));
                let get = url::match_model(target).ok_or_else(malformed)?;
                named.model.clone_from(&get.model);
                let spec = model_spec(get.model, get.choice)?;
                if spec.name.as_str().is_empty() {
                    if url::is_list(target) {
                        return self.list_apart().await;
                    }
                    return Err(Refusal::invalid("Missing model name in request.").into());
                }
                Ok(if get.metadata { self.metadata(&spec) } else { self.status(&spec) }?)
            }
            _ => Err(malformed().into()),
        }
    }

    async fn list_apart(&self) -> Outcome {
        let rest = self.clone();
        let list = tokio::task::spawn_blocking(move || rest.list()).await;
        Ok(list.map_err(|e| Refusal::from(Status::internal("the list of models").with_cause(e)))??)
    }

    async fn predict(
        &self,
        spec: ModelSpec,
        body: Bytes,
        mut permit: Permit,
    ) -> Result<Bytes, Refusal> {
        let serving = self.inner.serving.clone();
        let chosen = self.choose_predict(&spec);
        let bytes = body.len();
        let decode = move || {
            let call = decode_predict(&serving, &spec, &body, &mut permit)?;
            // The text is not needed any more; its tensors have been counted.
            drop(body);
            permit.shrink(bytes);
            Ok::<_, Refusal>((call, permit))
        };
        let (call, mut permit) = self.inner.codec.run(bytes, decode).await?;
        let PredictCall { lease, signature, inputs, form } = call;
        self.inner.options.method_check.predict(&signature)?;
        let chosen = chosen.map(|chosen| chosen.with_inputs(&lease, &inputs));
        let outputs: Vec<usize> = (0..signature.outputs.len()).collect();
        let deadline = deadline_after(self.inner.options.timeout);
        let request = InferRequest { signature: signature.name.clone(), inputs, outputs, deadline };
        let tensors = run(&lease, request, Api::Predict, &self.inner.metrics).await?;
        let bytes = tensors.iter().map(|tensor| tensor.bytes().len()).sum();
        permit.grow(bytes)?;
        let encode = move || {
            let outputs: Vec<_> = signature.outputs.iter().zip(&tensors).collect();
            let json = write::predictions(&outputs, form)?;
            drop(outputs);
            if let Some(chosen) = chosen {
                chosen.answered(&signature, &tensors);
            }
            permit.grow(json.len())?;
            drop(tensors);
            permit.shrink(permit.bytes() - json.len());
            // The bytes are given back when the last of them is sent.
            Ok::<_, Refusal>(Bytes::from_owner(Counted { bytes: json, _permit: permit }))
        };
        self.inner.codec.run(bytes, encode).await
    }

    async fn examples(
        &self,
        verb: Verb,
        spec: ModelSpec,
        body: Bytes,
        mut permit: Permit,
    ) -> Result<Bytes, Refusal> {
        let bytes = body.len();
        let decode = move || {
            let request = ExamplesRequest::parse(&body, &mut permit)?;
            drop(body);
            permit.shrink(bytes);
            Ok::<_, Refusal>((request, permit))
        };
        let (request, _permit) = self.inner.codec.run(bytes, decode).await?;
        let lease = self.inner.serving.resolve(&spec)?;
        let signature = String::from_utf8_lossy(&request.signature);
        let deadline = deadline_after(self.inner.options.timeout);
        let metrics = &self.inner.metrics;
        let (examples, check) = (&request.examples, self.inner.options.method_check);
        let chosen = self.choose_examples(&spec, &signature, &lease);
        if verb == Verb::Classify {
            let results = classify(&lease, &signature, examples, deadline, check, metrics).await?;
            let json = write::classifications(&results)?.into();
            if let Some(chosen) = chosen {
                chosen.classified(examples, results);
            }
            Ok(json)
        } else {
            let results = regress(&lease, &signature, examples, deadline, check, metrics).await?;
            let json = write::regressions(&results)?.into();
            if let Some(chosen) = chosen {
                chosen.regressed(examples, results);
            }
            Ok(json)
        }
    }

    /// Where long work is done.
    pub(crate) fn codec(&self) -> &Offload {
        &self.inner.codec
    }
}

/// Bytes of an answer and the permit for them.
struct Counted {
    bytes: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A predict request that is ready to run.
struct PredictCall {
    lease: Lease,
    signature: Arc<Signature>,
    inputs: Vec<Tensor>,
    form: Form,
}

fn decode_predict(
    serving: &Serving,
    spec: &ModelSpec,
    body: &[u8],
    permit: &mut Permit,
) -> Result<PredictCall, Refusal> {
    // Resolved first and looked at later, since a request that is no JSON is told so even if there
    // is no such model.
    let resolved = serving.resolve(spec);
    if let Ok(lease) = &resolved
        && let Some(signature) = lease.signatures().get(Signature::DEFAULT_NAME).map(Arc::clone)
        && let Some(PredictInputs { form, tensors }) = read_at_once(body, &signature, permit)
    {
        let inputs = with_defaults(&signature, tensors)?;
        return Ok(PredictCall { lease: lease.clone(), signature, inputs, form });
    }
    let request = PredictRequest::parse(body)?;
    let lease = resolved?;
    let name = request.signature_name();
    let name: &[u8] = if name.is_empty() { Signature::DEFAULT_NAME.as_bytes() } else { name };
    let found = std::str::from_utf8(name).ok().and_then(|name| lease.signatures().get(name));
    let Some(signature) = found.map(Arc::clone) else {
        let before = b"Serving signature name: \"".as_slice();
        return Err(Refusal::invalid([before, name, b"\" not found in signature def"].concat()));
    };
    let PredictInputs { form, tensors } = request.inputs(&signature, permit)?;
    let inputs = with_defaults(&signature, tensors)?;
    Ok(PredictCall { lease, signature, inputs, form })
}

/// Fills in what a request leaves out.
fn with_defaults(
    signature: &Signature,
    tensors: Vec<Option<Tensor>>,
) -> Result<Vec<Tensor>, Refusal> {
    let specs = signature.inputs.iter();
    specs
        .zip(tensors)
        .map(|(spec, tensor)| {
            tensor.or_else(|| spec.default.clone()).ok_or_else(|| {
                Refusal::invalid(format!("Missing named input: {} in 'inputs' object.", spec.alias))
            })
        })
        .collect()
}

fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Predict => "predict",
        Verb::Classify => "classify",
        Verb::Regress => "regress",
    }
}

fn model_spec(model: String, choice: Choice) -> Result<ModelSpec, Refusal> {
    let choice = match choice {
        Choice::None => VersionChoice::Latest,
        Choice::Label(label) => VersionChoice::Label(Label::from(label)),
        // The original says nothing at all.
        Choice::Version(digits) => {
            VersionChoice::Version(Version(digits.parse().map_err(|_| {
                Refusal::invalid(format!("the version {digits} is larger than any, {}", i64::MAX))
            })?))
        }
    };
    Ok(ModelSpec { name: ModelName::from(model), choice })
}

/// Methods that the original's HTTP library knows and lets through.
fn is_known_method(method: &str) -> bool {
    matches!(method, "GET" | "POST" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "PATCH")
}

/// What a browser asks before it sends a request to another site. Whether it may is said by the
/// headers, not by the status.
fn preflight(headers: &HeaderMap) -> Outcome {
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes).unwrap_or_default();
    let contains = |scheme: &[u8]| memchr::memmem::find(origin, scheme).is_some();
    if contains(b"http://") || contains(b"https://") {
        Ok(Bytes::new())
    } else {
        Err((Code::FailedPrecondition, None))
    }
}

/// The error page of the original's HTTP library, after which it closes the connection.
pub(crate) fn page(status: StatusCode) -> Answer {
    let reason = status.canonical_reason().unwrap_or_default();
    let body = format!(
        "<HTML><HEAD>\n<TITLE>{} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n</BODY></HTML>\n",
        status.as_u16()
    );
    let close = HeaderValue::from_static("close");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HTML), (CONNECTION, close)]);
    Answer { status, headers, body: body.into() }
}
