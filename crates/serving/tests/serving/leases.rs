//! Lookup, leases and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vesta_model::{Code, ModelSpec, Status, Version};
use vesta_serving::{Lease, Phase};

use crate::world::{World, ask, eventually, labels, options};

fn refusal(result: Result<Lease, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[test]
fn what_is_not_found_is_told_in_the_originals_words() {
    let world = World::new();
    world.serve("m", &[1]);
    let text = |result| refusal(result);
    assert_eq!(
        text(world.serving.resolve(&ModelSpec::latest(""))),
        (Code::InvalidArgument, "ModelSpec has no name specified.".to_owned())
    );
    assert_eq!(
        text(world.lease("n")),
        (Code::NotFound, "Servable not found for request: Latest(n)".to_owned())
    );
    assert_eq!(
        text(world.lease_of("m", 7)),
        (Code::NotFound, "Servable not found for request: Specific(m, 7)".to_owned())
    );
    for model in ["m", "n"] {
        assert_eq!(
            text(world.lease_by_label(model, "stable")),
            (Code::InvalidArgument, "Unrecognized servable version label: stable".to_owned())
        );
    }
}

#[test]
fn latest_is_the_highest_version_that_serves() {
    let world = World::new();
    world.serve("m", &[-3, 1, 10]);
    assert_eq!(world.lease("m").unwrap().version().0, 10);
    assert_eq!(world.lease_of("m", -3).unwrap().version().0, -3);
    world.serve("m", &[-3, 1]);
    assert_eq!(world.lease("m").unwrap().version().0, 1);
    assert_eq!(world.lease("m").unwrap().model().as_str(), "m");
    assert!(world.lease("m").unwrap().signatures().contains_key("serving_default"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_taken_before_a_swap_keeps_its_version() {
    let world = World::new();
    world.serve("m", &[1]);
    let old = world.lease("m").unwrap();
    let copy = old.clone();
    world.serve("m", &[2]);
    world.await_phase("m", 1, Phase::Unloading);
    assert_eq!(ask(&old).await, Ok(1.5));
    assert_eq!(ask(&world.lease("m").unwrap()).await, Ok(2.5));
    assert!(world.lease_of("m", 1).is_err(), "no new lease once it is out of the catalog");

    drop(old);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(world.engine.count("unload m:1"), 0, "one lease is left");
    assert_eq!(ask(&copy).await, Ok(1.5));
    drop(copy);
    world.await_phase("m", 1, Phase::End);
    assert_eq!(world.engine.count("unloaded m:1"), 1);
    assert_eq!(world.error("m", 1), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_request_keeps_its_version_though_its_caller_went_away() {
    let world = World::new();
    world.serve("m", &[1]);
    let script = world.engine.script("m:1");
    script.run.shut();
    let lease = world.lease("m").unwrap();
    let task = tokio::spawn(async move { ask(&lease).await });
    eventually(|| script.run.waiting() == 1);
    task.abort();
    assert!(task.await.is_err());
    world.want("m", &[]);
    world.await_phase("m", 1, Phase::Unloading);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(world.engine.count("unload m:1"), 0);
    script.run.open();
    world.await_phase("m", 1, Phase::End);
}

/// Requests must not pay for unloading, even the one whose lease is the last.
#[test]
fn unloading_is_left_to_unloaders() {
    let world = World::new();
    for version in 1..200 {
        world.serve("m", &[version]);
        let lease = world.lease("m").unwrap();
        world.want("m", &[]);
        world.await_phase("m", version, Phase::Unloading);
        drop(lease);
        world.await_phase("m", version, Phase::End);
    }
    let threads = world.engine.unload_threads();
    assert_eq!(threads.len(), 199);
    assert!(threads.iter().all(|name| name.starts_with("vesta-unload-")), "{threads:?}");
}

#[test]
fn lookup_does_not_wait_for_loads_and_unloads_that_hang() {
    let world = World::new();
    world.serve("m", &[1]);
    world.engine.script("m:1").unload.shut();
    world.engine.script("other:1").load.shut();
    world.want("other", &[1]);
    world.serve("m", &[2]);
    eventually(|| world.engine.count("unload m:1") == 1 && world.engine.count("load other") == 1);
    world.await_phase("other", 1, Phase::Loading);

    let since = Instant::now();
    for _ in 0..10_000 {
        assert_eq!(world.lease("m").unwrap().version().0, 2);
    }
    assert!(world.lease("other").is_err());
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    // Other models come and go meanwhile: one loader and one unloader hang, one of each is left.
    world.serve("third", &[1]);
    world.serve("third", &[2]);
    world.await_phase("third", 1, Phase::End);
    world.engine.script("m:1").unload.open();
    world.engine.script("other:1").load.open();
    world.await_phase("other", 1, Phase::Available);
    world.await_phase("m", 1, Phase::End);
}

#[test]
fn a_lease_on_one_model_does_not_hold_up_another() {
    let world = World::with(vesta_serving::ServingOptions { load_threads: 1, ..options() });
    world.serve("slow", &[1]);
    let held = world.lease("slow").unwrap();
    world.want("slow", &[]);
    world.await_phase("slow", 1, Phase::Unloading);
    world.serve("m", &[1]);
    world.serve("m", &[2]);
    world.await_phase("m", 1, Phase::End);
    drop(held);
    world.await_phase("slow", 1, Phase::End);
}

/// Whoever reads AVAILABLE can resolve, and whoever cannot resolve does not read AVAILABLE after.
#[test]
fn the_catalog_is_published_before_available_and_after_unloading() {
    let world = World::new();
    let over = AtomicBool::new(false);
    world.serve("m", &[1]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut newest = 1;
                while !over.load(Ordering::Relaxed) {
                    // Version n + 1 is wanted only after n is available, and stays until n + 2 is.
                    if world.phase("m", newest + 1) == Some(Phase::Available) {
                        newest += 1;
                        let found = world.lease("m").map(|lease| lease.version().0);
                        assert!(found.as_ref().is_ok_and(|&found| found >= newest), "{found:?}");
                    }
                    let gone = newest - 1;
                    if world.lease_of("m", gone).is_err() {
                        assert_ne!(world.phase("m", gone), Some(Phase::Available));
                    }
                    assert!(world.lease("m").is_ok(), "a model that is replaced is always there");
                }
            });
        }
        for version in 2..60 {
            world.want("m", &[version]);
            world.await_phase("m", version, Phase::Available);
            world.await_phase("m", version - 1, Phase::End);
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn labels_are_taken_all_or_none() {
    let world = World::new();
    world.serve("m", &[1, 2]);
    world.serving.set_labels(labels(&[("m", "stable", 1), ("m", "canary", 2)]), false).unwrap();
    assert_eq!(world.lease_by_label("m", "stable").unwrap().version().0, 1);
    assert_eq!(world.lease_by_label("m", "canary").unwrap().version().0, 2);

    let status = world
        .serving
        .set_labels(labels(&[("m", "canary", 1), ("m", "stable", 9)]), false)
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "Request to assign label to version 9 of model m, which is not currently available for \
         inference"
    );
    assert_eq!(world.lease_by_label("m", "canary").unwrap().version().0, 2, "nothing changed");

    world.serving.set_labels(labels(&[("m", "stable", 2)]), false).unwrap();
    assert_eq!(world.lease_by_label("m", "stable").unwrap().version().0, 2);
    assert!(world.lease_by_label("m", "canary").is_err(), "the whole map is replaced");
}

#[test]
fn labels_of_unavailable_versions_may_be_new_or_unchanged_only() {
    let world = World::new();
    world.serve("m", &[1]);
    let set = |all: &[(&str, &str, i64)]| world.serving.set_labels(labels(all), true);
    set(&[("m", "stable", 1), ("m", "next", 2)]).unwrap();
    let (code, text) = refusal(world.lease_by_label("m", "next"));
    assert_eq!((code, &*text), (Code::NotFound, "Servable not found for request: Specific(m, 2)"));

    set(&[("m", "stable", 1), ("m", "next", 2)]).unwrap();
    assert_eq!(set(&[("m", "next", 3)]).unwrap_err().code(), Code::FailedPrecondition);
    set(&[("m", "next", 1)]).unwrap();
    assert_eq!(world.lease_by_label("m", "next").unwrap().version().0, 1);
    // A label that was taken away is new again.
    set(&[("m", "stable", 3)]).unwrap();
}

#[test]
fn labels_of_versions_that_are_coming_arrive_with_them() {
    let world = World::new();
    world.serve("m", &[1]);
    world.serving.set_labels(labels(&[("m", "stable", 1)]), false).unwrap();
    let gate = world.engine.script("m:2").load;
    gate.shut();
    let coming = BTreeMap::from([("m".into(), BTreeSet::from([Version(2)]))]);
    let wanted = labels(&[("m", "stable", 2), ("m", "next", 2)]);
    world.serving.set_labels_expecting(wanted.clone(), false, coming.clone()).unwrap();
    world.want("m", &[2]);
    eventually(|| gate.waiting() == 1);
    assert_eq!(world.lease_by_label("m", "stable").unwrap().version().0, 1, "it stays meanwhile");
    assert!(world.lease_by_label("m", "next").is_err());
    gate.open();
    // At no moment does it name nothing.
    eventually(|| world.lease_by_label("m", "stable").unwrap().version().0 == 2);
    assert_eq!(world.lease_by_label("m", "next").unwrap().version().0, 2);

    let wanted = labels(&[("m", "stable", 3)]);
    let refused = world.serving.set_labels_expecting(wanted, false, coming).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "version 3 is not among what comes");
}

#[test]
fn labels_that_wait_are_forgotten_with_the_next_labels() {
    let world = World::new();
    let coming = BTreeMap::from([("m".into(), BTreeSet::from([Version(2)]))]);
    world.serving.set_labels_expecting(labels(&[("m", "next", 2)]), false, coming).unwrap();
    world.serving.set_labels(labels(&[]), false).unwrap();
    world.serve("m", &[2]);
    assert!(world.lease_by_label("m", "next").is_err());
}
