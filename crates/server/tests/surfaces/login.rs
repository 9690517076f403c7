//! Logging in, over real sockets: the first administrator, passwords, second factors, sessions and their ends.

use crate::house::{House, set, told};
use identity::factor::totp;
use reqwest::{Client, Method};
use runtime::Authority;
use runtime::setting::BREACHED_PASSWORDS;
use serde_json::{Value, json};
use std::time::Duration;
use store::{Page, Prefix};

pub const PASSWORD: &str = "correct horse battery";

/// Somebody without a proof says a word of a conversation.
pub async fn say(house: &House, step: &str, body: Value) -> (u16, Value) {
    let asked = house
        .stranger()
        .post(house.url(&format!("/api/v1/auth/{step}")))
        .json(&body);
    told(asked.send().await.unwrap()).await
}

/// With a token.
pub async fn with(
    house: &House,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let mut asked = house
        .stranger()
        .request(method, house.url(path))
        .bearer_auth(token);
    if let Some(body) = body {
        asked = asked.json(&body);
    }
    told(asked.send().await.unwrap()).await
}

pub async fn get(house: &House, token: &str, path: &str) -> (u16, Value) {
    with(house, token, Method::GET, path, None).await
}

pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

fn now(house: &House) -> i64 {
    house.cx.clock().now().millis()
}

