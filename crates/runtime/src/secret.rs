//! Secret fields: sealed at rest, masked in every answer. Personal fields: sealed at rest, shown to readers.

use crate::{Cx, Row};
use model::schema::{self, PERSONAL, SECRET};
use model::{Error, Result, Violation};
use serde_json::Value;
use store::seal::Sealer;

/// How a sealed text begins in a stored spec.
pub(crate) const MARK: &str = "$sealed:";

/// Seals and opens secret fields. The real one is the store's key ring; its context binds a text to its object and field.
pub trait Seal: Send + Sync {
    /// Seals a text for one context, with the key of the cluster.
    fn seal(&self, context: &str, plain: &str) -> Result<String>;
    /// The same with the key of a project.
    fn seal_in(&self, project: Option<&str>, context: &str, plain: &str) -> Result<String> {
        let _ = project;
        self.seal(context, plain)
    }
    /// Opens it again, whichever key it was sealed with.
    fn open(&self, context: &str, sealed: &str) -> Result<String>;
    /// Whether it should be sealed anew, because there is a newer key.
    fn is_stale(&self, sealed: &str) -> bool {
        let _ = sealed;
        false
    }
}

/// The store's key ring.
impl Seal for Sealer {
    fn seal(&self, context: &str, plain: &str) -> Result<String> {
        Seal::seal_in(self, None, context, plain)
    }
    fn seal_in(&self, project: Option<&str>, context: &str, plain: &str) -> Result<String> {
        Sealer::seal_in(self, project, context, plain.as_bytes())
            .map_err(|e| Error::internal("a secret could not be sealed").because(e))
    }
    fn is_stale(&self, sealed: &str) -> bool {
        Sealer::is_stale(self, sealed)
    }
    fn open(&self, context: &str, sealed: &str) -> Result<String> {
        let plain = self
            .unseal(context, sealed)
            .map_err(|e| Error::internal("a secret could not be opened").because(e))?;
        String::from_utf8(plain).map_err(|e| Error::internal("a secret is not text").because(e))
    }
}

/// Seals with the key of one project.
pub(crate) struct Within<'a> {
    /// What seals.
    pub seal: &'a dyn Seal,
    /// The project; the cluster when absent.
    pub project: Option<&'a str>,
}

impl Seal for Within<'_> {
    fn seal(&self, context: &str, plain: &str) -> Result<String> {
        self.seal.seal_in(self.project, context, plain)
    }
    fn open(&self, context: &str, sealed: &str) -> Result<String> {
        self.seal.open(context, sealed)
    }
    fn is_stale(&self, sealed: &str) -> bool {
        self.seal.is_stale(sealed)
    }
}

/// Where a field stands, as its sealed text is bound to it: the object, the field, and the key where a map has several (a
/// version, say). The place in a list is no part of it: elements move.
fn place(object: &str, path: &str) -> String {
    let mut out = format!("{object}#");
    let mut inside = false;
    for letter in path.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => {}
            letter => out.push(letter),
        }
    }
    out
}

/// Opens a sealed text of a field.
fn open_at(seal: &dyn Seal, object: &str, path: &str, sealed: &str) -> Result<String> {
    match Sealer::is_old(sealed) {
        true => seal.open(object, sealed),
        false => seal.open(&place(object, path), sealed),
    }
}

/// Seals anew what an older key has sealed. Says whether anything changed.
pub(crate) fn renew(
    seal: &dyn Seal,
    spec_schema: &Value,
    object: &str,
    spec: &mut Value,
) -> Result<bool> {
    let mut any = false;
    for word in [SECRET, PERSONAL] {
        change(spec_schema, word, spec, &mut |path, text| {
            let Some(sealed) = text.strip_prefix(MARK).filter(|s| seal.is_stale(s)) else {
                return Ok(None);
            };
            let plain = open_at(seal, object, path, sealed)?;
            any = true;
            let fresh = seal.seal(&place(object, path), &plain)?;
            Ok(Some(Value::String(format!("{MARK}{fresh}"))))
        })?;
    }
    Ok(any)
}

