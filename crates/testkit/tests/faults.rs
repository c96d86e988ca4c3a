//! Workers that die, hang, lie or leak: what callers see, and that serving goes on.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vesta_model::{Code, Engine, Session, SessionHealth, Shape, Signature, Status, Tensor};
use vesta_testkit::{FakeArtifact, FakeEngine, infer};
use vesta_worker::{
    IsolatedEngine, IsolatedSession, RestartPolicy, WorkerCommand, WorkerOptions, probe,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vesta-fake-worker");

/// Descriptors are counted per process, so the test that counts them runs alone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn options() -> WorkerOptions {
    WorkerOptions {
        handshake_timeout: Duration::from_secs(10),
        run_grace: Duration::from_millis(200),
        restart: RestartPolicy {
            delay_first: Duration::from_millis(10),
            ends_max: 5,
            ..RestartPolicy::default()
        },
        ..WorkerOptions::default()
    }
}

fn engine_in(mode: &str, options: WorkerOptions) -> IsolatedEngine {
    let command = WorkerCommand::new(PROGRAM).arg(mode);
    IsolatedEngine::new(FakeEngine::fake_identity(), command, options)
}

struct Loaded {
    session: std::sync::Arc<IsolatedSession>,
    _artifact: FakeArtifact,
}

fn load(script: &str) -> Loaded {
    load_with(script, options())
}

fn load_with(script: &str, options: WorkerOptions) -> Loaded {
    let artifact = FakeArtifact::new("m", script).unwrap();
    let session = engine_in("serve", options).load_isolated(&artifact.request()).unwrap();
    Loaded { session, _artifact: artifact }
}

fn load_error(mode: &str, script: &str, options: WorkerOptions) -> Status {
    let artifact = FakeArtifact::new("m", script).unwrap();
    engine_in(mode, options).load(&artifact.request()).err().unwrap()
}

impl Loaded {
    fn half(&self, first: f32, deadline: Option<Duration>) -> Result<Vec<f32>, Status> {
        let x = Tensor::of(Shape::vector(2), &[first, first + 1.0])?;
        let deadline = deadline.map(|after| Instant::now() + after);
        let outputs = infer(&*self.session, Signature::DEFAULT_NAME, &[x], &[0], deadline)?;
        Ok(outputs[0].to_vec::<f32>().unwrap())
    }

    fn count(&self) -> Result<i64, Status> {
        let outputs = infer(&*self.session, Signature::DEFAULT_NAME, &[], &[0], None)?;
        Ok(outputs[0].to_vec::<i64>().unwrap()[0])
    }

    fn spread(&self, bytes: i64) -> Result<Vec<Tensor>, Status> {
        let n = Tensor::of(Shape::scalar(), &[bytes])?;
        infer(&*self.session, Signature::DEFAULT_NAME, &[n], &[0], None)
    }

