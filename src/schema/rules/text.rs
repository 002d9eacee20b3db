//! Rules of strings and bytes.

use regex::Regex;

use super::known::Known;

/// One rule of a string.
#[derive(Debug)]
pub(super) enum TextCheck {
    Const(String),
    Len(u64),
    MinLen(u64),
    MaxLen(u64),
    LenBytes(u64),
    MinBytes(u64),
    MaxBytes(u64),
    /// As it is written, and compiled.
    Pattern(String, Box<Regex>),
    Prefix(String),
    Suffix(String),
    Contains(String),
    NotContains(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Known(Known),
}

/// One rule of bytes.
#[derive(Debug)]
pub(super) enum BytesCheck {
    Const(Vec<u8>),
    Len(u64),
    MinLen(u64),
    MaxLen(u64),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Vec<u8>),
    In(Vec<Vec<u8>>),
    NotIn(Vec<Vec<u8>>),
}

impl TextCheck {
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        // Characters are code points, as in CEL.
        let characters = || value.chars().count() as u64;
        let bytes = value.len() as u64;
        let holds = match self {
            Self::Const(expected) => value == expected,
            Self::Len(length) => characters() == *length,
            Self::MinLen(length) => characters() >= *length,
            Self::MaxLen(length) => characters() <= *length,
            Self::LenBytes(length) => bytes == *length,
            Self::MinBytes(length) => bytes >= *length,
            Self::MaxBytes(length) => bytes <= *length,
            Self::Pattern(_, regex) => regex.is_match(value),
            Self::Prefix(part) => value.starts_with(part.as_str()),
            Self::Suffix(part) => value.ends_with(part.as_str()),
            Self::Contains(part) => value.contains(part.as_str()),
            Self::NotContains(part) => !value.contains(part.as_str()),
            Self::In(list) => list.is_empty() || list.iter().any(|one| one == value),
            Self::NotIn(list) => !list.iter().any(|one| one == value),
            Self::Known(known) => known.holds(value),
        };
        if holds { Ok(()) } else { Err(self.words()) }
    }

    fn words(&self) -> String {
        match self {
            Self::Const(expected) => format!("must equal `{expected}`"),
            Self::Len(length) => format!("must be {length} character{} long", plural(*length)),
            Self::MinLen(length) => format!("must be at least {length} character{} long", plural(*length)),
            Self::MaxLen(length) => format!("must be at most {length} character{} long", plural(*length)),
            Self::LenBytes(length) => format!("must be {length} byte{} long", plural(*length)),
            Self::MinBytes(length) => format!("must be at least {length} byte{} long", plural(*length)),
            Self::MaxBytes(length) => format!("must be at most {length} byte{} long", plural(*length)),
            Self::Pattern(written, _) => format!("must match the pattern `{written}`"),
            Self::Prefix(part) => format!("must begin with `{part}`"),
            Self::Suffix(part) => format!("must end with `{part}`"),
            Self::Contains(part) => format!("must contain `{part}`"),
            Self::NotContains(part) => format!("must not contain `{part}`"),
            Self::In(list) => format!("must be in list [{}]", list.join(", ")),
            Self::NotIn(list) => format!("must not be in list [{}]", list.join(", ")),
            Self::Known(known) => format!("must be {}", known.words()),
        }
    }
}

impl BytesCheck {
    pub(super) fn check(&self, value: &[u8]) -> Result<(), String> {
        let length = value.len() as u64;
        let holds = match self {
            Self::Const(expected) => value == expected,
            Self::Len(expected) => length == *expected,
            Self::MinLen(least) => length >= *least,
            Self::MaxLen(most) => length <= *most,
            Self::Prefix(part) => value.starts_with(part),
            Self::Suffix(part) => value.ends_with(part),
            Self::Contains(part) => part.is_empty() || value.windows(part.len()).any(|window| window == part),
            Self::In(list) => list.is_empty() || list.iter().any(|one| one == value),
            Self::NotIn(list) => !list.iter().any(|one| one == value),
        };
        if holds { Ok(()) } else { Err(self.words()) }
    }

    fn words(&self) -> String {
        match self {
            Self::Const(expected) => format!("must equal {}", hex::encode(expected)),
            Self::Len(length) => format!("must be {length} byte{} long", plural(*length)),
            Self::MinLen(length) => format!("must be at least {length} byte{} long", plural(*length)),
            Self::MaxLen(length) => format!("must be at most {length} byte{} long", plural(*length)),
            Self::Prefix(part) => format!("must begin with {}", hex::encode(part)),
            Self::Suffix(part) => format!("must end with {}", hex::encode(part)),
            Self::Contains(part) => format!("must contain {}", hex::encode(part)),
            Self::In(_) => "must be in a list".to_owned(),
            Self::NotIn(_) => "must not be in a list".to_owned(),
        }
    }
}

fn plural(number: u64) -> &'static str {
    if number == 1 { "" } else { "s" }
}
