//! The types of one kind: the object, a page of it, a change of it; and the types that all kinds share.

use super::answers::shown;
use super::changes::Change;
use super::shape::{INT64, JSON, Part, Shape};
use super::types::{Types, project_of};
use crate::openapi::camel;
use async_graphql::dynamic::{Field, FieldFuture, FieldValue, Object, TypeRef};
use async_graphql::{Name, Value as Graph};
use model::Result;
use runtime::Declared;
use serde_json::Value;

/// Adds the types of a kind.
pub(super) fn add(declared: &Declared, types: &mut Types, spec: &Shape) -> Result<()> {
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

/// The types that are there whatever kinds there are.
pub(super) fn common(types: &mut Types) -> Result<()> {
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
