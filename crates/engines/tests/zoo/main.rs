//! Whole networks as `crates/onnx/tests/zoo.py` saves them, on the embedded engine, ONNX Runtime and OpenVINO
//! against TensorFlow's own answers.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod case;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use vesta_engines::{
    EmbeddedEngine, EngineChoice, EngineName, EngineOptions, EngineStore, ONNX_BYTES_MAX, build,
    convert,
};
use vesta_model::{
    Code, Engine, InputLayout, LoadRequest, RunRequest, Session, Signature, Status, Tensor, Version,
};
use vesta_testkit::tensors_close;

use case::{Case, Run};

/// Error allowed: this share of the number itself, or of the largest of its tensor.
const RELATIVE_MAX: f64 = 1e-4;

/// Weights of the largest net that is judged on a second engine: an unoptimised build takes half a
/// minute for each of those beyond. A release build judges all.
const BYTES_MAX: u64 = if cfg!(debug_assertions) { 100 << 20 } else { u64::MAX };
/// The same on a third one.
const BYTES_MAX_THIRD: u64 = if cfg!(debug_assertions) { 20 << 20 } else { u64::MAX };

/// How the names of nets begin that OpenVINO must take; its own table keeps it from others, such as those
/// that are fed int64.
const OPENVINO_TAKES: &[&str] = &[
    "MobileNet",
    "basic_pitch",
    "encoder_exact_gelu",
    "encoder_open_length",
    "keras2_MobileNet",
    "keras2_RegNet",
    "module_encoder",
    "slim_mobilenet",
    "tiny_",
];

/// Nets that are judged at the same time.
const THREADS: usize = 2;

fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("VESTA_ZOO_FIXTURES").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "VESTA_ZOO_FIXTURES is not set");
        eprintln!(
            "skipped: no network is compared with TensorFlow, since VESTA_ZOO_FIXTURES is not set; \
             python crates/onnx/tests/zoo.py FOLDER writes them"
        );
    }
    folder
}

/// The folders of all nets.
fn nets(folder: &Path) -> Vec<PathBuf> {
    let mut nets: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.txt").exists())
        .collect();
    nets.sort();
    nets
}

fn request(artifact: PathBuf) -> LoadRequest {
    LoadRequest {
        model: "net".into(),
        version: Version(1),
        artifact,
        tags: vec!["serve".to_owned()],
        threads: 1,
    }
}

fn call(session: &dyn Session, signature: &Signature, run: &Run) -> Result<Vec<Tensor>, Status> {
    let given: Vec<&Tensor> =
        signature.inputs.iter().map(|spec| &run.inputs[&spec.alias]).collect();
    let layouts = given
        .iter()
        .map(|tensor| InputLayout { shape: tensor.shape().clone(), string_bytes: 0 })
        .collect();
    let mut prepared = session.prepare(&RunRequest {
        signature: signature.name.clone(),
        inputs: layouts,
        outputs: (0..signature.outputs.len()).collect(),
    })?;
    for (index, tensor) in given.iter().enumerate() {
        prepared.input(index).copy_from_slice(tensor.bytes());
    }
    prepared.run(None)
}

/// The largest finite magnitude of a tensor of floats.
fn largest(tensor: &Tensor) -> f64 {
    tensor
        .to_vec::<f32>()
        .unwrap_or_default()
        .iter()
        .fold(0.0, |most: f64, n| if n.is_finite() { most.max(f64::from(n.abs())) } else { most })
}

/// Holds an engine to a net; one that is exact for more nets may take what `embedded` refuses.
fn judge(engine: &dyn Engine, folder: &Path) -> Result<(), String> {
    let case = Case::read(folder);
    let loaded = engine.load(&request(folder.join("model")));
    let is_embedded = engine.identity().name == EmbeddedEngine::NAME;
    if let Some(words) = &case.refused {
        let Err(status) = loaded else {
            let taken = "it was to be refused and is not".to_owned();
            return if is_embedded { Err(taken) } else { Ok(()) };
        };
        // Behind the operators come the words of the embedded engine's advice.
        let operators = words.split(|word| word == "install").next().unwrap_or_default();
        let wanted = if is_embedded { words } else { operators };
        let named = wanted.iter().all(|word| status.message().contains(word.as_str()));
        return if named && status.code() == Code::Unimplemented {
            Ok(())
        } else {
            Err(format!("the refusal does not name {wanted:?}: {status}"))
        };
    }
    let session = loaded.map_err(|status| status.to_string())?;
    assert!(!case.runs.is_empty(), "{} has no run", folder.display());
    for (number, run) in case.runs.iter().enumerate() {
        let signature = session.description().signatures[&run.signature].clone();
        let outputs = call(&*session, &signature, run).map_err(|status| status.to_string())?;
        for (spec, got) in signature.outputs.iter().zip(&outputs) {
            let want = &run.outputs[&spec.alias];
            tensors_close(got, want, RELATIVE_MAX, RELATIVE_MAX * largest(want))
                .map_err(|text| format!("run {number}, {}: {text}", spec.alias))?;
        }
    }
    Ok(())
}

