//! What a pool must be before it is stored, and what its space means. Pure.

use super::types::{Pool, PoolSpec, PoolState};
use super::{Content, Usage};
use model::{Error, Result, Violation};
use runtime::Draft;
use std::path::{Component, Path};

/// Folders of the system that are no place for disks.
const SYSTEM: [&str; 11] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr", "/root",
];

/// What is wrong with a spec.
pub(super) fn check(spec: &PoolSpec) -> Vec<Violation> {
    let mut wrong = Vec::new();
    if let Some(text) = &spec.path {
        let path = Path::new(text);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || path.parent().is_none() {
            wrong.push(
                Violation::new("spec.path", format!("`{text}` is no place for a pool"))
                    .hint("an absolute path without `..`, such as `/srv/disks`"),
            );
        } else if let Some(system) = SYSTEM.iter().find(|system| path.starts_with(system)) {
            wrong.push(
                Violation::new(
                    "spec.path",
                    format!("`{text}` is below {system}, which is the system's"),
                )
                .hint("for example `/srv/disks`"),
            );
        }
    }
    if spec.warn_percent > spec.full_percent {
        let message = format!(
            "{} % is above full_percent, {} %",
            spec.warn_percent, spec.full_percent
        );
        wrong.push(Violation::new("spec.warn_percent", message));
    }
    if spec.content.len() == 2 && spec.content[0] == spec.content[1] {
        wrong.push(Violation::new("spec.content", "names the same thing twice"));
    }
    wrong
}

/// Admits a pool; no two pools have the same folder.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<Pool>()?;
    let wrong = check(&spec);
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    if let Some(path) = spec.path.as_deref().map(|p| p.trim_end_matches('/'))
        && !draft.holds_key("pool-path", path)
    {
        if draft.key_taken("pool-path", path) {
            return Err(Error::field(
                "spec.path",
                format!("`{path}` is another pool's"),
            ));
        }
        draft.claim_key("pool-path", path);
    }
    Ok(())
}

/// What a pool's space says of it.
pub(super) fn state(spec: &PoolSpec, usage: Usage) -> (PoolState, String) {
    let used = usage.percent();
    if used >= spec.full_percent {
        (
            PoolState::Degraded,
            format!(
                "{used} % of its space is used: nothing new is put into it from {} % on",
                spec.full_percent
            ),
        )
    } else if used >= spec.warn_percent {
        (
            PoolState::Degraded,
            format!("{used} % of its space is used"),
        )
    } else {
        (PoolState::Online, String::new())
    }
}

/// Why nothing new may be put into the pool, if so.
pub(crate) fn refuses(
    name: &str,
    spec: &PoolSpec,
    used: u64,
    total: u64,
    what: Content,
) -> Option<String> {
    if !spec.content.contains(&what) {
        return Some(format!(
            "pool `{name}` does not take {}",
            if what == Content::Images {
                "images"
            } else {
                "volumes"
            }
        ));
    }
    let usage = Usage {
        used,
        free: total.saturating_sub(used),
    };
    (total > 0 && usage.percent() >= spec.full_percent).then(|| {
        format!(
            "pool `{name}` is full: {} % of its space is used, and its limit is {} %",
            usage.percent(),
            spec.full_percent
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PoolSpec {
        serde_json::from_value(json).unwrap()
    }

    fn fields(json: serde_json::Value) -> Vec<String> {
        check(&spec(json)).into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn places_that_are_none_are_refused() {
        assert!(fields(serde_json::json!({})).is_empty());
        assert!(fields(serde_json::json!({ "path": "/srv/disks" })).is_empty());
        for path in ["srv", "/", "/srv/../etc", "/etc/x", "/dev", "/proc/1"] {
            assert_eq!(
                fields(serde_json::json!({ "path": path })),
                ["spec.path"],
                "{path}"
            );
        }
        assert_eq!(
            fields(serde_json::json!({ "warn_percent": 95 })),
            ["spec.warn_percent"]
        );
    }

    #[test]
    fn thresholds() {
        let spec = spec(serde_json::json!({}));
        let at = |percent| Usage {
            used: percent,
            free: 100 - percent,
        };
        assert_eq!(state(&spec, at(79)).0, PoolState::Online);
        assert_eq!(state(&spec, at(80)).0, PoolState::Degraded);
        assert!(refuses("p", &spec, 89, 100, Content::Volumes).is_none());
        assert!(refuses("p", &spec, 90, 100, Content::Volumes).is_some_and(|m| m.contains("90 %")));
        let only: PoolSpec =
            serde_json::from_value(serde_json::json!({ "content": ["volumes"] })).unwrap();
        assert!(refuses("p", &only, 0, 100, Content::Images).is_some());
    }
}
