//! What the server is asked to do, resolved before any port opens.
//!
//! Owns: the step from raw [`Flags`] and files to one [`Resolved`] value, and every check that
//! stops a start. May not know: how any of it is carried out.

mod batching;
mod channel;
mod credentials;
mod idle;
mod model_file;
mod platform;
mod session;
mod text;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vesta_engines::{EngineOptions, OpenVinoOptions, TensorFlowOptions};
use vesta_frontends::{METRICS_PATH, Tls, model_configs};
use vesta_model::{ModelConfig, Status};
use vesta_protos::tensorflow::serving as proto;
use vesta_repository::Poll;
use vesta_serving::AspiredVersionPolicy;

use crate::flags::{Cap, Flags};
use crate::placement::{EngineSettings, Isolation, part_of_runs};
use crate::request_log::FileLimits;

pub(crate) use batching::{Batching, PARAMETERS_FILE, read_parameters};
pub(crate) use channel::Channel;
pub(crate) use model_file::{ModelFile, Refusal};

/// Everything that a start needs, checked.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Where gRPC listens; `None` when its port is 0.
    pub(crate) grpc_address: Option<SocketAddr>,
    /// The Unix socket for gRPC.
    pub(crate) grpc_socket: Option<PathBuf>,
    /// Where REST listens; `None` when its port is 0.
    pub(crate) rest_address: Option<SocketAddr>,
    /// Time limit of an inference call over REST.
    pub(crate) rest_timeout: Option<Duration>,
    /// Whether REST answers carry CORS headers.
    pub(crate) rest_cors: bool,
    /// The most bytes that the body of a REST request may have.
    pub(crate) rest_body_bytes_max: usize,
    /// Whether models may be loaded and unloaded one by one over REST.
    pub(crate) admin_api: bool,
    /// When a file of recorded requests ends, and how many stay.
    pub(crate) request_log_limits: FileLimits,
    /// Path of the Prometheus page; `None` when it is off.
    pub(crate) metrics_path: Option<String>,
    /// Models to serve from the start.
    pub(crate) models: Vec<ModelConfig>,
    /// The file that lists them, and how often it is looked at; `None` to read it once.
    pub(crate) polled_file: Option<(ModelFile, Duration)>,
    /// Whether labels may name versions that are not yet available.
    pub(crate) labels_for_unavailable: bool,
    /// Where models of object stores are copied to; an error when no place was given.
    pub(crate) model_cache: Result<PathBuf, Status>,
    /// How often base paths are looked at.
    pub(crate) poll: Poll,
    /// Tags that select a graph of a SavedModel.
    pub(crate) tags: Vec<String>,
    /// Threads that load versions.
    pub(crate) load_threads: usize,
    /// Threads that unload versions.
    pub(crate) unload_threads: usize,
    /// How often a failed load is tried again.
    pub(crate) load_retries_max: u32,
    /// Time between two tries.
    pub(crate) load_retry_interval: Duration,
    /// Whether a new version is loaded beside the old one or in its place.
    pub(crate) policy: AspiredVersionPolicy,
    /// How often each recorded request is run before a version is available; 0 for no warm-up.
    pub(crate) warm_up_iterations: u32,
    /// Which requests are run together.
    pub(crate) batching: Batching,
    /// Whether calls are refused on signatures whose method name is another call's.
    pub(crate) method_check: bool,
    /// Which engine runs the models, and where.
    pub(crate) engine: EngineSettings,
    /// Keys and certificates of gRPC; `None` for no encryption.
    pub(crate) tls: Option<Tls>,
    /// What is said of connections.
    pub(crate) channel: Channel,
    /// gRPC calls that may be under way at once; `None` for no limit of their own.
    pub(crate) grpc_calls_max: Option<usize>,
    /// REST calls that may be answered at once; `None` for no limit of their own.
    pub(crate) rest_calls_max: Option<usize>,
    /// Whether Predict over gRPC answers tensors as raw content.
    pub(crate) tensors_as_content: bool,
    /// Whether the profiler service answers.
    pub(crate) profiler: bool,
    /// Whether the gRPC health service answers.
    pub(crate) grpc_health: bool,
    /// Bytes that all requests and answers in flight may take together.
    pub(crate) request_bytes_max: usize,
    /// How long the start waits for models that are missing or fail.
    pub(crate) startup_wait: Duration,
    /// Whether the start has the original's rules.
    pub(crate) strict_startup: bool,
    /// How long new calls are still taken once the end was asked for.
    pub(crate) drain_delay: Duration,
    /// Time that calls in flight get to finish at the end.
    pub(crate) drain_timeout: Duration,
}

