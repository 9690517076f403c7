//! What users are called: which names there may be, and which look alike.
//!
//! Only ASCII: then no two names differ by what nobody can see (RFC 8265 with the repertoire cut down to what every
//! keyboard has), and of what is left the known pairs of look-alikes are folded together.

use model::{Error, Result, Violation};

/// Longest name, in characters.
pub const MOST: usize = 80;

/// A name as it is kept: lower case. Refuses what is no name.
///
/// # Errors
/// [`model::What::Invalid`] with the field, the rule and an example.
pub fn parse(text: &str) -> Result<String> {
    let name = text.to_ascii_lowercase();
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = name.len() <= MOST
        && name.chars().all(good)
        && edge(name.chars().next())
        && edge(name.chars().next_back());
    match fits {
        true => Ok(name),
        false => Err(Error::invalid(vec![
            Violation::new(
                "spec.username",
                format!(
                    "`{}` is not the name of a user: 1 to {MOST} of a-z, 0-9, `.`, `_` and `-`, beginning and ending \
                     with a letter or digit",
                    text.chars().take(MOST).collect::<String>().escape_debug()
                ),
            )
            .hint("for example `anna.huber`; any text may go into full_name"),
        ])),
    }
}

/// What a name looks like at a glance: two names with the same look are told apart by nobody. After the single
/// letters come pairs, so that `rn` and `m` are the same, and so are `vv` and `w`.
pub fn look(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        out.push(match c {
            '0' => 'o',
            '1' | 'i' => 'l',
            '4' => 'a',
            '3' => 'e',
            '5' => 's',
            '.' | '_' => '-',
            other => other,
        });
    }
    out.replace("rn", "m").replace("vv", "w").replace("cl", "d")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for good in ["a", "anna", "anna.huber", "x-1_2", "7up", &"a".repeat(80)] {
            assert_eq!(parse(good).unwrap(), good);
        }
        assert_eq!(parse("Anna").unwrap(), "anna");
        // Cyrillic a, full-width a, a zero-width joiner, a soft hyphen, a dotless i: nobody sees them.
        for bad in [
            "",
            ".a",
            "a.",
            "-a",
            "a b",
            "a@b",
            "\u{430}nna",
            "\u{ff41}nna",
            "an\u{200d}na",
            "an\u{ad}na",
            "m\u{131}ra",
            "a/b",
            "a\0",
            &"a".repeat(81),
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn look_alikes() {
        for (one, other) in [
            ("paypal", "paypa1"),
            ("root", "r00t"),
            ("modern", "modem"),
            ("vvill", "will"),
            ("admin", "adrnin"),
            ("lisa", "1isa"),
            ("anna.huber", "anna_huber"),
            ("clara", "dara"),
        ] {
            assert_eq!(look(one), look(other), "{one} {other}");
        }
        assert_ne!(look("anna"), look("hanna"));
    }

    proptest! {
        #[test]
        fn whatever_comes_a_name_is_ascii_and_its_own_name(text in "\\PC{0,100}") {
            if let Ok(name) = parse(&text) {
                prop_assert!(name.is_ascii() && name.len() <= MOST);
                prop_assert_eq!(parse(&name).unwrap(), name);
            }
        }
    }
}
