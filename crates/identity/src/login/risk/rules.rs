//! How unlike a user a login is, from 0 to 100. Pure.
//!
//! | sign | adds |
//! |---|---|
//! | from the last login's place he would have had to travel faster than 900 km/h | 40 |
//! | more than five logins of his within five minutes | 30 |
//! | a program that he has not used before | 20 |
//! | a place more than 100 km from all that he has been at | 15 |

use model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// In this time logins are counted.
const SPELL: Duration = Duration::from_secs(300);
/// So many in it are usual.
const USUAL: usize = 5;
/// Nobody travels faster, in km/h.
const FASTEST: f64 = 900.0;
/// What is nearer is the same place, in km: databases of places are not exact.
const NEAR: f64 = 100.0;
/// How many programs and places of a user are remembered, and how many logins within the time.
const REMEMBERED: usize = 20;

/// Where on Earth, in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// North of the equator.
    pub latitude: f64,
    /// East of Greenwich.
    pub longitude: f64,
}

impl Place {
    /// How far another one is, in kilometres along a great circle.
    fn far(self, other: Place) -> f64 {
        const EARTH: f64 = 6371.0;
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half = |x: f64| (x / 2.0).sin().powi(2);
        let east = (other.longitude - self.longitude).to_radians();
        let chord = half(b - a) + a.cos() * b.cos() * half(east);
        2.0 * EARTH * chord.clamp(0.0, 1.0).sqrt().asin()
    }
}

/// What is remembered of a user's logins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The last ones, oldest first.
    pub times: Vec<Timestamp>,
    /// The programs that he has used, newest last.
    pub programs: Vec<String>,
    /// Where he has been, the last one last, and when he was there.
    pub places: Vec<(Place, Timestamp)>,
}

/// One login.
#[derive(Clone, Debug)]
pub struct Login {
    /// When.
    pub now: Timestamp,
    /// With which program.
    pub program: String,
    /// From where, when that can be told.
    pub place: Option<Place>,
}

/// What a score asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing.
    Low,
    /// Somebody may want to look.
    Medium,
    /// Another proof.
    High,
    /// Nobody gets in.
    Critical,
}

/// How unlike him it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// 0 to 100.
    pub score: u8,
    /// Why: `travel`, `burst`, `new_device`, `new_place`.
    pub signs: Vec<&'static str>,
}

impl Risk {
    /// What it asks for.
    pub fn level(&self) -> Level {
        match self.score {
            80.. => Level::Critical,
            60.. => Level::High,
            40.. => Level::Medium,
            _ => Level::Low,
        }
    }
}

impl History {
    /// How unlike what was before a login is. The first one of a user is like him.
    pub fn risk(&self, login: &Login) -> Risk {
        let mut score = 0u32;
        let mut signs = Vec::new();
        let mut add = |sign: &'static str, points: u32, is: bool| {
            if is {
                score += points;
                signs.push(sign);
            }
        };
        add("travel", 40, self.travelled(login));
        let recent = self.recent(login.now).count();
        add("burst", 30, recent + 1 > USUAL);
        let known = self.programs.is_empty() || self.programs.contains(&login.program);
        add("new_device", 20, !known);
        let far = |place: Place| self.places.iter().all(|(known, _)| known.far(place) > NEAR);
        let new = login.place.is_some_and(far) && !self.places.is_empty();
        add("new_place", 15, new);
        Risk {
            score: u8::try_from(score.min(100)).unwrap_or(100),
            signs,
        }
    }

    fn travelled(&self, login: &Login) -> bool {
        let (Some(place), Some((last, then))) = (login.place, self.places.last()) else {
            return false;
        };
        let far = last.far(place);
        // A clock that went back is no journey through time.
        let hours = login.now.since(*then).as_secs_f64() / 3600.0;
        far > NEAR && far > FASTEST * hours
    }

    fn recent(&self, now: Timestamp) -> impl Iterator<Item = &Timestamp> {
        let new = move |at: &&Timestamp| **at <= now && now.since(**at) < SPELL;
        self.times.iter().filter(new)
    }

    /// Remembers that somebody has tried, who is not known to be the right one.
    pub fn tried(&mut self, now: Timestamp) {
        self.times = self.recent(now).copied().collect();
        self.times.push(now);
        newest(&mut self.times);
    }

    /// Remembers where and with what he has come in.
    pub fn entered(&mut self, login: &Login) {
        self.programs.retain(|known| *known != login.program);
        self.programs.push(login.program.clone());
        newest(&mut self.programs);
        if let Some(place) = login.place {
            self.places.retain(|(known, _)| known.far(place) > NEAR);
            self.places.push((place, login.now));
            newest(&mut self.places);
        }
    }
}

