//! What ends is told in time: in the node's own log, in its health, by `kopuro status`, `doctor` and `--check`.

use std::process::Command;

use kopuro::trust::pki::{Sans, Validity};
use time::{Duration, OffsetDateTime};

use crate::harness::process::Process;
use crate::harness::{CONSUMER, Federation, PROVIDER, admin, eventually, write_whole};

/// A node's certificate of 90 days that ends after `left`.
fn certify(federation: &mut Federation, left: Duration) {
    let until = OffsetDateTime::now_utc() + left;
    let validity = Validity { not_before: until - Duration::days(90), not_after: until };
    let ca = federation.cas.get_mut(PROVIDER).unwrap();
    let node = ca.issue(&format!("{PROVIDER}/_node/main").parse().unwrap(), &Sans::default(), validity).unwrap();
    write_whole(&federation.member_path(PROVIDER, "node.key"), node.key_pem.as_bytes());
    write_whole(&federation.member_path(PROVIDER, "node.pem"), node.cert_pem.as_bytes());
}

/// Lines in which the node says when its certificate ends.
fn told(node: &Process) -> Vec<String> {
    let is_told = |line: &&str| line.contains("the certificate ") && line.contains("/node.pem ends in ");
    node.said().lines().filter(is_told).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_soon_is_told_until_it_is_renewed() {
    let mut federation = Federation::new();
    federation.write_files("");
    certify(&mut federation, Duration::days(5) - Duration::HOUR);
    let node = Process::start(&federation, PROVIDER).await;

    let lines = eventually("the node tells", async || Some(told(&node)).filter(|lines| !lines.is_empty())).await;
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    let certificate = federation.member_path(PROVIDER, "node.pem");
    let key = federation.member_path(PROVIDER, "node.key");
    let renew = format!("kopuro pki renew --ca FOLDER --certificate {} --key {}", certificate.display(), key.display());
    for words in ["WARN", "ends in 4 days, at 20", &renew] {
        assert!(line.contains(words), "{words} in {line}");
    }
    let (ready, health) = admin(node.admin, "/readyz").await.unwrap();
    assert!(ready == 200 && health.contains("\nexpiry: the certificate "), "{health}");

    let command = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kopuro"));
        let output =
            command.args([name, "--config"]).arg(federation.member_path(PROVIDER, "node.toml")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let status = command("status");
    assert!(status.contains("! expiry: the certificate ") && status.contains("certificate  4 days left"), "{status}");
    assert!(status.contains("revocation   the first list: "), "{status}");
    let doctor = command("doctor");
    assert!(doctor.contains("WARN  certificate: ") && doctor.contains("good  root certificate: O=KG"), "{doctor}");

    // Renewed, it is no matter any more; a last day is an error.
    certify(&mut federation, Duration::days(80));
    eventually("all is well", async || {
        let (_, health) = admin(node.admin, "/readyz").await.ok()?;
        (!health.contains("\nexpiry: ")).then_some(())
    })
    .await;
    certify(&mut federation, Duration::hours(20) - Duration::MINUTE);
    let lines = eventually("the node tells", async || Some(told(&node)).filter(|lines| lines.len() > 1)).await;
    assert!(lines.len() == 2 && lines[1].contains("ERROR") && lines[1].contains("ends in 19 hours"), "{lines:#?}");
    node.stop().await;
}

/// What the metrics say of a node's revocation lists is the first end.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_revocation_list_to_end_is_a_metric() {
    let mut federation = Federation::new();
    federation.write_files("");
    let until = OffsetDateTime::now_utc() + Duration::hours(7);
    federation.write_crl(CONSUMER, until);
    let node = federation.start_node(PROVIDER).await;
    let (_, metrics) = admin(node.admin_addr(), "/metrics").await.unwrap();
    let line = metrics.lines().find(|line| {
        line.starts_with("kopuro_expiry_timestamp_seconds") && line.contains(PROVIDER) && line.contains("crl")
    });
    let line = line.unwrap_or_else(|| panic!("{metrics}"));
    assert!(line.ends_with(&format!(" {}", until.unix_timestamp())), "{line}");
    node.stop().await;
}
