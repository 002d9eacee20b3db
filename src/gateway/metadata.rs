//! Call metadata: what a caller may say to the gateway, what crosses, and what never does. Pure.
//!
//! Names beginning with `kopuro-` are the gateway's: a system may send those in [`CallMetadata`], a node also
//! `kopuro-exchange` and `kopuro-consumer`; any other is refused, from either side. Of `grpc-*` only what the gRPC protocol
//! defines crosses; hop-by-hop headers (RFC 9110, 7.6.1) end here.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::Publication;
use crate::trust::identity::SystemId;

/// Names the provider system.
pub(super) const PROVIDER: HeaderName = HeaderName::from_static("kopuro-provider");
/// Code of the legal basis that the caller claims; from node to back-end and in answers, the one that holds.
pub(super) const PURPOSE: HeaderName = HeaderName::from_static("kopuro-purpose");
/// The official acting.
pub(super) const USER: HeaderName = HeaderName::from_static("kopuro-user");
/// Whom the data is about.
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("kopuro-subject");
/// Case or application number.
pub(super) const CASE: HeaderName = HeaderName::from_static("kopuro-case");
/// The exchange's UUIDv7, between nodes, to the back-end and in every answer.
pub(super) const EXCHANGE: HeaderName = HeaderName::from_static("kopuro-exchange");
/// The asking system, between nodes and to the back-end.
pub(super) const CONSUMER: HeaderName = HeaderName::from_static("kopuro-consumer");
/// In an answer between nodes: the provider's node itself refused or failed, for this reason.
pub(super) const REFUSED: HeaderName = HeaderName::from_static("kopuro-refused");
/// Between nodes, `public`, `sealed` or `delayed <days>`: with a request the class under which the consumer's node records
/// it, in an answer the grant's.
pub(super) const PUBLICATION: HeaderName = HeaderName::from_static("kopuro-publication");

/// In trailers: how many fields of the answer were withheld, because the grant does not allow them.
pub(super) const WITHHELD: HeaderName = HeaderName::from_static("kopuro-withheld");
/// In trailers, where the grant tells them: the paths of those fields, separated by commas.
pub(super) const WITHHELD_FIELDS: HeaderName = HeaderName::from_static("kopuro-withheld-fields");

/// Which encodings the next hop may use.
pub(super) const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// How a call ended.
pub(super) const STATUS: HeaderName = HeaderName::from_static("grpc-status");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TE: HeaderName = HeaderName::from_static("te");

/// Longest value of a `kopuro-*` header, in bytes.
const LONGEST: usize = 256;

/// What is wrong with a call's metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MetadataError {
    /// A `kopuro-*` name that callers may not send.
    #[error(
        "metadata {0:?} is reserved for the gateway: callers may send kopuro-provider, kopuro-purpose, kopuro-user, kopuro-subject and kopuro-case"
    )]
    Reserved(String),
    /// A reserved name given twice.
    #[error("metadata {0:?} is given more than once")]
    Repeated(String),
    /// Not visible ASCII, or too long.
    #[error("metadata {0:?} must be 1 to 256 characters of visible ASCII")]
    Value(String),
    /// Not a system's identity.
    #[error("metadata {0:?} must name a system, as KG/GOV/70000005/civil-registry")]
    System(String),
    /// Not a publication class.
    #[error("metadata {0:?} must be public, sealed or delayed <days>")]
    Class(String),
    /// A node's call lacks what nodes must send.
    #[error("metadata {0:?} is missing or malformed: nodes send it with every call")]
    Missing(String),
    /// Not a `TimeoutValue TimeoutUnit` of the gRPC protocol.
    #[error("grpc-timeout is malformed: up to 8 digits and one of H M S m u n")]
    Timeout,
}

/// What the caller tells the gateway about a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CallMetadata {
    /// `kopuro-provider`.
    pub(super) provider: Option<SystemId>,
    /// `kopuro-purpose`.
    pub(super) purpose: Option<String>,
    /// `kopuro-user`.
    pub(super) user: Option<String>,
    /// `kopuro-subject`.
    pub(super) subject: Option<String>,
    /// `kopuro-case`.
    pub(super) case: Option<String>,
    /// `grpc-timeout`.
    pub(super) timeout: Option<Duration>,
}

