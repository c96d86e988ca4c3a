//! The list of models as the operator writes or sends it, to the vocabulary.
//!
//! Owns: which lists are legal, in the original's order and words. May not know: files, which
//! models are served now.
//! Invariant: a list is taken whole or not at all.

use std::collections::BTreeSet;
use std::path::PathBuf;

use vesta_model::{
    BasePath, Label, ModelConfig, ModelName, RequestLogForm, RequestLogging, Status, Version,
    VersionPolicy,
};
use vesta_protos::tensorflow::serving as proto;
use vesta_protos::tensorflow::serving::file_system_storage_path_source_config::ServableVersionPolicy;
use vesta_protos::tensorflow::serving::file_system_storage_path_source_config::servable_version_policy::PolicyChoice;
use vesta_protos::tensorflow::serving::model_server_config::Config;

/// The one platform that there is; every format is served under its name.
const PLATFORM: &str = "tensorflow";

/// What base paths in object stores begin with.
const STORES: [&str; 7] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];

/// Converts a whole configuration. One that says nothing has no models.
///
/// # Errors
/// Those of [`model_configs_of_list`]; `INVALID_ARGUMENT` for a custom configuration.
pub fn model_configs(config: &proto::ModelServerConfig) -> Result<Vec<ModelConfig>, Status> {
    match &config.config {
        None => Ok(Vec::new()),
        Some(Config::ModelConfigList(list)) => model_configs_of_list(list),
        Some(Config::CustomModelConfig(_)) => {
            Err(Status::invalid_argument("ModelServer does not yet support custom model config."))
        }
    }
}

/// Converts a list of models.
///
/// # Errors
/// `INVALID_ARGUMENT` for a name listed twice or empty, a relative base path, a platform that is
/// missing, given twice or unknown; `UNIMPLEMENTED` for a base path in a kind of store
/// that is not known.
pub fn model_configs_of_list(list: &proto::ModelConfigList) -> Result<Vec<ModelConfig>, Status> {
    let mut names = BTreeSet::new();
    for config in &list.config {
        if !names.insert(&config.name) {
            return Err(Status::invalid_argument(format!(
                "Illegal to list model {} multiple times in config list",
                config.name
            )));
        }
    }
    let base_paths: Vec<BasePath> = list.config.iter().map(base_path).collect::<Result<_, _>>()?;
    for config in &list.config {
        check_platform(config)?;
        if config.name.is_empty() {
            return Err(Status::invalid_argument(format!(
                "the model at {} has no name; give it one, since requests ask for models by name",
                config.base_path
            )));
        }
    }
    Ok(list
        .config
        .iter()
        .zip(base_paths)
        .map(|(config, path)| model_config(config, path))
        .collect())
}

/// Converts one model.
///
/// # Errors
/// Those of [`model_configs_of_list`].
pub(crate) fn model_config_of(config: proto::ModelConfig) -> Result<ModelConfig, Status> {
    let mut models = model_configs_of_list(&proto::ModelConfigList { config: vec![config] })?;
    models.pop().ok_or_else(|| Status::internal("a list of one model became one of none"))
}

fn model_config(config: &proto::ModelConfig, base_path: BasePath) -> ModelConfig {
    ModelConfig {
        name: ModelName::from(config.name.as_str()),
        base_path,
        policy: version_policy(config.model_version_policy.as_ref()),
        labels: config
            .version_labels
            .iter()
            .map(|(label, &version)| (Label::from(label.as_str()), Version(version)))
            .collect(),
        request_logging: config
            .logging_config
            .as_ref()
            .and_then(|logging| request_logging(&config.name, logging)),
    }
}

/// How the requests of a model are recorded. What cannot be done is told and left out, since a model
/// that serves without a record is worth more than none.
fn request_logging(model: &str, config: &proto::LoggingConfig) -> Option<RequestLogging> {
    let tell = |what: String| tracing::warn!("logging_config of model {model}: {what}");
    if config.custom_logging_config.is_some() {
        tell("custom_logging_config is not known here and is passed over".to_owned());
    }
    let sampling = config.sampling_config.clone().unwrap_or_default();
    if sampling.attributes != 0 || !sampling.per_task_sampling_configs.is_empty() {
        tell(
            "attributes and per_task_sampling_configs are passed over; the sampling_rate counts"
                .to_owned(),
        );
    }
    let collector = config.log_collector_config.clone().unwrap_or_default();
    let form = match collector.r#type.as_str() {
        "" | "tfrecord" => RequestLogForm::TfRecord,
        "jsonl" => RequestLogForm::JsonLines,
        other => {
            tell(format!(
                "type {other} is unknown, so no request is recorded; choose tfrecord or jsonl"
            ));
            return None;
        }
    };
    if !collector.filename_prefix.starts_with('/') {
        tell(format!(
            "filename_prefix must be an absolute path, but is \"{}\"; no request is recorded",
            collector.filename_prefix
        ));
        return None;
    }
    let rate = sampling.sampling_rate;
    if !(0.0..=1.0).contains(&rate) {
        tell(format!("sampling_rate {rate} is not from 0 to 1; the nearer of the two is taken"));
    }
    // What is no number at all becomes 0.
    let requests_per_billion = (rate.clamp(0.0, 1.0) * 1e9).round() as u32;
    if requests_per_billion == 0 {
        tell("sampling_rate is 0, so no request is recorded".to_owned());
    }
    Some(RequestLogging {
        form,
        path_prefix: collector.filename_prefix.into(),
        requests_per_billion,
    })
}

