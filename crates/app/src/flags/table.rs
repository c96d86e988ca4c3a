//! The table of flags: name, type, default, meaning. Parsing, help and documentation read it.

use std::str::FromStr;
use std::time::Duration;

/// One flag.
pub(super) struct Flag {
    /// Its name without dashes.
    pub(super) name: &'static str,
    /// Its type as the usage text names it.
    pub(super) kind: &'static str,
    /// What it does, one sentence.
    pub(super) help: &'static str,
    /// Reads a value.
    pub(super) set: fn(&mut Flags, &str) -> Result<(), ()>,
    /// Prints the value.
    pub(super) show: fn(&Flags) -> String,
    /// Says the value for a page that is read on other machines.
    pub(super) describe: fn(&Flags) -> String,
}

/// The value of a flag whose default limits nothing: only one that was asked for does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cap {
    shown: i32,
    given: bool,
}

impl Cap {
    /// The original's default for threads of a wire, four for each core.
    fn threads() -> Cap {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Cap { shown: i32::try_from(cores.saturating_mul(4)).unwrap_or(i32::MAX), given: false }
    }

    /// The value, if it was given.
    pub(crate) fn given(self) -> Option<i32> {
        self.given.then_some(self.shown)
    }

    #[cfg(test)]
    pub(crate) fn of(count: i32) -> Cap {
        Cap { shown: count, given: true }
    }
}

/// A value that a flag can have.
trait Value: Sized {
    const KIND: &'static str;
    fn read(text: &str) -> Result<Self, ()>;
    fn print(&self) -> String;
    fn describe(&self) -> String {
        self.print()
    }
}

macro_rules! numbers {
    ($($rust:ty => $kind:literal),*) => {
        $(impl Value for $rust {
            const KIND: &'static str = $kind;
            fn read(text: &str) -> Result<Self, ()> {
                // The original scans like C: leading white space is taken, trailing is not.
                <$rust>::from_str(text.trim_ascii_start()).map_err(|_| ())
            }
            fn print(&self) -> String {
                self.to_string()
            }
        })*
    };
}

numbers!(i32 => "int32", i64 => "int64", f32 => "float");

impl Value for Cap {
    const KIND: &'static str = "int32";
    fn read(text: &str) -> Result<Self, ()> {
        Ok(Cap { shown: <i32 as Value>::read(text)?, given: true })
    }
    fn print(&self) -> String {
        self.shown.to_string()
    }
    fn describe(&self) -> String {
        "4 for each core".to_owned()
    }
}

impl Value for bool {
    const KIND: &'static str = "bool";
    fn read(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(()),
        }
    }
    fn print(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "string";
    fn read(text: &str) -> Result<Self, ()> {
        Ok(text.to_owned())
    }
    fn print(&self) -> String {
        self.clone()
    }
}

impl Value for Duration {
    const KIND: &'static str = "duration";
    fn read(text: &str) -> Result<Self, ()> {
        let text = text.trim_ascii();
        let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
            Some(at) => text.split_at(at),
            None => (text, "s"),
        };
        let unit_seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(()),
        };
        let number = f64::from_str(number.trim_ascii_end()).map_err(|_| ())?;
        Duration::try_from_secs_f64(number * unit_seconds).map_err(|_| ())
    }
    fn print(&self) -> String {
        format!("{self:?}")
    }
}

macro_rules! flags {
    ($($name:ident: $rust:ty = $default:expr, $help:literal;)*) => {
        /// The value of every flag.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct Flags { $(#[doc = $help] pub(crate) $name: $rust,)* }

        impl Default for Flags {
            fn default() -> Flags {
                Flags { $($name: $default,)* }
            }
        }

        /// Every flag, in the order of the usage text.
        pub(super) const FLAGS: &[Flag] = &[$(Flag {
            name: stringify!($name),
            kind: <$rust as Value>::KIND,
            help: $help,
            set: |flags, text| { flags.$name = <$rust as Value>::read(text)?; Ok(()) },
            show: |flags| flags.$name.print(),
            describe: |flags| flags.$name.describe(),
        },)*];
    };
}

