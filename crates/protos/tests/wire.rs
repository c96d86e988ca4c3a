//! Bytes of hand-built messages, written out by field number and wire type, so
//! that an edit of a `.proto` file that changes the wire cannot go unseen.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use prost::Message;
use vesta_protos::{onnx, tensorflow, tensorflow::serving};

/// A field whose content has a length: strings, bytes, messages, packed numbers.
fn long(number: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// A field that is one integer.
fn int(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::Varint, &mut out);
    prost::encoding::encode_varint(value, &mut out);
    out
}

/// The message encodes to these fields and decodes from them.
#[track_caller]
fn assert_wire<M: Message + Default + PartialEq + Debug>(message: &M, fields: &[Vec<u8>]) {
    let wanted = fields.concat();
    assert_eq!(message.encode_to_vec(), wanted);
    assert_eq!(M::decode(wanted.as_slice()).as_ref(), Ok(message));
}

fn shape(sizes: &[i64]) -> tensorflow::TensorShapeProto {
    tensorflow::TensorShapeProto {
        dim: sizes
            .iter()
            .map(|&size| tensorflow::tensor_shape_proto::Dim { size, name: String::new() })
            .collect(),
        unknown_rank: false,
    }
}

#[test]
fn tensor_with_typed_values() {
    let tensor = tensorflow::TensorProto {
        dtype: tensorflow::DataType::DtFloat.into(),
        tensor_shape: Some(shape(&[2])),
        float_val: vec![1.0, 2.0],
        ..Default::default()
    };
    let floats = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    let dims = long(2, int(1, 2));
    assert_wire(&tensor, &[int(1, 1), long(2, dims), long(5, floats)]);
}

