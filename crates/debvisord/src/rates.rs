//! How often a user may ask for certain kinds over gRPC: the rows of the reference's table (1.11) that name something. Kinds
//! that this version does not have yet may stand here, as in the built-in roles: their limit is there when they come.

use runtime::limit::{NamedRate, NamedRates, Rate};
use std::sync::Arc;
use std::time::Duration;

static ROWS: &[NamedRate] = &[
    NamedRate {
        kinds: &["snapshot"],
        verbs: &["create"],
        rate: Rate::per_minute(30).burst(10),
    },
    NamedRate {
        kinds: &["snapshot"],
        verbs: &["delete"],
        rate: Rate::per_minute(20).burst(10),
    },
    NamedRate {
        kinds: &["vm"],
        verbs: &["migrate"],
        rate: Rate::per_minute(40).burst(5),
    },
    // A node registers by being created.
    NamedRate {
        kinds: &["node"],
        verbs: &["create", "join"],
        rate: Rate::per_minute(50).burst(20),
    },
    NamedRate {
        kinds: &["node"],
        verbs: &["list"],
        // 50 a second, and 100 at once.
        rate: Rate {
            most: 100,
            window: Duration::from_secs(2),
            burst: None,
        },
    },
    NamedRate {
        kinds: &["pool", "volume", "image", "snapshot"],
        verbs: &[],
        rate: Rate::per_minute(30),
    },
];

/// The part that a process needs.
pub fn part() -> Arc<NamedRates> {
    Arc::new(NamedRates(ROWS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst larger than the window's limit would never be reached; a row below a wider one never.
    #[test]
    fn each_row_can_be_reached() {
        for (at, row) in ROWS.iter().enumerate() {
            let hides = |wide: &NamedRate| {
                let kinds = row.kinds.iter().all(|kind| wide.kinds.contains(kind));
                let verbs = row.verbs.iter().all(|verb| wide.verbs.contains(verb));
                kinds && (wide.verbs.is_empty() || (verbs && !row.verbs.is_empty()))
            };
            assert!(!ROWS[..at].iter().any(hides), "{row:?}");
        }
    }
}