/// What a node tells another besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeMetadata {
    /// `kopuro-exchange`.
    pub(super) exchange: uuid::Uuid,
    /// `kopuro-consumer`.
    pub(super) consumer: SystemId,
    /// `kopuro-publication`; a node that says nothing records as `public`.
    pub(super) publication: Publication,
}

/// Takes the gateway's own metadata and the deadline out of a system's call.
pub(super) fn take_call(headers: &mut HeaderMap) -> Result<CallMetadata, MetadataError> {
    let call = CallMetadata {
        provider: take_system(headers, &PROVIDER)?,
        purpose: take_text(headers, &PURPOSE)?,
        user: take_text(headers, &USER)?,
        subject: take_text(headers, &SUBJECT)?,
        case: take_text(headers, &CASE)?,
        timeout: take_timeout(headers)?,
    };
    match headers.keys().find(|name| name.as_str().starts_with("kopuro-")) {
        Some(name) => Err(MetadataError::Reserved(name.to_string())),
        None => Ok(call),
    }
}

/// Takes the same, and what nodes add, out of a node's call.
pub(super) fn take_node_call(headers: &mut HeaderMap) -> Result<(NodeMetadata, CallMetadata), MetadataError> {
    let exchange = take_text(headers, &EXCHANGE)?
        .and_then(|text| uuid::Uuid::try_parse(&text).ok())
        .filter(|id| id.get_version_num() == 7)
        .ok_or_else(|| MetadataError::Missing(EXCHANGE.to_string()))?;
    let consumer = take_system(headers, &CONSUMER)?.ok_or_else(|| MetadataError::Missing(CONSUMER.to_string()))?;
    let publication = take_text(headers, &PUBLICATION)?.map(|text| text.parse()).transpose();
    let publication = publication.map_err(|_| MetadataError::Class(PUBLICATION.to_string()))?.unwrap_or_default();
    Ok((NodeMetadata { exchange, consumer, publication }, take_call(headers)?))
}

/// Leaves in a request's headers only what may cross to the next hop.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    strip(headers, |name| {
        matches!(
            name,
            "grpc-encoding"
                | "grpc-accept-encoding"
                | "grpc-previous-rpc-attempts"
                | "grpc-trace-bin"
                | "grpc-tags-bin"
        )
    });
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// Leaves in a response's headers or trailers only what may cross to the next hop.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    strip(headers, |name| {
        matches!(
            name,
            "grpc-status"
                | "grpc-message"
                | "grpc-status-details-bin"
                | "grpc-encoding"
                | "grpc-accept-encoding"
                | "grpc-retry-pushback-ms"
        )
    });
}

/// Sets `grpc-timeout` for the next hop.
pub(super) fn put_timeout(headers: &mut HeaderMap, left: Duration) {
    let micros = left.as_micros().max(1);
    let text = match micros {
        0..=99_999_999 => format!("{micros}u"),
        100_000_000..=99_999_999_999 => format!("{}m", micros / 1_000),
        _ => format!("{}S", (micros / 1_000_000).min(99_999_999)),
    };
    put_once(headers, GRPC_TIMEOUT, &text);
}

/// Adds a header of ours; a value that is no header text is left out (ours all are).
pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// As [`put`], for a value of this call alone, or a person's: HPACK is told to keep it out of the connection's table (RFC 7541,
/// 7.1.3), which it would only fill.
pub(super) fn put_once(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

fn strip(headers: &mut HeaderMap, grpc: impl Fn(&str) -> bool) {
    let kept = |name: &str| match name {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "host"
        | "content-length"
        | "date"
        | "server" => false,
        _ if name.starts_with("kopuro-") => false,
        _ => !name.starts_with("grpc-") || grpc(name),
    };
    if headers.keys().all(|name| kept(name.as_str())) {
        return;
    }
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| !kept(name.as_str())).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
}

fn take_text(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<String>, MetadataError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(MetadataError::Repeated(name.to_string()));
    }
    let text = match value.to_str() {
        Ok(text) if (1..=LONGEST).contains(&text.len()) => text.to_owned(),
        _ => return Err(MetadataError::Value(name.to_string())),
    };
    headers.remove(name);
    Ok(Some(text))
}

