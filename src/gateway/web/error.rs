//! Errors as the Connect protocol writes them (<https://connectrpc.com/docs/protocol#error-end-stream>): code, message, details, and
//! the HTTP status of a unary answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::StatusCode;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use std::sync::LazyLock;
use tonic::{Code, Status};

use crate::schema::json::write;

/// Largest detail that is shown as JSON besides.
const LARGEST_DEBUG: usize = 16 << 10;

/// `google.rpc.ErrorInfo` and its like.
static DETAILS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).unwrap_or_default());

/// Every code but OK: Connect's name and HTTP status.
const CODES: [(Code, &str, u16); 16] = [
    (Code::Cancelled, "canceled", 499),
    (Code::Unknown, "unknown", 500),
    (Code::InvalidArgument, "invalid_argument", 400),
    (Code::DeadlineExceeded, "deadline_exceeded", 504),
    (Code::NotFound, "not_found", 404),
    (Code::AlreadyExists, "already_exists", 409),
    (Code::PermissionDenied, "permission_denied", 403),
    (Code::ResourceExhausted, "resource_exhausted", 429),
    (Code::FailedPrecondition, "failed_precondition", 400),
    (Code::Aborted, "aborted", 409),
    (Code::OutOfRange, "out_of_range", 400),
    (Code::Unimplemented, "unimplemented", 501),
    (Code::Internal, "internal", 500),
    (Code::Unavailable, "unavailable", 503),
    (Code::DataLoss, "data_loss", 500),
    (Code::Unauthenticated, "unauthenticated", 401),
];

/// The HTTP status of a unary error.
pub(super) fn http_status(code: Code) -> StatusCode {
    let found = CODES.iter().find(|(known, ..)| *known == code);
    found.and_then(|(.., status)| StatusCode::from_u16(*status).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A status as Connect's JSON. A detail whose type is known, from `types` or among google.rpc's, is shown in clear besides.
pub(super) fn to_json(status: &Status, types: Option<&DescriptorPool>) -> Value {
    let name = CODES.iter().find(|(known, ..)| *known == status.code()).map_or("unknown", |(_, name, _)| name);
    let mut error = json!({ "code": name });
    if !status.message().is_empty() {
        error["message"] = status.message().into();
    }
    let details = tonic_types::pb::Status::decode(status.details()).map(|rich| rich.details).unwrap_or_default();
    let details: Vec<Value> = details.iter().map(|detail| detail_json(detail, types)).collect();
    if !details.is_empty() {
        error["details"] = details.into();
    }
    error
}

/// The code of this name, as Connect or as gRPC writes it.
pub(in crate::gateway) fn code_named(name: &str) -> Option<Code> {
    let name = name.to_ascii_lowercase();
    let name = if name == "cancelled" { "canceled" } else { &name };
    CODES.iter().find(|(_, known, _)| *known == name).map(|(code, ..)| *code)
}

/// The bytes of a detail that is told in JSON, where its type is known.
pub(in crate::gateway) fn detail_of(type_url: &str, fields: &Value, types: &DescriptorPool) -> Option<Vec<u8>> {
    let name = type_url.rsplit('/').next().unwrap_or_default();
    let known = [types, &*DETAILS].into_iter().filter_map(|pool| pool.get_message_by_name(name)).next()?;
    DynamicMessage::deserialize(known, fields).ok().map(|message| message.encode_to_vec())
}

fn detail_json(detail: &prost_types::Any, types: Option<&DescriptorPool>) -> Value {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let mut shown = json!({ "type": name, "value": STANDARD_NO_PAD.encode(&detail.value) });
    let pools = types.into_iter().chain([&*DETAILS]);
    let known = pools.filter_map(|pool| pool.get_message_by_name(name)).next();
    let message = known.and_then(|known| DynamicMessage::decode(known, detail.value.as_slice()).ok());
    if let Some(debug) = message.and_then(|message| serde_json::from_slice(&write(&message, LARGEST_DEBUG).ok()?).ok())
    {
        let debug: Value = debug;
        shown["debug"] = debug;
    }
    shown
}
