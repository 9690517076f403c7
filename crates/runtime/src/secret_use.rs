//! Who holds a copy of a secret outside DebVisor (a database, a key server, a BMC) and must be given the new value when
//! it is rotated. What only reads a secret when it needs it is no such user and declares nothing.

use crate::Cx;
use futures::future::BoxFuture;
use model::{ObjectRef, Result};
use std::sync::Arc;

/// From which value to which. It is not printable: both are secret.
pub struct Change<'a> {
    /// The value that has been valid until now.
    pub from: &'a str,
    /// The value that is to be valid.
    pub to: &'a str,
}

/// How the objects of one kind that name a secret take a new value of it.
pub trait SecretUser: Send + Sync {
    /// The kind whose objects it speaks for.
    fn kind(&self) -> &'static str;

    /// Whom to tell first: lower is earlier.
    fn order(&self) -> u8 {
        100
    }

    /// Makes the new value valid where the object points to. May be asked again, also when it is valid already, and the
    /// other way round to go back.
    fn write<'a>(
        &'a self,
        cx: &'a Cx,
        user: &'a ObjectRef,
        change: Change<'a>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Proves, by using it, that a value is valid there.
    fn verify<'a>(
        &'a self,
        cx: &'a Cx,
        user: &'a ObjectRef,
        value: &'a str,
    ) -> BoxFuture<'a, Result<()>>;
}

/// All of them; a part of the process.
#[derive(Default)]
pub struct SecretUsers(Vec<Arc<dyn SecretUser>>);

impl SecretUsers {
    /// From what each crate brings.
    pub fn new(users: Vec<Arc<dyn SecretUser>>) -> SecretUsers {
        SecretUsers(users)
    }

    /// Who speaks for a kind; `None` when its objects read the secret when they need it.
    pub fn of(&self, kind: &str) -> Option<&Arc<dyn SecretUser>> {
        self.0.iter().find(|user| user.kind() == kind)
    }
}
