//! Points in time: RFC 3339, UTC.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A point in time, UTC, written as RFC 3339 with millisecond precision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// From milliseconds since 1970; times that a calendar cannot hold become 1970.
    pub fn from_millis(ms: i64) -> Self {
        Timestamp(jiff::Timestamp::from_millisecond(ms).unwrap_or_default())
    }

    /// Milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        self.0.as_millisecond()
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(&self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(earlier.millis()).max(0) as u64)
    }

    /// This time plus a duration.
    pub fn plus(&self, by: Duration) -> Self {
        Timestamp::from_millis(self.millis().saturating_add(by.as_millis() as i64))
    }

    /// Parses RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Timestamp)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}
