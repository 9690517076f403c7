//! Queries, mutations and subscriptions of every kind.

use super::shape::{INT64, JSON, Part, Shape, json, lower_camel};
use super::types::{Types, project_of};
use crate::app::Call;
use crate::openapi::camel;
use async_graphql::dynamic::{
    Field, FieldFuture, FieldValue, InputValue, Object, ResolverContext, Subscription,
    SubscriptionField, SubscriptionFieldFuture, TypeRef,
};
use async_graphql::{ErrorExtensions, Name, Value as Graph};
use futures::StreamExt;
use model::{Action, Error, Kind, ObjectRef, Result, Scope, Selector, Verb};
use runtime::{Answer, Declared, Op, Query, Surface, WatchEvent};
use serde_json::{Map, Value};
use std::sync::Arc;

type Out = async_graphql::Result<Option<FieldValue<'static>>>;

/// The three roots under construction. Names are checked: two of the same name are a mistake in a declaration.
pub(super) struct Roots {
    pub query: Object,
    pub mutation: Object,
    pub subscription: Subscription,
    names: Vec<String>,
}

impl Roots {
    pub(super) fn new() -> Roots {
        Roots {
            query: Object::new("Query").description("What is."),
            mutation: Object::new("Mutation").description("What people want to be."),
            subscription: Subscription::new("Subscription").description("What happens."),
            names: Vec::new(),
        }
    }

    fn name(&mut self, root: &str, name: String) -> Result<String> {
        let full = format!("{root}.{name}");
        if self.names.contains(&full) {
            return Err(Error::internal(format!(
                "two things would be called {full} in GraphQL"
            )));
        }
        self.names.push(full);
        Ok(name)
    }

    fn query(&mut self, field: impl FnOnce(String) -> Field, name: String) -> Result<()> {
        let field = field(self.name("Query", name)?);
        let old = std::mem::replace(&mut self.query, Object::new("Query"));
        self.query = old.field(field);
        Ok(())
    }

    fn mutation(&mut self, field: impl FnOnce(String) -> Field, name: String) -> Result<()> {
        let field = field(self.name("Mutation", name)?);
        let old = std::mem::replace(&mut self.mutation, Object::new("Mutation"));
        self.mutation = old.field(field);
        Ok(())
    }

    fn subscription(
        &mut self,
        field: impl FnOnce(String) -> SubscriptionField,
        name: String,
    ) -> Result<()> {
        let field = field(self.name("Subscription", name)?);
        let old = std::mem::replace(&mut self.subscription, Subscription::new("Subscription"));
        self.subscription = old.field(field);
        Ok(())
    }

    /// What is there whatever kinds there are.
    pub(super) fn common(&mut self) -> Result<()> {
        self.query(
            |name| {
                Field::new(name, TypeRef::named_nn(JSON), |ctx| {
                    FieldFuture::new(async move {
                        let call = ctx.data::<Call>()?;
                        let registry = call.app.cx.registry().to_json();
                        Ok(Some(Graph::from_json(registry)?))
                    })
                })
                .description("The declaration of all kinds, as data.")
            },
            "registry".into(),
        )?;
        self.subscription(
            |name| {
                SubscriptionField::new(name, TypeRef::named_nn(JSON), |ctx| {
                    SubscriptionFieldFuture::new(async move {
                        let call = ctx.data::<Call>()?.clone();
                        call.need("event", "read").map_err(|e| told(&call, &e))?;
                        Ok(events(call))
                    })
                })
                .description("Events as they happen.")
            },
            "events".into(),
        )
    }

