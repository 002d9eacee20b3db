//! What grants and outbound rules allow, and what they never allow.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use kopuro::policy::{
    Allowed, CallerLimits, Consumer, Denial, Grant, Grants, LegalBasis, Methods, Outbound, Providers, Publication,
    Rate, Rule, UnknownPolicy,
};
use kopuro::trust::identity::SystemId;
use proptest::prelude::*;
use tonic::Code;

const CIVIL: &str = "kg.civil.v1.CivilRegistry";

fn system(text: &str) -> SystemId {
    text.parse().unwrap()
}

fn methods(names: &[&str]) -> Methods {
    if names == ["*"] { Methods::All } else { Methods::Named(names.iter().map(|name| (*name).to_owned()).collect()) }
}

fn grant(consumer: &str, names: &[&str], basis: &str) -> Grant {
    Grant {
        consumer: consumer.parse().unwrap(),
        provider: system("KG/GOV/5/civil"),
        service: CIVIL.into(),
        methods: methods(names),
        legal_basis: LegalBasis { code: basis.into(), text: "a law".into() },
        from_unix_ms: None,
        until_unix_ms: None,
        rate: None,
        publication: None,
        allowed: Allowed::Everything,
        unknown: UnknownPolicy::default(),
        name_withheld: false,
    }
}

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
}

/// The tax service calls the civil registry at time 1000.
fn decide<'a>(grants: &'a Grants, method: &str, purpose: Option<&str>) -> Result<&'a Grant, Denial> {
    grants.decide(&system("KG/GOV/6/tax"), &system("KG/GOV/5/civil"), CIVIL, method, purpose, 1_000)
}

#[test]
fn nothing_is_allowed_by_default() {
    assert_eq!(decide(&Grants::default(), "GetPerson", None), Err(Denial::NoGrant));
    let others = Grants::new(vec![grant("KG/GOV/6/customs", &["*"], "a"), grant("KG/GOV/7", &["*"], "a")]);
    assert_eq!(decide(&others, "GetPerson", None), Err(Denial::NoGrant));
}

#[test]
fn a_system_and_its_member_can_be_granted() {
    let by_system = Grants::new(vec![grant("KG/GOV/6/tax", &["GetPerson"], "a")]);
    assert!(decide(&by_system, "GetPerson", None).is_ok());
    assert_eq!(decide(&by_system, "GetFamily", None), Err(Denial::MethodNotGranted));

    let both = Grants::new(vec![grant("KG/GOV/6", &["*"], "a"), grant("KG/GOV/6/tax", &["GetPerson"], "a")]);
    // The system's own grant comes first; what it lacks, the member's gives.
    assert!(matches!(decide(&both, "GetPerson", None).unwrap().consumer, Consumer::System(_)));
    assert!(matches!(decide(&both, "GetFamily", None).unwrap().consumer, Consumer::Member(_)));
}

#[test]
fn a_grant_is_for_one_provider() {
    let grants = Grants::new(vec![grant("KG/GOV/6/tax", &["*"], "a")]);
    let other = grants.decide(&system("KG/GOV/6/tax"), &system("KG/GOV/5/archive"), CIVIL, "GetPerson", None, 1_000);
    assert_eq!(other, Err(Denial::NoGrant));
}

#[test]
fn the_purpose_picks_the_legal_basis() {
    let one = Grants::new(vec![grant("KG/GOV/6/tax", &["*"], "a")]);
    assert_eq!(decide(&one, "GetPerson", None).unwrap().legal_basis.code, "a");
    assert_eq!(decide(&one, "GetPerson", Some("a")).unwrap().legal_basis.code, "a");
    assert_eq!(decide(&one, "GetPerson", Some("b")), Err(Denial::PurposeNotAllowed));

    let two = Grants::new(vec![grant("KG/GOV/6/tax", &["GetPerson"], "b"), grant("KG/GOV/6", &["*"], "a")]);
    let required = Denial::PurposeRequired { possible: vec!["a".into(), "b".into()] };
    assert_eq!(decide(&two, "GetPerson", None), Err(required));
    assert_eq!(decide(&two, "GetPerson", Some("a")).unwrap().legal_basis.code, "a");
    assert_eq!(decide(&two, "GetFamily", None).unwrap().legal_basis.code, "a");
}

