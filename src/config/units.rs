//! Sizes ("4MiB") and durations ("60s") as people write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// Reads `250ms`, `60s`, `5m`, `24h`, `30d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_up_to(366, text)
}

fn parse_up_to(days: u64, text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text:?} is not a duration: write a whole number and ms, s, m, h or d, as 60s")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a duration: write it as 60s or 5m"))?;
    let total = number.checked_mul(milliseconds).filter(|total| *total <= days * 86_400_000);
    total.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is longer than {days} days"))
}

/// Reads `512B`, `16KiB`, `4MiB`, `2GiB`, `1TiB`, and decimal `kB`, `MB`, `GB`, `TB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(format!("{text:?} is not a size: write a whole number and B, KiB, MiB, GiB or TiB, as 4MiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a size: write it as 4MiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(Error::custom)
}

/// A wait that must end, and not at once.
pub(super) fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration.is_zero() { Err(Error::custom("must be longer than zero")) } else { Ok(duration) }
}

/// An age that something may reach: up to a hundred years, and not zero.
pub(super) fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let age = parse_up_to(36_525, &String::deserialize(deserializer)?).map_err(Error::custom)?;
    if age.is_zero() { Err(Error::custom("must be longer than zero")) } else { Ok(Some(age)) }
}

pub(super) fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    size(deserializer).map(Some)
}

pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(deserializer)?).map_err(Error::custom)
}

/// A size that one buffer can have.
pub(super) fn memory_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let size = size(deserializer)?;
    match usize::try_from(size) {
        Ok(0) => Err(Error::custom("must be more than zero")),
        Ok(size) if size <= isize::MAX as usize => Ok(size),
        _ => Err(Error::custom("is more than this machine can address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("5 m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "60", "s", "-1s", "1.5s", "1w", "99999999999999999999s", "400d", "9999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4MiB"), Ok(4 << 20));
        assert_eq!(parse_size("16 KiB"), Ok(16 << 10));
        assert_eq!(parse_size("1kB"), Ok(1_000));
        for bad in ["", "4", "MiB", "4mib", "-4MiB", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
