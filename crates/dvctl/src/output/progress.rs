//! One line that shows how far something is, redrawn in place on a terminal; elsewhere a line whenever the step changes.

use super::Screen;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// A line of progress on standard error.
pub struct Progress {
    screen: Screen,
    quiet: bool,
    shown: String,
    drawn: bool,
    seen: Vec<(Instant, u64)>,
}

/// How much of the past the rate is taken from.
const WINDOW: Duration = Duration::from_secs(10);

impl Progress {
    /// Nothing is drawn yet; `quiet` draws nothing ever.
    pub fn new(screen: Screen, quiet: bool) -> Progress {
        Progress {
            screen,
            quiet,
            shown: String::new(),
            drawn: false,
            seen: Vec::new(),
        }
    }

    /// Shows where it is: what, step, percent, bytes done of total.
    pub fn show(
        &mut self,
        what: &str,
        step: &str,
        percent: Option<u64>,
        bytes: Option<(u64, u64)>,
    ) {
        if self.quiet {
            return;
        }
        let now = Instant::now();
        if let Some((done, _)) = bytes {
            self.seen.push((now, done));
            self.seen
                .retain(|(at, _)| now.duration_since(*at) <= WINDOW);
        }
        if !self.screen.err_tty {
            // A log wants each step once, not every percent.
            let line = join(what, step);
            if line != self.shown && !step.is_empty() {
                self.screen.say(&line);
                self.shown = line;
            }
            return;
        }
        let line = draw(what, step, percent, bytes, rate(&self.seen));
        self.redraw(&line);
    }

    fn redraw(&mut self, line: &str) {
        let mut err = std::io::stderr().lock();
        _ = write!(err, "\r{line}\x1b[K");
        _ = err.flush();
        self.drawn = true;
    }

    /// Takes the line away, so that other text can follow.
    pub fn clear(&mut self) {
        if self.drawn {
            let mut err = std::io::stderr().lock();
            _ = write!(err, "\r\x1b[K");
            _ = err.flush();
            self.drawn = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn join(what: &str, step: &str) -> String {
    match step {
        "" => what.to_owned(),
        step => format!("{what}: {step}"),
    }
}

/// Bytes per second over the window.
fn rate(seen: &[(Instant, u64)]) -> Option<u64> {
    let ((t0, b0), (t1, b1)) = (seen.first()?, seen.last()?);
    let span = t1.duration_since(*t0).as_millis() as u64;
    (span >= 500 && b1 >= b0).then(|| (b1 - b0) * 1000 / span)
}

fn draw(
    what: &str,
    step: &str,
    percent: Option<u64>,
    bytes: Option<(u64, u64)>,
    rate: Option<u64>,
) -> String {
    let mut line = super::tidy(&join(what, step));
    if line.chars().count() > 48 {
        line = line.chars().take(47).chain(['…']).collect();
    }
    let percent = percent.or_else(|| {
        let (done, total) = bytes?;
        (total > 0).then(|| (done.min(total) * 100) / total)
    });
    if let Some(percent) = percent {
        let full = (percent.min(100) / 5) as usize;
        line.push_str(&format!(
            "  [{}{}] {percent:>3}%",
            "#".repeat(full),
            "-".repeat(20 - full)
        ));
    }
    if let Some((done, total)) = bytes {
        line.push_str(&format!("  {}", model::Bytes(done)));
        if total > 0 {
            line.push_str(&format!(" of {}", model::Bytes(total)));
        }
    }
    if let Some(rate) = rate {
        line.push_str(&format!("  {}/s", model::Bytes(rate)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(draw("vm start web1", "", None, None, None), "vm start web1");
        assert_eq!(
            draw(
                "image import d12",
                "download",
                None,
                Some((1 << 29, 1 << 30)),
                Some(1 << 20)
            ),
            "image import d12: download  [##########----------]  50%  512MiB of 1GiB  1MiB/s"
        );
        assert_eq!(
            draw("x", "y", Some(250), None, None),
            "x: y  [####################] 250%"
        );
        let t = Instant::now();
        let later = t + Duration::from_secs(2);
        assert_eq!(rate(&[(t, 0), (later, 4096)]), Some(2048));
        assert_eq!(rate(&[(t, 0)]), None);
    }
}
