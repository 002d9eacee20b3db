//! Whose data a message holds: a number of some ten to twenty digits, as a rule.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// As many bytes as fit where the longer ones have their address.
const SHORT: usize = 30;

/// The value of a field annotated as `subject`: its bytes, copied. Short ones are kept in place, since taking them must not cost
/// more than finding them.
#[derive(Clone)]
pub struct Subject(Kept);

#[derive(Clone)]
enum Kept {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl From<&[u8]> for Subject {
    #[inline]
    fn from(value: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..value.len()) {
            Some(space) => {
                space.copy_from_slice(value);
                Self(Kept::Short { length: value.len() as u8, bytes })
            }
            None => Self(Kept::Long(value.into())),
        }
    }
}

impl Deref for Subject {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Kept::Long(bytes) => bytes,
        }
    }
}

// As the bytes are: a set of subjects is asked for a slice.

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Subject {}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Borrow<[u8]> for Subject {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Says how long it is and not what.
impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subject({} bytes)", self.len())
    }
}
