//! Sessions that are restarted or given up: what is shown, what stays, and what is ready.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vesta_model::{SessionHealth, Status};
use vesta_serving::{AspiredVersionPolicy, Clock, Phase, Serving, ServingOptions};

use crate::fake::FakeEngine;
use crate::world::{World, ask, eventually, labels, options};

fn died() -> Status {
    Status::unavailable("the worker process ended (signal 9); it is being restarted")
}

fn over() -> Status {
    Status::unavailable("that was end 20 within 600 s, so it is not restarted any more")
}

fn configure(world: &World, models: &[&str]) {
    let mut all = labels(&[]);
    for &model in models {
        all.entry(model.into()).or_default();
    }
    world.serving.set_labels(all, false).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_being_restarted_is_shown_so_and_keeps_its_place() {
    let world = World::new();
    world.serve("m", &[1]);
    configure(&world, &["m"]);
    assert!(world.serving.readiness().ready);
    let script = world.engine.script("m:1");
    script.be(SessionHealth::Restarting(died()));
    world.await_phase("m", 1, Phase::Loading);
    assert_eq!(world.error("m", 1), Some(died()));
    assert_eq!(world.lease("m").unwrap().version().0, 1, "whoever asks is told by the session");
    let readiness = world.serving.readiness();
    assert!(!readiness.ready && !readiness.draining);
    assert_eq!(
        readiness.models,
        [("m".into(), format!("version 1 is being restarted: {}", died()))]
    );

    script.be(SessionHealth::Serving);
    world.await_phase("m", 1, Phase::Available);
    assert_eq!(world.error("m", 1), None);
    assert!(world.serving.readiness().ready);
    assert_eq!(ask(&world.lease("m").unwrap()).await, Ok(1.5));
    assert_eq!(world.engine.count("load m:1"), 1);
}

#[test]
fn an_old_version_stays_until_the_new_ones_session_runs() {
    let world = World::new();
    world.serve("m", &[1, 2]);
    world.engine.script("m:2").be(SessionHealth::Restarting(died()));
    world.await_phase("m", 2, Phase::Loading);
    world.want("m", &[2]);
    world.serve("n", &[1]);
    assert_eq!(world.phase("m", 1), Some(Phase::Available));
    world.engine.script("m:2").be(SessionHealth::Serving);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.available("m"), [2]);
}

#[test]
fn a_version_that_comes_up_in_restart_takes_nobodys_place_yet() {
    let world = World::new();
    world.serve("m", &[1]);
    world.engine.script("m:2").be(SessionHealth::Restarting(died()));
    world.want("m", &[2]);
    eventually(|| world.engine.count("loaded m:2") == 1);
    world.serve("n", &[1]);
    assert_eq!(world.phase("m", 2), Some(Phase::Loading));
    assert_eq!(world.phase("m", 1), Some(Phase::Available));
}

#[test]
fn a_session_that_is_given_up_ends_its_version_and_no_other() {
    let world = World::new();
    world.serve("m", &[1, 2]);
    configure(&world, &["m"]);
    let script = world.engine.script("m:2");
    script.be(SessionHealth::Restarting(died()));
    script.be(SessionHealth::GivenUp(over()));
    world.await_phase("m", 2, Phase::End);
    assert_eq!(world.error("m", 2), Some(over()));
    eventually(|| world.lease("m").unwrap().version().0 == 1);
    assert!(world.serving.readiness().ready, "an older version serves");
    eventually(|| world.engine.count("unloaded m:2") == 1);
    // It is wanted all the while, which is no reason to try again; leaving it out is.
    world.want("m", &[1, 2]);
    world.serve("n", &[1]);
    assert_eq!(world.engine.count("load m:2"), 1);
    script.be(SessionHealth::Serving);
    world.serve("m", &[1]);
    world.serve("m", &[1, 2]);
    assert_eq!(world.engine.count("load m:2"), 2);
}

#[test]
fn the_last_version_given_up_is_told_as_the_reason() {
    let world = World::new();
    world.serve("m", &[1]);
    configure(&world, &["m", "absent"]);
    world.engine.script("m:1").be(SessionHealth::GivenUp(over()));
    world.await_phase("m", 1, Phase::End);
    let readiness = world.serving.readiness();
    assert_eq!(readiness.models_ready, 0);
    let told: Vec<(&str, bool)> = readiness
        .models
        .iter()
        .map(|(model, why)| (model.as_str(), why.contains("that was end 20")))
        .collect();
    assert_eq!(told, [("absent", false), ("m", true)]);
    assert!(world.lease("m").is_err());
}

