//! What the two processes say to each other: message bodies and their checks.
//!
//! Owns the mirror structures and their translation to the vocabulary. Knows nothing of sockets.
//! Invariant: decoding never panics and never takes more memory than the message has bytes (times a
//! small constant); what decodes is checked before it becomes a value of the vocabulary.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vesta_model::{
    Code, DType, EngineIdentity, InputLayout, LoadRequest, RunRequest, Shape, Status, Version,
    strings_byte_len,
};

use crate::describe::WireDescription;

/// First in every hello, whatever the protocol's version.
pub(crate) const MAGIC: [u8; 8] = *b"vesta/wk";
/// Raised with every change of a message.
pub(crate) const PROTOCOL: u32 = 2;
/// What a slot begins with, in bytes: the child writes the slot's generation there, little-endian,
/// when it begins to compute the run, so that a run that it never began can be sent again. The
/// memory outlives the child.
pub(crate) const MARK_BYTES: usize = 8;
/// Longest text of an error, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Both sides' first message. Its form never changes, so that a difference is told plainly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) magic: [u8; 8],
    pub(crate) protocol: u32,
    /// Which build of the server; both sides are usually the same file.
    pub(crate) build: String,
    /// The sender's process.
    pub(crate) pid: u32,
}

/// From the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    Hello(Hello),
    Load(WireLoad),
    Run(WireRun),
    /// These slots are not used again: unmap them.
    Retire(Vec<u64>),
}

