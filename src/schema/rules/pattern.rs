//! `string.pattern`: RE2's syntax, as protovalidate has it, for the `regex` crate. Where the two mean different things by the same
//! letters, the pattern is rewritten or refused.

use regex::{Regex, RegexBuilder};

/// Longest pattern that is taken, in bytes.
const MAX_PATTERN: usize = 4_096;
/// Largest compiled program, in bytes.
const MAX_PROGRAM: usize = 1 << 20;

/// Compiles a pattern of RE2.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("is longer than {MAX_PATTERN} bytes"));
    }
    let translated = translate(pattern)?;
    let compiled = RegexBuilder::new(&translated).size_limit(MAX_PROGRAM).dfa_size_limit(MAX_PROGRAM).build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "compiles to too large a program: make its repetitions smaller".to_owned(),
        error => format!("is no regular expression: {}", error.to_string().lines().last().unwrap_or_default()),
    })
}

/// RE2's `\d`, `\s` and `\w` are ASCII; its classes know no operations on sets.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else { return Err("ends in a backslash".to_owned()) };
                let ascii = match escaped {
                    'd' | 'D' => Some("0-9"),
                    's' | 'S' => Some(r"\t\n\f\r "),
                    'w' | 'W' => Some("0-9A-Za-z_"),
                    _ => None,
                };
                match (ascii, escaped) {
                    (Some(set), 'd' | 's' | 'w') if in_class => out.push_str(set),
                    (Some(_), _) if in_class => {
                        return Err(format!("has \\{escaped} in a class: write the characters"));
                    }
                    (Some(set), 'd' | 's' | 'w') => out.push_str(&format!("[{set}]")),
                    (Some(set), _) => out.push_str(&format!("[^{set}]")),
                    (None, 'b' | 'B' | '<' | '>' | 'Q' | 'E' | 'C') => {
                        return Err(format!("has \\{escaped}, which is not supported"));
                    }
                    (None, _) => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
            }
            '[' if !in_class => {
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // A closing bracket that comes first is a character.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str(r"\]");
                }
                in_class = true;
            }
            '[' => {
                if chars.peek() == Some(&':') {
                    out.push('[');
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str(r"\[");
                }
            }
            ']' if in_class => {
                out.push(']');
                in_class = false;
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && chars.peek() == Some(&'-') => {
                return Err("has -- in a class: write \\- for a hyphen".to_owned());
            }
            c => {
                out.push(c);
            }
        }
    }
    Ok(out)
}
