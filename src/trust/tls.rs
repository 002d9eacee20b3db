//! TLS configurations: 1.3 only, certificates on both sides, nothing resumed.
//!
//! In: our credentials and the [`Anchors`] to judge a peer by. Out: rustls configurations whose handshake fails, with
//! the rule that was broken, before a byte of HTTP passes. A session is never resumed, on either side: a resumed one is
//! not verified again, and a certificate revoked meanwhile would still open the door. X25519MLKEM768 is preferred,
//! HTTP/2 is the only protocol, except where [`with_http1`] adds another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use zeroize::Zeroizing;

use crate::trust::certificate::{Anchors, CertificateError, PeerIdentity, Usage, claimed_identity, read_certificates};
use crate::trust::identity::Identity;
use crate::trust::token::{TlsKey, TokenError};

/// HTTP/1.1, as ALPN names it.
pub const HTTP1: &[u8] = b"http/1.1";

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or root cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key file cannot be read or holds no private key.
    #[error("{path}: {reason}")]
    Key {
        /// Which file.
        path: String,
        /// What is wrong with it. Never says anything of the key itself.
        reason: String,
    },
    /// The key's public half is not in the certificate.
    #[error("the private key {key} does not belong to the certificate {certificate}")]
    KeyMismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// The token that has the key does not give it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The TLS library refuses.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Our own chain and key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credentials {
    key: Arc<SingleCertAndKey>,
    chain: Arc<[CertificateDer<'static>]>,
}