/// From the child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Report {
    Hello(Hello),
    Loaded(Result<WireLoaded, WireStatus>),
    Ran(WireRan),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireLoad {
    model: String,
    version: i64,
    artifact: Vec<u8>,
    tags: Vec<String>,
    threads: u32,
    /// Runs that the child works on at the same time; at least 1.
    pub(crate) runs_max: u32,
    /// The most bytes that outputs may take outside their slot.
    pub(crate) own_memory_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireLoaded {
    pub(crate) engine_name: String,
    pub(crate) engine_version: String,
    pub(crate) description: WireDescription,
}

/// Which slot a run lives in. Its memfd comes with the frame when the child cannot have it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireSlot {
    pub(crate) id: u64,
    /// Counts the uses of the slot.
    pub(crate) generation: u64,
    /// Bytes of the memfd, all of which are mapped.
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireInput {
    pub(crate) shape: Vec<u64>,
    pub(crate) string_bytes: u64,
    /// Where in the slot the input begins.
    pub(crate) start: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireRun {
    pub(crate) id: u64,
    pub(crate) slot: WireSlot,
    pub(crate) signature: String,
    pub(crate) inputs: Vec<WireInput>,
    pub(crate) outputs: Vec<u32>,
    /// Where in the slot the child may begin to write outputs.
    pub(crate) outputs_start: u64,
    /// Time left when the order was sent.
    pub(crate) time_left_us: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireOutput {
    pub(crate) dtype: i32,
    pub(crate) shape: Vec<u64>,
    /// Where in the slot, or in the memfd that came with the answer, the output lies.
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireRan {
    pub(crate) id: u64,
    pub(crate) generation: u64,
    pub(crate) outcome: Result<WireOutputs, WireStatus>,
    /// The engine still holds an input: the slot must not be used again.
    pub(crate) slot_kept: bool,
    /// The run panicked: the session is not to be trusted any more.
    pub(crate) session_broken: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireOutputs {
    pub(crate) outputs: Vec<WireOutput>,
    /// Bytes of the memfd that came with the answer and holds the outputs, if the slot does not.
    pub(crate) own_memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireStatus {
    code: i32,
    message: String,
    cause: Option<String>,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Status> {
    postcard::to_stdvec(message).map_err(|error| {
        Status::internal("a message to a worker has no encoding").with_cause(error)
    })
}

/// Reads one message that fills `body` exactly.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(broken(&format!("{} bytes follow a message", rest.len()))),
        Err(error) => Err(broken("bytes that are no message").with_cause(error)),
    }
}

/// The peer does not keep the protocol.
pub(crate) fn broken(what: &str) -> Status {
    Status::internal(format!("the protocol between server and worker was broken: {what}"))
}

impl Hello {
    pub(crate) fn new(build: &str) -> Hello {
        Hello { magic: MAGIC, protocol: PROTOCOL, build: build.to_owned(), pid: std::process::id() }
    }

    /// Whether the sender of this hello can be talked to by a process of this `build`.
    pub(crate) fn check(&self, build: &str) -> Result<(), Status> {
        if self.magic != MAGIC {
            return Err(broken("the other side is no part of this server"));
        }
        if self.protocol != PROTOCOL || self.build != build {
            return Err(Status::failed_precondition(format!(
                "server and worker are not the same build: `{build}` with protocol {PROTOCOL} here, \
                 `{}` with protocol {} there; restart the server after an update of its files",
                self.build.chars().take(80).collect::<String>(),
                self.protocol
            )));
        }
        Ok(())
    }
}

impl WireLoad {
    pub(crate) fn new(
        request: &LoadRequest,
        runs_max: usize,
        own_memory_bytes_max: usize,
    ) -> WireLoad {
        use std::os::unix::ffi::OsStrExt;
        WireLoad {
            model: request.model.as_str().to_owned(),
            version: request.version.0,
            artifact: request.artifact.as_os_str().as_bytes().to_vec(),
            tags: request.tags.clone(),
            threads: u32::try_from(request.threads).unwrap_or(u32::MAX).max(1),
            runs_max: u32::try_from(runs_max).unwrap_or(u32::MAX).max(1),
            own_memory_bytes_max: own_memory_bytes_max as u64,
        }
    }

    pub(crate) fn request(self) -> LoadRequest {
        use std::os::unix::ffi::OsStringExt;
        LoadRequest {
            model: self.model.into(),
            version: Version(self.version),
            artifact: std::ffi::OsString::from_vec(self.artifact).into(),
            tags: self.tags,
            threads: self.threads.max(1) as usize,
        }
    }
}

impl WireLoaded {
    pub(crate) fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: self.engine_name.clone(), version: self.engine_version.clone() }
    }
}

impl WireRun {
    /// The request in the vocabulary's terms.
    pub(crate) fn request(&self) -> Result<RunRequest, Status> {
        let inputs = self
            .inputs
            .iter()
            .map(|input| {
                Ok(InputLayout {
                    shape: shape(&input.shape)?,
                    string_bytes: length(input.string_bytes)?,
                })
            })
            .collect::<Result<_, Status>>()?;
        Ok(RunRequest {
            signature: self.signature.clone(),
            inputs,
            outputs: self.outputs.iter().map(|&index| index as usize).collect(),
        })
    }

    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.time_left_us.map(Duration::from_micros)
    }
}

impl WireStatus {
    pub(crate) fn of(status: &Status) -> WireStatus {
        WireStatus {
            code: status.code().number(),
            message: shortened(status.message()),
            cause: status.cause().map(|cause| shortened(&cause.to_string())),
        }
    }

    pub(crate) fn status(self) -> Status {
        // A code that nobody knows says as much as UNKNOWN.
        let code = Code::from_number(self.code).unwrap_or(Code::Unknown);
        let status = Status::new(code, self.message);
        match self.cause {
            Some(cause) => status.with_cause(std::io::Error::other(cause)),
            None => status,
        }
    }
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// A length or position that a peer named.
pub(crate) fn length(value: u64) -> Result<usize, Status> {
    usize::try_from(value)
        .ok()
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| broken("a length is too large"))
}

pub(crate) fn shape(dims: &[u64]) -> Result<Shape, Status> {
    Shape::new(dims.iter().map(|&dim| length(dim)).collect::<Result<Vec<_>, _>>()?)
}

pub(crate) fn wire_shape(shape: &Shape) -> Vec<u64> {
    shape.dims().iter().map(|&dim| dim as u64).collect()
}

pub(crate) fn dtype(number: i32) -> Result<DType, Status> {
    DType::from_number(number).ok_or_else(|| broken("a dtype that does not exist"))
}

/// Bytes that a tensor takes in memory.
///
/// # Errors
/// `INVALID_ARGUMENT` when that is too many, or the dtype has no layout in memory.
pub(crate) fn tensor_bytes(
    dtype: DType,
    shape: &Shape,
    string_bytes: usize,
) -> Result<usize, Status> {
    if dtype == DType::String {
        return strings_byte_len(shape.elements(), string_bytes).ok_or_else(|| {
            Status::invalid_argument(format!(
                "a string tensor of shape {shape} takes too many bytes"
            ))
        });
    }
    let width = dtype.width().ok_or_else(|| {
        Status::invalid_argument(format!("a tensor of dtype {dtype} cannot be held in memory"))
    })?;
    shape.bytes(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run() -> WireRun {
        WireRun {
            id: 7,
            slot: WireSlot { id: 1, generation: 2, bytes: 65536 },
            signature: "serving_default".to_owned(),
            inputs: vec![WireInput { shape: vec![2, 3], string_bytes: 0, start: 0 }],
            outputs: vec![1, 0],
            outputs_start: 64,
            time_left_us: Some(1500),
        }
    }

    #[test]
    fn messages_round_trip() {
        let order = Order::Run(run());
        let body = encode(&order).unwrap();
        assert_eq!(decode::<Order>(&body).unwrap(), order);
        let longer = [body.as_slice(), &[0]].concat();
        assert!(decode::<Order>(&longer).is_err());
        assert_eq!(run().request().unwrap().outputs, [1, 0]);
    }

    #[test]
    fn loads_keep_paths_that_are_no_text() {
        use std::os::unix::ffi::OsStringExt;
        let request = LoadRequest {
            model: "m".into(),
            version: Version(-3),
            artifact: std::ffi::OsString::from_vec(vec![b'/', 0xff]).into(),
            tags: vec!["serve".to_owned()],
            threads: 2,
        };
        assert_eq!(WireLoad::new(&request, 4, 1).request(), request);
    }

    #[test]
    fn a_status_keeps_code_message_and_cause() {
        let status = Status::not_found("no such thing").with_cause(std::io::Error::other("why"));
        let back = WireStatus::of(&status).status();
        assert_eq!(back, status);
        assert_eq!(back.cause().unwrap().to_string(), "why");
        let odd = WireStatus { code: 99, message: String::new(), cause: None };
        assert_eq!(odd.status().code(), Code::Unknown);
        let long = WireStatus::of(&Status::internal("é".repeat(TEXT_BYTES_MAX)));
        assert!(long.message.len() <= TEXT_BYTES_MAX);
    }

    #[test]
    fn another_build_is_told_plainly() {
        let hello = Hello::new("1.0");
        assert!(hello.check("1.0").is_ok());
        let status = hello.check("1.1").unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("`1.1`") && status.message().contains("`1.0`"));
        assert!(Hello { magic: [0; 8], ..Hello::new("1.0") }.check("1.0").is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0u8..5) {
            let with_head = [&[head], bytes.as_slice()].concat();
            for body in [&bytes, &with_head] {
                if let Ok(Order::Run(run)) = decode::<Order>(body) {
                    let _ = run.request();
                }
                if let Ok(Report::Loaded(Ok(loaded))) = decode::<Report>(body) {
                    let _ = loaded.description.description();
                }
            }
        }

        #[test]
        fn damaged_messages_never_panic(at in 0usize..60, bit in 0u8..8) {
            let mut body = encode(&Order::Run(run())).unwrap();
            let at = at % body.len();
            body[at] ^= 1 << bit;
            if let Ok(Order::Run(run)) = decode::<Order>(&body) {
                let _ = run.request();
            }
        }
    }
}