/// Checks the flags and reads the files that they name.
///
/// # Errors
/// What the original prints after `Failed to start server. Error: `; more for what it overlooks.
pub(crate) fn resolve(flags: &Flags) -> Result<Resolved, Status> {
    let grpc_address = address("port", flags.port)?;
    let rest_address = address("rest_api_port", flags.rest_api_port)?;
    if grpc_address.is_none() && flags.grpc_socket_path.is_empty() {
        return Err(Status::invalid_argument(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
        ));
    }
    credentials::check(flags)?;
    let (models, file) = models(flags)?;
    let tls = credentials::tls(flags)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let platform = platform::resolve(flags, cores)?;
    let engine = engine(flags, &platform)?;
    idle::check(flags)?;
    let load_threads = positive(flags.num_load_threads).unwrap_or(cores);
    Ok(Resolved {
        grpc_address,
        grpc_socket: (!flags.grpc_socket_path.is_empty())
            .then(|| flags.grpc_socket_path.clone().into()),
        rest_address: rest_address.filter(|rest| is_apart(*rest, grpc_address)),
        rest_timeout: positive_millis(flags.rest_api_timeout_in_ms),
        rest_cors: flags.rest_api_enable_cors_support,
        rest_body_bytes_max: megabytes("rest_api_max_body_mb", flags.rest_api_max_body_mb)?,
        admin_api: flags.enable_admin_api,
        request_log_limits: request_log_limits(flags)?,
        metrics_path: metrics_path(&flags.monitoring_config_file)?,
        models,
        polled_file: file.zip(positive_seconds(flags.model_config_file_poll_wait_seconds)),
        labels_for_unavailable: flags.allow_version_labels_for_unavailable_models,
        model_cache: model_cache(&flags.model_cache_path, |name| std::env::var_os(name)),
        poll: Poll::from_seconds(flags.file_system_poll_wait_seconds),
        tags: platform.tags,
        load_threads,
        unload_threads: positive(flags.num_unload_threads).unwrap_or(load_threads),
        load_retries_max: u32::try_from(flags.max_num_load_retries).unwrap_or(0),
        load_retry_interval: Duration::from_micros(
            u64::try_from(flags.load_retry_interval_micros).unwrap_or(0),
        ),
        batching: platform.batching,
        engine,
        policy: policy(&flags.aspired_version_policy)?,
        warm_up_iterations: platform.warm_up_iterations,
        method_check: flags.enable_signature_method_name_check,
        tls,
        channel: channel::read(&flags.grpc_channel_arguments),
        grpc_calls_max: cap("grpc_max_threads", flags.grpc_max_threads)?,
        rest_calls_max: cap("rest_api_num_threads", flags.rest_api_num_threads)?,
        tensors_as_content: flags.enable_serialization_as_tensor_content,
        profiler: flags.enable_profiler,
        grpc_health: flags.enable_grpc_healthcheck_service,
        request_bytes_max: megabytes(
            "max_memory_for_requests_mb",
            flags.max_memory_for_requests_mb,
        )?,
        startup_wait: flags.startup_wait,
        strict_startup: flags.strict_startup,
        drain_delay: flags.drain_delay,
        drain_timeout: flags.drain_timeout,
    })
}

