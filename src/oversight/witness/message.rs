//! The request of C2SP tlog-witness, and the size that answers it where the witness stands elsewhere.
//!
//! ```text
//! request   "old " size "\n" (base64 hash "\n"){0..63} "\n" signed checkpoint
//! 409       size "\n"                                                   text/x.tlog.size
//! ```

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::log::tree::Hash;

/// The content type of a 409 that names a size.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

const MAX_PROOF: usize = 63;

/// Why a body is no `add-checkpoint` request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not text.
    #[error("not UTF-8")]
    Text,
    /// No `old <size>`.
    #[error("the first line is not \"old \" and a decimal size")]
    Old,
    /// A proof line is no hash.
    #[error("line {0} is not 32 bytes in base64")]
    Hash(usize),
    /// More than 63 of them.
    #[error("more than {MAX_PROOF} lines of proof")]
    TooMany,
    /// No empty line before the checkpoint.
    #[error("no empty line before the checkpoint")]
    NoCheckpoint,
}

/// A checkpoint and the proof that it extends the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the checkpoint that the witness cosigned last, or 0.
    pub old: u64,
    /// The consistency proof from there.
    pub proof: Vec<Hash>,
    /// The signed note, not looked at here.
    pub checkpoint: String,
}

impl AddCheckpoint {
    /// Reads a request's body.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let body = std::str::from_utf8(body).map_err(|_| MessageError::Text)?;
        let (head, checkpoint) = body.split_once("\n\n").ok_or(MessageError::NoCheckpoint)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| decimal(line.strip_prefix("old ")?)).ok_or(MessageError::Old)?;
        let mut proof = Vec::new();
        for (number, line) in lines.enumerate() {
            if number == MAX_PROOF {
                return Err(MessageError::TooMany);
            }
            let hash = BASE64_STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok());
            proof.push(Hash(hash.ok_or(MessageError::Hash(number + 2))?));
        }
        Ok(Self { old, proof, checkpoint: checkpoint.into() })
    }
}

impl fmt::Display for AddCheckpoint {
    /// The request's body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", BASE64_STANDARD.encode(hash.0))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Reads the body of a 409.
pub fn parse_size(body: &[u8]) -> Option<u64> {
    decimal(std::str::from_utf8(body).ok()?.strip_suffix('\n')?)
}

/// A number as C2SP writes it: no sign, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The example of C2SP tlog-witness.
    const EXAMPLE: &str = "old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
";

    #[test]
    fn the_specifications_example() {
        let request = AddCheckpoint::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((request.old, request.proof.len()), (20_852_014, 4));
        let checkpoint = crate::log::Checkpoint::parse(&request.checkpoint).unwrap();
        assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(request.to_string(), EXAMPLE);
    }

    #[test]
    fn refuses_malformed() {
        let hash = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        for (body, error) in [
            ("", MessageError::NoCheckpoint),
            ("old 1\n", MessageError::NoCheckpoint),
            ("old 01\n\nx", MessageError::Old),
            ("old -1\n\nx", MessageError::Old),
            ("old +1\n\nx", MessageError::Old),
            ("old 18446744073709551616\n\nx", MessageError::Old),
            ("size 1\n\nx", MessageError::Old),
            ("old 1 \n\nx", MessageError::Old),
            ("old 1\nAAAA\n\nx", MessageError::Hash(2)),
            ("old 1\r\n\nx", MessageError::Old),
            (&format!("old 1\n{hash}!\n\nx"), MessageError::Hash(3)),
            (&format!("old 1\n{}\nx", hash.repeat(64)), MessageError::TooMany),
        ] {
            assert_eq!(AddCheckpoint::parse(body.as_bytes()), Err(error), "{body:?}");
        }
        assert!(AddCheckpoint::parse(format!("old 1\n{}\nx", hash.repeat(63)).as_bytes()).is_ok());
        assert_eq!(AddCheckpoint::parse(b"old 1\n\n\xff"), Err(MessageError::Text));
        for (body, size) in
            [("0\n", Some(0)), ("18446744073709551615\n", Some(u64::MAX)), ("1", None), ("01\n", None), ("1\n\n", None)]
        {
            assert_eq!(parse_size(body.as_bytes()), size, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(old: u64, proof in proptest::collection::vec(any::<[u8; 32]>(), 0..=63), checkpoint in "(.|\n){0,99}") {
            let request = AddCheckpoint { old, proof: proof.into_iter().map(Hash).collect(), checkpoint };
            prop_assert_eq!(AddCheckpoint::parse(request.to_string().as_bytes()).unwrap(), request);
        }

        #[test]
        fn whatever_is_read_prints_the_same(body in "(old |[0-9]|[A-Za-z+/=]{43}=|\n|.){0,60}") {
            if let Ok(request) = AddCheckpoint::parse(body.as_bytes()) {
                prop_assert_eq!(request.to_string(), body);
            }
        }

        #[test]
        fn bytes_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (AddCheckpoint::parse(&body), parse_size(&body));
        }
    }
}
