//! A page of another site can neither read nor act: by its origin, by what it may not know, and by what it is not told.

use crate::abuse::says;
use crate::house::{House, rate, set, told};
use crate::login::{PASSWORD, user};
use crate::watch::{Socket, tls};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use runtime::setting::CORS_ORIGINS;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, http};

const LAMPS: &str = "/api/v1/projects/default/lamps";
const FRIEND: &str = "https://portal.example:8443";

fn allows(response: &Response) -> Option<String> {
    let header = response.headers().get("access-control-allow-origin");
    header.map(|v| v.to_str().unwrap().to_owned())
}

async fn socket(house: &House, headers: &[(&'static str, String)]) -> Result<Socket, u16> {
    let url = format!("wss://{}/api/v1/watch?kind=lamp", house.https);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = tls(house, house.https, b"http/1.1").await;
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(http::Response::status(&response).as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_act() {
    let house = House::open().await;
    let ours = format!("https://{}", house.https);
    let post = |name: &str, origin: &str| {
        house
            .ask(Method::POST, LAMPS)
            .header("origin", origin)
            .json(&json!({ "metadata": { "name": name } }))
            .send()
    };
    let plain = ours.replace("https", "http");
    for foreign in ["https://evil.example", "null", plain.as_str()] {
        let response = post("a", foreign).await.unwrap();
        assert_eq!(allows(&response), None);
        let (status, problem) = told(response).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (403, Some("FOREIGN_ORIGIN")),
            "{foreign}"
        );
        let opened = socket(&house, &[("origin", foreign.to_owned())]).await;
        assert_eq!(opened.err(), Some(403), "{foreign}");
        let asked = house
            .ask(Method::OPTIONS, LAMPS)
            .header("origin", foreign)
            .header("access-control-request-method", "POST");
        let response = asked.send().await.unwrap();
        assert_eq!((response.status().as_u16(), allows(&response)), (403, None));
        // What it may ask for, it cannot read.
        let asked = house.ask(Method::GET, LAMPS).header("origin", foreign);
        assert_eq!(allows(&asked.send().await.unwrap()), None);
    }
    assert_eq!(post("a", &ours).await.unwrap().status(), 201);
    assert!(socket(&house, &[("origin", ours)]).await.is_ok());
    // On record once, and how often it came again: nobody fills the trail with it.
    let refused = house.ask(Method::POST, LAMPS).header("host", "x");
    assert_eq!(told(refused.send().await.unwrap()).await.0, 400);
    let rows = refusals(&house).await;
    let seen: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.result.as_deref(),
                row.repeats,
                row.params["origin"].as_str(),
            )
        })
        .collect();
    let foreign = Some("FOREIGN_ORIGIN");
    assert_eq!(seen.len(), 2, "{rows:?}");
    assert_eq!(
        seen[0],
        (foreign, 0, Some("https://evil.example")),
        "{rows:?}"
    );
    assert_eq!((seen[1].0, seen[1].1), (foreign, 9), "{rows:?}");
    assert!(
        rows.iter().all(|row| row.actor == "administrator"),
        "{rows:?}"
    );
}

/// What the door has refused, as it is on record. The end of the process writes what waits.
async fn refusals(house: &House) -> Vec<runtime::audit::Row> {
    house
        .cx
        .life()
        .stop(std::time::Duration::from_secs(5))
        .await;
    let mut rows = house.trail.last(1000).await;
    rows.retain(|row| row.action == runtime::audit::REQUEST_REFUSED.action);
    rows
}

