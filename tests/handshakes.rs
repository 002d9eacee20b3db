//! Real handshakes over loopback: who is let in, who is refused, by whom, and in which words.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use kopuro::trust::certificate::{Anchors, Usage};
use kopuro::trust::identity::Identity;
use kopuro::trust::pki::{Sans, Validity};
use kopuro::trust::tls::{self, Credentials, client_config, client_config_by_name, server_config};
use rustls::NamedGroup;
use rustls::pki_types::{ServerName, UnixTime};
use time::Duration as Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki::{CIVIL, Federation, TAX, credentials, identity};

/// What became of a handshake and one byte each way.
#[derive(Debug)]
struct Met {
    server: Result<Identity, String>,
    client: Result<NamedGroup, String>,
}

impl Met {
    fn refused_by_server(&self) -> &str {
        assert!(self.client.is_err(), "the client got through: {self:?}");
        self.server.as_ref().expect_err("the server let it in")
    }

    fn refused_by_client(&self) -> &str {
        assert!(self.server.is_err(), "the server went on: {self:?}");
        self.client.as_ref().expect_err("the client went on")
    }
}

async fn meet(
    server: Arc<rustls::ServerConfig>,
    server_anchors: Arc<Anchors>,
    client: Arc<rustls::ClientConfig>,
    name: &'static str,
) -> Met {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(server).accept(stream).await.map_err(|error| tls::explain(&error))?;
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        let peer =
            tls::peer_identity(connection.peer_certificates().unwrap(), &server_anchors, UnixTime::now()).unwrap();
        stream.write_all(b"k").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        let _ = stream.read_u8().await;
        Ok(peer.identity)
    };
    let calling = async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let mut stream =
            TlsConnector::from(client).connect(name, stream).await.map_err(|error| tls::explain(&error))?;
        // TLS 1.3: the server's refusal comes after the client's handshake is done.
        stream.read_u8().await.map_err(|error| tls::explain(&error))?;
        let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        let _ = stream.shutdown().await;
        Ok(group)
    };
    let both = async { tokio::join!(serving, calling) };
    let (server, client) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("a handshake ends");
    Met { server, client }
}

/// A member's system, with these credentials, calls the civil registry's node.
async fn call_node(federation: &mut Federation, caller: &Credentials, crls: &str) -> Met {
    let node = credentials(&federation.civil("_node/main"));
    let anchors = federation.anchors(crls);
    let server = server_config(&node, &anchors).unwrap();
    // The caller itself looks at no CRL: it is the node that must refuse.
    let client = client_config(caller, &federation.anchors(""), identity(CIVIL, "_node/main")).unwrap();
    meet(server, anchors, client, "any.name").await
}

