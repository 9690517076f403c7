//! Waits for the order to end: SIGTERM or SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT.
pub fn ending(life: &runtime::life::Life) -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let ended = token.clone();
    life.spawn("signals", async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("asked to end by SIGTERM"),
            _ = int.recv() => tracing::info!("asked to end by SIGINT"),
        }
        ended.cancel();
    });
    Ok(token)
}
