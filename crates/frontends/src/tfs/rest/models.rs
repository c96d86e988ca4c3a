//! What REST says of models, and what it lets operators do with them.
//!
//! Owns: the answers about status and metadata, the list of all models, orders to load and unload.
//! May not know: how either is carried out.

use bytes::Bytes;
use http::HeaderMap;
use http::header::ORIGIN;
use prost_reflect::DynamicMessage;
use vesta_model::{Label, ModelName, ModelSpec, SessionProcess, Status, Version, VersionChoice};
use vesta_protos::tensorflow::serving as messages;
use vesta_protos::vesta as ours;
use vesta_serving::{Phase, VersionStatus};

use super::message_json::{Names, push_message};
use super::url::{self, Order};
use super::{Inner, Rest};
use crate::metrics::{EngineChosen, Weighed};
use crate::tfs::json::Refusal;
use crate::tfs::metadata::signature_def_map;
use crate::tfs::model_config::model_config_of;
use crate::tfs::rpc::version_status;

/// Bytes that the description of one model may have.
const CONFIG_BYTES_MAX: usize = 1 << 20;

impl Rest {
    pub(super) fn status(&self, spec: &ModelSpec) -> Result<Bytes, Refusal> {
        // The original lists all versions whatever the label.
        let version = match spec.choice {
            VersionChoice::Version(version) => Some(version),
            VersionChoice::Latest | VersionChoice::Label(_) => None,
        };
        let versions = self.inner.serving.status(spec.name.as_str(), version)?;
        let response = messages::GetModelStatusResponse {
            model_version_status: versions.iter().map(version_status).collect(),
        };
        let mut out = Vec::new();
        let name = "tensorflow.serving.GetModelStatusResponse";
        push_message(&mut out, &response, name, Names::Json)?;
        Ok(out.into())
    }

    pub(super) fn metadata(&self, spec: &ModelSpec) -> Result<Bytes, Refusal> {
        let lease = self.inner.serving.resolve(spec)?;
        let model_spec = messages::ModelSpec {
            name: lease.model().as_str().to_owned(),
            version_choice: Some(messages::model_spec::VersionChoice::Version(lease.version().0)),
            signature_name: String::new(),
        };
        let signatures = signature_def_map(lease.signatures());
        // Two messages joined by hand, as the original joins them.
        let mut out = b"{\n\"model_spec\":".to_vec();
        push_message(&mut out, &model_spec, "tensorflow.serving.ModelSpec", Names::Proto)?;
        out.extend_from_slice(b",\n\"metadata\": {\"signature_def\": ");
        let name = "tensorflow.serving.SignatureDefMap";
        push_message(&mut out, &signatures, name, Names::Proto)?;
        out.extend_from_slice(b"}\n}\n");
        Ok(out.into())
    }

    /// Every model that is configured, or still has a version that has not ended, with what runs it.
    /// Reads what the system tells of workers, so call it where blocking is allowed.
    pub(super) fn list(&self) -> Result<Bytes, Refusal> {
        let configured = self.inner.serving.configured();
        let mut models: Vec<ours::Model> = self
            .inner
            .serving
            .models()
            .into_iter()
            .filter(|(name, versions)| {
                configured.contains(name)
                    || versions.iter().any(|version| version.phase != Phase::End)
            })
            .map(|(name, versions)| self.listed(&name, &versions))
            .collect();
        for name in configured {
            // One that nothing was found of yet is on no board.
            if let Err(at) = models.binary_search_by(|model| model.name.as_str().cmp(name.as_str()))
            {
                models.insert(at, self.listed(&name, &[]));
            }
        }
        let mut out = Vec::new();
        push_message(&mut out, &ours::Models { models }, "vesta.Models", Names::Json)?;
        Ok(out.into())
    }

    fn listed(&self, name: &ModelName, versions: &[VersionStatus]) -> ours::Model {
        let Inner { serving, metrics, .. } = &*self.inner;
        let why = serving.reason_not_ready(name);
        let label = |(label, version): (Label, Version)| (label.as_str().to_owned(), version.0);
        let choice = |shown: &VersionStatus| metrics.choice_of(name.as_str(), shown.version.0);
        ours::Model {
            name: name.as_str().to_owned(),
            model_version_status: versions.iter().map(version_status).collect(),
            ready: why.is_none(),
            not_ready_reason: why.unwrap_or_default(),
            version_labels: serving.labels(name).into_iter().map(label).collect(),
            loaded_versions: versions
                .iter()
                .filter_map(choice)
                .filter_map(|c| loaded(&c))
                .collect(),
        }
    }

    /// The order at the target of a POST, where orders are taken.
    pub(super) fn order(&self, target: &str) -> Option<(String, Order)> {
        self.inner.options.admin.as_ref().and_then(|_| url::match_order(target))
    }

