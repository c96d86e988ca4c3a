//! Batching as the flags and their files ask for it.
//!
//! Owns: the step from text BatchingParameters to checked ones, with the original's texts. May not
//! know: how batches are formed.

use std::path::Path;
use std::time::Duration;

use tracing::warn;
use vesta_model::{BatchingParameters, Status};
use vesta_protos::tensorflow::serving as proto;

use super::text;
use crate::flags::Flags;

/// The file in a version's directory that says how it is batched, where each says it for itself.
pub(crate) const PARAMETERS_FILE: &str = "batching_params.pbtxt";

/// Which versions are batched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Batching {
    /// None.
    Off,
    /// All, by these parameters.
    All(BatchingParameters),
    /// Those that have a file of their own, with so many threads.
    Own {
        /// Batches of one queue that may be run at once.
        num_batch_threads: usize,
    },
}

/// What the flags say.
///
/// # Errors
/// Those of the file, and what the original says of a file that nobody reads.
pub(super) fn resolve(flags: &Flags, cores: usize) -> Result<Batching, Status> {
    let file = &flags.batching_parameters_file;
    if !flags.enable_batching {
        if !file.is_empty() {
            return Err(Status::invalid_argument(
                "server_options.batching_parameters_file is set without setting \
                 server_options.enable_batching to true.",
            ));
        }
        if flags.enable_per_model_batching_parameters {
            warn!(
                "--enable_per_model_batching_parameters does nothing without --enable_batching=true"
            );
        }
        return Ok(Batching::Off);
    }
    let parameters = if file.is_empty() {
        BatchingParameters::with_defaults(cores)
    } else {
        read_parameters(Path::new(file), cores)?
    };
    Ok(choose(parameters, flags.enable_per_model_batching_parameters))
}

/// What a platform configuration says, which replaces the flags.
///
/// # Errors
/// `INVALID_ARGUMENT` for parameters that contradict each other.
pub(super) fn of_bundle(
    bundle: &proto::SessionBundleConfig,
    cores: usize,
) -> Result<Batching, Status> {
    let Some(parameters) = &bundle.batching_parameters else { return Ok(Batching::Off) };
    Ok(choose(checked(parameters, cores)?, bundle.enable_per_model_batching_params))
}

fn choose(parameters: BatchingParameters, per_model: bool) -> Batching {
    if per_model {
        return Batching::Own { num_batch_threads: parameters.num_batch_threads };
    }
    Batching::All(parameters)
}

/// Reads a file of BatchingParameters; what it leaves out is the original's default.
///
/// # Errors
/// Those of any configuration file, and `INVALID_ARGUMENT` for parameters that contradict each other.
pub(crate) fn read_parameters(file: &Path, cores: usize) -> Result<BatchingParameters, Status> {
    let parameters = text::read(file, "tensorflow.serving.BatchingParameters")?;
    checked(&parameters, cores)
}

