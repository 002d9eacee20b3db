use super::*;

const TAX: &str = "KG/GOV/1/tax";
const CIVIL: &str = "KG/GOV/2/civil";

/// Log 0 is the consumer's, log 1 the provider's, log 2 somebody else's.
fn bench(now_ms: i64) -> Bench {
    let members: Vec<_> = ["KG/GOV/1", "KG/GOV/2", "KG/GOV/3"].map(|member| Some(member.to_owned())).into();
    Bench {
        followed: members.iter().flatten().cloned().collect(),
        members,
        all_known: true,
        hidden: HashMap::new(),
        now_ms,
        grace_ms: 100,
    }
}

fn fact(log: u32, index: u64, kind: Kind, outcome: Outcome) -> Fact {
    Fact {
        log,
        index,
        shown_ms: 1_000,
        kind: kind.into(),
        outcome: outcome.into(),
        consumer: TAX.into(),
        provider: CIVIL.into(),
        service: "kg.civil.v1.CivilRegistry".into(),
        method: "GetPerson".into(),
        ..Fact::default()
    }
}

fn asked(ending: Option<Outcome>) -> Vec<Fact> {
    let opening = fact(0, 0, Kind::RequestSent, Outcome::Unspecified);
    let closing = ending.map(|outcome| match outcome {
        Outcome::Failed => fact(0, 1, Kind::Failed, outcome),
        outcome => fact(0, 1, Kind::ResponseReceived, outcome),
    });
    [opening].into_iter().chain(closing).collect()
}

fn answered(ending: Option<Outcome>) -> Vec<Fact> {
    let opening = fact(1, 0, Kind::RequestReceived, Outcome::Unspecified);
    [opening].into_iter().chain(ending.map(|outcome| fact(1, 1, Kind::ResponseSent, outcome))).collect()
}

fn refused(log: u32, side: Side) -> Fact {
    Fact { side: side.into(), ..fact(log, 5, Kind::Refused, Outcome::Refused) }
}

/// Long after the grace period.
fn found(facts: &[Fact]) -> Option<Problem> {
    match judge(facts, &bench(10_000)) {
        Verdict::Found(problem, _) => Some(problem),
        _ => None,
    }
}

#[test]
fn both_sides_must_tell_the_same() {
    let both = |here, there| [asked(here), answered(there)].concat();
    let (ok, error, failed) = (Some(Outcome::Ok), Some(Outcome::Error), Some(Outcome::Failed));
    for (facts, problem) in [
        (both(ok, ok), None),
        (both(error, error), None),
        // A caller that hangs up as the answer is on its way.
        (both(failed, ok), None),
        (both(ok, error), Some(Problem::DifferentEnd)),
        (both(ok, failed), Some(Problem::DifferentEnd)),
        (both(ok, None), Some(Problem::OpenAtProvider)),
        (both(None, ok), Some(Problem::OpenAtConsumer)),
        (both(None, None), None),
        (asked(ok), Some(Problem::MissingAtProvider)),
        (asked(failed), None),
        (asked(None), None),
        (answered(ok), Some(Problem::MissingAtConsumer)),
        (answered(None), Some(Problem::MissingAtConsumer)),
        (vec![refused(0, Side::Consumer)], None),
        (vec![refused(1, Side::Provider)], Some(Problem::MissingAtConsumer)),
        ([vec![refused(0, Side::Consumer)], answered(ok)].concat(), Some(Problem::RefusedAndSent)),
        ([both(ok, ok), vec![fact(1, 7, Kind::ResponseSent, Outcome::Ok)]].concat(), Some(Problem::Repeated)),
        (
            [asked(ok), vec![fact(2, 7, Kind::RequestReceived, Outcome::Unspecified)]].concat(),
            Some(Problem::ForeignLog),
        ),
    ] {
        assert_eq!(found(&facts), problem, "{facts:?}");
    }
}

#[test]
fn refusals_by_the_provider_are_in_both_logs() {
    let mut told_back = asked(Some(Outcome::Refused));
    told_back[1].side = Side::Provider.into();
    assert_eq!(found(&told_back), Some(Problem::MissingAtProvider));
    let both = [told_back, vec![refused(1, Side::Provider)]].concat();
    assert_eq!(judge(&both, &bench(0)), Verdict::Agreed);
}

