//! The engines that could serve a version, tried one after the other.
//!
//! Owns: who is tried, in which order, and when there is no need to. May not know: how an engine
//! loads, what a file looks like.
//! Invariant: whoever wins was loaded, answered every case, and is the reference or agrees with it;
//! all others are closed by the time the winner is handed out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vesta_engines::EngineName;
use vesta_frontends::Weighed;
use vesta_model::{Code, LoadRequest, RunRequest, Session, Status, Tensor};
use vesta_worker::LoweredProcess;

use super::compare::compare_answers;
use super::loads::Loads;
use super::rule::{Agreeing, choose};
use super::trial::{Case, Found, Ran, Trial};
use super::{Exactness, simplicity};

/// A run that takes less of the processor than this needs no contest: what a request costs besides is
/// as much, so that no engine could be worth the start of another one.
const QUICK: Duration = Duration::from_millis(1);
/// A first run may take so many times longer than later ones.
const SLOWER_AT_FIRST: u32 = 8;

/// An engine that might serve a version.
pub(crate) trait Contender: Send + Sync {
    /// Which engine.
    fn name(&self) -> EngineName;

    /// Its release.
    fn release(&self) -> &str;

    /// Loads the version as it would be served, or as near to that as does no harm.
    ///
    /// # Errors
    /// Those of the engine.
    fn open(&self, request: &LoadRequest) -> Result<Box<dyn Opened>, Status>;
}

/// A version loaded for trial.
pub(crate) trait Opened: Send {
    /// What is tried.
    fn session(&self) -> &dyn Session;

    /// Processor time that the engine has used so far, where it can be told.
    fn cpu_time(&self) -> Option<Duration>;

    /// Puts the engine behind those that serve, until the answer is dropped.
    fn step_back(&self) -> Option<LoweredProcess> {
        None
    }

    /// The trial is over: lets go of what serving does not need, and says how to serve.
    fn close(self: Box<Self>) -> Serve;

    /// The very session that is tried, to serve as it is.
    fn stay(self: Box<Self>) -> Arc<dyn Session>;
}

/// Gives the version as it is served, or the errors of its engine. Dropped, it closes what is open.
pub(crate) type Serve = Box<dyn FnOnce() -> Result<Arc<dyn Session>, Status> + Send>;

/// Runs that were recorded of a version, made on a session of it.
pub(crate) type Recorded<'a> = &'a dyn Fn(&dyn Session) -> Vec<(RunRequest, Vec<Tensor>)>;

/// How a contest is held.
pub(crate) struct Settings<'a> {
    /// Time for the runs of all engines together.
    pub(crate) budget: Duration,
    /// Whether all engines load from the start. Worth while where the files are large: most of a contest
    /// is loads then, and runs are hardly short enough to do without the others.
    pub(crate) all_at_once: bool,
    /// Which engine the others are held to.
    pub(crate) exactness: Exactness,
    /// Held while an engine is tried, so that two trials do not disturb each other.
    pub(crate) turn: &'a Mutex<()>,
    /// What to try them on; where it gives nothing, inputs are drawn.
    pub(crate) recorded: Recorded<'a>,
}

/// Why an engine serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It is the fastest of those that agree.
    Measured,
    /// It was so when it was last measured.
    Remembered,
    /// Its runs are so short that no other could be worth while.
    Quick,
    /// No other could run the version.
    Only,
    /// There was nothing to compare, for this reason.
    Unmeasured(String),
    /// The operator said so.
    Named,
    /// Another served until its answers differed, in this way.
    Refuted(String),
}

impl Reason {
    /// The word for it on the metrics page.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Reason::Measured => "measured",
            Reason::Remembered => "remembered",
            Reason::Quick => "quick",
            Reason::Only => "only",
            Reason::Unmeasured(_) => "unmeasured",
            Reason::Named => "named",
            Reason::Refuted(_) => "refuted",
        }
    }
}

/// What became of one engine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: EngineName,
    pub(crate) release: String,
    /// Whether the others were compared with it.
    pub(crate) is_reference: bool,
    /// Processor time of one run of every case and the largest error, or why it is out.
    pub(crate) outcome: Result<(Duration, f64), Status>,
}