#[test]
fn validity_is_from_inclusive_until_exclusive() {
    let mut limited = grant("KG/GOV/6/tax", &["*"], "a");
    limited.from_unix_ms = Some(500);
    limited.until_unix_ms = Some(1_500);
    let grants = Grants::new(vec![limited]);
    let at = |now| {
        let decided = grants.decide(&system("KG/GOV/6/tax"), &system("KG/GOV/5/civil"), CIVIL, "GetPerson", None, now);
        decided.map(|_| ())
    };
    assert_eq!(at(499), Err(Denial::NotYetValid { from_unix_ms: 500 }));
    assert_eq!(at(500), Ok(()));
    assert_eq!(at(1_499), Ok(()));
    assert_eq!(at(1_500), Err(Denial::Expired { until_unix_ms: 1_500 }));
}

#[test]
fn an_expired_basis_is_no_choice() {
    let mut old = grant("KG/GOV/6/tax", &["*"], "old");
    old.until_unix_ms = Some(900);
    let grants = Grants::new(vec![old, grant("KG/GOV/6/tax", &["*"], "new")]);
    assert_eq!(decide(&grants, "GetPerson", None).unwrap().legal_basis.code, "new");
    assert_eq!(decide(&grants, "GetPerson", Some("old")), Err(Denial::Expired { until_unix_ms: 900 }));
}

#[test]
fn a_rate_is_counted_and_survives_a_reload() {
    let mut limited = grant("KG/GOV/6/tax", &["*"], "a");
    limited.rate = Some(rate(1, 3));
    let grants = Grants::new(vec![limited.clone()]);
    for _ in 0..3 {
        assert!(decide(&grants, "GetPerson", None).is_ok());
    }
    let Err(Denial::RateLimited { retry_after }) = decide(&grants, "GetPerson", None) else { panic!("not limited") };
    assert!(retry_after.as_millis() <= 1_000, "{retry_after:?}");

    let reloaded = grants.succeeded_by(vec![grant("KG/GOV/7", &["*"], "a"), limited.clone()]);
    assert!(matches!(decide(&reloaded, "GetPerson", None), Err(Denial::RateLimited { .. })));
    limited.rate = Some(rate(1, 4));
    let changed = reloaded.succeeded_by(vec![limited]);
    assert!(decide(&changed, "GetPerson", None).is_ok());
}

#[test]
fn where_one_grant_is_used_up_another_on_the_same_basis_serves() {
    let mut limited = grant("KG/GOV/6/tax", &["*"], "a");
    limited.rate = Some(rate(1, 1));
    let grants = Grants::new(vec![limited, grant("KG/GOV/6", &["*"], "a")]);
    assert!(decide(&grants, "GetPerson", None).unwrap().rate.is_some());
    assert!(decide(&grants, "GetPerson", None).unwrap().rate.is_none());
}

#[test]
fn reasons_and_codes_are_stable() {
    let all = [
        (Denial::OutboundMissing, "OUTBOUND_NOT_ALLOWED", Code::PermissionDenied),
        (Denial::NoGrant, "GRANT_MISSING", Code::PermissionDenied),
        (Denial::MethodNotGranted, "METHOD_NOT_GRANTED", Code::PermissionDenied),
        (Denial::NotYetValid { from_unix_ms: 0 }, "GRANT_NOT_YET_VALID", Code::PermissionDenied),
        (Denial::Expired { until_unix_ms: 0 }, "GRANT_EXPIRED", Code::PermissionDenied),
        (Denial::PurposeRequired { possible: vec![] }, "PURPOSE_REQUIRED", Code::FailedPrecondition),
        (Denial::PurposeNotAllowed, "PURPOSE_NOT_ALLOWED", Code::FailedPrecondition),
        (
            Denial::PublicationTooOpen { recorded: Publication::Public, granted: Publication::Sealed },
            "PUBLICATION_TOO_OPEN",
            Code::FailedPrecondition,
        ),
        (Denial::RateLimited { retry_after: Default::default() }, "RATE_LIMITED", Code::ResourceExhausted),
    ];
    for (denial, reason, code) in all {
        assert_eq!((denial.reason(), denial.code()), (reason, code));
    }
}

