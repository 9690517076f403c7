//! The steps of a login, and the questions about rights: what a page or a program must send, and what it gets. What the
//! steps do is told by whoever answers them.

use super::parts::{body, content, query, responses};
use serde_json::{Map, Value, json};

/// A step that is posted as JSON and answered so.
struct Step {
    /// Its path below `/api/v1/auth/`.
    path: &'static str,
    id: &'static str,
    doc: &'static str,
    /// Whether who asks must be somebody already.
    known: bool,
    /// Texts that must be there.
    must: &'static [(&'static str, &'static str)],
    /// What may be there: `text` unless a word behind a blank says otherwise.
    may: &'static [(&'static str, &'static str)],
    answer: &'static str,
}

const IN: &str = "`state: in`, `user`, `session`, `expires`, and tokens or a cookie; or `state: second_factor`, and what can be shown.";
const CODE: (&str, &str) = ("code", "A code of a second factor, or one on paper.");
const CREDENTIAL: (&str, &str) = (
    "credential object",
    "The answer of a security key (WebAuthn), as the browser gives it.",
);
const MAIL_CODE: (&str, &str) = (
    "mail_code",
    "The code of a letter, of who has no second factor.",
);
const COOKIE: (&str, &str) = (
    "cookie boolean",
    "A cookie in the place of tokens, for a browser.",
);
const TOKEN: (&str, &str) = (
    "token",
    "The token of a login that waits for a second factor to be enrolled.",
);
const ACTION: (&str, &str) = ("action", "A privilege: `vm.start`.");
const OBJECT: (&str, &str) = (
    "object",
    "`/` (when absent), `project/NAME`, `KIND/NAME` or `KIND/PROJECT/NAME`.",
);
const FROM: (&str, &str) = ("from", "As if he came from this address.");
const MFA: (&str, &str) = ("mfa boolean", "As if he had just proved a second factor.");

