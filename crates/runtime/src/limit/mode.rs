//! How strictly limits are meant, and how busy the process is.
//!
//! | mode | at the limit |
//! |---|---|
//! | `strict` | one more is refused |
//! | `graceful` | who is known has a fifth more, and is warned with each of those; strangers have none |
//! | `adaptive` | as `strict`, and limits shrink while the process is late, to a quarter at least |

use super::Rate;
use crate::Cx;
use crate::setting::{Known, Sort};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How strictly limits are meant.
pub static MODE: Known = Known {
    name: "limit-mode",
    doc: "How strictly limits are meant: `strict` refuses one too many; `graceful` gives who is known a fifth more, with a warning in each answer; `adaptive` is strict, and lowers all limits while this process is late, to a quarter at least.",
    sort: Sort::Text {
        default: "strict",
        check: |text| match text {
            "strict" | "graceful" | "adaptive" => Ok(()),
            _ => Err("is not `strict`, `graceful` or `adaptive`".into()),
        },
    },
    restart_needed: false,
};

/// What the setting says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One too many is refused.
    #[default]
    Strict,
    /// Who is known has a fifth more.
    Graceful,
    /// Limits shrink while the process is late.
    Adaptive,
}

impl Mode {
    /// The one in force.
    pub fn now(cx: &Cx) -> Mode {
        match MODE.text(cx).as_str() {
            "graceful" => Mode::Graceful,
            "adaptive" => Mode::Adaptive,
            _ => Mode::Strict,
        }
    }

    /// What is left of a limit at a load.
    pub(super) fn of(self, rate: Rate, share: f64) -> Rate {
        match self {
            Mode::Adaptive => rate.scaled(share),
            Mode::Strict | Mode::Graceful => rate,
        }
    }
}

impl Rate {
    /// A part of it, or more than it; at least one.
    #[must_use]
    pub(super) fn scaled(self, by: f64) -> Rate {
        let scale = |most: u32| (f64::from(most) * by).floor().max(1.0) as u32;
        Rate {
            most: scale(self.most),
            window: self.window,
            burst: self.burst.map(scale),
        }
    }
}

/// A process this late is not busy yet.
const CALM: Duration = Duration::from_millis(20);
/// A process this late gives the least.
const FULL: Duration = Duration::from_millis(500);
/// The least that is left of a limit.
const FLOOR: f64 = 0.25;
/// How often it is measured.
const LOOK: Duration = Duration::from_millis(250);
/// How much of the mean a new measure is: what lasts a second counts, what passes does not.
const NEWEST: f64 = 0.25;

/// How late the tasks of this process get their turn, as a sliding mean.
#[derive(Debug, Default)]
pub struct Load {
    /// In microseconds.
    late: AtomicU32,
}

impl Load {
    /// Takes in that somebody got his turn so late.
    pub fn saw(&self, late: Duration) {
        let old = f64::from(self.late.load(Ordering::Relaxed));
        // A machine that slept was not busy.
        let new = late.min(FULL * 2).as_secs_f64() * 1e6;
        let mean = old + (new - old) * NEWEST;
        self.late.store(mean as u32, Ordering::Relaxed);
    }

    /// What is left of limits: 1 for a calm process, evenly less for a late one, a quarter at least.
    pub fn share(&self) -> f64 {
        let late = Duration::from_micros(self.late.load(Ordering::Relaxed).into());
        let over = late.saturating_sub(CALM).as_secs_f64();
        let whole = (FULL - CALM).as_secs_f64();
        (1.0 - over / whole * (1.0 - FLOOR)).max(FLOOR)
    }

    /// Measures while the mode asks for it; until the process ends.
    pub(super) async fn measure(self: std::sync::Arc<Self>, cx: Cx) {
        let stop = cx.shutdown();
        while !stop.is_cancelled() {
            let changed = MODE.changed(&cx);
            if Mode::now(&cx) != Mode::Adaptive {
                changed.await;
                continue;
            }
            tokio::pin!(changed);
            loop {
                let due = Instant::now() + LOOK;
                tokio::select! {
                    () = &mut changed => break,
                    () = tokio::time::sleep_until(due) => self.saw(due.elapsed()),
                }
            }
        }
    }
}

/// Begins to measure.
pub(super) fn follow(load: std::sync::Arc<Load>, cx: &Cx) {
    cx.life().spawn("load", load.measure(cx.clone()));
}
