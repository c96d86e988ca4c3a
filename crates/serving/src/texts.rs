//! Every text of this crate that a client may read, one constructor each.
//!
//! Clients and load balancers match several of them word by word, so those are the original's.

use vesta_model::{DType, Label, ModelName, Status, Version, VersionChoice};

use crate::servable::ServableId;

pub(crate) fn no_model_name() -> Status {
    Status::invalid_argument("ModelSpec has no name specified.")
}

/// `choice` is what was looked for once labels were replaced by versions.
pub(crate) fn servable_not_found(name: &ModelName, choice: &VersionChoice) -> Status {
    Status::not_found(match choice {
        VersionChoice::Version(version) => {
            format!("Servable not found for request: Specific({name}, {version})")
        }
        VersionChoice::Latest | VersionChoice::Label(_) => {
            format!("Servable not found for request: Latest({name})")
        }
    })
}

pub(crate) fn unknown_label(label: &Label) -> Status {
    Status::invalid_argument(format!("Unrecognized servable version label: {label}"))
}

pub(crate) fn no_such_version(model: &str, version: Version) -> Status {
    Status::not_found(format!("Could not find version {version} of model {model}"))
}

pub(crate) fn no_versions(model: &str) -> Status {
    Status::not_found(format!("Could not find any versions of model {model}"))
}

pub(crate) fn label_of_unavailable(model: &ModelName, version: Version) -> Status {
    Status::failed_precondition(format!(
        "Request to assign label to version {version} of model {model}, which is not currently \
         available for inference"
    ))
}

pub(crate) fn no_signature(name: &str) -> Status {
    Status::failed_precondition(format!("Serving signature key \"{name}\" not found."))
}

pub(crate) fn wrong_dtype(index: usize, want: DType, got: DType) -> Status {
    Status::invalid_argument(format!("Expects arg[{index}] to be {want} but {got} is provided"))
}

pub(crate) fn wrong_input_count(signature: &str, want: usize, got: usize) -> Status {
    Status::invalid_argument(format!("signature \"{signature}\" takes {want} inputs, not {got}"))
}

pub(crate) fn no_such_output(signature: &str, index: usize, count: usize) -> Status {
    Status::invalid_argument(format!(
        "signature \"{signature}\" has {count} outputs, so there is none at position {index}"
    ))
}

pub(crate) fn timed_out() -> Status {
    Status::deadline_exceeded("Timed out waiting for notification")
}

pub(crate) fn load_cancelled() -> Status {
    Status::cancelled("Loading of servable cancelled")
}

pub(crate) fn queue_full(id: &ServableId, runs_max: usize) -> Status {
    Status::unavailable(format!(
        "{runs_max} requests already wait for servable {id}, which is its limit; try again later"
    ))
}

pub(crate) fn task_too_large(rows: usize, rows_max: usize) -> Status {
    Status::invalid_argument(format!(
        "Task size {rows} is larger than maximum input batch size {rows_max}"
    ))
}

pub(crate) fn batch_queue_full(batches: usize, batches_max: usize) -> Status {
    Status::unavailable(format!(
        "The batch scheduling queue to which this task was submitted is full; currently {batches} \
         batches enqueued and max_enqueued_batches is {batches_max}"
    ))
}

pub(crate) fn split_queue_full(
    rows: usize,
    capacity: usize,
    batches: usize,
    batches_max: usize,
    open_rows: usize,
    batch_rows_max: usize,
) -> Status {
    Status::unavailable(format!(
        "The batch scheduling queue to which this task was submitted is full; task size is {rows} \
         but scheduling capacity is only {capacity} (num_enqueued_batches={batches}, \
         max_enqueued_batches={batches_max}, open_batch_size={open_rows}, \
         max_execution_batch_size={batch_rows_max})"
    ))
}

pub(crate) fn batch_without_inputs() -> Status {
    Status::invalid_argument("Batching Run() must have at least one input tensor")
}

pub(crate) fn batch_of_scalar() -> Status {
    Status::invalid_argument("Batching Run() input tensors must have at least one dimension")
}

pub(crate) fn batch_of_uneven_rows() -> Status {
    Status::invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
}

pub(crate) fn expired_in_queue() -> Status {
    Status::resource_exhausted("Run() timeout exceeded while waiting in batching queue")
}

pub(crate) fn shapes_differ(tensor: &str) -> Status {
    Status::failed_precondition(format!(
        "Tensors with name '{tensor}' from different tasks have different shapes and padding is \
         turned off. Set pad_variable_length_inputs to true, or ensure that all tensors with the \
         same name have equal dimensions starting with the first dim."
    ))
}

pub(crate) fn ranks_differ(tensor: &str) -> Status {
    Status::failed_precondition(format!(
        "Tensors with name '{tensor}' from different tasks have different ranks, which padding \
         cannot make equal"
    ))
}

pub(crate) fn empty_tensor_in_batch() -> Status {
    Status::invalid_argument("Got empty tensor in batch of non-empty tensors.")
}

pub(crate) fn rank_cannot_be_padded() -> Status {
    Status::invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
}

pub(crate) fn padded_batch_too_large(bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "the batch would take more than {bytes_max} bytes with its padding; lower \
         allowed_batch_sizes or max_batch_size, or send inputs of like shapes"
    ))
}

pub(crate) fn batch_output_is_scalar() -> Status {
    Status::failed_precondition("Batched output tensor has 0 dimensions")
}

pub(crate) fn batch_output_of_other_rows() -> Status {
    Status::failed_precondition(
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of \
         the input tensors",
    )
}

pub(crate) fn pieces_do_not_fit() -> Status {
    Status::failed_precondition(
        "the outputs of a request that was cut for batching cannot be put together, for their shapes \
         differ; set enable_large_batch_splitting to false for this model",
    )
}

pub(crate) fn wrong_line() -> Status {
    Status::internal("a request came to a queue of another kind")
}

pub(crate) fn session_broken(id: &ServableId) -> Status {
    Status::unavailable(format!(
        "servable {id} is being loaded anew after its engine failed; try again later"
    ))
}

pub(crate) fn run_panicked(id: &ServableId) -> Status {
    Status::internal(format!("the engine panicked while it ran servable {id}"))
}

pub(crate) fn load_panicked(id: &ServableId) -> Status {
    Status::internal(format!("the engine panicked while it loaded servable {id}"))
}

pub(crate) fn wrong_input_memory(id: &ServableId, index: usize, want: usize, got: usize) -> Status {
    Status::internal(format!(
        "the engine of servable {id} gave {got} bytes for input {index}, which takes {want}"
    ))
}

pub(crate) fn wrong_output_count(id: &ServableId, want: usize, got: usize) -> Status {
    Status::internal(format!("the engine of servable {id} gave {got} outputs instead of {want}"))
}

pub(crate) fn shutting_down() -> Status {
    Status::unavailable("the server is shutting down")
}

pub(crate) fn no_thread(error: std::io::Error) -> Status {
    Status::internal(format!("a thread cannot be started: {error}")).with_cause(error)
}

pub(crate) fn option_is_zero(name: &str) -> Status {
    Status::invalid_argument(format!("{name} must be at least 1"))
}