    fn pid(&self) -> Pid {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(pid) = self.session.health().pid {
                return Pid::from_raw(pid as i32).unwrap();
            }
            assert!(Instant::now() < until, "no worker: {:?}", self.session.health());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the worker has been started again `restarts` times and serves.
    fn serves_after(&self, restarts: u64) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.session.health().restarts < restarts || self.session.health().pid.is_none() {
            assert!(Instant::now() < until, "{:?}", self.session.health());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn is_alive(pid: u32) -> bool {
    // A zombie that its parent has yet to reap is dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[test]
fn a_killed_worker_costs_a_stateless_run_nothing() {
    let _alone = alone();
    let loaded = load("model half_plus_two\non run sleep 200");
    let first = loaded.pid();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3)
            .map(|i| {
                scope.spawn({
                    let loaded = &loaded;
                    move || loaded.half(i as f32, Some(Duration::from_secs(20)))
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(80));
        kill_process(first, Signal::KILL).unwrap();
        for (i, run) in runs.into_iter().enumerate() {
            let y = run.join().unwrap().unwrap();
            assert_eq!(y[0], i as f32 / 2.0 + 2.0);
        }
    });
    assert_ne!(loaded.pid(), first);
    assert_eq!(loaded.session.health().restarts, 1);
}

#[test]
fn each_signal_that_a_crash_brings_ends_a_worker_and_is_told() {
    let _alone = alone();
    let loaded = load("model half_plus_two");
    for (restarts, signal) in (1..).zip([Signal::SEGV, Signal::ABORT, Signal::BUS, Signal::KILL]) {
        assert_eq!(loaded.half(2.0, None).unwrap(), [3.0, 3.5]);
        kill_process(loaded.pid(), signal).unwrap();
        loaded.serves_after(restarts);
    }
    assert_eq!(loaded.half(2.0, None).unwrap(), [3.0, 3.5]);
}

#[test]
fn a_stateful_run_is_never_sent_twice() {
    let _alone = alone();
    let loaded = load("model counter\non run kill once");
    let status = loaded.count().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "the worker process of model m version 1 ended (signal 9); it is being restarted"
    );
    loaded.serves_after(1);
    assert_eq!(loaded.count().unwrap(), 1);
}

#[test]
fn a_stateful_run_that_the_dead_worker_had_not_begun_is_sent_again() {
    let _alone = alone();
    let one_at_a_time = WorkerOptions { runs_max: 1, ..options() };
    let loaded = load_with("model counter\non run sleep 400", one_at_a_time);
    let first = loaded.pid();
    std::thread::scope(|scope| {
        let begun = scope.spawn(|| loaded.count());
        std::thread::sleep(Duration::from_millis(100));
        let waits = scope.spawn(|| loaded.count());
        std::thread::sleep(Duration::from_millis(100));
        kill_process(first, Signal::KILL).unwrap();
        let status = begun.join().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("ended (signal 9)"), "{status}");
        assert_eq!(waits.join().unwrap(), Ok(1));
    });
    assert_eq!(loaded.session.health().restarts, 1);
}

#[test]
fn whoever_watches_a_session_hears_of_its_restarts_and_of_its_end() {
    let _alone = alone();
    let restart = RestartPolicy { ends_max: 1, ..options().restart };
    let loaded = load_with("model counter\non run exit 3", WorkerOptions { restart, ..options() });
    let heard: Arc<Mutex<Vec<SessionHealth>>> = Arc::default();
    let listener = {
        let heard = Arc::clone(&heard);
        Arc::new(move |health| heard.lock().unwrap().push(health))
    };
    assert_eq!(loaded.session.watch(listener), SessionHealth::Serving);
    assert!(loaded.count().is_err());
    loaded.serves_after(1);
    assert!(loaded.count().is_err());
    let until = Instant::now() + Duration::from_secs(20);
    while heard.lock().unwrap().len() < 3 {
        assert!(Instant::now() < until, "{heard:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    let told: Vec<String> = heard
        .lock()
        .unwrap()
        .iter()
        .map(|health| match health {
            SessionHealth::Serving => "serving".to_owned(),
            SessionHealth::Restarting(why) => format!("restarting: {}", why.message()),
            SessionHealth::GivenUp(why) => format!("given up: {}", why.message()),
        })
        .collect();
    let ended = "the worker process of model m version 1 ended (exit status 3)";
    assert_eq!(told[0], format!("restarting: {ended}; it is being restarted"));
    assert_eq!(told[1], "serving");
    assert!(told[2].starts_with(&format!("given up: {ended}; that was end 2")), "{told:?}");
    // How a session ends that nobody holds any more is of no interest.
    drop(loaded);
    assert_eq!(heard.lock().unwrap().len(), 3);
}

#[test]
fn a_run_that_aborts_its_worker_each_time_is_retried_once() {
    let _alone = alone();
    let loaded = load("model half_plus_two\non run abort");
    let status = loaded.half(0.0, None).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("(signal 6)"), "{status}");
    loaded.serves_after(2);
    assert_eq!(loaded.session.health().restarts, 2);
}

#[test]
fn a_crash_loop_is_given_up_with_what_to_do() {
    let _alone = alone();
    let restart = RestartPolicy { ends_max: 1, ..options().restart };
    let loaded = load_with("model counter\non run exit 3", WorkerOptions { restart, ..options() });
    let status = loaded.count().unwrap_err();
    assert!(status.message().contains("(exit status 3)"), "{status}");
    loaded.serves_after(1);
    let status = loaded.count().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("load the version again"), "{status}");
    // From now on the answer comes at once.
    let status = loaded.count().unwrap_err();
    assert!(status.message().contains("load the version again"), "{status}");
    assert_eq!(loaded.session.health().pid, None);
}

#[test]
fn a_panic_is_an_answer_and_replaces_the_session() {
    let _alone = alone();
    let loaded = load("model half_plus_two\non run panic once");
    let status = loaded.half(0.0, None).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("as the script says"), "{status}");
    loaded.serves_after(1);
    assert_eq!(loaded.half(2.0, None).unwrap(), [3.0, 3.5]);
}

#[test]
fn garbage_in_the_middle_ends_the_worker_not_the_server() {
    let _alone = alone();
    let loaded = load("model counter\non run garbage once");
    let status = loaded.count().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("was ended because"), "{status}");
    assert!(status.message().contains("protocol"), "{status}");
    loaded.serves_after(1);
    assert_eq!(loaded.count().unwrap(), 1);

