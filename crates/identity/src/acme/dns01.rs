//! Makes and removes the TXT records of dns-01: at a name server by RFC 2136, at Cloudflare, by a program, or by a person.

use super::by_hand::ByHand;
use super::hook::{self, Wish};
use super::rfc2136::Server;
use super::types::{Dns, DnsProvider};
use super::{client, dns};
use crate::certificate::Certificate;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, ObjectRef, Result, Uid};
use runtime::Cx;
use runtime::resilience::Dependency;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a record may take until its server shows it.
const VISIBLE: Duration = Duration::from_secs(60);
/// Life of a record in caches, in seconds.
pub(super) const TTL: u32 = 120;
const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4";

/// One TXT record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its name: `_acme-challenge.example.org`.
    pub name: String,
    /// Its text.
    pub value: String,
}

impl Record {
    /// As a line of a zone.
    pub(super) fn line(&self) -> String {
        format!("{}. {TTL} IN TXT \"{}\"", self.name, self.value)
    }
}

/// Checks what people give; errors name the field.
pub(super) fn check(dns: &Dns) -> Result<()> {
    if matches!(dns.provider, DnsProvider::Manual | DnsProvider::Hook) {
        return at(dns).map(|_| ());
    }
    if dns.secret.is_none() {
        return Err(Error::field("spec.dns.secret", "is missing")
            .hint("the TSIG key in base 64, or the API token"));
    }
    let mut dns = dns.clone();
    // One that was kept was good when it came.
    dns.secret = dns.secret.filter(|s| !s.starts_with(crate::KEPT));
    match dns.provider {
        DnsProvider::Rfc2136 => server(&dns).map(|_| ()),
        _ => Ok(()),
    }
}

/// Address and port of the name server.
fn at(dns: &Dns) -> Result<SocketAddr> {
    let address = dns.server.as_deref().unwrap_or_default();
    address.parse().map_err(|_| {
        Error::field(
            "spec.dns.server",
            format!("`{address}` is not an address and a port"),
        )
        .hint("for example 192.0.2.53:53 or [2001:db8::53]:53")
    })
}

fn server(dns: &Dns) -> Result<Server> {
    let at = at(dns)?;
    let Some(key_name) = dns.key_name.clone() else {
        return Err(Error::field(
            "spec.dns.key_name",
            "is missing: the name of the TSIG key",
        ));
    };
    let secret = dns.secret.as_deref().unwrap_or_default();
    let key = STANDARD
        .decode(secret)
        .map_err(|_| Error::field("spec.dns.secret", "is not a TSIG key in base 64"))?;
    Ok(Server {
        at,
        zone: dns.zone.clone(),
        key_name,
        key,
    })
}

/// Makes the records and waits until they are seen where the zone is served.
pub(super) async fn publish(cx: &Cx, dns: &Dns, records: &[Record]) -> Result<()> {
    match dns.provider {
        DnsProvider::Rfc2136 => {
            let server = server(dns)?;
            let known = server.dependency(cx);
            // The same record twice is one record.
            known
                .call(|| server.update(records, true, seconds(cx)))
                .await?;
            seen(&known, &[server.at], records).await
        }
        DnsProvider::Cloudflare => {
            let cloudflare = Cloudflare::new(cx, dns, CLOUDFLARE)?;
            let servers = cloudflare.publish(records).await?;
            let servers = addresses(&servers, 53).await?;
            seen(&cloudflare.name_servers, &servers, records).await
        }
        DnsProvider::Hook => {
            let at = at(dns)?;
            hook::run(cx, dns, Wish::Make, records).await?;
            seen(&name_server(cx, at), &[at], records).await
        }
        DnsProvider::Manual => Ok(()),
    }
}

fn name_server(cx: &Cx, at: SocketAddr) -> Arc<Dependency> {
    cx.dependencies().named(&format!("name server {at}"))
}

/// Waits until a person has made the records of this certificate's order, or says that it goes on.
pub(super) async fn by_hand(
    cx: &Cx,
    dns: &Dns,
    certificate: &ObjectRef,
    uid: Uid,
    records: &[Record],
) -> Result<()> {
    let at = at(dns)?;
    let Some(all) = cx.try_part::<ByHand>() else {
        return Err(Error::refused("this process waits for nobody"));
    };
    let place = all.wait(uid, records);
    let key = cx.key::<Certificate>(None, &certificate.name);
    // Its conditions say what is wanted, and then no more.
    cx.wake(&key);
    place.over(&name_server(cx, at), at, records).await;
    drop(place);
    cx.wake(&key);
    Ok(())
}

/// Removes the records; those that are gone are no error.
pub(super) async fn withdraw(cx: &Cx, dns: &Dns, records: &[Record]) -> Result<()> {
    match dns.provider {
        DnsProvider::Rfc2136 => {
            let server = server(dns)?;
            let known = server.dependency(cx);
            known
                .call(|| server.update(records, false, seconds(cx)))
                .await
        }
        DnsProvider::Cloudflare => {
            Cloudflare::new(cx, dns, CLOUDFLARE)?
                .withdraw(records)
                .await
        }
        DnsProvider::Hook => hook::run(cx, dns, Wish::Remove, records).await,
        // Who made them takes them away.
        DnsProvider::Manual => Ok(()),
    }
}

