//! What goes to standard error: metadata, and a status that is not OK with its details.

use std::process::ExitCode;

use base64::Engine;
use tonic::Status;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic_types::{ErrorDetail, StatusExt};

/// What every gRPC answer has, and tells nothing.
const ORDINARY: [&str; 3] = ["content-type", "grpc-status", "grpc-message"];

/// One line per entry that is not in every answer.
pub(super) fn metadata(kind: &str, map: &MetadataMap) {
    for entry in map.iter() {
        match entry {
            KeyAndValueRef::Ascii(key, _) if ORDINARY.contains(&key.as_str()) => {}
            KeyAndValueRef::Ascii(key, value) => {
                eprintln!("{kind}: {key}: {}", String::from_utf8_lossy(value.as_encoded_bytes()));
            }
            KeyAndValueRef::Binary(key, value) => {
                let bytes = value.to_bytes().unwrap_or_default();
                eprintln!("{kind}: {key}: {}", base64::engine::general_purpose::STANDARD.encode(bytes));
            }
        }
    }
}

/// The exchange's id in both logs: for `kopuro log show`.
pub(super) fn exchange(map: &MetadataMap) {
    if let Some(id) = map.get("kopuro-exchange").and_then(|id| id.to_str().ok()) {
        eprintln!("exchange: {id}");
    }
}

/// The status in words, with what `google.rpc` details say of it; the exit code is 64 plus the gRPC code.
pub(super) fn error(status: &Status) -> ExitCode {
    let code = status.code();
    eprintln!("status: {} ({}): {}", name(status), code as i32, status.message());
    match status.check_error_details_vec() {
        Ok(details) => details.iter().for_each(detail),
        Err(error) => eprintln!("details: unreadable: {error}"),
    }
    metadata("trailer", status.metadata());
    ExitCode::from(64 + u8::try_from(code as i32).unwrap_or(2))
}

fn detail(detail: &ErrorDetail) {
    match detail {
        ErrorDetail::ErrorInfo(info) => {
            eprintln!("reason: {} ({})", info.reason, info.domain);
            let mut metadata: Vec<_> = info.metadata.iter().collect();
            metadata.sort();
            for (key, value) in metadata {
                eprintln!("  {key}: {value}");
            }
        }
        ErrorDetail::BadRequest(bad) => {
            for violation in &bad.field_violations {
                eprintln!("field: {}: {}", violation.field, violation.description);
            }
        }
        ErrorDetail::RetryInfo(retry) => eprintln!("retry: after {:?}", retry.retry_delay.unwrap_or_default()),
        other => eprintln!("detail: {other:?}"),
    }
}

/// The code as gRPC spells it.
fn name(status: &Status) -> String {
    let mut name = String::new();
    for (index, letter) in format!("{:?}", status.code()).chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
