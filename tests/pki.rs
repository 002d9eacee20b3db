//! Certificates: what authorities certify, what a chain proves, and the command line from init to revoke.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use kopuro::trust::certificate::{Anchors, CertificateError, Usage};
use kopuro::trust::identity::{Identity, MemberId};
use kopuro::trust::pki::{Authority, Issued, Sans, Validity, request};
use kopuro::trust::tls::Credentials;
use rustls::pki_types::UnixTime;
use time::{Duration as Span, OffsetDateTime};

pub(crate) const CIVIL: &str = "KG/GOV/70000005";
pub(crate) const TAX: &str = "KG/GOV/70000007";

/// A root and the CAs of two members.
pub(crate) struct Federation {
    pub(crate) root: Authority,
    pub(crate) civil: Authority,
    pub(crate) tax: Authority,
    pub(crate) now: OffsetDateTime,
}

impl Federation {
    pub(crate) fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        let mut root = Authority::create_root("KG", now).unwrap();
        let civil = root.issue_member_ca(&member(CIVIL), now).unwrap();
        let tax = root.issue_member_ca(&member(TAX), now).unwrap();
        Self { root, civil, tax, now }
    }

    pub(crate) fn civil(&mut self, name: &str) -> Issued {
        self.civil.issue(&identity(CIVIL, name), &Sans::default(), Validity::days(self.now, 90)).unwrap()
    }

    pub(crate) fn tax(&mut self, name: &str) -> Issued {
        self.tax.issue(&identity(TAX, name), &Sans::default(), Validity::days(self.now, 90)).unwrap()
    }

    pub(crate) fn crls(&mut self) -> String {
        let next = self.now + Span::days(7);
        [&mut self.root, &mut self.civil, &mut self.tax].map(|ca| ca.crl(self.now, next).unwrap()).concat()
    }

    /// The root and these CRLs.
    pub(crate) fn anchors(&self, crls: &str) -> Arc<Anchors> {
        Arc::new(Anchors::from_pem(self.root.certificate_pem(), crls).unwrap())
    }
}

pub(crate) fn member(text: &str) -> MemberId {
    text.parse().unwrap()
}

pub(crate) fn identity(member: &str, name: &str) -> Identity {
    format!("{member}/{name}").parse().unwrap()
}

pub(crate) fn credentials(issued: &Issued) -> Credentials {
    Credentials::from_pem(&issued.cert_pem, &issued.key_pem).unwrap()
}

#[test]
fn a_ca_certifies_its_own_only() {
    let mut federation = Federation::new();
    let validity = Validity::days(federation.now, 90);
    let foreign = federation.civil.issue(&identity(TAX, "tax"), &Sans::default(), validity).unwrap_err();
    assert_eq!(
        foreign.to_string(),
        format!("{TAX}/tax does not belong to {CIVIL}, and this CA certifies for no other member")
    );
    assert!(federation.root.issue(&identity(TAX, "tax"), &Sans::default(), validity).is_err());
    assert!(federation.civil.issue(&CIVIL.parse().unwrap(), &Sans::default(), validity).is_err());
    assert!(federation.root.issue_member_ca(&member("KZ/GOV/1"), federation.now).is_err());
    let long = Validity::days(federation.now, 4000);
    assert!(federation.civil.issue(&identity(CIVIL, "x"), &Sans::default(), long).is_err());

    let asked = request(&identity(TAX, "tax"), &Sans::default()).unwrap();
    assert!(federation.civil.sign(&asked.csr_pem, validity).is_err());
    let chain = federation.tax.sign(&asked.csr_pem, validity).unwrap();
    Credentials::from_pem(&chain, &asked.key_pem).unwrap();
}