    let loaded = load("model half_plus_two\non run garbage once");
    assert_eq!(loaded.half(2.0, None).unwrap(), [3.0, 3.5]);
}

#[test]
fn a_run_that_hangs_ends_at_its_deadline_and_then_its_worker() {
    let _alone = alone();
    let loaded = load("model half_plus_two\non run hang once");
    let first = loaded.pid();
    let before = Instant::now();
    let status = loaded.half(0.0, Some(Duration::from_millis(150))).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    // The other threads of the worker serve meanwhile.
    assert_eq!(loaded.half(2.0, None).unwrap(), [3.0, 3.5]);
    loaded.serves_after(1);
    assert_ne!(loaded.pid(), first);
    assert_eq!(loaded.half(2.0, None).unwrap(), [3.0, 3.5]);
    assert_eq!(loaded.session.health().arena_bytes_in_use, 0);
}

#[test]
fn a_run_without_a_deadline_has_a_limit() {
    let _alone = alone();
    let options = WorkerOptions { run_limit: Duration::from_millis(100), ..options() };
    let loaded = load_with("model counter\non run hang", options);
    let status = loaded.count().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[test]
fn a_late_answer_gives_its_slot_back_and_keeps_the_worker() {
    let _alone = alone();
    let options = WorkerOptions { run_grace: Duration::from_secs(20), ..options() };
    let loaded = load_with("model half_plus_two\non run sleep 300 once", options);
    let status = loaded.half(0.0, Some(Duration::from_millis(50))).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(loaded.session.health().arena_bytes_in_use > 0);
    let until = Instant::now() + Duration::from_secs(10);
    while loaded.session.health().arena_bytes_in_use > 0 {
        assert!(Instant::now() < until, "the slot did not come home");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(loaded.session.health().restarts, 0);
}

#[test]
fn requests_during_a_restart_are_refused_at_once() {
    let _alone = alone();
    let loaded = load("model half_plus_two");
    // The second start takes long: the mark of the first is there by now.
    std::fs::write(
        loaded._artifact.path().join("fake.txt"),
        "model half_plus_two\non load sleep 500",
    )
    .unwrap();
    let pid = loaded.pid();
    kill_process(pid, Signal::KILL).unwrap();
    while loaded.session.health().pid == Some(pid.as_raw_nonzero().get() as u32) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = Instant::now();
    let status = loaded.half(0.0, None).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(before.elapsed() < Duration::from_millis(300), "{:?}", before.elapsed());
    assert!(loaded.session.health().unavailable.unwrap().contains("being restarted"));
    loaded.serves_after(1);
    assert_eq!(loaded.half(2.0, None).unwrap(), [3.0, 3.5]);
}

#[test]
fn files_that_changed_under_a_model_are_not_served() {
    let _alone = alone();
    let restart = RestartPolicy { ends_max: 1, ..options().restart };
    let loaded = load_with("model counter", WorkerOptions { restart, ..options() });
    std::fs::write(loaded._artifact.path().join("fake.txt"), "model half_plus_two").unwrap();
    kill_process(loaded.pid(), Signal::KILL).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !loaded.session.health().unavailable.is_some_and(|why| why.contains("files of model m")) {
        assert!(Instant::now() < until, "{:?}", loaded.session.health());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_model_that_does_not_load_says_why() {
    let _alone = alone();
    let error = |script: &str| load_error("serve", script, options());
    let status = error("on load error DATA_LOSS the weights are cut short");
    assert_eq!(status, Status::data_loss("the weights are cut short"));
    let status = error("on load panic");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("panicked while loading"), "{status}");
    let status = error("on load exit 3");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("(exit status 3) while loading"), "{status}");
    let status = error("on load abort");
    assert!(status.message().contains("(signal 6) while loading"), "{status}");
    let limited = WorkerOptions { load_timeout: Duration::from_millis(300), ..options() };
    let status = load_error("serve", "on load hang", limited);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("within 300 ms while loading"), "{status}");
}

#[test]
fn a_worker_that_is_none_is_told_plainly() {
    let _alone = alone();
    let error = |mode: &str| load_error(mode, "model counter", options());
    for mode in ["garbage-hello", "nonsense-hello"] {
        let status = error(mode);
        assert_eq!(status.code(), Code::Internal, "{mode}");
        assert!(status.message().contains("protocol"), "{mode}: {status}");
    }
    let status = error("serve-other-build");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("`another`"), "{status}");
    let status = error("exit");
    assert!(status.message().contains("(exit status 7) while saying hello"), "{status}");
    let hasty = WorkerOptions { handshake_timeout: Duration::from_millis(200), ..options() };
    let status = load_error("silent", "model counter", hasty);
    assert_eq!(status.code(), Code::DeadlineExceeded);

    let command = WorkerCommand::new("/no/such/program");
    let engine = IsolatedEngine::new(FakeEngine::fake_identity(), command, options());
    let artifact = FakeArtifact::new("m", "model counter").unwrap();
    let status = engine.load(&artifact.request()).err().unwrap();
    assert!(status.message().contains("/no/such/program"), "{status}");
    let mut other = FakeEngine::fake_identity();
    other.name = "other".to_owned();
    let command = WorkerCommand::new(PROGRAM).arg("serve");
    let status = IsolatedEngine::new(other, command, options()).load(&artifact.request());
    assert!(status.err().unwrap().message().contains("runs engine `fake`, not `other`"));
}

