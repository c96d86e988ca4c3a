//! Versions that failed, and files that change under them.

use std::time::Duration;

use vesta_model::{Status, Version};
use vesta_serving::{Phase, ServingOptions};

use crate::world::{World, aspired_in_edition, eventually, options};

fn poll(world: &World, edition: u64) {
    world.serving.aspire(&"m".into(), vec![aspired_in_edition("m", 1, edition)]);
}

fn fail(world: &World, times: usize) {
    let failures = vec![Status::data_loss("the file is cut short"); times];
    *world.engine.script("m:1").failures.lock().unwrap() = failures;
}

/// Waits until everything told so far has been taken in.
fn settle(world: &World) {
    world.want("another", &[]);
    world.serve("n", &[1]);
    world.serve("n", &[]);
}

#[test]
fn a_failed_version_is_tried_again_once_its_files_have_changed_and_are_still() {
    let world = World::new();
    fail(&world, 2);
    poll(&world, 1);
    world.await_phase("m", 1, Phase::End);
    assert!(world.serving.wants_edition(&"m".into(), Version(1)));
    for edition in [1, 1, 2, 3, 4, 1, 1] {
        poll(&world, edition);
        settle(&world);
        assert_eq!(world.engine.count("load m:1"), 1, "edition {edition}");
    }
    poll(&world, 5);
    settle(&world);
    assert_eq!(world.engine.count("load m:1"), 1, "it may still be written to");
    poll(&world, 5);
    eventually(|| world.engine.count("load m:1") == 2);
    world.await_phase("m", 1, Phase::End);
    // These files were tried, and are not tried again.
    poll(&world, 5);
    poll(&world, 5);
    settle(&world);
    assert_eq!(world.engine.count("load m:1"), 2);
    poll(&world, 6);
    poll(&world, 6);
    world.await_phase("m", 1, Phase::Available);
    assert!(!world.serving.wants_edition(&"m".into(), Version(1)));
    // What serves is left alone.
    poll(&world, 7);
    poll(&world, 7);
    settle(&world);
    assert_eq!(world.engine.count("load m:1"), 3);
}

#[test]
fn new_files_are_tried_at_once_though_the_next_try_is_far() {
    let world = World::with(ServingOptions {
        load_retries_max: 5,
        load_retry_interval: Duration::from_secs(3600),
        ..options()
    });
    fail(&world, 1);
    poll(&world, 1);
    eventually(|| world.engine.count("load m:1") == 1);
    poll(&world, 2);
    settle(&world);
    assert_eq!(world.engine.count("load m:1"), 1);
    poll(&world, 2);
    world.await_phase("m", 1, Phase::Available);
}
