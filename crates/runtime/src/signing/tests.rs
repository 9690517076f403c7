use super::*;
use rand::Rng;
use rand::seq::IndexedRandom;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"another secret, which is long enough";

fn now(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

/// A message that owns its parts.
#[derive(Clone, Debug, PartialEq)]
struct Letter {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Letter {
    fn plain() -> Letter {
        Letter {
            method: "POST".into(),
            target: "/hooks/region?from=east&n=1".into(),
            headers: vec![
                ("Content-Type".into(), "application/json".into()),
                ("Host".into(), "west.example".into()),
            ],
            body: b"{\"a\":1}".to_vec(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&Message<'_>) -> T) -> T {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        act(&Message {
            method: &self.method,
            target: &self.target,
            headers: &headers,
            body: &self.body,
        })
    }

    fn signed(mut self, keys: &Keys, algorithm: Algorithm, at: i64) -> Letter {
        let names = ["Host", "content-type"];
        let random = rand::random();
        let added = self.with(|m| keys.sign(m, &names, algorithm, now(at), random));
        let added = added.unwrap().into_iter();
        self.headers
            .extend(added.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    fn header(&mut self, name: &str) -> &mut String {
        let found = self.headers.iter_mut();
        let mut found = found.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        &mut found.next().unwrap().1
    }
}

fn keys() -> Keys {
    Keys::new("one", SECRET).unwrap()
}

fn verifier(keys: Keys) -> Verifier {
    Verifier::new(keys, &["host"], now(-1000))
}

fn judged(verifier: &Verifier, letter: &Letter, at: i64) -> Result<String, Refused> {
    letter.with(|m| verifier.verify(m, now(at)).map(str::to_owned))
}

#[test]
fn a_signed_message_is_taken_once() {
    for algorithm in Algorithm::ALL {
        let verifier = verifier(keys());
        let letter = Letter::plain().signed(&keys(), algorithm, 0);
        assert_eq!(judged(&verifier, &letter, 5), Ok("one".into()));
        for later in [5, 100, 299] {
            assert_eq!(judged(&verifier, &letter, later), Err(Refused::Replayed));
        }
        // Past its time it is refused for that.
        assert_eq!(judged(&verifier, &letter, 301), Err(Refused::Invalid));
    }
}

#[test]
fn what_is_stale_or_early_or_from_before_a_restart_is_refused() {
    for (at, taken) in [(-301, false), (-300, true), (300, true), (301, false)] {
        let letter = Letter::plain().signed(&keys(), Algorithm::Sha256, 0);
        let said = judged(&verifier(keys()), &letter, at);
        assert_eq!(said.is_ok(), taken, "{at}: {said:?}");
    }
    let letter = Letter::plain().signed(&keys(), Algorithm::Sha256, 0);
    let anew = Verifier::new(keys(), &[], now(10));
    assert_eq!(judged(&anew, &letter, 11), Err(Refused::Invalid));
}

#[test]
fn nothing_and_half_a_signature() {
    let verifier = verifier(keys());
    let said = judged(&verifier, &Letter::plain(), 0);
    assert_eq!(said, Err(Refused::Required));
    let whole = Letter::plain().signed(&keys(), Algorithm::Sha256, 0);
    for name in [TIMESTAMP, NONCE, ALGORITHM, KEY_ID, SIGNED_HEADERS] {
        let mut letter = whole.clone();
        letter.headers.retain(|(n, _)| n != name);
        assert_eq!(
            judged(&verifier, &letter, 0),
            Err(Refused::Invalid),
            "{name}"
        );
        let mut letter = whole.clone();
        let value = letter.header(name).clone();
        letter.headers.push((name.to_uppercase(), value));
        assert_eq!(
            judged(&verifier, &letter, 0),
            Err(Refused::Invalid),
            "two {name}"
        );
    }
    let mut letter = whole.clone();
    letter.headers.push(("HOST".into(), "east.example".into()));
    assert_eq!(judged(&verifier, &letter, 0), Err(Refused::Invalid));
    assert_eq!(judged(&verifier, &whole, 0), Ok("one".into()));
    // `host` must be signed.
    let random = rand::random();
    let mut letter = Letter::plain();
    let added = letter.with(|m| keys().sign(m, &[], Algorithm::Sha256, now(0), random));
    let added = added.unwrap().into_iter();
    letter.headers.extend(added.map(|(n, v)| (n.to_owned(), v)));
    assert_eq!(judged(&verifier, &letter, 0), Err(Refused::Invalid));
}

#[test]
fn both_keys_verify_while_they_are_rotated() {
    let mut both = Keys::new("two", OTHER).unwrap();
    both.add("one", SECRET).unwrap();
    let verifier = verifier(both);
    let old = Letter::plain().signed(&keys(), Algorithm::Sha256, 0);
    assert_eq!(judged(&verifier, &old, 0), Ok("one".into()));
    let two = Keys::new("two", OTHER).unwrap();
    let new = Letter::plain().signed(&two, Algorithm::Sha256, 0);
    assert_eq!(judged(&verifier, &new, 0), Ok("two".into()));
    // Who has only the old key left does not take the new one, and a key's id is not its secret.
    let old_only = self::verifier(keys());
    assert_eq!(judged(&old_only, &new, 0), Err(Refused::Invalid));
    let imposter = Keys::new("one", OTHER).unwrap();
    let letter = Letter::plain().signed(&imposter, Algorithm::Sha256, 0);
    assert_eq!(judged(&old_only, &letter, 0), Err(Refused::Invalid));
}

#[test]
fn keys_that_are_none() {
    let short = Keys::new("k", b"secret").unwrap_err();
    assert_eq!(short, BadKey::Short("k".into()));
    let mut one = keys();
    assert_eq!(one.add("one", OTHER), Err(BadKey::Twice("one".into())));
    assert!(matches!(one.add("a b", OTHER), Err(BadKey::Id(_))));
    assert_eq!(format!("{one:?}"), "[\"one\"]");
}

#[test]
fn the_text_is_as_it_is_described() {
    let mut letter = Letter::plain();
    letter.headers[1].1 = "  west.example ".into();
    let names = ["content-type".to_owned(), "host".to_owned()];
    let text = letter.with(|m| canonical(m, "1800000000", "abcdefghijklmnop", &names));
    let body = hex::encode(Sha256::digest(b"{\"a\":1}"));
    let wanted = format!(
        "POST\n/hooks/region?from=east&n=1\n1800000000\nabcdefghijklmnop\ncontent-type:application/json\nhost:west.example\n{body}"
    );
    assert_eq!(text.unwrap(), wanted);
}

fn word(rng: &mut impl Rng, letters: &str, most: usize) -> String {
    let letters: Vec<char> = letters.chars().collect();
    let long = rng.random_range(1..=most);
    (0..long).map(|_| *letters.choose(rng).unwrap()).collect()
}

fn any_letter(rng: &mut impl Rng) -> Letter {
    let mut letter = Letter {
        method: (*["GET", "POST", "PUT", "DELETE"].choose(rng).unwrap()).into(),
        target: format!("/{}", word(rng, "ab/?&=%2F.:", 20)),
        headers: Letter::plain().headers,
        body: word(rng, "a\n\0:", 12).into_bytes(),
    };
    *letter.header("host") = word(rng, "ab:.-", 10);
    *letter.header("content-type") = word(rng, "ab: ;", 10);
    letter
}

/// Whatever is changed of a signed message, it is refused; however its headers are ordered and written, it is taken.
#[test]
fn every_change_is_seen_and_no_other() {
    let mut rng = rand::rng();
    for round in 0..3000 {
        let algorithm = Algorithm::ALL[round % 3];
        let verifier = verifier(keys());
        let whole = any_letter(&mut rng).signed(&keys(), algorithm, 0);
        let mut changed = whole.clone();
        match round % 9 {
            0 => changed.method.push('X'),
            1 => changed.target.push('1'),
            2 => {
                let at = rng.random_range(1..=changed.target.len());
                changed.target.insert(at, 'z');
            }
            3 => changed.body.push(b' '),
            4 => {
                let at = rng.random_range(0..changed.body.len());
                changed.body[at] ^= 1 << rng.random_range(0..8);
            }
            5 => changed.header("host").push('z'),
            6 => changed.header(NONCE).push('z'),
            7 => *changed.header(TIMESTAMP) = now(1).millis().div_euclid(1000).to_string(),
            _ => {
                let tag = changed.header(SIGNATURE);
                let at = rng.random_range(0..tag.len());
                let other = if tag.as_bytes()[at] == b'0' { "1" } else { "0" };
                tag.replace_range(at..=at, other);
            }
        }
        let said = judged(&verifier, &changed, 0);
        assert_eq!(said, Err(Refused::Invalid), "{whole:?} {changed:?}");
        let mut same = whole.clone();
        same.headers.reverse();
        for (name, value) in &mut same.headers {
            *name = name.to_uppercase();
            *value = format!(" {value} ").trim_end().to_owned();
            if name.starts_with("X-DEBVISOR") {
                *value = value.trim().to_owned();
            }
        }
        assert_eq!(judged(&verifier, &same, 0), Ok("one".into()), "{same:?}");
    }
}

/// Two different messages never have one text.
#[test]
fn no_two_messages_share_a_text() {
    let mut rng = rand::rng();
    let mut texts: std::collections::HashMap<String, (Letter, String)> = Default::default();
    let names = ["content-type".to_owned(), "host".to_owned()];
    for _ in 0..20_000 {
        let mut letter = any_letter(&mut rng);
        for (_, value) in &mut letter.headers {
            *value = value.trim().to_owned();
        }
        let nonce = word(&mut rng, "ab", 20);
        let some = &names[..rng.random_range(0..=2)];
        let Some(text) = letter.with(|m| canonical(m, "1800000000", &nonce, some)) else {
            assert!(nonce.len() < 16, "{letter:?}");
            continue;
        };
        letter
            .headers
            .retain(|(n, _)| some.contains(&n.to_lowercase()));
        let mine = (letter, nonce);
        if let Some(other) = texts.insert(text, mine.clone()) {
            assert_eq!(other, mine);
        }
    }
}

#[test]
fn outside_text_never_breaks_it() {
    let mut rng = rand::rng();
    let verifier = verifier(keys());
    for _ in 0..20_000 {
        let mut letter = Letter::plain().signed(&keys(), Algorithm::Sha256, 0);
        let at = rng.random_range(0..letter.headers.len());
        letter.headers[at].1 = word(&mut rng, "\n\r;:,aä0 -_\u{0}\u{1f}é9", 40);
        let signed = at != 0 || letter.headers[0].1.trim() != "application/json";
        assert!(
            judged(&verifier, &letter, 0).is_err() || !signed,
            "{letter:?}"
        );
    }
}

#[test]
fn nonces_are_forgotten_when_they_are_worth_nothing() {
    let mut seen = Seen::default();
    assert!(seen.take("k", "a", 0).is_ok());
    assert_eq!(seen.take("k", "a", 600), Err(Refused::Replayed));
    assert!(seen.take("other", "a", 600).is_ok());
    assert!(seen.take("k", "b", 601).is_ok());
    assert_eq!((seen.nonces.len(), seen.order.len()), (2, 2));
    for n in 0..MOST_NONCES {
        let _ = seen.take("k", &format!("n{n}"), 700);
    }
    assert_eq!(seen.take("k", "one more", 701), Err(Refused::Replayed));
    assert_eq!(seen.nonces.len(), MOST_NONCES);
}
