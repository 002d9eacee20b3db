//! From the messages of `buf/validate/validate.proto`, as the set defines them, to checks. What is not known here is refused.

use prost_reflect::{DynamicMessage, Kind, Value};

use super::known::Known;
use super::number::{Numbers, Time};
use super::pattern;
use super::text::{BytesCheck, TextCheck};
use crate::schema::kind_name;
use crate::schema::plan::rules::{RuleError, Scalar};

/// One check of one value.
#[derive(Debug)]
pub(super) enum Check {
    Int(Numbers<i64>),
    Uint(Numbers<u64>),
    Float(Numbers<f64>),
    Finite,
    Bool(bool),
    Text(TextCheck),
    Bytes(BytesCheck),
    Enum(Numbers<i32>),
    /// The numbers that the enum defines, sorted.
    Defined(Box<[i32]>),
    Time(Numbers<Time>),
}

/// The checks of a value, of a list's element, of a map's key or value.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) ignore_zero: bool,
    pub(super) checks: Vec<Check>,
}

/// What a field's rules say besides those of its type.
#[derive(Default)]
pub(super) struct Head {
    pub(super) required: bool,
    pub(super) ignore_zero: bool,
    pub(super) ignore_always: bool,
    /// `string`, `repeated`, … and its rules.
    pub(super) typed: Option<(String, DynamicMessage)>,
}

impl Head {
    pub(super) fn read(rules: &DynamicMessage, place: &str) -> Result<Self, RuleError> {
        let mut head = Self::default();
        for (name, value) in fields(rules, place)? {
            let rule = format!("{place}{name}");
            match (name.as_str(), &value) {
                ("required", _) => head.required = boolean(&value, &rule)?,
                ("ignore", Value::EnumNumber(0)) => {}
                ("ignore", Value::EnumNumber(1)) => head.ignore_zero = true,
                ("ignore", Value::EnumNumber(3)) => head.ignore_always = true,
                ("cel" | "cel_expression", _) => return Err(RuleError::Unsupported { rule }),
                (_, Value::Message(typed)) => head.typed = Some((name, typed.clone())),
                _ => return Err(RuleError::Unsupported { rule }),
            }
        }
        Ok(head)
    }
}

impl Element {
    /// The rules of a list's elements, a map's keys or values: always there, so that `required` says nothing.
    pub(super) fn read(value: &Value, kind: &Kind, place: &str) -> Result<Self, RuleError> {
        let Value::Message(rules) = value else { return Err(wrong(place, "is not defined as protovalidate does")) };
        let head = Head::read(rules, place)?;
        if head.ignore_always {
            return match kind {
                Kind::Message(_) => Err(RuleError::Unsupported { rule: format!("{place}ignore = IGNORE_ALWAYS") }),
                _ => Ok(Self::default()),
            };
        }
        let checks = match &head.typed {
            Some((name, typed)) => checks(name, typed, kind, place)?,
            None => Vec::new(),
        };
        Ok(Self { ignore_zero: head.ignore_zero, checks })
    }

    pub(super) fn check(&self, value: Scalar<'_>) -> Result<(), String> {
        if self.ignore_zero && is_zero(value) {
            return Ok(());
        }
        self.checks.iter().try_for_each(|check| check.check(value))
    }
}

impl Check {
    fn check(&self, value: Scalar<'_>) -> Result<(), String> {
        match (self, value) {
            (Self::Int(numbers), Scalar::Int(value)) => numbers.check(value),
            (Self::Uint(numbers), Scalar::Uint(value)) => numbers.check(value),
            (Self::Float(numbers), Scalar::Float(value)) => numbers.check(value),
            (Self::Finite, Scalar::Float(value)) if !value.is_finite() => Err("must be finite".to_owned()),
            (Self::Bool(expected), Scalar::Bool(value)) if value != *expected => Err(format!("must equal {expected}")),
            (Self::Text(check), Scalar::Str(value)) => check.check(value),
            (Self::Bytes(check), Scalar::Bytes(value)) => check.check(value),
            (Self::Enum(numbers), Scalar::Enum(value)) => numbers.check(value),
            (Self::Defined(numbers), Scalar::Enum(value)) if numbers.binary_search(&value).is_err() => {
                Err("must be one of the defined enum values".to_owned())
            }
            (Self::Time(numbers), Scalar::Message(bytes)) => match Time::decode(bytes) {
                Some(time) => numbers.check(time),
                None => Err("must be a time".to_owned()),
            },
            _ => Ok(()),
        }
    }
}

