//! What the platform `tensorflow` is told: by flags, or whole by `--platform_config_file`.
//!
//! Owns: that a file replaces the flags of sessions, tags, warm-up and batching, as in the original. May not
//! know: what becomes of any of it.

use std::path::Path;

use prost::Message as _;
use vesta_engines::LiteRtOptions;
use vesta_model::Status;
use vesta_protos::tensorflow::ConfigProto;
use vesta_protos::tensorflow::serving as proto;

use super::batching::{self, Batching};
use super::{session, text};
use crate::flags::Flags;

/// The platform that all models are of.
const TENSORFLOW: &str = "tensorflow";
/// The one kind of configuration that the original has for it.
const ADAPTER: &str = "tensorflow.serving.SavedModelBundleSourceAdapterConfig";
/// The tag of a graph that is to be served.
const SERVE: &str = "serve";

/// The most interpreters of one version.
const INTERPRETERS_MAX: usize = 1024;

/// How models are loaded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Platform {
    /// TensorFlow's sessions.
    pub(super) session_config: ConfigProto,
    /// Tags that select a graph.
    pub(super) tags: Vec<String>,
    /// How often each recorded request is run; 0 for no warm-up.
    pub(super) warm_up_iterations: u32,
    /// Which requests are run together.
    pub(super) batching: Batching,
    /// Whether a version that has both is served by its `model.tflite`.
    pub(super) prefer_tflite: bool,
    /// Interpreters of such a file.
    pub(super) litert: LiteRtOptions,
}

/// What file or flags say.
///
/// # Errors
/// Those of files that cannot be read or understood, of flags that contradict each other, and
/// `INVALID_ARGUMENT` for a file that says nothing of TensorFlow.
pub(super) fn resolve(flags: &Flags, cores: usize) -> Result<Platform, Status> {
    if flags.platform_config_file.is_empty() {
        return Ok(Platform {
            session_config: session::from_flags(flags)?,
            tags: flags.saved_model_tags.split(',').map(|tag| tag.trim().to_owned()).collect(),
            warm_up_iterations: if flags.enable_model_warmup {
                iterations(flags.num_request_iterations_for_warmup)
            } else {
                0
            },
            batching: batching::resolve(flags, cores)?,
            prefer_tflite: flags.prefer_tflite_model,
            litert: litert(flags.num_tflite_pools, flags.num_tflite_interpreters_per_pool),
        });
    }
    let file = Path::new(&flags.platform_config_file);
    let map: proto::PlatformConfigMap = text::read(file, "tensorflow.serving.PlatformConfigMap")?;
    from_bundle(bundle(&map, file)?, cores)
}

/// 0 and less mean once, as in the original.
fn iterations(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(1).max(1)
}

/// Pools are as many as cores unless told otherwise, and have one interpreter each.
fn litert(pools: i32, interpreters_per_pool: i32) -> LiteRtOptions {
    let count = |given: i32| usize::try_from(given).ok().filter(|&n| n > 0);
    let pools = count(pools).unwrap_or(LiteRtOptions::default().interpreters);
    let interpreters = pools.saturating_mul(count(interpreters_per_pool).unwrap_or(1));
    LiteRtOptions { interpreters: interpreters.min(INTERPRETERS_MAX) }
}

/// What the map says of TensorFlow.
fn bundle(
    map: &proto::PlatformConfigMap,
    file: &Path,
) -> Result<proto::SessionBundleConfig, Status> {
    let refused = |what: &str| {
        Err(Status::invalid_argument(format!(
            "{} {what}; it must hold platform_configs {{ key: \"{TENSORFLOW}\" value {{ \
             source_adapter_config {{ [type.googleapis.com/{ADAPTER}] {{ legacy_config {{}} }} }} }} \
             }}",
            file.display()
        )))
    };
    for platform in map.platform_configs.keys().filter(|name| *name != TENSORFLOW) {
        tracing::warn!("the platform {platform} is not known; models that ask for it are refused");
    }
    let Some(config) = map.platform_configs.get(TENSORFLOW) else {
        return refused("says nothing of the platform tensorflow");
    };
    let Some(adapter) = &config.source_adapter_config else {
        return refused("has no source_adapter_config for the platform tensorflow");
    };
    if adapter.type_url.rsplit('/').next() != Some(ADAPTER) {
        return refused(&format!("configures the platform tensorflow by {:?}", adapter.type_url));
    }
    let adapter = proto::SavedModelBundleSourceAdapterConfig::decode(&*adapter.value);
    match adapter {
        Ok(adapter) => Ok(adapter.legacy_config.unwrap_or_default()),
        Err(problem) => refused(&format!("cannot be read: {problem}")),
    }
}