#[tokio::test]
async fn a_site_that_is_listed_may_and_its_neighbours_may_not() {
    let house = House::open().await;
    let friends = json!(format!("https://x.example {FRIEND}"));
    set(&house.cx, &CORS_ORIGINS, friends).await;
    let ask = |method: Method, origin: &str| {
        house
            .ask(method, LAMPS)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .json(&json!({ "metadata": { "name": "a" } }))
            .send()
    };
    let preflight = ask(Method::OPTIONS, FRIEND).await.unwrap();
    assert_eq!(preflight.status(), 204);
    let header = |name: &str| preflight.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("access-control-allow-origin"), FRIEND);
    assert_eq!(header("access-control-max-age"), "3600");
    assert!(header("access-control-allow-methods").contains("DELETE"));
    assert!(header("access-control-allow-headers").contains("idempotency-key"));
    // With a token of its own, never with what the browser keeps.
    assert!(
        !preflight
            .headers()
            .contains_key("access-control-allow-credentials")
    );
    // What the browser sends along by itself is not the page's.
    let with_certificate = ask(Method::POST, FRIEND).await.unwrap();
    assert_eq!(with_certificate.status(), 403);
    let opened = socket(&house, &[("origin", FRIEND.to_owned())]).await;
    assert_eq!(opened.err(), Some(403));
    let me = user(&house, "bob").await;
    let role =
        json!({ "metadata": { "name": "lamps" }, "spec": { "allow": ["lamp.*", "project.read"] } });
    assert_eq!(house.post("/api/v1/roles", role).await.0, 201);
    let grant =
        json!({ "metadata": { "name": "bob" }, "spec": { "user": "bob", "role": "lamps" } });
    assert_eq!(house.post("/api/v1/grants", grant).await.0, 201);
    let made = house
        .stranger()
        .post(house.url(LAMPS))
        .bearer_auth(me["access"].as_str().unwrap())
        .header("origin", FRIEND)
        .json(&json!({ "metadata": { "name": "a" } }))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (made.status().as_u16(), allows(&made)),
        (201, Some(FRIEND.into()))
    );
    assert!(made.headers()["vary"].to_str().unwrap().contains("origin"));
    for near in [
        "https://portal.example",
        "https://portal.example:84430",
        "https://a.portal.example:8443",
        "http://portal.example:8443",
        "https://portal.example:8443/",
        "https://x.example https://portal.example:8443",
    ] {
        let response = ask(Method::OPTIONS, near).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), allows(&response)),
            (403, None),
            "{near}"
        );
    }
}

#[tokio::test]
async fn a_login_cookie_acts_only_with_the_token_of_its_login() {
    let house = House::with(crate::house::brisk()).await;
    user(&house, "bob").await;
    user(&house, "eve").await;
    let client = house.stranger();
    let login = async |name: &str| {
        let body = json!({ "user": name, "password": PASSWORD, "cookie": true });
        let asked = client.post(house.url("/api/v1/auth/login")).json(&body);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let cookie = header("set-cookie");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        (cookie, header("x-csrf-token"))
    };
    let (cookie, token) = login("bob").await;
    let (_, of_eve) = login("eve").await;
    assert_ne!(token, of_eve);
    let post = async |headers: &[(&'static str, &str)]| -> (u16, Value) {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        let asked = client
            .post(house.url(LAMPS))
            .headers(all)
            .json(&json!({ "metadata": { "name": "a" } }));
        told(asked.send().await.unwrap()).await
    };
    let own = ("cookie", cookie.as_str());
    for wrong in [
        vec![own],
        vec![own, ("x-csrf-token", "")],
        vec![own, ("x-csrf-token", &of_eve)],
        vec![own, ("x-csrf-token", &token[1..])],
    ] {
        let (status, problem) = post(&wrong).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (403, Some("CSRF_TOKEN")),
            "{wrong:?}"
        );
    }
    // Past the door: whether bob may is another question.
    let (_, answer) = post(&[own, ("x-csrf-token", &token)]).await;
    assert_ne!(answer["code"], "CSRF_TOKEN", "{answer}");
    // A page that was loaded anew reads it; who is nobody learns and needs none.
    let asked = client
        .get(house.url("/api/v1/whoami"))
        .header("cookie", &cookie);
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.headers()["x-csrf-token"].to_str().unwrap(), token);
    let asked = client.get(house.url(LAMPS)).header("cookie", &cookie);
    assert!(
        !asked
            .send()
            .await
            .unwrap()
            .headers()
            .contains_key("x-csrf-token")
    );
    let (status, problem) = post(&[("cookie", "__Host-debvisor=dvc_gone")]).await;
    assert_eq!(status, 401, "{problem}");
    // A socket cannot show a token: its origin must be ours.
    let ours = format!("origin: https://{}\r\n", house.https);
    for (origin, refused) in [
        ("", true),
        ("origin: https://evil.example\r\n", true),
        (ours.as_str(), false),
    ] {
        let host = house.https;
        let said = says(&house, &format!("GET /api/v1/watch?kind=lamp HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncookie: {cookie}\r\n{origin}\r\n")).await;
        assert_eq!(said.contains("FOREIGN_ORIGIN"), refused, "{origin} {said}");
    }
}