impl Entry {
    /// As it is shown.
    pub(crate) fn weighed(&self) -> Weighed {
        Weighed {
            engine: self.name.as_str().to_owned(),
            release: self.release.clone(),
            is_reference: self.is_reference,
            outcome: match &self.outcome {
                Ok((cpu, error)) => Ok((millis(*cpu), *error)),
                Err(status) => Err(status.message().to_owned()),
            },
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=={} ", self.name, self.release)?;
        match &self.outcome {
            Ok((cpu, _)) if self.is_reference => write!(f, "{:.2} ms (reference)", millis(*cpu)),
            Ok((cpu, error)) => write!(f, "{:.2} ms (error {error:.1e})", millis(*cpu)),
            Err(status) => write!(f, "is out: {}", status.message()),
        }
    }
}

/// As a number of milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The winner, and how that came about.
pub(crate) struct Finding {
    pub(crate) name: EngineName,
    pub(crate) release: String,
    pub(crate) serve: Serve,
    pub(crate) reason: Reason,
    /// Every engine that was looked at.
    pub(crate) entries: Vec<Entry>,
    /// What the runs took, loads left out.
    pub(crate) trial: Duration,
}

impl Finding {
    /// Whether the same would be found again: several were measured, and none of them had an accident.
    pub(crate) fn is_lasting(&self) -> bool {
        let is_decided = |entry: &Entry| match &entry.outcome {
            Ok(_) => true,
            Err(status) => matches!(status.code(), Code::Unimplemented | Code::DataLoss),
        };
        self.reason == Reason::Measured && self.entries.iter().all(is_decided)
    }
}

/// A contest for one version.
pub(crate) struct Contest<'a> {
    request: &'a LoadRequest,
    settings: Settings<'a>,
    share: Duration,
    cases: Vec<Case>,
    field: Vec<Standing<'a>>,
    entries: Vec<Entry>,
    trial: Duration,
}

/// An engine that has run the cases.
struct Standing<'a> {
    contender: &'a dyn Contender,
    opened: Box<dyn Opened>,
    ran: Ran,
}

