//! Logs on standard error: JSON lines in production, text for people. The level is a setting that changes live.

use crate::config::{Log, LogFormat};
use anyhow::Context;
use runtime::Cx;
use runtime::setting;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes the level of a running process.
#[derive(Clone)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: String,
}

/// Starts logging.
pub fn start(log: &Log) -> anyhow::Result<Levels> {
    let filter: EnvFilter = log
        .level
        .parse()
        .with_context(|| format!("log.level `{}` is not a filter", log.level))?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Json => {
            registry
                .with(
                    fmt::layer()
                        .json()
                        .flatten_event(true)
                        .with_writer(std::io::stderr),
                )
                .init();
        }
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_ansi(false))
            .init(),
    }
    Ok(Levels {
        handle,
        configured: log.level.clone(),
    })
}

impl Levels {
    /// Follows the setting `log-level` until the process ends; what the file says holds while none is set.
    pub fn follow(self, cx: &Cx) {
        let followed = cx.clone();
        cx.life().spawn("log level", async move {
            let cx = followed;
            let stop = cx.shutdown();
            loop {
                let changed = setting::LOG_LEVEL.changed(&cx);
                let set = setting::LOG_LEVEL.text(&cx);
                let level = match set.as_str() {
                    "" => &self.configured,
                    set => set,
                };
                if let Ok(filter) = level.parse::<EnvFilter>() {
                    let _ = self.handle.reload(filter);
                }
                changed.await;
                if stop.is_cancelled() {
                    return;
                }
            }
        });
    }
}
