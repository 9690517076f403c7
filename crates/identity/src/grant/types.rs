//! What a grant wants and is.

use jiff::civil::Time;
use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people want of a grant. Exactly one of `user`, `group` and `key` says who has it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantSpec {
    /// The user who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), extend("x-immutable" = true, "x-ref" = "user"))]
    pub user: Option<String>,
    /// The group whose members have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), extend("x-immutable" = true, "x-ref" = "group"))]
    pub group: Option<String>,
    /// The API key that has it; it never has more than its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), extend("x-immutable" = true))]
    pub key: Option<String>,
    /// The privileges.
    #[schemars(length(max = 63), extend("x-ref" = "role"))]
    pub role: String,
    /// On what: `/` everything, `project/NAME` a project and what lies in it, `KIND/NAME` one cluster-wide object,
    /// `KIND/PROJECT/NAME` one object of a project and what belongs to it. Of two grants that differ the one deeper down counts.
    #[serde(default = "everything")]
    #[schemars(length(min = 1, max = 200))]
    pub scope: String,
    /// Only objects of the scope with these labels: `tier=web,!legacy`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000))]
    pub selector: String,
    /// Whether it also holds for what lies in the scope, and not only for the scope itself.
    #[serde(default = "yes")]
    pub propagate: bool,
    /// It is worth nothing from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// All of them must hold, else it is as if the grant were not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub conditions: Vec<When>,
}

fn everything() -> String {
    "/".into()
}

fn yes() -> bool {
    true
}

/// One condition of a grant; `not` turns it around.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// The time of day.
    TimeRange {
        /// From then, `HH:MM`.
        #[schemars(with = "String")]
        from: Time,
        /// Until then; earlier than `from` means until the next day.
        #[schemars(with = "String")]
        to: Time,
        /// On these days, by the day on which it begins; all when empty.
        #[serde(default)]
        days: Vec<Day>,
        /// Where those are the times: an IANA time zone.
        #[serde(default = "utc")]
        zone: String,
        /// It must not hold.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not: bool,
    },
    /// The address he comes from is one of these.
    Address {
        /// The addresses.
        addresses: Vec<std::net::IpAddr>,
        /// It must not hold.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not: bool,
    },
    /// The address he comes from lies in one of these networks.
    Network {
        /// The networks, `192.0.2.0/24`.
        #[schemars(with = "Vec<String>")]
        networks: Vec<ipnet::IpNet>,
        /// It must not hold.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not: bool,
    },
    /// A word about the caller: `kind` (`user`, `key`), `user` (his name).
    Attribute {
        /// Which word.
        name: String,
        /// Its value.
        value: String,
        /// It must not hold.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not: bool,
    },
    /// The object has this label.
    Tag {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
        /// It must not hold.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not: bool,
    },
    /// He has proved a second factor so lately.
    MfaAge {
        /// At most so long ago, in seconds.
        #[schemars(extend("x-unit" = "seconds"))]
        seconds: u64,
        /// It must not hold.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not: bool,
    },
}

fn utc() -> String {
    "UTC".into()
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the days of the week say themselves")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// What is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GrantStatus {
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}
