//! Well-known formats of strings, as protovalidate defines them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Email,
    Hostname,
    Ip,
    Ipv4,
    Ipv6,
    Uuid,
    Tuuid,
    Ulid,
}

impl Known {
    /// By the rule's name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "email" => Self::Email,
            "hostname" => Self::Hostname,
            "ip" => Self::Ip,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "uuid" => Self::Uuid,
            "tuuid" => Self::Tuuid,
            "ulid" => Self::Ulid,
            _ => return None,
        })
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Email => "an email address",
            Self::Hostname => "a hostname",
            Self::Ip => "an IP address",
            Self::Ipv4 => "an IPv4 address",
            Self::Ipv6 => "an IPv6 address",
            Self::Uuid => "a UUID",
            Self::Tuuid => "a UUID without hyphens",
            Self::Ulid => "a ULID",
        }
    }

    pub(super) fn holds(self, text: &str) -> bool {
        match self {
            Self::Email => is_email(text),
            Self::Hostname => is_hostname(text),
            Self::Ip => is_ipv4(text) || is_ipv6(text),
            Self::Ipv4 => is_ipv4(text),
            Self::Ipv6 => is_ipv6(text),
            Self::Uuid => {
                text.len() == 36
                    && text.bytes().enumerate().all(|(at, byte)| match at {
                        8 | 13 | 18 | 23 => byte == b'-',
                        _ => byte.is_ascii_hexdigit(),
                    })
            }
            Self::Tuuid => text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            Self::Ulid => {
                text.len() == 26
                    && matches!(text.as_bytes()[0], b'0'..=b'7')
                    && text.bytes().all(|byte| {
                        byte.is_ascii_alphanumeric() && !matches!(byte.to_ascii_uppercase(), b'I' | b'L' | b'O' | b'U')
                    })
            }
        }
    }
}

/// As HTML defines an `<input type=email>`.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let of_local = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
    !local.is_empty() && local.bytes().all(of_local) && domain.split('.').all(is_label)
}

fn is_hostname(text: &str) -> bool {
    if text.len() > 253 {
        return false;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let last_is_a_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.split('.').all(is_label) && !last_is_a_number
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

/// With a zone behind it, or without.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(|zone| !zone.is_empty() && !zone.contains('\0'))
}
