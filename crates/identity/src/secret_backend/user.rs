//! The password that we log in with at a key server is a secret like others: rotating it changes it there.

use super::{AuthMethod, Backends, KIND, get};
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result};
use runtime::{Change, Cx, SecretUser};

/// Speaks for key servers that we log in to with a password.
pub struct PasswordThere;

impl SecretUser for PasswordThere {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn order(&self) -> u8 {
        10
    }

    fn write<'a>(
        &'a self,
        cx: &'a Cx,
        user: &'a ObjectRef,
        change: Change<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let backend = get(cx, &user.name)?;
            if backend.spec.auth.method != AuthMethod::Userpass {
                let method = backend.spec.auth.method;
                return Err(Error::refused(format!(
                    "secret-backend `{}` gives out what it is entered with itself ({method:?}): make a new one there, and give it to the secret with `--value`",
                    user.name
                )));
            }
            let client = Backends::of(cx)?.client(cx, &backend)?;
            // Asked again after a crash, the new one is valid already, and the old one is not.
            let token = match client.log_in(change.from).await {
                Ok(token) => token,
                Err(first) => match client.log_in(change.to).await {
                    Ok(_) => return Ok(()),
                    Err(_) => return Err(first),
                },
            };
            client.set_password(&token.text, change.to).await
        })
    }

    fn verify<'a>(
        &'a self,
        cx: &'a Cx,
        user: &'a ObjectRef,
        value: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let backend = get(cx, &user.name)?;
            let client = Backends::of(cx)?.client(cx, &backend)?;
            client.log_in(value).await.map(drop)
        })
    }
}
