//! The one error that crosses crate doors on the request path.
//!
//! Owns the canonical codes. Knows no wire: the tables from code to wire stand in
//! `frontends/status.rs`.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $constructor:ident;)*) => {
        /// gRPC's canonical codes without OK; the numbers are gRPC's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, by number.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The canonical number.
            pub const fn number(self) -> i32 { match self { $(Code::$variant => $number,)* } }

            /// The code with this number; `None` for OK (0) and unknown numbers.
            pub const fn from_number(number: i32) -> Option<Code> {
                match number { $($number => Some(Code::$variant),)* _ => None }
            }

            /// The canonical name, such as `INVALID_ARGUMENT`.
            pub const fn name(self) -> &'static str { match self { $(Code::$variant => $name,)* } }
        }

        impl Status {
            $(
                #[doc = concat!("A status of code `", $name, "`.")]
                pub fn $constructor(message: impl Into<String>) -> Status {
                    Status::new(Code::$variant, message)
                }
            )*
        }
    };
}

codes! {
    /// The caller went away.
    Cancelled = 1, "CANCELLED", cancelled;
    /// Something failed in a way that has no better code.
    Unknown = 2, "UNKNOWN", unknown;
    /// The request is wrong whatever the state of the server.
    InvalidArgument = 3, "INVALID_ARGUMENT", invalid_argument;
    /// Time ran out.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED", deadline_exceeded;
    /// What was named does not exist.
    NotFound = 5, "NOT_FOUND", not_found;
    /// What was to be made exists.
    AlreadyExists = 6, "ALREADY_EXISTS", already_exists;
    /// The caller may not do this.
    PermissionDenied = 7, "PERMISSION_DENIED", permission_denied;
    /// A limit was reached.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED", resource_exhausted;
    /// The server is not in a state to do this.
    FailedPrecondition = 9, "FAILED_PRECONDITION", failed_precondition;
    /// A conflict with something concurrent.
    Aborted = 10, "ABORTED", aborted;
    /// Past a valid range.
    OutOfRange = 11, "OUT_OF_RANGE", out_of_range;
    /// Not supported.
    Unimplemented = 12, "UNIMPLEMENTED", unimplemented;
    /// An invariant of the server broke.
    Internal = 13, "INTERNAL", internal;
    /// Try again later.
    Unavailable = 14, "UNAVAILABLE", unavailable;
    /// Data is lost or corrupt.
    DataLoss = 15, "DATA_LOSS", data_loss;
    /// Nobody knows who the caller is.
    Unauthenticated = 16, "UNAUTHENTICATED", unauthenticated;
}

/// Why something failed: a code for programs, a message for the client, a cause for the log.
#[derive(Clone, Debug)]
pub struct Status {
    code: Code,
    message: String,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Status {
    /// A status with a message that a client may read.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into(), cause: None }
    }

    /// The same status with what brought it about; the cause is logged, never sent.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Error + Send + Sync + 'static) -> Status {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The same code and cause with `before` put in front of the message.
    #[must_use]
    pub fn prefixed(mut self, before: &str) -> Status {
        self.message.insert_str(0, before);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What brought it about, for the log.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

/// Prints `CODE: message`, as the original prints a status inside a longer text.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl Error for Status {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// Codes and messages are compared; causes are for people.
impl PartialEq for Status {
    fn eq(&self, other: &Status) -> bool {
        self.code == other.code && self.message == other.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_grpcs_numbers() {
        for (i, &code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.number(), i as i32 + 1);
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(0), None);
        assert_eq!(Status::not_found("x").to_string(), "NOT_FOUND: x");
    }
}