/// The checks of one type's rules, which must be those of the field's type.
pub(super) fn checks(name: &str, rules: &DynamicMessage, kind: &Kind, place: &str) -> Result<Vec<Check>, RuleError> {
    let place = format!("{place}{name}.");
    let fits = match kind {
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => "timestamp",
            "google.protobuf.Duration" => "duration",
            _ => return Err(RuleError::Unsupported { rule: format!("{name} of a {}", message.full_name()) }),
        },
        scalar => kind_name(scalar),
    };
    if fits != name {
        return Err(does_not_fit(name, fits));
    }
    match kind {
        Kind::Int32 | Kind::Int64 | Kind::Sint32 | Kind::Sint64 | Kind::Sfixed32 | Kind::Sfixed64 => {
            Ok(vec![Check::Int(Numbers::read(rules, &place, &mut |_, _| Ok(false))?)])
        }
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => {
            Ok(vec![Check::Uint(Numbers::read(rules, &place, &mut |_, _| Ok(false))?)])
        }
        Kind::Float | Kind::Double => {
            let mut finite = false;
            let numbers = Numbers::read(rules, &place, &mut |name, value| {
                let ours = name == "finite";
                finite |= ours && boolean(value, name)?;
                Ok(ours)
            })?;
            Ok([Check::Float(numbers)].into_iter().chain(finite.then_some(Check::Finite)).collect())
        }
        Kind::Enum(values) => {
            let mut defined = false;
            let numbers = Numbers::read(rules, &place, &mut |name, value| {
                let ours = name == "defined_only";
                defined |= ours && boolean(value, name)?;
                Ok(ours)
            })?;
            let mut all: Vec<i32> = values.values().map(|value| value.number()).collect();
            all.sort_unstable();
            let defined = defined.then(|| Check::Defined(all.into()));
            Ok([Check::Enum(numbers)].into_iter().chain(defined).collect())
        }
        Kind::Message(_) => Ok(vec![Check::Time(Numbers::read(rules, &place, &mut |_, _| Ok(false))?)]),
        Kind::Bool => {
            let said = fields(rules, &place)?;
            let expected = said.iter().map(|(name, value)| match name.as_str() {
                "const" => Ok(Check::Bool(boolean(value, name)?)),
                _ => Err(RuleError::Unsupported { rule: format!("{place}{name}") }),
            });
            expected.collect()
        }
        Kind::String => text(rules, &place),
        Kind::Bytes => bytes(rules, &place),
    }
}

fn text(rules: &DynamicMessage, place: &str) -> Result<Vec<Check>, RuleError> {
    let mut checks = Vec::new();
    for (name, value) in fields(rules, place)? {
        let rule = format!("{place}{name}");
        let number = || unsigned(&value, &rule);
        let check = match name.as_str() {
            "const" => TextCheck::Const(string(&value, &rule)?),
            "len" => TextCheck::Len(number()?),
            "min_len" => TextCheck::MinLen(number()?),
            "max_len" => TextCheck::MaxLen(number()?),
            "len_bytes" => TextCheck::LenBytes(number()?),
            "min_bytes" => TextCheck::MinBytes(number()?),
            "max_bytes" => TextCheck::MaxBytes(number()?),
            "pattern" => {
                let written = string(&value, &rule)?;
                let regex = pattern::compile(&written).map_err(|what| RuleError::Wrong { rule, what })?;
                TextCheck::Pattern(written, Box::new(regex))
            }
            "prefix" => TextCheck::Prefix(string(&value, &rule)?),
            "suffix" => TextCheck::Suffix(string(&value, &rule)?),
            "contains" => TextCheck::Contains(string(&value, &rule)?),
            "not_contains" => TextCheck::NotContains(string(&value, &rule)?),
            "in" => TextCheck::In(list(&value, &rule, string)?),
            "not_in" => TextCheck::NotIn(list(&value, &rule, string)?),
            other => match Known::named(other) {
                Some(known) if boolean(&value, &rule)? => TextCheck::Known(known),
                Some(_) => continue,
                None => return Err(RuleError::Unsupported { rule }),
            },
        };
        checks.push(Check::Text(check));
    }
    Ok(checks)
}

