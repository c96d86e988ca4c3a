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
}

/// A value that a flag can have.
trait Value: Sized {
    const KIND: &'static str;
    fn read(text: &str) -> Result<Self, ()>;
    fn print(&self) -> String;
}

macro_rules! integers {
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

integers!(i32 => "int32", i64 => "int64");

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
        },)*];
    };
}

flags! {
    port: i32 = 8500, "TCP port for gRPC; 0 turns it off.";
    grpc_socket_path: String = String::new(), "Unix socket for gRPC besides or instead of the port.";
    rest_api_port: i32 = 0, "TCP port for HTTP/REST; 0 turns it off.";
    rest_api_timeout_in_ms: i32 = 30000, "Time limit of an inference call over REST; 0 or less means none.";
    rest_api_enable_cors_support: bool = false, "Whether REST answers carry CORS headers.";
    model_config_file: String = String::new(), "Text ModelServerConfig that lists the models; wins over model_name and model_base_path.";
    model_config_file_poll_wait_seconds: i32 = 0, "Seconds between looks at model_config_file; a file that changed is applied. 0 or less reads it once.";
    model_name: String = "default".to_owned(), "Name of the single model.";
    model_base_path: String = String::new(), "Directory of the single model, whose numbered children are its versions; an absolute path.";
    saved_model_tags: String = "serve".to_owned(), "Comma-separated tags that select a graph of a SavedModel.";
    num_load_threads: i32 = 0, "Threads that load versions; 0 lets the server choose.";
    max_num_load_retries: i32 = 5, "How often a failed load is tried again.";
    load_retry_interval_micros: i64 = 60_000_000, "Microseconds between two tries of a load; negative means none.";
    enable_model_warmup: bool = true, "Whether the requests recorded in a version's assets.extra/tf_serving_warmup_requests are run before it is available.";
    num_request_iterations_for_warmup: i32 = 0, "How often each recorded request is run; 0 means once.";
    file_system_poll_wait_seconds: i64 = 1, "Seconds between looks for new versions; 0 looks once, negative never.";
    allow_version_labels_for_unavailable_models: bool = false, "Whether a new label may name a version that is not yet available.";
    monitoring_config_file: String = String::new(), "Text MonitoringConfig that turns on the Prometheus page.";
    enable_grpc_healthcheck_service: bool = false, "Whether the gRPC health service answers.";
    tensorflow_session_parallelism: i64 = 0, "Threads of a TensorFlow session, within operators and between them; 0 lets the server choose.";
    tensorflow_intra_op_parallelism: i64 = 0, "Threads that one TensorFlow operator may use; 0 lets the server choose.";
    tensorflow_inter_op_parallelism: i64 = 0, "Threads that TensorFlow runs operators on at the same time; 0 lets TensorFlow choose.";
    tensorflow_session_config_file: String = String::new(), "Text ConfigProto of TensorFlow's sessions; wins over the flags of their threads.";
    prefer_tflite_model: bool = false, "Whether a version that has a model.tflite is served by it instead of its SavedModel.";
    num_tflite_pools: i32 = 0, "Runs of one TensorFlow Lite model that may go on at once; 0 means as many as cores.";
    num_tflite_interpreters_per_pool: i32 = 1, "Multiplies num_tflite_pools.";
    engine: String = "auto".to_owned(), "Vesta: engine that runs the models: auto (the embedded one where it can, else TensorFlow; LiteRT for model.tflite), embedded, tensorflow, litert; NAME==VERSION for a certain release.";
    isolation: String = "auto".to_owned(), "Vesta: where engines run: auto (native ones in a process per version, the embedded one inline when the graph is proven harmless), inline, worker (a process per version).";
    allow_native_inline: bool = false, "Vesta: whether --isolation=inline may open a native library in the server's own process.";
    custom_op_libraries: String = String::new(), "Vesta: comma-separated shared libraries of custom TensorFlow operators.";
    aspired_version_policy: String = "availability_preserving".to_owned(), "Vesta: whether a new version is loaded beside the old one (availability_preserving) or once that is unloaded (resource_preserving).";
    log_format: String = "text".to_owned(), "Vesta: form of the log on standard error (text, json).";
    max_memory_for_requests_mb: i64 = 2048, "Vesta: megabytes that all requests and answers in flight may take together.";
    startup_wait: Duration = Duration::from_secs(10), "Vesta: how long the start waits for models that are missing or fail to load before it opens the ports for the others (10, 1.5, 500ms, 2m).";
    strict_startup: bool = false, "Vesta: start as the original does: any model that fails ends the start, one that is missing is waited for without end.";
    model_cache_path: String = String::new(), "Vesta: directory for copies of models whose base path is in an object store (s3://, gs://, az://, abfs://); empty means $VESTA_HOME/models, else $XDG_CACHE_HOME/vesta/models or ~/.cache/vesta/models.";
    drain_delay: Duration = Duration::from_secs(5), "Vesta: how long new calls are still taken after SIGTERM or SIGINT, while the server says that it is not ready; a second signal ends it at once.";
    drain_timeout: Duration = Duration::from_secs(20), "Vesta: how long calls in flight then get to finish.";
}