    /// Everything of one kind.
    pub(super) fn kind(&mut self, declared: &Declared, types: &mut Types) -> Result<()> {
        let kind = declared.kind();
        let name = camel(kind.name);
        let spec = Shape::of(&declared.spec, &format!("{name}Spec"))?;
        self.types(declared, types, &spec)?;
        self.reads(kind, &name)?;
        let spec_input = types.input(&spec)?;
        let spec = Arc::new(spec);
        if kind.allows(Verb::Create) {
            self.create(kind, &name, spec.clone(), spec_input.clone())?;
        }
        if kind.allows(Verb::Update) {
            self.apply(kind, &name, spec, spec_input)?;
            self.patch(kind, &name)?;
        }
        if kind.allows(Verb::Delete) {
            self.delete(kind)?;
        }
        for action in kind.actions {
            self.act(kind, action, types)?;
        }
        self.changes(kind, &name)
    }

    fn types(&mut self, declared: &Declared, types: &mut Types, spec: &Shape) -> Result<()> {
        let kind = declared.kind();
        let name = camel(kind.name);
        let status = Shape::of(&declared.status, &format!("{name}Status"))?;
        let meta = Shape::of(&model::schema::of::<model::Meta>().to_value(), "Metadata")?;
        let part = |field: &'static str, ty: TypeRef, shape: Shape| {
            Field::new(field, ty, move |ctx| {
                let shown = ctx
                    .parent_value
                    .try_downcast_ref::<Part>()
                    .map(|part| shape.show(&part.value[field], part.project.as_deref()));
                FieldFuture::new(async move { shown })
            })
        };
        let text = || Shape::Scalar("String");
        let whole = Field::new("json", TypeRef::named_nn(JSON), |ctx| {
            let shown = ctx
                .parent_value
                .try_downcast_ref::<Part>()
                .map(|part| Graph::from_json(part.value.clone()).ok());
            FieldFuture::new(async move { shown })
        });
        let object = Object::new(&name)
            .description(kind.doc)
            .field(part("version", TypeRef::named_nn("String"), text()))
            .field(part("kind", TypeRef::named_nn("String"), text()))
            .field(part("metadata", types.output(&meta)?, meta))
            .field(part("spec", types.output(spec)?, spec.clone()))
            .field(part("status", types.output(&status)?, status))
            .field(whole.description("The whole object."));
        types.add(&name, object)?;

        let page = Object::new(format!("{name}Page"))
            .description(format!("A page of {}.", kind.plural))
            .field(of_page("revision", TypeRef::named_nn("String")))
            .field(of_page("total", TypeRef::named_nn(INT64)))
            .field(of_page("next", TypeRef::named("String")))
            .field(Field::new(
                "items",
                TypeRef::named_nn_list_nn(&name),
                |ctx| {
                    let shown = ctx.parent_value.try_downcast_ref::<Value>().map(|page| {
                        let items = page["items"].as_array().cloned().unwrap_or_default();
                        Some(FieldValue::list(items.into_iter().map(|value| {
                            FieldValue::owned_any(Part {
                                project: project_of(&value),
                                value,
                            })
                        })))
                    });
                    FieldFuture::new(async move { shown })
                },
            ));
        types.add(&format!("{name}Page"), page)?;