fn seconds(cx: &Cx) -> u64 {
    cx.clock().now().millis().max(0) as u64 / 1000
}

/// Where the servers of a zone are.
pub(super) async fn addresses(servers: &[String], port: u16) -> Result<Vec<SocketAddr>> {
    let mut out = Vec::new();
    for server in servers {
        let found = tokio::net::lookup_host((server.as_str(), port)).await;
        // One address each is enough: they show the same.
        out.extend(found.ok().and_then(|mut found| found.next()));
    }
    match out.is_empty() {
        false => Ok(out),
        true => Err(Error::unavailable(format!(
            "none of the zone's name servers can be found: {}",
            servers.join(", ")
        ))),
    }
}

/// Waits until every server shows every record, at most 60 s.
pub(super) async fn seen(
    known: &Dependency,
    servers: &[SocketAddr],
    records: &[Record],
) -> Result<()> {
    let end = Instant::now() + VISIBLE;
    for at in servers {
        for record in records {
            while !known
                .call(|| dns::shows(*at, &record.name, &record.value))
                .await?
            {
                if Instant::now() > end {
                    return Err(Error::unavailable(format!(
                        "{at} did not show {} within {} s",
                        record.name,
                        VISIBLE.as_secs()
                    )));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    Ok(())
}

/// Cloudflare's API, version 4.
pub(super) struct Cloudflare {
    http: reqwest::Client,
    url: String,
    token: String,
    zone: String,
    api: Arc<Dependency>,
    name_servers: Arc<Dependency>,
}

impl Cloudflare {
    pub(super) fn new(cx: &Cx, dns: &Dns, url: &str) -> Result<Cloudflare> {
        Ok(Cloudflare {
            http: client::http(cx, None)?,
            url: url.to_owned(),
            token: dns.secret.clone().unwrap_or_default(),
            zone: dns.zone.clone(),
            api: cx.dependencies().named("Cloudflare"),
            name_servers: cx
                .dependencies()
                .named(&format!("name servers of {}", dns.zone)),
        })
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Result<Value> {
        let ask = || self.once(method.clone(), path, body.clone());
        match method {
            reqwest::Method::POST => self.api.once(ask()).await,
            _ => self.api.call(ask).await,
        }
    }

    async fn once(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request
            .send()
            .await
            .map_err(|e| Error::unavailable(format!("cannot reach Cloudflare: {e}")))?;
        let status = answer.status();
        let value: Value = answer
            .json()
            .await
            .map_err(|e| Error::unavailable(format!("Cloudflare answered {status}: {e}")))?;
        if value["success"] == true {
            return Ok(value["result"].clone());
        }
        let said = value["errors"][0]["message"]
            .as_str()
            .unwrap_or("no reason given");
        let text = format!("Cloudflare refused ({status}): {said}");
        Err(match status.is_server_error() || status.as_u16() == 429 {
            true => Error::unavailable(text),
            false => {
                Error::refused(text).hint("the token needs Zone:Read and DNS:Edit for the zone")
            }
        })
    }

    /// Its id, and the servers that answer for it.
    async fn zone(&self) -> Result<(String, Vec<String>)> {
        let path = format!("/zones?name={}", self.zone);
        let found = self.ask(reqwest::Method::GET, &path, None).await?;
        let servers = found[0]["name_servers"].as_array().into_iter().flatten();
        let servers = servers.filter_map(|s| s.as_str().map(str::to_owned));
        match found[0]["id"].as_str() {
            Some(id) => Ok((id.to_owned(), servers.collect())),
            None => Err(Error::refused(format!(
                "Cloudflare knows no zone {}",
                self.zone
            ))),
        }
    }

    async fn find(&self, zone: &str, record: &Record) -> Result<Vec<String>> {
        let path = format!("/zones/{zone}/dns_records?type=TXT&name={}", record.name);
        let found = self.ask(reqwest::Method::GET, &path, None).await?;
        let same = |one: &&Value| {
            one["content"]
                .as_str()
                .is_some_and(|c| c.trim_matches('"') == record.value)
        };
        let all = found.as_array().into_iter().flatten().filter(same);
        Ok(all
            .filter_map(|one| one["id"].as_str().map(str::to_owned))
            .collect())
    }

    /// Makes the records; answers who must show them.
    pub(super) async fn publish(&self, records: &[Record]) -> Result<Vec<String>> {
        let (zone, servers) = self.zone().await?;
        for record in records {
            if !self.find(&zone, record).await?.is_empty() {
                continue;
            }
            let body =
                json!({ "type": "TXT", "name": record.name, "content": record.value, "ttl": TTL });
            let path = format!("/zones/{zone}/dns_records");
            self.ask(reqwest::Method::POST, &path, Some(body)).await?;
        }
        Ok(servers)
    }

    pub(super) async fn withdraw(&self, records: &[Record]) -> Result<()> {
        let (zone, _) = self.zone().await?;
        for record in records {
            for id in self.find(&zone, record).await? {
                let path = format!("/zones/{zone}/dns_records/{id}");
                self.ask(reqwest::Method::DELETE, &path, None).await?;
            }
        }
        Ok(())
    }
}
