//! An operator's likeliest mistakes, each with what `kopuro doctor` says of it: what is wrong, where, and what to do.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use kopuro::cli::demo::federation::{Federation, kyrgyz_republic};
use kopuro::trust::identity::Identity;
use kopuro::trust::pki::{Authority, Sans, Validity};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// The registry's files, to be spoilt.
struct Site {
    _temporary: tempfile::TempDir,
    federation: Federation,
    registry: PathBuf,
    toml: String,
}

impl Site {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let federation = Federation::create(&temporary.path().join("demo"), &kyrgyz_republic().unwrap()).unwrap();
        let registry = federation.members[0].folder.clone();
        let toml = std::fs::read_to_string(registry.join("node.toml")).unwrap();
        Self { _temporary: temporary, federation, registry, toml }
    }

    /// What doctor says of this configuration, and whether it found something bad.
    fn doctor(&self, toml: &str) -> (String, bool) {
        let path = self.registry.join("spoilt.toml");
        std::fs::write(&path, toml).unwrap();
        doctor(&path)
    }

    /// Doctor must say these words of one thing, and that it is bad.
    fn says(&self, toml: &str, words: &[&str]) {
        let (told, bad) = self.doctor(toml);
        assert!(bad, "{words:?}\n{told}");
        let found =
            format!("\n{told}").split("\nBAD").skip(1).any(|finding| words.iter().all(|word| finding.contains(word)));
        assert!(found, "{words:?}\n{told}");
    }

    fn replaced(&self, from: &str, to: &str) -> String {
        assert!(self.toml.contains(from), "{from} in {}", self.toml);
        self.toml.replace(from, to)
    }
}

fn doctor(path: &Path) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_kopuro")).args(["doctor", "--config"]).arg(path).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{stdout}\n{stderr}");
    (stdout, output.status.code() == Some(1))
}

#[test]
fn a_port_that_is_taken() {
    let site = Site::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let own = site.federation.members[0].systems_address;
    let toml = site.replaced(&own.to_string(), &format!("127.0.0.1:{port}"));
    site.says(
        &toml,
        &["listen.systems", "Address already in use", "another process has it", &format!("sport = :{port}")],
    );
}

#[test]
fn a_key_that_is_another_certificates() {
    let site = Site::new();
    let toml = site.replaced("key = \"node.key\"", "key = \"systems/civil-registry.key\"");
    site.says(&toml, &["spoilt.toml:", "tls.key", "does not belong"]);
}

#[test]
fn a_log_key_that_the_directory_does_not_have() {
    let site = Site::new();
    let toml = site.replaced("key = \"log.key\"", "key = \"../tax/log.key\"");
    site.says(&toml, &["log.key", "its public key is", "use the key that belongs to the listed one"]);
}

#[test]
fn a_clock_that_is_off_by_an_hour() {
    let site = Site::new();
    // A witness whose clock is right, for a machine whose clock is not: which of the two is off does not matter here.
    let witness = site.federation.witness.address;
    let listener = TcpListener::bind(witness).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let date = (OffsetDateTime::now_utc() + time::Duration::hours(1)).format(&Rfc2822).unwrap();
            let date = date.replace("+0000", "GMT");
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    site.says(&site.toml, &["clock", "s behind of", "have this machine follow NTP"]);
}

#[test]
fn a_certificate_that_has_expired() {
    let site = Site::new();
    let mut ca = Authority::load(&site.registry.join("ca")).unwrap();
    let now = OffsetDateTime::now_utc();
    let identity: Identity = "KG/GOV/70000001/_node/main".parse().unwrap();
    let validity = Validity { not_before: now - time::Duration::days(9), not_after: now - time::Duration::days(2) };
    let issued = ca.issue(&identity, &Sans::default(), validity).unwrap();
    std::fs::write(site.registry.join("old.pem"), issued.cert_pem).unwrap();
    std::fs::write(site.registry.join("old.key"), issued.key_pem.as_bytes()).unwrap();
    let toml =
        site.replaced("certificate = \"node.pem\"\nkey = \"node.key\"", "certificate = \"old.pem\"\nkey = \"old.key\"");
    site.says(&toml, &["tls.certificate", "expired", "spoilt.toml:"]);
}

