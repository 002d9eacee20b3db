//! A text that a regular expression matches, where the expression is simple: literals, classes, repetitions, alternatives.

use regex_syntax::Parser;
use regex_syntax::hir::{Class, Hir, HirKind};

/// No text is longer: a repetition of a million is nobody's example.
const LONGEST: usize = 1_000;

/// A text that it matches; none where it is no such expression.
pub(super) fn matching(pattern: &str) -> Option<String> {
    let mut text = String::new();
    write(&parse(pattern)?, &mut text)?;
    Some(text)
}

/// Whether a text is as the expression says from its first to its last character; none where the expression is not a plain sequence.
pub(super) fn fits(pattern: &str, text: &str) -> Option<bool> {
    let mut characters = text.chars().peekable();
    let parsed = parse(pattern)?;
    let parts = match parsed.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(&parsed),
    };
    for part in parts {
        let (least, most, class) = match part.kind() {
            HirKind::Look(_) => continue,
            HirKind::Literal(literal) => {
                for expected in std::str::from_utf8(&literal.0).ok()?.chars() {
                    if characters.next() != Some(expected) {
                        return Some(false);
                    }
                }
                continue;
            }
            HirKind::Class(class) => (1, Some(1), class),
            HirKind::Repetition(repetition) => match repetition.sub.kind() {
                HirKind::Class(class) => (repetition.min, repetition.max, class),
                _ => return None,
            },
            _ => return None,
        };
        let mut taken = 0;
        while most.is_none_or(|most| taken < most) && characters.next_if(|c| contains(class, *c)).is_some() {
            taken += 1;
        }
        if taken < least {
            return Some(false);
        }
    }
    Some(characters.next().is_none())
}

fn parse(pattern: &str) -> Option<Hir> {
    // A pattern is its author's: the parser bounds its own nesting.
    Parser::new().parse(pattern).ok()
}

fn write(part: &Hir, text: &mut String) -> Option<()> {
    if text.len() > LONGEST {
        return None;
    }
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => text.push(first(class)?),
        HirKind::Repetition(repetition) => {
            let times = repetition.min.max(u32::from(repetition.max != Some(0)));
            if usize::try_from(times).ok()? > LONGEST {
                return None;
            }
            (0..times).try_for_each(|_| write(&repetition.sub, text))?;
        }
        HirKind::Capture(capture) => write(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, text))?,
        HirKind::Alternation(ways) => write(ways.first()?, text)?,
    }
    Some(())
}

/// A character that reads well, if the class has one.
fn first(class: &Class) -> Option<char> {
    let readable = ['1', 'A', 'a', 'А', 'а', '-', '_', '0'].into_iter().find(|c| contains(class, *c));
    readable.or_else(|| match class {
        Class::Unicode(class) => Some(class.ranges().first()?.start()),
        Class::Bytes(class) => Some(char::from(class.ranges().first()?.start())),
    })
}

fn contains(class: &Class, c: char) -> bool {
    match class {
        Class::Unicode(class) => class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&c)),
        Class::Bytes(class) => {
            u8::try_from(c).is_ok_and(|c| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&c)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_simple_patterns_match() {
        for (pattern, text) in [
            ("^[0-9]{14}$", "11111111111111"),
            (r"^\d{4}-\d{2}$", "1111-11"),
            ("^ID[0-9]{7}$", "ID1111111"),
            ("^(KG|RU)?$", "KG"),
            ("^[А-Я][а-я]+$", "Аа"),
            ("", ""),
        ] {
            assert_eq!(matching(pattern).as_deref(), Some(text), "{pattern}");
        }
        for none in ["(", "a{900}{900}", "[0-9]{2000}"] {
            assert_eq!(matching(none), None, "{none}");
        }
    }

    #[test]
    fn knows_what_fits_a_sequence() {
        assert_eq!(fits("^[0-9]{14}$", "20109198714151"), Some(true));
        assert_eq!(fits("^[0-9]{13}$", "20109198714151"), Some(false));
        assert_eq!(fits("^ID[0-9]+$", "ID7"), Some(true));
        assert_eq!(fits("^ID[0-9]+$", "XD7"), Some(false));
        assert_eq!(fits("^(a|b)$", "a"), None);
    }
}
