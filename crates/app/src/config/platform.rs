//! What the platform `tensorflow` is told: by flags, or whole by `--platform_config_file`.
//!
//! Owns: that a file replaces the flags of sessions, tags and warm-up, as in the original. May not
//! know: what becomes of any of it.

use std::path::Path;

use prost::Message as _;
use vesta_model::Status;
use vesta_protos::tensorflow::ConfigProto;
use vesta_protos::tensorflow::serving as proto;

use super::{session, text};
use crate::flags::Flags;

/// The platform that all models are of.
const TENSORFLOW: &str = "tensorflow";
/// The one kind of configuration that the original has for it.
const ADAPTER: &str = "tensorflow.serving.SavedModelBundleSourceAdapterConfig";
/// The tag of a graph that is to be served.
const SERVE: &str = "serve";

/// How saved models are loaded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Platform {
    /// TensorFlow's sessions.
    pub(super) session_config: ConfigProto,
    /// Tags that select a graph.
    pub(super) tags: Vec<String>,
    /// How often each recorded request is run; 0 for no warm-up.
    pub(super) warm_up_iterations: u32,
}

/// What file or flags say.
///
/// # Errors
/// Those of files that cannot be read or understood, of flags that contradict each other, and
/// `INVALID_ARGUMENT` for a file that says nothing of TensorFlow.
pub(super) fn resolve(flags: &Flags) -> Result<Platform, Status> {
    if flags.platform_config_file.is_empty() {
        return Ok(Platform {
            session_config: session::from_flags(flags)?,
            tags: flags.saved_model_tags.split(',').map(|tag| tag.trim().to_owned()).collect(),
            warm_up_iterations: if flags.enable_model_warmup {
                iterations(flags.num_request_iterations_for_warmup)
            } else {
                0
            },
        });
    }
    let file = Path::new(&flags.platform_config_file);
    let map: proto::PlatformConfigMap = text::read(file, "tensorflow.serving.PlatformConfigMap")?;
    from_bundle(bundle(&map, file)?)
}

/// 0 and less mean once, as in the original.
fn iterations(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(1).max(1)
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

fn from_bundle(bundle: proto::SessionBundleConfig) -> Result<Platform, Status> {
    for field in idle_fields(&bundle) {
        tracing::warn!("{field} of the platform configuration is accepted and changes nothing");
    }
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
    Ok(Platform { session_config, tags, warm_up_iterations })
}

/// Fields that are set and have no counterpart.
fn idle_fields(bundle: &proto::SessionBundleConfig) -> Vec<&'static str> {
    let warm_up = bundle.model_warmup_options.as_ref();
    let all = [
        ("batching_parameters", bundle.batching_parameters.is_some()),
        ("prefer_tflite_model", bundle.prefer_tflite_model),
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
        resolve(&Flags {
            platform_config_file: file.display().to_string(),
            saved_model_tags: "ignored".to_owned(),
            tensorflow_session_parallelism: 7,
            ..Flags::default()
        })
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
            resolve(&flags).unwrap().warm_up_iterations
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
