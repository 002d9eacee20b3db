use proptest::prelude::*;

use super::*;
use crate::trust::note::{Cosigner, Signer};

fn cosigners(count: usize) -> Vec<Cosigner> {
    (0..count).map(|number| Cosigner::generate(&format!("w{number}.example")).unwrap()).collect()
}

fn lines(cosigners: &[Cosigner]) -> String {
    let line = |(number, cosigner): (usize, &Cosigner)| format!("witness W{number} {}\n", cosigner.verifier());
    cosigners.iter().enumerate().map(line).collect()
}

fn parse(text: &str) -> Result<WitnessPolicy, PolicyError> {
    WitnessPolicy::parse(text.as_bytes())
}

#[test]
fn the_specifications_example() {
    let (log, all) = (Signer::generate("kg.example/log").unwrap(), cosigners(6));
    let mut text = format!("# two organisations\n\n  log\t{} https://kg.example/log \n", log.verifier());
    text.push_str(&lines(&all));
    text.push_str(
        "group X 2 W0 W1 W2\n\t# one of these\ngroup Y any W3 W4 W5\ngroup X-and-Y all X Y\nquorum X-and-Y\n",
    );
    let policy = parse(&text).unwrap();
    assert_eq!(policy.logs()[0], KnownLog { key: log.verifier(), url: Some("https://kg.example/log".into()) });
    assert_eq!(policy.witnesses().len(), 6);
    for (cosigned, enough) in [
        (&[0, 1, 3][..], true),
        (&[0, 2, 5], true),
        (&[0, 1, 2, 3, 4, 5], true),
        (&[0, 1], false),
        (&[0, 3, 4, 5], false),
        (&[], false),
    ] {
        assert_eq!(policy.is_quorum(|index| cosigned.contains(&index)), enough, "{cosigned:?}");
    }

    // The same by notes: unknown keys are ignored, a bad cosignature of a known witness is not.
    let text = "kg.example/log\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let mut note = Note::parse(&log.sign(text).unwrap()).unwrap();
    note.add(Cosigner::generate("w0.example").unwrap().cosign(text, 5).unwrap()).unwrap();
    for (number, time) in [(1, 7), (5, 6), (2, 8)] {
        assert!(!policy.judge(&note).unwrap().quorum);
        assert!(policy.require(&note).unwrap_err().to_string().contains("quorum is not met: cosigned by "));
        note.add(all[number].cosign(text, time).unwrap()).unwrap();
    }
    let cosigned = policy.require(&note).unwrap();
    let by: Vec<_> = cosigned.by.iter().map(|(witness, time)| (witness.name.to_string(), *time)).collect();
    assert_eq!(
        (by.as_slice(), cosigned.quorum),
        (&[("W1", 7), ("W2", 8), ("W5", 6)].map(|(n, t)| (n.into(), t))[..], true)
    );
    note.add(all[4].cosign("kg.example/log\n2\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n", 9).unwrap()).unwrap();
    assert_eq!(policy.judge(&note), Err(NoteError::BadSignature("w4.example".into())));
}

