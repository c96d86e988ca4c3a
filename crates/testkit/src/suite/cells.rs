//! The cells: what every engine must do. Each takes the engine and the one model that it needs.

use std::sync::Arc;
use std::time::Instant;

use vesta_model::{
    Code, DType, Engine, InputLayout, LoadRequest, RunRequest, Session, Shape, Signature, Status,
    StringsBuilder, Tensor,
};

use super::{Given, SuiteModel, SuiteModels, infer, run_request};
use crate::tensors_close;

type Pick = fn(&SuiteModels) -> &Given;
type Test = fn(&dyn Engine, &SuiteModel) -> Result<(), String>;

const HALF: Pick = |models| &models.half_plus_two;
const SUM: Pick = |models| &models.sum_and_difference;
const COUNTER: Pick = |models| &models.counter;

/// Every cell, in the order tried.
pub(super) const ALL: &[(&str, Pick, Test)] = &[
    ("description", HALF, description),
    ("values", HALF, values),
    ("special values", HALF, special_values),
    ("batch sizes", HALF, batch_sizes),
    ("empty batch", HALF, empty_batch),
    ("inputs in memory of the caller", HALF, inputs_in_foreign_memory),
    ("several inputs and outputs", SUM, several_inputs_and_outputs),
    ("subset and order of outputs", SUM, subset_and_order),
    ("strings", |models| &models.string_identity, strings),
    ("unknown signature", HALF, unknown_signature),
    ("wrong number of inputs", HALF, wrong_number_of_inputs),
    ("unknown output", HALF, unknown_output),
    ("passed deadline", HALF, passed_deadline),
    ("deadline during a run", |models| &models.slow_half_plus_two, deadline_during_run),
    ("concurrent runs keep their rows", HALF, concurrent_runs),
    ("runs that are dropped", HALF, dropped_runs),
    ("outputs outlive their session", HALF, outputs_outlive_session),
    ("a run outlives its session", HALF, run_outlives_session),
    ("stateful runs happen once", COUNTER, stateful_once),
    ("sessions do not share state", COUNTER, sessions_are_apart),
    ("damaged files are refused", |models| &models.damaged, damaged),
    ("memory of runs returns", HALF, memory_of_runs_returns),
    ("memory of sessions returns", HALF, memory_of_sessions_returns),
];

fn text(status: Status) -> String {
    match status.cause() {
        Some(cause) => format!("{status} ({cause})"),
        None => status.to_string(),
    }
}

/// A model beyond an engine is refused when it is loaded, with a reason.
pub(super) fn refused(engine: &dyn Engine, load: &LoadRequest) -> Result<(), String> {
    match engine.load(load) {
        Err(status) if status.code() == Code::Unimplemented && !status.message().is_empty() => {
            Ok(())
        }
        Err(status) => Err(format!("refused as {}", text(status))),
        Ok(_) => Err("it was loaded".to_owned()),
    }
}

fn load(engine: &dyn Engine, model: &SuiteModel) -> Result<Arc<dyn Session>, String> {
    engine.load(&model.load).map_err(|status| format!("load: {}", text(status)))
}

fn ensure(is: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is { Ok(()) } else { Err(what()) }
}

fn expect_code(outcome: Result<Vec<Tensor>, Status>, codes: &[Code]) -> Result<(), String> {
    match outcome {
        Err(status) if codes.contains(&status.code()) => {
            ensure(!status.message().is_empty(), || "an error without a text".to_owned())
        }
        Err(status) => Err(format!("want {codes:?}, got {}", text(status))),
        Ok(outputs) => Err(format!("want {codes:?}, got {outputs:?}")),
    }
}

/// A batch of `rows` whose elements count up from `first`, in quarters so that nothing rounds.
fn batch(model: &SuiteModel, rows: usize, first: f32) -> Result<Tensor, String> {
    let mut dims = vec![rows];
    dims.extend(&model.row_shape);
    let shape = Shape::new(dims).map_err(text)?;
    let values: Vec<f32> = (0..shape.elements()).map(|i| first + i as f32 / 4.0).collect();
    Tensor::of(shape, &values).map_err(text)
}

fn halved(x: &Tensor) -> Result<Tensor, String> {
    let values = x.to_vec::<f32>().ok_or("x must be float")?;
    let halved: Vec<f32> = values.iter().map(|x| x / 2.0 + 2.0).collect();
    Tensor::of(x.shape().clone(), &halved).map_err(text)
}