#[test]
fn a_consumer_must_record_as_strictly_as_the_grant() {
    let classes =
        [Publication::Public, Publication::Delayed { days: 1 }, Publication::Delayed { days: 30 }, Publication::Sealed];
    // From the least strict to the strictest.
    for (at, granted) in classes.iter().enumerate() {
        for (recorded_at, recorded) in classes.iter().enumerate() {
            let checked = granted.check_recorded(*recorded);
            assert_eq!(checked.is_ok(), recorded_at >= at, "{recorded} under {granted}");
            assert_eq!(granted.stricter(*recorded), classes[at.max(recorded_at)]);
        }
        assert_eq!(granted.to_string().parse(), Ok(*granted));
    }
    let denied = Denial::PublicationTooOpen { recorded: Publication::Public, granted: classes[2] };
    assert!(denied.to_string().ends_with("must set publication = { delayed_days = 30 }"), "{denied}");
    for wrong in ["", "secret", "delayed", "delayed x", "delayed 1 2", "Sealed"] {
        assert!(wrong.parse::<Publication>().is_err(), "{wrong}");
    }
}

#[test]
fn reflection_sees_what_may_be_called() {
    let mut ended = grant("KG/GOV/6/tax", &["ListChanges"], "a");
    ended.until_unix_ms = Some(10);
    let grants =
        Grants::new(vec![grant("KG/GOV/6/tax", &["GetPerson"], "a"), grant("KG/GOV/6", &["GetFamily"], "b"), ended]);
    let callable = grants.callable_by(&system("KG/GOV/6/tax"), 1_000);
    assert_eq!(callable.into_iter().collect::<Vec<_>>(), [(CIVIL, methods(&["GetFamily", "GetPerson"]))]);
    assert!(grants.callable_by(&system("KG/GOV/8/tax"), 1_000).is_empty());
}

#[test]
fn the_first_outbound_rule_decides() {
    let rule = |providers, service: Option<&str>, names: &[&str], purpose: Option<&str>| Rule {
        system: system("KG/GOV/6/tax"),
        providers,
        service: service.map(Into::into),
        methods: methods(names),
        purpose: purpose.map(Into::into),
        publication: None,
    };
    let outbound = Outbound::new(vec![
        rule(Providers::System(system("KG/GOV/5/civil")), Some(CIVIL), &["GetPerson"], Some("tax-code-52")),
        rule(Providers::Member("KG/GOV/5".parse().unwrap()), None, &["*"], None),
    ]);
    let decide = |caller: &str, provider: &str, service: &str, method: &str| {
        outbound.decide(&system(caller), &system(provider), service, method).map(|rule| rule.purpose.as_deref())
    };
    assert_eq!(decide("KG/GOV/6/tax", "KG/GOV/5/civil", CIVIL, "GetPerson"), Ok(Some("tax-code-52")));
    assert_eq!(decide("KG/GOV/6/tax", "KG/GOV/5/civil", CIVIL, "GetFamily"), Ok(None));
    assert_eq!(decide("KG/GOV/6/tax", "KG/GOV/5/archive", "any.Service", "Get"), Ok(None));
    assert_eq!(decide("KG/GOV/6/tax", "KG/GOV/8/civil", CIVIL, "GetPerson"), Err(Denial::OutboundMissing));
    assert_eq!(decide("KG/GOV/6/web", "KG/GOV/5/civil", CIVIL, "GetPerson"), Err(Denial::OutboundMissing));
    assert_eq!(outbound.callable_by(&system("KG/GOV/6/tax"), &system("KG/GOV/5/civil"), CIVIL), Some(Methods::All));
}