/// Seals anew, in the whole store, what an older key has sealed. For the api, at its start: cut off, the next start goes on.
/// What cannot be opened is left and logged. Answers how many objects were changed.
pub async fn renew_all(cx: &Cx) -> usize {
    let mut changed = 0;
    for declared in cx
        .registry()
        .iter()
        .filter(|d| d.has_secrets || d.has_personal)
    {
        for row in cx.cache().rows(declared.kind().name, None) {
            match renew_row(cx, &declared.spec, &row).await {
                Ok(renewed) => changed += usize::from(renewed),
                Err(error) => {
                    tracing::error!(key = %row.key, ?error, "a secret could not be sealed anew");
                }
            }
        }
    }
    changed
}

async fn renew_row(cx: &Cx, schema: &Value, row: &Row) -> Result<bool> {
    let uid = row.uid.to_string();
    let seal = Within {
        seal: cx.seal(),
        project: row.project.as_deref(),
    };
    let mut spec = row.stored()?["spec"].take();
    if !renew(&seal, schema, &uid, &mut spec)? {
        return Ok(false);
    }
    cx.edit_stored(&row.key, |object| {
        renew(&seal, schema, &uid, &mut object["spec"]).map(drop)
    })
    .await
}

/// Refuses secrets: for programs that have no key.
#[derive(Debug, Default)]
pub struct NoSeal;

impl Seal for NoSeal {
    fn seal(&self, _: &str, _: &str) -> Result<String> {
        Err(Error::refused(
            "this process has no key to seal secrets with",
        ))
    }
    fn open(&self, _: &str, _: &str) -> Result<String> {
        Err(Error::refused(
            "this process has no key to open secrets with",
        ))
    }
}

/// Refuses plain texts that look sealed, in the fields of one word.
pub(crate) fn check_plain(spec_schema: &Value, word: &str, spec: &Value) -> Vec<Violation> {
    let mut out = Vec::new();
    schema::walk(spec_schema, word, spec, &mut |path, _, value| {
        if value.as_str().is_some_and(|s| s.starts_with(MARK)) {
            out.push(Violation::new(
                format!("spec.{path}"),
                format!("must not begin with `{MARK}`"),
            ));
        }
    });
    out
}

/// Refuses secret texts that look sealed and are not among those that are stored: who wants to keep one leaves it out.
pub(crate) fn check_kept(
    spec_schema: &Value,
    stored: Option<&Value>,
    spec: &Value,
) -> Vec<Violation> {
    let mut kept = std::collections::HashSet::new();
    if let Some(stored) = stored {
        schema::walk(spec_schema, SECRET, stored, &mut |_, _, value| {
            kept.extend(value.as_str().map(str::to_owned));
        });
    }
    let mut out = Vec::new();
    schema::walk(spec_schema, SECRET, spec, &mut |path, _, value| {
        let is_new = |text: &&str| text.starts_with(MARK) && !kept.contains(*text);
        if value.as_str().filter(is_new).is_some() {
            out.push(Violation::new(
                format!("spec.{path}"),
                format!("must not begin with `{MARK}`"),
            ));
        }
    });
    out
}

/// Seals every secret text that is not sealed yet.
pub(crate) fn seal_all(
    seal: &dyn Seal,
    spec_schema: &Value,
    context: &str,
    spec: &mut Value,
) -> Result<()> {
    change(
        spec_schema,
        SECRET,
        spec,
        &mut |path, text| match text.strip_prefix(MARK) {
            Some(_) => Ok(None),
            None => seal
                .seal(&place(context, path), text)
                .map(|s| Some(Value::String(format!("{MARK}{s}")))),
        },
    )
}

/// Opens every sealed text.
pub(crate) fn open_all(
    seal: &dyn Seal,
    spec_schema: &Value,
    context: &str,
    spec: &mut Value,
) -> Result<()> {
    open_word(seal, spec_schema, SECRET, context, spec)?;
    open_personal(seal, spec_schema, context, spec)
}

/// Opens what is personal, and leaves secrets sealed.
pub(crate) fn open_personal(
    seal: &dyn Seal,
    spec_schema: &Value,
    context: &str,
    spec: &mut Value,
) -> Result<()> {
    open_word(seal, spec_schema, PERSONAL, context, spec)
}

