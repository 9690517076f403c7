//! Mail to people: links for a new password, codes, warnings. Handed to one mail server over SMTP with STARTTLS, which is
//! demanded, its certificate verified.
//!
//! **Invariants.** Without `smtp-server` and `smtp-from` nothing is sent and whoever would need it is told so. The password
//! of the mail server is a secret, read for each letter and on record. A letter is plain text; what people have written
//! stands in no header.

use crate::secret;
use crate::user::User;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use model::{Error, ObjectRef, Result};
use runtime::setting::{
    PANEL_HOST, PANEL_ORIGINS, SMTP_CA, SMTP_FROM, SMTP_SECRET, SMTP_SERVER, SMTP_USER,
};
use runtime::{Cx, Obj};
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a mail server may take for a step.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many letters are under way at once; what comes beyond is not sent, and logged.
const AT_ONCE: usize = 16;
/// Where mail servers take letters from programs (RFC 6409).
const PORT: u16 = 587;

static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));

/// Whether mail can be sent.
pub fn works(cx: &Cx) -> bool {
    !SMTP_SERVER.text(cx).is_empty() && !SMTP_FROM.text(cx).is_empty()
}

/// The address of a user, when mail can reach him.
pub fn reaches(cx: &Cx, user: &Obj<User>) -> Option<Address> {
    let address = user.spec.email.as_deref().filter(|_| works(cx))?;
    address.parse().ok()
}

/// Where the panel is, as links say it.
pub fn panel(cx: &Cx) -> Option<String> {
    let first = PANEL_ORIGINS
        .text(cx)
        .split_whitespace()
        .next()
        .map(str::to_owned);
    let host = || Some(PANEL_HOST.text(cx)).filter(|host| !host.is_empty());
    first.or_else(|| host().map(|host| format!("https://{host}:8443")))
}

/// Sends a letter.
///
/// # Errors
/// `Refused` when no mail is sent here, `Unavailable` when the mail server does not take it.
pub async fn send(cx: &Cx, to: Address, subject: &str, text: String) -> Result<()> {
    if !works(cx) {
        return Err(Error::refused("no mail is sent from here").hint(
            "an administrator names a mail server: dvctl setting set smtp-server --value HOST",
        ));
    }
    let wrong = |name: &str, e: &dyn std::fmt::Display| {
        Error::unavailable(format!("the setting {name} cannot be used: {e}"))
    };
    let from: Mailbox = SMTP_FROM
        .text(cx)
        .parse()
        .map_err(|e| wrong("smtp-from", &e))?;
    let letter = Message::builder()
        .from(from)
        .to(Mailbox::new(None, to))
        .subject(subject)
        .header(ContentType::TEXT_PLAIN)
        .body(text)
        .map_err(|e| Error::internal("a letter cannot be written").because(e))?;
    let server = SMTP_SERVER.text(cx);
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|e| wrong("smtp-server", &e))?),
        None => (server.as_str(), PORT),
    };
    let mut tls = TlsParameters::builder(host.to_owned());
    let ca = SMTP_CA.text(cx);
    if !ca.is_empty() {
        let pem = tokio::fs::read(&ca)
            .await
            .map_err(|e| wrong("smtp-ca", &e))?;
        let ca = Certificate::from_pem(&pem).map_err(|e| wrong("smtp-ca", &e))?;
        tls = tls
            .certificate_store(CertificateStore::None)
            .add_root_certificate(ca);
    }
    let tls = tls.build_rustls().map_err(|e| wrong("smtp-ca", &e))?;
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port)
        .timeout(Some(PATIENCE))
        // Without encryption nothing is said; `dangerous` is only that the builder does not choose this by itself.
        .tls(Tls::Required(tls));
    let user = SMTP_USER.text(cx);
    if !user.is_empty() {
        transport = transport.credentials(Credentials::new(user, password(cx).await?));
    }
    let transport = transport.build();
    let server = cx.dependencies().named("mail");
    let refused = |e: lettre::transport::smtp::Error| match e.is_permanent() {
        true => Error::refused("the mail server refuses a letter").because(e),
        false => Error::unavailable("the mail server did not take a letter").because(e),
    };
    let once = || {
        let (transport, letter) = (transport.clone(), letter.clone());
        async move { transport.send(letter).await.map(drop).map_err(refused) }
    };
    server.call(once).await
}

async fn password(cx: &Cx) -> Result<String> {
    let named = SMTP_SECRET.text(cx);
    let Some((project, name)) = named.split_once('/') else {
        return Err(Error::unavailable(
            "smtp-user needs a password, and smtp-secret names none",
        ));
    };
    let secret = ObjectRef {
        kind: "secret".into(),
        project: Some(project.into()),
        name: name.into(),
    };
    let by = ObjectRef {
        kind: "setting".into(),
        project: None,
        name: SMTP_SECRET.name.into(),
    };
    let password = secret::read(cx, &secret, &by).await?;
    // A file that it came from ends with a line.
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

/// Does something aside, so that nobody learns from the time that an answer takes what is done. Not at all when too much
/// is under way.
pub fn aside(cx: &Cx, work: impl Future<Output = Result<()>> + Send + 'static) {
    let Ok(turn) = ROOM.clone().try_acquire_owned() else {
        tracing::warn!("a letter was not sent: too many are under way");
        return;
    };
    cx.life().spawn("letter", async move {
        if let Err(error) = work.await {
            tracing::warn!(?error, "a letter was not sent");
        }
        drop(turn);
    });
}

/// Tells a user something about his account, when mail can reach him.
pub fn warn(cx: &Cx, user: &Obj<User>, subject: &'static str, text: String) {
    let Some(to) = reaches(cx, user) else {
        return;
    };
    let from = cx.clone();
    aside(cx, async move { send(&from, to, subject, text).await });
}