/// A CA that breaks the rules, with the same tools but without our checks.
#[test]
fn a_forged_leaf_of_another_member_is_refused() {
    let mut federation = Federation::new();
    let folder = tempfile::tempdir().unwrap();
    federation.tax.save(folder.path()).unwrap();
    let key = std::fs::read_to_string(folder.path().join("ca.key")).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(federation.tax.certificate_pem(), &ca_key).unwrap();
    let anchors = federation.anchors("");
    let verify = |uris: &[&str]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        for uri in uris {
            params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
        }
        let leaf = params.signed_by(&key, &issuer).unwrap().pem();
        let chain = format!("{leaf}{}", federation.tax.certificate_pem());
        let chain = Credentials::from_pem(&chain, &key.serialize_pem()).unwrap();
        anchors.verify_peer(chain.chain(), Usage::Client, UnixTime::now())
    };
    let own = format!("kopuro://{TAX}/tax");
    assert_eq!(verify(&[&own]).unwrap().identity, identity(TAX, "tax"));
    assert_eq!(verify(&[&own, "https://example.org/"]).unwrap().identity, identity(TAX, "tax"));
    assert!(matches!(
        verify(&[&format!("kopuro://{CIVIL}/_node/main")]),
        Err(CertificateError::ForeignMember { leaf, issuer })
            if leaf == identity(CIVIL, "_node/main") && issuer == member(TAX)
    ));
    assert_eq!(verify(&[]), Err(CertificateError::NoIdentity));
    assert!(matches!(verify(&[&own, &own]), Err(CertificateError::SeveralIdentities(..))));
    assert!(matches!(verify(&[&own, "Kopuro://KG/GOV/1/x"]), Err(CertificateError::SeveralIdentities(..))));
    assert!(matches!(verify(&["kopuro://KG/GOV/1/x y"]), Err(CertificateError::BadIdentity(_))));
    assert_eq!(verify(&[&format!("kopuro://{TAX}")]), Err(CertificateError::MemberAsPeer(member(TAX))));
}