#[test]
fn large_outputs_come_in_memory_of_their_own_and_are_learned() {
    let _alone = alone();
    let loaded = load("model spread");
    for bytes in [0, 1, 60_000, 70_000, 5_000_000, 5_000_000, 100] {
        let outputs = loaded.spread(bytes).unwrap();
        assert_eq!(outputs[0].shape().dims(), [bytes as usize]);
        assert!(outputs[0].bytes().iter().all(|&b| b == 1));
        assert_eq!(outputs[0].bytes().as_ptr() as usize % 64, 0);
    }
    assert_eq!(loaded.session.health().arena_bytes_in_use, 0);
    let status = loaded.spread(2 << 30).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("arena_bytes_max"), "{status}");
    assert!(loaded.spread(10).is_ok());
}

#[test]
fn shared_memory_is_bounded_and_comes_back_with_the_outputs() {
    let _alone = alone();
    let options = WorkerOptions { arena_bytes_max: 256 * 1024, ..options() };
    let loaded = load_with("model spread", options);
    let mut held: Vec<Vec<Tensor>> = Vec::new();
    let status = loop {
        match loaded.spread(1000) {
            Ok(outputs) => held.push(outputs),
            Err(status) => break status,
        }
    };
    assert_eq!(held.len(), 4);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("used up"), "{status}");
    held.pop();
    assert!(loaded.spread(1000).is_ok());
}