#[test]
fn other_words_for_one_exchange() {
    let both = [asked(Some(Outcome::Ok)), answered(Some(Outcome::Ok))].concat();
    let mut other_method = both.clone();
    other_method[2].method = "GetFamily".into();
    other_method[3].method = "GetFamily".into();
    assert_eq!(found(&other_method), Some(Problem::DifferentSubject));
    let mut other_status = both.clone();
    other_status[3].grpc_status = 5;
    assert_eq!(found(&other_status), Some(Problem::DifferentEnd));
    let mut other_basis = both;
    other_basis[1].legal_basis = "tax-code-118".into();
    assert_eq!(found(&other_basis), None, "a basis that one side does not name");
    other_basis[3].legal_basis = "tax-code-119".into();
    assert_eq!(found(&other_basis), Some(Problem::DifferentEnd));
}

#[test]
fn a_side_has_its_grace_and_a_log_that_is_not_followed_is_not_asked() {
    let facts = answered(Some(Outcome::Ok));
    assert_eq!(judge(&facts, &bench(1_099)), Verdict::Waiting(Some(1_100)));
    assert!(matches!(judge(&facts, &bench(1_100)), Verdict::Found(Problem::MissingAtConsumer, _)));
    let mut alone = bench(10_000);
    alone.followed.remove("KG/GOV/1");
    assert_eq!(judge(&facts, &alone), Verdict::Unchecked);
    alone.all_known = false;
    assert_eq!(judge(&facts, &alone), Verdict::Waiting(Some(10_100)), "one not reached yet may be the consumer's");
    assert_eq!(judge(&asked(Some(Outcome::Failed)), &bench(0)), Verdict::NeverArrived);
}

#[test]
fn within_one_member_there_is_nothing_to_compare() {
    let own = |index, kind, outcome| Fact { provider: "KG/GOV/1/registry".into(), ..fact(0, index, kind, outcome) };
    let facts = [
        own(0, Kind::RequestSent, Outcome::Unspecified),
        own(1, Kind::RequestReceived, Outcome::Unspecified),
        own(2, Kind::ResponseSent, Outcome::Ok),
        own(3, Kind::ResponseReceived, Outcome::Ok),
    ];
    assert_eq!(judge(&facts, &bench(10_000)), Verdict::Agreed);
    assert_eq!(judge(&facts[..2], &bench(10_000)), Verdict::Waiting(None));
}

#[test]
fn what_the_other_log_may_hide_is_not_said_to_be_missing() {
    let mut bench = bench(10_000);
    // About minute 1,000 the consumer's log has hidden entries, and none later.
    bench.hidden.insert("KG/GOV/1".into(), vec![(200, 300), (1_050, 1_090)]);
    let answered = |made_ms| -> Vec<Fact> {
        answered(Some(Outcome::Ok)).into_iter().map(|fact| Fact { made_ms, ..fact }).collect()
    };
    for (made_ms, hidden) in
        [(99, false), (100, true), (400, true), (401, false), (949, false), (950, true), (1_191, false)]
    {
        let verdict = judge(&answered(made_ms), &bench);
        assert_eq!(verdict == Verdict::Hidden, hidden, "{made_ms}: {verdict:?}");
        assert_eq!(matches!(verdict, Verdict::Found(Problem::MissingAtConsumer, _)), !hidden, "{made_ms}");
    }
    // The consumer has its grace first; what it shows is compared as ever; the provider's log hides nothing.
    assert_eq!(judge(&answered(1_000), &Bench { now_ms: 1_000, ..bench.clone() }), Verdict::Waiting(Some(1_100)));
    let differs = judge(&[asked(Some(Outcome::Error)), answered(1_000)].concat(), &bench);
    assert!(matches!(differs, Verdict::Found(Problem::DifferentEnd, _)));
    assert_eq!(found(&asked(Some(Outcome::Ok))), Some(Problem::MissingAtProvider));
    bench.hidden.insert("KG/GOV/2".into(), vec![(900, i64::MAX)]);
    let mut refused = asked(Some(Outcome::Refused));
    refused[1].side = Side::Provider.into();
    assert_eq!(judge(&refused, &bench), Verdict::Hidden, "the provider's refusal");
}
