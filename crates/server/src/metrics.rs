//! Counts requests and tells them in Prometheus' text format.
//!
//! Labels are few and closed: surface, operation (a declared verb, never a path or a name) and status.

use parking_lot::Mutex;
use runtime::resilience::{BreakerState, Standing};
use runtime::{Cx, Op, Surface};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Upper edges in seconds.
const BUCKETS: [f64; 11] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

#[derive(Default)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

impl Series {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        for (edge, bucket) in BUCKETS.iter().zip(&mut self.buckets) {
            if seconds <= *edge {
                *bucket += 1;
            }
        }
    }

    fn lines(&self, out: &mut String, name: &str, labels: &str) {
        for (edge, count) in BUCKETS.iter().zip(&self.buckets) {
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{edge}\"}} {count}");
        }
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {}\n{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {}",
            self.count, self.seconds, self.count
        );
    }
}

/// Kind and verb of a request, both declared; what is not declared is counted as `unknown`, so that nobody can make
/// series by asking for nonsense.
pub(crate) type Action = (&'static str, &'static str);

/// The counters of one server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), Series>>,
    actions: Mutex<BTreeMap<(Action, &'static str, &'static str), Series>>,
    open: Mutex<BTreeMap<&'static str, i64>>,
}

impl Metrics {
    /// Counts one answered request.
    pub(crate) fn answered(&self, route: &'static str, status: u16, took: Duration) {
        let mut requests = self.requests.lock();
        requests.entry((route, status)).or_default().add(took);
    }

    /// What a request is counted as.
    pub(crate) fn action(&self, cx: &Cx, op: &Op) -> Action {
        let Some(kind) = cx.registry().get(op.kind()).map(|d| d.kind()) else {
            return ("unknown", "unknown");
        };
        let verb = match op {
            Op::Get { .. } => "show",
            Op::List { .. } => "list",
            Op::Watch { .. } => "watch",
            Op::Create { .. } => "create",
            Op::Update { .. } => "update",
            Op::Patch { .. } => "patch",
            Op::Delete { .. } => "delete",
            Op::Act { verb, .. } => kind.action(verb).map_or("unknown", |a| a.verb),
            Op::Batch { verb, .. } => match kind.action(verb) {
                Some(action) => action.verb,
                None if verb == "delete" => "delete",
                None => "unknown",
            },
            Op::Stream { stream, .. } => kind
                .streams
                .iter()
                .find(|s| s.name == stream)
                .map_or("unknown", |s| s.name),
        };
        (kind.name, verb)
    }

    /// Counts one request that came to the gate; `code` is that of its error, or `OK`.
    pub(crate) fn acted(
        &self,
        action: Action,
        surface: Surface,
        code: &'static str,
        took: Duration,
    ) {
        let surface = match surface {
            Surface::Rest => "rest",
            Surface::GraphQl => "graphql",
            Surface::Grpc => "grpc",
            Surface::Watch => "watch",
            Surface::Inside => "inside",
        };
        let mut actions = self.actions.lock();
        actions
            .entry((action, surface, code))
            .or_default()
            .add(took);
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
    pub(crate) fn text(
        &self,
        objects: &[(&'static str, usize)],
        dependencies: &[Standing],
    ) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "# HELP debvisor_http_request_duration_seconds Time to answer a request, by route and status.\n\
             # TYPE debvisor_http_request_duration_seconds histogram"
        );
        let name = "debvisor_http_request_duration_seconds";
        for ((route, status), series) in &*self.requests.lock() {
            let labels = format!("route=\"{route}\",status=\"{status}\"");
            series.lines(&mut out, name, &labels);
        }
        let name = "debvisor_action_duration_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} Time from the gate to the answer, by action, surface and the code of its error.\n\
             # TYPE {name} histogram"
        );
        for (((kind, verb), surface, code), series) in &*self.actions.lock() {
            let labels = format!("action=\"{kind}.{verb}\",surface=\"{surface}\",code=\"{code}\"");
            series.lines(&mut out, name, &labels);
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
        depends(&mut out, dependencies);
        out
    }
}

/// What is called outside, and how that goes.
fn depends(out: &mut String, dependencies: &[Standing]) {
    let metric = |out: &mut String,
                  name: &str,
                  sort: &str,
                  help: &str,
                  value: &dyn Fn(&Standing) -> String| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {sort}");
        for one in dependencies {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(
                out,
                "{name}{{dependency=\"{}\",node=\"{}\"}} {}",
                quoted(&one.name),
                quoted(&one.node),
                value(one)
            );
        }
    };
    metric(
        out,
        "debvisor_dependency_open",
        "gauge",
        "Whether its breaker is open (1), half open (0.5) or closed (0).",
        &|s| match s.state {
            BreakerState::Closed => "0".into(),
            BreakerState::HalfOpen => "0.5".into(),
            BreakerState::Open => "1".into(),
        },
    );
    metric(
        out,
        "debvisor_dependency_opened_total",
        "counter",
        "How often its breaker has opened.",
        &|s| s.opened.to_string(),
    );
    metric(
        out,
        "debvisor_dependency_calls_total",
        "counter",
        "Calls that were made.",
        &|s| s.calls.to_string(),
    );
    metric(
        out,
        "debvisor_dependency_failures_total",
        "counter",
        "Calls that failed.",
        &|s| s.failures.to_string(),
    );
    metric(
        out,
        "debvisor_dependency_refused_total",
        "counter",
        "Calls that its breaker refused.",
        &|s| s.refused.to_string(),
    );
    metric(
        out,
        "debvisor_dependency_seconds_total",
        "counter",
        "Time that all calls took together.",
        &|s| s.seconds.to_string(),
    );
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
