//! Who is who, and by what proof: identities, certificates and their revocation, the signed directory, signed notes, keys in tokens,
//! which witnesses' cosignatures are enough, what ends when, and files that only a key's holder opens.
//!
//! In: PEM files, CRLs, directory notes. Out: verified identities and TLS configurations. Nothing here knows of
//! exchanges or of the log's contents.

pub mod age;
pub mod certificate;
pub mod directory;
pub mod enrolment;
pub mod expiry;
pub mod file;
pub mod identity;
pub mod jws;
pub mod note;
pub mod pki;
pub mod policy;
pub mod secret;
pub mod tls;
pub mod token;