/// Makes a user with a password, as an administrator does: with a code. Gives what he got when he set it.
pub async fn user(house: &House, name: &str) -> Value {
    let body = json!({ "metadata": { "name": name }, "spec": {} });
    let (status, made) = house.post("/api/v1/users", body).await;
    assert_eq!(status, 201, "{made}");
    let code = reset_code(house, name).await;
    let (status, said) = say(
        house,
        "reset",
        json!({ "code": code, "password": PASSWORD }),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    said
}

async fn reset_code(house: &House, name: &str) -> String {
    let path = format!("/api/v1/users/{name}/streams/reset");
    let (status, ticket) = house.post(&format!("{path}/ticket"), json!({})).await;
    assert_eq!(status, 201, "{ticket}");
    let ticket = text(&ticket, "ticket").to_owned();
    let (status, code) = house.get(&format!("{path}?ticket={ticket}")).await;
    assert_eq!(status, 200, "{code}");
    code.as_str().unwrap().trim().to_owned()
}

pub async fn login(house: &House, name: &str, password: &str) -> (u16, Value) {
    say(
        house,
        "login",
        json!({ "user": name, "password": password }),
    )
    .await
}

/// Enrols an app for somebody with this token. Gives its key and the codes on paper.
pub async fn enrol(house: &House, token: &str) -> (Vec<u8>, Vec<String>) {
    let (status, begun) = say(house, "totp/begin", json!({ "token": token })).await;
    assert_eq!(status, 200, "{begun}");
    let key = hex::decode(text(&begun, "secret")).unwrap();
    let code = totp::code(&key, totp::step(now(house)));
    let body = json!({ "token": token, "secret": begun["secret"], "code": code });
    let (status, done) = say(house, "totp/confirm", body.clone()).await;
    assert_eq!(status, 200, "{done}");
    let codes = done["recovery"].as_array().unwrap();
    let codes = codes.iter().map(|c| c.as_str().unwrap().to_owned());
    (key, codes.collect())
}

#[tokio::test]
async fn the_first_code_makes_the_first_administrator_and_is_dead() {
    let house = House::open().await;
    let code = house.ca.make_code(&house.ca.account()).unwrap().code;
    let (status, asked) = say(&house, "code", json!({ "code": code })).await;
    assert_eq!((status, text(&asked, "for")), (200, "first"));
    let body = json!({ "code": code, "user": "Anna", "password": PASSWORD });
    // What is refused leaves the code good.
    let short = json!({ "code": code, "user": "anna", "password": "short" });
    let (status, refused) = say(&house, "first", short).await;
    assert_eq!(status, 422, "{refused}");
    let (status, wrong) = say(
        &house,
        "first",
        json!({ "code": "0".repeat(28), "user": "eve", "password": PASSWORD }),
    )
    .await;
    assert_eq!(status, 401, "{wrong}");
    let (status, said) = say(&house, "first", body.clone()).await;
    assert_eq!(status, 200, "{said}");
    // An administrator needs a second factor before he is in.
    assert_eq!(text(&said, "state"), "enrol");
    let token = text(&said, "access");
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);
    // Before it, so that the next step is not reached by the time this test takes.
    let step = totp::step(now(&house));
    let (key, codes) = enrol(&house, token).await;
    assert_eq!(codes.len(), 10);
    let (status, me) = get(&house, token, "/api/v1/whoami").await;
    assert_eq!((status, text(&me, "name")), (200, "anna"), "{me}");
    assert!(me["mfa"].is_string(), "{me}");
    // He may everything.
    let (status, _) = with(
        &house,
        token,
        Method::POST,
        "/api/v1/users",
        Some(json!({ "metadata": { "name": "bob" }, "spec": {} })),
    )
    .await;
    assert_eq!(status, 201);
    // The code is dead, for this and for anything.
    for step in ["code", "first"] {
        assert_eq!(say(&house, step, body.clone()).await.0, 401, "{step}");
    }
    let (status, again) = say(
        &house,
        "login",
        json!({ "user": "anna", "password": PASSWORD }),
    )
    .await;
    assert_eq!(
        (status, text(&again, "state")),
        (200, "second_factor"),
        "{again}"
    );
    assert!(again.get("access").is_none());
    // The code that enrolled the app is used up; the next one is good, once.
    for (code, good) in [
        (totp::code(&key, step), 401),
        (totp::code(&key, step + 1), 200),
        (totp::code(&key, step + 1), 401),
    ] {
        let body = json!({ "user": "anna", "password": PASSWORD, "code": code });
        assert_eq!(say(&house, "login", body).await.0, good);
    }
    // A code on paper is good once.
    for good in [200, 401] {
        let body = json!({ "user": "anna", "password": PASSWORD, "code": codes[3].to_lowercase() });
        assert_eq!(say(&house, "login", body).await.0, good);
    }
    // The last administrator stays.
    for (method, path) in [
        (Method::POST, "/api/v1/users/anna/actions/disable"),
        (Method::DELETE, "/api/v1/users/anna"),
    ] {
        let asked = house
            .ask(method, path)
            .json(&json!({}))
            .send()
            .await
            .unwrap();
        let (status, refused) = told(asked).await;
        assert_eq!(status, 409, "{refused}");
    }
}

#[tokio::test]
async fn tokens_are_traded_once_and_a_second_time_ends_the_session() {
    let house = House::open().await;
    let first = user(&house, "bob").await;
    let (access, refresh) = (text(&first, "access"), text(&first, "refresh"));
    assert_eq!(get(&house, access, "/api/v1/whoami").await.0, 200);
    let (status, second) = say(&house, "refresh", json!({ "refresh": refresh })).await;
    assert_eq!(status, 200, "{second}");
    // Both tokens for requests are good: some requests may be under way.
    for token in [access, text(&second, "access")] {
        assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 200);
    }
    // What looks like a token is none; nor is one used for something else.
    let cut = &access[..access.len() - 1];
    let other = text(&second, "refresh");
    for wrong in [cut, other, "dva_", "x", &access.replace("dva_", "dvc_")] {
        let (status, said) = get(&house, wrong, "/api/v1/whoami").await;
        assert_eq!(
            (status, text(&said, "code")),
            (401, "UNAUTHENTICATED"),
            "{wrong}"
        );
    }
    assert_eq!(
        say(&house, "refresh", json!({ "refresh": access })).await.0,
        401
    );
    // Somebody has a copy of the first one: nobody is in any more.
    assert_eq!(
        say(&house, "refresh", json!({ "refresh": refresh }))
            .await
            .0,
        401
    );
    for token in [access, text(&second, "access")] {
        assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);
    }
    assert_eq!(
        say(&house, "refresh", json!({ "refresh": other })).await.0,
        401
    );
    let rows = house.trail.last(1000).await;
    assert!(rows.iter().any(|row| row.action == "auth.token.reused"));
}

