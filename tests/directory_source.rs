//! How a node gets its directory from mirrors, and keeps the last good one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kopuro::trust::directory::{DirectoryError, Mirror, Source, SourceOptions};
use kopuro::trust::note::Signer;
use kopuro::trust::pki::{Authority, Sans, Validity};
use sha2::{Digest, Sha256};
use time::{Duration as Span, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::directory::{CIVIL, NOW, council, directory, keys, signed};

/// A node's source with one file mirror, in a folder.
struct Station {
    folder: tempfile::TempDir,
    council: [Signer; 3],
}

impl Station {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), council: council() }
    }

    fn mirror(&self) -> PathBuf {
        self.folder.path().join("mirror")
    }

    fn publish(&self, note: &str) {
        std::fs::write(self.mirror(), note).unwrap();
    }

    fn open(&self) -> Source {
        self.open_with(vec![Mirror::File(self.mirror())], None)
    }

    fn open_with(&self, mirrors: Vec<Mirror>, extra_roots: Option<PathBuf>) -> Source {
        let last_good = self.folder.path().join("last-good");
        let options = SourceOptions { mirrors, council: keys(&self.council), threshold: 2, last_good, extra_roots };
        Source::open(options, NOW).unwrap()
    }
}

fn version(source: &Source, now: OffsetDateTime) -> Option<u64> {
    source.current(now).map(|signed| signed.directory.version)
}

#[tokio::test]
async fn a_node_keeps_the_last_good_directory() {
    let station = Station::new();
    let [a, b, c] = &station.council;
    let mut source = station.open();
    assert!(matches!(source.poll(NOW).await, Err(DirectoryError::NoMirror(_))));
    assert_eq!(version(&source, NOW), None);

    let five = directory(5, &[a, b, c], 2);
    station.publish(&signed(&five, &[a, b]));
    assert_eq!(source.poll(NOW).await.unwrap().unwrap().directory, five);
    assert_eq!(source.poll(NOW).await.unwrap(), None);
    // Signed by others of the council: the same directory.
    station.publish(&signed(&five, &[b, c]));
    assert_eq!(source.poll(NOW).await.unwrap(), None);

    // Lower, short of the threshold, contradictory, garbage, gone: version 5 stays, also over a restart.
    let refuse = async |source: &mut Source, note: &str, expected: &str| {
        station.publish(note);
        let error = source.poll(NOW).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should say {expected}");
        assert_eq!(version(source, NOW), Some(5));
    };
    refuse(&mut source, &signed(&directory(4, &[a, b, c], 2), &[a, b]), "older than version 5").await;
    source = station.open();
    refuse(&mut source, &signed(&directory(4, &[a, b, c], 2), &[a, b, c]), "older than version 5").await;
    refuse(&mut source, &signed(&directory(6, &[a, b, c], 2), &[a]), "signed by 1 of the 3").await;
    let mut other_five = five.clone();
    other_five.nodes[0].endpoint = "elsewhere.example:7444".into();
    refuse(&mut source, &signed(&other_five, &[a, b]), "with another text").await;
    refuse(&mut source, "garbage", "no signature").await;
    let mut gone = directory(6, &[a, b, c], 2);
    gone.expires = NOW;
    refuse(&mut source, &signed(&gone, &[a, b]), "expired").await;
    std::fs::remove_file(station.mirror()).unwrap();
    assert!(source.poll(NOW).await.is_err());

    // It goes on until it expires, and even then nothing older takes its place.
    assert_eq!(version(&source, five.expires - Span::SECOND), Some(5));
    assert_eq!(version(&source, five.expires), None);
    let later = five.expires + Span::DAY;
    station.publish(&signed(&five, &[a, b]));
    assert!(source.poll(later).await.is_err());
    let mut four = directory(4, &[a, b, c], 2);
    four.expires = later + Span::days(9);
    station.publish(&signed(&four, &[a, b]));
    assert!(source.poll(later).await.unwrap_err().to_string().contains("older"));
    let mut six = directory(6, &[a, b, c], 2);
    six.expires = later + Span::days(9);
    station.publish(&signed(&six, &[a, c]));
    assert_eq!(source.poll(later).await.unwrap().unwrap().directory.version, 6);
}

