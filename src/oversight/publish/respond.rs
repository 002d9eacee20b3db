//! An answer's form: HTTP's validators, ranges and encodings, as far as files that do not change need them.

use std::io::Write;
use std::ops::Range;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::Served;

/// What is smaller is not worth compressing.
const SMALLEST_GZIP: usize = 256;

/// A whole file, or that it has not changed; compressed where that is allowed, asked for and worth it.
pub(super) fn whole(bytes: Bytes, served: Served, headers: &HeaderMap, compressible: bool) -> Response {
    let tag = hex::encode(&Sha256::digest(&bytes)[..16]);
    let plain_tag = format!("\"{tag}\"");
    let zipped =
        (compressible && bytes.len() >= SMALLEST_GZIP && takes_gzip(headers)).then(|| format!("\"{tag}-gzip\""));
    let tag = zipped.as_ref().unwrap_or(&plain_tag);
    let mut response = if matches(headers, &plain_tag) || matches(headers, tag) {
        unchanged(tag, served)
    } else {
        let bytes = match &zipped {
            Some(_) => gzip(&bytes),
            None => bytes,
        };
        let mut response = Response::new(Body::from(bytes));
        describe(&mut response, served, tag);
        if zipped.is_some() {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    if compressible {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

pub(super) fn unchanged(tag: &str, served: Served) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    describe(&mut response, served, tag);
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

pub(super) fn describe(response: &mut Response, served: Served, tag: &str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(served.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(served.cache));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
}

/// Whether the client has this version already.
pub(super) fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let named = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut tags = named.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == tag)
}

/// Whether the client takes gzip: RFC 9110, 12.5.3, without the finer points of weights.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let mut codings = lines.flat_map(|line| line.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|part| {
            part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
        });
        is_gzip && !refused
    })
}

fn gzip(bytes: &[u8]) -> Bytes {
    // Writing to memory does not fail.
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 2), flate2::Compression::fast());
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}

pub(super) fn not_found() -> Response {
    // What is not there now may be soon.
    (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")], "not found\n").into_response()
}

pub(super) fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5"), (header::CACHE_CONTROL, "no-store")], "not now\n")
        .into_response()
}

/// What of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Of(Range<u64>),
    /// Nothing that it has.
    Beyond,
}

/// RFC 9110, 14: one range of bytes. Readers of Parquet fetch the end of a file first. Several, or another unit: the whole.
pub(super) fn range(headers: &HeaderMap, tag: &str, size: u64) -> Part {
    let of = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    // Only of the version that the client knows.
    if of(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Part::Whole;
    }
    let named = of(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let number =
        |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let part = match named.map(|(first, last)| ((first, number(first)), (last, number(last)))) {
        Some(((_, Some(first)), ("", _))) => first..size,
        Some(((_, Some(first)), (_, Some(last)))) if first <= last => first..size.min(last.saturating_add(1)),
        Some((("", _), (_, Some(length)))) => size.saturating_sub(length)..size,
        _ => return Part::Whole,
    };
    if part.is_empty() { Part::Beyond } else { Part::Of(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood() {
        let asked = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            super::range(&headers, "\"a\"", 10)
        };
        for (range, part) in [
            ("bytes=0-3", Part::Of(0..4)),
            ("bytes=3-", Part::Of(3..10)),
            ("bytes=-4", Part::Of(6..10)),
            ("bytes=-40", Part::Of(0..10)),
            ("bytes=9-18446744073709551615", Part::Of(9..10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=10-12", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=4-3", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes=99999999999999999999-", Part::Whole),
        ] {
            assert_eq!(asked(range), part, "{range}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-3".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"b\"".parse().unwrap());
        assert_eq!(range(&headers, "\"a\"", 10), Part::Whole);
        headers.insert(header::IF_RANGE, "\"a\"".parse().unwrap());
        assert_eq!(range(&headers, "\"a\"", 10), Part::Of(0..4));
    }
}
