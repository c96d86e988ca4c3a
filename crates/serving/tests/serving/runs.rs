//! Runs: checks, bounds, deadlines, fairness, panics.

use std::time::{Duration, Instant};

use vesta_model::{Code, Shape, Status, StringsBuilder, Tensor};
use vesta_serving::{InferRequest, Phase, ServingOptions};

use crate::world::{PATIENCE, World, ask, begun, eventually, halve, options};

fn pair() -> InferRequest {
    let mut strings = StringsBuilder::new();
    strings.push(b"one");
    strings.push(b"");
    InferRequest {
        signature: "pair".to_owned(),
        inputs: vec![
            Tensor::of(Shape::vector(3), &[1i64, -2, 3]).unwrap(),
            Tensor::of_strings(Shape::vector(2), &strings).unwrap(),
        ],
        outputs: vec![1, 0],
        deadline: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_reach_the_engine_and_outputs_come_in_the_order_wanted() {
    let world = World::new();
    world.serve("m", &[3]);
    let lease = world.lease("m").unwrap();
    let y = lease.infer(halve(&[2.0, 4.0])).await.unwrap();
    assert_eq!(y, [Tensor::of(Shape::vector(2), &[4.0f32, 5.0]).unwrap()]);
    let empty = lease.infer(halve(&[])).await.unwrap();
    assert_eq!(empty[0].shape().elements(), 0);
    let request = pair();
    let expected = [request.inputs[1].clone(), request.inputs[0].clone()];
    assert_eq!(lease.infer(request).await.unwrap(), expected);
    assert_eq!(lease.infer(InferRequest { outputs: vec![], ..pair() }).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_held_to_their_signature() {
    let world = World::new();
    world.serve("m", &[1]);
    let lease = world.lease("m").unwrap();
    let refused = async |request: InferRequest| lease.infer(request).await.unwrap_err();

    let mut wrong = pair();
    wrong.inputs[1] = Tensor::of(Shape::scalar(), &[1.0f64]).unwrap();
    assert_eq!(
        refused(wrong).await,
        Status::invalid_argument("Expects arg[1] to be string but double is provided")
    );
    let mut few = pair();
    few.inputs.pop();
    assert_eq!(refused(few).await.code(), Code::InvalidArgument);
    let far = InferRequest { outputs: vec![0, 2], ..pair() };
    assert_eq!(refused(far).await.code(), Code::InvalidArgument);
    let unknown = InferRequest { signature: "nope".to_owned(), ..pair() };
    assert_eq!(
        refused(unknown).await,
        Status::failed_precondition("Serving signature key \"nope\" not found.")
    );
    assert_eq!(world.engine.count("run"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_lane_refuses_at_once_and_says_so() {
    let world = World::with(ServingOptions { run_threads: 1, queue_runs_max: 2, ..options() });
    world.serve("m", &[1]);
    world.serve("n", &[1]);
    let script = world.engine.script("m:1");
    script.run.shut();
    let lease = world.lease("m").unwrap();
    let first = begun(ask(&lease)).await;
    eventually(|| script.run.waiting() == 1);
    let waiting = [begun(ask(&lease)).await, begun(ask(&lease)).await];
    let status = ask(&lease).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "2 requests already wait for servable {name: m version: 1}, which is its limit; try \
         again later"
    );
    assert_eq!(ask(&world.lease("n").unwrap()).await, Ok(1.5), "each lane has its own bound");
    script.run.open();
    for answer in waiting.into_iter().chain([first]) {
        assert_eq!(answer.await, Ok(1.5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_end_the_wait_and_what_expired_is_not_run() {
    let world = World::with(ServingOptions { run_threads: 1, ..options() });
    world.serve("m", &[1]);
    let script = world.engine.script("m:1");
    script.run.shut();
    let lease = world.lease("m").unwrap();
    let within = |ms| InferRequest {
        deadline: Some(Instant::now() + Duration::from_millis(ms)),
        ..halve(&[1.0])
    };
    let timed_out = Status::deadline_exceeded("Timed out waiting for notification");
    let since = Instant::now();
    let (running, queued) = tokio::join!(lease.infer(within(60)), lease.infer(within(60)));
    assert!(since.elapsed() >= Duration::from_millis(60));
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(running, Err(timed_out.clone()));
    assert_eq!(queued, Err(timed_out.clone()));
    assert_eq!(lease.infer(within(0)).await, Err(timed_out), "a past deadline is told at once");
    script.run.open();
    assert_eq!(ask(&lease).await, Ok(1.5));
    assert_eq!(world.engine.count("run"), 2, "the one in the queue was never run");
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_requests_leave_without_being_run() {
    let world = World::with(ServingOptions { run_threads: 1, queue_runs_max: 3, ..options() });
    world.serve("m", &[1]);
    let script = world.engine.script("m:1");
    script.run.shut();
    let lease = world.lease("m").unwrap();
    let first = tokio::spawn({
        let lease = lease.clone();
        async move { ask(&lease).await }
    });
    eventually(|| script.run.waiting() == 1);
    // More than the lane holds: each leaves before the next comes.
    for _ in 0..10 {
        let gone = tokio::time::timeout(Duration::from_millis(5), ask(&lease)).await;
        assert!(gone.is_err(), "{gone:?}");
    }
    script.run.open();
    assert_eq!(first.await.unwrap(), Ok(1.5));
    assert_eq!(ask(&lease).await, Ok(1.5));
    assert_eq!(world.engine.count("run"), 2);
}

/// Runs of `hung` hang on every run thread, and more of them wait.
async fn hang(world: &World, model: &str, requests: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let script = world.engine.script(&format!("{model}:1"));
    script.run.shut();
    let lease = world.lease(model).unwrap();
    let tasks: Vec<_> = (0..requests)
        .map(|_| {
            let lease = lease.clone();
            tokio::spawn(async move { assert_eq!(ask(&lease).await, Ok(1.5)) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(script.run.waiting() >= 1);
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_served_while_another_hangs() {
    for run_threads in [1, 2, 3] {
        let world = World::with(ServingOptions { run_threads, ..options() });
        world.serve("hung", &[1]);
        world.serve("m", &[1]);
        let tasks = hang(&world, "hung", 20).await;
        assert_eq!(
            world.engine.script("hung:1").run.waiting(),
            run_threads,
            "it may have every run thread, but no relief thread"
        );
        let lease = world.lease("m").unwrap();
        let since = Instant::now();
        for _ in 0..50 {
            let answer = tokio::time::timeout(PATIENCE, ask(&lease)).await;
            assert_eq!(answer.unwrap(), Ok(1.5));
        }
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        world.engine.script("hung:1").run.open();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_served_while_two_others_hang() {
    let world = World::with(ServingOptions { run_threads: 1, ..options() });
    for model in ["a", "b", "m"] {
        world.serve(model, &[1]);
    }
    let mut tasks = hang(&world, "a", 5).await;
    tasks.extend(hang(&world, "b", 5).await);
    let answer = tokio::time::timeout(PATIENCE, ask(&world.lease("m").unwrap())).await;
    assert_eq!(answer.unwrap(), Ok(1.5));
    for model in ["a", "b"] {
        world.engine.script(&format!("{model}:1")).run.open();
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_take_turns() {
    let world = World::with(ServingOptions { run_threads: 1, ..options() });
    world.serve("busy", &[1]);
    world.serve("m", &[1]);
    *world.engine.script("busy:1").run_takes.lock().unwrap() = Duration::from_millis(5);
    let lease = world.lease("busy").unwrap();
    let tasks: Vec<_> = (0..60)
        .map(|_| {
            let lease = lease.clone();
            tokio::spawn(async move { ask(&lease).await })
        })
        .collect();
    eventually(|| world.engine.count("run busy") >= 2);
    let before = world.engine.count("run busy");
    assert_eq!(ask(&world.lease("m").unwrap()).await, Ok(1.5));
    let between = world.engine.count("run busy") - before;
    assert!(between <= 10, "{between} requests of the busy model went first");
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(1.5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_panicked_is_replaced() {
    let world = World::new();
    world.serve("m", &[1]);
    let before = world.lease("m").unwrap();
    let status = before.infer(halve(&[f32::NAN])).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let status = ask(&before).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "the broken session is not run again");
    eventually(|| world.engine.count("loaded m:1") == 2);
    let since = Instant::now();
    loop {
        match ask(&world.lease("m").unwrap()).await {
            Ok(y) => break assert_eq!(y, 1.5),
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        assert!(since.elapsed() < PATIENCE);
    }
    assert_eq!(world.phase("m", 1), Some(Phase::Available));
    assert_eq!(world.engine.count("unload m:1"), 0, "a lease on the broken session is left");
    drop(before);
    eventually(|| world.engine.count("unloaded m:1") == 1);
    assert_eq!(ask(&world.lease("m").unwrap()).await, Ok(1.5));
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.engine.count("unloaded m:1"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_replaced_ends_its_version() {
    let world = World::with(ServingOptions { load_retries_max: 1, ..options() });
    world.serve("m", &[1]);
    let failures = vec![Status::data_loss("gone"); 2];
    *world.engine.script("m:1").failures.lock().unwrap() = failures;
    let lease = world.lease("m").unwrap();
    assert!(lease.infer(halve(&[f32::NAN])).await.is_err());
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.error("m", 1), Some(Status::data_loss("gone")));
    assert_eq!(world.engine.count("load m:1"), 3);
    eventually(|| world.lease("m").is_err());
    drop(lease);
    eventually(|| world.engine.count("unloaded m:1") == 1);
    // Left out and wanted again, it is tried again.
    world.want("m", &[]);
    world.serve("m", &[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_comes_too_late_is_unloaded() {
    let world = World::new();
    world.serve("m", &[1]);
    let script = world.engine.script("m:1");
    script.load.shut();
    let lease = world.lease("m").unwrap();
    assert!(lease.infer(halve(&[f32::NAN])).await.is_err());
    eventually(|| script.load.waiting() == 1);
    drop(lease);
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::End);
    script.load.open();
    eventually(|| world.engine.count("unloaded m:1") == 2);
    assert_eq!(world.phase("m", 1), Some(Phase::End));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_session_wanted_again_while_it_drains_is_replaced_too() {
    let world = World::new();
    world.serve("m", &[1]);
    let lease = world.lease("m").unwrap();
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    assert!(lease.infer(halve(&[f32::NAN])).await.is_err());
    world.serve("m", &[1]);
    eventually(|| world.engine.count("loaded m:1") == 2);
    drop(lease);
    eventually(|| world.engine.count("unloaded m:1") == 1);
    assert_eq!(ask(&world.lease("m").unwrap()).await, Ok(1.5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_gives_too_few_outputs_is_told_on() {
    let world = World::new();
    world.serve("m", &[1]);
    *world.engine.script("m:1").mute.lock().unwrap() = true;
    let status = ask(&world.lease("m").unwrap()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
}
