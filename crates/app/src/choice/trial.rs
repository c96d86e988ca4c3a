//! One engine, tried: what it answers, and what each answer takes of the processor.
//!
//! Owns: which runs are made, how often, and when it is enough. May not know: other engines, and what
//! the figures are for.
//! Invariant: a signature that keeps state is never run; a trial ends soon after its share of the
//! budget, however slow the engine.

use std::time::{Duration, Instant};

use vesta_model::{Code, DType, InputLayout, RunRequest, Session, Signature, Status, Tensor};

use super::compare::Answer;
use super::inputs::{DRAWS, Draw, Drawn, draw, has_open_rows};

/// Rows of the second trial of a signature: one row hides what is wrong between rows.
const MORE_ROWS: usize = 2;

/// Signatures that are tried, the first by name; most versions have one or two.
const SIGNATURES_MAX: usize = 8;

/// Runs of one case whose time is taken, as far as there is time.
const TIMED_RUNS_MIN: usize = 3;
/// An engine that takes this many times what the best so far takes, in each of two runs, has no chance, and
/// no further run of it is timed. Beyond what decides between two engines it leaves room for noise.
const HOPELESS: f64 = 1.25;
/// More are made of short runs, whose times scatter more.
const TIMED_RUNS_MAX: usize = 15;
/// About what the timing of one case may take, after the least number of runs.
const TIMING: Duration = Duration::from_millis(250);

/// Bytes of all answers that are kept to be compared.
const OUTPUTS_BYTES_MAX: usize = 256 << 20;

/// The longest run.
pub(super) const RUN_LIMIT: Duration = Duration::from_secs(60);

/// A run that every engine makes.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) request: RunRequest,
    pub(super) inputs: Vec<Tensor>,
    /// Names of the outputs.
    pub(super) names: Vec<String>,
    /// Whether its time counts; else its answer alone.
    pub(super) is_timed: bool,
}

/// What an engine did with the cases, one entry for each that it had time for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ran {
    /// The outputs, or what the engine says against the inputs.
    pub(super) answers: Vec<Answer>,
    /// Processor time of one run; zero for cases whose time does not count.
    pub(super) cpu: Vec<Duration>,
}

impl Ran {
    /// Leaves out what comes after the first `count` cases.
    pub(super) fn truncate(&mut self, count: usize) {
        self.answers.truncate(count);
        self.cpu.truncate(count);
    }

    /// Processor time of one run of every case.
    pub(super) fn cpu_in_all(&self) -> Duration {
        self.cpu.iter().sum()
    }

    /// The longest case.
    pub(super) fn cpu_of_longest(&self) -> Duration {
        self.cpu.iter().max().copied().unwrap_or_default()
    }
}

/// Cases that were found on the first engine, with what it did.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) cases: Vec<Case>,
    pub(super) ran: Ran,
    /// Why signatures have no case.
    pub(super) untried: Vec<String>,
}

impl Found {
    /// Whether the last case is an earlier one under another name, as exporters write them: the same
    /// inputs gave the same outputs, to the bit. It is compared, and its time not counted again.
    fn last_is_known(&mut self) -> bool {
        let (Some((last, earlier)), Some((answer, answers))) =
            (self.cases.split_last_mut(), self.ran.answers.split_last())
        else {
            return false;
        };
        let is_same =
            |(case, other): (&Case, &Answer)| case.inputs == last.inputs && other == answer;
        let is_known = earlier.iter().zip(answers).any(is_same);
        if is_known {
            last.is_timed = false;
            if let Some(cpu) = self.ran.cpu.last_mut() {
                *cpu = Duration::ZERO;
            }
        }
        is_known
    }
}

/// A session on trial.
pub(super) struct Trial<'a> {
    session: &'a dyn Session,
    /// Processor time that the session's process has used so far.
    cpu_time: &'a dyn Fn() -> Option<Duration>,
    until: Instant,
}

