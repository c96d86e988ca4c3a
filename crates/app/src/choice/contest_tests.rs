//! Contests of engines that are written down.

use std::sync::Condvar;
use std::sync::atomic::Ordering;

use vesta_model::{DType, PartialShape, Signature, TensorSpec, Version};

use super::*;
use crate::choice::scripted::{ScriptedEngine, doubled, scaled, signature};

use super::super::exactness;
use EngineName::{Embedded, OnnxRuntime, OpenVino, TensorFlow};

const BUDGET: Duration = Duration::from_secs(30);

fn request() -> LoadRequest {
    LoadRequest {
        model: "m".into(),
        version: Version(1),
        artifact: "/m/1".into(),
        tags: vec!["serve".to_owned()],
        threads: 1,
    }
}

fn compete(
    contenders: &[Arc<dyn Contender>],
    all_at_once: bool,
    recorded: Recorded<'_>,
) -> Result<Finding, Status> {
    let turn = Mutex::new(());
    let settings = Settings { budget: BUDGET, all_at_once, exactness, turn: &turn, recorded };
    Contest::new(&request(), settings).hold(contenders)
}

fn contenders(engines: &[ScriptedEngine]) -> Vec<Arc<dyn Contender>> {
    engines.iter().map(|engine| Arc::new(engine.clone()) as _).collect()
}

fn hold_on(engines: &[ScriptedEngine], recorded: Recorded<'_>) -> Result<Finding, Status> {
    compete(&contenders(engines), false, recorded)
}

fn hold(engines: &[ScriptedEngine]) -> Result<Finding, Status> {
    hold_on(engines, &|_| Vec::new())
}

fn off_by_a_thousandth(inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    scaled(inputs, 2.002)
}

fn outcome(finding: &Finding, name: EngineName) -> &Entry {
    finding.entries.iter().find(|entry| entry.name == name).unwrap()
}

#[test]
fn the_fastest_that_agrees_serves() {
    for (embedded_ms, onnx_ms, want) in
        [(50, 9, OnnxRuntime), (10, 9, Embedded), (50, 40, TensorFlow)]
    {
        let finding = hold(&[
            ScriptedEngine::new(OnnxRuntime, onnx_ms, doubled),
            ScriptedEngine::new(TensorFlow, 20, doubled),
            ScriptedEngine::new(Embedded, embedded_ms, doubled),
        ])
        .unwrap();
        assert_eq!((finding.name, &finding.reason), (want, &Reason::Measured));
        assert!(finding.is_lasting() && outcome(&finding, TensorFlow).is_reference);
    }
}

#[test]
fn one_that_disagrees_never_serves_however_fast() {
    let finding = hold(&[
        ScriptedEngine::new(OnnxRuntime, 2, off_by_a_thousandth),
        ScriptedEngine::new(TensorFlow, 20, doubled),
        ScriptedEngine::new(Embedded, 50, doubled),
    ])
    .unwrap();
    assert_eq!(finding.name, TensorFlow);
    let told = outcome(&finding, OnnxRuntime).to_string();
    let want = "onnxruntime==1.0 is out: it disagrees: signature s: output y differs by 1.0e-3";
    assert!(told.starts_with(want), "{told}");
    // Not even the embedded one, against TensorFlow.
    let finding = hold(&[
        ScriptedEngine::new(TensorFlow, 200, doubled),
        ScriptedEngine::new(Embedded, 5, off_by_a_thousandth),
    ])
    .unwrap();
    assert_eq!(finding.name, TensorFlow);
}

#[test]
fn without_tensorflow_the_most_exact_is_the_reference() {
    let finding = hold(&[
        ScriptedEngine::new(OpenVino, 5, off_by_a_thousandth),
        ScriptedEngine::new(Embedded, 50, doubled),
    ])
    .unwrap();
    assert_eq!(finding.name, Embedded);
    assert!(outcome(&finding, Embedded).is_reference);
    let refusing = ScriptedEngine::refusing(Embedded, Status::unimplemented("no Loop"));
    let finding = hold(&[
        refusing,
        ScriptedEngine::new(OpenVino, 5, off_by_a_thousandth),
        ScriptedEngine::new(OnnxRuntime, 9, doubled),
    ])
    .unwrap();
    assert_eq!(finding.name, OnnxRuntime);
}