#[test]
fn a_quiet_model_gives_its_shared_memory_back() {
    let _alone = alone();
    let options = WorkerOptions { idle_time: Duration::from_millis(100), ..options() };
    let loaded = load_with("model spread", options);
    for _ in 0..2 {
        assert_eq!(loaded.spread(3_000_000).unwrap()[0].bytes().len(), 3_000_000);
        assert!(loaded.session.health().arena_bytes > 0);
        let until = Instant::now() + Duration::from_secs(10);
        while loaded.session.health().arena_bytes > 0 {
            assert!(Instant::now() < until, "{:?}", loaded.session.health());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(loaded.session.health().restarts, 0);
}

#[test]
fn an_engine_that_keeps_an_input_keeps_its_memory_alone() {
    let _alone = alone();
    let loaded = load("model half_plus_two\nkeep inputs");
    for i in 0..20 {
        assert_eq!(loaded.half(i as f32, None).unwrap()[0], i as f32 / 2.0 + 2.0);
    }
    let health = loaded.session.health();
    assert_eq!((health.arena_bytes, health.restarts), (0, 0));
}

#[test]
fn many_loads_leave_no_descriptor_process_or_memory() {
    let _alone = alone();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let round = || {
        let loaded = load("model half_plus_two");
        loaded.half(1.0, None).unwrap();
        let pid = loaded.pid().as_raw_nonzero().get() as u32;
        assert!(loaded.session.health().resident_bytes.unwrap() > 0);
        drop(loaded);
        assert!(!is_alive(pid), "the worker outlived its session");
        let failed = load_error("serve", "on load exit 1", options());
        assert_eq!(failed.code(), Code::Unavailable);
    };
    round();
    let before = descriptors();
    for _ in 0..50 {
        round();
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn workers_die_with_their_server() {
    let _alone = alone();
    let artifact = FakeArtifact::new("m", "model half_plus_two").unwrap();
    let mut server = Command::new(PROGRAM)
        .arg("parent")
        .arg(artifact.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let worker: u32 = line.trim().parse().unwrap();
    assert!(is_alive(worker));
    server.kill().unwrap();
    server.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while is_alive(worker) {
        assert!(Instant::now() < until, "the worker outlived its server");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn unloading_ends_runs_in_order() {
    let _alone = alone();
    let engine = engine_in("serve", options());
    let artifact = FakeArtifact::new("m", "model half_plus_two").unwrap();
    let session = engine.load_isolated(&artifact.request()).unwrap();
    assert_eq!(engine.workers().len(), 1);
    assert_eq!(engine.workers()[0].unavailable, None);
    let before = Instant::now();
    drop(session);
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    assert_eq!(engine.workers(), []);
}

#[test]
fn workers_that_die_all_the_time_never_mix_up_rows() {
    let _alone = alone();
    let restart = RestartPolicy {
        ends_max: 1000,
        unproven_max: 1000,
        delay_max: Duration::ZERO,
        ..options().restart
    };
    let loaded = load_with("model half_plus_two", WorkerOptions { restart, ..options() });
    let until = Instant::now() + Duration::from_secs(3);
    let right = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn({
                    let loaded = &loaded;
                    move || {
                        let mut right = 0u32;
                        let mut value = thread as f32 * 1000.0;
                        while Instant::now() < until {
                            value += 1.0;
                            match loaded.half(value, Some(Duration::from_secs(10))) {
                                Ok(y) => {
                                    assert_eq!(y, [value / 2.0 + 2.0, (value + 1.0) / 2.0 + 2.0]);
                                    right += 1;
                                }
                                Err(status) => {
                                    assert_eq!(status.code(), Code::Unavailable, "{status}")
                                }
                            }
                        }
                        right
                    }
                })
            })
            .collect();
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(150));
            let _ = kill_process(loaded.pid(), Signal::KILL);
        }
        runs.into_iter().map(|run| run.join().unwrap()).sum::<u32>()
    });
    assert!(right > 100, "{right} runs");
    assert!(loaded.session.health().restarts > 5);
    assert_eq!(loaded.session.health().arena_bytes_in_use, 0);
}

#[test]
fn a_probe_tells_harm_from_refusal() {
    let _alone = alone();
    let probed = |script: &str| {
        let artifact = FakeArtifact::new("m", script).unwrap();
        let command = WorkerCommand::new(PROGRAM).arg("serve");
        let limit = Duration::from_millis(500);
        probe(FakeEngine::fake_identity(), command, options(), &artifact.request(), limit)
    };
    let good = probed("model half_plus_two").unwrap();
    assert_eq!(good.ran, [(Signature::DEFAULT_NAME.to_owned(), None)]);
    let refused = probed("model half_plus_two\non run error INVALID_ARGUMENT zeros").unwrap();
    assert_eq!(refused.ran[0].1, Some(Status::invalid_argument("zeros")));
    let skipped = probed("model counter").unwrap();
    assert_eq!(skipped.skipped[0].1, "it is stateful");
    for (script, code) in [
        ("on run abort", Code::Unavailable),
        ("on run panic", Code::Internal),
        ("on run hang", Code::DeadlineExceeded),
        ("on load kill", Code::Unavailable),
    ] {
        let status = probed(script).unwrap_err();
        assert_eq!(status.code(), code, "{script}: {status}");
    }
}
