//! The texts of Predict, and what its bytes hold.

use prost::Message as _;
use vesta_model::{Shape, TensorSpec};
use vesta_protos::tensorflow::{DataType, TensorProto};

use super::*;

fn signature(inputs: &[(&str, bool)], outputs: &[&str]) -> Signature {
    let default = Tensor::of(Shape::scalar(), &[7.0f32]).unwrap();
    let inputs = inputs
        .iter()
        .map(|&(alias, has_default)| {
            let mut spec = TensorSpec::dense(alias, DType::F32);
            spec.default = has_default.then(|| default.clone());
            spec
        })
        .collect();
    let outputs = outputs.iter().map(|alias| TensorSpec::dense(alias, DType::F32)).collect();
    Signature::new("s", "", inputs, outputs)
}

fn request(inputs: &[(&str, DataType)]) -> PredictWire {
    let tensor = |dtype: DataType| TensorProto { dtype: dtype.into(), ..Default::default() };
    let request = proto::PredictRequest {
        inputs: inputs.iter().map(|&(alias, dtype)| (alias.to_owned(), tensor(dtype))).collect(),
        ..Default::default()
    };
    PredictWire::decode(Bytes::from(request.encode_to_vec())).unwrap()
}

fn refusal(signature: &Signature, inputs: &[(&str, DataType)]) -> String {
    let read = read_inputs(signature, &request(inputs).inputs, &Budget::new(1 << 20));
    read.unwrap_err().message().to_owned()
}

const FLOAT: DataType = DataType::DtFloat;

#[test]
fn wrong_numbers_of_inputs_are_told() {
    let two = signature(&[("a", false), ("b", false)], &[]);
    assert_eq!(
        refusal(&two, &[("a", FLOAT)]),
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. \
         Missing but required: {b}."
    );
    assert_eq!(
        refusal(&two, &[("a", FLOAT), ("d", FLOAT), ("c", FLOAT)]),
        "input size does not match signature: 3!=2 len({a,c,d}) != len({a,b}). Sent extra: {c,d}. \
         Missing but required: {b}."
    );
}

#[test]
fn wrong_names_of_inputs_are_told() {
    assert_eq!(
        refusal(&signature(&[("x", false)], &[]), &[("z", FLOAT)]),
        "Signature input alias: x(feed name: x:0) not found in request and no default value \
         provided. Inputs expected to be in the request {z}, or default input alias set: "
    );
    assert_eq!(
        refusal(&signature(&[("x", false), ("y", true)], &[]), &[("y", FLOAT)]),
        "Signature input alias: x(feed name: x:0) not found in request and no default value \
         provided. Inputs expected to be in the request {y}, or default input alias set: y"
    );
    assert_eq!(
        refusal(&signature(&[("x", true), ("y", true)], &[]), &[("x", FLOAT), ("z", FLOAT)]),
        "Inputs contains invalid name. Used request inputs: x, request input: x,z"
    );
}

#[test]
fn defaults_fill_in() {
    let signature = signature(&[("x", true), ("y", true)], &[]);
    let read = read_inputs(&signature, &request(&[("y", FLOAT)]).inputs, &Budget::new(1000));
    let values: Vec<f32> =
        read.unwrap().iter().map(|tensor| tensor.to_vec::<f32>().unwrap()[0]).collect();
    assert_eq!(values, [7.0, 0.0]);
}

#[test]
fn unreadable_tensors_and_wrong_dtypes_are_told() {
    let mut one = signature(&[("x", false)], &[]);
    assert_eq!(refusal(&one, &[("x", DataType::DtInvalid)]), "tensor parsing error: x");
    assert_eq!(
        refusal(&one, &[("x", DataType::DtDouble)]),
        "Expects arg[0] to be float but double is provided"
    );
    one.inputs[0].dtype = DType::String;
    assert_eq!(refusal(&one, &[("x", FLOAT)]), "Expects arg[0] to be string but float is provided");
    // Arguments are counted by the graph's names, not by the aliases.
    let mut two = signature(&[("a", false), ("b", false)], &[]);
    two.inputs[0].encoding = Encoding::Dense("z:0".into());
    assert_eq!(
        refusal(&two, &[("a", DataType::DtInt64), ("b", FLOAT)]),
        "Expects arg[1] to be float but int64 is provided"
    );
}

#[test]
fn filters_are_checked() {
    let signature = signature(&[], &["mat", "sum", "twice"]);
    let filter = |names: &[&str]| {
        filter_outputs(&signature, &names.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|status| status.message().to_owned())
    };
    assert_eq!(filter(&[]), Ok(vec![0, 1, 2]));
    assert_eq!(filter(&["twice", "mat"]), Ok(vec![2, 0]));
    assert_eq!(
        filter(&["sum", "nope"]),
        Err("output tensor alias not found in signature: nope Outputs expected to be in the set \
             {mat,sum,twice}."
            .to_owned())
    );
    assert_eq!(filter(&["sum", "sum"]), Err("duplicate output tensor alias: sum".to_owned()));
}

#[test]
fn requests_cannot_name_without_end() {
    let mut bytes = Vec::new();
    for index in 0..NAMES_MAX + 1 {
        let entry = proto::PredictRequest {
            inputs: [(index.to_string(), TensorProto::default())].into(),
            ..Default::default()
        };
        bytes.extend(entry.encode_to_vec());
    }
    let wire = PredictWire::decode(Bytes::from(bytes)).unwrap();
    assert!(wire.too_many);
    assert_eq!(wire.inputs.len(), NAMES_MAX);
    let filter = proto::PredictRequest {
        output_filter: vec!["x".into(); NAMES_MAX + 1],
        ..Default::default()
    };
    assert!(PredictWire::decode(Bytes::from(filter.encode_to_vec())).unwrap().too_many);
}

#[test]
fn the_answer_is_the_message() {
    let y = Tensor::of(Shape::vector(2), &[1.5f32, 2.5]).unwrap();
    let text = {
        let mut strings = vesta_model::StringsBuilder::new();
        strings.push(b"abc");
        Tensor::of_strings(Shape::scalar(), &strings).unwrap()
    };
    let spec = proto::ModelSpec { name: "m".into(), ..Default::default() };
    let budget = Budget::new(1 << 20);
    let outputs = [("", &text), ("y", &y)];
    let reply = encode(RESPONSE, &outputs, &spec, TensorForm::Fields, &budget).unwrap();
    assert!(budget.bytes_taken() > 0);
    let (bytes, permit) = reply.framed();
    assert_eq!(permit.map(|permit| permit.bytes()), Some(bytes.len() - 5));
    let message = proto::PredictResponse::decode(&bytes[5..]).unwrap();
    assert_eq!(
        message.encode_to_vec().len(),
        bytes.len() - 5 - 2,
        "an empty key is written all the same"
    );
    assert_eq!(message.outputs["y"].float_val, [1.5, 2.5]);
    assert_eq!(message.outputs[""].string_val, ["abc"]);
    assert_eq!(message.model_spec, Some(spec.clone()));
    let refused =
        encode(RESPONSE, &outputs, &spec, TensorForm::Fields, &Budget::new(10)).unwrap_err();
    assert_eq!(refused.code(), vesta_model::Code::ResourceExhausted);
}