#[test]
fn an_engine_that_fails_is_out_and_nothing_of_it_is_remembered() {
    let dying = |_: &[Tensor]| Err(Status::unavailable("its process ended"));
    let finding = hold(&[
        ScriptedEngine::new(OnnxRuntime, 1, dying),
        ScriptedEngine::new(TensorFlow, 20, doubled),
        ScriptedEngine::new(Embedded, 50, doubled),
    ])
    .unwrap();
    assert_eq!(finding.name, TensorFlow);
    assert!(!finding.is_lasting());
    // Where the one that finds the cases fails, the next one does.
    let finding = hold(&[
        ScriptedEngine::new(Embedded, 1, dying),
        ScriptedEngine::new(OnnxRuntime, 9, doubled),
        ScriptedEngine::new(TensorFlow, 20, doubled),
    ])
    .unwrap();
    assert_eq!(finding.name, OnnxRuntime);
}

#[test]
fn drawn_inputs_are_no_reason_to_go_without_the_most_exact() {
    let dying = |_: &[Tensor]| Err(Status::unavailable("its process ended"));
    let tensorflow = ScriptedEngine::new(TensorFlow, 20, dying);
    let finding = hold(&[
        ScriptedEngine::new(OnnxRuntime, 9, doubled),
        tensorflow.clone(),
        ScriptedEngine::refusing(Embedded, Status::unimplemented("no Loop")),
    ])
    .unwrap();
    assert_eq!(finding.name, TensorFlow);
    assert!(matches!(&finding.reason, Reason::Unmeasured(why) if why.contains("process ended")));
    // In a process that has not failed.
    assert_eq!(tensorflow.opened.load(Ordering::Relaxed), 2);
    // Where the embedded engine answers, it serves, as it would without measuring.
    let finding = hold(&[tensorflow, ScriptedEngine::new(Embedded, 50, doubled)]).unwrap();
    assert_eq!((finding.name, &finding.reason), (Embedded, &Reason::Only));
}

#[test]
fn short_runs_need_no_contest() {
    let tensorflow = ScriptedEngine::new(TensorFlow, 20, doubled);
    let finding = hold(&[tensorflow.clone(), ScriptedEngine::new(Embedded, 0, doubled)]).unwrap();
    assert_eq!((finding.name, &finding.reason), (Embedded, &Reason::Quick));
    assert_eq!(tensorflow.opened.load(Ordering::Relaxed), 0);
}

#[test]
fn one_engine_alone_is_not_tried() {
    let refusal = Status::unimplemented("no DecodeJpeg");
    let tensorflow = ScriptedEngine::new(TensorFlow, 20, doubled);
    let finding = hold(&[tensorflow.clone(), ScriptedEngine::refusing(Embedded, refusal)]).unwrap();
    assert_eq!((finding.name, &finding.reason), (TensorFlow, &Reason::Only));
    assert_eq!(finding.trial, Duration::ZERO);
    let loaded = tensorflow.loads.unwrap();
    assert_eq!(loaded.runs(), 0);
}

#[test]
fn what_cannot_be_compared_goes_by_no_measure() {
    let strings = Signature::new(
        "s",
        "",
        vec![TensorSpec::dense("text", DType::String).with_shape(PartialShape::Ranked(vec![None]))],
        vec![TensorSpec::dense("y", DType::F32)],
    );
    let stateful = Signature { stateful: true, ..signature(&[None]) };
    for (odd, word) in [(strings, "string"), (stateful, "keeps state")] {
        let onnx = ScriptedEngine::new(OnnxRuntime, 1, doubled).with(odd.clone());
        let refusing = ScriptedEngine::refusing(Embedded, Status::unimplemented("no"));
        let tensorflow = ScriptedEngine::new(TensorFlow, 20, doubled).with(odd);
        let finding = hold(&[onnx.clone(), tensorflow.clone(), refusing]).unwrap();
        assert_eq!(finding.name, TensorFlow);
        assert!(matches!(&finding.reason, Reason::Unmeasured(why) if why.contains(word)));
        assert_eq!(onnx.opened.load(Ordering::Relaxed), 0);
        assert_eq!(tensorflow.loads.unwrap().runs(), 0);
    }
}