#[tokio::test]
async fn each_step_that_is_described_is_there() {
    let house = House::open().await;
    let described = server::openapi(house.cx.registry());
    let paths = described["paths"].as_object().unwrap();
    let steps: Vec<&str> = paths
        .iter()
        .filter(|(_, item)| item.get("post").is_some())
        .filter_map(|(path, _)| path.strip_prefix("/api/v1/auth/"))
        .collect();
    for step in [
        "login",
        "mfa/begin",
        "factors/remove",
        "access/who-can",
        "oidc/finish",
    ] {
        assert!(steps.contains(&step), "{step} in {steps:?}");
    }
    for step in steps {
        let (status, problem) = say(&house, step, json!({})).await;
        let unknown = problem["detail"].as_str().unwrap_or_default();
        assert!(
            status != 405 && !unknown.contains("there is no step"),
            "{step}: {problem}"
        );
        assert!(
            !unknown.contains("there is no question"),
            "{step}: {problem}"
        );
    }
    // What must be there is asked for, and by that name.
    for step in ["login", "refresh", "code", "first", "reset", "forgot"] {
        let schema = "/post/requestBody/content/application~1json/schema/required/0";
        let must = paths[&format!("/api/v1/auth/{step}")].pointer(schema);
        let (status, problem) = say(&house, step, json!({})).await;
        assert_eq!(status, 422, "{step}: {problem}");
        assert_eq!(Some(&problem["violations"][0]["field"]), must, "{step}");
    }
}

#[tokio::test]
async fn two_authorization_headers_are_refused() {
    let house = House::open().await;
    let me = user(&house, "bob").await;
    let asked = house
        .stranger()
        .get(house.url("/api/v1/whoami"))
        .header("authorization", format!("Bearer {}", text(&me, "access")))
        .header("authorization", "Bearer other");
    assert_eq!(told(asked.send().await.unwrap()).await.0, 401);
}

#[tokio::test]
async fn a_logout_a_revocation_and_a_disabled_user_end_it_at_once() {
    let house = House::open().await;
    let first = user(&house, "bob").await;
    let token = text(&first, "access");
    let (status, out) = with(
        &house,
        token,
        Method::POST,
        "/api/v1/auth/logout",
        Some(json!({})),
    )
    .await;
    assert_eq!((status, text(&out, "state")), (200, "out"));
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);

    let (_, second) = login(&house, "bob", PASSWORD).await;
    let token = text(&second, "access");
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 200);
    let path = format!("/api/v1/sessions/{}", text(&second, "session"));
    let (status, session) = house.get(&path).await;
    assert_eq!(
        (status, &session["spec"]["material"]),
        (200, &Value::Null),
        "{session}"
    );
    assert_eq!(session["spec"]["address"], "127.0.0.1");
    let (status, _) = told(house.ask(Method::DELETE, &path).send().await.unwrap()).await;
    assert!(status < 300);
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);

    let (_, third) = login(&house, "bob", PASSWORD).await;
    let token = text(&third, "access");
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 200);
    let (status, _) = house
        .post("/api/v1/users/bob/actions/disable", json!({}))
        .await;
    assert_eq!(status, 202);
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);
    assert_eq!(
        say(&house, "refresh", json!({ "refresh": third["refresh"] }))
            .await
            .0,
        401
    );
    // As for somebody who is not there.
    let (status, said) = login(&house, "bob", PASSWORD).await;
    let (other, nobody) = login(&house, "nobody", PASSWORD).await;
    assert_eq!((status, other), (401, 401));
    assert_eq!(said["detail"], nobody["detail"]);
}

