//! Loading, failing, unloading, waiting for models, shutting down.

use std::time::{Duration, Instant};

use vesta_model::{Code, Status, Version};
use vesta_serving::{Aspired, Phase, ServingOptions};

use crate::world::{PATIENCE, World, ask, aspired, aspired_at, eventually, options};

fn fail(world: &World, id: &str, times: usize) {
    let failures = vec![Status::not_found("no such thing"); times];
    *world.engine.script(id).failures.lock().unwrap() = failures;
}

#[test]
fn a_new_version_is_loaded_before_the_old_one_is_unloaded() {
    let world = World::new();
    world.serve("m", &[1]);
    world.serve("m", &[2]);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(
        world.engine.log(),
        [
            "load m:1 /models/m/1",
            "loaded m:1",
            "load m:2 /models/m/2",
            "loaded m:2",
            "unload m:1",
            "unloaded m:1"
        ]
    );
}

#[test]
fn start_and_loading_are_shown_in_their_time() {
    let world = World::with(ServingOptions { load_threads: 1, ..options() });
    world.engine.script("m:2").load.shut();
    world.want("m", &[1, 2]);
    eventually(|| world.engine.count("load m:2") == 1);
    assert_eq!(world.phase("m", 2), Some(Phase::Loading));
    assert_eq!(world.phase("m", 1), Some(Phase::Start), "the newest is loaded first");
    world.engine.script("m:2").load.open();
    eventually(|| world.available("m") == [1, 2]);
    let versions: Vec<i64> =
        world.serving.status("m", None).unwrap().iter().map(|shown| shown.version.0).collect();
    assert_eq!(versions, [2, 1], "newest first");
}

#[test]
fn the_newest_of_each_model_is_loaded_first() {
    let world = World::with(ServingOptions { load_threads: 1, ..options() });
    world.engine.script("first:1").load.shut();
    world.want("first", &[1]);
    eventually(|| world.engine.count("load first:1") == 1);
    world.want("m", &[1, 2, 3]);
    world.engine.script("first:1").load.open();
    eventually(|| world.available("m").len() == 3);
    let loads: Vec<String> =
        world.engine.log().into_iter().filter(|line| line.starts_with("load m")).collect();
    assert_eq!(loads, ["load m:3 /models/m/3", "load m:2 /models/m/2", "load m:1 /models/m/1"]);
}

#[test]
fn a_failed_version_ends_with_its_error_and_leaves_the_old_one_serving() {
    let world = World::new();
    world.serve("m", &[1]);
    fail(&world, "m:2", 1);
    world.want("m", &[2]);
    world.await_phase("m", 2, Phase::End);
    assert_eq!(world.error("m", 2), Some(Status::not_found("no such thing")));
    assert_eq!(world.phase("m", 1), Some(Phase::Available));
    // The next poll says the same, which is no reason to try again.
    world.want("m", &[2]);
    world.serve("n", &[1]);
    assert_eq!(world.engine.count("load m:2"), 1);
    assert_eq!(world.lease("m").unwrap().version().0, 1);
}

#[test]
fn a_failed_version_is_tried_again_after_it_was_left_out_or_with_other_files() {
    let world = World::new();
    fail(&world, "m:2", 3);
    world.want("m", &[2]);
    world.await_phase("m", 2, Phase::End);
    world.want("m", &[]);
    world.serve("n", &[1]);
    assert!(world.error("m", 2).is_some(), "the error stays listed");
    world.want("m", &[2]);
    eventually(|| world.engine.count("load m:2") == 2);
    world.await_phase("m", 2, Phase::End);
    world.serving.aspire(&"m".into(), vec![aspired_at(2, "/elsewhere")]);
    eventually(|| world.engine.count("load m:2 /elsewhere") == 1);
    world.await_phase("m", 2, Phase::End);
    world.serving.aspire(&"m".into(), vec![aspired_at(2, "/good")]);
    world.await_phase("m", 2, Phase::Available);
    assert_eq!(world.error("m", 2), None);
}

#[test]
fn loads_are_tried_again_at_intervals_and_show_loading_all_the_while() {
    let interval = Duration::from_millis(60);
    let world = World::with(ServingOptions {
        load_retries_max: 2,
        load_retry_interval: interval,
        ..options()
    });
    fail(&world, "good:1", 2);
    let since = Instant::now();
    world.want("good", &[1]);
    eventually(|| {
        let phase = world.phase("good", 1);
        assert_ne!(phase, Some(Phase::End), "a version between two tries has not ended");
        phase == Some(Phase::Available)
    });
    assert!(since.elapsed() >= 2 * interval, "{:?}", since.elapsed());
    assert_eq!(world.engine.count("load good:1"), 3);

    fail(&world, "bad:1", 9);
    world.want("bad", &[1]);
    world.await_phase("bad", 1, Phase::End);
    std::thread::sleep(2 * interval);
    assert_eq!(world.engine.count("load bad:1"), 3);
}