impl<'a> Contest<'a> {
    /// A contest under these settings.
    pub(crate) fn new(request: &'a LoadRequest, settings: Settings<'a>) -> Contest<'a> {
        Contest {
            request,
            share: settings.budget,
            settings,
            cases: Vec::new(),
            field: Vec::new(),
            entries: Vec::new(),
            trial: Duration::ZERO,
        }
    }

    /// Tries `contenders`: the embedded engine first, since its start costs nothing, then the most
    /// exact one. Once the cases are known the others run them as they come, and when all have, the time
    /// of each is taken while nothing else goes on.
    ///
    /// # Errors
    /// What the first of them says of a model that is broken; when none can run the version, what the
    /// most exact one says.
    pub(crate) fn hold(mut self, contenders: &'a [Arc<dyn Contender>]) -> Result<Finding, Status> {
        let mut order: Vec<&Arc<dyn Contender>> = contenders.iter().collect();
        let exactness = self.settings.exactness;
        order.sort_by_key(|c| (c.name() != EngineName::Embedded, exactness(c.name())));
        // One half for the answers, one for the times.
        self.share = self.settings.budget / u32::try_from(2 * order.len().max(1)).unwrap_or(1);
        let others = order.get(1..).unwrap_or_default();
        let mut loads = self.settings.all_at_once.then(|| Loads::begin(others, self.request));
        let mut rest = order.len();
        for (index, &contender) in order.iter().enumerate() {
            if !self.field.is_empty() {
                rest = index;
                break;
            }
            let opened = match (index.checked_sub(1), &mut loads) {
                (Some(at), Some(loads)) => loads.wait_for(at),
                _ => contender.open(self.request),
            };
            let is_last = index + 1 == order.len();
            match opened {
                Ok(opened) => {
                    if let Some(finding) = self.begin(&**contender, opened, is_last) {
                        return Ok(finding);
                    }
                }
                Err(status) if index == 0 && is_of_the_model(&status) => return Err(status),
                Err(status) => self.exclude(&**contender, status),
            }
        }
        let mut loads = loads.unwrap_or_else(|| Loads::begin(&order[rest..], self.request));
        while let Some((contender, opened)) = loads.next() {
            match opened {
                Ok(opened) => self.follow(contender, opened),
                Err(status) => self.exclude(contender, status),
            }
        }
        let timed = self.time_all();
        self.decide(timed)
    }

    /// The first engine that loads: finds the cases. A finding where there is no need for more.
    fn begin(
        &mut self,
        contender: &'a dyn Contender,
        opened: Box<dyn Opened>,
        is_last: bool,
    ) -> Option<Finding> {
        if is_last {
            return Some(self.found(contender, opened.close(), Reason::Only));
        }
        let found = match self.first_trial(&*opened) {
            Ok(found) => found,
            Err(status) => return self.failed_to_begin(contender, opened, status),
        };
        if found.cases.is_empty() {
            let why = found.untried.join("; ");
            return Some(self.found(contender, opened.close(), Reason::Unmeasured(why)));
        }
        let Found { cases, mut ran, .. } = found;
        if ran.cpu_of_longest() < QUICK * SLOWER_AT_FIRST {
            if let Err(status) = self.time(&*opened, &cases, &mut ran, None) {
                return self.failed_to_begin(contender, opened, status);
            }
            if ran.cpu_of_longest() < QUICK {
                self.enter(contender, true, Ok((ran.cpu_in_all(), 0.0)));
                return Some(self.found(contender, opened.close(), Reason::Quick));
            }
        }
        self.cases = cases;
        self.field.push(Standing { contender, opened, ran });
        None
    }

    /// The first engine that loads fails on what it was tried on. All that come after the embedded one
    /// are less exact: drawn inputs may be such as no client sends, and no reason to go without the
    /// best answers there are.
    fn failed_to_begin(
        &mut self,
        contender: &'a dyn Contender,
        opened: Box<dyn Opened>,
        status: Status,
    ) -> Option<Finding> {
        drop(opened);
        if contender.name() == EngineName::Embedded {
            self.exclude(contender, status);
            return None;
        }
        match contender.open(self.request) {
            Ok(opened) => {
                let why = format!("a trial of {} failed: {}", contender.name(), status.message());
                Some(self.found(contender, opened.close(), Reason::Unmeasured(why)))
            }
            Err(status) => {
                self.exclude(contender, status);
                None
            }
        }
    }

    fn first_trial(&mut self, opened: &dyn Opened) -> Result<Found, Status> {
        let (share, recorded) = (self.share, self.settings.recorded);
        self.timed(opened, |session, cpu_time| {
            let has_state = session.description().signatures.values().any(|s| s.stateful);
            let runs = if has_state { Vec::new() } else { recorded(session) };
            let cases: Vec<Case> =
                runs.into_iter().filter_map(|run| Case::recorded(session, run)).collect();
            let trial = Trial::new(session, cpu_time, share);
            if cases.is_empty() {
                return trial.find();
            }
            let ran = trial.again(&cases)?;
            Ok(Found { cases, ran, untried: Vec::new() })
        })
    }

    /// A further engine: runs the same cases.
    fn follow(&mut self, contender: &'a dyn Contender, opened: Box<dyn Opened>) {
        let (share, cases) = (self.share, std::mem::take(&mut self.cases));
        let ran = self.timed(&*opened, |session, cpu_time| {
            Trial::new(session, cpu_time, share).again(&cases)
        });
        self.cases = cases;
        match ran {
            Ok(ran) => self.field.push(Standing { contender, opened, ran }),
            Err(status) => self.exclude(contender, status),
        }
    }

    /// Takes the time of all that have run the cases, the fastest first, as far as one can tell yet.
    fn time_all(&mut self) -> Vec<Standing<'a>> {
        let cases = std::mem::take(&mut self.cases);
        let mut field = std::mem::take(&mut self.field);
        field.sort_by_key(|standing| standing.ran.cpu_in_all());
        let (mut timed, mut best) = (Vec::new(), None::<Duration>);
        for mut standing in field {
            match self.time(&*standing.opened, &cases, &mut standing.ran, best) {
                Ok(()) => {
                    let own = standing.ran.cpu_in_all();
                    best = Some(best.map_or(own, |best| best.min(own)));
                    timed.push(standing);
                }
                Err(status) => self.exclude(standing.contender, status),
            }
        }
        self.cases = cases;
        timed
    }

    fn time(
        &mut self,
        opened: &dyn Opened,
        cases: &[Case],
        ran: &mut Ran,
        best: Option<Duration>,
    ) -> Result<(), Status> {
        let share = self.share;
        self.timed(opened, |session, cpu_time| {
            Trial::new(session, cpu_time, share).time(cases, ran, best)
        })
    }

    /// A trial in its turn, behind those that serve.
    fn timed<T>(
        &mut self,
        opened: &dyn Opened,
        trial: impl FnOnce(&dyn Session, &dyn Fn() -> Option<Duration>) -> T,
    ) -> T {
        let _turn = self.settings.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _lowered = opened.step_back();
        let begun = Instant::now();
        let outcome = trial(opened.session(), &|| opened.cpu_time());
        self.trial += begun.elapsed();
        outcome
    }

    /// All have run: compares, and picks the fastest that agrees.
    fn decide(mut self, mut field: Vec<Standing<'a>>) -> Result<Finding, Status> {
        field.sort_by_key(|standing| (self.settings.exactness)(standing.contender.name()));
        let reason = if field.len() > 1 { Reason::Measured } else { Reason::Only };
        // A slow engine may not have come to all cases; the others are judged by the same ones.
        let common = field.iter().map(|standing| standing.ran.answers.len()).min().unwrap_or(0);
        field.iter_mut().for_each(|standing| standing.ran.truncate(common));
        let mut agreeing: Vec<(Standing<'_>, Agreeing)> = Vec::new();
        let mut out: Vec<Box<dyn Opened>> = Vec::new();
        for standing in field {
            // The first, the most exact one, is what the others are held to.
            let error = match agreeing.first() {
                None => Ok(0.0),
                Some((reference, _)) => agreement(&self.cases, &standing.ran, &reference.ran),
            };
            match error {
                Ok(error) => {
                    let cpu = standing.ran.cpu_in_all();
                    self.enter(standing.contender, agreeing.is_empty(), Ok((cpu, error)));
                    let simplicity = simplicity(standing.contender.name());
                    agreeing.push((standing, Agreeing { simplicity, cpu }));
                }
                Err(reason) => {
                    let status = Status::data_loss(format!("it disagrees: {reason}"));
                    self.exclude(standing.contender, status);
                    out.push(standing.opened);
                }
            }
        }
        let figures: Vec<Agreeing> = agreeing.iter().map(|(_, figures)| *figures).collect();
        let Some(index) = choose(&figures) else { return Err(self.refusal()) };
        let (winner, _) = agreeing.swap_remove(index);
        out.extend(agreeing.into_iter().map(|(standing, _)| standing.opened));
        let serve = close(winner.opened, out);
        Ok(self.found(winner.contender, serve, reason))
    }

    /// What to say when no engine can run the version.
    fn refusal(&self) -> Status {
        let by_exactness =
            self.entries.iter().min_by_key(|entry| (self.settings.exactness)(entry.name));
        let said = by_exactness.and_then(|entry| entry.outcome.clone().err());
        said.unwrap_or_else(|| Status::internal("there is no engine to load a version with"))
    }

    fn exclude(&mut self, contender: &dyn Contender, status: Status) {
        self.enter(contender, false, Err(status));
    }

    fn enter(
        &mut self,
        contender: &dyn Contender,
        is_reference: bool,
        outcome: Result<(Duration, f64), Status>,
    ) {
        let (name, release) = (contender.name(), contender.release().to_owned());
        self.entries.push(Entry { name, release, is_reference, outcome });
    }

    fn found(&mut self, contender: &dyn Contender, serve: Serve, reason: Reason) -> Finding {
        Finding {
            name: contender.name(),
            release: contender.release().to_owned(),
            serve,
            reason,
            entries: std::mem::take(&mut self.entries),
            trial: self.trial,
        }
    }
}

