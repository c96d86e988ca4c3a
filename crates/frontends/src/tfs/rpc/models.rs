//! Calls about models rather than on them: metadata, status, reload.
//!
//! Owns: their messages. May not know: how models are loaded.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use prost_types::Any;
use vesta_model::{Status, Version};
use vesta_protos::tensorflow::serving as proto;
use vesta_protos::tensorflow::serving::metric::ValueIncrease;
use vesta_protos::tensorflow::serving::model_server_config::Config;
use vesta_protos::tensorflow::serving::model_spec::VersionChoice;
use vesta_protos::tensorflow::serving::model_version_status::State;
use vesta_serving::{Phase, VersionStatus};

use super::{Calls, answered_by, required_spec, wanted};
use crate::grpc::Reply;
use crate::metrics::Metrics;
use crate::tfs::metadata::signature_def_map;
use crate::tfs::model_config::model_configs_of_list;

/// The one kind of metadata that there is.
const SIGNATURE_DEF: &str = "signature_def";
const SIGNATURE_DEF_MAP_URL: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

impl Calls {
    pub(super) async fn model_metadata(&self, message: Bytes) -> Result<Reply, Status> {
        let request: proto::GetModelMetadataRequest = self.parse(message).await?;
        let spec = required_spec(request.model_spec.as_ref())?;
        check_fields(&request.metadata_field)?;
        let lease = self.serving.resolve(&wanted(spec))?;
        let signatures = Any {
            type_url: SIGNATURE_DEF_MAP_URL.to_owned(),
            value: signature_def_map(lease.signatures()).encode_to_vec(),
        };
        Ok(Reply::of(&proto::GetModelMetadataResponse {
            model_spec: Some(answered_by(&lease, "")),
            metadata: [(SIGNATURE_DEF.to_owned(), signatures)].into(),
        }))
    }

    pub(super) async fn model_status(&self, message: Bytes) -> Result<Reply, Status> {
        let request: proto::GetModelStatusRequest = self.parse(message).await?;
        let spec = required_spec(request.model_spec.as_ref())?;
        // A label is ignored, as by the original.
        let version = match spec.version_choice {
            Some(VersionChoice::Version(version)) => Some(Version(version)),
            Some(VersionChoice::VersionLabel(_)) | None => None,
        };
        let versions = self.serving.status(&spec.name, version)?;
        Ok(Reply::of(&proto::GetModelStatusResponse {
            model_version_status: versions.iter().map(version_status).collect(),
        }))
    }

    pub(super) async fn reload_config(&self, message: Bytes) -> Result<Reply, Status> {
        let request: proto::ReloadConfigRequest = self.parse(message).await?;
        let Some(Config::ModelConfigList(list)) = request.config.and_then(|config| config.config)
        else {
            return Err(Status::invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only \
                 ModelConfigList is currently supported",
            ));
        };
        let models = model_configs_of_list(&list)?;
        let before = values(&self.metrics, &request.metric_names);
        self.reconfigure.reconfigure(models).await?;
        let after = values(&self.metrics, &request.metric_names);
        let metric = after.into_iter().zip(before).map(|((name, after), (_, before))| {
            let increase = ValueIncrease::Int64ValueIncrease(after - before);
            proto::Metric { name, value_increase: Some(increase) }
        });
        Ok(Reply::of(&proto::ReloadConfigResponse {
            status: Some(status_proto(None)),
            metric: metric.collect(),
        }))
    }
}

fn check_fields(fields: &[String]) -> Result<(), Status> {
    if fields.is_empty() {
        return Err(Status::invalid_argument(
            "GetModelMetadataRequest must specify at least one metadata_field",
        ));
    }
    match fields.iter().find(|field| *field != SIGNATURE_DEF) {
        None => Ok(()),
        Some(field) => {
            Err(Status::invalid_argument(format!("Metadata field {field} is not supported")))
        }
    }
}

/// A version as the status calls of both wires say it.
pub(crate) fn version_status(status: &VersionStatus) -> proto::ModelVersionStatus {
    let state = match status.phase {
        Phase::Start => State::Start,
        Phase::Loading => State::Loading,
        Phase::Available => State::Available,
        Phase::Unloading => State::Unloading,
        Phase::End => State::End,
    };
    proto::ModelVersionStatus {
        version: status.version.0,
        state: state.into(),
        status: Some(status_proto(status.told_error())),
    }
}

fn status_proto(error: Option<&Status>) -> proto::StatusProto {
    error.map_or_else(proto::StatusProto::default, |error| proto::StatusProto {
        error_code: error.code().number(),
        error_message: error.message().to_owned(),
    })
}

/// What each metric counts at the moment, all labels together; 0 for what is not counted. Each name
/// once, however often it was asked for.
fn values(metrics: &Metrics, names: &[String]) -> Vec<(String, i64)> {
    if names.is_empty() {
        return Vec::new();
    }
    let families = metrics.registry().gather();
    let names: BTreeSet<&String> = names.iter().collect();
    names
        .into_iter()
        .map(|name| {
            // On the page, slashes are colons.
            let page_name = name.replace('/', ":");
            let family = families.iter().find(|family| family.name() == page_name);
            let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
            let sum: f64 = metrics
                .iter()
                .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
                .sum();
            (name.clone(), sum as i64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked() {
        let check = |fields: &[&str]| {
            check_fields(&fields.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|status| status.message().to_owned())
        };
        assert_eq!(check(&["signature_def", "signature_def"]), Ok(()));
        assert_eq!(
            check(&[]),
            Err("GetModelMetadataRequest must specify at least one metadata_field".to_owned())
        );
        assert_eq!(
            check(&["signature_def", "foo"]),
            Err("Metadata field foo is not supported".to_owned())
        );
    }

    #[test]
    fn a_failed_version_says_why() {
        let failed = VersionStatus {
            version: Version(2),
            phase: Phase::End,
            error: Some(Status::not_found("gone")),
            restarting: false,
        };
        let want = proto::ModelVersionStatus {
            version: 2,
            state: 50,
            status: Some(proto::StatusProto { error_code: 5, error_message: "gone".into() }),
        };
        assert_eq!(version_status(&failed), want);

        // Clients learn why a version cannot be used for now, but not that its load is tried again.
        let tried = VersionStatus { phase: Phase::Loading, ..failed };
        let status = |shown: &VersionStatus| version_status(shown).status.unwrap().error_code;
        assert_eq!(status(&tried), 0);
        assert_eq!(status(&VersionStatus { restarting: true, ..tried }), 5);
    }

    #[test]
    fn metrics_are_read_by_their_slashed_names() {
        let metrics = Metrics::new().unwrap();
        metrics.answered("a", None);
        metrics.answered("b", None);
        let names = ["/tensorflow/serving/request_count", "nope", "nope"].map(String::from);
        assert_eq!(values(&metrics, &names), [(names[0].clone(), 2), ("nope".to_owned(), 0)]);
    }
}
