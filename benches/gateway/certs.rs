//! The benchmark's PKI, made anew for each run: a root, an issuing CA for each of two members, and one certificate for
//! each party, all ECDSA P-256 and all three deep, so that no row has a cheaper handshake or record than another.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use kopuro::trust::file::{self, Access, Existing};
use kopuro::trust::identity::Identity;
use kopuro::trust::pki::{Authority, Sans, Validity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::OffsetDateTime;

pub(crate) const CONSUMER: &str = "KG/GOV/70000006";
pub(crate) const PROVIDER: &str = "KG/GOV/70000005";
pub(crate) const ASKER: &str = "KG/GOV/70000006/asker";
pub(crate) const ECHO: &str = "KG/GOV/70000005/echo";

/// The system that asks: what the load generator presents, except to a lone provider's node.
pub(crate) const CONSUMER_SYSTEM: &str = "consumer-system";
/// The consumer's node.
pub(crate) const CONSUMER_NODE: &str = "consumer-node";
/// The provider's node; nginx and HAProxy present it too.
pub(crate) const PROVIDER_NODE: &str = "provider-node";
/// The echo back-end.
pub(crate) const PROVIDER_SYSTEM: &str = "provider-system";

/// A folder of PEM files: `root.pem`, and `NAME.pem`, `NAME.key`, `NAME.both.pem` (HAProxy wants one file) per party.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes all of it.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let now = OffsetDateTime::now_utc();
        let mut root = Authority::create_root("KG", now)?;
        fs::write(folder.join("root.pem"), root.certificate_pem())?;
        let mut consumer = root.issue_member_ca(&CONSUMER.parse()?, now)?;
        let mut provider = root.issue_member_ca(&PROVIDER.parse()?, now)?;
        let made = Self { folder: folder.to_owned() };
        made.issue(&mut consumer, CONSUMER_SYSTEM, &Identity::System(ASKER.parse()?))?;
        made.issue(&mut consumer, CONSUMER_NODE, &node(CONSUMER)?)?;
        made.issue(&mut provider, PROVIDER_NODE, &node(PROVIDER)?)?;
        made.issue(&mut provider, PROVIDER_SYSTEM, &Identity::System(ECHO.parse()?))?;
        Ok(made)
    }

    /// One that another process made.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    pub(crate) fn certificate(&self, party: &str) -> PathBuf {
        self.folder.join(format!("{party}.pem"))
    }

    pub(crate) fn key(&self, party: &str) -> PathBuf {
        self.folder.join(format!("{party}.key"))
    }

    pub(crate) fn both(&self, party: &str) -> PathBuf {
        self.folder.join(format!("{party}.both.pem"))
    }

    /// TLS 1.3 as `party`, for a client that verifies the server by name.
    pub(crate) fn client(&self, party: &str) -> Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain(party)?, self.private_key(party)?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// The same as nobody: whom every row must refuse.
    pub(crate) fn stranger(&self) -> Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS 1.3 as `party`, for a server that requires a client's certificate.
    pub(crate) fn server(&self, party: &str) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider))
                .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain(party)?, self.private_key(party)?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.root()).context("root.pem")?)?;
        Ok(roots)
    }

    fn chain(&self, party: &str) -> Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_file_iter(self.certificate(party))?.collect::<Result<_, _>>()?)
    }

    fn private_key(&self, party: &str) -> Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_file(self.key(party))?)
    }

    fn issue(&self, issuer: &mut Authority, party: &str, identity: &Identity) -> Result<()> {
        let names = Sans { dns: vec!["localhost".to_owned()], ips: vec![Ipv4Addr::LOCALHOST.into()] };
        let issued = issuer.issue(identity, &names, Validity::days(OffsetDateTime::now_utc(), 2))?;
        let secret = |path: &Path, text: &str| file::write(path, text.as_bytes(), Access::Secret, Existing::Keep);
        secret(&self.key(party), &issued.key_pem)?;
        secret(&self.both(party), &format!("{}{}", issued.cert_pem, *issued.key_pem))?;
        Ok(fs::write(self.certificate(party), issued.cert_pem)?)
    }
}

fn node(member: &str) -> Result<Identity> {
    Ok(Identity::Node { member: member.parse()?, name: "main".into() })
}