/// Whether REST has a port of its own. One that it would share with gRPC is not opened for it, as in
/// the original, and the log says so.
fn is_apart(rest: SocketAddr, grpc: Option<SocketAddr>) -> bool {
    let apart = grpc.is_none_or(|grpc| grpc.port() != rest.port());
    if !apart {
        tracing::error!(
            "server_options.http_port cannot be same as grpc_port. Please use a different port for \
             HTTP/REST API. Skipped exporting HTTP/REST API."
        );
    }
    apart
}

/// The address of a port on every interface, IPv4 and IPv6; `None` when the port is 0.
fn address(flag: &str, port: i32) -> Result<Option<SocketAddr>, Status> {
    let port = u16::try_from(port).map_err(|_| {
        Status::invalid_argument(format!(
            "--{flag}={port} is no TCP port; choose one from 0 to 65535"
        ))
    })?;
    Ok((port != 0).then(|| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)))
}

fn policy(word: &str) -> Result<AspiredVersionPolicy, Status> {
    match word {
        "availability_preserving" => Ok(AspiredVersionPolicy::AvailabilityPreserving),
        "resource_preserving" => Ok(AspiredVersionPolicy::ResourcePreserving),
        _ => Err(Status::invalid_argument(format!(
            "--aspired_version_policy={word} is unknown; choose availability_preserving or \
             resource_preserving"
        ))),
    }
}

fn engine(flags: &Flags, platform: &platform::Platform) -> Result<EngineSettings, Status> {
    Ok(EngineSettings {
        choice: flags.engine.parse()?,
        isolation: Isolation::parse(&flags.isolation)?,
        allow_native_inline: flags.allow_native_inline,
        prefer_tflite: platform.prefer_tflite,
        options: EngineOptions {
            tensorflow: TensorFlowOptions {
                session_config: platform.session_config.clone(),
                op_libraries: op_libraries(&flags.custom_op_libraries)?,
            },
            litert: platform.litert,
            openvino: OpenVinoOptions { prefers_lite: platform.prefer_tflite },
        },
        choice_budget: choice_budget(flags.engine_choice_budget_ms)?,
        verdicts: own_cache("choices", |name| std::env::var_os(name)),
        shadow_check_rate: shadow_check_rate(flags.shadow_check_rate)?,
    })
}

fn choice_budget(budget_ms: i64) -> Result<Duration, Status> {
    u64::try_from(budget_ms).map(Duration::from_millis).map_err(|_| {
        Status::invalid_argument(format!(
            "--engine_choice_budget_ms={budget_ms} must be 0 or a positive number of milliseconds"
        ))
    })
}

fn shadow_check_rate(rate: f32) -> Result<f64, Status> {
    // The number that was written, rather than the one that is nearest to it.
    let written = rate.to_string().parse().unwrap_or(f64::NAN);
    part_of_runs(written)
        .map_err(|problem| Status::invalid_argument(format!("--shadow_check_rate={problem}")))
}

/// The files of a comma-separated list.
fn op_libraries(list: &str) -> Result<Vec<PathBuf>, Status> {
    let files = list.split(',').map(str::trim).filter(|file| !file.is_empty());
    files
        .map(|file| {
            // The worker's folder is the server's, but a bare name would be searched for elsewhere.
            std::fs::canonicalize(file).map_err(|error| {
                Status::not_found(format!(
                    "--custom_op_libraries: {file} cannot be found: {error}; give the paths of \
                     shared libraries, separated by commas"
                ))
            })
        })
        .collect()
}

/// A limit that somebody asked for. None at all could not answer anything.
fn cap(flag: &str, cap: Cap) -> Result<Option<usize>, Status> {
    let Some(count) = cap.given() else { return Ok(None) };
    positive(count).map(Some).ok_or_else(|| {
        Status::invalid_argument(format!(
            "--{flag}={count} would let no call through; give 1 or more, or leave the flag out"
        ))
    })
}

fn positive(count: i32) -> Option<usize> {
    usize::try_from(count).ok().filter(|&n| n > 0)
}

