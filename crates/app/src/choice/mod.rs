//! Which engine serves a version, found out by trying.
//!
//! Owns: what is tried (`inputs`), what a trial takes (`trial`), when two answers are the same
//! (`compare`, `detections`), which of the engines that agree serves (`rule`), the order of all that
//! (`contest`), the memory of it (`verdict`), and that it goes on holding while it serves (`shadow`). May not
//! know: how an engine is loaded, and in which process.
//! Invariant: an engine whose answers differ from the reference's is never chosen; what cannot be
//! compared is not chosen by its speed.

mod compare;
mod contest;
mod detections;
mod inputs;
mod loads;
mod rule;
#[cfg(test)]
mod scripted;
mod shadow;
mod trial;
mod verdict;

use vesta_engines::EngineName;

pub(crate) use self::compare::compare;
pub(crate) use self::contest::{
    Contender, Contest, Entry, Finding, Opened, Reason, Serve, Settings, millis,
};
pub(crate) use self::inputs::{DRAWS, Draw, Drawn, draw, has_open_rows};
pub(crate) use self::shadow::{Observer, Outcome, Shadowed, obstacle};
pub(crate) use self::trial::is_callable;
pub(crate) use self::verdict::{Question, Recalled, Verdicts, Winner, bytes_of};

/// How near an engine is to what a model means, zero the nearest; the nearest that is there is the
/// reference.
pub(crate) type Exactness = fn(EngineName) -> u8;

/// For ONNX files.
pub(crate) fn exactness_on_onnx(name: EngineName) -> u8 {
    match name {
        // The others are held to it.
        EngineName::OnnxRuntime => 0,
        _ => 1 + exactness(name),
    }
}

/// For files of TensorFlow Lite.
pub(crate) fn exactness_on_lite(name: EngineName) -> u8 {
    match name {
        // The others are held to it.
        EngineName::LiteRt => 0,
        _ => 1 + exactness(name),
    }
}

/// For TensorFlow's models.
pub(crate) fn exactness(name: EngineName) -> u8 {
    match name {
        // It is what such a model was made by.
        EngineName::TensorFlow => 0,
        // Each of its operators is held to TensorFlow with all their corners.
        EngineName::Embedded => 1,
        EngineName::OnnxRuntime => 2,
        EngineName::OpenVino => 3,
        EngineName::LiteRt => 4,
    }
}

/// How little an engine needs besides its time: processes, memory, a start.
fn simplicity(name: EngineName) -> u8 {
    match name {
        EngineName::Embedded => 0,
        EngineName::LiteRt => 1,
        EngineName::OnnxRuntime => 2,
        EngineName::OpenVino => 3,
        EngineName::TensorFlow => 4,
    }
}