#[test]
fn a_disk_that_is_full() {
    let site = Site::new();
    let toml = site.replaced("refuse_free = \"64MiB\"", "refuse_free = \"900TiB\"");
    let toml = toml.replace("warn_free = \"256MiB\"", "warn_free = \"901TiB\"");
    site.says(&toml, &["disk", "the log takes no entries and no exchange passes", "free space, set [retention]"]);
}

#[test]
fn a_file_that_cannot_be_read() {
    let site = Site::new();
    let toml = site.replaced("roots = [\"../root.pem\"]", "roots = [\"../missing.pem\"]");
    site.says(&toml, &["tls.roots", "missing.pem", "spoilt.toml:"]);
    // A folder in the place of a file reads as badly for root as for anybody.
    std::fs::create_dir(site.registry.join("folder.pem")).unwrap();
    let toml = site.replaced("certificate = \"node.pem\"", "certificate = \"folder.pem\"");
    site.says(&toml, &["tls.certificate", "folder.pem"]);
}

#[test]
fn a_member_that_nobody_knows() {
    let site = Site::new();
    let toml = site.replaced("member = \"KG/GOV/70000001\"", "member = \"KG/GOV/70000099\"");
    site.says(&toml, &["70000099", "tls.certificate"]);
    let grant = site.registry.join("grants/typo.toml");
    let text = "[[grant]]\nconsumer = \"KG/GOV/70000042/tax\"\nprovider = \"civil-registry\"\nservice = \"kg.civil.v1.CivilRegistry\"\n\
                methods = [\"GetPerson\"]\nlegal_basis = { code = \"NK-54-2\", text = \"x\" }\n";
    std::fs::write(&grant, text).unwrap();
    let (told, _) = site.doctor(&site.toml);
    let line = told.lines().find(|line| line.contains("typo.toml:2:")).unwrap_or_else(|| panic!("{told}"));
    assert!(
        line.starts_with("WARN") && line.contains("the directory does not list the system KG/GOV/70000042/tax"),
        "{line}"
    );
}

#[test]
fn an_endpoint_where_somebody_else_answers() {
    let mut site = Site::new();
    // The tax service's node is said to be where nothing of the kind is.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in other.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    site.federation
        .publish(|directory| {
            directory.version += 1;
            directory.nodes[1].endpoint = address.clone();
        })
        .unwrap();
    site.says(&site.toml, &["peer KG/GOV/70000002/_node/main", &address, "ask that ministry's operator"]);
    // And a back-end that is not there.
    let backend = site.federation.members[0].systems[0].backend_address;
    site.says(
        &site.toml,
        &[
            "back-end KG/GOV/70000001/civil-registry",
            &backend.to_string(),
            "Connection refused",
            "correct its endpoint",
        ],
    );
}

#[test]
fn a_directory_that_has_gone_stale() {
    let mut site = Site::new();
    site.federation
        .publish(|directory| {
            directory.version += 1;
            directory.expires = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + time::Duration::hours(5);
        })
        .unwrap();
    site.says(&site.toml, &["directory: version 2 ends in ", "have the council sign the next version"]);
    site.federation
        .publish(|directory| {
            directory.version += 1;
            directory.expires = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() - time::Duration::hours(5);
        })
        .unwrap();
    site.says(&site.toml, &["directory.mirrors", "expired"]);
}

#[test]
fn a_witness_that_is_down() {
    let site = Site::new();
    site.says(&site.toml, &["witness public-council", "Connection refused", "ask who runs it"]);
    site.says(&site.toml, &["those that answer are no quorum", "nothing is published until they are"]);
}