const STEPS: &[Step] = &[
    Step {
        path: "login",
        id: "logIn",
        doc: "Log in by a password; then again with a second factor, when that is asked for.",
        known: false,
        must: &[
            ("user", "The name, or `name@realm`."),
            ("password", "The password."),
        ],
        may: &[
            ("realm", "Whose user, when the name alone does not say it."),
            CODE,
            CREDENTIAL,
            MAIL_CODE,
            ("remember boolean", "For a week, and not for a day."),
            COOKIE,
        ],
        answer: IN,
    },
    Step {
        path: "refresh",
        id: "refreshLogin",
        doc: "Trade the token for the next pair of tokens. Each is good once.",
        known: false,
        must: &[("refresh", "The token for the next pair.")],
        may: &[],
        answer: "The next pair.",
    },
    Step {
        path: "logout",
        id: "logout",
        doc: "End one's session.",
        known: true,
        must: &[],
        may: &[],
        answer: "`provider_logout` is where the provider of the login logs out, when it has such a place.",
    },
    Step {
        path: "passwd",
        id: "changePassword",
        doc: "Change one's password and end one's other sessions.",
        known: true,
        must: &[
            ("old", "The password until now."),
            ("new", "The next one: 8 to 128 characters."),
        ],
        may: &[],
        answer: "`sessions_ended`, and `breached`: what a list of lost passwords said.",
    },
    Step {
        path: "code",
        id: "askLoginCode",
        doc: "What a one-time code is for.",
        known: false,
        must: &[("code", "The code.")],
        may: &[],
        answer: "`for`: `first`, `certificate` or `reset`, and whose.",
    },
    Step {
        path: "first",
        id: "makeFirstAdministrator",
        doc: "Make the first administrator by the code of the first start. It is dead then.",
        known: false,
        must: &[
            ("code", "The code."),
            ("user", "His name."),
            ("password", "His password."),
        ],
        may: &[COOKIE],
        answer: IN,
    },
    Step {
        path: "reset",
        id: "resetPassword",
        doc: "Set a new password by a one-time code or the code of a link. It is dead then.",
        known: false,
        must: &[("code", "The code."), ("password", "The new password.")],
        may: &[COOKIE],
        answer: "`state: login`, or tokens.",
    },
    Step {
        path: "forgot",
        id: "forgotPassword",
        doc: "Have a link for a new password mailed. The answer is the same whether or not there is such a user.",
        known: false,
        must: &[("user", "A name or an e-mail address.")],
        may: &[],
        answer: "Nothing about anybody.",
    },
    Step {
        path: "mfa/begin",
        id: "beginProof",
        doc: "What a security key must answer to prove one's second factor again.",
        known: true,
        must: &[],
        may: &[],
        answer: "`webauthn`, for the browser.",
    },
    Step {
        path: "mfa/mail",
        id: "mailProof",
        doc: "Have a code mailed, when one has no second factor.",
        known: true,
        must: &[],
        may: &[],
        answer: "That it is on its way.",
    },
    Step {
        path: "mfa",
        id: "proveSecondFactor",
        doc: "Prove one's second factor again, for what asks for a fresh proof.",
        known: true,
        must: &[],
        may: &[CODE, CREDENTIAL, MAIL_CODE],
        answer: "`state: in`, and by which `factor`.",
    },
    Step {
        path: "totp/begin",
        id: "beginApp",
        doc: "A key for an app that makes codes.",
        known: false,
        must: &[],
        may: &[TOKEN],
        answer: "`secret`, `base32` and `uri`, for the app.",
    },
    Step {
        path: "totp/confirm",
        id: "confirmApp",
        doc: "Enrol the app: its first code shows that it has the key.",
        known: false,
        must: &[
            ("secret", "As `totp/begin` gave it."),
            ("code", "The first code."),
        ],
        may: &[TOKEN],
        answer: "`recovery`: codes on paper, when there were none.",
    },
    Step {
        path: "webauthn/begin",
        id: "beginSecurityKey",
        doc: "What a browser makes a security key with.",
        known: false,
        must: &[],
        may: &[TOKEN],
        answer: "`webauthn`, for the browser.",
    },
    Step {
        path: "webauthn/confirm",
        id: "confirmSecurityKey",
        doc: "Enrol the security key that the browser made.",
        known: false,
        must: &[],
        may: &[CREDENTIAL, TOKEN],
        answer: "`recovery`: codes on paper, when there were none.",
    },
    Step {
        path: "recovery",
        id: "makeRecoveryCodes",
        doc: "New codes on paper; the old ones are good no more.",
        known: true,
        must: &[],
        may: &[],
        answer: "`recovery`: the codes.",
    },
    Step {
        path: "factors",
        id: "listOwnFactors",
        doc: "One's second factors.",
        known: true,
        must: &[],
        may: &[],
        answer: "The factors.",
    },
    Step {
        path: "factors/remove",
        id: "removeOwnFactor",
        doc: "Take one of one's second factors away.",
        known: true,
        must: &[("factor", "Its name.")],
        may: &[],
        answer: "That it is gone.",
    },
    Step {
        path: "access/check",
        id: "checkAccess",
        doc: "Whether somebody may do something, and which grants say so.",
        known: true,
        must: &[ACTION],
        may: &[
            OBJECT,
            ("user", "About whom; oneself when absent."),
            FROM,
            MFA,
        ],
        answer: "`allowed`, `verdict`, and `grants` with what each says and why it does not count.",
    },
    Step {
        path: "access/who-can",
        id: "whoCan",
        doc: "Which users may do something, now or under conditions.",
        known: true,
        must: &[ACTION],
        may: &[OBJECT, FROM, MFA],
        answer: "`users`: for each whether he may now, and under what `conditions`.",
    },
    Step {
        path: "access/matrix",
        id: "accessMatrix",
        doc: "Every privilege, and whether somebody has it.",
        known: true,
        must: &[],
        may: &[OBJECT, ("user", "About whom; oneself when absent.")],
        answer: "`privileges`, each `action` with whether it is `allowed`.",
    },
];

impl Step {
    fn operation(&self) -> Value {
        let mut properties = Map::new();
        for (name, doc) in self.must.iter().chain(self.may) {
            let (name, sort) = name.split_once(' ').unwrap_or((name, "string"));
            let field = json!({ "type": sort, "description": doc });
            properties.insert(name.to_owned(), field);
        }
        let must: Vec<&str> = self.must.iter().map(|(name, _)| *name).collect();
        let mut schema = json!({ "type": "object", "properties": properties });
        if !must.is_empty() {
            schema["required"] = json!(must);
        }
        let answer = content("application/json", &json!({}));
        let mut step = json!({
            "operationId": self.id, "tags": ["system"], "summary": self.doc,
            "requestBody": body("application/json", &schema),
            "responses": responses("200", self.answer, answer, true),
        });
        if !self.known {
            step["security"] = json!([{}]);
        }
        step
    }
}

/// Their paths.
pub(super) fn paths(out: &mut Map<String, Value>) {
    for step in STEPS {
        out.insert(
            format!("/api/v1/auth/{}", step.path),
            json!({ "post": step.operation() }),
        );
    }
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
