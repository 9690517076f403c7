//! What a volume must be before it is stored. Reads only the cache.

use super::types::{Volume, VolumeSpec};
use crate::image::{Image, ImageStatus};
use crate::pool::{Content, Pool};
use model::{Bytes, Error, Result, Violation};
use runtime::Draft;
use serde_json::json;

/// The smallest and the largest disk.
const LEAST: Bytes = Bytes::mib(1);
const MOST: Bytes = Bytes::gib(10_000);

/// What is wrong with a spec that can be said without looking at other objects. `now` is the size that the volume has
/// already, 0 while it is being made; `image` what is known of the image it is made from.
pub(super) fn check(spec: &VolumeSpec, now: Bytes, image: Option<&ImageStatus>) -> Vec<Violation> {
    let mut wrong = Vec::new();
    match spec.size {
        None if spec.image.is_none() => {
            wrong.push(
                Violation::new(
                    "spec.size",
                    "is missing, and there is no image to take it from",
                )
                .hint("for example `8GiB`"),
            );
        }
        None => {}
        Some(size) if size < LEAST || size > MOST => {
            wrong.push(Violation::new(
                "spec.size",
                format!("{size} is not between {LEAST} and {MOST}"),
            ));
        }
        Some(size) if size.0 % 512 != 0 => {
            wrong.push(Violation::new(
                "spec.size",
                format!(
                    "{} bytes are not a whole number of sectors of 512 bytes",
                    size.0
                ),
            ));
        }
        Some(size) if size < now => {
            wrong.push(Violation::new(
                "spec.size",
                format!("{size} is less than the {now} it has: a volume never shrinks"),
            ));
        }
        Some(size) => {
            if let Some(least) = image.map(|i| i.virtual_size).filter(|least| size < *least) {
                wrong.push(
                    Violation::new(
                        "spec.size",
                        format!("{size} is less than the {least} of its image"),
                    )
                    .hint(format!("at least {least}")),
                );
            }
        }
    }
    wrong
}

/// Admits a volume.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<Volume>()?;
    let project = draft.project().map(str::to_owned);
    let image = spec
        .image
        .as_deref()
        .and_then(|name| draft.cx().follow::<Image>(project.as_deref(), name));
    let mut wrong = Vec::new();
    if draft.creating()
        && spec.size.is_none()
        && let Some(status) = image.as_ref().and_then(|image| image.status.as_ref())
        && status.virtual_size.0 > 0
    {
        // Said now, so that it counts now, and not only when the volume is there.
        let size = Bytes(status.virtual_size.0.next_multiple_of(512)).max(LEAST);
        spec.size = Some(size);
        draft.spec["size"] = json!(size);
    }
    if draft.creating() {
        if let Some(pool) = draft.cx().get::<Pool>(None, &spec.pool)
            && !pool.spec.content.contains(&Content::Volumes)
        {
            wrong.push(Violation::new(
                "spec.pool",
                format!("pool `{}` does not take volumes", spec.pool),
            ));
        }
        if let Some(image) = &image
            && image.metadata.project.as_ref().map(model::Name::as_str) != project.as_deref()
            && !image.spec.shared
        {
            wrong.push(
                Violation::new(
                    "spec.image",
                    format!(
                        "image `{}` belongs to another project, which does not share it",
                        spec.image.as_deref().unwrap_or_default()
                    ),
                )
                .hint("ask for it to be shared: `dvctl image set NAME --shared`"),
            );
        }
    }
    let status = draft.status::<Volume>();
    let old = draft
        .old_spec::<Volume>()?
        .and_then(|old| old.size)
        .unwrap_or_default();
    let known = image
        .as_ref()
        .and_then(|image| image.status.as_ref())
        .filter(|_| draft.creating());
    wrong.extend(check(&spec, old.max(status.size), known));
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(spec: serde_json::Value, now: Bytes, image: Option<Bytes>) -> String {
        let spec: VolumeSpec = serde_json::from_value(spec).unwrap();
        let image = image.map(|virtual_size| ImageStatus {
            virtual_size,
            ..ImageStatus::default()
        });
        check(&spec, now, image.as_ref())
            .into_iter()
            .map(|v| v.message)
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn sizes() {
        assert_eq!(says(json!({ "size": "8GiB" }), Bytes(0), None), "");
        assert!(says(json!({}), Bytes(0), None).contains("is missing"));
        assert_eq!(says(json!({ "image": "debian-12" }), Bytes(0), None), "");
        for size in ["1KiB", "10001GiB"] {
            assert!(
                says(json!({ "size": size }), Bytes(0), None).contains("between 1MiB and 9.8TiB"),
                "{size}"
            );
        }
        assert!(says(json!({ "size": 1_048_577 }), Bytes(0), None).contains("sectors"));
        assert!(says(json!({ "size": "1GiB" }), Bytes::gib(2), None).contains("never shrinks"));
        assert!(
            says(
                json!({ "size": "1GiB", "image": "i" }),
                Bytes(0),
                Some(Bytes::gib(2))
            )
            .contains("of its image")
        );
    }
}
