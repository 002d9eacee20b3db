//! Who is who, and by what proof: identities, certificates and their revocation, the signed directory, signed notes, and
//! which witnesses' cosignatures are enough; files that only a key's holder opens.
//!
//! In: PEM files, CRLs, directory notes. Out: verified identities and TLS configurations. Nothing here knows of
//! exchanges or of the log's contents.

pub mod age;
pub mod certificate;
pub mod directory;
pub mod enrolment;
pub mod file;
pub mod identity;
pub mod jws;
pub mod note;
pub mod pki;
pub mod policy;
pub mod tls;