fn newest<T>(all: &mut Vec<T>) {
    let surplus = all.len().saturating_sub(REMEMBERED);
    all.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VIENNA: Place = Place {
        latitude: 48.2,
        longitude: 16.37,
    };
    const SALZBURG: Place = Place {
        latitude: 47.8,
        longitude: 13.04,
    };
    const SYDNEY: Place = Place {
        latitude: -33.87,
        longitude: 151.21,
    };

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + minutes * 60_000)
    }

    fn login(minutes: i64, program: &str, place: Option<Place>) -> Login {
        Login {
            now: at(minutes),
            program: program.into(),
            place,
        }
    }

    #[test]
    fn places_are_as_far_as_a_map_says() {
        assert!((VIENNA.far(SYDNEY) - 15_970.0).abs() < 50.0);
        assert!((VIENNA.far(SALZBURG) - 252.0).abs() < 5.0);
        assert!(VIENNA.far(VIENNA) < 0.001);
    }

    #[test]
    fn each_sign_adds_what_the_table_says() {
        let before = |logins: i64, place: Option<Place>| {
            let mut history = History::default();
            let first = login(0, "firefox", place);
            history.entered(&first);
            for _ in 0..logins {
                history.tried(at(0));
            }
            history
        };
        let here = Some(VIENNA);
        for (history, login, score, signs, level) in [
            (
                History::default(),
                login(0, "curl", here),
                0,
                &[][..],
                Level::Low,
            ),
            (
                before(1, here),
                login(1, "firefox", here),
                0,
                &[],
                Level::Low,
            ),
            (
                before(1, here),
                login(1, "curl", here),
                20,
                &["new_device"],
                Level::Low,
            ),
            (
                before(4, here),
                login(4, "firefox", here),
                0,
                &[],
                Level::Low,
            ),
            (
                before(5, here),
                login(4, "firefox", here),
                30,
                &["burst"],
                Level::Low,
            ),
            (
                before(5, here),
                login(5, "firefox", here),
                0,
                &[],
                Level::Low,
            ),
            (
                before(5, here),
                login(4, "curl", here),
                50,
                &["burst", "new_device"],
                Level::Medium,
            ),
            // An hour by train, a day by air, and a minute.
            (
                before(1, here),
                login(60, "firefox", Some(SALZBURG)),
                15,
                &["new_place"],
                Level::Low,
            ),
            (
                before(1, here),
                login(24 * 60, "firefox", Some(SYDNEY)),
                15,
                &["new_place"],
                Level::Low,
            ),
            (
                before(1, here),
                login(1, "firefox", Some(SYDNEY)),
                55,
                &["travel", "new_place"],
                Level::Medium,
            ),
            (
                before(1, here),
                login(1, "curl", Some(SYDNEY)),
                75,
                &["travel", "new_device", "new_place"],
                Level::High,
            ),
            (
                before(5, here),
                login(1, "firefox", Some(SYDNEY)),
                85,
                &["travel", "burst", "new_place"],
                Level::Critical,
            ),
            (
                before(5, here),
                login(1, "curl", Some(SYDNEY)),
                100,
                &["travel", "burst", "new_device", "new_place"],
                Level::Critical,
            ),
            // Without places there is neither travel nor a new one.
            (
                before(5, None),
                login(1, "curl", Some(SYDNEY)),
                50,
                &["burst", "new_device"],
                Level::Medium,
            ),
            (
                before(5, here),
                login(1, "curl", None),
                50,
                &["burst", "new_device"],
                Level::Medium,
            ),
            // The clock went back.
            (
                before(1, here),
                login(-60, "firefox", Some(SALZBURG)),
                55,
                &["travel", "new_place"],
                Level::Medium,
            ),
        ] {
            let risk = history.risk(&login);
            assert_eq!(
                (risk.score, risk.signs.as_slice(), risk.level()),
                (score, signs, level),
                "{login:?}"
            );
        }
    }

    #[test]
    fn back_at_a_place_that_is_known_only_the_journey_counts() {
        let mut history = History::default();
        history.entered(&login(0, "firefox", Some(VIENNA)));
        history.entered(&login(60 * 24, "firefox", Some(SYDNEY)));
        let risk = history.risk(&login(60 * 24 + 1, "firefox", Some(VIENNA)));
        assert_eq!((risk.score, risk.signs), (40, vec!["travel"]));
    }

    proptest! {
        #[test]
        fn it_is_never_more_than_a_hundred_and_what_is_kept_is_bounded(
            all in proptest::collection::vec((-1000i64..1000, "[a-z]{1,3}", proptest::option::of((-90.0..90.0f64, -180.0..180.0f64))), 0..60),
        ) {
            let mut history = History::default();
            for (minutes, program, place) in all {
                let place = place.map(|(latitude, longitude)| Place { latitude, longitude });
                let login = login(minutes, &program, place);
                prop_assert!(history.risk(&login).score <= 100);
                history.tried(login.now);
                history.entered(&login);
                prop_assert!(history.times.len() <= REMEMBERED && history.programs.len() <= REMEMBERED && history.places.len() <= REMEMBERED);
            }
        }
    }
}
