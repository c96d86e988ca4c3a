//! Checks of scripted sessions: what is found, what is dropped, who serves afterwards.

use std::sync::Condvar;
use std::time::Duration;

use vesta_model::{DType, InputLayout, Shape};

use super::*;
use crate::choice::contest::Serve;
use crate::choice::scripted::{Scripted, doubled, scaled, signature};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes down what it hears.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Outcome>>,
    refuted: Mutex<Vec<String>>,
}

impl Observer for Ear {
    fn checked(&self, outcome: Outcome) {
        self.heard.lock().unwrap().push(outcome);
    }

    fn refuted(&self, why: &str, _: &Arc<dyn Session>) {
        self.refuted.lock().unwrap().push(why.to_owned());
    }
}

impl Ear {
    fn count(&self, outcome: Outcome) -> usize {
        self.heard.lock().unwrap().iter().filter(|&&heard| heard == outcome).count()
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} never came");
        thread::sleep(Duration::from_millis(1));
    }
}

type Script = fn(&[Tensor]) -> Result<Vec<Tensor>, Status>;

fn scripted(answer: Script) -> Scripted {
    Scripted::new(signature(&[None]), answer)
}

/// Every run of `chosen` is checked by `reference`.
fn shadowed(chosen: Script, reference: Script) -> (Arc<dyn Session>, Arc<Ear>) {
    held_to(Arc::new(scripted(chosen)), Box::new(scripted(reference)))
}

fn held_to(chosen: Arc<dyn Session>, reference: Box<dyn Opened>) -> (Arc<dyn Session>, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    let session = Shadowed::start(chosen, reference, 1.0, Arc::clone(&ear) as _).unwrap();
    (session, ear)
}

fn request(elements: usize) -> RunRequest {
    let layout = InputLayout { shape: Shape::vector(elements), string_bytes: 0 };
    RunRequest { signature: "s".to_owned(), inputs: vec![layout], outputs: vec![0] }
}

fn prepared(session: &dyn Session, values: &[f32]) -> Box<dyn Run> {
    let x = Tensor::of(Shape::vector(values.len()), values).unwrap();
    let mut run = session.prepare(&request(values.len())).unwrap();
    run.input(0).copy_from_slice(x.bytes());
    run
}

fn answer(session: &dyn Session, values: &[f32]) -> Result<Vec<f32>, Status> {
    let outputs = prepared(session, values).run(None)?;
    Ok(outputs[0].to_vec::<f32>().unwrap())
}

fn off(inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    scaled(inputs, 2.01)
}

#[test]
fn answers_that_agree_change_nothing() {
    let (session, ear) = shadowed(doubled, doubled);
    for _ in 0..3 {
        assert_eq!(answer(&*session, &[1.0, -3.0]), Ok(vec![2.0, -6.0]));
    }
    wait_until("the third check", || ear.count(Outcome::Agreed) == 3);
    drop(session);
    assert!(ear.refuted.lock().unwrap().is_empty());
}

#[test]
fn where_answers_differ_the_reference_serves_from_then_on() {
    let (session, ear) = shadowed(off, doubled);
    assert_eq!(answer(&*session, &[1.0, 100.0]), Ok(vec![2.01, 201.0]));
    wait_until("the difference", || !ear.refuted.lock().unwrap().is_empty());
    assert_eq!(answer(&*session, &[1.0, 100.0]), Ok(vec![2.0, 200.0]));
    let why = "signature s: output y differs by 5.0e-3 of its largest, 1e-4 is allowed";
    assert_eq!(*ear.refuted.lock().unwrap(), [why]);
    // What serves now is the reference itself.
    drop(session);
    assert_eq!(*ear.heard.lock().unwrap(), [Outcome::Disagreed]);
}

#[test]
fn a_refusal_of_one_side_is_a_difference_and_its_text_is_not_told() {
    fn refusing(_: &[Tensor]) -> Result<Vec<Tensor>, Status> {
        Err(Status::invalid_argument("there is no user called Joan"))
    }
    for (chosen, reference, want) in [
        (refusing as Script, doubled as Script, "it refuses what the reference answers"),
        (doubled, refusing, "it answers what the reference refuses"),
    ] {
        let (session, ear) = shadowed(chosen, reference);
        let said = answer(&*session, &[1.0]);
        assert_eq!(said.is_err(), want.starts_with("it refuses"), "{said:?}");
        wait_until("the difference", || !ear.refuted.lock().unwrap().is_empty());
        let told = ear.refuted.lock().unwrap()[0].clone();
        assert!(told.contains(want) && told.contains("INVALID_ARGUMENT"), "{told}");
        assert!(!told.contains("Joan"), "{told}");
    }
    let (session, ear) = shadowed(refusing, refusing);
    assert!(answer(&*session, &[1.0]).is_err());
    wait_until("the check", || ear.count(Outcome::Agreed) == 1);
}

#[test]
fn failures_refute_nobody() {
    fn failing(_: &[Tensor]) -> Result<Vec<Tensor>, Status> {
        Err(Status::unavailable("its process ended"))
    }
    let (session, ear) = shadowed(doubled, failing);
    assert_eq!(answer(&*session, &[1.0]), Ok(vec![2.0]));
    wait_until("the check", || ear.count(Outcome::Failed) == 1);
    assert_eq!(answer(&*session, &[1.0]), Ok(vec![2.0]));
    drop(session);
    let (session, ear) = shadowed(failing, doubled);
    assert!(answer(&*session, &[1.0]).is_err());
    drop(session);
    assert!(ear.heard.lock().unwrap().is_empty() && ear.refuted.lock().unwrap().is_empty());
}

