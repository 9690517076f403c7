//! The limits of this version, each a setting.

use super::mode::{Load, Mode, follow};
use super::{Caller, Limiter, Rate, Standing};
use crate::Cx;
use crate::setting::{Known, Sort};
use model::{Error, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How long a value that was read of a setting is taken for the one in force.
const TRUST: Duration = Duration::from_secs(1);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Requests of who shows no valid identity, by address.
    Anonymous,
    /// Requests of a principal.
    Principal,
    /// GraphQL queries of a principal.
    GraphQlQuery,
    /// GraphQL mutations of a principal.
    GraphQlMutation,
    /// gRPC calls of a principal.
    Grpc,
    /// gRPC calls of a principal that change something.
    GrpcChange,
}

macro_rules! limits {
    ($($name:ident $text:literal $default:literal $doc:literal;)*) => {
        $(#[doc = $doc]
        pub static $name: Known = Known {
            name: $text,
            doc: $doc,
            sort: Sort::Number { default: $default, min: 1, max: 100_000_000, unit: "" },
            restart_needed: false,
        };)*
    };
}

limits! {
    ANONYMOUS "limit-anonymous" 100
        "Requests a minute from one address (IPv6: its /64) that show no valid identity. One more is answered 429.";
    PRINCIPAL "limit-principal" 1200
        "Requests a minute of one user, all his sessions and keys together. Root and the owner on the local socket are not limited.";
    PRINCIPAL_BURST "limit-principal-burst" 100
        "Requests of one user at once, before `limit-principal` is spread evenly over the minute.";
    GRAPHQL_QUERY "limit-graphql-queries" 100
        "GraphQL queries a minute of one user.";
    GRAPHQL_MUTATION "limit-graphql-mutations" 50
        "GraphQL mutations a minute of one user.";
    GRPC "limit-grpc" 120
        "gRPC calls a minute of one user.";
    GRPC_CHANGE "limit-grpc-changes" 20
        "gRPC calls a minute of one user that change something.";
}

/// The settings of all limits.
pub static SETTINGS: &[&Known] = &[
    &ANONYMOUS,
    &PRINCIPAL,
    &PRINCIPAL_BURST,
    &GRAPHQL_QUERY,
    &GRAPHQL_MUTATION,
    &GRPC,
    &GRPC_CHANGE,
];

/// A limit for what is asked of certain kinds. The surface that counts it is told its name by nobody but this table.
#[derive(Clone, Copy, Debug)]
pub struct NamedRate {
    /// The kinds. One that this version does not have may be named.
    pub kinds: &'static [&'static str],
    /// The verbs: `list`, `create`, `delete`, an action; all of them when empty.
    pub verbs: &'static [&'static str],
    /// How often.
    pub rate: Rate,
}

impl NamedRate {
    fn is_about(&self, kind: &str, verb: &str) -> bool {
        self.kinds.contains(&kind) && (self.verbs.is_empty() || self.verbs.contains(&verb))
    }
}

/// The limits of a process for certain kinds, as a part of it; the first that fits counts.
#[derive(Clone, Copy, Debug)]
pub struct NamedRates(pub &'static [NamedRate]);

/// How somebody stands who was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// With the limit as it is set.
    pub standing: Standing,
    /// How many more he has before he is refused, when he is beyond his limit already.
    pub grace: Option<u32>,
}

/// What is in force.
#[derive(Clone, Copy, Debug)]
struct InForce {
    mode: Mode,
    /// What is left of limits.
    share: f64,
    rates: [Rate; 6],
}

/// All limits of one process, with their counts.
pub struct Rates {
    limiters: [Limiter; 6],
    named: Vec<(NamedRate, Limiter)>,
    pub(super) load: Arc<Load>,
    read: Mutex<Option<(Duration, Arc<InForce>)>>,
}

