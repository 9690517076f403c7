//! Secret fields: sealed at rest, masked in every answer.

use model::schema::{self, SECRET};
use model::{Error, Result, Violation};
use serde_json::Value;

/// How a sealed text begins in a stored spec.
pub(crate) const MARK: &str = "$sealed:";

/// Seals and opens secret fields. The real one is the store's key file; its context binds a text to its object.
pub trait Seal: Send + Sync {
    /// Seals a text for one context.
    fn seal(&self, context: &str, plain: &str) -> Result<String>;
    /// Opens it again.
    fn open(&self, context: &str, sealed: &str) -> Result<String>;
}

/// The store's key file.
impl Seal for store::seal::Sealer {
    fn seal(&self, context: &str, plain: &str) -> Result<String> {
        store::seal::Sealer::seal(self, context, plain.as_bytes())
            .map_err(|e| Error::internal("a secret could not be sealed").because(e))
    }
    fn open(&self, context: &str, sealed: &str) -> Result<String> {
        let plain = self
            .unseal(context, sealed)
            .map_err(|e| Error::internal("a secret could not be opened").because(e))?;
        String::from_utf8(plain).map_err(|e| Error::internal("a secret is not text").because(e))
    }
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

/// Refuses plain texts that look sealed.
pub(crate) fn check_plain(spec_schema: &Value, spec: &Value) -> Vec<Violation> {
    let mut out = Vec::new();
    schema::walk(spec_schema, SECRET, spec, &mut |path, _, value| {
        if value.as_str().is_some_and(|s| s.starts_with(MARK)) {
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
        spec,
        &mut |text| match text.strip_prefix(MARK) {
            Some(_) => Ok(None),
            None => seal
                .seal(context, text)
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
    change(
        spec_schema,
        spec,
        &mut |text| match text.strip_prefix(MARK) {
            Some(sealed) => seal.open(context, sealed).map(|s| Some(Value::String(s))),
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
    let _ = change(spec_schema, spec, &mut |_| Ok(Some(Value::Null)));
}

fn change(
    spec_schema: &Value,
    spec: &mut Value,
    with: &mut dyn FnMut(&str) -> Result<Option<Value>>,
) -> Result<()> {
    let mut places = Vec::new();
    schema::walk(spec_schema, SECRET, spec, &mut |path, _, value| {
        if let Some(text) = value.as_str() {
            places.push((path.to_owned(), text.to_owned()));
        }
    });
    for (path, text) in places {
        if let Some(new) = with(&text)?
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