#[test]
fn waiting_for_the_next_try_takes_no_loader_and_ends_when_it_is_not_wanted() {
    let world = World::with(ServingOptions {
        load_threads: 1,
        load_retries_max: 5,
        load_retry_interval: Duration::from_secs(3600),
        ..options()
    });
    fail(&world, "bad:1", 1);
    world.want("bad", &[1]);
    eventually(|| world.engine.count("load bad:1") == 1);
    world.serve("m", &[1]);
    assert_eq!(world.phase("bad", 1), Some(Phase::Loading));
    world.want("bad", &[]);
    world.await_phase("bad", 1, Phase::End);
    assert!(world.error("bad", 1).is_some());
}

#[test]
fn a_load_no_longer_wanted_is_cancelled() {
    let world = World::with(ServingOptions { load_threads: 1, ..options() });
    let script = world.engine.script("m:2");
    script.load.shut();
    world.want("m", &[1, 2]);
    eventually(|| script.load.waiting() == 1);
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.error("m", 1), None, "no loader had it yet");
    script.load.open();
    world.await_phase("m", 2, Phase::End);
    assert_eq!(world.error("m", 2), Some(Status::cancelled("Loading of servable cancelled")));
    assert_eq!(world.engine.count("unloaded m:2"), 1);
    assert_eq!(world.engine.count("load m:1"), 0);
}

#[test]
fn a_version_wanted_again_while_it_loads_is_loaded_once() {
    let world = World::new();
    let script = world.engine.script("m:1");
    script.load.shut();
    world.want("m", &[1]);
    eventually(|| script.load.waiting() == 1);
    world.want("m", &[]);
    world.want("m", &[1]);
    script.load.open();
    world.await_phase("m", 1, Phase::Available);
    assert_eq!(world.engine.count("load m:1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_wanted_again_while_leases_remain_is_flipped_back() {
    let world = World::new();
    world.serve("m", &[1]);
    let lease = world.lease("m").unwrap();
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    assert!(world.lease("m").is_err());
    world.serve("m", &[1]);
    drop(lease);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ask(&world.lease("m").unwrap()).await, Ok(1.5));
    assert_eq!(world.engine.count("load m:1"), 1);
    assert_eq!(world.engine.count("unload m:1"), 0, "the old hold's end is not this one's");
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.engine.count("unloaded m:1"), 1);
}

#[test]
fn a_version_flipped_back_and_retired_again_waits_for_old_and_new_leases() {
    let world = World::new();
    world.serve("m", &[1]);
    let old = world.lease("m").unwrap();
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    world.serve("m", &[1]);
    let new = world.lease("m").unwrap();
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    drop(old);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(world.phase("m", 1), Some(Phase::Unloading));
    assert_eq!(world.engine.count("unload m:1"), 0);
    drop(new);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.engine.count("unloaded m:1"), 1);
}

#[test]
fn a_version_queued_twice_is_not_tried_again_before_its_time() {
    let world = World::with(ServingOptions {
        load_threads: 1,
        load_retries_max: 5,
        load_retry_interval: Duration::from_secs(3600),
        ..options()
    });
    let first = world.engine.script("first:1");
    first.load.shut();
    world.want("first", &[1]);
    eventually(|| first.load.waiting() == 1);
    fail(&world, "m:1", 1);
    world.want("m", &[1]);
    world.want("m", &[]);
    world.want("m", &[1]);
    first.load.open();
    eventually(|| world.engine.count("load m:1") == 1);
    world.serve("last", &[1]);
    assert_eq!(world.engine.count("load m:1"), 1);
    assert_eq!(world.phase("m", 1), Some(Phase::Loading));
}

#[test]
fn a_version_wanted_again_while_it_unloads_is_loaded_anew() {
    let world = World::new();
    world.serve("m", &[1]);
    let script = world.engine.script("m:1");
    script.unload.shut();
    world.want("m", &[]);
    eventually(|| script.unload.waiting() == 1);
    world.want("m", &[1]);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(world.engine.count("load m:1"), 1, "not while the old one is there");
    script.unload.open();
    eventually(|| world.available("m") == [1]);
    assert_eq!(world.engine.count("load m:1"), 2);
}

