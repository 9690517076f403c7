//! Where a request stands among others: ids that outside systems gave it, and the trace it is part of. They go with its
//! request id into task, event, audit and log, so that one request can be followed through every process.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// Longest foreign id that is kept.
const LONGEST: usize = 128;
/// Longest `tracestate` that is kept (W3C Trace Context, section 3.3.1.5: at least this much).
const LONGEST_STATE: usize = 512;

/// What goes with a request besides its own id. All of it comes from outside and is kept only when it is harmless in a
/// log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// `X-Correlation-ID`: the whole undertaking that the request is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// `X-Causation-ID`: the message that led to the request; for what a task or controller asks, the request that led
    /// to the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// `traceparent` of our part of the trace (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// `tracestate`, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// A foreign id when it is harmless in a log: `[A-Za-z0-9._-]{1,128}`.
pub fn kept(id: &str) -> Option<String> {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (!id.is_empty() && id.len() <= LONGEST && id.bytes().all(harmless)).then(|| id.to_owned())
}

impl Trace {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Trace::default()
    }

    /// From the headers of a request. `span` is the id of our part of the trace, `fresh` that of a trace that begins
    /// here when the caller has none or a wrong one.
    pub fn read<'h>(header: impl Fn(&str) -> Option<&'h str>, fresh: u128, span: u64) -> Trace {
        let given = header("traceparent").and_then(parse);
        let state = header("tracestate").filter(|text| {
            text.len() <= LONGEST_STATE && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        });
        let (trace, flags) = given.unwrap_or((fresh, 0));
        Trace {
            correlation_id: header("x-correlation-id").and_then(kept),
            causation_id: header("x-causation-id").and_then(kept),
            traceparent: Some(format!("00-{trace:032x}-{span:016x}-{flags:02x}")),
            tracestate: given.and(state).map(str::to_owned),
        }
    }

    /// The id of the trace, 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref()?.split('-').nth(1)
    }
}

/// Trace id and flags of a `traceparent`; versions after 00 may have more parts.
fn parse(text: &str) -> Option<(u128, u8)> {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, digits: usize| {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (part.len() == digits && part.bytes().all(lower))
            .then(|| u128::from_str_radix(part, 16).ok())
            .flatten()
    };
    let [version, trace, span, flags, more @ ..] = parts.as_slice() else {
        return None;
    };
    let version = hex(version, 2)?;
    if version == 0xff || (version == 0 && !more.is_empty()) || hex(span, 16)? == 0 {
        return None;
    }
    let trace = hex(trace, 32).filter(|id| *id != 0)?;
    Some((trace, hex(flags, 2)? as u8))
}

/// What the work in hand goes back to: the request that changed the object, or made the task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause {
    pub request_id: String,
    pub trace: Trace,
}

tokio::task_local! {
    static CAUSE: Cause;
}

impl Cause {
    /// Runs something that goes back to this.
    pub(crate) async fn leads_to<F: Future>(self, work: F) -> F::Output {
        CAUSE.scope(self, work).await
    }

    /// The cause of the work in hand, when it has one.
    pub(crate) fn now() -> Option<Cause> {
        CAUSE
            .try_with(Clone::clone)
            .ok()
            .filter(|cause| !cause.request_id.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parent: &str) -> Trace {
        let header = |name: &str| match name {
            "traceparent" => Some(parent),
            "tracestate" => Some("vendor=x"),
            "x-correlation-id" => Some("order-7"),
            "x-causation-id" => Some("not harmless\n"),
            _ => None,
        };
        Trace::read(header, 0xabc, 0x12)
    }

    #[test]
    fn a_good_trace_goes_on_and_a_bad_one_begins_anew() {
        let trace = read(GOOD);
        assert_eq!(
            trace.traceparent.as_deref(),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000012-01")
        );
        assert_eq!(trace.trace_id(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(trace.tracestate.as_deref(), Some("vendor=x"));
        assert_eq!(trace.correlation_id.as_deref(), Some("order-7"));
        assert_eq!(trace.causation_id, None);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            let trace = read(bad);
            assert_eq!(
                trace.trace_id(),
                Some("00000000000000000000000000000abc"),
                "{bad}"
            );
            assert_eq!(trace.tracestate, None, "{bad}");
        }
        let later = format!("01{}-more", &GOOD[2..]);
        assert_eq!(read(&later).trace_id(), trace.trace_id());
    }

    #[test]
    fn ids_are_kept_only_when_harmless() {
        assert_eq!(kept("a.B_9-"), Some("a.B_9-".into()));
        assert_eq!(kept(&"x".repeat(128)).map(|id| id.len()), Some(128));
        for bad in ["", "a b", "a\n", "ä", "a\"", "<a>", &"x".repeat(129)] {
            assert_eq!(kept(bad), None, "{bad}");
        }
    }
}