#[tokio::test]
async fn open_watches_end_with_the_login() {
    let house = House::open().await;
    let grant = |user: &str| json!({ "metadata": { "name": format!("{user}-reads") }, "spec": { "user": user, "role": "lamps" } });
    let role = json!({ "metadata": { "name": "lamps" }, "spec": { "allow": ["lamp.*"] } });
    assert_eq!(house.post("/api/v1/roles", role).await.0, 201);
    for (name, path) in [("bob", "disable"), ("carl", "revoke")] {
        let me = user(&house, name).await;
        let (status, made) = house.post("/api/v1/grants", grant(name)).await;
        assert_eq!(status, 201, "{made}");
        let mut watch = house
            .stranger()
            .get(house.url("/api/v1/watch?kind=lamp"))
            .bearer_auth(text(&me, "access"))
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap();
        assert_eq!(watch.status(), 200);
        if path == "disable" {
            house
                .post("/api/v1/users/bob/actions/disable", json!({}))
                .await;
        } else {
            let path = format!("/api/v1/sessions/{}", text(&me, "session"));
            house.ask(Method::DELETE, &path).send().await.unwrap();
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), async {
            while let Ok(Some(_)) = watch.chunk().await {}
        });
        assert!(ended.await.is_ok(), "the watch of {name} goes on");
    }
}

#[tokio::test]
async fn a_reset_works_once_and_ends_what_was_open() {
    let house = House::open().await;
    let first = user(&house, "bob").await;
    let code = reset_code(&house, "bob").await;
    assert_eq!(
        get(&house, text(&first, "access"), "/api/v1/whoami")
            .await
            .0,
        401
    );
    let (status, asked) = say(&house, "code", json!({ "code": code })).await;
    assert_eq!(
        (status, text(&asked, "for"), text(&asked, "user")),
        (200, "reset", "bob")
    );
    let body = json!({ "code": code, "password": "another password" });
    assert_eq!(say(&house, "reset", body.clone()).await.0, 200);
    assert_eq!(say(&house, "reset", body).await.0, 401);
    assert_eq!(login(&house, "bob", PASSWORD).await.0, 401);
    let (status, me) = login(&house, "bob", "another password").await;
    assert_eq!(status, 200);
    // His own way: with the old one.
    let token = text(&me, "access");
    for (old, new, status) in [
        ("wrong", PASSWORD, 401),
        ("another password", "short", 422),
        ("another password", PASSWORD, 200),
    ] {
        let body = Some(json!({ "old": old, "new": new }));
        let (got, said) = with(&house, token, Method::POST, "/api/v1/auth/passwd", body).await;
        assert_eq!(got, status, "{said}");
    }
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 200);
    assert_eq!(login(&house, "bob", PASSWORD).await.0, 200);
}

#[tokio::test]
async fn guessing_is_slowed_down_for_a_name_that_is_there_and_for_one_that_is_not() {
    let house = House::open().await;
    user(&house, "bob").await;
    let mut all = Vec::new();
    // Bob last: the right password must come while he is made to wait.
    for name in ["nobody", "bob"] {
        let mut answers = Vec::new();
        for _ in 0..5 {
            let (status, said) = login(&house, name, "wrong password").await;
            answers.push((status, said["code"].clone(), said["detail"].clone()));
        }
        all.push(answers);
    }
    assert_eq!(all[0], all[1], "who guesses learns nothing about names");
    let statuses: Vec<u16> = all[0].iter().map(|a| a.0).collect();
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    // The right one must wait as well, until an administrator forgives.
    assert_eq!(login(&house, "BOB", PASSWORD).await.0, 429);
    house
        .post("/api/v1/users/bob/actions/unlock", json!({}))
        .await;
    assert_eq!(login(&house, "Bob", PASSWORD).await.0, 200);
}