#[test]
fn a_session_given_up_while_its_version_drained_is_replaced_when_that_is_wanted_again() {
    let world = World::new();
    world.serve("m", &[1]);
    let _lease = world.lease("m").unwrap();
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    let script = world.engine.script("m:1");
    script.be(SessionHealth::GivenUp(over()));
    world.serve("n", &[1]);
    script.load.shut();
    world.want("m", &[1]);
    world.await_phase("m", 1, Phase::Loading);
    assert_eq!(world.error("m", 1), Some(over()));
    eventually(|| script.load.waiting() == 1);
    script.come_up_as(SessionHealth::Serving);
    script.load.open();
    world.await_phase("m", 1, Phase::Available);
    assert_eq!(world.engine.count("load m:1"), 2);
}

#[test]
fn a_session_that_restarts_while_its_version_drains_is_shown_so_when_that_is_put_back() {
    let world = World::new();
    world.serve("m", &[1]);
    let _lease = world.lease("m").unwrap();
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    let script = world.engine.script("m:1");
    script.be(SessionHealth::Restarting(died()));
    world.want("m", &[1]);
    world.await_phase("m", 1, Phase::Loading);
    assert_eq!(world.error("m", 1), Some(died()));
    script.be(SessionHealth::Serving);
    world.await_phase("m", 1, Phase::Available);
    assert_eq!(world.engine.count("load m:1"), 1);
}

#[test]
fn on_its_way_out_the_server_serves_but_is_not_ready() {
    let world = World::new();
    world.serve("m", &[1]);
    configure(&world, &["m"]);
    world.serving.begin_drain();
    let readiness = world.serving.readiness();
    assert!(!readiness.ready && readiness.draining);
    assert_eq!(readiness.models, []);
    assert!(world.lease("m").is_ok());
}

#[test]
fn to_save_memory_the_old_version_goes_first() {
    let policy = AspiredVersionPolicy::ResourcePreserving;
    let world = World::with(ServingOptions { policy, ..options() });
    world.serve("m", &[1]);
    world.serve("m", &[2]);
    assert_eq!(
        world.engine.log(),
        [
            "load m:1 /models/m/1",
            "loaded m:1",
            "unload m:1",
            "unloaded m:1",
            "load m:2 /models/m/2",
            "loaded m:2"
        ]
    );
}

/// A clock that tests set forward.
#[derive(Clone)]
struct Hand(Arc<Mutex<Instant>>);

impl Clock for Hand {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }
}

impl Hand {
    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

fn timed(options: ServingOptions) -> (World, Hand) {
    let clock = Hand(Arc::new(Mutex::new(Instant::now())));
    let engine = FakeEngine::default();
    let serving =
        Serving::start_with(Arc::new(engine.clone()), options, Arc::new(clock.clone())).unwrap();
    (World { engine, serving }, clock)
}

#[test]
fn loads_and_unloads_that_hang_keep_no_other_model_waiting_for_ever() {
    let (world, clock) = timed(ServingOptions { load_threads: 1, ..options() });
    let script = world.engine.script("bad:1");
    script.load.shut();
    world.want("bad", &[1]);
    eventually(|| script.load.waiting() == 1);
    world.want("m", &[1]);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(world.phase("m", 1), Some(Phase::Start));
    clock.pass(Duration::from_secs(60));
    // Whatever happens next makes the life cycle look at the clock, which tests set.
    world.serve("m", &[1]);

    let hangs = world.engine.script("m:1");
    hangs.unload.shut();
    world.want("m", &[]);
    eventually(|| hangs.unload.waiting() == 1);
    clock.pass(Duration::from_secs(60));
    world.serve("n", &[1]);
    world.want("n", &[]);
    world.await_phase("n", 1, Phase::End);
    assert_eq!(world.phase("m", 1), Some(Phase::Unloading));

    hangs.unload.open();
    script.load.open();
    world.await_phase("m", 1, Phase::End);
    world.await_phase("bad", 1, Phase::Available);
}

#[test]
fn models_that_are_over_are_forgotten_in_the_end() {
    let world = World::new();
    world.serve("kept", &[1]);
    for index in 0..1100 {
        let name = format!("m{index:04}");
        world.want(&name, &[]);
    }
    world.serve("last", &[1]);
    let names: Vec<String> =
        world.serving.models().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names.len(), 1002);
    assert!(names.contains(&"kept".to_owned()) && names.contains(&"m1099".to_owned()));
    assert!(!names.contains(&"m0099".to_owned()) && names.contains(&"m0100".to_owned()));
}
