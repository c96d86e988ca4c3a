//! The exported descriptors: whole, ordered, and good for text files and JSON
//! names.

use prost::Message;
use prost_reflect::DynamicMessage;
use vesta_protos::tensorflow::serving::{
    self,
    file_system_storage_path_source_config::servable_version_policy::{PolicyChoice, Specific},
};
use vesta_protos::{FILE_DESCRIPTOR_SET, descriptor_pool};

/// Reads a text file the way the server does: dynamically, then by way of the wire.
fn parse<M: Message + Default>(name: &str, text: &str) -> Result<M, String> {
    let descriptor = descriptor_pool().get_message_by_name(name).ok_or("no such message")?;
    let message = DynamicMessage::parse_text_format(descriptor, text).map_err(|e| e.to_string())?;
    message.transcode_to().map_err(|e| e.to_string())
}

#[test]
fn services_are_complete() {
    let methods = |service: &str| -> Vec<String> {
        let service = descriptor_pool().get_service_by_name(service).unwrap();
        service.methods().map(|method| method.name().to_owned()).collect()
    };
    assert_eq!(
        methods("tensorflow.serving.PredictionService"),
        ["Classify", "Regress", "Predict", "MultiInference", "GetModelMetadata"]
    );
    assert_eq!(
        methods("tensorflow.serving.ModelService"),
        ["GetModelStatus", "HandleReloadConfigRequest"]
    );
    assert_eq!(methods("tensorflow.serving.SessionService"), ["SessionRun"]);
}

#[test]
fn every_file_comes_after_its_imports() {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut seen = Vec::new();
    for file in &set.file {
        for import in &file.dependency {
            assert!(seen.contains(&import.as_str()), "{} before {import}", file.name());
        }
        seen.push(file.name());
    }
}

#[test]
fn status_keeps_underscores_in_json() {
    let json_name = |message: &str, field: &str| {
        let message = descriptor_pool().get_message_by_name(message).unwrap();
        message.get_field_by_name(field).unwrap().json_name().to_owned()
    };
    for (message, field) in [
        ("tensorflow.serving.StatusProto", "error_code"),
        ("tensorflow.serving.StatusProto", "error_message"),
        ("tensorflow.serving.GetModelStatusResponse", "model_version_status"),
    ] {
        assert_eq!(json_name(message, field), field);
    }
}

#[test]
fn model_config_file() {
    let config: serving::ModelServerConfig = parse(
        "tensorflow.serving.ModelServerConfig",
        r#"
        # two of them
        model_config_list: {
          config: { name: "a", base_path: '/models/a', model_platform: "tensorflow" }
          config {
            name: "b"
            base_path: "/models/b"
            model_type: TENSORFLOW;
            model_version_policy { specific { versions: [1, 2] } }
            version_labels { key: "stable" value: 1 }
          }
        }"#,
    )
    .unwrap();
    let Some(serving::model_server_config::Config::ModelConfigList(list)) = config.config else {
        panic!("not a list");
    };
    assert_eq!(list.config[0].base_path, "/models/a");
    assert_eq!(list.config[1].model_type, i32::from(serving::ModelType::Tensorflow));
    assert_eq!(list.config[1].version_labels["stable"], 1);
    let policy = list.config[1].model_version_policy.as_ref().unwrap();
    let versions = vec![1, 2];
    assert_eq!(policy.policy_choice, Some(PolicyChoice::Specific(Specific { versions })));
}

#[test]
fn unknown_field_in_a_file_is_an_error() {
    let parsed =
        parse::<serving::ModelServerConfig>("tensorflow.serving.ModelServerConfig", "nonsense: 1");
    assert!(parsed.is_err());
}

#[test]
fn batching_file_tells_absent_from_zero() {
    let parameters: serving::BatchingParameters = parse(
        "tensorflow.serving.BatchingParameters",
        "max_batch_size { value: 128 } batch_timeout_micros { value: 0 } \
         allowed_batch_sizes: 32 allowed_batch_sizes: 128",
    )
    .unwrap();
    assert_eq!(parameters.max_batch_size, Some(128));
    assert_eq!(parameters.batch_timeout_micros, Some(0));
    assert_eq!(parameters.num_batch_threads, None);
    assert_eq!(parameters.allowed_batch_sizes, [32, 128]);
}

#[test]
fn session_config_file() {
    let config: vesta_protos::tensorflow::ConfigProto = parse(
        "tensorflow.ConfigProto",
        "intra_op_parallelism_threads: 2 graph_options { rewrite_options { remapping: OFF } }",
    )
    .unwrap();
    assert_eq!(config.intra_op_parallelism_threads, 2);
}