#[tokio::test]
async fn second_factors_are_tried_five_times() {
    let house = House::open().await;
    let me = user(&house, "bob").await;
    let (key, _) = enrol(&house, text(&me, "access")).await;
    for nth in 1..=6 {
        let body = json!({ "user": "bob", "password": PASSWORD, "code": "000000" });
        let (status, said) = say(&house, "login", body).await;
        assert_eq!(status, if nth <= 5 { 401 } else { 429 }, "{nth}: {said}");
    }
    let right = totp::code(&key, totp::step(now(&house)) + 1);
    let body = json!({ "user": "bob", "password": PASSWORD, "code": right });
    assert_eq!(say(&house, "login", body.clone()).await.0, 429);
    house
        .post("/api/v1/users/bob/actions/unlock", json!({}))
        .await;
    assert_eq!(say(&house, "login", body).await.0, 200);
}

#[tokio::test]
async fn a_browser_gets_a_cookie_and_no_token() {
    let house = House::open().await;
    user(&house, "bob").await;
    let client: Client = house.stranger();
    let body = json!({ "user": "bob", "password": PASSWORD, "cookie": true });
    let answer = client
        .post(house.url("/api/v1/auth/login"))
        .json(&body)
        .send()
        .await
        .unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let (_, said) = told(answer).await;
    assert!(
        said.get("access").is_none() && said.get("refresh").is_none(),
        "{said}"
    );
    for word in [
        "__Host-debvisor=dvc_",
        "Path=/",
        "Secure",
        "HttpOnly",
        "SameSite=Lax",
    ] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let ask = |cookie: String| {
        let asked = client
            .get(house.url("/api/v1/whoami"))
            .header("cookie", cookie);
        async move { told(asked.send().await.unwrap()).await }
    };
    assert_eq!(text(&ask(cookie.clone()).await.1, "name"), "bob");
    // A cookie is no token.
    let token = cookie.split('=').nth(1).unwrap();
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);
    let twice = format!("{cookie}; {cookie}");
    assert_eq!(ask(twice).await.0, 401);
}

#[tokio::test]
async fn names_that_look_alike_are_one() {
    let house = House::open().await;
    let make = |name: &str, username: &str| {
        house.post(
            "/api/v1/users",
            json!({ "metadata": { "name": name }, "spec": { "username": username } }),
        )
    };
    assert_eq!(make("paypal", "paypal").await.0, 201);
    for (name, username, status) in [
        ("x1", "paypa1", 409),
        ("x2", "PayPal", 409),
        ("x3", "p\u{430}ypal", 422),
        ("x4", "pay pal", 422),
        ("administrator", "boss", 422),
        ("x5", "palpay", 201),
    ] {
        let (got, said) = make(name, username).await;
        assert_eq!(got, status, "{username}: {said}");
    }
}

#[tokio::test]
async fn nothing_of_a_person_can_be_read_in_the_store() {
    let house = House::open().await;
    let me = user(&house, "bob").await;
    let token = text(&me, "access");
    let (_, codes) = enrol(&house, token).await;
    let patch = json!({ "spec": { "email": "bob@example.org", "full_name": "Robert Tables" } });
    let asked = house
        .ask(Method::PATCH, "/api/v1/users/bob")
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string());
    let (status, seen) = told(asked.send().await.unwrap()).await;
    assert_eq!(
        (status, &seen["spec"]["email"]),
        (200, &json!("bob@example.org")),
        "{seen}"
    );
    let (_, listed) = house.get("/api/v1/users").await;
    assert!(listed.to_string().contains("Robert Tables"));
    let code = reset_code(&house, "bob").await;
    let all = house.store.list(&Prefix::new(""), Page::ALL).await.unwrap();
    let all: String = all
        .entries
        .iter()
        .map(|e| format!("{} {}\n", e.key, String::from_utf8_lossy(&e.value)))
        .collect();
    assert!(all.contains("o/user/-/bob"));
    let plain_code = code.replace('-', "");
    let words = [
        PASSWORD,
        "$argon2id",
        token,
        &token[20..],
        text(&me, "refresh"),
        &codes[0],
        &codes[0].replace('-', ""),
        &code,
        &plain_code,
        "bob@example.org",
        "Robert",
        "127.0.0.1",
    ];
    for word in words {
        assert!(!all.contains(word), "{word} can be read in the store");
    }
}