fn bytes(rules: &DynamicMessage, place: &str) -> Result<Vec<Check>, RuleError> {
    let mut checks = Vec::new();
    for (name, value) in fields(rules, place)? {
        let rule = format!("{place}{name}");
        let check = match name.as_str() {
            "const" => BytesCheck::Const(octets(&value, &rule)?),
            "len" => BytesCheck::Len(unsigned(&value, &rule)?),
            "min_len" => BytesCheck::MinLen(unsigned(&value, &rule)?),
            "max_len" => BytesCheck::MaxLen(unsigned(&value, &rule)?),
            "prefix" => BytesCheck::Prefix(octets(&value, &rule)?),
            "suffix" => BytesCheck::Suffix(octets(&value, &rule)?),
            "contains" => BytesCheck::Contains(octets(&value, &rule)?),
            "in" => BytesCheck::In(list(&value, &rule, octets)?),
            "not_in" => BytesCheck::NotIn(list(&value, &rule, octets)?),
            _ => return Err(RuleError::Unsupported { rule }),
        };
        checks.push(Check::Bytes(check));
    }
    Ok(checks)
}

/// What a message of rules sets, by name. `example` is documentation. What the set's own `validate.proto` does not define, or
/// defines beside it, is refused.
pub(super) fn fields(rules: &DynamicMessage, place: &str) -> Result<Vec<(String, Value)>, RuleError> {
    if let Some(unknown) = rules.unknown_fields().next() {
        return Err(RuleError::Unsupported {
            rule: format!("{place}{} (not in the set's validate.proto)", unknown.number()),
        });
    }
    if let Some((extension, _)) = rules.extensions().next() {
        return Err(RuleError::Unsupported { rule: format!("{place}({})", extension.full_name()) });
    }
    let named = rules.fields().map(|(field, value)| (field.name().to_owned(), value.clone()));
    Ok(named.filter(|(name, _)| name != "example").collect())
}

pub(super) fn boolean(value: &Value, rule: &str) -> Result<bool, RuleError> {
    value.as_bool().ok_or_else(|| wrong(rule, "is not true or false"))
}

pub(super) fn unsigned(value: &Value, rule: &str) -> Result<u64, RuleError> {
    value.as_u64().ok_or_else(|| wrong(rule, "is not a number"))
}

fn string(value: &Value, rule: &str) -> Result<String, RuleError> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(rule, "is not a string"))
}

fn octets(value: &Value, rule: &str) -> Result<Vec<u8>, RuleError> {
    value.as_bytes().map(|bytes| bytes.to_vec()).ok_or_else(|| wrong(rule, "is not bytes"))
}

pub(super) fn list<T>(
    value: &Value,
    rule: &str,
    read: impl Fn(&Value, &str) -> Result<T, RuleError>,
) -> Result<Vec<T>, RuleError> {
    let Some(values) = value.as_list() else { return Err(wrong(rule, "is not a list")) };
    values.iter().map(|value| read(value, rule)).collect()
}

pub(super) fn wrong(rule: &str, what: &str) -> RuleError {
    RuleError::Wrong { rule: rule.to_owned(), what: what.to_owned() }
}

pub(super) fn does_not_fit(name: &str, kind: &str) -> RuleError {
    wrong(name, &format!("does not fit a field that is {kind}"))
}

/// What an implicit field holds that does not come.
pub(super) fn zero(kind: &Kind) -> Option<Scalar<'static>> {
    Some(match kind {
        Kind::Double | Kind::Float => Scalar::Float(0.0),
        Kind::Int32 | Kind::Int64 | Kind::Sint32 | Kind::Sint64 | Kind::Sfixed32 | Kind::Sfixed64 => Scalar::Int(0),
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Scalar::Uint(0),
        Kind::Bool => Scalar::Bool(false),
        Kind::String => Scalar::Str(""),
        Kind::Bytes => Scalar::Bytes(b""),
        Kind::Enum(values) => Scalar::Enum(values.default_value().number()),
        Kind::Message(_) => return None,
    })
}

pub(super) fn is_zero(value: Scalar<'_>) -> bool {
    match value {
        Scalar::Int(value) => value == 0,
        Scalar::Uint(value) => value == 0,
        // A negative zero is another value on the wire, and not protobuf's default.
        Scalar::Float(value) => value.to_bits() == 0,
        Scalar::Bool(value) => !value,
        Scalar::Str(value) => value.is_empty(),
        Scalar::Bytes(value) => value.is_empty(),
        Scalar::Enum(value) => value == 0,
        Scalar::Message(_) => false,
    }
}

/// Whether the message's own definition is what its name promises; used for times.
pub(super) fn part(message: &DynamicMessage, name: &str) -> Option<i64> {
    let value = message.get_field_by_name(name)?;
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}