/// Of one chain: the key is the one that belongs to it.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Credentials {
    /// Reads a chain (leaf first) and its key, both PEM, and checks that they belong together.
    pub fn load(cert_pem: &Path, key_pem: &Path) -> Result<Self, TlsError> {
        let refused = |reason: String| TlsError::Key { path: key_pem.display().to_string(), reason };
        let chain = read_certificates(cert_pem)?;
        let key = Zeroizing::new(std::fs::read(key_pem).map_err(|error| refused(error.to_string()))?);
        Self::new(chain, &key, &cert_pem.display().to_string(), &key_pem.display().to_string())
    }

    /// A chain (leaf first, PEM), and its key in a token.
    pub fn load_with_token(cert_pem: &Path, key: TlsKey, key_name: &str) -> Result<Self, TlsError> {
        let chain = read_certificates(cert_pem)?;
        Self::of(chain, Arc::new(key), &cert_pem.display().to_string(), key_name)
    }

    /// Another chain for the same key, which is not looked for again.
    pub fn with_chain(&self, cert_pem: &Path) -> Result<Self, TlsError> {
        let chain = read_certificates(cert_pem)?;
        let certified = ResolvesClientCert::resolve(&*self.key, &[], &[]).ok_or(CertificateError::Missing)?;
        Self::of(chain, certified.key.clone(), &cert_pem.display().to_string(), "in use")
    }

    /// The same, from text.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Pem(error.to_string()))?;
        Self::new(chain, key_pem.as_bytes(), "given", "given")
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whom the certificate claims to speak for. Whether a peer will agree, [`Anchors::verify_peer`] says.
    pub fn identity(&self) -> Result<Identity, CertificateError> {
        claimed_identity(self.chain.first().ok_or(CertificateError::Missing)?)
    }

    /// Signs with the key, if it is one for this scheme. As the scheme writes signatures: ECDSA in DER.
    pub(super) fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Option<Vec<u8>>, TlsError> {
        let certified = ResolvesClientCert::resolve(&*self.key, &[], &[]);
        let signer = certified.and_then(|certified| certified.key.choose_scheme(&[scheme]));
        Ok(signer.map(|signer| signer.sign(message)).transpose()?)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key_pem: &[u8],
        cert_name: &str,
        key_name: &str,
    ) -> Result<Self, TlsError> {
        let refused = |reason: String| TlsError::Key { path: key_name.into(), reason };
        let der = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| refused(error.to_string()))?;
        let signing_key = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(der)
            .map_err(|error| refused(error.to_string()))?;
        Self::of(chain, signing_key, cert_name, key_name)
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        signing_key: Arc<dyn SigningKey>,
        cert_name: &str,
        key_name: &str,
    ) -> Result<Self, TlsError> {
        if chain.is_empty() {
            return Err(CertificateError::Missing.into());
        }
        let certified = CertifiedKey::new(chain.clone(), signing_key);
        match certified.keys_match() {
            Ok(()) => Ok(Self { key: Arc::new(SingleCertAndKey::from(certified)), chain: chain.into() }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsError::KeyMismatch { certificate: cert_name.into(), key: key_name.into() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// For a listener: client certificates required and verified before any HTTP.
pub fn server_config(credentials: &Credentials, anchors: &Arc<Anchors>) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = Arc::new(PeerVerifier { anchors: anchors.clone(), expect: None });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(credentials.key.clone() as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The same listener, where HTTP/1.1 is spoken too: HTTP/2 is preferred.
pub fn with_http1(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), HTTP1.to_vec()];
    Arc::new(config)
}

/// The same client, which speaks HTTP/1.1 only.
pub fn only_http1(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Arc::new(config)
}

/// For a call to a peer that must be `expect`; its host name is not checked, the identity is the name.
pub fn client_config(
    credentials: &Credentials,
    anchors: &Arc<Anchors>,
    expect: Identity,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(PeerVerifier { anchors: anchors.clone(), expect: Some(expect) });
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(credentials.key.clone() as Arc<dyn ResolvesClientCert>);
    Ok(Arc::new(finish_client(config)))
}

/// For command-line clients: ordinary verification of the server's DNS name or address under `roots`.
pub fn client_config_by_name(
    roots: &[PathBuf],
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    for path in roots {
        for root in read_certificates(path)? {
            store.add(root)?;
        }
    }
    if store.is_empty() {
        return Err(CertificateError::NoRoots.into());
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(store);
    let config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(credentials.key.clone() as Arc<dyn ResolvesClientCert>),
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(finish_client(config)))
}

/// For a listener on the open web: HTTP/1.1, no client certificates.
pub fn web_server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(credentials.key.clone() as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// For requests to the open web: the system's roots and these, PEM. No client certificate; ALPN is the connector's.
pub fn web_client_config(extra_roots: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system without a root store is no error: there may be roots of our own, or no HTTPS at all.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra_roots {
        for root in read_certificates(path)? {
            roots.add(root)?;
        }
    }
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Who the peer of an accepted connection is, from `peer_certificates()`. Once per connection, and again after roots or
/// CRLs changed: it costs what the handshake's own verification costs, two or three signatures.
pub fn peer_identity(
    chain: &[CertificateDer<'_>],
    anchors: &Anchors,
    now: UnixTime,
) -> Result<PeerIdentity, CertificateError> {
    anchors.verify_peer(chain, Usage::Client, now)
}

/// The whole chain of causes: the outermost of hyper's says only that something failed.
pub(crate) fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Why a handshake failed, in words for an operator: rustls prints our reasons as Rust values.
pub fn explain(error: &std::io::Error) -> String {
    use rustls::CertificateError as Tls;
    let Some(rustls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return error.to_string();
    };
    match rustls {
        rustls::Error::InvalidCertificate(Tls::Other(rustls::OtherError(reason))) => reason.to_string(),
        rustls::Error::InvalidCertificate(Tls::Expired) => "certificate expired".into(),
        rustls::Error::InvalidCertificate(Tls::NotValidYet) => "certificate not valid yet".into(),
        rustls::Error::InvalidCertificate(Tls::Revoked) => "certificate revoked".into(),
        rustls::Error::InvalidCertificate(Tls::UnknownIssuer) => CertificateError::UnknownIssuer.to_string(),
        rustls::Error::InvalidCertificate(Tls::UnknownRevocationStatus) => {
            "revocation list of the certificate's CA out of date: get a newer one from the CA".into()
        }
        rustls::Error::InvalidCertificate(Tls::InvalidPurpose) => "certificate not meant for this use".into(),
        rustls::Error::NoCertificatesPresented => CertificateError::Missing.to_string(),
        rustls::Error::AlertReceived(alert) => format!("the peer refused us: {alert:?}"),
        other => other.to_string(),
    }
}

fn finish_client(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Verifies the peer by its identity. One type for both directions: the rules are the same.
#[derive(Debug)]
struct PeerVerifier {
    anchors: Arc<Anchors>,
    /// Whom we called; a listener takes anybody whose chain is good and leaves the rest to the gateway.
    expect: Option<Identity>,
}

impl PeerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let chain: Vec<_> = std::iter::once(leaf).chain(others).cloned().collect();
        let presented = self.anchors.verify_peer(&chain, usage, now)?.identity;
        match &self.expect {
            Some(expected) if *expected != presented => {
                Err(CertificateError::UnexpectedPeer { expected: expected.clone(), presented })
            }
            _ => Ok(()),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, self.anchors.algorithms())
    }
}

/// TLS 1.2 is not offered, so nobody gets here.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.anchors.root_names()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(leaf, others, Usage::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.algorithms().supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, others, Usage::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.algorithms().supported_schemes()
    }
}