#[test]
fn callers_beyond_the_most_share_one_allowance() {
    let limits = CallerLimits::new(rate(1, 2), 2);
    let caller = |n: usize| system(&format!("KG/GOV/6/s{n}"));
    for n in [0, 1] {
        assert!(limits.check(&caller(n)).is_ok());
        assert!(limits.check(&caller(n)).is_ok());
        assert!(matches!(limits.check(&caller(n)), Err(Denial::RateLimited { .. })));
    }
    assert!(limits.check(&caller(2)).is_ok());
    assert!(limits.check(&caller(3)).is_ok());
    assert!(limits.check(&caller(4)).is_err());
    limits.retain(|known| *known != caller(0));
    assert!(limits.check(&caller(4)).is_ok());
}

// A decision is what a reader of the grants, one after the other, would come to.

fn some_grant() -> impl Strategy<Value = Grant> {
    let consumer = prop::sample::select(vec!["KG/GOV/1", "KG/GOV/2", "KG/GOV/1/a", "KG/GOV/1/b", "KG/GOV/2/a"]);
    let names = prop::sample::subsequence(vec!["X", "Y", "Z"], 0..=3);
    let bound = || prop::option::of(0..6i64);
    let provider = prop::sample::select(vec!["KG/GOV/5/p", "KG/GOV/5/q"]);
    let service = prop::sample::select(vec!["s.S", "s.T"]);
    (consumer, provider, service, names, any::<bool>(), "[abc]", bound(), bound()).prop_map(
        |(consumer, provider, service, names, all, basis, from_unix_ms, until_unix_ms)| Grant {
            provider: system(provider),
            service: service.into(),
            methods: if all {
                Methods::All
            } else {
                Methods::Named(names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>())
            },
            from_unix_ms,
            until_unix_ms,
            ..grant(consumer, &["*"], &basis)
        },
    )
}

fn naive<'a>(
    grants: &'a [Grant],
    (consumer, provider, service, method, purpose, now): (&SystemId, &SystemId, &str, &str, Option<&str>, i64),
) -> Result<BTreeSet<&'a str>, ()> {
    let allowing = grants.iter().filter(|grant| {
        let consumer_fits = match &grant.consumer {
            Consumer::System(granted) => granted == consumer,
            Consumer::Member(granted) => granted == consumer.member(),
        };
        let method_fits = match &grant.methods {
            Methods::All => true,
            Methods::Named(names) => names.contains(method),
        };
        consumer_fits
            && grant.provider == *provider
            && grant.service == service
            && method_fits
            && grant.from_unix_ms.unwrap_or(i64::MIN) <= now
            && now < grant.until_unix_ms.unwrap_or(i64::MAX)
            && purpose.is_none_or(|purpose| grant.legal_basis.code == purpose)
    });
    let bases: BTreeSet<&str> = allowing.map(|grant| grant.legal_basis.code.as_str()).collect();
    if bases.len() == 1 { Ok(bases) } else { Err(()) }
}

proptest! {
    #[test]
    fn decisions_agree_with_a_naive_reader(
        grants in prop::collection::vec(some_grant(), 0..12),
        consumer in prop::sample::select(vec!["KG/GOV/1/a", "KG/GOV/1/b", "KG/GOV/2/a", "KG/GOV/3/a"]),
        provider in prop::sample::select(vec!["KG/GOV/5/p", "KG/GOV/5/q"]),
        service in prop::sample::select(vec!["s.S", "s.T", "s.U"]),
        method in prop::sample::select(vec!["X", "Y", "Z", "W"]),
        purpose in prop::option::of("[abcd]"),
        now in -1..7i64,
    ) {
        let (consumer, provider) = (system(consumer), system(provider));
        let call = (&consumer, &provider, service, method, purpose.as_deref(), now);
        let held = Grants::new(grants.clone());
        let decided = held.decide(&consumer, &provider, service, method, purpose.as_deref(), now);
        match (naive(&grants, call), decided) {
            (Ok(bases), Ok(grant)) => {
                prop_assert!(bases.contains(grant.legal_basis.code.as_str()));
                prop_assert!(grants.contains(grant) && grant.is_valid_at(now) && grant.consumer.covers(&consumer));
            }
            (Err(()), Err(_)) => {}
            (expected, decided) => prop_assert!(false, "{expected:?} and {decided:?}"),
        }
    }
}
