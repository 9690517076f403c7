//! The first start: as long as nobody administers this cluster, the console says how somebody becomes its administrator.
//!
//! A terminal shows the one-time code itself. Whatever else standard error is (a journal, a file, a pipe) may be kept and
//! carried off the machine, so it gets a line that says how to ask for a code, and no code.

use identity::login::People;
use model::Timestamp;
use runtime::audit::{Note, TOKEN_ISSUED, note};
use runtime::{Cx, LoginCode};
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

/// Tells whoever started this process, if nobody can log in as an administrator yet. `https`: where the server listens for HTTPS.
pub async fn tell(cx: &Cx, people: &Arc<People>, https: Option<SocketAddr>) {
    if people.administered(cx) {
        return;
    }
    if !std::io::stderr().is_terminal() {
        tracing::warn!(
            remedy = "as root on this host: dvctl api login-code",
            "nobody administers this cluster yet; a one-time code makes the first administrator"
        );
        return;
    }
    let issued = Note::new(&TOKEN_ISSUED, "first start").with("token", "login code");
    if let Err(error) = note(cx, issued).await {
        return tracing::error!(?error, "no one-time code is made that is not on record");
    }
    let maker = people.clone();
    let made = tokio::task::spawn_blocking(move || maker.first_code()).await;
    let text = match made {
        Ok(Ok(code)) => said(&code, &url(cx.node(), https), cx.clock().now()),
        Ok(Err(error)) => return tracing::error!(?error, "no one-time code could be made"),
        Err(error) => return tracing::error!(%error, "making a one-time code broke off"),
    };
    // In one go, so that no line of the log comes between. A terminal that is gone reads nothing.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// What others reach this server by, as far as it can be told from here.
fn url(node: &str, https: Option<SocketAddr>) -> String {
    match https {
        Some(at) if at.ip().is_unspecified() => format!("https://{node}:{}", at.port()),
        Some(at) => format!("https://{at}"),
        None => "URL".into(),
    }
}

fn said(code: &LoginCode, url: &str, now: Timestamp) -> String {
    let minutes = code.expires.since(now).as_secs().div_ceil(60);
    format!(
        "\n  Nobody administers this cluster yet. To become its first administrator, from any machine:\n\n    \
         dvctl login {} --code {}\n\n  \
         The code works once and for {minutes} minutes. The fingerprint of the cluster's CA must be\n    {}\n  \
         Another code: `dvctl api login-code` as root on this host.\n\n",
        url, code.code, code.ca_fingerprint
    )
}
