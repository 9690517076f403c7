//! The three roots: what every kind adds to queries, mutations and subscriptions.

use super::answers::{list, one, target, told};
use super::changes::events;
use super::shape::{JSON, Shape, lower_camel};
use super::types::Types;
use crate::app::Call;
use crate::openapi::camel;
use async_graphql::Value as Graph;
use async_graphql::dynamic::{
    Field, FieldFuture, InputValue, Object, Subscription, SubscriptionField,
    SubscriptionFieldFuture, TypeRef,
};
use model::{Error, Kind, Result, Scope, Verb};
use runtime::{Declared, Op};
use std::sync::Arc;

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

    pub(super) fn query(
        &mut self,
        field: impl FnOnce(String) -> Field,
        name: String,
    ) -> Result<()> {
        let field = field(self.name("Query", name)?);
        let old = std::mem::replace(&mut self.query, Object::new("Query"));
        self.query = old.field(field);
        Ok(())
    }

    pub(super) fn mutation(
        &mut self,
        field: impl FnOnce(String) -> Field,
        name: String,
    ) -> Result<()> {
        let field = field(self.name("Mutation", name)?);
        let old = std::mem::replace(&mut self.mutation, Object::new("Mutation"));
        self.mutation = old.field(field);
        Ok(())
    }

    pub(super) fn subscription(
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
                        let actor = call.need("event", "read").map_err(|e| told(&call, &e))?;
                        Ok(events(&call, actor))
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
        super::objects::add(declared, types, &spec)?;
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
            self.batch(kind, None, types)?;
        }
        for action in kind.actions {
            self.act(kind, action, types)?;
            self.batch(kind, Some(action), types)?;
        }
        self.changes(kind, &name)
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
}

pub(super) fn in_project(kind: &Kind, required: bool, field: Field) -> Field {
    match (kind.scope, required) {
        (Scope::Cluster, _) => field,
        (Scope::Project, true) => {
            field.argument(InputValue::new("project", TypeRef::named_nn("String")))
        }
        _ => field.argument(InputValue::new("project", TypeRef::named("String"))),
    }
}

pub(super) fn named(kind: &Kind, field: Field) -> Field {
    in_project(kind, true, field).argument(InputValue::new("name", TypeRef::named_nn("String")))
}