/// Runs half_plus_two on `x` and compares.
fn half(session: &dyn Session, model: &SuiteModel, x: &Tensor) -> Result<(), String> {
    half_is(session, model, x, &halved(x)?)
}

/// The same, for who runs it on one tensor many times.
fn half_is(
    session: &dyn Session,
    model: &SuiteModel,
    x: &Tensor,
    want: &Tensor,
) -> Result<(), String> {
    let outputs =
        infer(session, &model.signature, std::slice::from_ref(x), &[0], None).map_err(text)?;
    let [y] = outputs.as_slice() else { return Err(format!("want one output, got {outputs:?}")) };
    tensors_close(y, want, 1e-6, 1e-6)
}

fn signature(session: &dyn Session, model: &SuiteModel) -> Result<Arc<Signature>, String> {
    let found = session.description().signatures.get(&model.signature);
    found.cloned().ok_or_else(|| format!("no signature `{}` in the description", model.signature))
}

fn description(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    ensure(!engine.identity().name.is_empty(), || "the engine has no name".to_owned())?;
    let session = load(engine, model)?;
    let signature = signature(&*session, model)?;
    ensure(signature.inputs.len() == 1 && signature.outputs.len() == 1, || {
        format!("want one input and one output, got {signature:?}")
    })?;
    let dtypes = (signature.inputs[0].dtype, signature.outputs[0].dtype);
    ensure(dtypes == (DType::F32, DType::F32), || format!("want float, got {dtypes:?}"))?;
    ensure(!signature.stateful, || "it is no stateful model".to_owned())
}

fn values(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    half(&*load(engine, model)?, model, &batch(model, 3, -1.0)?)
}

fn special_values(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let row: usize = model.row_shape.iter().product();
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
    let values: Vec<f32> = special.iter().flat_map(|&v| std::iter::repeat_n(v, row)).collect();
    let shape = batch(model, special.len(), 0.0)?.shape().clone();
    half(&*session, model, &Tensor::of(shape, &values).map_err(text)?)
}

fn batch_sizes(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    for rows in [1, 2, 7, 1000, 3, 70_000, 1] {
        half(&*session, model, &batch(model, rows, 8.0)?)
            .map_err(|why| format!("{rows} rows: {why}"))?;
    }
    Ok(())
}

fn empty_batch(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 0, 0.0)?;
    match infer(&*session, &model.signature, std::slice::from_ref(&x), &[0], None) {
        Ok(outputs) => {
            let empty = outputs.len() == 1 && outputs[0].shape().elements() == 0;
            ensure(empty, || format!("no rows gave {outputs:?}"))?;
        }
        Err(status) => ensure(status.code() == Code::InvalidArgument, || text(status))?,
    }
    half(&*session, model, &batch(model, 2, 0.0)?).map_err(|why| format!("afterwards: {why}"))
}

fn inputs_in_foreign_memory(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 5, 2.0)?;
    let request = run_request(&model.signature, std::slice::from_ref(&x), &[0]);
    let outputs = session.run_over(&request, vec![x.clone()], None).map_err(text)?;
    let y = outputs.first().ok_or("no output")?;
    tensors_close(y, &halved(&x)?, 1e-6, 1e-6)?;
    let none = session.run_over(&request, Vec::new(), None);
    expect_code(none, &[Code::InvalidArgument])?;
    Ok(())
}

/// Inputs `a` and `b` in the signature's order, and both outputs by alias.
fn sums(session: &dyn Session, model: &SuiteModel) -> Result<Sums, String> {
    let signature = signature(session, model)?;
    let (a, b) = (batch(model, 4, 10.0)?, batch(model, 4, 1.0)?);
    let inputs = signature
        .inputs
        .iter()
        .map(|spec| match spec.alias.as_str() {
            "a" => Ok(a.clone()),
            "b" => Ok(b.clone()),
            other => Err(format!("an input called {other}")),
        })
        .collect::<Result<_, String>>()?;
    let both = |f: fn(f32, f32) -> f32| {
        let a = a.to_vec::<f32>().unwrap_or_default();
        let b = b.to_vec::<f32>().unwrap_or_default();
        let values: Vec<f32> = a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect();
        Tensor::of(batch(model, 4, 0.0)?.shape().clone(), &values).map_err(text)
    };
    let position =
        |alias: &str| signature.output(alias).ok_or_else(|| format!("no output called {alias}"));
    Ok(Sums {
        inputs,
        sum: (position("sum")?, both(|a, b| a + b)?),
        difference: (position("difference")?, both(|a, b| a - b)?),
    })
}

