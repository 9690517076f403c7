//! Puts the surfaces together and serves them until told to stop.

use crate::app::App;
use crate::health::{Check, Finding};
use crate::metrics::Metrics;
use crate::net::{Acceptor, ClientCertificate, Doors, Peer};
use crate::rest::path::RESERVED;
use crate::streams::Tickets;
use crate::{Limits, Listeners, front, graphql, grpc, net, openapi};
use axum::body::Body;
use http::Request;
use model::{Error, Result};
use runtime::limit::Rates;
use runtime::{Authority, Cx};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a server is made of.
pub struct Builder {
    cx: Cx,
    authority: Arc<dyn Authority>,
    limits: Limits,
    owner: Option<u32>,
    checks: Vec<Check>,
}

impl Builder {
    /// Other bounds than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The uid that, besides root, is the administrator on the local socket: the owner of the instance.
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// One more check of `/health/ready`.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Makes the schemas of all surfaces. An error is a mistake in a declaration.
    pub fn build(self) -> Result<Server> {
        let registry = self.cx.registry().clone();
        for declared in registry.iter() {
            let plural = declared.kind().plural;
            if RESERVED.contains(&plural) {
                return Err(Error::internal(format!(
                    "kind `{}` cannot have the plural `{plural}`: paths use that word",
                    declared.kind().name
                )));
            }
        }
        let to_bytes = |value: serde_json::Value, what: &str| {
            serde_json::to_vec(&value)
                .map(bytes::Bytes::from)
                .map_err(|e| {
                    Error::internal(format!("{what} cannot be written as JSON")).because(e)
                })
        };
        let mut checks = vec![store_check(&self.cx)];
        checks.extend(self.checks);
        Ok(Server {
            app: Arc::new(App {
                gate: self.cx.gate(),
                desk: self.cx.desk(),
                limits: Arc::new(self.limits),
                owner: self.owner.unwrap_or(0),
                checks,
                metrics: Arc::new(Metrics::default()),
                tickets: Tickets::new(),
                rates: Rates::new(&self.cx),
                sockets: Default::default(),
                upgraded: Default::default(),
                graphql: graphql::schema(&registry)?,
                openapi: to_bytes(openapi(&registry), "the OpenAPI description")?,
                registry: to_bytes(registry.to_json(), "the registry")?,
                surfaces: to_bytes(
                    serde_json::json!({ "actions": crate::reference::surfaces(&registry)? }),
                    "the table of surfaces",
                )?,
                ready: AtomicBool::new(true),
                closing: CancellationToken::new(),
                cut: CancellationToken::new(),
                authority: self.authority,
                cx: self.cx,
            }),
        })
    }
}

fn store_check(cx: &Cx) -> Check {
    let store = cx.store_handle();
    Check {
        name: "store",
        run: Arc::new(move || {
            let store = store.clone();
            Box::pin(async move {
                // Reads one key that need not be there: it is the answer that counts.
                let key = runtime::object_key("health", None, "probe");
                match store.get(&key).await {
                    Ok(_) => Finding::Ok,
                    Err(error) => Finding::Error(error.to_string()),
                }
            })
        }),
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was answered.
    Gracefully,
    /// Some connections had to be cut.
    Forced,
}

/// The surfaces, ready to serve.
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// Begins to put a server together.
    pub fn builder(cx: Cx, authority: Arc<dyn Authority>) -> Builder {
        Builder {
            cx,
            authority,
            limits: Limits::default(),
            owner: None,
            checks: Vec::new(),
        }
    }

    /// Serves until `shutdown` is cancelled, then ends in phases: for a while `/health/ready` fails while requests are
    /// still taken, then requests in flight may finish and long streams are told to reconnect, then the rest is cut.
    /// The caller stops the runtime afterwards.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<Ended> {
        let app = self.app;
        let abort = app.cut.clone();
        let _cut_when_dropped = abort.clone().drop_guard();
        let doors = Doors::new(
            app.limits.clone(),
            app.owner,
            app.closing.clone(),
            abort.clone(),
        );
        let http = Acceptor::new(doors.clone(), {
            let app = app.clone();
            Arc::new(move |peer: Peer, request: Request<Body>| {
                Box::pin(front::answer(app.clone(), peer, request))
            })
        });
        let mut accepting = JoinSet::new();
        if !listeners.https.is_empty() {
            let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
            let tls = net::Tls::new(app.authority.clone(), ClientCertificate::Optional, &alpn)?;
            let tls = Arc::new(tls);
            for listener in listeners.https {
                accepting.spawn(http.clone().tls(listener, tls.clone()));
            }
        }
        if !listeners.grpc.is_empty() {
            let tls = net::Tls::new(app.authority.clone(), ClientCertificate::Required, &[b"h2"])?;
            let tls = Arc::new(tls);
            let grpc = Acceptor::new(doors, grpc::service(app.clone())?);
            for listener in listeners.grpc {
                accepting.spawn(grpc.clone().tls(listener, tls.clone()));
            }
        }
        for listener in listeners.unix {
            accepting.spawn(http.clone().unix(listener));
        }
        shutdown.cancelled().await;
        tracing::info!("draining: not ready any more");
        app.ready.store(false, Ordering::Relaxed);
        tokio::time::sleep(app.limits.drain).await;
        tracing::info!("completing: requests in flight end, nothing new is taken");
        app.closing.cancel();
        let all = async {
            while accepting.join_next().await.is_some() {}
            // Nothing new becomes a socket any more; those that are open say why they close.
            app.upgraded.close();
            app.upgraded.wait().await;
        };
        let ended = match tokio::time::timeout(app.limits.complete, all).await {
            Ok(()) => Ended::Gracefully,
            Err(_) => {
                tracing::warn!("some requests did not end in time and are cut off");
                abort.cancel();
                accepting.shutdown().await;
                app.upgraded.close();
                app.upgraded.wait().await;
                Ended::Forced
            }
        };
        tracing::info!(?ended, "the surfaces are closed");
        Ok(ended)
    }
}
