//! Counts requests and tells them in Prometheus' text format.
//!
//! Labels are few and closed: surface, operation (a declared verb, never a path or a name) and status.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Upper edges in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

#[derive(Default)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

/// The counters of one server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), Series>>,
    open: Mutex<BTreeMap<&'static str, i64>>,
}

impl Metrics {
    /// Counts one answered request.
    pub(crate) fn answered(&self, route: &'static str, status: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut requests = self.requests.lock();
        let series = requests.entry((route, status)).or_default();
        series.count += 1;
        series.seconds += seconds;
        for (edge, bucket) in BUCKETS.iter().zip(&mut series.buckets) {
            if seconds <= *edge {
                *bucket += 1;
            }
        }
    }

    /// Counts something that stays open (a watch, a stream) until the guard is dropped.
    pub(crate) fn opened(self: &std::sync::Arc<Self>, what: &'static str) -> Open {
        *self.open.lock().entry(what).or_default() += 1;
        Open {
            what,
            metrics: self.clone(),
        }
    }

    /// The text.
    pub(crate) fn text(&self, objects: &[(&'static str, usize)]) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "# HELP debvisor_http_request_duration_seconds Time to answer a request, by route and status.\n\
             # TYPE debvisor_http_request_duration_seconds histogram"
        );
        let name = "debvisor_http_request_duration_seconds";
        for ((route, status), series) in &*self.requests.lock() {
            let labels = format!("route=\"{route}\",status=\"{status}\"");
            for (edge, count) in BUCKETS.iter().zip(&series.buckets) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{edge}\"}} {count}");
            }
            let _ = writeln!(
                out,
                "{name}_bucket{{{labels},le=\"+Inf\"}} {}\n{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {}",
                series.count, series.seconds, series.count
            );
        }
        let _ = writeln!(
            out,
            "# HELP debvisor_open_streams Watches and streams that are open now.\n# TYPE debvisor_open_streams gauge"
        );
        for (what, count) in &*self.open.lock() {
            let _ = writeln!(out, "debvisor_open_streams{{what=\"{what}\"}} {count}");
        }
        let _ = writeln!(
            out,
            "# HELP debvisor_objects Objects in the store, by kind.\n# TYPE debvisor_objects gauge"
        );
        for (kind, count) in objects {
            let _ = writeln!(out, "debvisor_objects{{kind=\"{kind}\"}} {count}");
        }
        out
    }
}

/// Something open; it counts until it is dropped.
pub(crate) struct Open {
    what: &'static str,
    metrics: std::sync::Arc<Metrics>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(count) = self.metrics.open.lock().get_mut(self.what) {
            *count -= 1;
        }
    }
}