#[test]
fn recorded_requests_come_before_drawn_ones() {
    let recorded = |session: &dyn Session| {
        let x = Tensor::of(vesta_model::Shape::vector(7), &[1f32; 7]).unwrap();
        let request = RunRequest {
            signature: session.description().signatures.keys().next().unwrap().clone(),
            inputs: vec![vesta_model::InputLayout::of(&x)],
            outputs: vec![0],
        };
        vec![(request, vec![x])]
    };
    // Wrong for lists of seven alone.
    let wrong = |inputs: &[Tensor]| {
        if inputs[0].shape().elements() == 7 { scaled(inputs, 3.0) } else { doubled(inputs) }
    };
    let engines =
        [ScriptedEngine::new(TensorFlow, 20, doubled), ScriptedEngine::new(Embedded, 5, wrong)];
    assert_eq!(hold_on(&engines, &recorded).unwrap().name, TensorFlow);
    assert_eq!(hold(&engines).unwrap().name, Embedded);
}

#[test]
fn an_answer_where_the_reference_refuses_is_a_difference() {
    let refusing = |_: &[Tensor]| Err(Status::invalid_argument("out of range"));
    let finding = hold(&[
        ScriptedEngine::new(TensorFlow, 20, refusing),
        ScriptedEngine::new(Embedded, 5, doubled),
    ])
    .unwrap();
    assert_eq!(finding.name, TensorFlow);
}

#[test]
fn a_broken_model_is_told_by_the_first_and_a_refused_one_by_the_most_exact() {
    let tensorflow = ScriptedEngine::new(TensorFlow, 20, doubled);
    let broken = ScriptedEngine::refusing(Embedded, Status::not_found("no saved_model.pb"));
    let status = hold(&[tensorflow.clone(), broken]).err().unwrap();
    assert_eq!(status.message(), "no saved_model.pb");
    assert_eq!(tensorflow.opened.load(Ordering::Relaxed), 0);

    let refuse =
        |name, text: &str| ScriptedEngine::refusing(name, Status::unimplemented(text.to_owned()));
    let all = [refuse(OnnxRuntime, "onnx"), refuse(TensorFlow, "tf"), refuse(Embedded, "embedded")];
    assert_eq!(hold(&all).err().unwrap().message(), "tf");
    assert_eq!(hold(&all[2..]).err().unwrap().message(), "embedded");
}

/// An engine whose load ends when another one's has begun.
struct Waiting(ScriptedEngine, Arc<(Mutex<u32>, Condvar)>);

impl Contender for Waiting {
    fn name(&self) -> EngineName {
        self.0.name()
    }

    fn release(&self) -> &str {
        self.0.release()
    }

    fn open(&self, request: &LoadRequest) -> Result<Box<dyn Opened>, Status> {
        let (begun, changed) = &*self.1;
        let mut count = begun.lock().unwrap();
        *count += 1;
        changed.notify_all();
        let waited = changed.wait_timeout_while(count, BUDGET, |count| *count < 2).unwrap();
        assert!(!waited.1.timed_out(), "no other load began");
        self.0.open(request)
    }
}

fn hold_at_once(engines: &[ScriptedEngine]) -> Result<Finding, Status> {
    compete(&contenders(engines), true, &|_| Vec::new())
}