/// Does something with every net on a few threads; gives what was wrong.
fn each(
    nets: &[PathBuf],
    act: impl Fn(&Path) -> Result<(), String> + Sync,
) -> BTreeMap<String, String> {
    let left = Mutex::new(nets.iter());
    let failures = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some(net) = left.lock().unwrap().next() else { return };
                    let begun = Instant::now();
                    let verdict = act(net);
                    eprintln!("{}: {:.1} s", named(net), begun.elapsed().as_secs_f64());
                    if let Err(text) = verdict {
                        failures.lock().unwrap().insert(named(net), text);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

fn named(net: &Path) -> String {
    net.file_name().unwrap().to_string_lossy().into_owned()
}

fn expect_none(failures: &BTreeMap<String, String>, nets: usize) {
    let lines: Vec<String> = failures.iter().map(|(net, text)| format!("{net}: {text}")).collect();
    assert!(failures.is_empty(), "{} of {nets}:\n{}", failures.len(), lines.join("\n"));
}

#[test]
fn every_net_answers_as_tensorflow_does_or_is_refused_by_name() {
    let Some(folder) = fixtures() else { return };
    let nets = nets(&folder);
    assert!(!nets.is_empty(), "no net in {}", folder.display());
    expect_none(&each(&nets, |net| judge(&EmbeddedEngine, net)), nets.len());
}

/// Holds a native engine to the nets of less than `bytes_max` of weights. Where `takes` is given, it may refuse
/// those whose names do not begin so.
fn every_net_answers_alike_on(name: EngineName, bytes_max: u64, takes: Option<&[&str]>) {
    let Some(folder) = fixtures() else { return };
    if let Err(status) = EngineStore::from_env().find(name, None) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{status}");
        eprintln!("skipped: {status}");
        return;
    }
    let choice = EngineChoice::Named { name, version: None };
    let engine = build(&choice, &EngineOptions::default()).unwrap();
    let bytes = |net: &Path| {
        let variables = net.join("model/variables/variables.data-00000-of-00001");
        variables.metadata().map_or(0, |metadata| metadata.len())
    };
    let mut nets = nets(&folder);
    nets.retain(|net| bytes(net) < bytes_max);
    assert!(!nets.is_empty(), "no net in {}", folder.display());
    let judge = |net: &Path| {
        let must_take = takes.is_none_or(|own| own.iter().any(|own| named(net).starts_with(own)));
        match engine.load(&request(net.join("model"))) {
            Err(status) if !must_take && status.code() == Code::Unimplemented => Ok(()),
            _ => judge(&*engine, net),
        }
    };
    expect_none(&each(&nets, judge), nets.len());
}

#[test]
fn every_net_answers_alike_on_onnxruntime_or_is_refused_by_name() {
    every_net_answers_alike_on(EngineName::OnnxRuntime, BYTES_MAX, None);
}

#[test]
fn every_net_answers_alike_on_openvino_or_is_refused_by_name() {
    every_net_answers_alike_on(EngineName::OpenVino, BYTES_MAX_THIRD, Some(OPENVINO_TAKES));
}

/// Python with the `onnx` package.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("VESTA_CLIENT_PYTHON").map(PathBuf::from);
    if python.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "VESTA_CLIENT_PYTHON is not set");
        eprintln!(
            "skipped: nothing is held to ONNX's checker, since VESTA_CLIENT_PYTHON is not set"
        );
    }
    python
}

/// Writes a net's ONNX form, with its weights beside it where there is less room than usual.
fn write_onnx(net: &Path, out: &Path, bytes_max: usize) -> Result<(), String> {
    let tags = ["serve".to_owned()];
    let conversion = convert(&net.join("model"), &tags, Some("serving_default"));
    let conversion = conversion.map_err(|status| status.to_string())?;
    let written = conversion.write(out, bytes_max).map_err(|status| status.to_string())?;
    if written.weights.is_some() != (bytes_max < ONNX_BYTES_MAX) || !out.is_file() {
        return Err(format!("{written:?}"));
    }
    Ok(())
}

#[test]
fn what_is_converted_passes_the_checker_of_onnx() {
    let (Some(folder), Some(python)) = (fixtures(), python()) else { return };
    let nets: Vec<PathBuf> =
        nets(&folder).into_iter().filter(|net| Case::read(net).refused.is_none()).collect();
    let out = tempfile::tempdir().unwrap();
    let write = |net: &Path| {
        write_onnx(net, &out.path().join(format!("{}.onnx", named(net))), ONNX_BYTES_MAX)
    };
    expect_none(&each(&nets, write), nets.len());
    // The largest file that is allowed is too large to be made here: a smaller bound stands for it.
    let small = nets.iter().find(|net| named(net).starts_with("tiny_resnet8")).unwrap();
    write_onnx(small, &out.path().join("weights_beside.onnx"), 100_000).unwrap();
    let too_small = write_onnx(small, &out.path().join("too_small"), 1000).unwrap_err();
    assert!(too_small.contains("convert a smaller model"), "{too_small}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/tests/check.py");
    let checked = std::process::Command::new(python).arg(script).arg(out.path()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
