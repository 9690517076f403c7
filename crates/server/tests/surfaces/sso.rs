//! Logging in by a real provider, npm `oidc-provider`, as a browser does: through its login and consent pages, and back.
//! `cargo xtask test` installs it; without it these tests say so.

use crate::house::{House, client, told};
use crate::idp::{AUDIENCE, Browser, Provider};
use crate::login::{enrol, get, say, text, user};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use identity::factor::totp;
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION};
use reqwest::{Client, Method, Url};
use runtime::Authority;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::Duration;

fn begin(house: &House, more: &str) -> String {
    house.url(&format!("/api/v1/auth/oidc/begin?realm=corp{more}"))
}

fn challenge(verifier: &str) -> String {
    B64.encode(Sha256::digest(verifier.as_bytes()))
}

/// The way of a program, as `dvctl` goes it. Gives the ticket.
async fn ticket(house: &House, browser: &mut Browser, who: &str, verifier: &str) -> String {
    let more = format!(
        "&return=http://127.0.0.1:1/x&challenge={}",
        challenge(verifier)
    );
    let at = |url: &Url| url.port() == Some(1);
    let (url, page) = browser.go(&begin(house, &more), who, at).await;
    let ticket = url.query_pairs().find(|(name, _)| name == "ticket");
    ticket
        .unwrap_or_else(|| panic!("no ticket: {url} {} {}", page.status, page.body))
        .1
        .into_owned()
}

