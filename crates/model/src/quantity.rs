//! Quantities with units: bytes (`1GiB`), thousandths (`500m`), seconds (`3m`).
//!
//! They are written as whole numbers and read from a number or from a text with a unit.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

macro_rules! quantity {
    ($name:ident, $doc:literal, $unit:literal, $pattern:literal, $example:literal, $parse:path) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                $parse(text.trim()).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_u64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct V;
                impl serde::de::Visitor<'_> for V {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a whole number or a text like `", $example, "`"))
                    }
                    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<$name, E> {
                        Ok($name(n))
                    }
                    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<$name, E> {
                        u64::try_from(n).map($name).map_err(|_| E::custom(format!("{n} is negative")))
                    }
                    fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<$name, E> {
                        s.parse().map_err(E::custom)
                    }
                }
                from.deserialize_any(V)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": ["integer", "string"],
                    "minimum": 0,
                    "pattern": $pattern,
                    "x-unit": $unit,
                })
            }
        }
    };
}

quantity!(
    Bytes,
    "A size in bytes; read from `1073741824`, `1GiB`, `500MB`, `64K` (a bare K, M, G, T, P is binary).",
    "bytes",
    "^[0-9]+(\\.[0-9]+)? ?([KMGTP](i?B)?|B)?$",
    "1GiB",
    parse_bytes
);
quantity!(
    Millis,
    "A share in thousandths; read from `2` (= 2000 thousandths as text), `500m`, or the number of thousandths.",
    "millis",
    "^[0-9]+(\\.[0-9]+)?m?$",
    "500m",
    parse_millis
);
quantity!(
    Seconds,
    "A duration in seconds; read from `180`, `180s`, `3m`, `2h`, `7d`.",
    "seconds",
    "^[0-9]+ ?[smhdw]?$",
    "3m",
    parse_seconds
);

fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "`{text}` is not a size: a number with B, KiB, MiB, GiB, TiB, PiB (or kB, MB, ... in powers of 1000), for example `1GiB`"
        )
    };
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" | "KiB" | "k" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "P" | "PiB" => 1 << 50,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "PB" => 1_000_000_000_000_000,
        _ => return Err(wrong()),
    };
    scaled(number, factor).ok_or_else(wrong)
}

fn parse_millis(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{text}` is not a share: a number, or thousandths with m, for example `500m`");
    match text.strip_suffix('m') {
        Some(number) => number.parse().map_err(|_| wrong()),
        None => scaled(text, 1000).ok_or_else(wrong),
    }
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{text}` is not a duration: a number with s, m, h, d or w, for example `3m`");
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let factor = match text[end..].trim_start() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    text[..end]
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(wrong)
}

/// A decimal times a factor, exact, when it is a whole number.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 12 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(u128::from(factor))?;
    if product % scale != 0 {
        return None;
    }
    u64::try_from(product / scale).ok()
}

impl Bytes {
    /// So many KiB.
    pub const fn kib(n: u64) -> Self {
        Bytes(n << 10)
    }
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Bytes(n << 20)
    }
    /// So many GiB.
    pub const fn gib(n: u64) -> Self {
        Bytes(n << 30)
    }
}

impl fmt::Display for Bytes {
    /// The largest binary unit that divides it, else one decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (50, "PiB"),
            (40, "TiB"),
            (30, "GiB"),
            (20, "MiB"),
            (10, "KiB"),
        ];
        for (shift, unit) in units {
            if self.0 >= 1 << shift {
                let whole = self.0 >> shift;
                return match self.0 & ((1 << shift) - 1) {
                    0 => write!(f, "{whole}{unit}"),
                    _ => write!(f, "{:.1}{unit}", self.0 as f64 / (1u64 << shift) as f64),
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(604_800, "w"), (86_400, "d"), (3600, "h"), (60, "m")] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}s", self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl Seconds {
    /// As a duration.
    pub fn duration(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_and_shown() {
        for (text, n) in [
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("64K", 65536),
            ("500MB", 500_000_000),
            ("7", 7),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(n)), "{text}");
        }
        for text in [
            "",
            "GiB",
            "1XB",
            "-1",
            "1.GiB",
            "99999999PiB",
            "0.3B",
            "1 2",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert_eq!(Bytes::gib(2).to_string(), "2GiB");
        assert_eq!(Bytes((1 << 30) + (1 << 29)).to_string(), "1.5GiB");
    }

    #[test]
    fn shares_and_durations() {
        assert_eq!("500m".parse(), Ok(Millis(500)));
        assert_eq!("1.5".parse(), Ok(Millis(1500)));
        assert_eq!("3m".parse(), Ok(Seconds(180)));
        assert!("3x".parse::<Seconds>().is_err());
        assert_eq!(
            serde_json::from_str::<Bytes>("\"1MiB\"").unwrap(),
            Bytes::mib(1)
        );
        assert!(serde_json::from_str::<Bytes>("-1").is_err());
    }
}