/// Opens what is personal for showing it; what cannot be opened here (another key, no key) is null.
pub(crate) fn show_personal(seal: &dyn Seal, spec_schema: &Value, context: &str, spec: &mut Value) {
    // Cannot fail: the closure returns no error.
    let _ = change(spec_schema, PERSONAL, spec, &mut |path, text| {
        Ok(text
            .strip_prefix(MARK)
            .map(|sealed| open_at(seal, context, path, sealed).map_or(Value::Null, Value::String)))
    });
}

/// Seals what is personal. A text that was there before keeps its sealed form, so that what has not changed is the same.
pub(crate) fn seal_personal(
    seal: &dyn Seal,
    spec_schema: &Value,
    context: &str,
    before: Option<&Value>,
    spec: &mut Value,
) -> Result<()> {
    change(spec_schema, PERSONAL, spec, &mut |path, text| {
        let was = before
            .and_then(|before| before.pointer(&pointer(path)))
            .and_then(Value::as_str);
        let opened = was
            .and_then(|was| was.strip_prefix(MARK))
            .and_then(|sealed| open_at(seal, context, path, sealed).ok());
        match (was, opened) {
            (Some(was), Some(opened)) if opened == text => Ok(Some(was.into())),
            _ => seal
                .seal(&place(context, path), text)
                .map(|s| Some(Value::String(format!("{MARK}{s}")))),
        }
    })
}

fn open_word(
    seal: &dyn Seal,
    spec_schema: &Value,
    word: &str,
    context: &str,
    spec: &mut Value,
) -> Result<()> {
    change(
        spec_schema,
        word,
        spec,
        &mut |path, text| match text.strip_prefix(MARK) {
            Some(sealed) => open_at(seal, context, path, sealed).map(|s| Some(Value::String(s))),
            None => Ok(None),
        },
    )
}