#[test]
fn loads_that_begin_at_once_change_no_outcome() {
    let refuse = |name| ScriptedEngine::refusing(name, Status::unimplemented("no"));
    let dying = |_: &[Tensor]| Err(Status::unavailable("its process ended"));
    let tensorflow = ScriptedEngine::new(TensorFlow, 20, doubled);
    let fields = [
        vec![tensorflow.clone(), ScriptedEngine::new(OnnxRuntime, 9, doubled)],
        vec![
            ScriptedEngine::new(Embedded, 50, doubled),
            ScriptedEngine::new(OnnxRuntime, 2, off_by_a_thousandth),
            tensorflow.clone(),
            ScriptedEngine::new(OpenVino, 9, doubled),
        ],
        vec![refuse(Embedded), refuse(OnnxRuntime), tensorflow.clone()],
        vec![refuse(Embedded), tensorflow.clone(), ScriptedEngine::new(OnnxRuntime, 9, doubled)],
        vec![ScriptedEngine::new(Embedded, 1, dying), refuse(OnnxRuntime), tensorflow.clone()],
        vec![ScriptedEngine::new(Embedded, 0, doubled), tensorflow],
    ];
    for field in fields {
        let (one, other) = (hold(&field).unwrap(), hold_at_once(&field).unwrap());
        let outcome = |finding: &Finding| {
            let mut entries: Vec<String> =
                finding.entries.iter().map(ToString::to_string).collect();
            entries.sort();
            (finding.name, finding.reason.clone(), entries)
        };
        assert_eq!(outcome(&one), outcome(&other));
    }
    let all = [refuse(OnnxRuntime), refuse(TensorFlow), refuse(Embedded)];
    assert_eq!(hold_at_once(&all).err().unwrap().message(), "no");
    let broken = ScriptedEngine::refusing(Embedded, Status::not_found("no saved_model.pb"));
    let status = hold_at_once(&[refuse(TensorFlow), broken]).err().unwrap();
    assert_eq!(status.message(), "no saved_model.pb");
}

/// An engine whose adapter has a fault.
struct Panicking;

impl Contender for Panicking {
    fn name(&self) -> EngineName {
        OpenVino
    }

    fn release(&self) -> &str {
        "1.0"
    }

    fn open(&self, _: &LoadRequest) -> Result<Box<dyn Opened>, Status> {
        panic!("as it loads");
    }
}

#[test]
fn an_adapter_that_panics_is_out_and_the_others_go_on() {
    for all_at_once in [false, true] {
        let contenders: Vec<Arc<dyn Contender>> = vec![
            Arc::new(ScriptedEngine::new(TensorFlow, 20, doubled)),
            Arc::new(ScriptedEngine::new(Embedded, 50, doubled)),
            Arc::new(Panicking),
            Arc::new(ScriptedEngine::new(OnnxRuntime, 9, doubled)),
        ];
        let finding = compete(&contenders, all_at_once, &|_| Vec::new()).unwrap();
        assert_eq!((finding.name, finding.entries.len()), (OnnxRuntime, 4));
        let told = outcome(&finding, OpenVino).to_string();
        assert!(told.contains("is out: the engine's adapter panicked"), "{told}");
    }
}

#[test]
fn an_engine_without_a_chance_is_not_timed_on_and_on() {
    let (slow, fast) = (
        ScriptedEngine::new(TensorFlow, 26, doubled),
        ScriptedEngine::new(OnnxRuntime, 20, doubled),
    );
    let near = ScriptedEngine::new(Embedded, 24, doubled);
    let finding = hold(&[slow.clone(), fast.clone(), near.clone()]).unwrap();
    assert_eq!(finding.name, OnnxRuntime);
    assert!(outcome(&finding, TensorFlow).to_string().contains("26.00 ms (reference)"));
    // Two answers and one run more.
    assert_eq!(slow.loads.unwrap().runs(), 3);
    assert!(fast.loads.unwrap().runs() > 4 && near.loads.unwrap().runs() > 4);
}

#[test]
fn engines_behind_the_first_load_at_once() {
    let begun = Arc::new((Mutex::new(0), Condvar::new()));
    let waiting = |name, cpu_ms| {
        let engine = ScriptedEngine::new(name, cpu_ms, doubled);
        Arc::new(Waiting(engine, Arc::clone(&begun))) as Arc<dyn Contender>
    };
    let contenders: Vec<Arc<dyn Contender>> = vec![
        waiting(TensorFlow, 20),
        Arc::new(ScriptedEngine::new(Embedded, 50, doubled)),
        waiting(OnnxRuntime, 9),
    ];
    let finding = compete(&contenders, false, &|_| Vec::new()).unwrap();
    assert_eq!((finding.name, finding.entries.len()), (OnnxRuntime, 3));
}
