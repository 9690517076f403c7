//! Whether the conditions of a grant hold.

use crate::grant::{Day, When};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use model::{Labels, Timestamp, Violation};
use runtime::ActorKind;
use std::net::IpAddr;

/// What conditions look at.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What sort of caller.
    pub kind: ActorKind,
    /// Whose rights count.
    pub user: &'a str,
    /// When he last proved a second factor.
    pub mfa: Option<Timestamp>,
    /// From which address; `None` on the local socket and for what is done later in his name.
    pub from: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
    /// Labels of the object.
    pub labels: Option<&'a Labels>,
}

impl When {
    /// Whether it holds. What cannot be known (no address, no such zone) does not hold, turned around or not.
    pub fn holds(&self, scene: &Scene<'_>) -> bool {
        self.bare(scene).is_some_and(|holds| holds != self.turned())
    }

    fn turned(&self) -> bool {
        match self {
            When::TimeRange { not, .. }
            | When::Address { not, .. }
            | When::Network { not, .. }
            | When::Attribute { not, .. }
            | When::Tag { not, .. }
            | When::MfaAge { not, .. } => *not,
        }
    }

    fn bare(&self, scene: &Scene<'_>) -> Option<bool> {
        match self {
            When::TimeRange {
                from,
                to,
                days,
                zone,
                ..
            } => {
                let zone = TimeZone::get(zone).ok()?;
                let now = jiff::Timestamp::from_millisecond(scene.now.millis()).ok()?;
                let now = now.to_zoned(zone);
                let time = now.time();
                // Past midnight it is still the range of the day before.
                let (within, began) = match from <= to {
                    true => (*from <= time && time < *to, now.date()),
                    false if time < *to => (true, now.date().yesterday().ok()?),
                    false => (*from <= time, now.date()),
                };
                Some(within && (days.is_empty() || days.contains(&day(began.weekday()))))
            }
            When::Address { addresses, .. } => {
                let from = scene.from?.to_canonical();
                Some(addresses.iter().any(|one| one.to_canonical() == from))
            }
            When::Network { networks, .. } => {
                let from = scene.from?.to_canonical();
                Some(networks.iter().any(|net| net.contains(&from)))
            }
            When::Attribute { name, value, .. } => match name.as_str() {
                "kind" => {
                    let word = match scene.kind {
                        ActorKind::User => "user",
                        ActorKind::Key => "key",
                        ActorKind::Anonymous | ActorKind::Administrator | ActorKind::System => {
                            return None;
                        }
                    };
                    Some(word == value)
                }
                "user" => Some(scene.user == value),
                _ => None,
            },
            When::Tag { key, value, .. } => {
                let labels = scene.labels?;
                Some(labels.get(key) == Some(value))
            }
            When::MfaAge { seconds, .. } => {
                // Never proved is not lately proved.
                let Some(mfa) = scene.mfa else {
                    return Some(false);
                };
                let age = (scene.now >= mfa).then(|| scene.now.since(mfa).as_secs());
                Some(age.is_some_and(|age| age <= *seconds))
            }
        }
    }