async fn group(house: &House, name: &str) {
    let body = json!({ "metadata": { "name": name }, "spec": {} });
    assert_eq!(house.post("/api/v1/groups", body).await.0, 201);
    let grant =
        json!({ "metadata": { "name": name }, "spec": { "group": name, "role": "superadmin" } });
    let (status, made) = house.post("/api/v1/grants", grant).await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_logs_in_and_the_provider_logs_it_out() {
    let house = House::open().await;
    let Some(provider) = Provider::open(&house, json!({})).await else {
        return;
    };
    // What comes with the group asks for no second factor here.
    let body = json!({ "metadata": { "name": "debvisor-viewers" }, "spec": {} });
    assert_eq!(house.post("/api/v1/groups", body).await.0, 201);
    let role = json!({ "metadata": { "name": "seer" }, "spec": { "allow": ["lamp.read", "project.read"], "mfa": "off" } });
    assert_eq!(house.post("/api/v1/roles", role).await.0, 201);
    let grant = json!({ "metadata": { "name": "seers" }, "spec": { "group": "debvisor-viewers", "role": "seer" } });
    assert_eq!(house.post("/api/v1/grants", grant).await.0, 201);
    let mut browser = Browser::new(&house, &provider);
    let (url, page) = browser
        .go(&begin(&house, "&return=/there"), "anna", |url| {
            url.path() == "/there"
        })
        .await;
    assert_eq!(
        url.as_str(),
        house.url("/there"),
        "{} {}",
        page.status,
        page.body
    );
    assert_eq!(browser.cookie(&house, "__Host-debvisor-flow"), None);
    let cookie = browser.cookie(&house, "__Host-debvisor").unwrap();
    let cookie = format!("__Host-debvisor={cookie}");
    let stranger = house.stranger();
    let whoami = || {
        let asked = stranger.get(house.url("/api/v1/whoami"));
        asked.header(COOKIE, cookie.clone()).send()
    };
    let (status, me) = told(whoami().await.unwrap()).await;
    assert_eq!((status, text(&me, "name")), (200, "anna"), "{me}");
    let (_, anna) = house.get("/api/v1/users/anna").await;
    assert_eq!(anna["spec"]["realm"], "corp");
    assert_eq!(anna["spec"]["groups"], json!(["debvisor-viewers"]));
    assert_eq!(anna["spec"]["subject"], format!("{} anna", provider.issuer));
    let (_, sessions) = house.get("/api/v1/sessions").await;
    let session = &sessions["items"][0]["spec"];
    assert_eq!(session["realm"], "corp", "{sessions}");
    assert_eq!(session["factors"], json!(["realm"]));
    // A password opens nothing for her.
    let (status, _) = say(
        &house,
        "login",
        json!({ "user": "anna", "password": "any password" }),
    )
    .await;
    assert_eq!(status, 401);
    // She watches; the provider logs her out.
    let mut watch = stranger
        .get(house.url("/api/v1/watch?kind=lamp"))
        .header(COOKIE, cookie.clone())
        .header("accept", "text/event-stream")
        .timeout(Duration::from_secs(30))
        .send()
        .await
        .unwrap();
    assert_eq!(watch.status(), 200);
    let out = Url::parse(&format!(
        "{}/session/end?client_id=debvisor",
        provider.issuer
    ))
    .unwrap();
    let page = browser.fetch(&out, None).await;
    let xsrf = page.body.split("name=\"xsrf\" value=\"").nth(1);
    let xsrf = xsrf.and_then(|rest| rest.split('"').next());
    let xsrf = xsrf.unwrap_or_else(|| panic!("{}", page.body)).to_owned();
    let confirm = Url::parse(&format!("{}/session/end/confirm", provider.issuer)).unwrap();
    browser
        .fetch(&confirm, Some(format!("xsrf={xsrf}&logout=yes")))
        .await;
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        while let Ok(Some(_)) = watch.chunk().await {}
    });
    assert!(ended.await.is_ok(), "the watch goes on");
    assert_eq!(whoami().await.unwrap().status(), 401);
    let (_, rows) = house.get("/api/v1/sessions").await;
    assert_eq!(rows["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_trades_its_ticket_once_and_with_its_own_second_factor() {
    let house = House::open().await;
    let Some(provider) = Provider::open(&house, json!({})).await else {
        return;
    };
    group(&house, "debvisor-viewers").await;
    let verifier = "v".repeat(43);
    let mut browser = Browser::new(&house, &provider);
    let first = ticket(&house, &mut browser, "anna", &verifier).await;
    let other = json!({ "ticket": first, "verifier": "w".repeat(43) });
    assert_eq!(say(&house, "oidc/finish", other).await.0, 401);
    assert_eq!(
        say(&house, "oidc/finish", json!({ "ticket": first }))
            .await
            .0,
        401
    );
    let body = json!({ "ticket": first, "verifier": verifier });
    let (status, said) = say(&house, "oidc/finish", body.clone()).await;
    assert_eq!(status, 200, "{said}");
    // Her group administers everything: she must have a second factor, and the provider is not believed to ask for one.
    assert_eq!(text(&said, "state"), "enrol");
    assert_eq!(say(&house, "oidc/finish", body).await.0, 401);
    let (key, _) = enrol(&house, text(&said, "access")).await;
    let token = text(&said, "access").to_owned();
    assert_eq!(get(&house, &token, "/api/v1/whoami").await.0, 200);
    // Another login of hers asks for a code; a wrong one leaves the ticket good.
    let second = ticket(&house, &mut browser, "anna", &verifier).await;
    let with =
        |code: Option<String>| json!({ "ticket": second, "verifier": verifier, "code": code });
    let (_, said) = say(&house, "oidc/finish", with(None)).await;
    assert_eq!(text(&said, "state"), "second_factor");
    assert_eq!(
        say(&house, "oidc/finish", with(Some("000000".into())))
            .await
            .0,
        401
    );
    let step = totp::step(house.cx.clock().now().millis()) + 1;
    let (status, said) = say(&house, "oidc/finish", with(Some(totp::code(&key, step)))).await;
    assert_eq!(status, 200, "{said}");
    let token = text(&said, "access").to_owned();
    assert_eq!(get(&house, &token, "/api/v1/whoami").await.0, 200);
    // Ended here, and with its realm.
    let (status, _) = told(
        house
            .ask(
                Method::DELETE,
                &format!("/api/v1/sessions/{}", text(&said, "session")),
            )
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert!((200..300).contains(&status));
    assert_eq!(get(&house, &token, "/api/v1/whoami").await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_browser_began_is_refused() {
    let house = House::open().await;
    let Some(provider) = Provider::open(&house, json!({})).await else {
        return;
    };
    let is_callback = |url: &Url| url.path().ends_with("/oidc/callback");
    let (mut hers, mut his) = (
        Browser::new(&house, &provider),
        Browser::new(&house, &provider),
    );
    let (at_hers, _) = hers.go(&begin(&house, ""), "anna", is_callback).await;
    let (at_his, _) = his.go(&begin(&house, ""), "eve", is_callback).await;
    // He makes her browser come back with what he got.
    let page = hers.fetch(&at_his, None).await;
    assert_eq!(page.status, 401, "{}", page.body);
    // He puts his code into her login: the verifier is another.
    let code = |url: &Url| {
        let code = url.query_pairs().find(|(name, _)| name == "code");
        code.unwrap().1.into_owned()
    };
    let mixed = at_hers.as_str().replace(&code(&at_hers), &code(&at_his));
    let page = hers.fetch(&Url::parse(&mixed).unwrap(), None).await;
    assert_eq!(page.status, 409, "{}", page.body);
    assert!(page.body.contains("invalid_grant"), "{}", page.body);
    // Her state is used up by that.
    let page = hers.fetch(&at_hers, None).await;
    assert_eq!(page.status, 401, "{}", page.body);
    // An answer that says it is another provider's.
    let (again, _) = hers.go(&begin(&house, ""), "anna", is_callback).await;
    let iss: String = Url::parse_with_params("http://x/", [("iss", &provider.issuer)])
        .unwrap()
        .query()
        .unwrap()
        .to_owned();
    let mixed = again
        .as_str()
        .replace(&iss, "iss=https%3A%2F%2Fevil.example");
    assert_ne!(mixed, again.as_str());
    let page = hers.fetch(&Url::parse(&mixed).unwrap(), None).await;
    assert_eq!(page.status, 401, "{}", page.body);
    assert!(page.body.contains("WRONG_ISSUER"), "{}", page.body);
    // Nowhere else, and by no realm that is not there.
    for more in ["&return=https://evil.example/", "&return=//evil.example"] {
        let url = Url::parse(&begin(&house, more)).unwrap();
        assert_eq!(hers.fetch(&url, None).await.status, 422, "{more}");
    }
    let local = house.url("/api/v1/auth/oidc/begin?realm=local");
    assert_eq!(
        hers.fetch(&Url::parse(&local).unwrap(), None).await.status,
        404
    );
    let (_, users) = house.get("/api/v1/users").await;
    assert_eq!(users["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_comes_in_with_a_token_of_its_provider() {
    let house = House::open().await;
    let Some(provider) = Provider::open(&house, json!({})).await else {
        return;
    };
    let token = async |audience: &str| {
        let form = format!("grant_type=client_credentials&scope=api&resource={audience}");
        let answer = provider
            .http
            .post(format!("{}/token", provider.issuer))
            .basic_auth("robot", Some("the+secret+of+the+robot"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
        let (status, said) = told(answer).await;
        assert_eq!(status, 200, "{said}");
        text(&said, "access_token").to_owned()
    };
    let good = token(AUDIENCE).await;
    let who = async |token: &str| get(&house, token, "/api/v1/whoami").await;
    // Nobody has made a user for it.
    assert_eq!(who(&good).await.0, 401);
    let make = async |name: &str, subject: String| {
        let spec = json!({ "realm": "corp", "subject": subject });
        let body = json!({ "metadata": { "name": name }, "spec": spec });
        assert_eq!(house.post("/api/v1/users", body).await.0, 201);
    };
    // A person with the same subject is not the program.
    make("person", format!("{} robot", provider.issuer)).await;
    assert_eq!(who(&good).await.0, 401);
    make("robot", format!("machine {} robot", provider.issuer)).await;
    let (status, me) = who(&good).await;
    assert_eq!((status, text(&me, "name")), (200, "robot"), "{me}");
    assert_eq!(who(&token("https://other.example").await).await.0, 401);
    let at = good.rfind('.').unwrap() + 5;
    let other = if good.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    let mut forged = good.clone();
    forged.replace_range(at..=at, other);
    assert_eq!(who(&forged).await.0, 401);
    let (status, _) = house
        .post("/api/v1/users/robot/actions/disable", json!({}))
        .await;
    assert_eq!(status, 202);
    assert_eq!(who(&good).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_keeps_only_its_own_people_out() {
    let house = House::open().await;
    let oidc = json!({ "issuer": "http://127.0.0.1:1", "client_id": "debvisor" });
    let realm = json!({ "metadata": { "name": "corp" }, "spec": { "type": "oidc", "default": true, "oidc": oidc } });
    assert_eq!(house.post("/api/v1/realms", realm).await.0, 201);
    let (status, offered) = say(&house, "realms", json!({})).await;
    assert_eq!(
        (status, text(&offered, "default")),
        (200, "corp"),
        "{offered}"
    );
    assert_eq!(offered["realms"].as_array().map(Vec::len), Some(2));
    let (status, said) = say(&house, "oidc/begin", json!({})).await;
    assert_eq!(status, 503, "{said}");
    // By the call itself, or at once, once its breaker is open.
    assert!(text(&said, "detail").contains("realm"), "{said}");
    // A program that waits for its browser is told, too.
    let root = reqwest::Certificate::from_pem(house.ca.ca().pem.as_bytes()).unwrap();
    let browser = Client::builder()
        .tls_certs_only([root])
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let more = format!("&return=http://127.0.0.1:1/x&challenge={}", challenge("v"));
    let answer = browser.get(begin(&house, &more)).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    let place = answer.headers()[LOCATION].to_str().unwrap().to_owned();
    assert!(place.starts_with("http://127.0.0.1:1/x?error="), "{place}");
    user(&house, "anna").await;
    let (status, said) = crate::login::login(&house, "anna", crate::login::PASSWORD).await;
    assert_eq!((status, text(&said, "state")), (200, "in"), "{said}");
    for step in ["oidc/finish", "oidc/callback", "oidc/backchannel-logout"] {
        for body in [
            json!({}),
            json!({ "ticket": "x", "state": "x", "logout_token": "a.b.c" }),
            json!([]),
        ] {
            let (status, said) = say(&house, step, body).await;
            assert!((400..500).contains(&status), "{step}: {status} {said}");
        }
    }
    let form = client(&house.ca, None)
        .post(house.url("/api/v1/auth/login"))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("origin", house.url(""))
        .body("user=anna&password=x");
    assert_eq!(form.send().await.unwrap().status(), 415);
}
