//! Files encrypted to X25519 keys, as [age](https://age-encryption.org/v1) has them: whoever has the `age` program and the identity
//! opens them without Kopuro.
//!
//! ```text
//! header    age-encryption.org/v1                                        a file key, 16 random bytes, wrapped for
//!           -> X25519 <ephemeral share> (a line a recipient)             each recipient: ChaCha20-Poly1305 under
//!           <wrapped file key>                                           HKDF(X25519 secret, share ‖ recipient)
//!           --- <HMAC-SHA256 of all before>
//! payload   nonce(16) ‖ chunks of 64 KiB, each with its tag; the last one says that it is the last
//! ```
//!
//! Native X25519 recipients only; stanzas of other kinds are passed over. Writing and reading stream, with one chunk in memory. A file
//! that was cut short or altered fails at the first chunk concerned, after the chunks before it were given out: a reader acts only on
//! what it has read to the end.
//!
//! Not the `age` crate: it brings 75 packages that this tree does not have, among them second versions of every primitive, translations
//! of its messages and a pre-release of a KEM, for what takes the two files here. The primitives are aws-lc-rs's.

mod key;
mod stream;

pub use key::{Identity, Recipient};
pub use stream::{Decryptor, Encryptor};

/// Why something is no key, or no file that can be opened.
#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    /// A public key is none.
    #[error("{0:?} is no age recipient: expected age1…, as age-keygen prints it")]
    Recipient(String),
    /// A file of identities has none. Its content is secret and is not repeated.
    #[error("no age identity: expected a line AGE-SECRET-KEY-1…")]
    Identity,
    /// There is nobody to encrypt to.
    #[error("no recipient")]
    NoRecipient,
    /// The file does not begin as it must.
    #[error("not a file encrypted with age: {0}")]
    Header(&'static str),
    /// The file is encrypted to others.
    #[error("encrypted to other keys than this identity's")]
    OtherKey,
    /// The file key does not go with the header: it was altered.
    #[error("its header was altered")]
    Altered,
    /// The library's primitives failed, which takes a lack of random bytes.
    #[error("the cipher failed")]
    Cipher,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