    /// What is wrong with it, before it is stored.
    pub fn check(&self, field: &str) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let mut no = |part: &str, why: String| {
            wrong.push(Violation::new(format!("{field}.{part}"), why));
        };
        match self {
            When::TimeRange { from, to, zone, .. } => {
                if let Err(error) = TimeZone::get(zone) {
                    no("zone", format!("`{zone}` is not a time zone: {error}"));
                }
                if from == to {
                    no("to", "is the same as `from`: the range is empty".into());
                }
            }
            When::Address { addresses, .. } if addresses.is_empty() => {
                no("addresses", "is empty: the grant would never hold".into());
            }
            When::Network { networks, .. } if networks.is_empty() => {
                no("networks", "is empty: the grant would never hold".into());
            }
            When::Attribute { name, .. } if !["kind", "user"].contains(&name.as_str()) => {
                no(
                    "name",
                    format!("`{name}` is not an attribute: `kind` or `user`"),
                );
            }
            _ => {}
        }
        wrong
    }

    /// Whether it may come to hold for this caller and this object, at another time or from elsewhere. An address or a
    /// second factor that is asked about stays what it is.
    pub fn may_hold(&self, scene: &Scene<'_>) -> bool {
        let stays = match self {
            When::TimeRange { .. } => false,
            When::Address { .. } | When::Network { .. } => scene.from.is_some(),
            When::MfaAge { .. } => scene.mfa.is_some(),
            When::Tag { .. } => scene.labels.is_some(),
            // A key of his is one, too.
            When::Attribute { name, .. } => name == "user",
        };
        !stays || self.holds(scene)
    }

    /// For people: `only from 08:00 to 18:00 on mon, tue (Europe/Vienna)`.
    pub fn words(&self) -> String {
        let list = |all: Vec<String>| all.join(", ");
        let what = match self {
            When::TimeRange {
                from,
                to,
                days,
                zone,
                ..
            } => {
                let clock = |time: &jiff::civil::Time| match time.second() {
                    0 => time.strftime("%H:%M").to_string(),
                    _ => time.strftime("%H:%M:%S").to_string(),
                };
                let days = match days.is_empty() {
                    true => String::new(),
                    false => format!(
                        " on {}",
                        list(days.iter().map(|d| d.word().into()).collect())
                    ),
                };
                format!("from {} to {}{days} ({zone})", clock(from), clock(to))
            }
            When::Address { addresses, .. } => {
                let all = addresses.iter().map(|ip| ip.to_string()).collect();
                format!("from the address {}", list(all))
            }
            When::Network { networks, .. } => {
                let all = networks.iter().map(|net| net.to_string()).collect();
                format!("from the network {}", list(all))
            }
            When::Attribute { name, value, .. } => match (name.as_str(), value.as_str()) {
                ("kind", "user") => "without an API key".into(),
                ("kind", "key") => "with an API key".into(),
                ("user", user) => format!("as the user `{user}`"),
                (name, value) => format!("when `{name}` is `{value}`"),
            },
            When::Tag { key, value, .. } => format!("where the label `{key}` is `{value}`"),
            When::MfaAge { seconds, .. } => format!(
                "within {} of a proof of the second factor",
                model::Seconds(*seconds)
            ),
        };
        match self.turned() {
            true => format!("not {what}"),
            false => format!("only {what}"),
        }
    }
}

impl Day {
    fn word(self) -> &'static str {
        match self {
            Day::Mon => "mon",
            Day::Tue => "tue",
            Day::Wed => "wed",
            Day::Thu => "thu",
            Day::Fri => "fri",
            Day::Sat => "sat",
            Day::Sun => "sun",
        }
    }
}