/// What a header scan looks for, on whatever comes.
fn guarded(what: &str, headers: &HeaderMap) {
    let header = |name: &str| {
        let value = headers.get(name);
        value
            .unwrap_or_else(|| panic!("{what} has no {name}"))
            .to_str()
            .unwrap()
    };
    assert!(header("strict-transport-security").contains("max-age=31536000"));
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(header("referrer-policy"), "same-origin", "{what}");
    assert_eq!(header("cross-origin-opener-policy"), "same-origin");
    assert_eq!(header("cross-origin-resource-policy"), "same-origin");
    assert!(header("permissions-policy").contains("camera=()"));
    let csp = header("content-security-policy");
    assert!(
        csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"),
        "{what}: {csp}"
    );
    assert!(
        !csp.contains("unsafe") && !csp.contains('*'),
        "{what}: {csp}"
    );
    for telling in ["server", "x-powered-by", "set-cookie"] {
        assert!(!headers.contains_key(telling), "{what} tells {telling}");
    }
    // What somebody was shown is in no cache for the next one.
    if what.contains("/api/v1/") {
        assert_eq!(header("cache-control"), "no-store", "{what}");
    }
}

#[tokio::test]
async fn no_step_of_a_login_is_taken_by_a_link() {
    let house = House::open().await;
    let me = user(&house, "bob").await;
    let token = me["access"].as_str().unwrap();
    for step in [
        "login?user=bob&password=x",
        "totp/begin",
        "totp/confirm?secret=00&code=000000",
        "recovery",
        "logout",
        "access/check?action=vm.read",
    ] {
        for method in [Method::GET, Method::HEAD] {
            let asked = house
                .stranger()
                .request(method.clone(), house.url(&format!("/api/v1/auth/{step}")))
                .bearer_auth(token);
            let status = asked.send().await.unwrap().status();
            assert_eq!(status, 405, "{method} {step}");
        }
    }
    let (status, _) = crate::login::get(&house, token, "/api/v1/whoami").await;
    assert_eq!(status, 200, "he is still in");
}

/// On a page, an answer and a problem; and on every way in which a request can be refused.
#[tokio::test]
async fn every_answer_has_its_guards() {
    let house = House::open().await;
    for path in [
        "/",
        "/api/docs",
        "/api/v1/whoami",
        "/api/v1/nothing",
        "/api/v1/vms",
        "/api/v1/settings/slow-read",
        "/health/live",
        "/none",
    ] {
        let response = house.ask(Method::GET, path).send().await.unwrap();
        guarded(path, response.headers());
    }
    let ask = |method: Method| house.ask(method, LAMPS);
    let lamp = json!({ "metadata": { "name": "a" } });
    let big = "x".repeat(2 << 20);
    let stranger = house.stranger();
    for (status, asked) in [
        (201, ask(Method::POST).json(&lamp)),
        (409, ask(Method::POST).json(&lamp)),
        (422, ask(Method::POST).json(&json!({ "spec": { "x": 1 } }))),
        (
            400,
            ask(Method::POST)
                .header("content-type", "application/json")
                .body("{"),
        ),
        (
            413,
            ask(Method::POST)
                .header("content-type", "application/json")
                .body(big),
        ),
        (
            415,
            ask(Method::POST)
                .header("content-type", "text/plain")
                .body("x"),
        ),
        (405, ask(Method::PUT).json(&lamp)),
        (
            403,
            ask(Method::POST)
                .header("origin", "https://evil.example")
                .json(&lamp),
        ),
        (
            403,
            ask(Method::OPTIONS)
                .header("origin", "https://evil.example")
                .header("access-control-request-method", "POST"),
        ),
        (401, stranger.get(house.url(LAMPS))),
        (401, stranger.get(house.url(LAMPS)).bearer_auth("dv_wrong")),
        (
            401,
            stranger
                .post(house.url("/api/v1/login"))
                .json(&json!({ "code": "A", "csr": "B" })),
        ),
    ] {
        let response = asked.send().await.unwrap();
        let what = format!("{status} of /api/v1/");
        assert_eq!(response.status(), status, "{:?}", response.text().await);
        guarded(&what, response.headers());
    }
    rate(&house.cx, &runtime::limit::ANONYMOUS, 1).await;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let response = stranger
            .get(house.url("/health/live"))
            .send()
            .await
            .unwrap();
        guarded("/health/live of a stranger", response.headers());
        if response.status() == 429 {
            break;
        }
        assert!(std::time::Instant::now() < end, "never one too many");
    }
}
