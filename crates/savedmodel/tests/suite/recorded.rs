//! Models that TensorFlow wrote: the original's own test models, the recorded ones, the demo.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{self, lines};
use proptest::prelude::*;
use serde_json::Value as Json;
use tempfile::TempDir;
use vesta_model::{Code, DType, Encoding, PartialShape, Status, Tensor};
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{DataType, TensorProto, TensorShapeProto};
use vesta_savedmodel::{FrozenGraph, SavedModel, tensor_from_proto};

/// The shared test data; on a person's machine its absence is told and skips the test.
fn shared(below: &str) -> Option<PathBuf> {
    let root = std::env::var_os("VESTA_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = root.join(below);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

fn open(dir: &Path) -> Result<SavedModel, Status> {
    SavedModel::open(dir, &["serve".to_owned()])
}

fn half_plus_two() -> Option<PathBuf> {
    shared("tfs-testdata/saved_model_half_plus_two_cpu/00000123")
}

fn half_plus_two_tf2() -> Option<PathBuf> {
    shared("tfs-testdata/saved_model_half_plus_two_tf2_cpu/00000123")
}

/// The values of a float constant.
fn floats(frozen: &FrozenGraph, name: &str) -> Vec<f32> {
    let node = frozen.nodes.iter().find(|node| node.name == name).unwrap();
    match &node.attr["value"].value {
        Some(Value::Tensor(tensor)) => tensor_from_proto(tensor, 1024).unwrap().to_vec().unwrap(),
        other => panic!("{name} is {other:?}"),
    }
}

/// A copy of a model that a test may damage.
fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    fs::create_dir(to.path().join("variables")).unwrap();
    for folder in ["", "variables"] {
        for entry in fs::read_dir(from.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.path().join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    to
}

#[test]
fn tf1_half_plus_two_freezes_with_interior_feeds() {
    let Some(dir) = half_plus_two() else { return };
    let model = open(&dir).unwrap();
    let frozen = model.freeze("serving_default").unwrap();
    assert_eq!(
        lines(&frozen.nodes),
        ["a Const", "Mul Mul a:0 x:0", "b Const", "Add Add Mul:0 b:0",]
    );
    assert_eq!((floats(&frozen, "a"), floats(&frozen, "b")), (vec![0.5], vec![2.0]));
    assert_eq!(frozen.feeds[0].tensor, "x:0");
    assert_eq!(frozen.feeds[0].shape, PartialShape::Ranked(vec![None, Some(1)]));
    assert_eq!(frozen.fetches, ["Add:0"]);

    let parsed = model.freeze("regress_x_to_y2").unwrap();
    assert_eq!(floats(&parsed, "c"), [3.0]);
    assert_eq!(parsed.feeds[0].tensor, "tf_example:0");
    assert_eq!(model.operators("regress_x_to_y2").unwrap()["ParseExample"], 1);
    assert!(!model.operators("serving_default").unwrap().contains_key("ParseExample"));
}

#[test]
fn tf2_half_plus_two_freezes_through_its_functions() {
    let Some(dir) = half_plus_two_tf2() else { return };
    let model = open(&dir).unwrap();
    let frozen = model.freeze("serving_default").unwrap();
    assert_eq!((floats(&frozen, "a"), floats(&frozen, "b")), (vec![0.5], vec![2.0]));
    let ops: Vec<&str> = frozen.nodes.iter().map(|node| node.op.as_str()).collect();
    assert_eq!(ops, ["Const", "Mul", "Const", "AddV2"]);
    let x = &model.description().signatures["serving_default"].inputs[0];
    assert_eq!(x.default.as_ref().unwrap().to_vec::<f32>(), Some(vec![0.0]));
    // Outputs of an operator with lists of outputs are counted by its definition.
    let parsed = model.freeze("regress_x_to_y").unwrap();
    let mul = parsed.nodes.iter().find(|node| node.op == "Mul").unwrap();
    assert!(mul.input.iter().any(|input| input.ends_with("ParseExampleV2:0")), "{mul:?}");
}

#[test]
fn signatures_share_the_bytes_of_their_variables() {
    let Some(dir) = half_plus_two_tf2() else { return };
    let model = open(&dir).unwrap();
    let content = |signature: &str| {
        let frozen = model.freeze(signature).unwrap();
        let node = frozen.nodes.iter().find(|node| node.name == "a").cloned().unwrap();
        match &node.attr["value"].value {
            Some(Value::Tensor(tensor)) => tensor.tensor_content.clone(),
            _ => unreachable!("a constant"),
        }
    };
    let (one, other) = (content("serving_default"), content("regress_x2_to_y3"));
    assert_eq!(one.as_ptr(), other.as_ptr());
}

#[test]
fn every_signature_freezes_or_says_why_not() {
    let folders = ["tfs-testdata", "tfs-testdata/batching", "golden/models"];
    let mut frozen = 0;
    for folder in folders {
        let Some(folder) = shared(folder) else { return };
        for base in
            fs::read_dir(folder).unwrap().filter_map(|base| fs::read_dir(base.ok()?.path()).ok())
        {
            for version in base.flatten().filter(|version| version.path().is_dir()) {
                frozen += freeze_all(&version.path());
            }
        }
    }
    assert!(frozen > 60, "only {frozen} signatures were seen");
}

/// Freezes all signatures of a model and counts them.
fn freeze_all(dir: &Path) -> usize {
    let place = dir.display().to_string();
    let model = match open(dir) {
        Ok(model) => model,
        Err(error) => {
            // Folders of other formats stand beside.
            assert!(!dir.join("saved_model.pb").exists(), "{place}: {error}");
            return 0;
        }
    };
    for (name, signature) in &model.description().signatures {
        assert!(!model.operators(name).unwrap().is_empty() || !signature.inputs.is_empty());
        match model.freeze(name) {
            Ok(frozen) => {
                assert_eq!(frozen.stateful.is_some(), signature.stateful);
                assert_eq!(signature.stateful, place.contains("counter"), "{place} {name}");
                assert_eq!(frozen.feeds.len(), signature.inputs.len());
                assert_eq!(frozen.fetches.len(), signature.outputs.len());
                check_order(&frozen);
            }
            Err(error) if error.message().contains("conv2d") => {
                // Its initialisation overwrites what was restored by random numbers.
                assert!(place.contains("_mkl"), "{place} {name}: {error}");
                assert_eq!(error.code(), Code::FailedPrecondition);
            }
            Err(error) => {
                assert_eq!(name, "__saved_model_init_op", "{place}: {error}");
                assert_eq!(error.code(), Code::Unimplemented);
            }
        }
    }
    model.description().signatures.len()
}

/// Every input is a feed or the output of an earlier node, and names are unique.
fn check_order(frozen: &FrozenGraph) {
    let mut known = std::collections::HashSet::new();
    let is_feed = |tensor: &str| frozen.feeds.iter().any(|feed| feed.tensor == tensor);
    for node in &frozen.nodes {
        for input in &node.input {
            let (from, _) = input.rsplit_once(':').unwrap();
            assert!(is_feed(input) || known.contains(from), "{input} of {}", node.name);
        }
        assert!(known.insert(node.name.as_str()), "{} occurs twice", node.name);
    }
    for fetch in &frozen.fetches {
        let (from, _) = fetch.rsplit_once(':').unwrap();
        assert!(is_feed(fetch) || known.contains(from), "{fetch}");
    }
}

#[test]
fn counters_are_stateful_and_their_outputs_references() {
    let Some(dir) = shared("tfs-testdata/saved_model_counter/00000123") else { return };
    let model = open(&dir).unwrap();
    let get = &model.description().signatures["get_counter"];
    assert!(get.stateful && get.outputs[0].is_reference);
    assert_eq!(get.outputs[0].dtype, DType::F32);
    assert_eq!(get.outputs[0].encoding, Encoding::Dense("counter:0".to_owned()));
    let reason = model.freeze("incr_counter").unwrap().stateful.unwrap();
    assert!(reason.contains("AssignAdd") && reason.contains("incr_counter_op"), "{reason}");
}

#[test]
fn the_demo_freezes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/models/resnet8/1");
    let model = open(&dir).unwrap();
    let frozen = model.freeze("serving_default").unwrap();
    check_order(&frozen);
    assert_eq!(frozen.nodes.iter().filter(|node| node.op == "Conv2D").count(), 9);
    assert_eq!(
        model.operators("serving_default").unwrap().values().sum::<usize>(),
        frozen.nodes.len()
    );
    assert_eq!(frozen.stateful, None);
}

#[test]
fn tensors_decode_as_tensorflow_does() {
    let Some(path) = shared("contracts/tensorproto-vectors.jsonl") else { return };
    let text = fs::read_to_string(path).unwrap();
    for line in text.lines() {
        let case: Json = serde_json::from_str(line).unwrap();
        let result = tensor_from_proto(&tensor_of(&case), 1 << 16);
        let Ok(tensor) = result else {
            assert_eq!(case["expect"], "ERROR", "{case}: {result:?}");
            continue;
        };
        let want = match &case["expect"] {
            Json::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        let as_float = |value: Json| value.as_f64().map_or(value, Json::from);
        let want: Vec<Json> = want.into_iter().map(as_float).collect();
        assert_eq!(values_of(&tensor), want, "{case}");
    }
}

/// The message that a recorded case describes.
fn tensor_of(case: &Json) -> TensorProto {
    let numbers = |field: &str| case["fields"][field].as_array().cloned().unwrap_or_default();
    let ints = |field: &str| {
        numbers(field).iter().map(|value| value.as_i64().unwrap() as i32).collect::<Vec<_>>()
    };
    let hex = case["fields"]["tensor_content_hex"].as_str().unwrap_or_default();
    let content: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let dims = |sizes: &Vec<Json>| {
        sizes.iter().map(|size| Dim { size: size.as_i64().unwrap(), ..Dim::default() }).collect()
    };
    TensorProto {
        dtype: DataType::from_str_name(case["dtype"].as_str().unwrap()).unwrap() as i32,
        tensor_shape: match &case["shape"] {
            Json::Null => None,
            Json::Array(sizes) => Some(TensorShapeProto { dim: dims(sizes), unknown_rank: false }),
            _ => Some(TensorShapeProto { dim: vec![], unknown_rank: true }),
        },
        tensor_content: content.into(),
        float_val: numbers("float_val").iter().map(|v| v.as_f64().unwrap() as f32).collect(),
        int_val: ints("int_val"),
        half_val: ints("half_val"),
        uint32_val: ints("uint32_val").into_iter().map(|value| value as u32).collect(),
        string_val: numbers("string_val")
            .iter()
            .map(|value| value.as_str().unwrap().to_owned().into())
            .collect(),
        ..TensorProto::default()
    }
}

/// The elements of a tensor as a recorded case writes them.
fn values_of(tensor: &Tensor) -> Vec<Json> {
    let bytes = tensor.bytes();
    let halves = || bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match tensor.dtype() {
        DType::F32 => tensor.to_vec::<f32>().unwrap().into_iter().map(Json::from).collect(),
        DType::U8 => bytes.iter().map(|&value| f64::from(value).into()).collect(),
        DType::U16 => halves().map(|value| f64::from(value).into()).collect(),
        DType::U32 => {
            let values = tensor.to_vec::<u32>().unwrap();
            values.into_iter().map(|value| f64::from(value).into()).collect()
        }
        // The recorded halves are all 1.
        DType::F16 => {
            halves().map(|bits| Json::from(f64::from(u8::from(bits == 0x3c00)))).collect()
        }
        DType::BF16 => {
            halves().map(|bits| Json::from(f64::from(u8::from(bits == 0x3f80)))).collect()
        }
        DType::String => tensor
            .strings()
            .unwrap()
            .iter()
            .map(|text| String::from_utf8(text.to_vec()).unwrap().into())
            .collect(),
        other => panic!("no recorded case is of dtype {other}"),
    }
}

#[test]
fn absent_models_and_tags_are_told_in_the_originals_words() {
    let empty = TempDir::new().unwrap();
    for dir in [empty.path().to_owned(), empty.path().join("none")] {
        let error = open(&dir).unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(
            error.message(),
            format!(
                "Specified file path does not appear to contain a SavedModel bundle (should have a file \
             called `saved_model.pb`)\nSpecified file path: {}",
                dir.display()
            )
        );
    }
    let Some(dir) = half_plus_two() else { return };
    for (tags, shown) in
        [(&["gpu"][..], "{ gpu }"), (&["serve", "gpu"], "{ gpu serve }"), (&[], "{  }")]
    {
        let tags: Vec<String> = tags.iter().map(|&tag| tag.to_owned()).collect();
        let error = SavedModel::open(&dir, &tags).unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(
            error.message(),
            format!(
                "Could not find meta graph def matching supplied tags: {shown}. To inspect available \
             tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
            )
        );
    }
}

#[test]
fn unreadable_files_are_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(from) = half_plus_two() else { return };
    let dir = copy(&from);
    let path = dir.path().join("saved_model.pb");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read(&path).is_err() {
        let error = open(dir.path()).unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied);
        assert_eq!(error.message(), format!("{}; Permission denied", path.display()));
    } else {
        eprintln!("skipped: this user may read everything");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(open(dir.path()).unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn damage_is_data_loss_and_names_the_file() {
    let Some(from) = half_plus_two() else { return };
    let data = "variables/variables.data-00000-of-00001";
    let damage = |file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let dir = copy(&from);
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let error = open(dir.path()).and_then(|model| model.freeze("serving_default")).unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{error}");
        assert!(error.message().contains(&path.display().to_string()), "{error}");
    };
    damage("saved_model.pb", &|bytes| bytes.truncate(bytes.len() / 2));
    damage("variables/variables.index", &|bytes| bytes.truncate(bytes.len() - 1));
    damage("variables/variables.index", &|bytes| bytes[20] ^= 1);
    damage("variables/variables.index", &|bytes| bytes.clear());
    damage(data, &|bytes| bytes.truncate(3));
    damage(data, &|bytes| bytes[0] ^= 1);
}

#[test]
fn missing_variables_are_named() {
    let Some(from) = half_plus_two() else { return };
    let dir = copy(&from);
    fs::remove_dir_all(dir.path().join("variables")).unwrap();
    let error = open(dir.path()).unwrap().freeze("serving_default").unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("variable `a` has no value"), "{error}");
    assert!(error.message().contains("variables.index"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn flipped_bytes_never_panic(
        tf2 in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let dir = if tf2 { half_plus_two_tf2() } else { half_plus_two() };
        let Some(dir) = dir else { return Ok(()) };
        let mut bytes = fs::read(dir.join("saved_model.pb")).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(model) = support::open_bytes(&bytes) {
            for name in model.description().signatures.keys() {
                let _ = model.freeze(name);
                let _ = model.operators(name);
            }
        }
    }
}

#[test]
fn a_file_of_countless_nodes_is_refused_before_it_is_decoded() {
    // Two bytes each.
    let nodes = [0x0a, 0x00].repeat(1_000_001);
    let field = |number: u8, content: Vec<u8>| {
        let mut message = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut message);
        message.extend(content);
        message
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("saved_model.pb"), field(2, field(2, nodes))).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(
        error.message().ends_with("has more than 1000000 nodes; export a smaller graph"),
        "{error}"
    );
}