fn take_system(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<SystemId>, MetadataError> {
    take_text(headers, name)?.map(|text| text.parse().map_err(|_| MetadataError::System(name.to_string()))).transpose()
}

fn take_timeout(headers: &mut HeaderMap) -> Result<Option<Duration>, MetadataError> {
    let Some(value) = headers.remove(GRPC_TIMEOUT) else { return Ok(None) };
    let text = value.to_str().map_err(|_| MetadataError::Timeout)?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(MetadataError::Timeout)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(MetadataError::Timeout);
    }
    let n: u64 = digits.parse().map_err(|_| MetadataError::Timeout)?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return Err(MetadataError::Timeout),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn callers_cannot_speak_for_the_gateway() {
        for name in ["kopuro-exchange", "kopuro-consumer", "kopuro-publication", "kopuro-refused", "kopuro-anything"] {
            let mut map = headers(&[(name, "KG/GOV/1/a")]);
            assert_eq!(take_call(&mut map), Err(MetadataError::Reserved(name.into())));
        }
        let mut map = headers(&[("kopuro-purpose", "a"), ("kopuro-purpose", "b")]);
        assert_eq!(take_call(&mut map), Err(MetadataError::Repeated("kopuro-purpose".into())));
        let mut map = headers(&[("kopuro-provider", "civil")]);
        assert_eq!(take_call(&mut map), Err(MetadataError::System("kopuro-provider".into())));
    }

    #[test]
    fn nodes_say_under_which_class_they_record() {
        let id = uuid::Uuid::now_v7().to_string();
        let call = |class: Option<&str>| {
            let mut map = headers(&[("kopuro-exchange", &id), ("kopuro-consumer", "KG/GOV/1/a")]);
            class.map(|class| map.insert("kopuro-publication", class.parse().unwrap()));
            take_node_call(&mut map).map(|(node, _)| node.publication)
        };
        assert_eq!(call(None), Ok(Publication::Public));
        for class in [Publication::Public, Publication::Sealed, Publication::Delayed { days: 30 }] {
            assert_eq!(call(Some(&class.to_string())), Ok(class));
        }
        for wrong in ["secret", "delayed", "delayed -1", "delayed 30 days", "PUBLIC"] {
            assert_eq!(call(Some(wrong)), Err(MetadataError::Class("kopuro-publication".into())), "{wrong}");
        }
    }

    #[test]
    fn only_what_may_cross_crosses() {
        let mut map = headers(&[
            ("x-request-id", "7"),
            ("trace-bin", "AAEC"),
            ("grpc-encoding", "gzip"),
            ("grpc-internal-secret", "1"),
            ("grpc-status", "0"),
            ("connection", "x-request-id"),
            ("kopuro-refused", "X"),
        ]);
        strip_request(&mut map);
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["grpc-encoding", "te", "trace-bin", "x-request-id"]);
    }

    #[test]
    fn deadlines() {
        for (text, want) in
            [("1H", 3_600_000_000), ("2M", 120_000_000), ("3S", 3_000_000), ("250m", 250_000), ("7u", 7)]
        {
            let mut map = headers(&[("grpc-timeout", text)]);
            assert_eq!(take_call(&mut map).unwrap().timeout, Some(Duration::from_micros(want)), "{text}");
        }
        for text in ["", "S", "123456789S", "1", "1x", "-1S", "1.5S", "٣S"] {
            let mut map = HeaderMap::new();
            map.insert("grpc-timeout", HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(take_call(&mut map), Err(MetadataError::Timeout), "{text}");
        }
        for micros in [0u64, 1, 99_999_999, 100_000_000, 86_400_000_000, u64::MAX / 2] {
            let mut map = HeaderMap::new();
            put_timeout(&mut map, Duration::from_micros(micros));
            let back = take_call(&mut map).unwrap().timeout.unwrap();
            assert!(back <= Duration::from_micros(micros.max(1)));
            assert!(back >= Duration::from_micros(micros.min(99_999_999_000_000) / 1000 * 999));
        }
    }
}