#[test]
fn refuses_and_says_where() {
    let (log, all) = (Signer::generate("kg.example/log").unwrap().verifier(), cosigners(3));
    let head = lines(&all);
    let (w0, renamed) = (all[0].verifier(), {
        let secret = all[0].to_encoded();
        let data = secret.splitn(5, '+').nth(4).unwrap();
        // The same key under another name; its id follows from both.
        let wrong = format!("PRIVATE+KEY+other+00000000+{data}");
        let NoteError::KeyId { computed, .. } = Cosigner::from_encoded(&wrong).unwrap_err() else { panic!() };
        Cosigner::from_encoded(&wrong.replace("00000000", &computed)).unwrap().verifier()
    });
    for (rest, line, says) in [
        ("quorum W9\n", 4, "no witness or group W9"),
        ("quorum W1", 4, "cut short"),
        ("group g 1 W0\n", 4, "no quorum line"),
        ("quorum W1\nquorum none\n", 5, "second quorum"),
        ("quorum\n", 4, "expected quorum NAME"),
        ("group g 4 W0 W1 W2\n", 4, "\"4\" is no threshold"),
        ("group g 0 W0\n", 4, "\"0\" is no threshold"),
        ("group g 01 W0\n", 4, "is no threshold"),
        ("group g +1 W0\n", 4, "is no threshold"),
        ("group g some W0\n", 4, "is no threshold"),
        ("group g 99999999999999999999 W0\n", 4, "is no threshold"),
        ("group g all\n", 4, "expected group NAME"),
        ("group g\n", 4, "expected group NAME"),
        ("group W1 1 W0\n", 4, "the name W1 is taken"),
        ("group none 1 W0\n", 4, "the name none is taken"),
        ("group g 1 none\n", 4, "no witness or group none"),
        ("group g 1 g\n", 4, "no witness or group g"),
        ("group g 1 W0 W0\n", 4, "W0 is already a member"),
        ("group g 1 W0\ngroup h 1 W0\n", 5, "W0 is already a member"),
        (&format!("witness x {renamed}\n"), 4, "public key is listed before"),
        (&format!("witness W0 {}\n", Cosigner::generate("n").unwrap().verifier()), 4, "the name W0 is taken"),
        (&format!("witness x {log}\n"), 4, "type 01 where a witness's"),
        (&format!("log {w0}\n"), 4, "where a log's"),
        (&format!("log {log}\nlog {log}\n"), 5, "public key is listed before"),
        (&format!("log {log} ftp://x\n"), 4, "is not a URL"),
        (&format!("log {log} https://\n"), 4, "is not a URL"),
        (&format!("log {log} https://a b\n"), 4, "expected log VKEY"),
        ("witness x\n", 4, "expected witness NAME"),
        ("witness x a+b+c\n", 4, "not a verifier key"),
        ("witness x w+00000000+BgAA\n", 4, "key type 0x06 is not known"),
        ("quorom W1\n", 4, "\"quorom\" is none of"),
        ("# a\rb\n", 4, "control character"),
        ("quorum W1\x7f\n", 4, "control character"),
    ] {
        let error = parse(&format!("{head}{rest}")).unwrap_err();
        assert_eq!(error.line, line, "{rest:?}: {error}");
        assert!(error.to_string().contains(says), "{rest:?}: {error}");
    }
    assert_eq!(parse("").unwrap_err().problem, PolicyProblem::NoQuorum);
    assert_eq!(WitnessPolicy::parse(&vec![b'#'; MAX_BYTES + 1]).unwrap_err().problem, PolicyProblem::TooLong);
    assert!(parse("quorum none\n").unwrap().is_quorum_none());
}

#[test]
fn sizes_are_bounded() {
    let all = cosigners(MAX_EACH + 1);
    let one_too_many = lines(&all);
    assert_eq!(parse(&one_too_many).unwrap_err().problem, PolicyProblem::TooMany("witnesses"));
    let mut text = lines(&all[..MAX_EACH]);
    // The deepest nesting there can be.
    text.push_str("group g0 1 W0\n");
    for number in 1..MAX_EACH {
        text.push_str(&format!("group g{number} 2 g{} W{number}\n", number - 1));
    }
    let policy = parse(&format!("{text}quorum g{}\n", MAX_EACH - 1)).unwrap();
    assert!(policy.is_quorum(|_| true));
    assert!(!policy.is_quorum(|index| index != 100));
    text.push_str("group more 1 g255\nquorum more\n");
    assert_eq!(parse(&text).unwrap_err().problem, PolicyProblem::TooMany("groups"));
}

#[test]
fn names_are_bytes() {
    let (key, other) = (cosigners(1)[0].verifier(), Cosigner::generate("v").unwrap().verifier());
    // ASCII K and the Kelvin sign, and a name that is no UTF-8.
    let policy = |name: &[u8]| {
        let mut text = format!("witness K {key}\nwitness ").into_bytes();
        text.extend_from_slice(name);
        text.extend_from_slice(format!(" {other}\nquorum ").as_bytes());
        text.extend_from_slice(name);
        text.push(b'\n');
        WitnessPolicy::parse(&text)
    };
    for name in ["\u{212a}".as_bytes(), b"\xff\xfe"] {
        let policy = policy(name).unwrap();
        assert!(policy.is_quorum(|index| index == 1) && !policy.is_quorum(|index| index == 0));
    }
    assert!(policy(b"K").is_err());
}

proptest! {
    #[test]
    fn whatever_is_read_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = WitnessPolicy::parse(&bytes);
    }

    #[test]
    fn words_in_any_order_do_not_panic(words in "((log|witness|group|quorum|none|all|any|W0|g|1|#)[ \n\t]){0,40}") {
        let _ = parse(&words);
    }

    #[test]
    fn a_flat_threshold_counts(k in 1usize..=7, cosigned in any::<[bool; 7]>()) {
        use std::sync::LazyLock;
        static LINES: LazyLock<String> = LazyLock::new(|| lines(&cosigners(7)));
        let policy = parse(&format!("{}group g {k} W0 W1 W2 W3 W4 W5 W6\nquorum g\n", *LINES)).unwrap();
        prop_assert_eq!(policy.is_quorum(|index| cosigned[index]), cosigned.iter().filter(|yes| **yes).count() >= k);
    }
}