/// Closes the winner, and ends the others before it serves: each takes a while, so all do at once.
fn close(winner: Box<dyn Opened>, others: Vec<Box<dyn Opened>>) -> Serve {
    thread::scope(|scope| {
        for other in others {
            // Where no thread is to be had, it ends here.
            let _ = thread::Builder::new().spawn_scoped(scope, move || drop(other));
        }
        winner.close()
    })
}

/// The largest error over all cases.
///
/// # Errors
/// How an answer differs; that there was none to compare.
fn agreement(cases: &[Case], got: &Ran, want: &Ran) -> Result<f64, String> {
    let mut error = None::<f64>;
    for ((case, got), want) in cases.iter().zip(&got.answers).zip(&want.answers) {
        let of = |reason: String| format!("signature {}: {reason}", case.request.signature);
        if let Some(apart) = compare_answers(got, want, &case.names).map_err(of)? {
            error = Some(error.map_or(apart, |error| error.max(apart)));
        }
    }
    error.ok_or_else(|| "the reference answers nothing that it was asked".to_owned())
}

/// Whether a load failed for what the model is, rather than for what the engine is.
fn is_of_the_model(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::Unimplemented
            | Code::Unavailable
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
    )
}

#[cfg(test)]
#[path = "contest_tests.rs"]
mod tests;
