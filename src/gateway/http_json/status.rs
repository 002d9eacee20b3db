//! An HTTP error as a gRPC status. Understood are `google.rpc.Status` in JSON, alone or under `error` as Google's services write it, and
//! the Connect protocol's errors; of anything else only the HTTP status counts (the mapping of `google/rpc/code.proto`).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::StatusCode;
use prost::Message;
use prost_reflect::DescriptorPool;
use serde_json::Value;
use tonic::{Code, Status};

use crate::gateway::web::error::{code_named, detail_of};

/// Longest message that is told, in characters: it has to fit into a header.
const LONGEST: usize = 1_024;
/// Most bytes of details.
const MOST_DETAILS: usize = 4 << 10;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an error's status and body say.
pub(super) fn of(http: StatusCode, body: &[u8], types: &DescriptorPool) -> Status {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = said.get("error").filter(|error| error.is_object()).unwrap_or(&said);
    let named = said.get("status").or_else(|| said.get("code")).and_then(Value::as_str).and_then(code_named);
    let numbered = said.get("code").and_then(Value::as_i64).filter(|code| (1..=16).contains(code));
    let numbered = numbered.and_then(|code| i32::try_from(code).ok()).map(Code::from_i32);
    let code = named.or(numbered).unwrap_or_else(|| from_http(http));
    let message: String = match said.get("message").and_then(Value::as_str) {
        Some(message) => message.chars().take(LONGEST).collect(),
        None => format!("HTTP status {}", http.as_u16()),
    };
    let details = said.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let details: Vec<prost_types::Any> = details.iter().filter_map(|detail| any_of(detail, types)).collect();
    let rich = tonic_types::pb::Status { code: code as i32, message: message.clone(), details };
    match rich.details.is_empty() || rich.encoded_len() > MOST_DETAILS {
        true => Status::new(code, message),
        false => Status::with_details(code, message, rich.encode_to_vec().into()),
    }
}

/// A detail in JSON: with `@type` as protobuf writes an `Any`, or with `type` and `value` as Connect does.
fn any_of(detail: &Value, types: &DescriptorPool) -> Option<prost_types::Any> {
    if let Some(url) = detail.get("@type").and_then(Value::as_str) {
        let mut fields = detail.clone();
        fields.as_object_mut()?.remove("@type");
        return Some(prost_types::Any { type_url: url.to_owned(), value: detail_of(url, &fields, types)? });
    }
    let name = detail.get("type")?.as_str()?;
    let value = BASE64.decode(detail.get("value")?.as_str()?).ok()?;
    Some(prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value })
}

fn from_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        412 => Code::FailedPrecondition,
        416 => Code::OutOfRange,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        502 | 503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        402..=498 => Code::FailedPrecondition,
        500..=599 => Code::Internal,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn errors_in_their_dialects() {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        let read = |http: u16, body: &str| {
            let status = of(StatusCode::from_u16(http).unwrap(), body.as_bytes(), &pool);
            let reason = status.get_details_error_info().map(|info| info.reason);
            (status.code(), status.message().to_owned(), reason)
        };
        assert_eq!(read(404, "<html>"), (Code::NotFound, "HTTP status 404".into(), None));
        assert_eq!(read(418, ""), (Code::FailedPrecondition, "HTTP status 418".into(), None));
        assert_eq!(read(404, r#"{"code":"already_exists","message":"m"}"#), (Code::AlreadyExists, "m".into(), None));
        assert_eq!(read(500, r#"{"code":5,"message":"m"}"#), (Code::NotFound, "m".into(), None));
        let google = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"no","details":[
            {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"CLOSED","domain":"x"},{"@type":"a/no.Such"}]}}"#;
        assert_eq!(read(403, google), (Code::PermissionDenied, "no".into(), Some("CLOSED".into())));
        assert_eq!(
            read(400, r#"{"code":99,"details":"x","message":7}"#),
            (Code::InvalidArgument, "HTTP status 400".into(), None)
        );
        assert_eq!(read(500, &format!("{{\"message\":{:?}}}", "м".repeat(9_000))).1.chars().count(), 1_024);
    }
}