fn base_path(config: &proto::ModelConfig) -> Result<BasePath, Status> {
    let proto::ModelConfig { name, base_path, .. } = config;
    let path = match base_path.split_once("://") {
        Some(("file", path)) => path,
        Some((scheme, place)) if STORES.contains(&scheme) => {
            if place.starts_with('/') || place.is_empty() {
                return Err(Status::invalid_argument(format!(
                    "model {name} has base_path {base_path}, which names no bucket; write \
                     {scheme}://bucket/path"
                )));
            }
            return Ok(BasePath::Store(base_path.trim_end_matches('/').to_owned()));
        }
        Some((scheme, _)) if is_scheme(scheme) => {
            return Err(Status::unimplemented(format!(
                "model {name} has base_path {base_path}, but models are not read over \
                 {scheme}://; give a local directory, or one of {}",
                STORES.map(|scheme| format!("{scheme}://")).join(", ")
            )));
        }
        _ => base_path,
    };
    if path.starts_with('/') {
        Ok(BasePath::Directory(PathBuf::from(path)))
    } else {
        Err(Status::invalid_argument(format!(
            "Expected model {name} to have an absolute path or URI; got base_path()={base_path}"
        )))
    }
}

/// Whether `text` can be what stands before the `://` of a URI.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn check_platform(config: &proto::ModelConfig) -> Result<(), Status> {
    let proto::ModelConfig { name, model_type, model_platform, .. } = config;
    let refused = |text: String| Err(Status::invalid_argument(text));
    match (*model_type, model_platform.as_str()) {
        (0, "") => refused(format!(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor \
             ModelServerConfig::model_platform, model name is {name}"
        )),
        (0, PLATFORM) => Ok(()),
        (0, platform) => refused(format!("Model {name} requests unsupported platform {platform}")),
        (number, "") if number == proto::ModelType::Tensorflow as i32 => Ok(()),
        (number, "") => {
            refused(format!("ModelServerConfig::model_type choice {number} not supported."))
        }
        _ => refused(format!(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and \
             ModelServerConfig::model_platform, model name is {name}"
        )),
    }
}

