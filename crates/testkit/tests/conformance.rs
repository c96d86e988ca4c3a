//! The conformance suite on the fake engine: inline, and behind a real worker process.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test, whose skips must be seen")]

use std::sync::{Mutex, PoisonError};

use vesta_model::Engine;
use vesta_testkit::{FakeArtifact, FakeEngine, Given, SuiteModel, SuiteModels, engine_suite};
use vesta_worker::{IsolatedEngine, WorkerCommand, WorkerOptions};

/// Cells look at the memory of the whole process, so suites take turns.
static TURN: Mutex<()> = Mutex::new(());

fn suite_on(engine: &dyn Engine) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut artifacts = Vec::new();
    let mut given = |script: &str| {
        let artifact = FakeArtifact::new("suite", script).unwrap();
        let model = Given::Model(SuiteModel::new(artifact.request(), &[]));
        artifacts.push(artifact);
        model
    };
    let models = SuiteModels {
        half_plus_two: given("model half_plus_two"),
        slow_half_plus_two: given("model half_plus_two\non run sleep 300"),
        string_identity: given("model string_identity"),
        sum_and_difference: given("model sum_and_difference"),
        counter: given("model counter"),
        damaged: given("model of nothing"),
    };
    let report = engine_suite(engine, &models);
    println!("{}", report.text());
    assert_eq!(report.verdict(), Ok(()));
    assert!(report.cells.iter().all(|cell| cell.outcome == vesta_testkit::Outcome::Passed));
}

fn isolated(options: WorkerOptions) -> IsolatedEngine {
    let command = WorkerCommand::new(env!("CARGO_BIN_EXE_vesta-fake-worker")).arg("serve");
    IsolatedEngine::new(FakeEngine::fake_identity(), command, options)
}

#[test]
fn the_fake_engine_conforms() {
    suite_on(&FakeEngine::new());
}

#[test]
fn the_fake_engine_behind_a_worker_conforms() {
    suite_on(&isolated(WorkerOptions::default()));
}

#[test]
fn so_it_does_with_one_thread_and_little_memory() {
    let options = WorkerOptions {
        runs_max: 1,
        idle_slots_max: 0,
        arena_bytes_max: 24 << 20,
        ..WorkerOptions::default()
    };
    suite_on(&isolated(options));
}

/// A suite that cannot fail proves nothing.
#[test]
fn a_wrong_engine_fails() {
    let artifact =
        FakeArtifact::new("suite", "model half_plus_two\non run error INTERNAL no").unwrap();
    let model = || Given::Model(SuiteModel::new(artifact.request(), &[]));
    let absent = || Given::Missing("not asked for".to_owned());
    let models = SuiteModels {
        half_plus_two: model(),
        slow_half_plus_two: absent(),
        string_identity: absent(),
        sum_and_difference: absent(),
        counter: absent(),
        damaged: model(),
    };
    let text = engine_suite(&FakeEngine::new(), &models).verdict().unwrap_err();
    for line in ["FAIL values", "FAIL damaged files", "SKIP strings", "pass unknown signature"] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}