fn checked(raw: &proto::BatchingParameters, cores: usize) -> Result<BatchingParameters, Status> {
    let default = BatchingParameters::with_defaults(cores);
    let max_batch_size = positive("max_batch_size", raw.max_batch_size, default.max_batch_size)?;
    let enable_large_batch_splitting = raw.enable_large_batch_splitting.unwrap_or(false);
    let max_execution_batch_size =
        positive("max_execution_batch_size", raw.max_execution_batch_size, max_batch_size)?;
    if enable_large_batch_splitting && max_execution_batch_size > max_batch_size {
        return Err(Status::invalid_argument(format!(
            "When enable_large_batch_splitting is true, max_batch_size must be greater than or \
             equal to max_execution_batch_size; max_batch_size is {max_batch_size} while \
             max_execution_batch_size is {max_execution_batch_size}"
        )));
    }
    let parameters = BatchingParameters {
        max_batch_size,
        batch_timeout: Duration::from_micros(
            non_negative("batch_timeout_micros", raw.batch_timeout_micros)?.unwrap_or(0),
        ),
        max_enqueued_batches: non_negative("max_enqueued_batches", raw.max_enqueued_batches)?
            .map_or(default.max_enqueued_batches, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        num_batch_threads: positive(
            "num_batch_threads",
            raw.num_batch_threads,
            default.num_batch_threads,
        )?,
        allowed_batch_sizes: allowed_sizes(&raw.allowed_batch_sizes)?,
        pad_variable_length_inputs: raw.pad_variable_length_inputs,
        enable_large_batch_splitting,
        max_execution_batch_size,
    };
    check_last_size(&parameters)?;
    Ok(parameters)
}

fn positive(name: &str, value: Option<i64>, default: usize) -> Result<usize, Status> {
    let Some(value) = value else { return Ok(default) };
    usize::try_from(value)
        .ok()
        .filter(|&size| size > 0)
        .ok_or_else(|| Status::invalid_argument(format!("{name} must be positive; was {value}")))
}

fn non_negative(name: &str, value: Option<i64>) -> Result<Option<u64>, Status> {
    let Some(value) = value else { return Ok(None) };
    u64::try_from(value)
        .map(Some)
        .map_err(|_| Status::invalid_argument(format!("{name} must be non-negative; was {value}")))
}

fn allowed_sizes(raw: &[i64]) -> Result<Vec<usize>, Status> {
    let increasing =
        || Status::invalid_argument("allowed_batch_sizes entries must be monotonically increasing");
    let mut sizes: Vec<usize> = Vec::with_capacity(raw.len());
    for &size in raw {
        let size = positive("allowed_batch_sizes", Some(size), 0)?;
        if sizes.last().is_some_and(|&last| last >= size) {
            return Err(increasing());
        }
        sizes.push(size);
    }
    Ok(sizes)
}

/// The last allowed size is the largest that a batch can have.
fn check_last_size(parameters: &BatchingParameters) -> Result<(), Status> {
    let Some(&last) = parameters.allowed_batch_sizes.last() else { return Ok(()) };
    let (rows_max, batch_rows_max) = (parameters.max_batch_size, parameters.batch_rows_max());
    if last == rows_max || last == batch_rows_max {
        return Ok(());
    }
    let problem = if parameters.enable_large_batch_splitting {
        format!(
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last \
             entry was {last}; expected {batch_rows_max}"
        )
    } else {
        format!(
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was {last}; \
             expected {rows_max}"
        )
    };
    Err(Status::invalid_argument(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BatchingParameters, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("batching.config");
        std::fs::write(&file, text).unwrap();
        read_parameters(&file, 3).map_err(|status| status.to_string())
    }

    fn refused(text: &str, why: &str) {
        assert_eq!(read(text), Err(format!("INVALID_ARGUMENT: {why}")), "{text}");
    }

    #[test]
    fn what_is_left_out_is_the_originals_default() {
        let parameters = read("# nothing\n").unwrap();
        assert_eq!(parameters, BatchingParameters::with_defaults(3));
        assert_eq!(parameters.max_batch_size, 1000);
        assert_eq!(parameters.batch_timeout, Duration::ZERO);
        assert_eq!(parameters.max_enqueued_batches, 10);
        assert_eq!(parameters.num_batch_threads, 3);
        assert_eq!(read("max_batch_size { value: 8 }").unwrap().max_execution_batch_size, 8);
    }

    #[test]
    fn the_formats_liberties_are_taken() {
        let parameters = read(
            "# a comment\nmax_batch_size { value: 128 }, batch_timeout_micros: { value: 1500 };\n\
             max_enqueued_batches < value: 1000000 >\nnum_batch_threads { value: 0x8 }\n\
             thread_pool_name { value: 'my' \"_pool\" }\nallowed_batch_sizes: [32, 64]\n\
             allowed_batch_sizes: 128 pad_variable_length_inputs: true\n\
             enable_large_batch_splitting {} max_execution_batch_size: { value: 64 }",
        );
        assert_eq!(
            parameters,
            Ok(BatchingParameters {
                max_batch_size: 128,
                batch_timeout: Duration::from_micros(1500),
                max_enqueued_batches: 1_000_000,
                num_batch_threads: 8,
                allowed_batch_sizes: vec![32, 64, 128],
                pad_variable_length_inputs: true,
                enable_large_batch_splitting: false,
                max_execution_batch_size: 64,
            })
        );
    }

    #[test]
    fn parameters_that_contradict_each_other_have_the_originals_texts() {
        refused(
            "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; \
             expected 8",
        );
        refused(
            "allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; \
             expected 1000",
        );
        refused(
            "max_batch_size { value: 8 } allowed_batch_sizes: [4, 2, 8]",
            "allowed_batch_sizes entries must be monotonically increasing",
        );
        refused("max_batch_size {}", "max_batch_size must be positive; was 0");
        refused("num_batch_threads { value: -1 }", "num_batch_threads must be positive; was -1");
        refused(
            "batch_timeout_micros { value: -1 }",
            "batch_timeout_micros must be non-negative; was -1",
        );
        refused(
            "max_enqueued_batches { value: -5 }",
            "max_enqueued_batches must be non-negative; was -5",
        );
        let split = "enable_large_batch_splitting { value: true } max_batch_size { value: 8 }";
        assert!(read(&format!("{split} max_execution_batch_size {{ value: 9 }}")).is_err());
        let split = format!("{split} max_execution_batch_size {{ value: 4 }} ");
        assert!(read(&format!("{split} allowed_batch_sizes: [2, 4]")).is_ok());
        assert!(read(&format!("{split} allowed_batch_sizes: [2, 8]")).is_ok());
        refused(
            &format!("{split} allowed_batch_sizes: [2, 6]"),
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last \
             entry was 6; expected 4",
        );
    }

    #[test]
    fn a_file_without_the_flag_ends_the_start() {
        let flags = |enable_batching, file: &str| Flags {
            enable_batching,
            batching_parameters_file: file.to_owned(),
            ..Flags::default()
        };
        assert_eq!(
            resolve(&flags(false, "/b"), 2).unwrap_err().to_string(),
            "INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting \
             server_options.enable_batching to true."
        );
        assert_eq!(resolve(&flags(false, ""), 2), Ok(Batching::Off));
        let all = Batching::All(BatchingParameters::with_defaults(2));
        assert_eq!(resolve(&flags(true, ""), 2), Ok(all));
        let own = Flags { enable_per_model_batching_parameters: true, ..flags(true, "") };
        assert_eq!(resolve(&own, 2), Ok(Batching::Own { num_batch_threads: 2 }));
        let off = Flags { enable_batching: false, ..own };
        assert_eq!(resolve(&off, 2), Ok(Batching::Off));
    }
}
