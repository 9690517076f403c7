//! `api stats`: calls, errors and times of every action, from the histograms that the server keeps for `/metrics`.

use super::show;
use crate::connect::Request;
use crate::failure::{Failure, Result};
use crate::output::{Format, Table};
use crate::session::Session;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The histogram by action, surface and code.
const NAME: &str = "debvisor_action_duration_seconds";

/// What is known of one action.
#[derive(Default)]
struct Calls {
    calls: u64,
    errors: u64,
    /// Upper edge in seconds, how many took at most so long. Edges come in rising order.
    buckets: Vec<(f64, u64)>,
}

/// `api stats`.
pub async fn stats(s: &Session) -> Result<()> {
    let answer = s.client.send(Request::get("/metrics")).await?;
    let text = std::str::from_utf8(&answer.body)
        .map_err(|e| Failure::unreachable(format!("the server's metrics cannot be read: {e}")))?;
    let wide = s.format == Format::Wide;
    let mut table = match wide {
        true => Table::new(["action", "surface", "calls", "errors", "p50", "p95", "p99"]),
        false => Table::new(["action", "calls", "errors", "p50", "p95", "p99"]),
    };
    let mut list = Vec::new();
    for ((action, surface), calls) in read(text, wide) {
        let times = [0.5, 0.95, 0.99].map(|q| quantile(&calls.buckets, q));
        let mut cells = vec![action.clone()];
        let mut out = json!({ "action": action });
        if wide {
            cells.push(surface.clone());
            out["surface"] = json!(surface);
        }
        cells.extend([calls.calls.to_string(), calls.errors.to_string()]);
        cells.extend(times.map(shown));
        table.row(cells);
        out["calls"] = json!(calls.calls);
        out["errors"] = json!(calls.errors);
        for (name, time) in ["p50_ms", "p95_ms", "p99_ms"].into_iter().zip(times) {
            out[name] = json!(time.map(|t| (t * 1e6).round() / 1e3));
        }
        list.push(out);
    }
    show(s, &table, &Value::Array(list))
}

/// Reads the histogram, summed over codes and, unless they are wanted apart, over surfaces.
fn read(text: &str, by_surface: bool) -> BTreeMap<(String, String), Calls> {
    let mut out: BTreeMap<(String, String), Calls> = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(NAME) else {
            continue;
        };
        let Some((what, rest)) = rest.split_once('{') else {
            continue;
        };
        let Some((labels, value)) = rest.rsplit_once("} ") else {
            continue;
        };
        let label = |name: &str| {
            labels.split(',').find_map(|l| {
                let (key, value) = l.split_once('=')?;
                (key == name).then(|| value.trim_matches('"').to_owned())
            })
        };
        let (Some(action), Some(surface)) = (label("action"), label("surface")) else {
            continue;
        };
        let surface = if by_surface { surface } else { String::new() };
        let calls = out.entry((action, surface)).or_default();
        match what {
            "_count" => {
                let count: u64 = value.parse().unwrap_or(0);
                calls.calls += count;
                if label("code").as_deref() != Some("OK") {
                    calls.errors += count;
                }
            }
            "_bucket" => {
                let edge = match label("le").as_deref() {
                    Some("+Inf") => f64::INFINITY,
                    Some(edge) => edge.parse().unwrap_or(f64::INFINITY),
                    None => continue,
                };
                let count: u64 = value.parse().unwrap_or(0);
                match calls.buckets.iter_mut().find(|(known, _)| *known == edge) {
                    Some((_, sum)) => *sum += count,
                    None => calls.buckets.push((edge, count)),
                }
            }
            _ => {}
        }
    }
    out
}

/// The time in seconds that this part of the calls stayed below: within a bucket as if calls lay evenly in it. `None`
/// without calls, infinity beyond the last edge.
fn quantile(buckets: &[(f64, u64)], part: f64) -> Option<f64> {
    let all = buckets.last().map_or(0, |(_, count)| *count);
    if all == 0 {
        return None;
    }
    let rank = part * all as f64;
    let (mut low, mut below) = (0.0, 0u64);
    for (edge, count) in buckets {
        if *count as f64 >= rank {
            if edge.is_infinite() {
                return Some(f64::INFINITY);
            }
            let inside = (*count - below).max(1) as f64;
            return Some(low + (edge - low) * (rank - below as f64) / inside);
        }
        (low, below) = (*edge, *count);
    }
    Some(f64::INFINITY)
}

fn shown(time: Option<f64>) -> String {
    match time {
        None => "-".into(),
        Some(t) if t.is_infinite() => "> 5 s".into(),
        Some(t) if t < 1.0 => format!("{:.1} ms", t * 1000.0),
        Some(t) => format!("{t:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_quantiles() {
        let text = r#"# TYPE debvisor_action_duration_seconds histogram
debvisor_action_duration_seconds_bucket{action="vm.start",surface="rest",code="OK",le="0.01"} 8
debvisor_action_duration_seconds_bucket{action="vm.start",surface="rest",code="OK",le="0.1"} 9
debvisor_action_duration_seconds_bucket{action="vm.start",surface="rest",code="OK",le="+Inf"} 9
debvisor_action_duration_seconds_sum{action="vm.start",surface="rest",code="OK"} 0.1
debvisor_action_duration_seconds_count{action="vm.start",surface="rest",code="OK"} 9
debvisor_action_duration_seconds_bucket{action="vm.start",surface="grpc",code="BUSY",le="0.01"} 0
debvisor_action_duration_seconds_bucket{action="vm.start",surface="grpc",code="BUSY",le="0.1"} 1
debvisor_action_duration_seconds_bucket{action="vm.start",surface="grpc",code="BUSY",le="+Inf"} 1
debvisor_action_duration_seconds_count{action="vm.start",surface="grpc",code="BUSY"} 1
debvisor_http_request_duration_seconds_count{route="act",status="202"} 9
"#;
        let all = read(text, false);
        let calls = &all[&("vm.start".to_owned(), String::new())];
        assert_eq!((all.len(), calls.calls, calls.errors), (1, 10, 1));
        assert_eq!(quantile(&calls.buckets, 0.4), Some(0.005));
        assert_eq!(quantile(&calls.buckets, 0.8), Some(0.01));
        let last = quantile(&calls.buckets, 0.9).unwrap();
        assert!((last - 0.055).abs() < 1e-9, "{last}");
        assert_eq!(read(text, true).len(), 2);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(
            quantile(&[(0.1, 0), (f64::INFINITY, 3)], 0.5),
            Some(f64::INFINITY)
        );
        assert_eq!(shown(Some(0.0123)), "12.3 ms");
    }
}