fn request_log_limits(flags: &Flags) -> Result<FileLimits, Status> {
    let bytes = megabytes("request_log_file_mb", flags.request_log_file_mb)?;
    let files = flags.request_log_files_max;
    Ok(FileLimits {
        bytes_max: bytes as u64,
        // 0 and less mean as many as fit.
        records_max: u64::try_from(flags.request_log_file_records)
            .ok()
            .filter(|&records| records > 0)
            .unwrap_or(u64::MAX),
        files_max: usize::try_from(files).ok().filter(|&files| files > 0).ok_or_else(|| {
            Status::invalid_argument(format!(
                "--request_log_files_max={files} must be a positive number of files"
            ))
        })?,
    })
}

fn positive_seconds(seconds: i32) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|&s| s > 0).map(Duration::from_secs)
}

fn positive_millis(millis: i32) -> Option<Duration> {
    u64::try_from(millis).ok().filter(|&ms| ms > 0).map(Duration::from_millis)
}

fn megabytes(flag: &str, count: i64) -> Result<usize, Status> {
    usize::try_from(count).ok().filter(|&n| n > 0).and_then(|n| n.checked_mul(1 << 20)).ok_or_else(
        || {
            Status::invalid_argument(format!(
                "--{flag}={count} must be a positive number of megabytes"
            ))
        },
    )
}

