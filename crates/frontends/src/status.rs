//! From a status to each wire. Owns the tables; knows no request.
//!
//! gRPC needs no table: [`Code::number`] is its own numbering.

use http::StatusCode;
use vesta_model::{Code, Status};

use crate::tfs::json::Pretty;

/// The HTTP status that stands for `code`, as TensorFlow Serving maps it.
pub fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The JSON document that tells a REST client of an error: `{"error": "<message>"}`, with the white
/// space of the original.
pub fn error_json(status: &Status) -> Vec<u8> {
    error_json_of(status.message().as_bytes())
}

/// The same for a message that need not be UTF-8, since it may quote the request.
pub(crate) fn error_json_of(message: &[u8]) -> Vec<u8> {
    let mut writer = Pretty::new();
    writer.start_object();
    writer.key(b"error");
    writer.string(message);
    writer.end_object();
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_map_as_the_contract_says() {
        let numbers: Vec<u16> = Code::ALL.iter().map(|&code| http_status(code).as_u16()).collect();
        let want = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        assert_eq!(numbers, want);
    }

    #[test]
    fn vectors_of_codes_are_met() {
        use crate::tfs::json::vectors::vectors;
        for vector in vectors("status_to_http") {
            let name = vector["code"].as_str().unwrap();
            let code = Code::ALL.iter().find(|code| code.name() == name);
            // OK is no code of a `Status` here.
            let number = code.map_or(200, |&code| http_status(code).as_u16());
            assert_eq!(code.is_none(), name == "OK", "{name}");
            assert_eq!(u64::from(number), vector["http"].as_u64().unwrap(), "{name}");
        }
    }

    #[test]
    fn messages_are_escaped() {
        let status = Status::not_found("a \"b\"\n\u{1}é/");
        let want = "{\n    \"error\": \"a \\\"b\\\"\\n\\u0001é/\"\n}";
        assert_eq!(error_json(&status), want.as_bytes());
    }
}