#[test]
fn an_unreadable_artifact_ends_with_its_error_until_it_can_be_read() {
    let world = World::new();
    let unreadable = Status::failed_precondition("/models/m/2; Not a directory");
    let broken = Aspired { artifact: Err(unreadable.clone()), ..aspired("m", 2) };
    world.serve("m", &[1]);
    world.serving.aspire(&"m".into(), vec![broken.clone()]);
    world.await_phase("m", 2, Phase::End);
    assert_eq!(world.error("m", 2), Some(unreadable));
    assert_eq!(world.available("m"), [1]);
    world.serve("m", &[2]);
    // What serves goes on serving though its files cannot be read any more.
    world.serving.aspire(&"m".into(), vec![broken]);
    world.serve("n", &[1]);
    assert_eq!(world.available("m"), [2]);
}

#[test]
fn a_load_that_panics_is_an_error() {
    let world = World::new();
    world.serving.aspire(&"m".into(), vec![aspired_at(1, "/panic")]);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.error("m", 1).unwrap().code(), Code::Internal);
    world.serve("n", &[1]);
}

#[test]
fn statuses_are_found_or_told_missing_in_the_originals_words() {
    let world = World::new();
    let text = |model, version: Option<i64>| {
        let status = world.serving.status(model, version.map(Version)).unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        status.message().to_owned()
    };
    assert_eq!(text("m", None), "Could not find any versions of model m");
    assert_eq!(text("m", Some(4)), "Could not find version 4 of model m");
    world.serve("m", &[1]);
    assert_eq!(text("m", Some(4)), "Could not find version 4 of model m");
    world.want("empty", &[]);
    world.serve("n", &[1]);
    assert_eq!(text("empty", None), "Could not find any versions of model empty");
    let models = world.serving.models();
    let names: Vec<&str> = models.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["empty", "m", "n"]);
    assert_eq!(models[1].1.len(), 1);
}

