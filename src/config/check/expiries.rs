//! Everything that the node lives by and that ends: its chain, the roots, revocation lists, the directory; and what to do before it does.

use std::path::Path;

use crate::config::{NodeConfig, PrivateKey, Token};
use crate::trust::certificate::{Anchors, validity_of};
use crate::trust::directory::Directory;
use crate::trust::expiry::Expiry;
use crate::trust::tls::Credentials;

pub(super) fn expiries(
    config: &NodeConfig,
    credentials: &Credentials,
    anchors: &Anchors,
    directory: &Directory,
) -> Vec<Expiry> {
    let mut all = chain(config, credentials);
    let in_file = |name: &str, file: Option<&Path>| match file {
        Some(file) => format!("{name} in {}", file.display()),
        None => name.to_owned(),
    };
    all.extend(anchors.roots().map(|root| Expiry {
        what: "root certificate",
        name: in_file(&root.name, root.file.as_deref()),
        from_unix: Some(root.not_before_unix),
        until_unix: root.not_after_unix,
        remedy: "get the new one from the federation's council, and name it in tls.roots beside this one until nobody needs this one".into(),
    }));
    all.extend(anchors.crls().iter().map(|crl| Expiry {
        what: "revocation list",
        name: in_file(&format!("of {}", crl.issuer), crl.file.as_deref()),
        from_unix: Some(crl.this_update_unix),
        until_unix: crl.next_update_unix,
        remedy: "that CA writes a new one, `kopuro pki crl --ca FOLDER`, and every node gets it: when it ends, everybody under that CA \
                 is refused"
            .into(),
    }));
    all.push(Expiry {
        what: "directory",
        name: format!("version {}", directory.version),
        from_unix: None,
        until_unix: directory.expires.unix_timestamp(),
        remedy: "have the council sign the next version before that, `kopuro directory sign --previous …`: when it ends, no exchange passes"
            .into(),
    });
    all
}

/// The node's certificate, and the CAs that come with it.
fn chain(config: &NodeConfig, credentials: &Credentials) -> Vec<Expiry> {
    let file = config.tls.certificate.display();
    let mut all = Vec::new();
    for (place, certificate) in credentials.chain().iter().enumerate() {
        // A chain that cannot be read was refused before.
        let Ok((subject, from_unix, until_unix)) = validity_of(certificate) else { continue };
        let (what, name, remedy) = match place {
            0 => ("certificate", file.to_string(), renewal(config)),
            _ => ("CA certificate", format!("{subject} in {file}"), ca_renewal(config)),
        };
        all.push(Expiry { what, name, from_unix: Some(from_unix), until_unix, remedy });
    }
    all
}

fn renewal(config: &NodeConfig) -> String {
    let certificate = config.tls.certificate.display();
    let key = match &config.tls.key {
        PrivateKey::File(path) => format!("--key {}", path.display()),
        PrivateKey::Pkcs11(Token { module, token, key, .. }) => {
            format!("--pkcs11 {} --token {token:?} --key-label {key:?} --pin-file …", module.display())
        }
    };
    format!(
        "renew it, `kopuro pki renew --ca FOLDER --certificate {certificate} {key}`, or where the CA is elsewhere \
         `kopuro pki csr --like {certificate} {key} --out node`; the node takes it up by itself"
    )
}

fn ca_renewal(config: &NodeConfig) -> String {
    let member = &config.node.member;
    format!(
        "have the federation's root certify the member's CA again, `kopuro pki csr --identity {member} --out ca` and the root's \
         `kopuro pki sign`, and then this node's certificate by the new one"
    )
}
