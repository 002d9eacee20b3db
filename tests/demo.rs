//! The demo, as a stranger runs it: once, with every log verified; and staying up, with the three commands that it
//! tells people to paste.

use std::process::Command;

use crate::harness::demo::StandingDemo;

const KOPURO: &str = env!("CARGO_BIN_EXE_kopuro");

#[test]
fn once_makes_exchanges_and_verifies_every_log() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(KOPURO)
        .args(["demo", "--once", "--exchanges", "250", "--dir"])
        .arg(folder.path().join("demo"))
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((last["exchanges"].as_u64(), last["verified"].as_bool()), (Some(250), Some(true)), "{last}");
    assert_eq!(last["surprises"], 0, "{stderr}");
    for what in ["withheld_fields", "purpose_refused", "malformed_refused", "unknown_field", "json_calls"] {
        assert!(last[what].as_u64().unwrap() > 0, "{what} in {last}");
    }
    assert!(last["refused"].as_u64().unwrap() > 0 && last["errors"].as_u64().unwrap() > 0, "{last}");
    // The public's own view: each log as a static publication, and a monitor that found both sides to tell the same.
    assert!(last["monitored"].as_u64().unwrap() > 150, "{last}");
    for code in ["70000001", "70000002", "70000003", "70000004"] {
        let published = folder.path().join("demo/published").join(code);
        for file in ["checkpoint", "vkey", "tile/0", "tile/entries", "grants.json"] {
            assert!(published.join(file).exists(), "{code}/{file}");
        }
        let note = std::fs::read_to_string(published.join("checkpoint")).unwrap();
        assert!(note.contains("\n— witness.public-council.kg.example "), "{note}");
    }
    // And the portal of all four, which tells nothing of this machine.
    let portal = folder.path().join("demo/published/portal");
    assert!(portal.join("index.html").exists() && portal.join("app.js").exists());
    for file in ["portal.json", "report.json"] {
        let text = std::fs::read_to_string(portal.join(file)).unwrap();
        assert!(text.contains("../70000001/") && !text.contains(folder.path().to_str().unwrap()), "{text}");
        assert!(!text.contains("127.0.0.1"), "{text}");
    }
    // Almost every exchange leaves two entries in each of two logs.
    assert!(last["entries"].as_u64().unwrap() > 800, "{last}");
    for reason in ["GRANT_EXPIRED", "GRANT_MISSING", "METHOD_NOT_GRANTED", "OUTBOUND_NOT_ALLOWED"] {
        assert!(stdout.contains(reason), "{reason} in {stdout}");
    }
}

#[test]
fn a_folder_with_something_in_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "precious").unwrap();
    let output = Command::new(KOPURO).args(["demo", "--once", "--dir"]).arg(folder.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_commands_it_shows_work_while_it_runs_and_ctrl_c_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let demo = StandingDemo::start(&folder.path().join("demo"), 60);

    let text = demo.text.clone();
    let commands: Vec<String> = commands(&text);
    assert_eq!(commands.len(), 4, "{text}");
    for (command, expected) in commands.iter().zip(["\"surname\"", "refused", "verified", "verified"]) {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}\n{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(stdout.to_lowercase().contains(expected), "{command}\n{stdout}");
    }

    demo.interrupt();
}

/// Lines indented by two begin a command; a backslash continues it.
fn commands(text: &str) -> Vec<String> {
    let text = text.split_once("Try,").unwrap().1.replace("\\\n", " ");
    text.lines().filter_map(|line| line.strip_prefix("  ").map(str::to_owned)).collect()
}