#[test]
fn the_newest_hundred_ended_versions_stay_listed() {
    let world = World::new();
    let versions: Vec<i64> = (0..130).collect();
    world.want("m", &versions);
    eventually(|| world.available("m").len() == 130);
    world.serve("m", &[5]);
    world.await_phase("m", 129, Phase::End);
    eventually(|| world.serving.status("m", None).unwrap().len() == 101);
    let shown = world.serving.status("m", None).unwrap();
    assert_eq!(shown[0].version.0, 129);
    assert_eq!(shown[99].version.0, 30);
    assert_eq!(shown[100].version.0, 5, "what serves is never forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_waits_for_every_model_and_gives_the_failures() {
    let world = World::new();
    fail(&world, "bad:1", 1);
    world.engine.script("m:1").load.shut();
    let names = ["m".into(), "bad".into(), "late".into()];
    let serving = world.serving.clone();
    let settled = tokio::spawn(async move { serving.settled(&names).await });
    world.want("m", &[1]);
    world.want("bad", &[1]);
    world.await_phase("bad", 1, Phase::End);
    world.engine.script("m:1").load.open();
    world.await_phase("m", 1, Phase::Available);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!settled.is_finished(), "nothing was aspired for one of them");
    world.want("late", &[3]);
    let failures = tokio::time::timeout(PATIENCE, settled).await.unwrap().unwrap();
    assert_eq!(failures, [("bad".into(), Version(1), Status::not_found("no such thing"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_looks_at_the_newest_first_and_not_at_the_past() {
    let world = World::with(ServingOptions { load_threads: 1, ..options() });
    // The newest failed while an older one is still loading: the failure decides.
    fail(&world, "m:2", 1);
    world.engine.script("m:1").load.shut();
    world.want("m", &[1, 2]);
    let failures = world.serving.settled(&["m".into()]).await;
    assert_eq!(failures.len(), 1);
    world.engine.script("m:1").load.open();

    // Once all have come to an end, the newest decides as well.
    fail(&world, "old:1", 1);
    world.want("old", &[1, 2]);
    world.await_phase("old", 1, Phase::End);
    assert_eq!(world.serving.settled(&["old".into()]).await, [], "2 serves, whatever became of 1");
    world.await_phase("m", 1, Phase::Available);
    let failures = world.serving.settled(&["m".into()]).await;
    assert_eq!(failures.len(), 1, "2 failed, whatever became of 1");

    // A model that ended and is wanted again is waited for anew.
    world.serve("n", &[1]);
    world.want("n", &[]);
    world.await_phase("n", 1, Phase::End);
    world.engine.script("n:1").load.shut();
    world.want("n", &[1]);
    let names = ["n".into()];
    let settled = world.serving.settled(&names);
    assert!(tokio::time::timeout(Duration::from_millis(50), settled).await.is_err());
    world.engine.script("n:1").load.open();
    assert_eq!(world.serving.settled(&names).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_runs_in_flight_finish_and_unloads_everything() {
    let world = World::new();
    world.serve("m", &[1, 2]);
    world.serve("n", &[1]);
    let script = world.engine.script("m:2");
    script.run.shut();
    let lease = world.lease("m").unwrap();
    let answer = tokio::spawn(async move { ask(&lease).await });
    eventually(|| script.run.waiting() == 1);
    let serving = world.serving.clone();
    let down = tokio::task::spawn_blocking(move || serving.shutdown(PATIENCE));
    eventually(|| world.lease("n").is_err());
    let refused = world.lease("m").unwrap_err();
    assert_eq!(refused, Status::unavailable("the server is shutting down"));
    eventually(|| world.engine.count("unloaded n:1") == 1);
    assert!(!down.is_finished());
    script.run.open();
    assert_eq!(answer.await.unwrap(), Ok(2.5));
    down.await.unwrap();
    assert_eq!(world.engine.count("unloaded"), 3);
    assert_eq!(world.phase("m", 2), Some(Phase::End));
    // Afterwards everything is refused, and nothing hangs.
    world.want("m", &[1]);
    assert!(world.serving.set_labels(Default::default(), false).is_err());
    assert_eq!(world.serving.settled(&["m".into()]).await, []);
    world.serving.shutdown(PATIENCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_for_ever() {
    let world = World::with(ServingOptions { run_threads: 1, ..options() });
    world.serve("m", &[1]);
    let script = world.engine.script("m:1");
    script.run.shut();
    let lease = world.lease("m").unwrap();
    let running = tokio::spawn({
        let lease = lease.clone();
        async move { ask(&lease).await }
    });
    eventually(|| script.run.waiting() == 1);
    let queued = tokio::spawn(async move { ask(&lease).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    let since = Instant::now();
    let serving = world.serving.clone();
    tokio::task::spawn_blocking(move || serving.shutdown(Duration::from_millis(100)))
        .await
        .unwrap();
    assert!(since.elapsed() >= Duration::from_millis(100));
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    let refused = tokio::time::timeout(PATIENCE, queued).await.unwrap().unwrap();
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    script.run.open();
    assert_eq!(running.await.unwrap(), Ok(1.5), "what runs is not torn down");
}

#[test]
fn leases_outlive_the_server_and_versions_are_unloaded_after_them() {
    let world = World::new();
    world.serve("m", &[1]);
    let engine = world.engine.clone();
    let lease = world.lease("m").unwrap();
    drop(world);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(engine.count("unload m:1"), 0);
    drop(lease);
    eventually(|| engine.count("unloaded m:1") == 1);
}

#[test]
fn sizes_of_zero_are_refused() {
    let engine = std::sync::Arc::new(crate::fake::FakeEngine::default());
    let refused =
        vesta_serving::Serving::start(engine, ServingOptions { run_threads: 0, ..options() });
    let status = refused.err().unwrap();
    assert_eq!(status, Status::invalid_argument("run_threads must be at least 1"));
}

#[test]
fn a_version_that_leaves_comes_back_with_its_new_files_and_not_with_the_old() {
    let world = World::new();
    world.serve("m", &[1]);
    let lease = world.lease("m").unwrap();
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    world.serving.aspire(&"m".into(), vec![aspired_at(1, "/elsewhere")]);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(world.engine.count("load m:1 /elsewhere"), 0, "one of a number at a time");
    drop(lease);
    world.await_phase("m", 1, Phase::Available);
    assert_eq!(world.engine.count("load m:1 /elsewhere"), 1);
}

#[test]
fn a_load_of_files_that_were_exchanged_meanwhile_never_serves() {
    let world = World::new();
    let gate = world.engine.script("m:1").load;
    gate.shut();
    world.want("m", &[1]);
    eventually(|| gate.waiting() == 1);
    world.serving.aspire(&"m".into(), vec![aspired_at(1, "/elsewhere")]);
    world.serve("n", &[1]);
    gate.open();
    world.await_phase("m", 1, Phase::Available);
    let loads: Vec<String> =
        world.engine.log().into_iter().filter(|line| line.starts_with("load m:1")).collect();
    assert_eq!(loads, ["load m:1 /models/m/1", "load m:1 /elsewhere"]);
    assert_eq!(world.engine.count("unloaded m:1"), 1);
}
