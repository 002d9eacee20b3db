//! Personal and taxpayers' numbers, 14 digits.
//!
//! `S DDMMYYYY NNNN C`: S is 1 for a woman, 2 for a man (0 for an organisation, whose date is that of registration);
//! then the date; a serial number among those of that day; and a check digit.
//!
//! **The check digit** is Luhn's (ISO/IEC 7812-1, annex B) over all fourteen: from the right, every second digit is
//! doubled, the digits of the results are added, and the sum must be a multiple of ten. The rule of the real register
//! is not published; this one is ours, and it means that a PIN of the demo is rarely a real person's.

use std::fmt;
use std::str::FromStr;

use time::{Date, Month};

use crate::proto::kg::civil::v1::Sex;

/// A number that has been checked. Copies freely.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; 14]);

/// Why a text is not a PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not fourteen ASCII digits.
    #[error("a PIN has 14 digits")]
    Shape,
    /// The first digit is none of 0, 1, 2.
    #[error("the first digit of a PIN is 1 (woman) or 2 (man), of an organisation's number 0")]
    Kind,
    /// Digits 2 to 9 are no date.
    #[error("digits 2 to 9 of a PIN are a date, DDMMYYYY")]
    Date,
    /// The check digit is wrong.
    #[error("the check digit is wrong: a digit is mistyped or two are swapped")]
    CheckDigit,
}

impl Pin {
    /// The number of the `serial`-th (0 to 9999, higher wrap) of a day; `None` is an organisation.
    pub fn new(sex: Option<Sex>, date: Date, serial: u32) -> Self {
        let kind = match sex {
            Some(Sex::Female) => 1,
            Some(_) => 2,
            None => 0,
        };
        let text = format!(
            "{kind}{:02}{:02}{:04}{:04}0",
            date.day(),
            u8::from(date.month()),
            date.year().clamp(0, 9999),
            serial % 10_000
        );
        let mut digits = [b'0'; 14];
        for (digit, byte) in digits.iter_mut().zip(text.bytes()) {
            *digit = byte;
        }
        let rest = luhn(&digits) % 10;
        digits[13] = b'0' + (10 - rest) % 10;
        Self(digits)
    }

    /// The number as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII digits are ever put there.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether it is a person's, not an organisation's.
    pub fn is_person(&self) -> bool {
        self.0[0] != b'0'
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits: [u8; 14] = text.as_bytes().try_into().map_err(|_| PinError::Shape)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(PinError::Shape);
        }
        if digits[0] > b'2' {
            return Err(PinError::Kind);
        }
        let number = |range: std::ops::Range<usize>| {
            digits[range].iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        };
        let date = u8::try_from(number(3..5)).ok().and_then(|month| Month::try_from(month).ok()).and_then(|month| {
            Date::from_calendar_date(number(5..9).into(), month, u8::try_from(number(1..3)).ok()?).ok()
        });
        if date.is_none() {
            return Err(PinError::Date);
        }
        if !luhn(&digits).is_multiple_of(10) {
            return Err(PinError::CheckDigit);
        }
        Ok(Self(digits))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Luhn's sum; the last digit, the check digit, counts once.
fn luhn(digits: &[u8; 14]) -> u8 {
    digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (digit - b'0', place % 2) {
            (digit, 0) => digit,
            (digit, _) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn what_is_made_validates_and_one_wrong_digit_does_not() {
        let pin = Pin::new(Some(Sex::Male), date!(1985 - 03 - 14), 217);
        assert!(pin.as_str().starts_with("2140319850217"));
        assert_eq!(pin.as_str().parse(), Ok(pin));
        for place in 0..14 {
            for wrong in b'0'..=b'9' {
                let mut digits = pin.0;
                if digits[place] != wrong {
                    digits[place] = wrong;
                    assert!(std::str::from_utf8(&digits).unwrap().parse::<Pin>().is_err());
                }
            }
        }
    }

    #[test]
    fn each_rule_is_named() {
        assert_eq!("".parse::<Pin>(), Err(PinError::Shape));
        assert_eq!("2140319850217x".parse::<Pin>(), Err(PinError::Shape));
        assert_eq!("21403198502".parse::<Pin>(), Err(PinError::Shape));
        assert_eq!("31403198502170".parse::<Pin>(), Err(PinError::Kind));
        assert_eq!("23213198502170".parse::<Pin>(), Err(PinError::Date));
    }
}