fn from_bundle(bundle: proto::SessionBundleConfig, cores: usize) -> Result<Platform, Status> {
    let batching = batching::of_bundle(&bundle, cores)?;
    for field in idle_fields(&bundle) {
        tracing::warn!("{field} of the platform configuration is accepted and changes nothing");
    }
    // The one is the other's former name.
    let pools = bundle.num_tflite_pools.max(bundle.num_tflite_interpreters);
    let litert = litert(pools, bundle.num_tflite_interpreters_per_pool);
    let mut session_config = bundle.session_config.unwrap_or_default();
    session::set_mixed_precision(&mut session_config, &bundle.mixed_precision);
    let mut tags = bundle.saved_model_tags;
    if tags.is_empty() {
        tags.push(SERVE.to_owned());
    }
    let options = bundle.model_warmup_options.unwrap_or_default();
    let warm_up_iterations = match bundle.enable_model_warmup {
        true => iterations(options.num_request_iterations.unwrap_or_default()),
        false => 0,
    };
    Ok(Platform {
        session_config,
        tags,
        warm_up_iterations,
        prefer_tflite: bundle.prefer_tflite_model,
        litert,
        batching,
    })
}

/// Fields that are set and have no counterpart.
fn idle_fields(bundle: &proto::SessionBundleConfig) -> Vec<&'static str> {
    let warm_up = bundle.model_warmup_options.as_ref();
    let all = [
        ("session_target", !bundle.session_target.is_empty()),
        ("in_graph_batching_parameters", bundle.in_graph_batching_parameters.is_some()),
        ("session_run_load_threadpool_index", bundle.session_run_load_threadpool_index.is_some()),
        (
            "experimental_transient_ram_bytes_during_load",
            bundle.experimental_transient_ram_bytes_during_load != 0,
        ),
        ("experimental_fixed_input_tensors", !bundle.experimental_fixed_input_tensors.is_empty()),
        ("enable_session_metadata", bundle.enable_session_metadata),
        (
            "resource_estimation_uses_validation_result",
            bundle.resource_estimation_uses_validation_result,
        ),
        ("wrap_session_with_no_threading_params", bundle.wrap_session_with_no_threading_params),
        ("enable_saved_model_config", bundle.enable_saved_model_config),
        (
            "model_warmup_options.num_model_warmup_threads",
            warm_up.is_some_and(|options| options.num_model_warmup_threads.is_some()),
        ),
        (
            "model_warmup_options.enable_all_batch_sizes_warmup",
            warm_up.is_some_and(|options| options.enable_all_batch_sizes_warmup),
        ),
    ];
    all.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Platform, Status> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("platform.config");
        std::fs::write(&file, text).unwrap();
        resolve(
            &Flags {
                platform_config_file: file.display().to_string(),
                saved_model_tags: "ignored".to_owned(),
                tensorflow_session_parallelism: 7,
                // Without the flag that it needs.
                batching_parameters_file: "/ignored".to_owned(),
                ..Flags::default()
            },
            3,
        )
    }

    fn map(legacy_config: &str) -> String {
        format!(
            "platform_configs {{ key: 'tensorflow' value {{ source_adapter_config {{ \
             [type.googleapis.com/{ADAPTER}] {{ legacy_config {{ {legacy_config} }} }} }} }} }}"
        )
    }

    #[test]
    fn warm_up_is_run_once_unless_told_otherwise() {
        let iterations = |enable_model_warmup, num_request_iterations_for_warmup| {
            let flags = Flags {
                enable_model_warmup,
                num_request_iterations_for_warmup,
                ..Flags::default()
            };
            resolve(&flags, 1).unwrap().warm_up_iterations
        };
        assert_eq!((iterations(true, 0), iterations(true, -1), iterations(true, 3)), (1, 1, 3));
        assert_eq!(iterations(false, 3), 0);
    }

    #[test]
    fn a_file_says_all_and_the_flags_nothing() {
        let platform = from_file(&map("")).unwrap();
        assert_eq!(platform.tags, [SERVE]);
        assert_eq!(platform.warm_up_iterations, 0);
        assert_eq!(platform.session_config, ConfigProto::default());
        let platform = from_file(&map(
            "session_config { intra_op_parallelism_threads: 2 } saved_model_tags: ['a', 'b'] \
             enable_model_warmup: true model_warmup_options { num_request_iterations { value: 5 } } \
             session_target: 'elsewhere'",
        ))
        .unwrap();
        assert_eq!(platform.tags, ["a", "b"]);
        assert_eq!(platform.warm_up_iterations, 5);
        assert_eq!(platform.session_config.intra_op_parallelism_threads, 2);
        assert_eq!(platform.batching, Batching::Off);
    }

    #[test]
    fn a_file_says_how_requests_are_batched() {
        let parameters = "batching_parameters { max_batch_size { value: 8 } }";
        let batching = from_file(&map(parameters)).unwrap().batching;
        assert!(matches!(batching, Batching::All(parameters) if parameters.max_batch_size == 8));
        let per_model = format!("{parameters} enable_per_model_batching_params: true");
        let batching = from_file(&map(&per_model)).unwrap().batching;
        assert_eq!(batching, Batching::Own { num_batch_threads: 3 });
        let contradicted = "batching_parameters { allowed_batch_sizes: 8 }";
        assert!(from_file(&map(contradicted)).unwrap_err().message().starts_with("Last entry"));
    }

    #[test]
    fn interpreters_are_pools_times_their_size() {
        let litert = |flags: Flags| resolve(&flags, 3).unwrap().litert.interpreters;
        let cores = LiteRtOptions::default().interpreters;
        assert_eq!(litert(Flags::default()), cores);
        let flags = |num_tflite_pools, num_tflite_interpreters_per_pool| Flags {
            num_tflite_pools,
            num_tflite_interpreters_per_pool,
            ..Flags::default()
        };
        assert_eq!(litert(flags(3, 2)), 6);
        assert_eq!((litert(flags(-1, 0)), litert(flags(i32::MAX, 9))), (cores, INTERPRETERS_MAX));
        let file = from_file(&map("prefer_tflite_model: true num_tflite_pools: 5")).unwrap();
        assert!(file.prefer_tflite);
        assert_eq!(file.litert.interpreters, 5);
        let file = from_file(&map("num_tflite_interpreters: 4")).unwrap();
        assert_eq!((file.prefer_tflite, file.litert.interpreters), (false, 4));
    }

    #[test]
    fn a_file_without_tensorflow_is_refused_with_what_it_must_hold() {
        let other = map("").replace("SavedModelBundleSourceAdapterConfig", "SSLConfig");
        let other = other.replace("legacy_config {  }", "");
        for text in ["# nothing", "platform_configs { key: 'tensorflow' value {} }", &other] {
            let refused = from_file(text).unwrap_err();
            assert!(refused.message().contains("[type.googleapis.com/"), "{refused}");
        }
        assert!(
            from_file("platform_configs {").unwrap_err().message().starts_with("Invalid proto")
        );
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let bundle = proto::SessionBundleConfig {
            session_target: "x".to_owned(),
            enable_session_metadata: true,
            ..proto::SessionBundleConfig::default()
        };
        assert_eq!(idle_fields(&bundle), ["session_target", "enable_session_metadata"]);
        assert_eq!(idle_fields(&proto::SessionBundleConfig::default()), Vec::<&str>::new());
    }
}
