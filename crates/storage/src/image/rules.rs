//! What an image must be before it is stored. Pure, but for the look at its pool.

use super::types::{Image, Source};
use crate::pool::{Content, Pool};
use model::{Error, Result, Violation};
use runtime::Draft;
use std::path::Path;
use url::Url;

/// Folders whose files are no disks and may be secret: a file below them is never taken, also not through a link.
const SECRET: [&str; 7] = ["/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys"];

/// Whether a file of the node may be imported from `path`.
pub(super) fn importable(path: &Path) -> Option<String> {
    let below = SECRET.iter().find(|folder| path.starts_with(folder))?;
    Some(format!(
        "`{}` is below {below}, from where nothing is imported",
        path.display()
    ))
}

/// What is wrong with a source.
pub(super) fn check(source: &Source) -> Vec<Violation> {
    let given: Vec<_> = [
        ("recipe", source.recipe.is_some()),
        ("url", source.url.is_some()),
        ("file", source.file.is_some()),
        ("upload", source.upload.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    let mut wrong = Vec::new();
    if given.len() != 1 {
        let found = if given.is_empty() {
            "none is given".to_owned()
        } else {
            format!("{} are given", given.join(" and "))
        };
        wrong.push(
            Violation::new("spec.source", found)
                .hint("exactly one of `recipe`, `url`, `file` and `upload`"),
        );
    }
    if let Some(text) = &source.url {
        wrong.extend(check_url(text));
        if source.sha256.is_none() && source.sha512.is_none() {
            wrong.push(
                Violation::new("spec.source.sha256", "is missing")
                    .hint("give the sha256 or sha512 that the publisher of the file names"),
            );
        }
    }
    if let Some(text) = &source.file {
        let path = Path::new(text);
        let plain = path.components().all(|part| {
            matches!(
                part,
                std::path::Component::RootDir | std::path::Component::Normal(_)
            )
        });
        if !path.is_absolute() || !plain {
            wrong.push(
                Violation::new(
                    "spec.source.file",
                    format!("`{text}` is not an absolute path of the node"),
                )
                .hint("an absolute path without `..`"),
            );
        } else if let Some(message) = importable(path) {
            wrong.push(Violation::new("spec.source.file", message));
        }
    }
    if let Some(upload) = source.upload.as_ref().filter(|upload| upload.size.0 == 0) {
        wrong.push(Violation::new(
            "spec.source.upload.size",
            format!("{} is not the size of an image", upload.size),
        ));
    }
    if source.recipe.is_some()
        && (source.sha256.is_some() || source.sha512.is_some() || source.format.is_some())
    {
        wrong.push(Violation::new("spec.source", "a recipe takes no checksum and no format: what it builds is verified package by package"));
    }
    wrong
}

fn check_url(text: &str) -> Option<Violation> {
    let wrong = |message: String| {
        Some(
            Violation::new("spec.source.url", message)
                .hint("for example https://example.org/disk.qcow2"),
        )
    };
    match Url::parse(text) {
        Err(error) => wrong(format!("`{text}` is not an address: {error}")),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => wrong(format!(
            "`{}` addresses are not fetched, only http and https",
            url.scheme()
        )),
        Ok(url) if url.password().is_some() || !url.username().is_empty() => wrong(
            "has a user name or password in it, which everybody who may read the image could see"
                .to_owned(),
        ),
        Ok(_) => None,
    }
}

/// Admits an image.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    if !draft.creating() {
        return Ok(());
    }
    let spec = draft.spec::<Image>()?;
    let mut wrong = check(&spec.source);
    if let Some(pool) = draft.cx().get::<Pool>(None, &spec.pool)
        && !pool.spec.content.contains(&Content::Images)
    {
        wrong.push(Violation::new(
            "spec.pool",
            format!("pool `{}` does not take images", spec.pool),
        ));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn says(source: serde_json::Value) -> String {
        let source: Source = serde_json::from_value(source).unwrap();
        check(&source)
            .into_iter()
            .map(|v| format!("{}: {}", v.field, v.message))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn exactly_one_source() {
        assert_eq!(says(json!({ "recipe": "tiny" })), "");
        assert!(says(json!({})).contains("none is given"));
        assert!(says(json!({ "recipe": "tiny", "file": "/srv/a" })).contains("recipe and file"));
        assert!(says(json!({ "upload": { "size": 0 } })).contains("spec.source.upload.size"));
    }

    #[test]
    fn addresses() {
        let sum = "0".repeat(64);
        let url = |url: &str| says(json!({ "url": url, "sha256": sum }));
        assert_eq!(url("https://example.org/a.qcow2"), "");
        assert!(url("ftp://example.org/a").contains("only http and https"));
        assert!(url("file:///etc/passwd").contains("only http and https"));
        assert!(url("example.org").contains("is not an address"));
        assert!(url("https://me:pw@example.org/").contains("password"));
        assert!(says(json!({ "url": "https://example.org/a" })).contains("sha256"));
    }

    #[test]
    fn files_that_are_secrets_are_not_imported() {
        assert_eq!(says(json!({ "file": "/srv/a.vmdk" })), "");
        for path in [
            "/etc/shadow",
            "/proc/1/mem",
            "/dev/vda",
            "srv/a",
            "/srv/../etc/shadow",
        ] {
            assert!(!says(json!({ "file": path })).is_empty(), "{path}");
        }
    }
}
