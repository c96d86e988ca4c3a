//! Whether a signature was made for the call that asks for it.
//!
//! Owns: the method names, and the original's words for one that does not fit. Off by default, as there:
//! signatures of TF2 carry the name of predict whatever they are good for.

use vesta_model::{Signature, Status};

pub(crate) const PREDICT: &str = "tensorflow/serving/predict";
pub(crate) const CLASSIFY: &str = "tensorflow/serving/classify";
pub(crate) const REGRESS: &str = "tensorflow/serving/regress";

/// Whether method names are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MethodCheck {
    on: bool,
}

impl MethodCheck {
    /// `on` as `--enable_signature_method_name_check` says.
    pub fn new(on: bool) -> MethodCheck {
        MethodCheck { on }
    }

    /// Whether Predict may use `signature`.
    ///
    /// # Errors
    /// `INTERNAL` when its method is none of the three.
    pub(crate) fn predict(self, signature: &Signature) -> Result<(), Status> {
        if !self.on || [PREDICT, CLASSIFY, REGRESS].contains(&&*signature.method) {
            return Ok(());
        }
        Err(Status::internal(format!(
            "Expected prediction signature method_name to be one of {{{PREDICT}, {CLASSIFY}, \
             {REGRESS}}}. Was: {}",
            signature.method
        )))
    }

    /// Whether Classify may use `signature`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when its method is another.
    pub(crate) fn classify(self, signature: &Signature) -> Result<(), Status> {
        self.examples("classification", CLASSIFY, signature)
    }

    /// Whether Regress may use `signature`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when its method is another.
    pub(crate) fn regress(self, signature: &Signature) -> Result<(), Status> {
        self.examples("regression", REGRESS, signature)
    }

    fn examples(self, what: &str, wanted: &str, signature: &Signature) -> Result<(), Status> {
        if !self.on || signature.method == wanted {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "Expected {what} signature method_name to be {wanted}. Was: {}",
            signature.method
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_the_call_when_that_is_asked_for() {
        let of = |method: &str| Signature::new("s", method, Vec::new(), Vec::new());
        let check = MethodCheck::new(true);
        for method in [PREDICT, CLASSIFY, REGRESS] {
            assert_eq!(check.predict(&of(method)), Ok(()));
        }
        assert_eq!(
            check.predict(&of("mine")).unwrap_err().to_string(),
            "INTERNAL: Expected prediction signature method_name to be one of \
             {tensorflow/serving/predict, tensorflow/serving/classify, tensorflow/serving/regress}. \
             Was: mine"
        );
        assert_eq!(check.classify(&of(CLASSIFY)), Ok(()));
        assert_eq!(
            check.classify(&of(PREDICT)).unwrap_err().to_string(),
            "INVALID_ARGUMENT: Expected classification signature method_name to be \
             tensorflow/serving/classify. Was: tensorflow/serving/predict"
        );
        assert_eq!(
            check.regress(&of("")).unwrap_err().to_string(),
            "INVALID_ARGUMENT: Expected regression signature method_name to be \
             tensorflow/serving/regress. Was: "
        );
        let off = MethodCheck::default();
        assert_eq!(
            off.predict(&of("")).and(off.classify(&of(""))).and(off.regress(&of(""))),
            Ok(())
        );
    }
}
