//! What the server is asked to do, resolved before any port opens.
//!
//! Owns: the step from raw [`Flags`] and files to one [`Resolved`] value, and every check that
//! stops a start. May not know: how any of it is carried out.

mod model_file;
mod text;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vesta_engines::{EngineOptions, LiteRtOptions, TensorFlowOptions};
use vesta_frontends::{METRICS_PATH, model_configs};
use vesta_model::{ModelConfig, Status};
use vesta_protos::tensorflow::{ConfigProto, serving as proto};
use vesta_repository::Poll;
use vesta_serving::AspiredVersionPolicy;

use crate::flags::Flags;
use crate::placement::{EngineSettings, Isolation};

pub(crate) use model_file::ModelFile;

/// The most interpreters of one version.
const INTERPRETERS_MAX: usize = 1024;

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
    /// How often a failed load is tried again.
    pub(crate) load_retries_max: u32,
    /// Time between two tries.
    pub(crate) load_retry_interval: Duration,
    /// Whether a new version is loaded beside the old one or in its place.
    pub(crate) policy: AspiredVersionPolicy,
    /// How often each recorded request is run before a version is available; 0 for no warm-up.
    pub(crate) warm_up_iterations: u32,
    /// Which engine runs the models, and where.
    pub(crate) engine: EngineSettings,
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
    let (models, file) = models(flags)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Resolved {
        grpc_address,
        grpc_socket: (!flags.grpc_socket_path.is_empty())
            .then(|| flags.grpc_socket_path.clone().into()),
        rest_address: rest_address.filter(|rest| is_apart(*rest, grpc_address)),
        rest_timeout: positive_millis(flags.rest_api_timeout_in_ms),
        rest_cors: flags.rest_api_enable_cors_support,
        metrics_path: metrics_path(&flags.monitoring_config_file)?,
        models,
        polled_file: file.zip(positive_seconds(flags.model_config_file_poll_wait_seconds)),
        labels_for_unavailable: flags.allow_version_labels_for_unavailable_models,
        model_cache: model_cache(&flags.model_cache_path, |name| std::env::var_os(name)),
        poll: Poll::from_seconds(flags.file_system_poll_wait_seconds),
        tags: flags.saved_model_tags.split(',').map(|tag| tag.trim().to_owned()).collect(),
        load_threads: usize::try_from(flags.num_load_threads)
            .ok()
            .filter(|&n| n > 0)
            .unwrap_or(cores),
        load_retries_max: u32::try_from(flags.max_num_load_retries).unwrap_or(0),
        load_retry_interval: Duration::from_micros(
            u64::try_from(flags.load_retry_interval_micros).unwrap_or(0),
        ),
        engine: engine(flags)?,
        policy: policy(&flags.aspired_version_policy)?,
        warm_up_iterations: warm_up_iterations(flags),
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

/// 0 and less mean once, as in the original.
fn warm_up_iterations(flags: &Flags) -> u32 {
    let iterations = u32::try_from(flags.num_request_iterations_for_warmup).unwrap_or(1).max(1);
    if flags.enable_model_warmup { iterations } else { 0 }
}

fn engine(flags: &Flags) -> Result<EngineSettings, Status> {
    Ok(EngineSettings {
        choice: flags.engine.parse()?,
        isolation: Isolation::parse(&flags.isolation)?,
        allow_native_inline: flags.allow_native_inline,
        prefer_tflite: flags.prefer_tflite_model,
        options: EngineOptions {
            tensorflow: TensorFlowOptions {
                session_config: session_config(flags)?,
                op_libraries: op_libraries(&flags.custom_op_libraries)?,
            },
            litert: litert(flags),
        },
    })
}

/// Less than one counts as one in the original; that pools are by default as many as cores does, too.
fn litert(flags: &Flags) -> LiteRtOptions {
    let count = |flag: i32| usize::try_from(flag).ok().filter(|&n| n > 0);
    let pools = count(flags.num_tflite_pools).unwrap_or(LiteRtOptions::default().interpreters);
    let interpreters = count(flags.num_tflite_interpreters_per_pool).unwrap_or(1);
    LiteRtOptions { interpreters: pools.saturating_mul(interpreters).min(INTERPRETERS_MAX) }
}

/// The configuration of TensorFlow's sessions. A file says all, as in the original; else the flags
/// say the threads, and 0 leaves them to the server.
fn session_config(flags: &Flags) -> Result<ConfigProto, Status> {
    if !flags.tensorflow_session_config_file.is_empty() {
        return text::read(
            Path::new(&flags.tensorflow_session_config_file),
            "tensorflow.ConfigProto",
        );
    }
    // The flag of both kinds counts where the one of its own is not given.
    let or_both = |own: i64| if own == 0 { flags.tensorflow_session_parallelism } else { own };
    let threads = |name: &str, count: i64| {
        i32::try_from(count).map_err(|_| {
            Status::invalid_argument(format!("--{name}={count} is no number of threads"))
        })
    };
    Ok(ConfigProto {
        intra_op_parallelism_threads: threads(
            "tensorflow_intra_op_parallelism",
            or_both(flags.tensorflow_intra_op_parallelism),
        )?,
        inter_op_parallelism_threads: threads(
            "tensorflow_inter_op_parallelism",
            or_both(flags.tensorflow_inter_op_parallelism),
        )?,
        ..ConfigProto::default()
    })
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
    let place = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if !flag.is_empty() {
        return std::path::absolute(flag).map_err(|e| {
            Status::invalid_argument(format!("--model_cache_path={flag} cannot be used: {e}"))
        });
    }
    let cache = || place("XDG_CACHE_HOME").or_else(|| Some(place("HOME")?.join(".cache")));
    place("VESTA_HOME")
        .map(|home| home.join("models"))
        .or_else(|| Some(cache()?.join("vesta").join("models")))
        .filter(|path| path.is_absolute())
        .ok_or_else(|| {
            Status::failed_precondition(
                "there is no place to copy models of object stores to, for neither VESTA_HOME nor \
                 HOME is set; give one with --model_cache_path",
            )
        })
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
    fn warm_up_is_run_once_unless_told_otherwise() {
        let iterations = |enable_model_warmup, num_request_iterations_for_warmup| {
            let flags = Flags { enable_model_warmup, num_request_iterations_for_warmup, ..base() };
            resolve(&flags).unwrap().warm_up_iterations
        };
        assert_eq!((iterations(true, 0), iterations(true, -1), iterations(true, 3)), (1, 1, 3));
        assert_eq!(iterations(false, 3), 0);
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
    fn threads_of_a_session_come_from_the_flags() {
        let threads = |flags: Flags| {
            let config = resolve(&flags).unwrap().engine.options.tensorflow.session_config;
            (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads)
        };
        assert_eq!(threads(base()), (0, 0));
        let both = Flags { tensorflow_session_parallelism: 4, ..base() };
        assert_eq!(threads(both.clone()), (4, 4));
        assert_eq!(threads(Flags { tensorflow_intra_op_parallelism: 2, ..both }), (2, 4));
        let many = Flags { tensorflow_inter_op_parallelism: 1 << 40, ..base() };
        assert!(error_of(&many).contains("--tensorflow_inter_op_parallelism=1099511627776"));
    }

    #[test]
    fn one_port_for_both_leaves_rest_closed() {
        let flags = Flags { port: 8500, rest_api_port: 8500, ..base() };
        assert_eq!(resolve(&flags).unwrap().rest_address, None);
    }
}