fn day(day: Weekday) -> Day {
    match day {
        Weekday::Monday => Day::Mon,
        Weekday::Tuesday => Day::Tue,
        Weekday::Wednesday => Day::Wed,
        Weekday::Thursday => Day::Thu,
        Weekday::Friday => Day::Fri,
        Weekday::Saturday => Day::Sat,
        Weekday::Sunday => Day::Sun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_millis(time.as_millisecond())
    }

    fn scene(now: &str, from: Option<&str>) -> Scene<'static> {
        Scene {
            kind: ActorKind::User,
            user: "alice",
            mfa: Some(at("2026-01-05T10:00:00Z")),
            from: from.map(|ip| ip.parse().unwrap()),
            now: at(now),
            labels: None,
        }
    }

    fn holds(when: serde_json::Value, scene: &Scene<'_>) -> bool {
        let when: When = serde_json::from_value(when).unwrap();
        assert!(when.check("c").is_empty(), "{when:?}");
        when.holds(scene)
    }

    #[test]
    fn office_hours_in_their_own_zone_and_over_midnight() {
        // 2026-01-05 is a Monday; Vienna is an hour ahead of UTC in winter and two in summer.
        let office = json!({"type": "time_range", "from": "08:00", "to": "18:00", "days": ["mon"], "zone": "Europe/Vienna"});
        for (now, wanted) in [
            ("2026-01-05T06:59:59Z", false),
            ("2026-01-05T07:00:00Z", true),
            ("2026-01-05T16:59:59Z", true),
            ("2026-01-05T17:00:00Z", false),
            ("2026-01-06T12:00:00Z", false),
            ("2026-07-06T06:00:00Z", true),
            ("2026-07-06T05:59:59Z", false),
        ] {
            assert_eq!(holds(office.clone(), &scene(now, None)), wanted, "{now}");
        }
        let night = json!({"type": "time_range", "from": "22:00", "to": "06:00", "days": ["mon"]});
        for (now, wanted) in [
            ("2026-01-05T05:00:00Z", false),
            ("2026-01-05T23:00:00Z", true),
            ("2026-01-06T05:59:00Z", true),
            ("2026-01-06T06:00:00Z", false),
            ("2026-01-06T23:00:00Z", false),
        ] {
            assert_eq!(holds(night.clone(), &scene(now, None)), wanted, "{now}");
        }
    }

    #[test]
    fn what_cannot_be_known_does_not_hold_either_way() {
        let net = |not: bool| json!({"type": "network", "networks": ["192.0.2.0/24"], "not": not});
        let now = "2026-01-05T12:00:00Z";
        assert!(holds(net(false), &scene(now, Some("192.0.2.7"))));
        assert!(holds(net(false), &scene(now, Some("::ffff:192.0.2.7"))));
        assert!(!holds(net(true), &scene(now, Some("192.0.2.7"))));
        assert!(holds(net(true), &scene(now, Some("198.51.100.1"))));
        assert!(!holds(net(false), &scene(now, None)));
        assert!(!holds(net(true), &scene(now, None)));
    }

    #[test]
    fn a_second_factor_grows_old() {
        let lately = json!({"type": "mfa_age", "seconds": 900});
        assert!(holds(lately.clone(), &scene("2026-01-05T10:15:00Z", None)));
        assert!(!holds(lately.clone(), &scene("2026-01-05T10:15:01Z", None)));
        let never = Scene {
            mfa: None,
            ..scene("2026-01-05T10:00:00Z", None)
        };
        assert!(!holds(lately.clone(), &never));
        // Proved "later than now": the clock went back, and nobody can say how far.
        assert!(!holds(lately, &scene("2026-01-05T09:59:00Z", None)));
    }

    #[test]
    fn each_condition_is_told_in_words() {
        for (when, words) in [
            (
                json!({"type": "time_range", "from": "08:00", "to": "18:30", "days": ["mon", "fri"], "zone": "Europe/Vienna"}),
                "only from 08:00 to 18:30 on mon, fri (Europe/Vienna)",
            ),
            (
                json!({"type": "time_range", "from": "22:00", "to": "06:00", "not": true}),
                "not from 22:00 to 06:00 (UTC)",
            ),
            (
                json!({"type": "address", "addresses": ["192.0.2.7", "2001:db8::1"]}),
                "only from the address 192.0.2.7, 2001:db8::1",
            ),
            (
                json!({"type": "network", "networks": ["192.0.2.0/24"], "not": true}),
                "not from the network 192.0.2.0/24",
            ),
            (
                json!({"type": "attribute", "name": "kind", "value": "key"}),
                "only with an API key",
            ),
            (
                json!({"type": "attribute", "name": "user", "value": "ann"}),
                "only as the user `ann`",
            ),
            (
                json!({"type": "tag", "key": "tier", "value": "web"}),
                "only where the label `tier` is `web`",
            ),
            (
                json!({"type": "mfa_age", "seconds": 900}),
                "only within 15m of a proof of the second factor",
            ),
        ] {
            let when: When = serde_json::from_value(when).unwrap();
            assert_eq!(when.words(), words);
        }
    }

    #[test]
    fn what_could_never_hold_is_refused() {
        for wrong in [
            json!({"type": "time_range", "from": "08:00", "to": "08:00"}),
            json!({"type": "time_range", "from": "08:00", "to": "09:00", "zone": "Mars/Olympus"}),
            json!({"type": "address", "addresses": []}),
            json!({"type": "network", "networks": []}),
            json!({"type": "attribute", "name": "shoe", "value": "44"}),
        ] {
            let when: When = serde_json::from_value(wrong.clone()).unwrap();
            assert!(!when.check("c").is_empty(), "{wrong}");
        }
        let unknown = json!({"type": "mfa_age", "seconds": 1, "minutes": 2});
        assert!(serde_json::from_value::<When>(unknown).is_err());
    }
}