/// A reference whose runs wait until they are let go.
#[derive(Clone)]
struct Gated {
    scripted: Scripted,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Gated {
    fn new() -> Gated {
        Gated { scripted: scripted(doubled), gate: Arc::default() }
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl Session for Gated {
    fn description(&self) -> &ModelDescription {
        self.scripted.description()
    }

    fn prepare(&self, _: &RunRequest) -> Result<Box<dyn Run>, Status> {
        Err(Status::internal("it runs over what lies ready"))
    }

    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let is_open = self.gate.0.lock().unwrap();
        let waited = self.gate.1.wait_timeout_while(is_open, PATIENCE, |is_open| !*is_open);
        assert!(*waited.unwrap().0, "nobody opened the gate");
        self.scripted.run_over(request, inputs, deadline)
    }
}

impl Opened for Gated {
    fn session(&self) -> &dyn Session {
        self
    }

    fn cpu_time(&self) -> Option<Duration> {
        None
    }

    fn close(self: Box<Self>) -> Serve {
        Box::new(move || Ok(Arc::new(*self)))
    }

    fn stay(self: Box<Self>) -> Arc<dyn Session> {
        Arc::new(*self)
    }
}

#[test]
fn no_run_waits_for_a_check_and_what_is_too_much_is_counted() {
    let reference = Gated::new();
    let (session, ear) = held_to(Arc::new(scripted(doubled)), Box::new(reference.clone()));
    for _ in 0..SAMPLES_MAX + 5 {
        assert_eq!(answer(&*session, &[1.0]), Ok(vec![2.0]));
    }
    assert_eq!(ear.count(Outcome::Dropped), 5);
    reference.open();
    wait_until("the checks", || ear.count(Outcome::Agreed) == SAMPLES_MAX);
    // There is room again.
    assert_eq!(answer(&*session, &[1.0]), Ok(vec![2.0]));
    wait_until("one more check", || ear.count(Outcome::Agreed) == SAMPLES_MAX + 1);
}

#[test]
fn a_version_goes_whatever_waits_to_be_checked() {
    let reference = Gated::new();
    let (session, ear) = held_to(Arc::new(scripted(doubled)), Box::new(reference.clone()));
    for _ in 0..SAMPLES_MAX {
        assert_eq!(answer(&*session, &[1.0]), Ok(vec![2.0]));
    }
    let going = thread::spawn(move || drop(session));
    reference.open();
    going.join().unwrap();
    assert!(ear.count(Outcome::Agreed) <= SAMPLES_MAX);
    assert_eq!(Arc::strong_count(&reference.gate), 1, "the reference is gone, too");
}

#[test]
fn a_run_that_is_larger_than_all_room_is_not_kept() {
    fn first(inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
        Ok(vec![inputs[0].rows(0..1)?])
    }
    let (session, ear) = shadowed(first, first);
    let run = session.prepare(&request((64 << 20) / 4 + 1)).unwrap();
    assert_eq!(run.run(None).unwrap()[0].to_vec::<f32>(), Some(vec![0.0]));
    assert_eq!(*ear.heard.lock().unwrap(), [Outcome::Dropped]);
}

/// A session that tells when it goes, and how it is.
struct Watched {
    scripted: Scripted,
    health: SessionHealth,
    is_gone: Arc<AtomicBool>,
}

impl Session for Watched {
    fn description(&self) -> &ModelDescription {
        self.scripted.description()
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        self.scripted.prepare(request)
    }

    fn watch(&self, _: HealthListener) -> SessionHealth {
        self.health.clone()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Release);
    }
}

#[test]
fn runs_end_where_they_began_and_the_last_of_them_lets_the_session_go() {
    let is_gone = Arc::new(AtomicBool::new(false));
    let health = SessionHealth::Restarting(Status::unavailable("it ended"));
    let chosen =
        Watched { scripted: scripted(off), health: health.clone(), is_gone: Arc::clone(&is_gone) };
    let (session, ear) = held_to(Arc::new(chosen), Box::new(scripted(doubled)));
    let (tell, told) = std::sync::mpsc::channel();
    let listener: HealthListener = Arc::new(move |health| tell.send(health).unwrap());
    assert_eq!(session.watch(listener), health);
    let begun = prepared(&*session, &[1.0]);
    assert_eq!(answer(&*session, &[1.0]), Ok(vec![2.01]));
    // The version serves again, by the reference.
    assert_eq!(told.recv_timeout(PATIENCE), Ok(SessionHealth::Serving));
    wait_until("the difference", || !ear.refuted.lock().unwrap().is_empty());
    assert!(!is_gone.load(Ordering::Acquire));
    assert_eq!(begun.run(None).unwrap()[0].to_vec::<f32>(), Some(vec![2.01]));
    wait_until("the end of the former session", || is_gone.load(Ordering::Acquire));
}

#[test]
fn state_and_other_descriptions_stand_in_the_way() {
    let of = |signature: Signature| Scripted::new(signature, doubled).description().clone();
    let plain = of(signature(&[None]));
    assert_eq!(obstacle(&plain, &plain), None);
    // Shapes are information only.
    assert_eq!(obstacle(&plain, &of(signature(&[Some(3)]))), None);
    let stateful = of(Signature { stateful: true, ..signature(&[None]) });
    for (chosen, reference) in [(&plain, &stateful), (&stateful, &plain)] {
        assert_eq!(obstacle(chosen, reference).as_deref(), Some("it keeps state"));
    }
    let mut other = signature(&[None]);
    other.outputs[0].dtype = DType::F64;
    let why = obstacle(&plain, &of(other)).unwrap();
    assert_eq!(why, "the reference describes signature s in another way");
    let renamed = of(Signature { name: "t".to_owned(), ..signature(&[None]) });
    assert!(obstacle(&plain, &renamed).is_some());
}
