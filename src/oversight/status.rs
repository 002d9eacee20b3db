//! Refusals as gRPC statuses with `google.rpc.ErrorInfo`: domain `kopuro`, a stable reason, the provider's side.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A status with a stable reason.
pub(super) fn with_reason(code: Code, text: &str, reason: &str) -> Status {
    let metadata = HashMap::from([("side".to_owned(), "provider".to_owned())]);
    Status::with_error_details(code, text, ErrorDetails::with_error_info(reason, "kopuro", metadata))
}

/// Too much at once.
pub(super) fn busy(text: &str) -> Status {
    with_reason(Code::ResourceExhausted, text, "AUDIT_LIMIT")
}

/// A request that is wrong whatever the log holds.
pub(super) fn invalid(text: &str) -> Status {
    with_reason(Code::InvalidArgument, text, "AUDIT_REQUEST")
}