        let change = Object::new(format!("{name}Change"))
            .description(format!("A change of a {}.", kind.name))
            .field(Field::new("type", TypeRef::named_nn("ChangeType"), |ctx| {
                let shown = ctx
                    .parent_value
                    .try_downcast_ref::<Change>()
                    .map(|change| Some(Graph::Enum(Name::new(change.sort))));
                FieldFuture::new(async move { shown })
            }))
            .field(Field::new("revision", TypeRef::named_nn("String"), |ctx| {
                let shown = ctx
                    .parent_value
                    .try_downcast_ref::<Change>()
                    .map(|change| Some(Graph::from(change.revision.clone())));
                FieldFuture::new(async move { shown })
            }))
            .field(Field::new("object", TypeRef::named(&name), |ctx| {
                let shown = ctx
                    .parent_value
                    .try_downcast_ref::<Change>()
                    .map(|change| change.object.as_deref().and_then(shown));
                FieldFuture::new(async move { shown })
            }));
        types.add(&format!("{name}Change"), change)
    }

    fn reads(&mut self, kind: &'static Kind, name: &str) -> Result<()> {
        let page = TypeRef::named_nn(format!("{name}Page"));
        self.query(
            |field| {
                in_project(
                    kind,
                    false,
                    Field::new(field, page, move |ctx| {
                        FieldFuture::new(async move { list(&ctx, kind).await })
                    }),
                )
                .argument(
                    InputValue::new("selector", TypeRef::named("String"))
                        .description("Labels: `env=prod,tier!=db`."),
                )
                .argument(
                    InputValue::new("search", TypeRef::named("String"))
                        .description("A text that name, labels or a column contain."),
                )
                .argument(
                    InputValue::new("sort", TypeRef::named("String"))
                        .description("A column; `-` in front turns the order round."),
                )
                .argument(
                    InputValue::new("limit", TypeRef::named("Int"))
                        .description("Most objects; 20 when absent, at most 1000."),
                )
                .argument(
                    InputValue::new("after", TypeRef::named("String"))
                        .description("The `next` of the page before."),
                )
                .description(format!("A page of {}.", kind.plural))
            },
            lower_camel(kind.plural),
        )?;
        self.query(
            |field| {
                named(
                    kind,
                    Field::new(field, TypeRef::named(name), move |ctx| {
                        FieldFuture::new(async move {
                            let op = Op::Get {
                                target: target(&ctx, kind),
                            };
                            one(&ctx, op, false).await
                        })
                    }),
                )
                .description(format!("One {}; an error when it is not there.", kind.name))
            },
            lower_camel(kind.name),
        )
    }

    fn create(
        &mut self,
        kind: &'static Kind,
        name: &str,
        spec: Arc<Shape>,
        input: TypeRef,
    ) -> Result<()> {
        self.mutation(
            |field| {
                let field = Field::new(field, TypeRef::named_nn(name), move |ctx| {
                    let spec = spec.clone();
                    FieldFuture::new(async move {
                        let op = Op::Create {
                            kind: kind.name.into(),
                            project: text(&ctx, "project"),
                            body: body(&ctx, &spec),
                        };
                        one(&ctx, op, true).await
                    })
                });
                written(with_body(named(kind, field), input))
                    .description(format!("Create a {}.", kind.name))
            },
            format!("{}Create", lower_camel(kind.name)),
        )
    }

    fn apply(
        &mut self,
        kind: &'static Kind,
        name: &str,
        spec: Arc<Shape>,
        input: TypeRef,
    ) -> Result<()> {
        self.mutation(
            |field| {
                let field = Field::new(field, TypeRef::named_nn(name), move |ctx| {
                    let spec = spec.clone();
                    FieldFuture::new(async move {
                        let op = Op::Update {
                            target: target(&ctx, kind),
                            body: body(&ctx, &spec),
                            create: text(&ctx, "if_match").is_none(),
                        };
                        one(&ctx, op, true).await
                    })
                });
                written(with_body(named(kind, field), input)).description(format!(
                    "Replace the spec of a {}, or create it.",
                    kind.name
                ))
            },
            format!("{}Apply", lower_camel(kind.name)),
        )
    }

    fn patch(&mut self, kind: &'static Kind, name: &str) -> Result<()> {
        self.mutation(
            |field| {
                let field = Field::new(field, TypeRef::named_nn(name), move |ctx| {
                    FieldFuture::new(async move {
                        let op = Op::Patch {
                            target: target(&ctx, kind),
                            body: argument(&ctx, "patch").map_or(Value::Null, |v| json(&v)),
                        };
                        one(&ctx, op, true).await
                    })
                });
                written(
                    named(kind, field).argument(
                        InputValue::new("patch", TypeRef::named_nn(JSON))
                            .description("Parts of metadata and spec (RFC 7396)."),
                    ),
                )
                .description(format!("Change parts of a {}.", kind.name))
            },
            format!("{}Patch", lower_camel(kind.name)),
        )
    }

    fn delete(&mut self, kind: &'static Kind) -> Result<()> {
        self.mutation(
            |field| {
                let field = Field::new(field, TypeRef::named_nn("Deletion"), move |ctx| {
                    FieldFuture::new(async move {
                        let keep = argument(&ctx, "keep").map_or(Value::Null, |v| json(&v));
                        let op = Op::Delete {
                            target: target(&ctx, kind),
                            keep: serde_json::from_value(keep).unwrap_or_default(),
                        };
                        let call = ctx.data::<Call>()?;
                        let answer = write(&ctx, call, op).await.map_err(|e| told(call, &e))?;
                        Ok(Some(FieldValue::owned_any(match answer {
                            Answer::Deleting { json } => Some(json),
                            _ => None,
                        })))
                    })
                });
                written(
                    named(kind, field).argument(
                        InputValue::new("keep", TypeRef::named_nn_list("String"))
                            .description("Kinds of owned objects that stay."),
                    ),
                )
                .description(format!("Delete a {}.", kind.name))
            },
            format!("{}Delete", lower_camel(kind.name)),
        )
    }

    fn act(
        &mut self,
        kind: &'static Kind,
        action: &'static Action,
        types: &mut Types,
    ) -> Result<()> {
        let schema = (action.input)().to_value();
        let name = format!("{}{}", camel(kind.name), camel(action.verb));
        let shape = Arc::new(Shape::of(&schema, &name)?);
        let takes = schema
            .get("properties")
            .and_then(Value::as_object)
            .is_some_and(|p| !p.is_empty());
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|r| !r.is_empty());
        let input = match takes {
            true => Some(types.input(&shape)?),
            false => None,
        };
        let task = TypeRef::named_nn(camel(runtime::task::KIND.name));
        self.mutation(
            |field| {
                let field = Field::new(field, task, move |ctx| {
                    let shape = shape.clone();
                    FieldFuture::new(async move {
                        let params = argument(&ctx, "input");
                        let op = Op::Act {
                            target: target(&ctx, kind),
                            verb: action.verb.into(),
                            params: params.map_or(Value::Object(Map::new()), |p| shape.take(&p)),
                        };
                        one(&ctx, op, true).await
                    })
                });
                let mut field = named(kind, field);
                if let Some(input) = input {
                    let input = match required {
                        true => TypeRef::NonNull(Box::new(input)),
                        false => input,
                    };
                    field = field.argument(InputValue::new("input", input));
                }
                preconditions(field).description(action.doc)
            },
            format!("{}{}", lower_camel(kind.name), camel(action.verb)),
        )
    }

    fn changes(&mut self, kind: &'static Kind, name: &str) -> Result<()> {
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

/// A change on its way out.
struct Change {
    sort: &'static str,
    revision: String,
    object: Option<bytes::Bytes>,
}

/// The types that are there whatever kinds there are.
pub(super) fn common_types(types: &mut Types) -> Result<()> {
    use async_graphql::dynamic::{Enum, EnumItem, Scalar};
    types.add(
        JSON,
        Scalar::new(JSON).description("Any JSON value: free maps, and values of several types."),
    )?;
    types.add(
        INT64,
        Scalar::new(INT64)
            .description("A whole number beyond 32 bits. As input also a text with a unit, such as \"1GiB\", where the field takes one.")
            .validator(|value| matches!(value, Graph::Number(n) if !n.is_f64()) || matches!(value, Graph::String(_))),
    )?;
    types.add(
        "ChangeType",
        Enum::new("ChangeType")
            .item(EnumItem::new("PUT").description("It is there, new or changed."))
            .item(EnumItem::new("DELETE").description("It is gone, or no longer picked."))
            .item(
                EnumItem::new("BOOKMARK")
                    .description("Everything up to this revision has been sent."),
            ),
    )?;
    let deletion = Object::new("Deletion")
        .description("What became of a deletion.")
        .field(
            Field::new("gone", TypeRef::named_nn("Boolean"), |ctx| {
                let shown = ctx
                    .parent_value
                    .try_downcast_ref::<Option<bytes::Bytes>>()
                    .map(|object| Some(Graph::from(object.is_none())));
                FieldFuture::new(async move { shown })
            })
            .description("Whether it is gone already; else it is being deleted."),
        )
        .field(
            Field::new("object", TypeRef::named(JSON), |ctx| {
                let shown = ctx
                    .parent_value
                    .try_downcast_ref::<Option<bytes::Bytes>>()
                    .map(|object| {
                        object
                            .as_deref()
                            .and_then(|json| serde_json::from_slice::<Graph>(json).ok())
                    });
                FieldFuture::new(async move { shown })
            })
            .description("The object while it is being deleted."),
        );
    types.add("Deletion", deletion)
}

fn of_page(name: &'static str, ty: TypeRef) -> Field {
    Field::new(name, ty, move |ctx| {
        let shown = ctx
            .parent_value
            .try_downcast_ref::<Value>()
            .map(|page| match &page[name] {
                Value::Null => None,
                value => Graph::from_json(value.clone()).ok(),
            });
        FieldFuture::new(async move { shown })
    })
}

fn in_project(kind: &Kind, required: bool, field: Field) -> Field {
    match (kind.scope, required) {
        (Scope::Cluster, _) => field,
        (Scope::Project, true) => {
            field.argument(InputValue::new("project", TypeRef::named_nn("String")))
        }
        _ => field.argument(InputValue::new("project", TypeRef::named("String"))),
    }
}

fn named(kind: &Kind, field: Field) -> Field {
    in_project(kind, true, field).argument(InputValue::new("name", TypeRef::named_nn("String")))
}

fn with_body(field: Field, spec: TypeRef) -> Field {
    field
        .argument(InputValue::new("labels", TypeRef::named(JSON)))
        .argument(InputValue::new("display_name", TypeRef::named("String")))
        .argument(InputValue::new("protection", TypeRef::named("Boolean")))
        .argument(InputValue::new("spec", spec))
}

fn preconditions(field: Field) -> Field {
    field
        .argument(
            InputValue::new("if_match", TypeRef::named("String"))
                .description("The revision that the object must still be at."),
        )
        .argument(
            InputValue::new("idempotency_key", TypeRef::named("String"))
                .description("The same key with the same body gives the same answer for a day."),
        )
}

fn written(field: Field) -> Field {
    preconditions(field).argument(
        InputValue::new("dry_run", TypeRef::named("Boolean"))
            .description("Check everything, write nothing."),
    )
}

fn argument(ctx: &ResolverContext<'_>, name: &str) -> Option<Graph> {
    ctx.args
        .get(name)
        .map(|value| value.as_value().clone())
        .filter(|value| *value != Graph::Null)
}

fn text(ctx: &ResolverContext<'_>, name: &str) -> Option<String> {
    match argument(ctx, name)? {
        Graph::String(text) => Some(text),
        _ => None,
    }
}

fn target(ctx: &ResolverContext<'_>, kind: &Kind) -> ObjectRef {
    ObjectRef {
        kind: kind.name.into(),
        project: text(ctx, "project"),
        name: text(ctx, "name").unwrap_or_default(),
    }
}

/// The body as a file has it.
fn body(ctx: &ResolverContext<'_>, spec: &Shape) -> Value {
    let mut meta = Map::new();
    for name in ["name", "labels", "display_name", "protection"] {
        if let Some(value) = argument(ctx, name) {
            meta.insert(name.into(), json(&value));
        }
    }
    let mut out = Map::new();
    out.insert("metadata".into(), meta.into());
    if let Some(value) = argument(ctx, "spec") {
        out.insert("spec".into(), spec.take(&value));
    }
    out.into()
}

/// Through the gate, and carried out.
pub(super) async fn carry_out(call: &Call, op: Op) -> Result<Answer> {
    let admitted = call.app.gate.admit(call.request(op)?)?;
    call.app.desk.carry_out(admitted).await
}

async fn write(ctx: &ResolverContext<'_>, call: &Call, op: Op) -> Result<Answer> {
    let mut request = call.request(op)?;
    request.if_match = text(ctx, "if_match");
    request.idempotency = text(ctx, "idempotency_key");
    request.dry_run = argument(ctx, "dry_run") == Some(Graph::Boolean(true));
    let admitted = call.app.gate.admit(request)?;
    call.app.desk.carry_out(admitted).await
}

async fn one(ctx: &ResolverContext<'_>, op: Op, writes: bool) -> Out {
    let call = ctx.data::<Call>()?;
    let answer = match writes {
        true => write(ctx, call, op).await,
        false => carry_out(call, op).await,
    };
    match answer {
        Ok(Answer::Object { json, .. } | Answer::Accepted { task: json }) => Ok(shown(&json)),
        Ok(_) => Err(told(
            call,
            &Error::internal("one object was asked for and none was answered"),
        )),
        Err(error) => Err(told(call, &error)),
    }
}

async fn list(ctx: &ResolverContext<'_>, kind: &'static Kind) -> Out {
    let call = ctx.data::<Call>()?;
    let run = async {
        let limit = match argument(ctx, "limit") {
            Some(Graph::Number(n)) => n.as_u64().unwrap_or(0),
            _ => 0,
        };
        let query = Query {
            selector: Selector::parse(&text(ctx, "selector").unwrap_or_default())?,
            fields: Vec::new(),
            sort: text(ctx, "sort"),
            search: text(ctx, "search"),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            after: text(ctx, "after"),
        };
        let op = Op::List {
            kind: kind.name.into(),
            project: text(ctx, "project"),
            query,
        };
        match carry_out(call, op).await? {
            Answer::List(listed) => {
                let items: Vec<Value> = listed
                    .items
                    .iter()
                    .filter_map(|item| serde_json::from_slice(item).ok())
                    .collect();
                Ok(serde_json::json!({
                    "revision": listed.revision.to_string(),
                    "total": listed.total,
                    "next": listed.next,
                    "items": items,
                }))
            }
            _ => Err(Error::internal(
                "a list was asked for and none was answered",
            )),
        }
    };
    match run.await {
        Ok(page) => Ok(Some(FieldValue::owned_any(page))),
        Err(error) => Err(told(call, &error)),
    }
}

/// JSON bytes of an object, on their way out.
pub(super) fn shown(json: &[u8]) -> Option<FieldValue<'static>> {
    let value: Value = serde_json::from_slice(json).ok()?;
    Some(FieldValue::owned_any(Part {
        project: project_of(&value),
        value,
    }))
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
    let admitted = call.app.gate.admit(call.request(op)?)?;
    let events = call.app.desk.watch(&admitted)?;
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

fn events<'a>(call: Call) -> impl futures::Stream<Item = async_graphql::Result<FieldValue<'a>>> {
    use tokio::sync::broadcast::error::RecvError;
    let mut live = call.app.cx.events().follow();
    async_stream::stream! {
        loop {
            let event = tokio::select! {
                () = call.app.closing.cancelled() => return,
                event = live.recv() => event,
            };
            match event {
                Ok(event) => {
                    let value = serde_json::to_value(&*event).unwrap_or_default();
                    yield Ok(FieldValue::value(Graph::from_json(value).unwrap_or_default()));
                }
                Err(RecvError::Lagged(n)) => {
                    let error = Error::gone(format!("this subscription fell {n} events behind"));
                    yield Err(told(&call, &error));
                    return;
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// An error as GraphQL says it: message, and the problem document under `extensions`.
pub(super) fn told(call: &Call, error: &Error) -> async_graphql::Error {
    let problem = error.problem(&call.id);
    if error.what == model::What::Internal {
        tracing::error!(
            request_id = call.id,
            ?error,
            "a request failed by our fault"
        );
    }
    let message = problem.detail.clone();
    async_graphql::Error::new(message).extend_with(|_, extensions| {
        let map = serde_json::to_value(&problem).unwrap_or_default();
        for (name, value) in map.as_object().into_iter().flatten() {
            if let Ok(value) = Graph::from_json(value.clone()) {
                extensions.set(name, value);
            }
        }
    })
}
