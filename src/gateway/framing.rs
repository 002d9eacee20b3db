//! gRPC's length-prefixed messages, seen without being decoded: a [`Meter`] follows a body's bytes as they pass and keeps
//! what the log commits to. Pure. One definition serves unary calls and streams alike:
//!
//! digest = SHA-256 over every `flag(1) ‖ length(4, big-endian) ‖ message` in order, exactly as it crossed.

use sha2::{Digest, Sha256};

/// Bytes before each message: compressed flag and length.
pub(super) const PREFIX: usize = 5;

/// How a body breaks gRPC's framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    /// A message announces more than the limit.
    #[error("a message of {size} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Announced length.
        size: u32,
        /// The limit in force.
        limit: u32,
    },
    /// The compressed flag is neither 0 nor 1.
    #[error("a message begins with flag {0}, which is neither 0 nor 1: this is not gRPC")]
    Flag(u8),
    /// The body ends inside a message.
    #[error("the body ends inside a message")]
    Truncated,
    /// A method with one message had none, or more than one.
    #[error("{0} messages where the method has exactly one")]
    Count(u64),
}

/// What went through in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// SHA-256 as the module defines it.
    pub(super) digest: [u8; 32],
    /// Whole messages.
    pub(super) messages: u64,
    /// Bytes, prefixes included.
    pub(super) bytes: u64,
}

/// Follows one direction of a call.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    hasher: Sha256,
    prefix: [u8; PREFIX],
    filled: usize,
    remaining: u32,
    messages: u64,
    bytes: u64,
    limit: u32,
}

impl Meter {
    /// Refuses messages longer than `limit` bytes.
    pub(super) fn new(limit: u32) -> Self {
        Self { hasher: Sha256::new(), prefix: [0; PREFIX], filled: 0, remaining: 0, messages: 0, bytes: 0, limit }
    }

    /// Takes the next bytes, cut anywhere. After an error the body must not be carried further.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), FramingError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.remaining > 0 {
                let taken = rest.len().min(self.remaining as usize);
                self.remaining -= taken as u32;
                rest = &rest[taken..];
                if self.remaining == 0 {
                    self.messages += 1;
                }
                continue;
            }
            let taken = rest.len().min(PREFIX - self.filled);
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&rest[..taken]);
            self.filled += taken;
            rest = &rest[taken..];
            if self.filled == PREFIX {
                self.begin_message()?;
            }
        }
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// The body has ended: is it whole?
    pub(super) fn finish(&self) -> Result<Totals, FramingError> {
        if self.filled != 0 || self.remaining != 0 { Err(FramingError::Truncated) } else { Ok(self.totals()) }
    }

    /// Bytes passed so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What has passed so far.
    pub(super) fn totals(&self) -> Totals {
        Totals { digest: self.hasher.clone().finalize().into(), messages: self.messages, bytes: self.bytes }
    }

    fn begin_message(&mut self) -> Result<(), FramingError> {
        let [flag, length @ ..] = self.prefix;
        if flag > 1 {
            return Err(FramingError::Flag(flag));
        }
        let size = u32::from_be_bytes(length);
        if size > self.limit {
            return Err(FramingError::TooLarge { size, limit: self.limit });
        }
        self.filled = 0;
        self.remaining = size;
        if size == 0 {
            self.messages += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        framed
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8), cut in 1usize..20) {
            let body: Vec<u8> = messages.iter().flat_map(|m| frame(m)).collect();
            let mut meter = Meter::new(50);
            for chunk in body.chunks(cut) {
                meter.push(chunk).unwrap();
            }
            let totals = meter.finish().unwrap();
            prop_assert_eq!(totals.messages, messages.len() as u64);
            prop_assert_eq!(totals.bytes, body.len() as u64);
            prop_assert_eq!(totals.digest, <[u8; 32]>::from(Sha256::digest(&body)));
        }

        #[test]
        fn a_cut_tail_is_seen(message in prop::collection::vec(any::<u8>(), 0..50), lost in 1usize..5) {
            let body = frame(&message);
            let mut meter = Meter::new(50);
            meter.push(&body[..body.len() - lost]).unwrap();
            prop_assert_eq!(meter.finish(), Err(FramingError::Truncated));
        }

        #[test]
        fn garbage_never_panics(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut meter = Meter::new(30);
            for chunk in chunks {
                if meter.push(&chunk).is_err() {
                    break;
                }
            }
            let _ = meter.finish();
        }
    }

    #[test]
    fn limits() {
        assert_eq!(Meter::new(3).push(&frame(b"four")), Err(FramingError::TooLarge { size: 4, limit: 3 }));
        assert_eq!(Meter::new(3).push(b"GET / HTTP/1.1"), Err(FramingError::Flag(b'G')));
    }
}