impl<'a> Trial<'a> {
    /// A trial that takes about `share`.
    pub(super) fn new(
        session: &'a dyn Session,
        cpu_time: &'a dyn Fn() -> Option<Duration>,
        share: Duration,
    ) -> Trial<'a> {
        Trial { session, cpu_time, until: Instant::now() + share }
    }

    /// Draws cases for the signatures of the session, as far as it takes them, and runs them.
    ///
    /// # Errors
    /// Those of an engine that fails, rather than refuse an input.
    pub(super) fn find(&self) -> Result<Found, Status> {
        let mut found = Found::default();
        let signatures = self.session.description().signatures.values();
        let callable: Vec<_> = signatures.filter(|signature| is_callable(signature)).collect();
        if let Some(stateful) = callable.iter().find(|signature| signature.stateful) {
            found.untried.push(format!("signature {} keeps state", stateful.name));
            return Ok(found);
        }
        for signature in callable.into_iter().take(SIGNATURES_MAX) {
            if !found.cases.is_empty() && self.is_over() {
                found.untried.push(format!("there was no time for signature {}", signature.name));
                continue;
            }
            if let Err(reason) = self.find_of(signature, &mut found)? {
                found.untried.push(format!("signature {}: {reason}", signature.name));
            }
        }
        Ok(found)
    }

    /// The cases of one signature; or in words why there is none.
    fn find_of(
        &self,
        signature: &Signature,
        found: &mut Found,
    ) -> Result<Result<(), String>, Status> {
        let mut refusal = String::new();
        for &how in DRAWS {
            let drawn = match draw(signature, how) {
                Ok(drawn) => drawn,
                Err(reason) => return Ok(Err(reason)),
            };
            match self.enter(signature, drawn, true, found)? {
                None => {
                    if !found.last_is_known() {
                        self.find_more_rows(signature, how, found)?;
                    }
                    return Ok(Ok(()));
                }
                Some(refused) => refusal = format!("it takes no drawn inputs: {refused}"),
            }
        }
        Ok(Err(refusal))
    }

    fn find_more_rows(
        &self,
        signature: &Signature,
        how: Draw,
        found: &mut Found,
    ) -> Result<(), Status> {
        if !has_open_rows(signature) || self.is_over() {
            return Ok(());
        }
        if let Ok(drawn) = draw(signature, Draw { rows: MORE_ROWS, ..how }) {
            // Some graphs take one row alone, whatever they declare.
            self.enter(signature, drawn, false, found)?;
        }
        Ok(())
    }

    /// Runs a case and keeps it, unless the session refuses its inputs; then what it says.
    fn enter(
        &self,
        signature: &Signature,
        drawn: Drawn,
        is_timed: bool,
        found: &mut Found,
    ) -> Result<Option<Status>, Status> {
        let case = Case::new(signature, drawn, is_timed);
        let (answer, cpu) = self.run(&case)?;
        if let Err(refused) = answer {
            return Ok(Some(refused));
        }
        found.cases.push(case);
        found.ran.push(answer, if is_timed { cpu } else { Duration::ZERO })?;
        Ok(None)
    }

    /// Runs cases that are known: the first in any case, the others while there is time.
    ///
    /// # Errors
    /// Those of an engine that fails, rather than refuse an input.
    pub(super) fn again(&self, cases: &[Case]) -> Result<Ran, Status> {
        let mut ran = Ran::default();
        for case in cases {
            if !ran.answers.is_empty() && self.is_over() {
                break;
            }
            let (answer, cpu) = self.run(case)?;
            ran.push(answer, if case.is_timed { cpu } else { Duration::ZERO })?;
        }
        Ok(ran)
    }

    /// Replaces the time of first runs by that of later ones, as far as there is time: one that is slow
    /// because it is the first does not count. `best` is what the fastest engine so far takes for all cases.
    ///
    /// # Errors
    /// Those of an engine that fails, rather than refuse an input.
    pub(super) fn time(
        &self,
        cases: &[Case],
        ran: &mut Ran,
        best: Option<Duration>,
    ) -> Result<(), Status> {
        let counted: Vec<usize> = (0..ran.answers.len())
            .filter(|&index| cases[index].is_timed && ran.answers[index].is_ok())
            .collect();
        for &index in &counted {
            if self.is_over() {
                return Ok(());
            }
            ran.cpu[index] = ran.cpu[index].min(self.run(&cases[index])?.1);
        }
        if best.is_some_and(|best| ran.cpu_in_all() > best.mul_f64(HOPELESS)) {
            return Ok(());
        }
        for index in counted {
            let (mut times, begun) = (vec![ran.cpu[index]], Instant::now());
            let wants_more = |done: usize| {
                done < TIMED_RUNS_MIN || (done < TIMED_RUNS_MAX && begun.elapsed() < TIMING)
            };
            while wants_more(times.len()) && !self.is_over() {
                times.push(self.run(&cases[index])?.1);
            }
            times.sort();
            if let Some(&median) = times.get(times.len() / 2) {
                ran.cpu[index] = median;
            }
        }
        Ok(())
    }

    /// One run: what came of it, and its processor time.
    fn run(&self, case: &Case) -> Result<(Answer, Duration), Status> {
        let unread = || {
            Status::unavailable(
                "the engine's process ended in its trial, or its processor time cannot be read",
            )
        };
        let before = (self.cpu_time)().ok_or_else(unread)?;
        let inputs = case.inputs.clone();
        let answer = self.session.run_over(&case.request, inputs, Some(Instant::now() + RUN_LIMIT));
        if let Err(status) = &answer
            && is_failure(status)
        {
            return Err(status.clone());
        }
        let after = (self.cpu_time)().ok_or_else(unread)?;
        Ok((answer, after.saturating_sub(before)))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

impl Case {
    fn new(signature: &Signature, drawn: Drawn, is_timed: bool) -> Case {
        let Drawn { request, inputs } = drawn;
        let name = |&at: &usize| signature.outputs.get(at).map(|spec| spec.alias.clone());
        let names = request.outputs.iter().filter_map(name).collect();
        Case { request, inputs, names, is_timed }
    }

    /// A request that was recorded, if the session has its signature, without state.
    pub(super) fn recorded(
        session: &dyn Session,
        (request, inputs): (RunRequest, Vec<Tensor>),
    ) -> Option<Case> {
        let signature = session.description().signatures.get(&request.signature)?;
        let fits =
            request.inputs.iter().eq(&inputs.iter().map(InputLayout::of).collect::<Vec<_>>());
        (fits && !signature.stateful).then(|| Case::new(signature, Drawn { request, inputs }, true))
    }
}

impl Ran {
    /// Keeps an answer, apart from the memory of the engine.
    fn push(&mut self, answer: Answer, cpu: Duration) -> Result<(), Status> {
        self.answers.push(copied(&answer)?);
        self.cpu.push(cpu);
        let outputs = self.answers.iter().flatten().flatten();
        if outputs.map(|output| output.bytes().len()).sum::<usize>() > OUTPUTS_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "its answers take more than {OUTPUTS_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }
}

/// An answer apart from the memory of its engine.
pub(super) fn copied(answer: &Answer) -> Result<Answer, Status> {
    let copied =
        |tensor: &Tensor| Tensor::copied(tensor.dtype(), tensor.shape().clone(), tensor.bytes());
    match answer {
        Ok(outputs) => Ok(Ok(outputs.iter().map(copied).collect::<Result<_, Status>>()?)),
        Err(status) => Ok(Err(status.clone())),
    }
}

/// Whether an engine fails, rather than say that an input is wrong.
pub(super) fn is_failure(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Internal | Code::DeadlineExceeded | Code::ResourceExhausted
    )
}

/// Init operators have an output that is no tensor.
pub(crate) fn is_callable(signature: &Signature) -> bool {
    signature.outputs.iter().any(|spec| spec.dtype != DType::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::scripted::{Scripted, doubled, signature};

    const SHARE: Duration = Duration::from_secs(10);

    fn found(scripted: &Scripted) -> Result<Found, Status> {
        Trial::new(scripted, &|| Some(scripted.cpu()), SHARE).find()
    }

    #[test]
    fn one_row_is_timed_and_more_are_compared() {
        let scripted = Scripted::new(signature(&[None, Some(2)]), doubled);
        let Found { cases, ran, untried } = found(&scripted).unwrap();
        let shapes: Vec<_> = cases.iter().map(|case| case.inputs[0].shape().dims()).collect();
        assert_eq!(shapes, [[1, 2], [2, 2]]);
        assert_eq!(ran.cpu, [scripted.cpu_of_a_run(), Duration::ZERO]);
        assert_eq!(cases[0].names, ["y"]);
        assert!(untried.is_empty());
        let again = Trial::new(&scripted, &|| Some(scripted.cpu()), SHARE).again(&cases).unwrap();
        assert_eq!(again.answers, ran.answers);
        let cpu_time = || Some(scripted.cpu());
        let hurried = Trial::new(&scripted, &cpu_time, Duration::ZERO).again(&cases).unwrap();
        assert_eq!(hurried.answers, ran.answers[..1]);
    }

    #[test]
    fn one_function_under_two_names_is_timed_once() {
        let two = Signature { name: "t".to_owned(), ..signature(&[None, Some(2)]) };
        let scripted = Scripted::new(signature(&[None, Some(2)]), doubled).and(two);
        let Found { cases, ran, .. } = found(&scripted).unwrap();
        let names: Vec<&str> = cases.iter().map(|case| case.request.signature.as_str()).collect();
        assert_eq!(names, ["s", "s", "t"]);
        let timed: Vec<bool> = cases.iter().map(|case| case.is_timed).collect();
        assert_eq!(timed, [true, false, false]);
        assert_eq!(ran.cpu_in_all(), scripted.cpu_of_a_run());
    }

    #[test]
    fn signatures_with_state_are_never_run() {
        let scripted = Scripted::new(Signature { stateful: true, ..signature(&[None]) }, doubled);
        let found = found(&scripted).unwrap();
        assert!(found.cases.is_empty() && found.untried[0].contains("keeps state"));
        assert_eq!(scripted.runs(), 0);
    }

    #[test]
    fn inputs_that_are_refused_give_way_to_smaller_ones() {
        // As a table of two entries does.
        let mut of_ids = signature(&[None, None]);
        of_ids.inputs[0].dtype = DType::I64;
        let scripted = Scripted::new(of_ids, |inputs| {
            let ids = inputs[0].to_vec::<i64>().unwrap_or_default();
            if ids.iter().any(|&id| id > 1) {
                return Err(Status::invalid_argument("out of range"));
            }
            Ok(inputs.to_vec())
        });
        let found = found(&scripted).unwrap();
        assert_eq!(found.cases.len(), 2);
        assert_eq!(found.cases[0].inputs[0].shape().dims(), [1, 16]);
    }

    #[test]
    fn refusals_are_told_and_failures_end_the_trial() {
        let refusing =
            Scripted::new(signature(&[None]), |_| Err(Status::invalid_argument("never")));
        let outcome = found(&refusing).unwrap();
        assert!(outcome.cases.is_empty() && outcome.untried[0].contains("never"));
        let dying = Scripted::new(signature(&[None]), |_| Err(Status::unavailable("it ended")));
        assert_eq!(found(&dying).unwrap_err().message(), "it ended");
    }

    #[test]
    fn without_time_each_case_runs_once() {
        let scripted = Scripted::new(signature(&[Some(2)]), doubled);
        let cpu_time = || Some(scripted.cpu());
        let trial = Trial::new(&scripted, &cpu_time, Duration::ZERO);
        assert_eq!(trial.find().unwrap().ran.cpu, [scripted.cpu_of_a_run()]);
        assert_eq!(scripted.runs(), 1);
        let blind = Trial::new(&scripted, &|| None, Duration::ZERO);
        assert!(blind.find().unwrap_err().message().contains("processor time"));
    }

    #[test]
    fn recorded_requests_must_fit() {
        let scripted = Scripted::new(signature(&[None]), doubled);
        let drawn = draw(&signature(&[None]), DRAWS[0]).unwrap();
        let recorded = |name: &str| {
            let request = RunRequest { signature: name.to_owned(), ..drawn.request.clone() };
            Case::recorded(&scripted, (request, drawn.inputs.clone()))
        };
        assert!(recorded("s").is_some_and(|case| case.is_timed));
        assert!(recorded("t").is_none());
    }
}
