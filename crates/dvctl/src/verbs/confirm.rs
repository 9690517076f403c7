//! Asks before something is destroyed.

use crate::failure::{Failure, Result};
use crate::session::Session;

/// Asks, unless `--yes` was given. Without a terminal nobody can answer, so it refuses.
pub fn destruction(s: &Session, yes: bool, what: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !s.screen.in_tty || !s.screen.err_tty {
        return Err(Failure::usage(format!("{what}, and nobody can be asked"))
            .hint("say --yes when that is meant"));
    }
    match s
        .screen
        .ask(&format!("{what}. Go on? [y/N] "))?
        .to_lowercase()
        .as_str()
    {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(3, "nothing was done")),
    }
}
