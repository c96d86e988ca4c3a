//! A compiled model as the model of a signature, and the end of its runs.
//!
//! A run is told to end at its deadline, and looks between operators alone: within a loop it goes on to
//! the loop's end. So the answer does not wait for it. Invariant: runs that were given up are counted,
//! and there are never more than a bound of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vesta_ffi::{OpenVinoCompiled, OpenVinoModel, OpenVinoPort, OpenVinoRun};
use vesta_model::{Signature, Status, Tensor, TensorSpec};

use super::values::{from_output, status, to_input, to_openvino, unfit, words};
use crate::bound::{Runner, late};

/// How long a run that was told to end may take before it is left to itself.
const GRACE: Duration = Duration::from_millis(5);

/// How many runs may be left to themselves at a time.
const LEFT_MAX: usize = 32;

/// Where the ends of a signature stand among those of the model.
pub(super) struct Ends {
    /// One for each of the signature's inputs.
    pub(super) inputs: Vec<usize>,
    /// One for each of the signature's outputs; several may be the same.
    pub(super) outputs: Vec<usize>,
}

impl Ends {
    /// Finds ends by their names in the model.
    ///
    /// # Errors
    /// `INTERNAL` when the model lacks one.
    pub(super) fn find(named: &[String], all: &[String]) -> Result<Vec<usize>, Status> {
        let place = |name: &String| {
            let lacks = || Status::internal(format!("the model has no `{name}`"));
            all.iter().position(|known| known == name).ok_or_else(lacks)
        };
        named.iter().map(place).collect()
    }
}

/// A compiled model, run in terms of a signature.
pub(super) struct OpenVinoRunner {
    compiled: OpenVinoCompiled,
    ends: Ends,
    /// Runs that go on though nobody waits for them.
    left: Arc<AtomicUsize>,
}

impl OpenVinoRunner {
    /// Compiles a model for a signature, whose inputs must be the model's.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for what OpenVINO cannot run as it is meant.
    pub(super) fn compile(
        model: &OpenVinoModel,
        signature: &Signature,
        ends: Ends,
        threads: usize,
    ) -> Result<OpenVinoRunner, Status> {
        let refused = |error| Status::unimplemented(words(&error));
        let ports = model.inputs().map_err(refused)?;
        let is_fed = |index| ends.inputs.iter().filter(|&&fed| fed == index).count() == 1;
        if !(0..ports.len()).all(is_fed) {
            return Err(Status::unimplemented(
                "OpenVINO finds other inputs in it than its signature has",
            ));
        }
        check_ends("input", &signature.inputs, &ends.inputs, &ports)?;
        let ports = model.outputs().map_err(refused)?;
        check_ends("output", &signature.outputs, &ends.outputs, &ports)?;
        let compiled = model.compile(threads).map_err(refused)?;
        Ok(OpenVinoRunner { compiled, ends, left: Arc::default() })
    }

    /// Leaves a run to a thread that waits for its end.
    fn leave(&self, run: OpenVinoRun) {
        self.left.fetch_add(1, Ordering::Relaxed);
        let left = Arc::clone(&self.left);
        let waiting = move || {
            drop(run);
            left.fetch_sub(1, Ordering::Relaxed);
        };
        // Without a thread, what was given to it is dropped here, which waits.
        if std::thread::Builder::new().name("openvino-late".to_owned()).spawn(waiting).is_err() {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Checks that the model has the ends that the signature tells of.
fn check_ends(
    side: &str,
    specs: &[TensorSpec],
    places: &[usize],
    ports: &[OpenVinoPort],
) -> Result<(), Status> {
    for (spec, &place) in specs.iter().zip(places) {
        let missing =
            || Status::unimplemented(format!("OpenVINO finds no {side} `{}` in it", spec.alias));
        let port = ports.get(place).ok_or_else(missing)?;
        let dtype = if side == "input" { spec.fed_dtype() } else { spec.dtype };
        let end = format!("{side} `{}`", spec.alias);
        let element = to_openvino(dtype).ok_or_else(|| unfit(&end, &dtype.to_string()))?;
        if element != port.element {
            return Err(Status::unimplemented(format!(
                "{end} is of {dtype}, and OpenVINO makes its type {} of it",
                port.element
            )));
        }
    }
    Ok(())
}

impl Runner for OpenVinoRunner {
    fn run(
        &self,
        signature: &Signature,
        inputs: Vec<Tensor>,
        outputs: &[usize],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        if self.left.load(Ordering::Relaxed) >= LEFT_MAX {
            return Err(Status::resource_exhausted(format!(
                "{LEFT_MAX} runs that were given up at their deadlines still go on; try again later"
            )));
        }
        let specs = signature.inputs.iter().zip(inputs);
        let fed = specs.map(|(spec, tensor)| to_input(&spec.alias, tensor));
        let fed = fed.collect::<Result<Vec<_>, _>>()?;
        let mut numbered: Vec<_> = self.ends.inputs.iter().zip(fed).collect();
        numbered.sort_by_key(|(place, _)| **place);
        let fed = numbered.into_iter().map(|(_, input)| input).collect();
        let mut run = self.compiled.start(fed).map_err(|error| status(&error))?;
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            // Whole milliseconds are waited for.
            let is_over = run.wait_for(left + Duration::from_micros(999));
            if !is_over.map_err(|error| status(&error))? {
                run.cancel();
                if let Ok(false) = run.wait_for(GRACE) {
                    self.leave(run);
                }
                return Err(late());
            }
        } else {
            run.wait().map_err(|error| status(&error))?;
        }
        outputs
            .iter()
            .map(|&index| {
                let output =
                    run.output(self.ends.outputs[index]).map_err(|error| status(&error))?;
                from_output(&signature.outputs[index].alias, &output)
            })
            .collect()
    }
}