fn version_policy(policy: Option<&ServableVersionPolicy>) -> VersionPolicy {
    match policy.and_then(|policy| policy.policy_choice.as_ref()) {
        None => VersionPolicy::default(),
        // None said means one; more than can be counted means all that can be.
        Some(PolicyChoice::Latest(latest)) => {
            VersionPolicy::Latest(usize::try_from(latest.num_versions.max(1)).unwrap_or(usize::MAX))
        }
        Some(PolicyChoice::All(_)) => VersionPolicy::All,
        Some(PolicyChoice::Specific(specific)) => {
            VersionPolicy::Specific(specific.versions.iter().copied().map(Version).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DynamicMessage;
    use vesta_protos::descriptor_pool;

    fn parsed(text: &str) -> Result<Vec<ModelConfig>, Status> {
        let message =
            descriptor_pool().get_message_by_name("tensorflow.serving.ModelServerConfig").unwrap();
        let message = DynamicMessage::parse_text_format(message, text).unwrap();
        model_configs(&message.transcode_to().unwrap())
    }

    fn refusal(entry: &str) -> (&'static str, String) {
        let status = parsed(&format!("model_config_list {{ {entry} }}")).unwrap_err();
        (status.code().name(), status.message().to_owned())
    }

    fn invalid(text: &str) -> (&'static str, String) {
        ("INVALID_ARGUMENT", text.to_owned())
    }

    #[test]
    fn a_list_is_converted() {
        let configs = parsed(
            r#"model_config_list {
                config { name: "a" base_path: "/m/a" model_platform: "tensorflow" }
                config { name: "b" base_path: "file:///m/b" model_type: TENSORFLOW
                    model_version_policy { specific { versions: 3 versions: 1 } }
                    version_labels { key: "stable" value: 1 } }
                config { name: "c" base_path: "/m/c" model_platform: "tensorflow"
                    model_version_policy { latest { } } }
                config { name: "d" base_path: "/m/d" model_platform: "tensorflow"
                    model_version_policy { latest { num_versions: 7 } } }
                config { name: "e" base_path: "/m/e" model_platform: "tensorflow"
                    model_version_policy { all { } } }
            }"#,
        )
        .unwrap();
        let policies: Vec<VersionPolicy> =
            configs.iter().map(|config| config.policy.clone()).collect();
        assert_eq!(
            policies,
            [
                VersionPolicy::Latest(1),
                VersionPolicy::Specific(vec![Version(3), Version(1)]),
                VersionPolicy::Latest(1),
                VersionPolicy::Latest(7),
                VersionPolicy::All,
            ]
        );
        assert_eq!(configs[0].name.as_str(), "a");
        assert_eq!(configs[1].base_path, BasePath::Directory(PathBuf::from("/m/b")));
        assert_eq!(configs[1].labels.get("stable"), Some(&Version(1)));
        assert_eq!(parsed(""), Ok(Vec::new()));
        assert_eq!(parsed("model_config_list { }"), Ok(Vec::new()));
    }

    #[test]
    fn base_paths_may_lie_in_object_stores() {
        for scheme in STORES {
            let url = format!("{scheme}://bucket/models/m");
            let list = format!(
                r#"model_config_list {{ config {{ name: "m" base_path: "{url}/"
                    model_platform: "tensorflow" }} }}"#
            );
            assert_eq!(parsed(&list).unwrap()[0].base_path, BasePath::Store(url));
        }
    }

    #[test]
    fn illegal_lists_are_refused() {
        let custom = parsed("custom_model_config { }").unwrap_err();
        assert_eq!(custom.message(), "ModelServer does not yet support custom model config.");
        assert_eq!(
            refusal(r#"config { name: "a" } config { name: "a" base_path: "x" }"#),
            invalid("Illegal to list model a multiple times in config list")
        );
        for path in ["rel/path", "", "1://x", "://x", "file://rel"] {
            assert_eq!(
                refusal(&format!(r#"config {{ name: "rel" base_path: "{path}" }}"#)),
                invalid(&format!(
                    "Expected model rel to have an absolute path or URI; got base_path()={path}"
                ))
            );
        }
        assert_eq!(
            refusal(r#"config { name: "a" base_path: "hdfs://host/a" }"#),
            (
                "UNIMPLEMENTED",
                "model a has base_path hdfs://host/a, but models are not read over hdfs://; give a \
                 local directory, or one of s3://, s3a://, gs://, az://, azure://, abfs://, abfss://"
                    .to_owned()
            )
        );
        assert_eq!(
            refusal(r#"config { name: "a" base_path: "s3:///a" }"#),
            invalid("model a has base_path s3:///a, which names no bucket; write s3://bucket/path")
        );
        assert_eq!(
            refusal(r#"config { base_path: "/a" model_platform: "tensorflow" }"#),
            invalid(
                "the model at /a has no name; give it one, since requests ask for models by name"
            )
        );
    }

    #[test]
    fn request_logs_are_read_and_never_in_the_way() {
        let logging = |text: &str| {
            let list = format!(
                r#"model_config_list {{ config {{ name: "m" base_path: "/m"
                    model_platform: "tensorflow" logging_config {{ {text} }} }} }}"#
            );
            parsed(&list).unwrap().pop().unwrap().request_logging
        };
        let whole = |form, requests_per_billion| {
            Some(RequestLogging { form, path_prefix: "/log/m".into(), requests_per_billion })
        };
        let to = "log_collector_config { filename_prefix: '/log/m' }";
        for (text, want) in [
            (format!("{to} sampling_config {{ sampling_rate: 1 }}"), 1_000_000_000),
            (format!("{to} sampling_config {{ sampling_rate: 0.01 }}"), 10_000_000),
            (format!("{to} sampling_config {{ sampling_rate: 7 }}"), 1_000_000_000),
            (format!("{to} sampling_config {{ sampling_rate: -1 }}"), 0),
            (format!("{to} sampling_config {{ sampling_rate: nan }}"), 0),
            (to.to_owned(), 0),
        ] {
            assert_eq!(logging(&text), whole(RequestLogForm::TfRecord, want), "{text}");
        }
        let typed = |kind: &str| {
            logging(&format!("log_collector_config {{ type: '{kind}' filename_prefix: '/log/m' }}"))
        };
        assert_eq!(typed("tfrecord"), whole(RequestLogForm::TfRecord, 0));
        assert_eq!(typed("jsonl"), whole(RequestLogForm::JsonLines, 0));
        assert_eq!(typed("snitch"), None);
        assert_eq!(logging("log_collector_config { filename_prefix: 'rel' }"), None);
        assert_eq!(logging(""), None);
    }

    #[test]
    fn platforms_are_checked() {
        let platform =
            |rest: &str| refusal(&format!(r#"config {{ name: "a" base_path: "/a" {rest} }}"#));
        assert_eq!(
            platform(""),
            invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor \
                 ModelServerConfig::model_platform, model name is a"
            )
        );
        assert_eq!(
            platform(r#"model_type: TENSORFLOW model_platform: "tensorflow""#),
            invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and \
                 ModelServerConfig::model_platform, model name is a"
            )
        );
        assert_eq!(
            platform("model_type: OTHER"),
            invalid("ModelServerConfig::model_type choice 2 not supported.")
        );
        assert_eq!(
            platform(r#"model_platform: "caffe""#),
            invalid("Model a requests unsupported platform caffe")
        );
    }
}