flags! {
    port: i32 = 8500, "TCP port for gRPC; 0 turns it off.";
    grpc_socket_path: String = String::new(), "Unix socket for gRPC besides or instead of the port.";
    rest_api_port: i32 = 0, "TCP port for HTTP/REST; 0 turns it off.";
    rest_api_num_threads: Cap = Cap::threads(), "REST calls that may be answered at once; more wait. A limit only when given.";
    rest_api_timeout_in_ms: i32 = 30000, "Time limit of an inference call over REST; 0 or less means none.";
    rest_api_enable_cors_support: bool = false, "Whether REST answers carry CORS headers.";
    ssl_config_file: String = String::new(), "Text SSLConfig with the PEM text of keys and certificates; encrypts the gRPC port and socket.";
    use_alts_credentials: bool = false, "Refused: ALTS exists in Google's own cloud alone.";
    grpc_max_threads: Cap = Cap::threads(), "gRPC calls that may be under way at once; more are refused. A limit only when given.";
    grpc_channel_arguments: String = String::new(), "Comma-separated name=value of gRPC's channel arguments: limits of connections, their age, keep-alive, compression of answers, grpc.so_reuseport.";
    enable_serialization_as_tensor_content: bool = false, "Whether Predict over gRPC answers tensors as raw content rather than as lists of values.";
    model_config_file: String = String::new(), "Text ModelServerConfig that lists the models; wins over model_name and model_base_path.";
    model_config_file_poll_wait_seconds: i32 = 0, "Seconds between looks at model_config_file; a file that changed is applied. 0 or less reads it once.";
    model_name: String = "default".to_owned(), "Name of the single model.";
    model_base_path: String = String::new(), "Directory of the single model, whose numbered children are its versions; an absolute path.";
    saved_model_tags: String = "serve".to_owned(), "Comma-separated tags that select a graph of a SavedModel.";
    num_load_threads: i32 = 0, "Threads that load versions; 0 lets the server choose.";
    num_unload_threads: i32 = 0, "Threads that unload versions; 0 means as many as load them.";
    max_num_load_retries: i32 = 5, "How often a failed load is tried again.";
    load_retry_interval_micros: i64 = 60_000_000, "Microseconds between two tries of a load; negative means none.";
    enable_model_warmup: bool = true, "Whether the requests recorded in a version's assets.extra/tf_serving_warmup_requests are run before it is available.";
    num_request_iterations_for_warmup: i32 = 0, "How often each recorded request is run; 0 means once.";
    file_system_poll_wait_seconds: i64 = 1, "Seconds between looks for new versions; 0 looks once, negative never.";
    flush_filesystem_caches: bool = true, "Accepted for the original's sake: nothing of a model's files is cached here.";
    allow_version_labels_for_unavailable_models: bool = false, "Whether a new label may name a version that is not yet available.";
    enable_batching: bool = false, "Whether requests of one version are run together.";
    batching_parameters_file: String = String::new(), "Text BatchingParameters of all models; needs enable_batching.";
    enable_per_model_batching_parameters: bool = false, "Whether only models with a batching_params.pbtxt in their version's directory are batched, each by its own parameters; needs enable_batching.";
    enable_signature_method_name_check: bool = false, "Whether calls are refused on signatures whose method name is not that of the call.";
    monitoring_config_file: String = String::new(), "Text MonitoringConfig that turns on the Prometheus page.";
    enable_grpc_healthcheck_service: bool = false, "Whether the gRPC health service answers.";
    enable_profiler: bool = true, "Whether tensorflow.ProfilerService answers over gRPC.";
    tensorflow_session_parallelism: i64 = 0, "Threads of a TensorFlow session, within operators and between them; 0 lets the server choose.";
    tensorflow_intra_op_parallelism: i64 = 0, "Threads that one TensorFlow operator may use; 0 lets the server choose.";
    tensorflow_inter_op_parallelism: i64 = 0, "Threads that TensorFlow runs operators on at the same time; 0 lets TensorFlow choose.";
    tensorflow_session_config_file: String = String::new(), "Text ConfigProto of TensorFlow's sessions; wins over the flags of their threads.";
    prefer_tflite_model: bool = false, "Whether a version that has a model.tflite is served by it instead of its SavedModel.";
    num_tflite_pools: i32 = 0, "Runs of one TensorFlow Lite model that may go on at once; 0 means as many as cores.";
    num_tflite_interpreters_per_pool: i32 = 1, "Multiplies num_tflite_pools.";
    platform_config_file: String = String::new(), "Text PlatformConfigMap; then it says what the flags of sessions, tags and warm-up say otherwise.";
    per_process_gpu_memory_fraction: f32 = 0.0, "Part of a GPU's memory that a TensorFlow session takes at once; 0 lets TensorFlow choose.";
    mixed_precision: String = String::new(), "bfloat16 lets TensorFlow compute parts of a graph in bfloat16.";
    xla_cpu_compilation_enabled: bool = false, "Accepted for the original's sake: TensorFlow's just-in-time compiler is never turned off here.";
    xla_gpu_compilation_enabled: bool = false, "Accepted for the original's sake: TensorFlow's just-in-time compiler is never turned off here.";
    thread_pool_factory_config_file: String = String::new(), "Text ThreadPoolFactoryConfig; accepted for the original's sake: no thread pool can be plugged in.";
    remove_unused_fields_from_bundle_metagraph: bool = true, "Accepted for the original's sake: only what is used of a graph is kept.";
    skip_initialize_tpu: bool = false, "Accepted for the original's sake: there is no TPU here.";
    engine: String = "auto".to_owned(), "Vesta: engine that runs the models: auto (the fastest of those whose answers agree, found by trying; LiteRT or OpenVINO for model.tflite, embedded or ONNX Runtime for an ONNX file alone, OpenVINO for an IR alone), embedded, tensorflow, litert, onnxruntime, openvino; NAME==VERSION for a certain release. A vesta.toml in a model's folder goes before it.";
    engine_choice_budget_ms: i64 = 3000, "Vesta: milliseconds that trying engines out may take at the load of a version, for --engine=auto; 0 turns it off: the embedded engine where it can, else TensorFlow.";
    shadow_check_rate: f32 = 0.0, "Vesta: part of the runs (0 to 1) of a version on an engine chosen by measuring that is made again on the reference engine, beside the answer; where answers differ, the reference serves the version from then on. It takes the memory of a second engine. shadow_check_rate in a vesta.toml goes before it.";
    isolation: String = "auto".to_owned(), "Vesta: where engines run: auto (native ones in a process per version, the embedded one inline when the graph is proven harmless), inline, worker (a process per version).";
    allow_native_inline: bool = false, "Vesta: whether --isolation=inline may open a native library in the server's own process.";
    custom_op_libraries: String = String::new(), "Vesta: comma-separated shared libraries of custom TensorFlow operators.";
    aspired_version_policy: String = "availability_preserving".to_owned(), "Vesta: whether a new version is loaded beside the old one (availability_preserving) or once that is unloaded (resource_preserving).";
    log_format: String = "text".to_owned(), "Vesta: form of the log on standard error (text, json).";
    enable_admin_api: bool = false, "Vesta: whether POST /v1/models/NAME:load and :unload load and unload one model. The REST port asks nobody who they are; turn this on only where the port is out of reach of others.";
    rest_api_max_body_mb: i64 = 2048, "Vesta: megabytes that the body of one REST request may have; more is answered 413.";
    request_log_file_mb: i64 = 64, "Vesta: megabytes of a file of recorded requests (logging_config), after which the next one begins.";
    request_log_file_records: i64 = 0, "Vesta: requests of such a file, after which the next one begins; 0 means as many as fit. A warm-up file may have 1000.";
    request_log_files_max: i64 = 100, "Vesta: files of recorded requests that stay for each model; older ones are removed.";
    max_memory_for_requests_mb: i64 = 2048, "Vesta: megabytes that all requests and answers in flight may take together.";
    startup_wait: Duration = Duration::from_secs(10), "Vesta: how long the start waits for models that are missing or fail to load before it opens the ports for the others (10, 1.5, 500ms, 2m).";
    strict_startup: bool = false, "Vesta: start as the original does: any model that fails ends the start, one that is missing is waited for without end.";
    model_cache_path: String = String::new(), "Vesta: directory for copies of models whose base path is in an object store (s3://, gs://, az://, abfs://); empty means $VESTA_HOME/models, else $XDG_CACHE_HOME/vesta/models or ~/.cache/vesta/models.";
    drain_delay: Duration = Duration::from_secs(5), "Vesta: how long new calls are still taken after SIGTERM or SIGINT, while the server says that it is not ready; a second signal ends it at once.";
    drain_timeout: Duration = Duration::from_secs(20), "Vesta: how long calls in flight then get to finish.";
}