#[tokio::test]
async fn a_council_changes_by_its_own_signatures() {
    let station = Station::new();
    let [a, b, c] = &station.council;
    let [d, e, f] = &["d", "e", "f"].map(|name| Signer::generate(name).unwrap());
    let mut source = station.open();
    // The first version brings a new council in, signed by the configured keys.
    station.publish(&signed(&directory(1, &[d, e, f], 2), &[a, b]));
    assert_eq!(source.poll(NOW).await.unwrap().unwrap().directory.version, 1);
    // From then on the configured keys count for nothing.
    station.publish(&signed(&directory(2, &[a, b, c], 2), &[a, b, c]));
    assert!(source.poll(NOW).await.unwrap_err().to_string().contains("signed by 0 of the 3"));
    source = station.open();
    assert!(source.poll(NOW).await.is_err());
    station.publish(&signed(&directory(2, &[a, b, c], 3), &[d, f]));
    assert_eq!(source.poll(NOW).await.unwrap().unwrap().directory.threshold, 3);
    // Nor does a damaged copy open the door again.
    std::fs::write(station.folder.path().join("last-good"), "garbage").unwrap();
    let options = SourceOptions {
        mirrors: vec![],
        council: keys(&station.council),
        threshold: 2,
        last_good: station.folder.path().join("last-good"),
        extra_roots: None,
    };
    assert!(matches!(Source::open(options, NOW), Err(DirectoryError::LastGood { .. })));
}

/// An HTTPS mirror: whatever path is asked for, `answer` gives status and body. Its port, and the file of its root.
async fn web_mirror(folder: &Path, answer: impl Fn(&str) -> (u16, Vec<u8>) + Send + 'static) -> (u16, PathBuf) {
    let now = OffsetDateTime::now_utc();
    let mut root = Authority::create_root("KG", now).unwrap();
    let mut ca = root.issue_member_ca(&CIVIL.parse().unwrap(), now).unwrap();
    let sans = Sans { dns: vec![], ips: vec!["127.0.0.1".parse().unwrap()] };
    let identity = format!("{CIVIL}/mirror").parse().unwrap();
    let issued = ca.issue(&identity, &sans, Validity::days(now, 1)).unwrap();
    let roots = folder.join("roots.pem");
    std::fs::write(&roots, root.certificate_pem()).unwrap();

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_slice_iter(issued.cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => break,
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, roots)
}

#[tokio::test]
async fn mirrors_over_https() {
    let station = Station::new();
    let [a, b, c] = &station.council;
    let set = b"a descriptor set".to_vec();
    let name = format!("{}.binpb", hex::encode(Sha256::digest(&set)));
    let note = signed(&directory(3, &[a, b, c], 2), &[a, b]);
    let path = format!("/kg/{name}");
    let (port, roots) = web_mirror(station.folder.path(), move |asked| match asked {
        "/kg/directory" => (200, note.clone().into_bytes()),
        "/large" => (200, vec![b'x'; (16 << 20) + 1]),
        asked if asked == path => (200, set.clone()),
        _ => (404, b"no".to_vec()),
    })
    .await;
    let mirror = |path: &str| format!("https://127.0.0.1:{port}{path}").parse::<Mirror>().unwrap();

    // A lagging file mirror beside it does no harm.
    station.publish(&signed(&directory(2, &[a, b, c], 2), &[a, b]));
    let mirrors = vec![Mirror::File(station.mirror()), mirror("/kg/directory")];
    let mut source = station.open_with(mirrors, Some(roots.clone()));
    assert_eq!(source.poll(NOW).await.unwrap().unwrap().directory.version, 3);
    assert_eq!(source.poll(NOW).await.unwrap(), None);
    let sha256 = Sha256::digest(b"a descriptor set").into();
    assert_eq!(source.descriptor_set(&sha256).await.unwrap(), b"a descriptor set");
    assert!(source.descriptor_set(&[0; 32]).await.unwrap_err().to_string().contains("404"));

    for (path, expected) in [("/none", "404"), ("/large", "length limit exceeded")] {
        let mut source = station.open_with(vec![mirror(path)], Some(roots.clone()));
        let error = source.poll(NOW).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should say {expected}");
    }
    // Without that root the mirror is nobody.
    let error = station.open_with(vec![mirror("/kg/directory")], None).poll(NOW).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");

    for bad in ["http://127.0.0.1/directory", "ftp://x", "https://", ""] {
        assert!(bad.parse::<Mirror>().is_err(), "{bad}");
    }
}
