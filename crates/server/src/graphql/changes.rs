//! Subscriptions: changes of a kind, and events.

use super::answers::{text, told};
use super::fields::Roots;
use super::shape::lower_camel;
use crate::app::Call;
use async_graphql::Value as Graph;
use async_graphql::dynamic::{
    FieldValue, InputValue, ResolverContext, SubscriptionField, SubscriptionFieldFuture, TypeRef,
};
use futures::StreamExt;
use model::{Kind, Result, Scope, Selector};
use runtime::{Op, Query, Surface, WatchEvent};

/// A change on its way out.
pub(super) struct Change {
    pub sort: &'static str,
    pub revision: String,
    pub object: Option<bytes::Bytes>,
}

impl Roots {
    pub(super) fn changes(&mut self, kind: &'static Kind, name: &str) -> Result<()> {
        let ty = TypeRef::named_nn(format!("{name}Change"));
        self.subscription(
            |field| {
                let mut field = SubscriptionField::new(field, ty, move |ctx| {
                    SubscriptionFieldFuture::new(async move {
                        let call = ctx.data::<Call>()?.through(Surface::GraphQl);
                        watch(&ctx, &call, kind).map_err(|e| told(&call, &e))
                    })
                });
                if kind.scope != Scope::Cluster {
                    field = field.argument(InputValue::new("project", TypeRef::named("String")));
                }
                for argument in ["name", "selector", "search"] {
                    field = field.argument(InputValue::new(argument, TypeRef::named("String")));
                }
                field
                    .argument(
                        InputValue::new("after", TypeRef::named("String"))
                            .description("The last revision that was seen; absent begins with everything that is there."),
                    )
                    .description(format!("Changes of {}.", kind.plural))
            },
            format!("{}Changes", lower_camel(kind.name)),
        )
    }
}

fn watch<'a>(
    ctx: &ResolverContext<'_>,
    call: &Call,
    kind: &'static Kind,
) -> Result<impl futures::Stream<Item = async_graphql::Result<FieldValue<'a>>> + use<'a>> {
    let op = Op::Watch {
        kind: kind.name.into(),
        project: text(ctx, "project"),
        name: text(ctx, "name"),
        query: Query {
            selector: Selector::parse(&text(ctx, "selector").unwrap_or_default())?,
            search: text(ctx, "search"),
            ..Query::default()
        },
        after: text(ctx, "after")
            .as_deref()
            .map(crate::watch::parse_revision)
            .transpose()?,
    };
    let admitted = call.admit(call.request(op)?, None)?;
    let events = call.watch(&admitted)?;
    let open = call.app.metrics.opened("watch");
    let (call, closing) = (call.clone(), call.app.closing.clone());
    Ok(events
        .map(move |event| {
            let _open = &open;
            let (sort, object, revision) = match event.map_err(|e| told(&call, &e))? {
                WatchEvent::Put { object, revision } => ("PUT", Some(object), revision),
                WatchEvent::Deleted { object, revision } => ("DELETE", Some(object), revision),
                WatchEvent::Bookmark(revision) => ("BOOKMARK", None, revision),
            };
            Ok(FieldValue::owned_any(Change {
                sort,
                revision: revision.to_string(),
                object,
            }))
        })
        .take_until(async move { closing.cancelled().await }))
}

/// Events as they happen.
pub(super) fn events<'a>(
    call: &Call,
    actor: runtime::Actor,
) -> impl futures::Stream<Item = async_graphql::Result<FieldValue<'a>>> + use<'a> {
    let live = call.app.cx.events().follow();
    crate::rest::events::follow(call, actor, live, None).map(|event| {
        let value = serde_json::to_value(&*event).unwrap_or_default();
        Ok(FieldValue::value(
            Graph::from_json(value).unwrap_or_default(),
        ))
    })
}
