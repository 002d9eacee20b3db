//! What lies in a CA's folder.
//!
//! ```text
//! ca.pem        its certificate
//! ca.key        its private key, PKCS #8, 0600: whoever has it can certify
//! ca.crl        the latest CRL, replaced in one step
//! issued.csv    serial,identity,not_before,not_after     a line per certificate, appended before it is given out
//! revoked.csv   serial,revoked_at                        a line per revocation, appended before the CRL is made
//! ```
//!
//! A CA whose key was made elsewhere (`kopuro pki csr`) begins with `ca.pem` and `ca.key` alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::PkiError;
use crate::trust::certificate::Crl;
use crate::trust::file::{Access, Existing, write};

/// A line of `issued.csv`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct IssuedRecord {
    pub(super) serial: String,
    pub(super) identity: String,
    #[serde(serialize_with = "to_rfc3339", deserialize_with = "from_rfc3339")]
    pub(super) not_before: OffsetDateTime,
    #[serde(serialize_with = "to_rfc3339", deserialize_with = "from_rfc3339")]
    pub(super) not_after: OffsetDateTime,
}

/// A line of `revoked.csv`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RevokedRecord {
    pub(super) serial: String,
    #[serde(serialize_with = "to_rfc3339", deserialize_with = "from_rfc3339")]
    pub(super) revoked_at: OffsetDateTime,
}

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Self(path.into())
    }

    /// Makes the folder, readable by its owner only.
    pub(super) fn create(path: &Path) -> Result<Self, PkiError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(|error| PkiError::file(path, error))?;
        Ok(Self(path.into()))
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    pub(super) fn read_ca(&self) -> Result<(String, Zeroizing<String>), PkiError> {
        let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(|error| PkiError::file(&path, error));
        Ok((read(self.certificate())?, Zeroizing::new(read(self.key())?)))
    }

    /// The key first: a certificate without its key is of no use, a key without certificate harms nobody.
    pub(super) fn write_ca(&self, certificate_pem: &str, key_pem: &str) -> Result<(), PkiError> {
        self.write(&self.key(), key_pem, Access::Secret, Existing::Keep)?;
        self.write(&self.certificate(), certificate_pem, Access::Public, Existing::Keep)
    }

    pub(super) fn write_crl(&self, crl_pem: &str) -> Result<(), PkiError> {
        self.write(&self.0.join("ca.crl"), crl_pem, Access::Public, Existing::Replace)
    }

    /// The number of the latest CRL; 0 if there is none yet.
    pub(super) fn read_crl_number(&self) -> Result<u64, PkiError> {
        let path = self.0.join("ca.crl");
        if !path.exists() {
            return Ok(0);
        }
        let der = CertificateRevocationListDer::from_pem_file(&path).map_err(|error| PkiError::file(&path, error))?;
        Ok(Crl::of(&der).map_err(|error| PkiError::file(&path, error))?.number)
    }

    pub(super) fn read_issued(&self) -> Result<Vec<IssuedRecord>, PkiError> {
        read_csv(&self.0.join("issued.csv"))
    }

    pub(super) fn read_revoked(&self) -> Result<Vec<RevokedRecord>, PkiError> {
        read_csv(&self.0.join("revoked.csv"))
    }

    pub(super) fn record_issued(&self, record: &IssuedRecord) -> Result<(), PkiError> {
        append_csv(&self.0.join("issued.csv"), record)
    }

    pub(super) fn record_revoked(&self, record: &RevokedRecord) -> Result<(), PkiError> {
        append_csv(&self.0.join("revoked.csv"), record)
    }

    fn write(&self, path: &Path, content: &str, access: Access, existing: Existing) -> Result<(), PkiError> {
        write(path, content.as_bytes(), access, existing).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => PkiError::Exists(path.display().to_string()),
            _ => PkiError::file(path, error),
        })
    }
}

fn read_csv<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, PkiError> {
    match File::open(path) {
        Ok(file) => csv::Reader::from_reader(file)
            .deserialize()
            .collect::<Result<_, _>>()
            .map_err(|error| PkiError::file(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(PkiError::file(path, error)),
    }
}

fn append_csv<T: Serialize>(path: &Path, record: &T) -> Result<(), PkiError> {
    let append = || -> Result<(), Box<dyn std::error::Error>> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let headers = file.metadata()?.len() == 0;
        let mut line = csv::WriterBuilder::new().has_headers(headers).from_writer(Vec::new());
        line.serialize(record)?;
        // One write, so that two processes' lines do not mix.
        io::Write::write_all(&mut file, &line.into_inner()?)?;
        Ok(file.sync_all()?)
    };
    append().map_err(|error| PkiError::file(path, error))
}

fn to_rfc3339<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.format(&Rfc3339).map_err(serde::ser::Error::custom)?)
}

fn from_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    OffsetDateTime::parse(&String::deserialize(deserializer)?, &Rfc3339).map_err(serde::de::Error::custom)
}