#[test]
fn uses_and_revocation_lists() {
    let mut federation = Federation::new();
    let now = UnixTime::now();
    let auditor = credentials(&federation.tax("_auditor/board"));
    let anchors = federation.anchors("");
    let verified = anchors.verify_peer(auditor.chain(), Usage::Client, now).unwrap();
    assert_eq!(verified.identity, identity(TAX, "_auditor/board"));
    assert_eq!(verified.not_after_unix, (federation.now + Span::days(90)).unix_timestamp());
    assert!(matches!(
        anchors.verify_peer(auditor.chain(), Usage::Server, now),
        Err(CertificateError::WrongUse { usage: Usage::Server, .. })
    ));
    assert_eq!(anchors.verify_peer(&[], Usage::Client, now), Err(CertificateError::Missing));
    // A leaf without its CA's certificate leads nowhere; a CA is no peer.
    assert_eq!(anchors.verify_peer(&auditor.chain()[..1], Usage::Client, now), Err(CertificateError::UnknownIssuer));
    assert!(anchors.verify_peer(&auditor.chain()[1..], Usage::Client, now).is_err());

    // Of two lists of one CA the newer counts, in whichever order they are given.
    let node = federation.tax("_node/main");
    let old = federation.tax.crl(federation.now, federation.now + Span::days(7)).unwrap();
    let new = federation.tax.revoke(&node.serial_hex, federation.now).unwrap();
    for crls in [format!("{old}{new}"), format!("{new}{old}")] {
        let anchors = federation.anchors(&crls);
        assert_eq!((anchors.crls().len(), anchors.crls()[0].revoked), (1, 1));
        let refused = anchors.verify_peer(credentials(&node).chain(), Usage::Client, now).unwrap_err();
        let expected = format!("certificate revoked: {TAX}/_node/main, serial {}", node.serial_hex);
        assert_eq!(refused.to_string(), expected);
    }
    // A list that its CA did not sign: the same name, another key.
    let mut root = Authority::create_root("KG", federation.now).unwrap();
    let foreign = root.crl(federation.now, federation.now + Span::days(7)).unwrap();
    assert!(federation.anchors(&foreign).verify_peer(auditor.chain(), Usage::Client, now).is_ok());
    assert_eq!(Anchors::from_pem("", "").unwrap_err(), CertificateError::NoRoots);

    // A list in a CA's name that another key signed vouches for nobody.
    let forger = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(federation.tax.certificate_pem(), &forger).unwrap();
    let forged = rcgen::CertificateRevocationListParams {
        this_update: federation.now,
        next_update: federation.now + Span::days(7),
        crl_number: u64::MAX.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let forged = forged.signed_by(&issuer).unwrap().pem().unwrap();
    let refused = federation.anchors(&forged).verify_peer(auditor.chain(), Usage::Client, now);
    assert!(matches!(refused, Err(CertificateError::BadCrl(_))), "{refused:?}");
}

/// CAs that other tools made, without a limit on CAs under them: none speaks for another member even so.
#[test]
fn a_members_ca_makes_no_ca_for_another_member() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
    let params = |name: &str, uri: Option<&str>, ca: bool| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = OffsetDateTime::now_utc() - Span::HOUR;
        params.not_after = OffsetDateTime::now_utc() + Span::HOUR;
        params.subject_alt_names =
            uri.map(|uri| SanType::URI(format!("kopuro://{uri}").try_into().unwrap())).into_iter().collect();
        params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params
    };
    let keys: [KeyPair; 4] = std::array::from_fn(|_| KeyPair::generate().unwrap());
    let root = params("root", None, true);
    let root_pem = root.self_signed(&keys[0]).unwrap().pem();
    let anchors = Anchors::from_pem(&root_pem, "").unwrap();
    let verify = |upper: Option<&str>, lower: Option<&str>, leaf: &str| {
        let (upper, lower) = (params("upper", upper, true), params("lower", lower, true));
        let leaf = params("leaf", Some(leaf), false);
        let chain = [
            leaf.signed_by(&keys[3], &Issuer::from_params(&lower, &keys[2])).unwrap().pem(),
            lower.signed_by(&keys[2], &Issuer::from_params(&upper, &keys[1])).unwrap().pem(),
            upper.signed_by(&keys[1], &Issuer::from_params(&root, &keys[0])).unwrap().pem(),
        ];
        let credentials = Credentials::from_pem(&chain.concat(), &keys[3].serialize_pem()).unwrap();
        anchors.verify_peer(credentials.chain(), Usage::Client, UnixTime::now()).map(|peer| peer.identity)
    };
    let leaf = format!("{CIVIL}/civil-registry");
    // A CA of the federation above the member's is fine, and so is the member's own above its own.
    assert!(verify(None, Some(CIVIL), &leaf).is_ok());
    assert!(verify(Some(CIVIL), Some(CIVIL), &leaf).is_ok());
    let foreign = verify(Some(TAX), Some(CIVIL), &leaf);
    assert!(
        matches!(&foreign, Err(CertificateError::ForeignMember { issuer, .. }) if *issuer == member(TAX)),
        "{foreign:?}"
    );
    assert!(matches!(verify(Some(CIVIL), None, &leaf), Err(CertificateError::IssuerWithoutMember(_))));
    // A system's certificate is no CA, whatever its constraints say.
    assert!(matches!(verify(None, Some(&leaf), &leaf), Err(CertificateError::IssuerWithoutMember(_))));
}

pub(crate) fn kopuro(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kopuro")).current_dir(folder).args(arguments).output().unwrap()
}