#[test]
fn tensor_fields_of_every_kind() {
    let tensor = tensorflow::TensorProto {
        version_number: 3,
        tensor_content: Bytes::from_static(b"raw"),
        double_val: vec![0.5],
        int_val: vec![-1],
        string_val: vec![Bytes::from_static(b"a"), Bytes::new()],
        int64_val: vec![9],
        bool_val: vec![true],
        half_val: vec![15360],
        uint32_val: vec![7],
        uint64_val: vec![8],
        float8_val: vec![0x38],
        ..Default::default()
    };
    assert_wire(
        &tensor,
        &[
            int(3, 3),
            long(4, "raw"),
            long(6, 0.5f64.to_le_bytes()),
            // A negative number takes ten bytes, whatever its declared width.
            long(7, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            long(8, "a"),
            long(8, ""),
            long(10, [9]),
            long(11, [1]),
            long(13, [0x80, 0x78]),
            long(16, [7]),
            long(17, [8]),
            long(18, [0x38]),
        ],
    );
}

#[test]
fn predict_request_and_response() {
    let tensor = tensorflow::TensorProto { dtype: 1, ..Default::default() };
    let spec = serving::ModelSpec {
        name: "m".into(),
        signature_name: "s".into(),
        version_choice: Some(serving::model_spec::VersionChoice::Version(5)),
    };
    let spec_wire = [long(1, "m"), long(2, int(1, 5)), long(3, "s")].concat();
    let entry = [long(1, "x"), long(2, int(1, 1))].concat();

    let request = serving::PredictRequest {
        model_spec: Some(spec.clone()),
        inputs: BTreeMap::from([("x".into(), tensor.clone())]),
        output_filter: vec!["y".into()],
        ..Default::default()
    };
    assert_wire(&request, &[long(1, &spec_wire), long(2, &entry), long(3, "y")]);

    // The answer has the numbers the other way round.
    let response = serving::PredictResponse {
        model_spec: Some(spec),
        outputs: BTreeMap::from([("x".into(), tensor)]),
    };
    assert_wire(&response, &[long(1, &entry), long(2, &spec_wire)]);
}

#[test]
fn version_label_is_field_four() {
    let spec = serving::ModelSpec {
        version_choice: Some(serving::model_spec::VersionChoice::VersionLabel("stable".into())),
        ..Default::default()
    };
    assert_wire(&spec, &[long(4, "stable")]);
}

#[test]
fn model_status() {
    let status = serving::GetModelStatusResponse {
        model_version_status: vec![serving::ModelVersionStatus {
            version: 123,
            state: serving::model_version_status::State::Available.into(),
            status: Some(serving::StatusProto {
                error_code: tensorflow::error::Code::Unauthenticated.into(),
                error_message: "e".into(),
            }),
        }],
    };
    let inner = [int(1, 123), int(2, 30), long(3, [int(1, 16), long(2, "e")].concat())];
    assert_wire(&status, &[long(1, inner.concat())]);
}

#[test]
fn serialized_twin_reads_what_a_client_wrote() {
    let example = |name: &str| tensorflow::Example {
        features: Some(tensorflow::Features {
            feature: BTreeMap::from([(
                name.into(),
                tensorflow::Feature {
                    kind: Some(tensorflow::feature::Kind::FloatList(tensorflow::FloatList {
                        value: vec![1.0],
                    })),
                },
            )]),
        }),
    };
    let request = serving::ClassificationRequest {
        model_spec: Some(serving::ModelSpec { name: "m".into(), ..Default::default() }),
        input: Some(serving::Input {
            kind: Some(serving::input::Kind::ExampleListWithContext(
                serving::ExampleListWithContext {
                    examples: vec![example("x"), example("y")],
                    context: Some(example("c")),
                },
            )),
        }),
    };
    let wire = Bytes::from(request.encode_to_vec());
    let twin = serving::SerializedClassificationRequest::decode(wire.clone()).unwrap();
    let Some(serving::serialized_input::Kind::ExampleListWithContext(list)) =
        twin.input.as_ref().and_then(|input| input.kind.as_ref())
    else {
        panic!("wrong kind: {twin:?}");
    };
    assert_eq!(list.examples.len(), 2);
    assert_eq!(list.examples[1], example("y").encode_to_vec());
    assert_eq!(list.context, example("c").encode_to_vec());
    assert_eq!(twin.encode_to_vec(), wire);

    let regression = serving::SerializedRegressionRequest::decode(wire).unwrap();
    assert_eq!(regression.input, twin.input);
}

#[test]
fn payloads_are_views_of_the_received_buffer() {
    let tensor = tensorflow::TensorProto {
        tensor_content: Bytes::from(vec![7; 64]),
        string_val: vec![Bytes::from_static(b"some string")],
        ..Default::default()
    };
    let wire = Bytes::from(tensor.encode_to_vec());
    let decoded = tensorflow::TensorProto::decode(wire.clone()).unwrap();
    let range = wire.as_ptr_range();
    assert!(range.contains(&decoded.tensor_content.as_ptr()));
    assert!(range.contains(&decoded.string_val[0].as_ptr()));
}

#[test]
fn saved_model() {
    let info = tensorflow::TensorInfo {
        encoding: Some(tensorflow::tensor_info::Encoding::Name("x:0".into())),
        dtype: 1,
        tensor_shape: Some(shape(&[-1])),
    };
    let info_wire = [
        long(1, "x:0"),
        int(2, 1),
        // -1 as an unsigned number of 64 bits
        long(3, long(2, int(1, u64::MAX))),
    ];
    let signature = tensorflow::SignatureDef {
        inputs: BTreeMap::from([("x".into(), info)]),
        method_name: "p".into(),
        ..Default::default()
    };
    let signature_wire =
        [long(1, [long(1, "x"), long(2, info_wire.concat())].concat()), long(3, "p")];

    let attr = tensorflow::AttrValue {
        value: Some(tensorflow::attr_value::Value::Type(tensorflow::DataType::DtFloat.into())),
    };
    let node = tensorflow::NodeDef {
        name: "x".into(),
        op: "Placeholder".into(),
        input: vec!["^y".into()],
        attr: BTreeMap::from([("dtype".into(), attr)]),
        ..Default::default()
    };
    let node_wire = [
        long(1, "x"),
        long(2, "Placeholder"),
        long(3, "^y"),
        long(5, [long(1, "dtype"), long(2, int(6, 1))].concat()),
    ];

    let model = tensorflow::SavedModel {
        saved_model_schema_version: 1,
        meta_graphs: vec![tensorflow::MetaGraphDef {
            meta_info_def: Some(tensorflow::meta_graph_def::MetaInfoDef {
                tags: vec!["serve".into()],
                ..Default::default()
            }),
            graph_def: Some(tensorflow::GraphDef { node: vec![node], ..Default::default() }),
            signature_def: BTreeMap::from([("s".into(), signature)]),
            ..Default::default()
        }],
    };
    let meta_graph = [
        long(1, long(4, "serve")),
        long(2, long(1, node_wire.concat())),
        long(5, [long(1, "s"), long(2, signature_wire.concat())].concat()),
    ];
    assert_wire(&model, &[int(1, 1), long(2, meta_graph.concat())]);
}

#[test]
fn bundle_entry_has_a_fixed_width_checksum() {
    let entry = tensorflow::BundleEntryProto {
        dtype: 1,
        shard_id: 1,
        offset: 2,
        size: 4,
        crc32c: 0x0403_0201,
        ..Default::default()
    };
    let crc = vec![6 << 3 | 5, 1, 2, 3, 4];
    assert_wire(&entry, &[int(1, 1), int(3, 1), int(4, 2), int(5, 4), crc]);
}

#[test]
fn prediction_log() {
    let log = serving::PredictionLog {
        log_metadata: None,
        log_type: Some(serving::prediction_log::LogType::PredictLog(serving::PredictLog {
            request: Some(serving::PredictRequest::default()),
            response: None,
        })),
    };
    assert_wire(&log, &[long(6, long(1, ""))]);
}

#[test]
fn onnx_scalar_attributes_are_written_even_if_zero() {
    let attribute = onnx::AttributeProto {
        name: "axis".into(),
        r#type: onnx::attribute_proto::AttributeType::Int.into(),
        i: Some(0),
        ..Default::default()
    };
    assert_wire(&attribute, &[long(1, "axis"), int(3, 0), int(20, 2)]);
}

/// Sizes are written one by one, as ONNX's own schema has it; rten reads no other form.
#[test]
fn onnx_external_tensor() {
    let tensor = onnx::TensorProto {
        dims: vec![2, 3],
        data_type: onnx::tensor_proto::DataType::Float.into(),
        name: "w".into(),
        external_data: vec![onnx::StringStringEntryProto {
            key: "location".into(),
            value: "f".into(),
        }],
        data_location: onnx::tensor_proto::DataLocation::External.into(),
        ..Default::default()
    };
    assert_wire(
        &tensor,
        &[
            int(1, 2),
            int(1, 3),
            int(2, 1),
            long(8, "w"),
            long(13, [long(1, "location"), long(2, "f")].concat()),
            int(14, 1),
        ],
    );
}

#[test]
fn onnx_model() {
    let model = onnx::ModelProto {
        ir_version: 10,
        opset_import: vec![onnx::OperatorSetIdProto { domain: String::new(), version: 21 }],
        graph: Some(onnx::GraphProto {
            node: vec![onnx::NodeProto {
                input: vec!["x".into()],
                output: vec!["y".into()],
                op_type: "Relu".into(),
                ..Default::default()
            }],
            name: "g".into(),
            input: vec![onnx::ValueInfoProto {
                name: "x".into(),
                r#type: Some(onnx::TypeProto {
                    value: Some(onnx::type_proto::Value::TensorType(onnx::type_proto::Tensor {
                        elem_type: 1,
                        shape: None,
                    })),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let node = [long(1, "x"), long(2, "y"), long(4, "Relu")].concat();
    let input = [long(1, "x"), long(2, long(1, int(1, 1)))].concat();
    let graph = [long(1, node), long(2, "g"), long(11, input)].concat();
    assert_wire(&model, &[int(1, 10), long(7, graph), long(8, int(2, 21))]);
}
