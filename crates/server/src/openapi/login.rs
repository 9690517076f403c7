//! The steps of a login by which a browser goes to another site and comes back: what a page or a program must know to show
//! buttons and to send somebody there. What the steps do is told by whoever answers them.

use super::parts::{body, content, query, responses};
use serde_json::{Map, Value, json};

/// Their paths.
pub(super) fn paths(out: &mut Map<String, Value>) {
    let text = || json!({ "type": "string" });
    let any = || content("application/json", &json!({}));
    let step = |id: &str, doc: &str| json!({ "operationId": id, "tags": ["system"], "summary": doc, "security": [{}] });
    let with = |mut step: Value, more: Value| {
        if let (Some(step), Value::Object(more)) = (step.as_object_mut(), more) {
            step.extend(more);
        }
        step
    };
    out.insert(
        "/api/v1/auth/realms".into(),
        json!({ "post": with(
            step("listLoginRealms", "By which realms somebody may log in, and which is offered first."),
            json!({ "responses": responses("200", "`default`, and `realms` with `name`, `title` and `type`.", any(), true) }),
        ) }),
    );
    out.insert(
        "/api/v1/auth/oidc/begin".into(),
        json!({ "get": with(
            step("beginLogin", "Send a browser to the provider of a realm."),
            json!({
                "parameters": [
                    query("realm", text(), "Which; the default one, or the only one, when absent."),
                    query("return", text(), "Where it goes on: a page of this server, `http://127.0.0.1:PORT/PATH` of a program, or `typed`."),
                    query("challenge", text(), "S256 of the text that a program will show with the ticket (RFC 7636); not for pages."),
                    query("remember", json!({ "type": "boolean" }), "Whether the session lasts a week."),
                ],
                "responses": responses("303", "At the provider.", any(), true),
            }),
        ) }),
    );
    let mut back = responses(
        "303",
        "Where it was to go on; a ticket goes with it, or a cookie.",
        any(),
        true,
    );
    back["200"] = json!({ "description": "The ticket, to be typed in.", "content": any() });
    out.insert(
        "/api/v1/auth/oidc/callback".into(),
        json!({ "get": with(
            step("endLogin", "Where the provider sends a browser back to."),
            json!({
                "parameters": [
                    query("state", text(), "As it was sent."),
                    query("code", text(), "The code of the provider."),
                    query("iss", text(), "The issuer (RFC 9207)."),
                    query("error", text(), "Why there is no code."),
                ],
                "responses": back,
            }),
        ) }),
    );
    out.insert(
        "/api/v1/auth/oidc/finish".into(),
        json!({ "post": with(
            step("tradeLoginTicket", "Trade a ticket for a session."),
            json!({
                "requestBody": body("application/json", &json!({
                    "type": "object", "required": ["ticket"],
                    "properties": {
                        "ticket": text(),
                        "verifier": { "type": "string", "description": "The text that the challenge was made from." },
                        "code": { "type": "string", "description": "A code of a second factor, after `state: second_factor`." },
                    }
                })),
                "responses": responses("200", "`state`, and tokens or a cookie.", any(), true),
            }),
        ) }),
    );
    out.insert(
        "/api/v1/auth/oidc/backchannel-logout".into(),
        json!({ "post": with(
            step("endSessionsOfProvider", "A provider says that somebody is logged out there (OpenID Connect Back-Channel Logout)."),
            json!({
                "requestBody": body("application/x-www-form-urlencoded", &json!({
                    "type": "object", "required": ["logout_token"], "properties": { "logout_token": text() }
                })),
                "responses": responses("200", "How many sessions were ended.", any(), true),
            }),
        ) }),
    );
}