#[tokio::test]
async fn members_meet() {
    let mut federation = Federation::new();
    let caller = credentials(&federation.tax("_node/main"));
    let crls = federation.crls();
    let met = call_node(&mut federation, &caller, &crls).await;
    assert_eq!(met.server, Ok(identity(TAX, "_node/main")));
    assert_eq!(met.client, Ok(NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn wrong_ca_is_refused() {
    let mut federation = Federation::new();
    let mut strangers = Federation::new();
    let caller = credentials(&strangers.tax("_node/main"));
    let met = call_node(&mut federation, &caller, "").await;
    assert!(met.refused_by_server().contains("certificate of an unknown issuer"), "{met:?}");
    assert!(met.client.unwrap_err().contains("UnknownCA"));
}

#[tokio::test]
async fn expired_is_refused() {
    let mut federation = Federation::new();
    let past = Validity { not_before: federation.now - Span::days(3), not_after: federation.now - Span::days(1) };
    let caller = federation.tax.issue(&identity(TAX, "tax"), &Sans::default(), past).unwrap();
    let met = call_node(&mut federation, &credentials(&caller), "").await;
    assert!(met.refused_by_server().contains("expired"), "{met:?}");
    assert!(met.client.unwrap_err().contains("CertificateExpired"));

    let future = Validity { not_before: federation.now + Span::days(1), not_after: federation.now + Span::days(3) };
    let caller = federation.tax.issue(&identity(TAX, "tax"), &Sans::default(), future).unwrap();
    let met = call_node(&mut federation, &credentials(&caller), "").await;
    assert!(met.refused_by_server().contains("not valid yet"), "{met:?}");
}

#[tokio::test]
async fn revoked_is_refused() {
    let mut federation = Federation::new();
    let (good, bad) = (federation.tax("_node/main"), federation.tax("_node/main"));
    federation.tax.revoke(&bad.serial_hex, federation.now).unwrap();
    let crls = federation.crls();
    let met = call_node(&mut federation, &credentials(&bad), &crls).await;
    assert!(met.refused_by_server().to_lowercase().contains("revoked"), "{met:?}");
    assert!(met.client.unwrap_err().contains("CertificateRevoked"));
    let met = call_node(&mut federation, &credentials(&good), &crls).await;
    assert!(met.server.is_ok(), "{met:?}");
}

#[tokio::test]
async fn a_revoked_node_is_refused_by_who_calls_it() {
    let mut federation = Federation::new();
    let caller = credentials(&federation.tax("_node/main"));
    let node = federation.civil("_node/main");
    federation.civil.revoke(&node.serial_hex, federation.now).unwrap();
    let crls = federation.crls();
    let server = server_config(&credentials(&node), &federation.anchors("")).unwrap();
    let client = client_config(&caller, &federation.anchors(&crls), identity(CIVIL, "_node/main")).unwrap();
    let met = meet(server, federation.anchors(""), client, "any.name").await;
    assert!(met.refused_by_client().to_lowercase().contains("revoked"), "{met:?}");
}

#[tokio::test]
async fn a_revoked_member_ca_takes_its_leaves_along() {
    let mut federation = Federation::new();
    let caller = federation.tax("_node/main");
    // The CA's own serial number: its certificate is the second of the chain.
    let ca_serial = {
        let chain = credentials(&caller).chain().to_vec();
        let (_, ca) = x509_parser::parse_x509_certificate(&chain[1]).unwrap();
        hex::encode(ca.raw_serial())
    };
    federation.root.revoke(&ca_serial, federation.now).unwrap();
    let crls = federation.crls();
    let met = call_node(&mut federation, &credentials(&caller), &crls).await;
    assert!(met.refused_by_server().to_lowercase().contains("revoked"), "{met:?}");
}

#[tokio::test]
async fn out_of_date_crl_refuses_its_members_systems_only() {
    let mut federation = Federation::new();
    let (tax, civil) = (credentials(&federation.tax("tax")), credentials(&federation.civil("civil-registry")));
    let past = federation.now - Span::days(8);
    let crl = federation.tax.crl(past, past + Span::days(7)).unwrap();
    let met = call_node(&mut federation, &tax, &crl).await;
    assert!(met.refused_by_server().contains("out of date"), "{met:?}");
    let met = call_node(&mut federation, &civil, &crl).await;
    assert!(met.server.is_ok(), "{met:?}");
    // The operator reads why.
    let anchors = federation.anchors(&crl);
    let refused = anchors.verify_peer(tax.chain(), Usage::Client, UnixTime::now()).unwrap_err();
    assert!(refused.to_string().starts_with("revocation list out of date: its next update was due at 20"), "{refused}");
}

#[tokio::test]
async fn another_member_answering_is_refused() {
    let mut federation = Federation::new();
    let caller = credentials(&federation.tax("_node/main"));
    let impostor = credentials(&federation.tax("_node/other"));
    let anchors = federation.anchors("");
    let server = server_config(&impostor, &anchors).unwrap();
    let client = client_config(&caller, &anchors, identity(CIVIL, "_node/main")).unwrap();
    let met = meet(server, anchors, client, "any.name").await;
    let expected = format!("speaks for {TAX}/_node/other, expected {CIVIL}/_node/main");
    assert!(met.refused_by_client().contains(&expected), "{met:?}");
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let mut federation = Federation::new();
    let sans = Sans { dns: vec!["node.example".into()], ips: vec!["127.0.0.1".parse().unwrap()] };
    let validity = Validity::days(federation.now, 90);
    let node = federation.civil.issue(&identity(CIVIL, "_node/main"), &sans, validity).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = [folder.path().join("root.pem")];
    std::fs::write(&roots[0], federation.root.certificate_pem()).unwrap();
    let anchors = federation.anchors("");
    let server = server_config(&credentials(&node), &anchors).unwrap();

    let anonymous = client_config_by_name(&roots, None).unwrap();
    let met = meet(server.clone(), anchors.clone(), anonymous, "node.example").await;
    assert!(met.refused_by_server().contains("no certificate presented"), "{met:?}");

    // With one, by name and by address; and not under another name.
    let caller = credentials(&federation.tax("tax"));
    for name in ["node.example", "127.0.0.1"] {
        let client = client_config_by_name(&roots, Some(&caller)).unwrap();
        let met = meet(server.clone(), anchors.clone(), client, name).await;
        assert_eq!(met.server, Ok(identity(TAX, "tax")));
    }
    let client = client_config_by_name(&roots, Some(&caller)).unwrap();
    let met = meet(server, anchors, client, "other.example").await;
    assert!(met.refused_by_client().contains("not valid for name"), "{met:?}");
}

/// A client that knows TLS 1.2 only, written by hand: our own library cannot speak it.
#[tokio::test]
async fn tls_1_2_is_refused() {
    let mut federation = Federation::new();
    let server = server_config(&credentials(&federation.civil("_node/main")), &federation.anchors("")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(server).accept(stream).await.map(|_| ()).map_err(|error| error.to_string())
    });
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&client_hello_1_2()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    // Alert record, fatal, protocol_version.
    assert_eq!(answer.await.unwrap(), [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70]);
    serving.await.unwrap().unwrap_err();
}

pub(crate) fn client_hello_1_2() -> Vec<u8> {
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]); // random
    hello.push(0); // session id
    hello.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE with AES-128-GCM
    hello.extend([1, 0]); // no compression
    let extensions = [
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..], // supported_groups: x25519, secp256r1
        &[0, 11, 0, 2, 1, 0],                   // ec_point_formats
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],       // signature_algorithms
        &[0, 23, 0, 0],                         // extended_master_secret
    ]
    .concat();
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let length = u16::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(hello);
    record
}