#[tokio::test]
async fn a_password_that_others_have_lost_is_refused_and_without_a_list_that_is_said() {
    let house = House::open().await;
    let first = user(&house, "bob").await;
    assert_eq!(text(&first, "breached"), "skipped: no data");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list.txt");
    // SHA-1 of "password123" and two neighbours, as the list is shipped.
    let list = "CBFDAC6008F9CAB4083784CBD1874F76618D2A96:3\r\nCBFDAC6008F9CAB4083784CBD1874F76618D2A97:251682\r\nCBFDAC6008F9CAB4083784CBD1874F76618D2A98:1\r\n";
    std::fs::write(&path, list).unwrap();
    let list = json!(path.display().to_string());
    set(&house.cx, &BREACHED_PASSWORDS, list).await;
    let token = text(&first, "access");
    let change = async |old: &str, new: &str| {
        let body = Some(json!({ "old": old, "new": new }));
        with(&house, token, Method::POST, "/api/v1/auth/passwd", body).await
    };
    let (status, refused) = change(PASSWORD, "password123").await;
    assert_eq!(status, 422, "{refused}");
    assert!(!refused.to_string().contains("password123"), "{refused}");
    let (status, said) = change(PASSWORD, "another password").await;
    assert_eq!((status, text(&said, "breached")), (200, "not in the list"));
    // A list that should be there and is not lets nothing pass.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(change("another password", PASSWORD).await.0, 503);
}

#[tokio::test]
async fn a_login_unlike_those_before_is_on_record_and_nothing_of_it_can_be_read_in_the_store() {
    let house = House::open().await;
    user(&house, "bob").await;
    let enter = async |agent: &str| {
        let asked = house
            .stranger()
            .post(house.url("/api/v1/auth/login"))
            .header("user-agent", agent)
            .json(&json!({ "user": "bob", "password": PASSWORD }));
        told(asked.send().await.unwrap()).await
    };
    for _ in 0..4 {
        assert_eq!(enter("dvctl/1").await.0, 200);
    }
    let (status, said) = enter("strange/1").await;
    assert_eq!(status, 200, "{said}");
    let name = text(&said, "session");
    let (_, session) = house.get(&format!("/api/v1/sessions/{name}")).await;
    let risk = &session["spec"]["risk"];
    // A program that is new to him, and the sixth login within five minutes.
    assert_eq!(risk["score"], 50, "{session}");
    assert_eq!(risk["signs"], json!(["burst", "new_device"]));
    assert_eq!(risk["places"], "skipped: no data");
    let rows = house.trail.last(1000).await;
    let row = rows.iter().find(|row| row.action == "auth.login.risky");
    let row = row.expect("a row");
    assert_eq!(
        (row.params["risk"].as_u64(), &row.params["done"]),
        (Some(50), &json!("let in"))
    );
    let (_, events) = house.get("/api/v1/events?limit=100").await;
    assert!(events.to_string().contains("user.login-risky"), "{events}");
    let all = house
        .store
        .list(&Prefix::new("l/"), Page::ALL)
        .await
        .unwrap();
    let history = all
        .entries
        .iter()
        .find(|e| e.key.to_string().contains("login-history"));
    let history = String::from_utf8_lossy(&history.unwrap().value).into_owned();
    assert!(!history.contains("programs"), "{history}");
}

