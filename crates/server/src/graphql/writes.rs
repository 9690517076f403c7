//! Mutations: create, apply, patch, delete and the actions of a kind.

use super::answers::{argument, body, one, target, text, told, write};
use super::fields::{Roots, in_project, named};
use super::shape::{JSON, Shape, json, lower_camel};
use super::types::Types;
use crate::app::Call;
use crate::openapi::camel;
use async_graphql::dynamic::{Field, FieldFuture, FieldValue, InputValue, TypeRef};
use model::{Action, Kind, Result};
use runtime::{Answer, Op};
use serde_json::{Map, Value};
use std::sync::Arc;

impl Roots {
    pub(super) fn create(
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

    pub(super) fn apply(
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

    pub(super) fn patch(&mut self, kind: &'static Kind, name: &str) -> Result<()> {
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

    pub(super) fn delete(&mut self, kind: &'static Kind) -> Result<()> {
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
                forced(written(
                    named(kind, field).argument(
                        InputValue::new("keep", TypeRef::named_nn_list("String"))
                            .description("Kinds of owned objects that stay."),
                    ),
                ))
                .description(format!("Delete a {}.", kind.name))
            },
            format!("{}Delete", lower_camel(kind.name)),
        )
    }

    pub(super) fn act(
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
                forced(written(field)).description(action.doc)
            },
            format!("{}{}", lower_camel(kind.name), camel(action.verb)),
        )
    }
}

impl Roots {
    /// One verb over many objects of a kind: an action, or `delete` when there is none.
    pub(super) fn batch(
        &mut self,
        kind: &'static Kind,
        action: Option<&'static Action>,
        types: &mut Types,
    ) -> Result<()> {
        let verb = action.map_or("delete", |a| a.verb);
        let mut input = None;
        let mut shape = None;
        if let Some(action) = action {
            let schema = (action.input)().to_value();
            let name = format!("{}{}", camel(kind.name), camel(action.verb));
            let takes = schema
                .get("properties")
                .and_then(Value::as_object)
                .is_some_and(|p| !p.is_empty());
            if takes {
                let made = Arc::new(Shape::of(&schema, &name)?);
                input = Some(types.input(&made)?);
                shape = Some(made);
            }
        }
        let task = TypeRef::named_nn(camel(runtime::task::KIND.name));
        self.mutation(
            |field| {
                let field = Field::new(field, task, move |ctx| {
                    let shape = shape.clone();
                    FieldFuture::new(async move {
                        let mut body = Map::new();
                        for name in ["selector", "names", "parallel", "on_error", "keep"] {
                            if let Some(value) = argument(&ctx, name) {
                                body.insert(name.into(), json(&value));
                            }
                        }
                        if let (Some(shape), Some(value)) = (shape, argument(&ctx, "input")) {
                            body.insert("params".into(), shape.take(&value));
                        }
                        let op = Op::Batch {
                            kind: kind.name.into(),
                            project: text(&ctx, "project"),
                            verb: verb.into(),
                            body: body.into(),
                        };
                        one(&ctx, op, true).await
                    })
                });
                let mut field = in_project(kind, true, field)
                    .argument(
                        InputValue::new("selector", TypeRef::named("String"))
                            .description("Those whose labels match. Give this or `names`."),
                    )
                    .argument(
                        InputValue::new("names", TypeRef::named_nn_list("String"))
                            .description("These, at most 500."),
                    )
                    .argument(
                        InputValue::new("parallel", TypeRef::named("Int"))
                            .description("How many at a time; 3 when absent, at most 100."),
                    )
                    .argument(
                        InputValue::new("on_error", TypeRef::named("String")).description(
                            "What to do when one fails: `stop` begins no other, `continue` goes on.",
                        ),
                    );
                if let Some(input) = input {
                    field = field.argument(InputValue::new("input", input));
                }
                if action.is_none() {
                    field = field.argument(
                        InputValue::new("keep", TypeRef::named_nn_list("String"))
                            .description("Kinds of owned objects that stay."),
                    );
                }
                forced(written(field)).description(match action {
                    Some(action) => format!("Many {} as one task: {}", kind.plural, action.doc),
                    None => format!("Delete many {} as one task.", kind.plural),
                })
            },
            format!("{}{}Batch", lower_camel(kind.name), camel(verb)),
        )
    }
}

/// `force`, for what a claim of a task may refuse.
fn forced(field: Field) -> Field {
    field.argument(
        InputValue::new("force", TypeRef::named("Boolean")).description(
            "Cancel the task that holds what this needs, and wait until it has let go.",
        ),
    )
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
