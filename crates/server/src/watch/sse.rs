//! Server-sent events (WHATWG HTML, section 9.2).

use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT;

/// The media type.
pub(crate) const TYPE: &str = "text/event-stream";
/// A comment, which clients ignore and which shows that the line is alive.
pub(crate) const PING: &[u8] = b": ping\n\n";

/// Whether a client asks for them.
pub(crate) fn wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.split(',').any(|one| one.trim().starts_with(TYPE)))
}

/// One event.
pub(crate) fn frame(event: &str, id: Option<&str>, data: &str) -> Bytes {
    let mut out = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        out.push_str("id: ");
        out.push_str(id);
        out.push('\n');
    }
    out.push_str("event: ");
    out.push_str(event);
    out.push('\n');
    // A line break would end the field.
    for line in data.split(['\n', '\r']) {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_with_line_breaks_stays_one_event() {
        assert_eq!(
            frame("data", Some("7"), "a\nb"),
            "id: 7\nevent: data\ndata: a\ndata: b\n\n"
        );
    }
}
