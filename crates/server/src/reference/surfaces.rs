//! Which surface offers which action, read off what each surface says of itself: the paths of the OpenAPI description,
//! the fields of the GraphQL schema, the methods of the gRPC descriptors. The registry says only what should be there,
//! so what a surface has lost is seen.

use crate::graphql::lower_camel;
use crate::openapi::camel;
use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
use model::{Error, Result, Scope};
use runtime::{Offer, Registry, Sort};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// One action and where it is offered. `None` where that surface has no place for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offered {
    /// `vm.start`.
    pub action: String,
    /// `common`, `action` or `stream`.
    pub sort: &'static str,
    /// What it takes: `vm.read`.
    pub privilege: String,
    /// In REST.
    pub rest: Option<bool>,
    /// In gRPC.
    pub grpc: Option<bool>,
    /// In GraphQL.
    pub graphql: Option<bool>,
    /// Over WebSocket and server-sent events.
    pub watch: Option<bool>,
}

/// What the surfaces say of themselves.
pub(crate) struct Said {
    pub openapi: Value,
    /// `Query.vms`, `Mutation.vmStart`, `Subscription.vmChanges`.
    pub graphql: BTreeSet<String>,
    /// `Get`, `Act`, ...
    pub grpc: BTreeSet<String>,
}

impl Said {
    /// Asks the surfaces.
    pub(crate) fn of(registry: &Registry) -> Result<Said> {
        Ok(Said {
            openapi: crate::openapi(registry),
            graphql: roots(&crate::graphql_sdl(registry))?,
            grpc: crate::grpc::methods()?,
        })
    }
}

/// Which surface offers what.
pub fn surfaces(registry: &Registry) -> Result<Vec<Offered>> {
    Ok(matrix(registry, &Said::of(registry)?))
}

pub(crate) fn matrix(registry: &Registry, said: &Said) -> Vec<Offered> {
    let row = |offer: Offer| Offered {
        action: offer.name(),
        sort: match offer.sort {
            Sort::Common => "common",
            Sort::Action => "action",
            Sort::Stream => "stream",
        },
        privilege: offer.privilege(),
        rest: rest(&offer)
            .map(|(path, method)| said.openapi["paths"][path.as_str()][method].is_object()),
        grpc: Some(said.grpc.contains(method(&offer))),
        graphql: Some(said.graphql.contains(&field(&offer))),
        watch: (offer.sort == Sort::Common && offer.verb == "watch")
            .then(|| said.openapi["paths"]["/api/v1/watch"]["get"].is_object()),
    };
    registry.offers().into_iter().map(row).collect()
}

/// Path and method in REST; none for a watch, which is a surface of its own.
fn rest(offer: &Offer) -> Option<(String, &'static str)> {
    let kind = offer.kind;
    let base = match kind.scope {
        Scope::Project => format!("/api/v1/projects/{{project}}/{}", kind.plural),
        Scope::Cluster | Scope::Any => format!("/api/v1/{}", kind.plural),
    };
    let verb = offer.verb;
    Some(match (offer.sort, verb) {
        (Sort::Action, _) => (format!("{base}/{{name}}/actions/{verb}"), "post"),
        (Sort::Stream, _) => {
            let way = kind.streams.iter().find(|s| s.name == verb).map(|s| s.way);
            let method = match way {
                Some(model::Way::Write) => "put",
                _ => "get",
            };
            (format!("{base}/{{name}}/streams/{verb}"), method)
        }
        (_, "list") => (base, "get"),
        (_, "create") => (base, "post"),
        (_, "update") => (format!("{base}/{{name}}"), "put"),
        (_, "patch") => (format!("{base}/{{name}}"), "patch"),
        (_, "delete") => (format!("{base}/{{name}}"), "delete"),
        (_, "explain") => ("/api/v1/explain/{kind}/{project}/{name}".into(), "get"),
        (_, "watch") => return None,
        _ => (format!("{base}/{{name}}"), "get"),
    })
}

/// The method of the gRPC service that would carry it.
fn method(offer: &Offer) -> &'static str {
    match (offer.sort, offer.verb) {
        (Sort::Action, _) => "Act",
        (Sort::Stream, _) => "Open",
        (_, "list") => "List",
        (_, "create") => "Create",
        (_, "update") => "Update",
        (_, "patch") => "Patch",
        (_, "delete") => "Delete",
        (_, "watch") => "Watch",
        (_, "explain") => "Explain",
        _ => "Get",
    }
}

/// The field of the GraphQL schema that would carry it.
fn field(offer: &Offer) -> String {
    let name = lower_camel(offer.kind.name);
    match (offer.sort, offer.verb) {
        (Sort::Action, verb) => format!("Mutation.{name}{}", camel(verb)),
        (Sort::Stream, verb) => format!("Subscription.{name}{}", camel(verb)),
        (_, "list") => format!("Query.{}", lower_camel(offer.kind.plural)),
        (_, "create") => format!("Mutation.{name}Create"),
        (_, "update") => format!("Mutation.{name}Apply"),
        (_, "patch") => format!("Mutation.{name}Patch"),
        (_, "delete") => format!("Mutation.{name}Delete"),
        (_, "watch") => format!("Subscription.{name}Changes"),
        (_, "explain") => format!("Query.{name}Explain"),
        _ => format!("Query.{name}"),
    }
}

/// The fields of the three roots of a schema.
fn roots(sdl: &str) -> Result<BTreeSet<String>> {
    let document = parse_schema(sdl)
        .map_err(|e| Error::internal("the GraphQL schema cannot be read back").because(e))?;
    let mut out = BTreeSet::new();
    for definition in document.definitions {
        if let TypeSystemDefinition::Type(ty) = definition
            && let TypeKind::Object(object) = &ty.node.kind
        {
            let root = &ty.node.name.node;
            for field in &object.fields {
                out.insert(format!("{root}.{}", field.node.name.node));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        Registry::new(&[runtime::SUBSYSTEMS]).unwrap()
    }

    fn missing(said: &Said) -> Vec<String> {
        let mut out = Vec::new();
        for row in matrix(&registry(), said) {
            for (surface, there) in [
                ("rest", row.rest),
                ("grpc", row.grpc),
                ("graphql", row.graphql),
                ("watch", row.watch),
            ] {
                if there == Some(false) && row.sort != "stream" && !row.action.ends_with(".explain")
                {
                    out.push(format!("{} in {surface}", row.action));
                }
            }
        }
        out
    }

    #[test]
    fn what_a_surface_has_lost_is_named() {
        let registry = registry();
        let said = || Said::of(&registry).unwrap();
        assert_eq!(missing(&said()), Vec::<String>::new());
        let mut less = said();
        let paths = less.openapi["paths"].as_object_mut().unwrap();
        paths
            .shift_remove("/api/v1/tasks/{name}/actions/cancel")
            .unwrap();
        assert_eq!(missing(&less), ["task.cancel in rest"]);
        let mut less = said();
        assert!(less.graphql.remove("Mutation.settingPatch"));
        assert_eq!(missing(&less), ["setting.patch in graphql"]);
        let mut less = said();
        assert!(less.grpc.remove("Act"));
        let actions: usize = registry.iter().map(|d| d.kind().actions.len()).sum();
        let gaps = missing(&less);
        assert!(gaps.contains(&"task.cancel in grpc".to_owned()), "{gaps:?}");
        assert_eq!(gaps.len(), actions);
        let mut less = said();
        let paths = less.openapi["paths"].as_object_mut().unwrap();
        paths.shift_remove("/api/v1/watch").unwrap();
        assert_eq!(missing(&less).len(), registry.iter().count());
    }
}
