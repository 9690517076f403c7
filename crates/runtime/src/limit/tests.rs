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