struct Sums {
    inputs: Vec<Tensor>,
    sum: (usize, Tensor),
    difference: (usize, Tensor),
}

fn several_inputs_and_outputs(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let sums = sums(&*session, model)?;
    let wanted = [sums.difference.0, sums.sum.0];
    let outputs = infer(&*session, &model.signature, &sums.inputs, &wanted, None).map_err(text)?;
    ensure(outputs.len() == 2, || format!("want two outputs, got {outputs:?}"))?;
    tensors_close(&outputs[0], &sums.difference.1, 1e-6, 0.0)?;
    tensors_close(&outputs[1], &sums.sum.1, 1e-6, 0.0)
}

fn subset_and_order(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let sums = sums(&*session, model)?;
    let (sum, difference) = (&sums.sum, &sums.difference);
    for wanted in [vec![sum, difference], vec![difference, sum], vec![sum], vec![difference]] {
        let positions: Vec<usize> = wanted.iter().map(|output| output.0).collect();
        let outputs =
            infer(&*session, &model.signature, &sums.inputs, &positions, None).map_err(text)?;
        ensure(outputs.len() == wanted.len(), || format!("{positions:?} gave {outputs:?}"))?;
        for (output, want) in outputs.iter().zip(wanted) {
            tensors_close(output, &want.1, 1e-6, 0.0)
                .map_err(|why| format!("outputs {positions:?}: {why}"))?;
        }
    }
    Ok(())
}

fn strings(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let long = vec![b'x'; 1 << 20];
    let texts: [&[u8]; 5] = [b"plain", b"", &[0xff, 0xfe, 0x00, 0x80], b"a\0b", &long];
    let row: usize = model.row_shape.iter().product();
    for texts in [&texts[..], &texts[..1], &texts[1..2]] {
        let mut builder = StringsBuilder::new();
        for text in texts {
            (0..row).for_each(|_| builder.push(text));
        }
        let shape = batch(model, texts.len(), 0.0)?.shape().clone();
        let input = Tensor::of_strings(shape, &builder).map_err(text)?;
        let outputs = infer(&*session, &model.signature, std::slice::from_ref(&input), &[0], None)
            .map_err(text)?;
        let output = outputs.first().ok_or("no output")?;
        tensors_close(output, &input, 0.0, 0.0)?;
    }
    Ok(())
}

fn unknown_signature(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 1, 0.0)?;
    expect_code(infer(&*session, "no such signature", &[x], &[0], None), &[Code::NotFound])
}

fn wrong_number_of_inputs(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 1, 0.0)?;
    for inputs in [vec![], vec![x.clone(), x.clone()]] {
        let request = run_request(&model.signature, &inputs, &[0]);
        let outcome = session.prepare(&request).map(|_| Vec::new());
        expect_code(outcome, &[Code::InvalidArgument])?;
    }
    half(&*session, model, &x)
}

fn unknown_output(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let layout = InputLayout { shape: batch(model, 1, 0.0)?.shape().clone(), string_bytes: 0 };
    for index in [1, usize::MAX] {
        let request = RunRequest {
            signature: model.signature.clone(),
            inputs: vec![layout.clone()],
            outputs: vec![0, index],
        };
        let outcome = session.prepare(&request).map(|_| Vec::new());
        expect_code(outcome, &[Code::InvalidArgument])?;
    }
    Ok(())
}

fn passed_deadline(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 1, 0.0)?;
    let past = Some(Instant::now());
    let outcome = infer(&*session, &model.signature, std::slice::from_ref(&x), &[0], past);
    expect_code(outcome, &[Code::DeadlineExceeded])?;
    half(&*session, model, &x).map_err(|why| format!("afterwards: {why}"))
}

fn deadline_during_run(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 1, 0.0)?;
    // What is slow on one processor is not on another; the first run makes ready, too.
    half(&*session, model, &x)?;
    let begun = Instant::now();
    half(&*session, model, &x)?;
    let deadline = Some(Instant::now() + begun.elapsed() / 5);
    let outcome = infer(&*session, &model.signature, std::slice::from_ref(&x), &[0], deadline);
    expect_code(outcome, &[Code::DeadlineExceeded])?;
    half(&*session, model, &x).map_err(|why| format!("afterwards: {why}"))
}