impl Rates {
    /// Those of this process, which is measured from now on.
    pub fn new(cx: &Cx) -> Rates {
        let load = Arc::new(Load::default());
        follow(load.clone(), cx);
        let named = cx.try_part::<NamedRates>();
        let named = named.iter().flat_map(|part| part.0.iter().copied());
        Rates {
            limiters: Default::default(),
            named: named.map(|row| (row, Limiter::default())).collect(),
            load,
            read: Mutex::default(),
        }
    }

    /// Counts one; `now` is a clock that goes forward.
    ///
    /// # Errors
    /// The refusal, and how he stands, when it is one too many.
    pub fn take(
        &self,
        cx: &Cx,
        class: Class,
        caller: Caller<'_>,
        now: Duration,
    ) -> Result<Counted, (Error, Standing)> {
        let force = self.in_force(cx, now);
        let limiter = &self.limiters[class as usize];
        // A stranger has done nothing to be given more.
        let known = class != Class::Anonymous;
        count(
            limiter,
            force.rates[class as usize],
            &force,
            known,
            caller,
            now,
        )
        .map_err(|standing| (standing.refusal(class.word()), standing))
    }

    /// Counts one that is about this kind and verb, when there is a limit for them.
    ///
    /// # Errors
    /// The refusal, and how he stands, when it is one too many.
    pub fn take_named(
        &self,
        cx: &Cx,
        (kind, verb): (&str, &str),
        caller: Caller<'_>,
        now: Duration,
    ) -> Option<Result<Counted, (Error, Standing)>> {
        let (row, limiter) = self
            .named
            .iter()
            .find(|(row, _)| row.is_about(kind, verb))?;
        let force = self.in_force(cx, now);
        let rate = force.mode.of(row.rate, force.share);
        let counted = count(limiter, rate, &force, true, caller, now);
        let what = format!("calls of this user for {}", row.kinds.join(", "));
        Some(counted.map_err(|standing| (standing.refusal(&what), standing)))
    }

    /// What is in force, read once a second: a request must not pay for it.
    fn in_force(&self, cx: &Cx, now: Duration) -> Arc<InForce> {
        let mut read = self.read.lock();
        match &*read {
            Some((at, force)) if now.saturating_sub(*at) < TRUST => force.clone(),
            _ => {
                let number = |known: &Known| u32::try_from(known.number(cx)).unwrap_or(u32::MAX);
                let minute = |known: &Known| Rate::per_minute(number(known));
                let (mode, share) = (Mode::now(cx), self.load.share());
                let rates = [
                    minute(&ANONYMOUS),
                    minute(&PRINCIPAL).burst(number(&PRINCIPAL_BURST)),
                    minute(&GRAPHQL_QUERY),
                    minute(&GRAPHQL_MUTATION),
                    minute(&GRPC),
                    minute(&GRPC_CHANGE),
                ];
                let force = Arc::new(InForce {
                    mode,
                    share,
                    rates: rates.map(|rate| mode.of(rate, share)),
                });
                *read = Some((now, force.clone()));
                force
            }
        }
    }
}

/// How much of a limit comes on top in the mode `graceful`.
const GRACE: f64 = 1.2;

fn count(
    limiter: &Limiter,
    rate: Rate,
    force: &InForce,
    known: bool,
    caller: Caller<'_>,
    now: Duration,
) -> Result<Counted, Standing> {
    if force.mode != Mode::Graceful || !known {
        let standing = limiter.take(rate, caller, now)?;
        let grace = None;
        return Ok(Counted { standing, grace });
    }
    let beyond = limiter.look(rate, caller, now).remaining == 0;
    let more = limiter.take(rate.scaled(GRACE), caller, now)?;
    Ok(Counted {
        standing: limiter.look(rate, caller, now),
        grace: beyond.then_some(more.remaining),
    })
}

impl Class {
    fn word(self) -> &'static str {
        match self {
            Class::Anonymous => "requests without a login from this address",
            Class::Principal => "requests of this user",
            Class::GraphQlQuery => "GraphQL queries of this user",
            Class::GraphQlMutation => "GraphQL mutations of this user",
            Class::Grpc => "gRPC calls of this user",
            Class::GrpcChange => "gRPC calls of this user that change something",
        }
    }
}