/// Where models of object stores are copied to.
fn model_cache(flag: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Status> {
    if !flag.is_empty() {
        return std::path::absolute(flag).map_err(|e| {
            Status::invalid_argument(format!("--model_cache_path={flag} cannot be used: {e}"))
        });
    }
    own_cache("models", variable).ok_or_else(|| {
        Status::failed_precondition(
            "there is no place to copy models of object stores to, for neither VESTA_HOME nor \
             HOME is set; give one with --model_cache_path",
        )
    })
}

/// The folder of this name among what the server keeps to be quicker the next time.
fn own_cache(name: &str, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let place = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || place("XDG_CACHE_HOME").or_else(|| Some(place("HOME")?.join(".cache")));
    place("VESTA_HOME")
        .map(|home| home.join(name))
        .or_else(|| Some(cache()?.join("vesta").join(name)))
        .filter(|path| path.is_absolute())
}

fn metrics_path(file: &str) -> Result<Option<String>, Status> {
    if file.is_empty() {
        return Ok(None);
    }
    let config: proto::MonitoringConfig =
        text::read(Path::new(file), "tensorflow.serving.MonitoringConfig")?;
    Ok(config.prometheus_config.filter(|prometheus| prometheus.enable).map(|prometheus| {
        if prometheus.path.is_empty() { METRICS_PATH.to_owned() } else { prometheus.path }
    }))
}

fn models(flags: &Flags) -> Result<(Vec<ModelConfig>, Option<ModelFile>), Status> {
    if !flags.model_config_file.is_empty() {
        let mut file = ModelFile::new(&flags.model_config_file);
        let models = file.read()?;
        return Ok((models.unwrap_or_default(), Some(file)));
    }
    if flags.model_base_path.is_empty() {
        return Err(Status::invalid_argument(
            "Both server_options.model_base_path and server_options.model_config_file are empty!",
        ));
    }
    // One model is a list of one: the same checks, the same texts.
    let single = proto::ModelConfig {
        name: flags.model_name.clone(),
        base_path: flags.model_base_path.clone(),
        model_platform: "tensorflow".to_owned(),
        ..proto::ModelConfig::default()
    };
    let models = model_configs(&proto::ModelServerConfig {
        config: Some(proto::model_server_config::Config::ModelConfigList(proto::ModelConfigList {
            config: vec![single],
        })),
    })?;
    Ok((models, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Flags {
        Flags { model_base_path: "/models/m".to_owned(), ..Flags::default() }
    }

    fn error_of(flags: &Flags) -> String {
        resolve(flags).unwrap_err().to_string()
    }

    #[test]
    fn a_start_without_anything_to_serve_has_the_originals_texts() {
        assert_eq!(
            error_of(&Flags::default()),
            "INVALID_ARGUMENT: Both server_options.model_base_path and \
             server_options.model_config_file are empty!"
        );
        assert_eq!(
            error_of(&Flags { port: 0, ..base() }),
            "INVALID_ARGUMENT: At least one of server_options.grpc_port or \
             server_options.grpc_socket_path must be set."
        );
        assert_eq!(
            error_of(&Flags { model_base_path: "models/m".to_owned(), ..base() }),
            "INVALID_ARGUMENT: Expected model default to have an absolute path or URI; got \
             base_path()=models/m"
        );
    }

    #[test]
    fn what_the_original_overlooks_is_refused_before_a_port_opens() {
        assert!(error_of(&Flags { port: 70000, ..base() }).contains("--port=70000"));
        let missing = Flags { monitoring_config_file: "/nonexistent".to_owned(), ..base() };
        assert_eq!(error_of(&missing), "NOT_FOUND: /nonexistent; No such file or directory");
        assert!(error_of(&Flags { isolation: "maybe".to_owned(), ..base() }).contains("maybe"));
        let policy = "brave".to_owned();
        assert!(error_of(&Flags { aspired_version_policy: policy, ..base() }).contains("brave"));
        assert!(error_of(&Flags { engine: "warp".to_owned(), ..base() }).contains("warp"));
    }

    #[test]
    fn the_metrics_page_has_the_originals_default_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("monitoring.config");
        std::fs::write(&file, "prometheus_config { enable: true }").unwrap();
        let flags = Flags { monitoring_config_file: file.display().to_string(), ..base() };
        assert_eq!(resolve(&flags).unwrap().metrics_path.as_deref(), Some(METRICS_PATH));
        std::fs::write(&file, "prometheus_config: { path: '/m' }").unwrap();
        assert_eq!(resolve(&flags).unwrap().metrics_path, None);
    }

    #[test]
    fn models_are_copied_to_the_first_place_that_is_given() {
        let place = |flag: &str, variables: &[(&str, &str)]| {
            model_cache(flag, |name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        let all = [("VESTA_HOME", "/v"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(place("/flag", &all), Ok("/flag".into()));
        assert_eq!(place("", &all), Ok("/v/models".into()));
        assert_eq!(place("", &all[1..]), Ok("/x/vesta/models".into()));
        assert_eq!(place("", &all[2..]), Ok("/h/.cache/vesta/models".into()));
        assert!(place("", &[]).unwrap_err().message().contains("--model_cache_path"));
    }

    #[test]
    fn threads_of_the_wires_limit_calls_only_when_given() {
        let limits = |flags: Flags| {
            let resolved = resolve(&flags).unwrap();
            (resolved.grpc_calls_max, resolved.rest_calls_max)
        };
        assert_eq!(limits(base()), (None, None));
        let flags =
            Flags { grpc_max_threads: Cap::of(3), rest_api_num_threads: Cap::of(2), ..base() };
        assert_eq!(limits(flags), (Some(3), Some(2)));
        let none = Flags { grpc_max_threads: Cap::of(0), ..base() };
        assert!(error_of(&none).contains("--grpc_max_threads=0"));
    }

    #[test]
    fn threads_that_unload_are_those_that_load_unless_told_otherwise() {
        let threads = |num_load_threads, num_unload_threads| {
            let flags = Flags { num_load_threads, num_unload_threads, ..base() };
            let resolved = resolve(&flags).unwrap();
            (resolved.load_threads, resolved.unload_threads)
        };
        assert_eq!(threads(3, 0), (3, 3));
        assert_eq!(threads(3, 1), (3, 1));
    }

    #[test]
    fn one_port_for_both_leaves_rest_closed() {
        let flags = Flags { port: 8500, rest_api_port: 8500, ..base() };
        assert_eq!(resolve(&flags).unwrap().rest_address, None);
    }
}