fn concurrent_runs(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    const THREADS: usize = 8;
    const RUNS: usize = 200;
    let session = load(engine, model)?;
    let session = &*session;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for run in 0..RUNS {
                        // Sizes cross those of slots, so that slots change hands.
                        let rows = [1, 3, 20_000, 40][(thread + run) % 4];
                        let x = batch(model, rows, (thread * RUNS + run) as f32)?;
                        half(session, model, &x)
                            .map_err(|why| format!("thread {thread}, run {run}: {why}"))?;
                    }
                    Ok(())
                })
            })
            .collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<(), String>>| {
            thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
        };
        threads.into_iter().try_for_each(joined)
    })
}

fn dropped_runs(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 100, 0.0)?;
    for _ in 0..500 {
        let request = run_request(&model.signature, std::slice::from_ref(&x), &[0]);
        drop(session.prepare(&request).map_err(text)?);
    }
    half(&*session, model, &x)
}

fn outputs_outlive_session(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 3, 1.0)?;
    let outputs =
        infer(&*session, &model.signature, std::slice::from_ref(&x), &[0], None).map_err(text)?;
    drop(session);
    tensors_close(outputs.first().ok_or("no output")?, &halved(&x)?, 1e-6, 1e-6)
}

fn run_outlives_session(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let x = batch(model, 3, 1.0)?;
    let request = run_request(&model.signature, std::slice::from_ref(&x), &[0]);
    let mut run = session.prepare(&request).map_err(text)?;
    run.input(0).copy_from_slice(x.bytes());
    drop(session);
    let outputs = run.run(None).map_err(text)?;
    tensors_close(outputs.first().ok_or("no output")?, &halved(&x)?, 1e-6, 1e-6)
}

fn count(session: &dyn Session, model: &SuiteModel) -> Result<i64, String> {
    let outputs = infer(session, &model.signature, &[], &[0], None).map_err(text)?;
    let count = outputs.first().and_then(|output| output.to_vec::<i64>());
    count.and_then(|count| count.first().copied()).ok_or_else(|| "no count".to_owned())
}

fn stateful_once(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    ensure(signature(&*session, model)?.stateful, || "it is not declared stateful".to_owned())?;
    for want in 1..=5 {
        let got = count(&*session, model)?;
        ensure(got == want, || format!("run {want} counted {got}"))?;
    }
    Ok(())
}

fn sessions_are_apart(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let (one, two) = (load(engine, model)?, load(engine, model)?);
    let counts = [count(&*one, model)?, count(&*one, model)?, count(&*two, model)?];
    ensure(counts == [1, 2, 1], || format!("two sessions counted {counts:?}"))?;
    drop(one);
    ensure(count(&*two, model)? == 2, || "one session's end touched the other".to_owned())
}

fn damaged(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    expect_code(
        engine.load(&model.load).map(|_| Vec::new()),
        &[Code::NotFound, Code::DataLoss, Code::InvalidArgument, Code::Unimplemented],
    )
}

/// Bytes of this process' memory that are resident.
fn resident() -> Result<usize, String> {
    let statm = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages: Option<usize> = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| "statm makes no sense".to_owned())
}

/// `rounds` of something that would leave `leak` bytes each must not leave them.
fn leaves_nothing(
    rounds: usize,
    leak: usize,
    mut round: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    const TRIES: usize = 4;
    for _ in 0..3 {
        round()?;
    }
    let mut grown = 0;
    for _ in 0..TRIES {
        let before = resident()?;
        for _ in 0..rounds {
            round()?;
        }
        grown = resident()?.saturating_sub(before);
        if grown < rounds * leak / 2 {
            return Ok(());
        }
        // Other tests of the same process use memory too; what leaks does so each time.
    }
    Err(format!("{rounds} rounds left {grown} bytes, {TRIES} times in a row"))
}

fn memory_of_runs_returns(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let session = load(engine, model)?;
    let row: usize = model.row_shape.iter().product::<usize>().max(1);
    let x = batch(model, (1 << 20) / row, 0.0)?;
    let want = halved(&x)?;
    leaves_nothing(50, 4 << 20, || half_is(&*session, model, &x, &want))
}

fn memory_of_sessions_returns(engine: &dyn Engine, model: &SuiteModel) -> Result<(), String> {
    let row: usize = model.row_shape.iter().product::<usize>().max(1);
    let x = batch(model, (1 << 21) / row, 0.0)?;
    let want = halved(&x)?;
    leaves_nothing(10, 8 << 20, || half_is(&*load(engine, model)?, model, &x, &want))
}
