//! Path templates: `/v1/{name=shelves/*}/books/{book.id}:publish`.
//!
//! ```text
//! Template = "/" Segments [ ":" LITERAL ]       Segment  = "*" | "**" | LITERAL | Variable
//! Segments = Segment { "/" Segment }            Variable = "{" FieldPath [ "=" Segments ] "}"
//! ```

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Longest template, in characters; and the most parts of one.
const LONGEST: usize = 1_024;

/// What may stand in a path as it is (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which rule a template breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It does not begin with a slash.
    #[error("it has to begin with /")]
    Slash,
    /// An empty part, or a character that may not be there.
    #[error("a part of it is empty, or has a character that may not stand in a path")]
    Literal,
    /// A brace without the other, or one in another.
    #[error("its braces do not match")]
    Brace,
    /// `**` and then more.
    #[error("** has to be the last part")]
    Many,
    /// A field twice.
    #[error("a variable stands in it twice")]
    Twice,
    /// Too long.
    #[error("it is longer than 1024 characters")]
    Long,
}

/// A path with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    variables: Vec<Variable>,
    verb: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Literal(String),
    One,
    Many,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    field: String,
    from: usize,
    to: usize,
}

/// The texts of a template's variables, in their order.
pub type Captures = Vec<String>;

impl Template {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > LONGEST {
            return Err(TemplateError::Long);
        }
        let mut rest = text.strip_prefix('/').ok_or(TemplateError::Slash)?;
        let mut verb = None;
        if let Some((before, after)) = rest.rsplit_once(':')
            && !after.contains(['/', '}'])
        {
            verb = Some(literal(after)?);
            rest = before;
        }
        let mut template = Self { parts: Vec::new(), variables: Vec::new(), verb };
        while !rest.is_empty() || template.parts.is_empty() {
            rest = match rest.strip_prefix('{') {
                Some(inside) => {
                    let (inside, after) = inside.split_once('}').ok_or(TemplateError::Brace)?;
                    template.variable(inside)?;
                    after
                }
                None => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    template.parts.push(Part::parse(&rest[..end])?);
                    &rest[end..]
                }
            };
            rest = match rest.strip_prefix('/') {
                Some("") => return Err(TemplateError::Literal),
                Some(more) => more,
                None if rest.is_empty() => rest,
                None => return Err(TemplateError::Brace),
            };
        }
        let many = template.parts.iter().position(|part| *part == Part::Many);
        if many.is_some_and(|at| at + 1 != template.parts.len()) {
            return Err(TemplateError::Many);
        }
        Ok(template)
    }

    fn variable(&mut self, inside: &str) -> Result<(), TemplateError> {
        let (field, pattern) = inside.split_once('=').unwrap_or((inside, "*"));
        if field.is_empty() || inside.contains('{') {
            return Err(TemplateError::Brace);
        }
        if self.variables.iter().any(|known| known.field == field) {
            return Err(TemplateError::Twice);
        }
        let from = self.parts.len();
        for part in pattern.split('/') {
            self.parts.push(Part::parse(part)?);
        }
        self.variables.push(Variable { field: field.to_owned(), from, to: self.parts.len() });
        Ok(())
    }

    /// The variables' fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| variable.field.as_str())
    }

    /// Its first part, where that is the same in every path.
    pub(super) fn first(&self) -> Option<&str> {
        match self.parts.first() {
            Some(Part::Literal(literal)) => Some(literal),
            _ => None,
        }
    }

    /// Orders templates that match the same path: the one that says more comes first.
    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |template: &Self| {
            let parts: Vec<u8> = template
                .parts
                .iter()
                .map(|part| match part {
                    Part::Literal(_) => 0,
                    Part::One => 1,
                    Part::Many => 2,
                })
                .collect();
            (template.verb.is_none(), parts)
        };
        key(self).cmp(&key(other))
    }

    /// The variables' texts, decoded, if a path matches. What stands for one part is decoded whole; of what stands for several,
    /// `%2F` stays, so that it is not taken for the end of a part.
    pub fn matches(&self, path: &str) -> Option<Captures> {
        let mut path = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            path = path.strip_suffix(verb.as_str())?.strip_suffix(':')?;
        }
        let given: Vec<&str> = path.split('/').collect();
        let many = matches!(self.parts.last(), Some(Part::Many));
        let fixed = self.parts.len() - usize::from(many);
        if given.len() < fixed || !many && given.len() > fixed || given.iter().any(|part| part.is_empty()) {
            return None;
        }
        for (part, given) in self.parts.iter().zip(&given) {
            if let Part::Literal(literal) = part
                && percent_decode_str(given).decode_utf8().ok()? != *literal
            {
                return None;
            }
        }
        self.variables
            .iter()
            .map(|variable| {
                let to = if many && variable.to == self.parts.len() { given.len() } else { variable.to };
                let several = variable.to - variable.from > 1 || many && variable.to == self.parts.len();
                let decoded = given[variable.from..to].iter().map(|part| {
                    let text = percent_decode_str(part).decode_utf8().ok()?;
                    Some(if several { text.replace('/', "%2F") } else { text.into_owned() })
                });
                decoded.collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
            })
            .collect()
    }

    /// The path in which the variables have these texts; none where one cannot be told in it.
    pub fn fill(&self, texts: &[String]) -> Option<String> {
        let mut path = String::new();
        let mut at = 0;
        let mut variables = self.variables.iter().zip(texts).peekable();
        while at < self.parts.len() {
            path.push('/');
            if let Some((variable, text)) = variables.next_if(|(variable, _)| variable.from == at) {
                path.push_str(&self.fill_one(variable, text)?);
                at = variable.to;
                continue;
            }
            match &self.parts[at] {
                Part::Literal(literal) => path.extend(utf8_percent_encode(literal, RESERVED)),
                Part::One | Part::Many => return None,
            }
            at += 1;
        }
        if let Some(verb) = &self.verb {
            path.push(':');
            path.push_str(verb);
        }
        Some(path)
    }

    fn fill_one(&self, variable: &Variable, text: &str) -> Option<String> {
        let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        // A part of dots would lead somewhere else.
        let fits = |text: &str| !matches!(text, "" | "." | "..");
        let parts = &self.parts[variable.from..variable.to];
        if let [Part::One] = parts {
            return fits(text).then(|| encoded(text));
        }
        let given: Vec<&str> = text.split('/').collect();
        let many = matches!(parts.last(), Some(Part::Many));
        let fixed = parts.len() - usize::from(many);
        let long = given.len() == fixed || many && given.len() > fixed;
        let same = parts.iter().zip(&given).all(|(part, given)| match part {
            Part::Literal(literal) => literal == given,
            _ => true,
        });
        (long && same && given.iter().all(|part| fits(part)))
            .then(|| given.iter().map(|part| encoded(part).replace("%252F", "%2F")).collect::<Vec<_>>().join("/"))
    }
}

impl std::fmt::Display for Template {
    /// As OpenAPI writes it: variables without their patterns.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut at = 0;
        let mut variables = self.variables.iter().peekable();
        while at < self.parts.len() {
            f.write_str("/")?;
            if let Some(variable) = variables.next_if(|variable| variable.from == at) {
                write!(f, "{{{}}}", variable.field)?;
                at = variable.to;
                continue;
            }
            match &self.parts[at] {
                Part::Literal(literal) => f.write_str(literal)?,
                Part::One => f.write_str("*")?,
                Part::Many => f.write_str("**")?,
            }
            at += 1;
        }
        match &self.verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, TemplateError> {
        match text {
            "*" => Ok(Self::One),
            "**" => Ok(Self::Many),
            _ => literal(text).map(Self::Literal),
        }
    }
}

fn literal(text: &str) -> Result<String, TemplateError> {
    let fits = |c: char| !c.is_ascii_control() && !matches!(c, '{' | '}' | '*' | '?' | '#' | ' ' | '/');
    if text.is_empty() || !text.chars().all(fits) { Err(TemplateError::Literal) } else { Ok(text.to_owned()) }
}
