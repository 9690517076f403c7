//! What a request shows for who sends it, besides what the transport proves.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use model::{Error, Result};
use runtime::Proof;

/// Reads it. Two of the same header are refused: another program on the way might believe the other one.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Proof<'_>>> {
    let unreadable = || {
        Error::unauthenticated("the Authorization header is not accepted")
            .hint("send one `Authorization: Bearer TOKEN`")
    };
    let mut all = headers.get_all(AUTHORIZATION).iter();
    if let Some(header) = all.next() {
        if all.next().is_some() {
            return Err(unreadable());
        }
        let text = header.to_str().map_err(|_| unreadable())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(unreadable)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(unreadable());
        }
        return Ok(Some(Proof::Bearer(token.trim())));
    }
    let mut found = None;
    for header in headers.get_all(COOKIE) {
        let Ok(text) = header.to_str() else { continue };
        for pair in text.split(';') {
            let Some((name, value)) = pair.trim().split_once('=') else {
                continue;
            };
            if name == runtime::COOKIE {
                if found.is_some() {
                    return Err(Error::unauthenticated("there are two login cookies"));
                }
                found = Some(Proof::Cookie(value));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut out = HeaderMap::new();
        for (name, value) in list {
            out.append(*name, value.parse().unwrap());
        }
        out
    }

    fn shown(list: &[(&'static str, &str)]) -> String {
        match read(&headers(list)) {
            Ok(None) => "nothing".into(),
            Ok(Some(Proof::Bearer(token))) => format!("bearer {token}"),
            Ok(Some(Proof::Cookie(value))) => format!("cookie {value}"),
            Ok(Some(Proof::Certificate(name))) => format!("certificate {name}"),
            Err(error) => error.status().to_string(),
        }
    }

    #[test]
    fn a_token_a_cookie_or_nothing() {
        assert_eq!(shown(&[]), "nothing");
        assert_eq!(shown(&[("authorization", "bearer abc")]), "bearer abc");
        assert_eq!(
            shown(&[("cookie", "a=1; __Host-debvisor=x; b=2")]),
            "cookie x"
        );
        assert_eq!(shown(&[("cookie", "xx__Host-debvisor=x")]), "nothing");
        // A token was sent on purpose, a cookie by itself.
        let both = [
            ("authorization", "Bearer t"),
            ("cookie", "__Host-debvisor=x"),
        ];
        assert_eq!(shown(&both), "bearer t");
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for wrong in ["Basic YTpi", "Bearer", "Bearer ", "", "Bearer\u{7f}"] {
            let Ok(value) = http::HeaderValue::from_str(wrong) else {
                continue;
            };
            let mut one = HeaderMap::new();
            one.insert("authorization", value);
            assert_eq!(read(&one).err().map(|e| e.status()), Some(401), "{wrong:?}");
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(shown(&twice), "401");
        let cookies = [
            ("cookie", "__Host-debvisor=a"),
            ("cookie", "__Host-debvisor=b"),
        ];
        assert_eq!(shown(&cookies), "401");
    }
}
