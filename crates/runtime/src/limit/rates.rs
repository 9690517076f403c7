//! The limits of this version, each a setting.

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

/// All limits of one process, with their counts.
#[derive(Default)]
pub struct Rates {
    limiters: [Limiter; 6],
    read: Mutex<Option<(Duration, Arc<[Rate; 6]>)>>,
}

impl Rates {
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
    ) -> Result<Standing, (Error, Standing)> {
        let rate = self.rates(cx, now)[class as usize];
        self.limiters[class as usize]
            .take(rate, caller, now)
            .map_err(|standing| (standing.refusal(class.word()), standing))
    }

    /// What is in force, read once a second: a request must not pay for it.
    fn rates(&self, cx: &Cx, now: Duration) -> Arc<[Rate; 6]> {
        let mut read = self.read.lock();
        match &*read {
            Some((at, rates)) if now.saturating_sub(*at) < TRUST => rates.clone(),
            _ => {
                let number = |known: &Known| u32::try_from(known.number(cx)).unwrap_or(u32::MAX);
                let minute = |known: &Known| Rate::per_minute(number(known));
                let rates = Arc::new([
                    minute(&ANONYMOUS),
                    minute(&PRINCIPAL).burst(number(&PRINCIPAL_BURST)),
                    minute(&GRAPHQL_QUERY),
                    minute(&GRAPHQL_MUTATION),
                    minute(&GRPC),
                    minute(&GRPC_CHANGE),
                ]);
                *read = Some((now, rates.clone()));
                rates
            }
        }
    }
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
