use super::*;

fn at(ms: u64) -> Duration {
    Duration::from_secs(1000) + Duration::from_millis(ms)
}

fn from(text: &str) -> Caller<'static> {
    Caller::Address(text.parse().unwrap())
}

#[test]
fn the_hundred_and_first_in_a_minute_is_refused() {
    let (limiter, rate) = (Limiter::default(), Rate::per_minute(100));
    for n in 0..100 {
        let standing = limiter.take(rate, from("192.0.2.1"), at(n * 590)).unwrap();
        assert_eq!(u64::from(standing.remaining), 99 - n);
    }
    let refused = limiter.take(rate, from("192.0.2.1"), at(59_500));
    let after = refused.unwrap_err().after;
    // Then when it says so, and not sooner.
    let soon = at(59_500) + after - Duration::from_millis(20);
    assert!(limiter.take(rate, from("192.0.2.1"), soon).is_err());
    let then = at(59_500) + after + Duration::from_millis(20);
    assert!(limiter.take(rate, from("192.0.2.1"), then).is_ok());
    assert!(limiter.take(rate, from("192.0.2.2"), at(59_500)).is_ok());
}

#[test]
fn a_window_slides_instead_of_ending() {
    let (limiter, rate) = (Limiter::default(), Rate::per_minute(60));
    let allowed = |from_ms: u64, to_ms: u64| {
        let tries = (from_ms..to_ms).step_by(100);
        tries
            .filter(|ms| limiter.take(rate, Caller::Name("a"), at(*ms)).is_ok())
            .count()
    };
    assert_eq!(allowed(0, 60_000), 60);
    // A minute on: what comes through is what has faded, never twice the limit around a border.
    let second = allowed(60_000, 120_000);
    assert!((55..=65).contains(&second), "{second}");
    let around = allowed(120_000, 125_000);
    assert!(around <= 8, "{around}");
}

#[test]
fn a_burst_is_bounded_and_fills_evenly() {
    let (limiter, rate) = (Limiter::default(), Rate::per_minute(1200).burst(100));
    let take = |ms| limiter.take(rate, Caller::Name("a"), at(ms));
    for _ in 0..100 {
        take(0).unwrap();
    }
    let refused = take(0).unwrap_err();
    assert_eq!((refused.remaining, refused.after.as_millis()), (0, 50));
    assert!(take(49).is_err());
    assert!(take(50).is_ok());
    assert!(take(51).is_err());
    // Twenty a second; the burst counts into its minute.
    let later = (1..2000).filter(|n| take(51 + n * 50).is_ok()).count();
    assert_eq!(later, 1899);
}

#[test]
fn an_ipv6_host_is_its_network() {
    let (limiter, rate) = (Limiter::default(), Rate::per_minute(1));
    assert!(limiter.take(rate, from("2001:db8::1"), at(0)).is_ok());
    assert!(limiter.take(rate, from("2001:db8::ffff:1"), at(0)).is_err());
    assert!(limiter.take(rate, from("2001:db8:0:1::1"), at(0)).is_ok());
    // The same IPv4 address in both its forms.
    assert!(limiter.take(rate, from("192.0.2.1"), at(0)).is_ok());
    assert!(limiter.take(rate, from("::ffff:192.0.2.1"), at(0)).is_err());
}

#[test]
fn a_flood_of_addresses_costs_bounded_memory_and_frees_nobody() {
    let (limiter, rate) = (Limiter::default(), Rate::per_minute(5));
    let first = from("192.0.2.1");
    for _ in 0..5 {
        limiter.take(rate, first, at(0)).unwrap();
    }
    let flood = |round: u32| {
        (0..200_000u32)
            .map(|n| Caller::Address(std::net::Ipv4Addr::from(n + round).into()))
            .filter(|caller| limiter.take(rate, *caller, at(1)).is_ok())
            .count()
    };
    flood(0);
    let known = limiter.table.lock().callers.len();
    assert_eq!(known, MOST_CALLERS);
    assert!(limiter.take(rate, first, at(2)).is_err(), "still counted");
    // Those who share counters are held to the limit together.
    let more = flood(0x4000_0000);
    assert!(more <= SHARED * 5, "{more}");
    // Two minutes later nobody remembers.
    assert!(limiter.take(rate, first, at(121_000)).is_ok());
    assert!(limiter.take(rate, from("203.0.113.9"), at(122_000)).is_ok());
    assert!(limiter.table.lock().callers.len() < 10);
}

#[test]
fn a_clock_that_goes_back_begins_anew_and_forgetting_forgives() {
    let (limiter, rate) = (Limiter::default(), Rate::per_minute(1));
    let me = Caller::Name("a");
    assert!(limiter.take(rate, me, at(5000)).is_ok());
    assert_eq!(limiter.look(rate, me, at(5000)).remaining, 0);
    assert!(limiter.take(rate, me, at(0)).is_ok());
    assert!(limiter.take(rate, me, at(0)).is_err());
    limiter.forget(me);
    assert_eq!(limiter.look(rate, me, at(0)).remaining, 1);
}

#[test]
fn a_refusal_says_how_long() {
    let standing = Standing {
        limit: 10,
        remaining: 0,
        after: Duration::from_millis(1500),
    };
    let error = standing.refusal("logins");
    assert_eq!(error.what, What::Quota(Some(Duration::from_secs(2))));
    assert_eq!(error.status(), 429);
    assert!(error.to_string().contains("too many logins"), "{error}");
}