pub(crate) fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = kopuro(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn fail(folder: &Path, arguments: &[&str]) -> String {
    let output = kopuro(folder, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_command_line_from_init_to_revoke() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let init = ["pki", "init", "--out", "pki", "--federation", "KG", "--member", CIVIL];
    succeed(at, &init);
    // Again with another member: what exists stays.
    let root = std::fs::read(at.join("pki/root/ca.pem")).unwrap();
    assert!(succeed(at, &[&init[..], &["--member", TAX]].concat()).contains("kept"));
    assert_eq!(std::fs::read(at.join("pki/root/ca.pem")).unwrap(), root);

    let civil_ca = format!("pki/members/{CIVIL}");
    let tax_ca = format!("pki/members/{TAX}");
    let node = format!("{CIVIL}/_node/main");
    let issue = ["pki", "issue", "--ca", &civil_ca, "--identity", &node, "--dns", "gw.example", "--ip", "::1"];
    succeed(at, &[&issue[..], &["--out", "node"]].concat());
    assert!(fail(at, &[&issue[..], &["--out", "node"]].concat()).contains("node.key exists"));
    for key in ["node.key", "pki/root/ca.key", &format!("{civil_ca}/ca.key")] {
        assert_eq!(std::fs::metadata(at.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }

    // The key stays with the tax service; the civil registry's CA does not certify it.
    let tax = format!("{TAX}/tax");
    succeed(at, &["pki", "csr", "--identity", &tax, "--out", "tax"]);
    let refused = fail(at, &["pki", "sign", "--ca", &civil_ca, "--csr", "tax.csr", "--out", "tax.pem"]);
    assert!(refused.contains("does not belong to"), "{refused}");
    succeed(at, &["pki", "sign", "--ca", &tax_ca, "--csr", "tax.csr", "--out", "tax.pem"]);

    let shown = succeed(at, &["pki", "show", "node.pem", &format!("{civil_ca}/ca.crl")]);
    for expected in
        [&node, "gw.example, ::1", "client and server", "certificate authority", " days left)", "revoked      0"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }

    let verify = |name: &str| {
        let crls = ["pki/root", &civil_ca, &tax_ca].map(|ca| at.join(ca).join("ca.crl"));
        let anchors = Anchors::load(&[at.join("pki/root/ca.pem")], &crls).unwrap();
        let chain = Credentials::load(&at.join(format!("{name}.pem")), &at.join(format!("{name}.key"))).unwrap();
        anchors.verify_peer(chain.chain(), Usage::Server, UnixTime::now())
    };
    assert_eq!(verify("node").unwrap().identity.to_string(), node);
    assert_eq!(verify("tax").unwrap().identity.to_string(), tax);

    succeed(at, &["pki", "revoke", "--ca", &tax_ca, "--certificate", "tax.pem"]);
    assert!(matches!(verify("tax"), Err(CertificateError::Revoked(_))));
    assert!(verify("node").is_ok());
    // A fresh list still has it; what the CA did not issue it cannot revoke.
    succeed(at, &["pki", "crl", "--ca", &tax_ca, "--ca", &civil_ca]);
    assert!(matches!(verify("tax"), Err(CertificateError::Revoked(_))));
    let serial = verify("node").unwrap().serial_hex;
    assert!(fail(at, &["pki", "revoke", "--ca", &tax_ca, "--serial", &serial]).contains("issued no certificate"));

    let mixed = Credentials::load(&at.join("node.pem"), &at.join("tax.key")).unwrap_err().to_string();
    assert!(mixed.contains("tax.key does not belong to the certificate") && mixed.contains("node.pem"), "{mixed}");
}

/// A member whose CA key the root never sees.
#[test]
fn a_member_makes_its_own_ca_key() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeed(at, &["pki", "init", "--out", "pki", "--federation", "KG"]);
    std::fs::create_dir(at.join("own")).unwrap();
    succeed(at, &["pki", "csr", "--identity", TAX, "--out", "own/ca"]);
    succeed(at, &["pki", "sign", "--ca", "pki/root", "--csr", "own/ca.csr", "--days", "1826", "--out", "own/ca.pem"]);
    let tax = format!("{TAX}/tax");
    succeed(at, &["pki", "issue", "--ca", "own", "--identity", &tax, "--out", "tax"]);
    succeed(at, &["pki", "crl", "--ca", "own"]);
    let anchors = Anchors::load(&[at.join("pki/root/ca.pem")], &[at.join("own/ca.crl")]).unwrap();
    let chain = Credentials::load(&at.join("tax.pem"), &at.join("tax.key")).unwrap();
    assert_eq!(anchors.verify_peer(chain.chain(), Usage::Client, UnixTime::now()).unwrap().identity.to_string(), tax);
}

#[test]
fn a_certificate_is_renewed_with_its_names_when_its_end_is_near() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, &["pki", "init", "--out", "pki", "--federation", "KG", "--member", CIVIL]);
    let ca = format!("pki/members/{CIVIL}");
    let identity = format!("{CIVIL}/_node/main");
    let issue = ["pki", "issue", "--ca", &ca, "--identity", &identity, "--dns", "gw.civil.example", "--ip", "10.0.0.7"];
    succeed(folder, &[&issue[..], &["--days", "40", "--out", "node"]].concat());
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (certificate, key) = (read("node.pem"), read("node.key"));

    let renew = ["pki", "renew", "--ca", &ca, "--certificate", "node.pem", "--key", "node.key"];
    assert!(succeed(folder, &renew).starts_with("kept"), "39 days are left, 30 is when it is renewed");
    assert_eq!(read("node.pem"), certificate);
    assert!(succeed(folder, &[&renew[..], &["--within", "60", "--days", "80"]].concat()).starts_with("renewed"));
    assert!(read("node.pem") != certificate && read("node.key") != key, "a new key too");
    assert_eq!(std::fs::metadata(folder.join("node.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = succeed(folder, &["pki", "show", "node.pem"]);
    for expected in [&*identity, "gw.civil.example, 10.0.0.7", "days left"] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(!folder.join("node.pem.new").exists() && !folder.join("node.key.new").exists());
    Credentials::load(&folder.join("node.pem"), &folder.join("node.key")).unwrap();
    assert!(
        fail(folder, &["pki", "renew", "--ca", &ca, "--certificate", "none.pem", "--key", "node.key"])
            .contains("none.pem")
    );
}

/// Where the CA is elsewhere: a request, a certificate, and the key stays.
#[test]
fn a_certificate_is_renewed_for_the_key_and_names_that_are_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, &["pki", "init", "--out", "pki", "--federation", "KG", "--member", CIVIL, "--member", TAX]);
    let ca = format!("pki/members/{CIVIL}");
    let identity = format!("{CIVIL}/_node/main");
    succeed(
        folder,
        &["pki", "issue", "--ca", &ca, "--identity", &identity, "--dns", "gw.civil.example", "--out", "node"],
    );
    let key = std::fs::read(folder.join("node.key")).unwrap();

    succeed(folder, &["pki", "csr", "--like", "node.pem", "--key", "node.key", "--out", "next"]);
    assert!(!folder.join("next.key").exists());
    succeed(folder, &["pki", "sign", "--ca", &ca, "--csr", "next.csr", "--out", "next.pem"]);
    let next = Credentials::load(&folder.join("next.pem"), &folder.join("node.key")).unwrap();
    assert_eq!(next.identity().unwrap().to_string(), identity);
    assert!(succeed(folder, &["pki", "show", "next.pem"]).contains("gw.civil.example"));
    assert_eq!(std::fs::read(folder.join("node.key")).unwrap(), key);

    fail(folder, &["pki", "csr", "--out", "nobody"]);
    fail(folder, &["pki", "csr", "--like", "node.pem", "--identity", &identity, "--out", "both"]);
    let said = fail(folder, &["pki", "csr", "--like", "node.pem", "--key", "node.pem", "--out", "no-key"]);
    assert!(said.contains("node.pem") && !folder.join("no-key.csr").exists(), "{said}");
    let said = fail(
        folder,
        &["pki", "csr", "--identity", &identity, "--out", "x", "--pkcs11", "m.so", "--token", "t", "--key-label", "k"],
    );
    assert!(said.contains("--pin-file FILE or --pin-env NAME"), "{said}");
}