/// A value that may be shown: what is sealed in it is only said to be sealed.
pub(crate) fn blunt(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with(MARK) => MARK.into(),
        Value::Array(list) => list.iter().map(blunt).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), blunt(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Replaces every secret by null.
pub(crate) fn mask_all(spec_schema: &Value, spec: &mut Value) {
    // Masking cannot fail: the closure returns no error.
    let _ = change(spec_schema, SECRET, spec, &mut |_, _| Ok(Some(Value::Null)));
}

fn change(
    spec_schema: &Value,
    word: &str,
    spec: &mut Value,
    with: &mut dyn FnMut(&str, &str) -> Result<Option<Value>>,
) -> Result<()> {
    let mut places = Vec::new();
    schema::walk(spec_schema, word, spec, &mut |path, _, value| {
        if let Some(text) = value.as_str() {
            places.push((path.to_owned(), text.to_owned()));
        }
    });
    for (path, text) in places {
        if let Some(new) = with(&path, &text)?
            && let Some(slot) = spec.pointer_mut(&pointer(&path))
        {
            *slot = new;
        }
    }
    Ok(())
}

/// A dotted path (`disks[0].key`) as a JSON pointer.
pub(crate) fn pointer(path: &str) -> String {
    let mut out = String::new();
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let mut bits = part.split('[');
        out.push('/');
        out.push_str(bits.next().unwrap_or_default());
        for index in bits {
            out.push('/');
            out.push_str(index.trim_end_matches(']'));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Turns texts round and never seals one twice alike.
    struct Turning(std::sync::atomic::AtomicU32);

    impl Seal for Turning {
        fn seal(&self, context: &str, plain: &str) -> Result<String> {
            let n = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(format!(
                "{n}:{context}:{}",
                plain.chars().rev().collect::<String>()
            ))
        }
        fn open(&self, context: &str, sealed: &str) -> Result<String> {
            let mut parts = sealed.splitn(3, ':').skip(1);
            match (parts.next(), parts.next()) {
                (Some(c), Some(text)) if c == context => Ok(text.chars().rev().collect()),
                _ => Err(Error::internal("another object's")),
            }
        }
    }

    fn schema() -> Value {
        json!({ "properties": {
            "email": { "type": "string", "x-personal": true },
            "phones": { "type": "array", "items": { "type": "string", "x-personal": true } },
            "pin": { "type": "string", "x-secret": true },
            "city": { "type": "string" },
        } })
    }

    #[test]
    fn a_sealed_text_comes_from_the_store_or_not_at_all() {
        let stored = json!({ "pin": "$sealed:1:u1:87" });
        let cases = [
            (None, json!({ "pin": "$sealed:1:u1:87" }), 1),
            (Some(&stored), stored.clone(), 0),
            (Some(&stored), json!({ "pin": "$sealed:junk" }), 1),
            (
                Some(&stored),
                json!({ "pin": "new", "city": "$sealed:x" }),
                0,
            ),
        ];
        for (before, spec, wrong) in cases {
            assert_eq!(check_kept(&schema(), before, &spec).len(), wrong, "{spec}");
        }
    }

    #[test]
    fn what_is_personal_is_sealed_at_rest_and_shown() {
        let seal = Turning(Default::default());
        let plain =
            json!({ "email": "ann@example.org", "phones": ["123"], "pin": "78", "city": "Bonn" });
        let mut stored = plain.clone();
        seal_all(&seal, &schema(), "u1", &mut stored).unwrap();
        seal_personal(&seal, &schema(), "u1", None, &mut stored).unwrap();
        for word in ["ann@example.org", "123", "78"] {
            assert!(!stored.to_string().contains(word), "{stored}");
        }
        assert_eq!(stored["city"], "Bonn");
        let mut shown = stored.clone();
        mask_all(&schema(), &mut shown);
        show_personal(&seal, &schema(), "u1", &mut shown);
        assert_eq!(shown["email"], "ann@example.org");
        assert_eq!(shown["phones"], json!(["123"]));
        assert_eq!(shown["pin"], Value::Null);
        let mut opened = stored.clone();
        open_all(&seal, &schema(), "u1", &mut opened).unwrap();
        assert_eq!(opened, plain);
    }

    #[test]
    fn what_has_not_changed_keeps_its_sealed_form() {
        let seal = Turning(Default::default());
        let mut old = json!({ "email": "a", "phones": ["1", "2"] });
        seal_personal(&seal, &schema(), "u", None, &mut old).unwrap();
        let mut new = json!({ "email": "a", "phones": ["1", "3"] });
        seal_personal(&seal, &schema(), "u", Some(&old), &mut new).unwrap();
        assert_eq!(old["email"], new["email"]);
        assert_eq!(old["phones"][0], new["phones"][0]);
        assert_ne!(old["phones"][1], new["phones"][1]);
    }

    #[test]
    fn what_was_sealed_for_another_object_is_not_shown() {
        let seal = Turning(Default::default());
        let mut stored = json!({ "email": "a" });
        seal_personal(&seal, &schema(), "u1", None, &mut stored).unwrap();
        show_personal(&seal, &schema(), "u2", &mut stored);
        assert_eq!(stored["email"], Value::Null);
        let looks = json!({ "email": format!("{MARK}x") });
        assert_eq!(check_plain(&schema(), PERSONAL, &looks).len(), 1);
    }
    #[test]
    fn a_text_is_bound_to_its_field_and_key_but_not_to_its_place_in_a_list() {
        assert_eq!(place("u1", "versions.3.value"), "u1#versions.3.value");
        assert_eq!(place("u1", "disks[12].key"), place("u1", "disks[3].key"));
        let seal = Turning(Default::default());
        let schema = json!({ "properties": { "v": { "additionalProperties": { "type": "string", "x-secret": true } } } });
        let mut spec = json!({ "v": { "1": "one", "2": "two" } });
        seal_all(&seal, &schema, "u", &mut spec).unwrap();
        let mut moved = spec.clone();
        moved["v"]["1"] = spec["v"]["2"].clone();
        assert!(open_all(&seal, &schema, "u", &mut moved).is_err());
        open_all(&seal, &schema, "u", &mut spec).unwrap();
        assert_eq!(spec["v"]["2"], "two");
    }
}