#[test]
fn a_busy_process_gives_less_and_never_nothing() {
    let load = Load::default();
    assert_eq!(load.share(), 1.0);
    for _ in 0..40 {
        load.saw(Duration::from_millis(15));
    }
    assert_eq!(load.share(), 1.0, "as late as any process is");
    load.saw(Duration::from_secs(3600));
    assert!(load.share() > 0.25, "once is not busy");
    let mut shares = Vec::new();
    for _ in 0..40 {
        load.saw(Duration::from_millis(300));
        shares.push(load.share());
    }
    let half = *shares.last().unwrap();
    assert!((0.5..0.6).contains(&half), "{half}");
    for _ in 0..40 {
        load.saw(Duration::from_secs(5));
    }
    assert_eq!(load.share(), 0.25);
    for _ in 0..60 {
        load.saw(Duration::ZERO);
    }
    assert_eq!(load.share(), 1.0, "it recovers");
    let rate = Rate::per_minute(1200).burst(100);
    assert_eq!(
        Mode::Adaptive.of(rate, 0.25),
        Rate::per_minute(300).burst(25)
    );
    assert_eq!(Mode::Strict.of(rate, 0.25), rate);
    assert_eq!(Mode::Adaptive.of(Rate::per_minute(1), 0.25).most, 1);
}

/// A process with these settings, and its limits.
async fn rates(settings: &[(&'static str, serde_json::Value)]) -> (crate::Cx, Rates) {
    static ROWS: &[NamedRate] = &[
        NamedRate {
            kinds: &["lamp"],
            verbs: &["list"],
            rate: Rate::per_minute(600).burst(10),
        },
        NamedRate {
            kinds: &["lamp", "shade"],
            verbs: &[],
            rate: Rate::per_minute(2),
        },
    ];
    let registry = crate::Registry::new(&[crate::SUBSYSTEMS]).unwrap();
    let cx = crate::CxBuilder::new(registry, store::Memory::new())
        .part(std::sync::Arc::new(NamedRates(ROWS)))
        .build()
        .await
        .unwrap();
    for (name, value) in settings {
        let body = serde_json::json!({ "metadata": { "name": name }, "spec": { "value": value } });
        let kind = "setting".to_owned();
        let project = None;
        let op = crate::Op::Create {
            kind,
            project,
            body,
        };
        cx.submit(op, "test").await.unwrap();
    }
    let rates = Rates::new(&cx);
    (cx, rates)
}

#[tokio::test]
async fn who_is_known_has_a_fifth_more_in_graceful_mode_and_is_told() {
    let (cx, rates) = rates(&[
        ("limit-mode", "graceful".into()),
        ("limit-graphql-queries", 10.into()),
        ("limit-anonymous", 10.into()),
    ])
    .await;
    let ann = Caller::Name("ann");
    let take = || rates.take(&cx, Class::GraphQlQuery, ann, at(0));
    for left in (0..10).rev() {
        let counted = take().unwrap();
        let standing = counted.standing;
        assert_eq!((standing.limit, standing.remaining), (10, left));
        assert_eq!(counted.grace, None);
    }
    for left in [1, 0] {
        let counted = take().unwrap();
        assert_eq!((counted.standing.remaining, counted.grace), (0, Some(left)));
    }
    take().unwrap_err();
    let stranger = || rates.take(&cx, Class::Anonymous, from("192.0.2.1"), at(0));
    for _ in 0..10 {
        stranger().unwrap();
    }
    stranger().unwrap_err();
}

#[tokio::test]
async fn in_adaptive_mode_limits_follow_the_load() {
    let (cx, rates) = rates(&[
        ("limit-mode", "adaptive".into()),
        ("limit-graphql-queries", 40.into()),
    ])
    .await;
    let most = |name: &str, ms: u64| {
        let take = || rates.take(&cx, Class::GraphQlQuery, Caller::Name(name), at(ms));
        (0..100).take_while(|_| take().is_ok()).count()
    };
    assert_eq!(most("calm", 0), 40);
    for _ in 0..40 {
        rates.load.saw(Duration::from_secs(5));
    }
    // What was read of settings is taken for a second.
    assert_eq!(most("busy", 1000), 10);
}

#[tokio::test]
async fn certain_kinds_and_verbs_have_limits_of_their_own() {
    let (cx, rates) = rates(&[]).await;
    let take = |kind: &str, verb: &str| {
        let taken = rates.take_named(&cx, (kind, verb), Caller::Name("ann"), at(0));
        taken.map(|taken| taken.map_err(|(error, _)| error))
    };
    for _ in 0..10 {
        assert!(take("lamp", "list").unwrap().is_ok());
    }
    assert!(take("lamp", "list").unwrap().is_err());
    // The two of a row are counted together.
    assert!(take("lamp", "delete").unwrap().is_ok());
    assert!(take("shade", "list").unwrap().is_ok());
    let refused = take("shade", "create").unwrap().unwrap_err();
    assert!(refused.to_string().contains("lamp, shade"), "{refused}");
    assert!(take("tree", "list").is_none());
}
