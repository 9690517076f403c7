//! Pages: the panel's files when they were built in, else one page that says how; and the API's docs.
//!
//! No page loads anything from anywhere else, and none has a script.

use crate::app::Call;
use crate::reply::{self, Outcome};
use axum::response::Response;
use http::{HeaderName, StatusCode};
use model::{Error, Kind, Scope};
use runtime::Registry;
use std::fmt::Write;

const PANEL: &str = include_str!("panel.html");
const STYLE: &str = include_str!("style.css");
/// No script, no frame, nothing from elsewhere; the style stands in the page.
const POLICY: &str = "default-src 'none'; style-src 'sha256-";

/// A file of the panel. Anybody may load it: it shows nothing without a login.
pub(crate) fn panel(path: &str) -> Outcome {
    match path {
        "/" | "/index.html" => Ok(page(PANEL.replace("/*style*/", STYLE))),
        _ => Err(Error::not_found(format!("there is nothing at {path}"))
            .hint("the panel is at /, the API at /api/v1")
            .into()),
    }
}

/// `/api/docs`.
pub(crate) fn docs(call: &Call) -> Outcome {
    call.need("registry", "read")?;
    Ok(page(describe(call.app.cx.registry())))
}

fn page(html: String) -> Response {
    use base64::Engine as _;
    use sha2::Digest as _;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(STYLE));
    let mut response = reply::raw(StatusCode::OK, html.into(), "text/html; charset=utf-8");
    reply::set(
        &mut response,
        HeaderName::from_static("content-security-policy"),
        &format!("{POLICY}{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    );
    response
}

/// Every kind with its paths, fields and actions.
fn describe(registry: &Registry) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>DebVisor API</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>\
         <main><h1>DebVisor API v1</h1>\
         <p>The machine-readable description is <a href=\"/api/openapi.json\">OpenAPI 3.1</a>; \
         the declaration itself is <a href=\"/api/v1/registry\">the registry</a>.</p><nav><ul>"
    );
    for declared in registry.iter() {
        let kind = declared.kind();
        let _ = write!(out, "<li><a href=\"#{0}\">{0}</a></li>", escape(kind.name));
    }
    out.push_str("</ul></nav>");
    for declared in registry.iter() {
        section(&mut out, declared.kind(), &declared.spec);
    }
    out.push_str("</main></html>");
    out
}

fn section(out: &mut String, kind: &Kind, spec: &serde_json::Value) {
    let path = match kind.scope {
        Scope::Project => format!("/api/v1/projects/{{project}}/{}", kind.plural),
        _ => format!("/api/v1/{}", kind.plural),
    };
    let _ = write!(
        out,
        "<section id=\"{}\"><h2>{}</h2><p>{}</p><p><code>{}</code></p><table><caption>Fields of spec</caption>\
         <thead><tr><th>Field</th><th>Type</th><th>Meaning</th></tr></thead><tbody>",
        escape(kind.name),
        escape(kind.title),
        escape(kind.doc),
        escape(&path),
    );
    fields(out, spec, "", 0);
    out.push_str("</tbody></table>");
    if !kind.actions.is_empty() {
        out.push_str("<h3>Actions</h3><dl>");
        for action in kind.actions {
            let _ = write!(
                out,
                "<dt><code>POST …/actions/{}</code></dt><dd>{}</dd>",
                escape(action.verb),
                escape(action.doc)
            );
        }
        out.push_str("</dl>");
    }
    if !kind.streams.is_empty() {
        out.push_str("<h3>Streams</h3><dl>");
        for stream in kind.streams {
            let _ = write!(
                out,
                "<dt><code>…/streams/{}</code></dt><dd>{}</dd>",
                escape(stream.name),
                escape(stream.doc)
            );
        }
        out.push_str("</dl>");
    }
    out.push_str("</section>");
}

fn fields(out: &mut String, schema: &serde_json::Value, prefix: &str, depth: usize) {
    let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) else {
        return;
    };
    for (name, part) in properties {
        let path = format!("{prefix}{name}");
        let kind = match part.get("type") {
            Some(serde_json::Value::String(one)) => one.clone(),
            Some(serde_json::Value::Array(list)) => list
                .iter()
                .filter_map(|v| v.as_str())
                .collect::<Vec<_>>()
                .join(" or "),
            _ => String::new(),
        };
        let doc = part
            .get("description")
            .and_then(|d| d.as_str())
            .unwrap_or_default();
        let _ = write!(
            out,
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            escape(&path),
            escape(&kind),
            escape(doc)
        );
        if depth < 4 {
            fields(out, part, &format!("{path}."), depth + 1);
            if let Some(items) = part.get("items") {
                fields(out, items, &format!("{path}[]."), depth + 1);
            }
        }
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