#[tokio::test]
async fn the_strictest_role_of_somebody_says_what_his_login_needs() {
    let house = House::open().await;
    user(&house, "bob").await;
    let enter = async |cookie: bool| {
        let body = json!({ "user": "bob", "password": PASSWORD, "cookie": cookie });
        say(&house, "login", body).await.1
    };
    // Without any role: who has no second factor is reminded.
    let said = enter(false).await;
    assert_eq!(
        (text(&said, "state"), &said["remind"]),
        ("in", &json!(true))
    );
    for (role, state, remind) in [
        ("off", "in", false),
        ("enrolled", "in", true),
        ("required", "enrol", false),
    ] {
        let made = json!({ "metadata": { "name": role }, "spec": { "allow": ["user.read"], "mfa": role } });
        let (status, made) = house.post("/api/v1/roles", made).await;
        assert_eq!(status, 201, "{made}");
        let grant =
            json!({ "metadata": { "name": role }, "spec": { "user": "bob", "role": role } });
        let (status, made) = house.post("/api/v1/grants", grant).await;
        assert_eq!(status, 201, "{made}");
        let said = enter(false).await;
        assert_eq!(
            (text(&said, "state"), &said["remind"]),
            (state, &json!(remind)),
            "{role}"
        );
    }
    // He can do nothing but enrol, also from a browser: its cookie lets in nowhere before.
    let said = enter(false).await;
    let token = text(&said, "access");
    assert_eq!(get(&house, token, "/api/v1/users").await.0, 401);
    let body = json!({ "user": "bob", "password": PASSWORD, "cookie": true });
    let asked = house
        .stranger()
        .post(house.url("/api/v1/auth/login"))
        .json(&body);
    let answer = asked.send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let (_, said) = told(answer).await;
    let token = text(&said, "access");
    assert!(said.get("refresh").is_none(), "{said}");
    let whoami = async || {
        let asked = house.stranger().get(house.url("/api/v1/whoami"));
        told(asked.header("cookie", &cookie).send().await.unwrap())
            .await
            .0
    };
    assert_eq!(whoami().await, 401);
    enrol(&house, token).await;
    assert_eq!(whoami().await, 200);
    // What it enrolled with has done its work.
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);
}

#[tokio::test]
async fn a_password_that_was_set_by_code_ends_what_the_old_one_let_in() {
    let house = House::open().await;
    user(&house, "bob").await;
    let code = reset_code(&house, "bob").await;
    // Until the code is used the old password is good: a thief is in again.
    let (status, thief) = login(&house, "bob", PASSWORD).await;
    assert_eq!(status, 200, "{thief}");
    let body = json!({ "code": code, "password": "another four words" });
    let (status, mine) = say(&house, "reset", body).await;
    assert_eq!(status, 200, "{mine}");
    let path = "/api/v1/whoami";
    assert_eq!(get(&house, text(&thief, "access"), path).await.0, 401);
    let refresh = json!({ "refresh": thief["refresh"] });
    assert_eq!(say(&house, "refresh", refresh).await.0, 401);
    assert_eq!(get(&house, text(&mine, "access"), path).await.0, 200);
}

#[tokio::test]
async fn of_two_passwords_the_newer_counts() {
    let house = House::open().await;
    user(&house, "bob").await;
    let bob = house.cx.get::<identity::user::User>(None, "bob").unwrap();
    // As when a change was cut off between the new and the old one.
    let newer = "another four words";
    let hash = identity::factor::password::hash(newer.into(), [7; 16]);
    let body = json!({
        "metadata": {
            "name": "password-zzzz",
            "owner": { "kind": "user", "name": "bob", "uid": bob.metadata.uid },
        },
        "spec": { "user": "bob", "sort": "password", "material": hash.await.unwrap() },
    });
    let op = runtime::Op::Create {
        kind: "factor".into(),
        project: None,
        body,
    };
    house.cx.submit(op, "test").await.unwrap();
    assert_eq!(login(&house, "bob", PASSWORD).await.0, 401);
    assert_eq!(login(&house, "bob", newer).await.0, 200);
}