    /// Carries out an order and answers with the status of the model.
    pub(super) async fn administer(
        &self,
        model: String,
        order: Order,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Bytes, Refusal> {
        // A page that somebody visits must not give orders to a server that they can reach.
        if headers.contains_key(ORIGIN) {
            return Err(Status::permission_denied("orders of web pages are refused").into());
        }
        let refused = || Status::unimplemented("the server takes no orders");
        let admin = self.inner.options.admin.as_ref().ok_or_else(refused)?;
        let name = ModelName::from(model.as_str());
        let done = match order {
            Order::Load => admin.load(name.clone(), described(&model, &body)?),
            Order::Unload => admin.unload(name.clone()),
        };
        let done = match self.inner.options.timeout {
            None => done.await,
            Some(limit) => tokio::time::timeout(limit, done)
                .await
                .unwrap_or_else(|_| Err(self.not_done_yet(&name, order))),
        };
        done?;
        let spec = ModelSpec { name, choice: VersionChoice::Latest };
        // One that never had a version has no status.
        match self.status(&spec) {
            Ok(status) => Ok(status),
            Err(_) => Ok(Bytes::from_static(b"{\n}\n")),
        }
    }

    /// What is told of an order that takes longer than a call may.
    fn not_done_yet(&self, name: &ModelName, order: Order) -> Status {
        let why = self.inner.serving.reason_not_ready(name);
        Status::deadline_exceeded(match (order, why) {
            (Order::Load, Some(why)) => {
                format!("model {name} does not serve yet, and its load goes on: {why}")
            }
            (Order::Load, None) => format!("model {name} serves, but not as it was asked to yet"),
            (Order::Unload, _) => {
                format!("model {name} has not ended yet, and its unload goes on")
            }
        })
    }
}

/// What runs a version; `None` once it is gone.
fn loaded(chosen: &EngineChosen) -> Option<ours::LoadedVersion> {
    let process = chosen.session.upgrade()?.process();
    let contender = |weighed: &Weighed| {
        let Weighed { engine, release, is_reference, outcome } = weighed.clone();
        let figures = outcome.as_ref().ok();
        ours::Contender {
            engine,
            engine_version: release,
            reference: is_reference,
            cpu_ms: figures.map(|(cpu_ms, _)| *cpu_ms),
            max_error: figures.map(|(_, error)| *error),
            out: outcome.err(),
        }
    };
    Some(ours::LoadedVersion {
        version: chosen.version,
        engine: chosen.engine.clone(),
        engine_version: chosen.release.clone(),
        reason: chosen.reason.to_owned(),
        because: chosen.because.clone(),
        threads: u32::try_from(chosen.threads).unwrap_or(u32::MAX),
        isolation: if process.is_some() { "worker" } else { "inline" }.to_owned(),
        worker: process.map(|SessionProcess { resident_bytes, restarts }| ours::Worker {
            memory_bytes: resident_bytes,
            restarts,
        }),
        contenders: chosen.contenders.iter().map(contender).collect(),
    })
}

/// The model that a body describes, as `ModelConfig` in protobuf's JSON; `None` for an empty one.
fn described(model: &str, body: &[u8]) -> Result<Option<vesta_model::ModelConfig>, Refusal> {
    let wrong = |why: String| {
        Refusal::invalid(format!(
            "the body is no description of a model: {why}; send nothing, or a ModelConfig such as \
             {{\"base_path\": \"/models/{model}\"}}"
        ))
    };
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    if body.len() > CONFIG_BYTES_MAX {
        return Err(wrong(format!("it has more than {CONFIG_BYTES_MAX} bytes")));
    }
    let kind = vesta_protos::descriptor_pool()
        .get_message_by_name("tensorflow.serving.ModelConfig")
        .ok_or_else(|| Status::internal("there is no message ModelConfig"))?;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let config = DynamicMessage::deserialize(kind, &mut reader)
        .and_then(|message| reader.end().map(|()| message))
        .map_err(|error| wrong(error.to_string()))?;
    let mut config: messages::ModelConfig =
        config.transcode_to().map_err(|error| wrong(error.to_string()))?;
    if !config.name.is_empty() && config.name != model {
        return Err(wrong(format!("it is of model {}, but the path says {model}", config.name)));
    }
    model.clone_into(&mut config.name);
    if config.model_platform.is_empty() && config.model_type == 0 {
        "tensorflow".clone_into(&mut config.model_platform);
    }
    Ok(Some(model_config_of(config)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use vesta_model::{BasePath, VersionPolicy};

    #[test]
    fn bodies_describe_models() {
        let read = |body: &str| described("m", body.as_bytes());
        assert_eq!(read(" \n"), Ok(None));
        let config = read(r#"{"base_path": "/models/m", "model_version_policy": {"all": {}}}"#);
        let config = config.unwrap().unwrap();
        assert_eq!(config.name.as_str(), "m");
        assert_eq!(config.base_path, BasePath::Directory(PathBuf::from("/models/m")));
        assert_eq!(config.policy, VersionPolicy::All);
        let camel = read(r#"{"name": "m", "basePath": "/x", "versionLabels": {"a": "3"}}"#);
        assert_eq!(camel.unwrap().unwrap().labels.len(), 1);
        for (body, word) in [
            ("{", "no description of a model"),
            ("[]", "no description of a model"),
            ("{} x", "no description of a model"),
            (r#"{"base_pth": "/x"}"#, "base_pth"),
            (r#"{"name": "other", "base_path": "/x"}"#, "but the path says m"),
            (r#"{"base_path": "x"}"#, "absolute path or URI"),
            ("{}", "absolute path or URI"),
        ] {
            let refusal = read(body).unwrap_err();
            let text = String::from_utf8(refusal.message).unwrap();
            assert!(text.contains(word), "{body}: {text}");
        }
    }
}
