//! JSON of the REST interface, to tensors and back.
//!
//! Owns: the original's grammar, its rules for shapes and dtypes, its texts, its white space. There
//! is no document model: a request is scanned once ([`scan`]) and its tensors are then read straight
//! from the text into the bytes that the engine takes ([`tensor`]); only a request that is wrong is
//! looked at a second time, to find which of its faults the original would have named
//! ([`examine`]).
//! May not know: HTTP, models, engines.

mod cursor;
mod examine;
pub(crate) mod example;
mod float;
mod number;
pub(crate) mod predict;
mod pretty;
mod scan;
mod tensor;
mod text;
#[cfg(test)]
pub(crate) mod vectors;
pub(crate) mod write;

use vesta_model::{Code, Status};

use self::cursor::SyntaxError;
pub(crate) use self::float::push_six_digits;
pub(crate) use self::pretty::{Pretty, push_string};
use self::scan::{Document, Kind, Value, scan};

/// An error whose message may quote bytes of the request that are not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: Vec<u8>,
}

impl Refusal {
    pub(crate) fn invalid(message: impl Into<Vec<u8>>) -> Refusal {
        Refusal { code: Code::InvalidArgument, message: message.into() }
    }

    /// The error that quotes `value` between other words.
    fn quoting(before: &str, value: Value<'_>, after: &str) -> Refusal {
        Refusal::invalid([before.as_bytes(), &pretty::quote(value), after.as_bytes()].concat())
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal { code: status.code(), message: status.message().as_bytes().to_vec() }
    }
}

impl From<SyntaxError> for Refusal {
    fn from(error: SyntaxError) -> Refusal {
        let SyntaxError { fault, offset } = error;
        Refusal::invalid(format!("JSON Parse error: {} at offset: {offset}", fault.text()))
    }
}

/// A request's document, whose root is an object, and the name of the signature that it asks for;
/// empty when it names none.
fn open<'a, const N: usize>(
    json: &'a [u8],
    names: [&str; N],
    signature_at: usize,
) -> Result<(Document<'a, N>, Vec<u8>), Refusal> {
    if json.is_empty() {
        return Err(Refusal::invalid("JSON Parse error: The document is empty"));
    }
    let document = scan(json, names)?;
    if document.root.kind() != Kind::Object {
        return Err(Refusal::quoting("JSON Value: ", document.root, " Is not object"));
    }
    let signature = match document.members[signature_at] {
        None => Vec::new(),
        Some(value) => match value.as_text() {
            Some(text) => text.unescaped().into_owned(),
            None => {
                let after =
                    " not formatted correctly. 'signature_name' key must be a string value.";
                return Err(Refusal::quoting("JSON Value: ", document.root, after));
            }
        },
    };
    Ok((document, signature))
}
