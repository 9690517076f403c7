//! Registers shapes as types of a schema: each once, for answers and for input.

use super::shape::{EnumShape, ObjectShape, Part, Shape};
use crate::app::Call;
use async_graphql::dynamic::{
    Enum, EnumItem, Field, FieldFuture, InputObject, InputValue, Object, Type, TypeRef,
};
use model::{Error, ObjectRef, Result};
use runtime::{Answer, Op, Registry};
use serde_json::Value;
use std::collections::BTreeMap;

/// The types of a schema under construction.
pub(super) struct Types {
    registry: Registry,
    made: BTreeMap<String, Type>,
}

impl Types {
    pub(super) fn new(registry: Registry) -> Types {
        Types {
            registry,
            made: BTreeMap::new(),
        }
    }

    /// All types, by name.
    pub(super) fn into_all(self) -> impl Iterator<Item = Type> {
        self.made.into_values()
    }

    /// Adds a type; two of the same name are a mistake in a declaration.
    pub(super) fn add(&mut self, name: &str, ty: impl Into<Type>) -> Result<()> {
        match self.made.insert(name.to_owned(), ty.into()) {
            None => Ok(()),
            Some(_) => Err(Error::internal(format!(
                "two things would be called {name} in GraphQL"
            ))),
        }
    }

    /// The type of an answer.
    pub(super) fn output(&mut self, shape: &Shape) -> Result<TypeRef> {
        Ok(match shape {
            Shape::Scalar(name) => TypeRef::named(*name),
            Shape::Enum(shape) => TypeRef::named(self.enumeration(shape)?),
            Shape::List(items) => TypeRef::List(Box::new(self.output(items)?)),
            Shape::Object(shape) => {
                if !self.made.contains_key(&shape.name) {
                    let object = self.object(shape)?;
                    self.add(&shape.name, object)?;
                }
                TypeRef::named(&shape.name)
            }
        })
    }

    fn object(&mut self, shape: &ObjectShape) -> Result<Object> {
        let mut object = Object::new(&shape.name);
        for field in &shape.fields {
            let ty = self.output(&field.shape)?;
            let (json, inner) = (field.json.clone(), field.shape.clone());
            let mut made = Field::new(&field.name, ty, move |ctx| {
                let shown = ctx
                    .parent_value
                    .try_downcast_ref::<Part>()
                    .map(|part| inner.show(&part.value[&json], part.project.as_deref()));
                FieldFuture::new(async move { shown })
            });
            if !field.doc.is_empty() {
                made = made.description(&field.doc);
            }
            object = object.field(made);
            if let Some(kind) = field.refers.as_deref().and_then(|k| self.registry.get(k)) {
                object = object.field(referred(&field.name, &field.json, kind.kind()));
            }
        }
        Ok(object)
    }

    /// The type of an argument.
    pub(super) fn input(&mut self, shape: &Shape) -> Result<TypeRef> {
        Ok(match shape {
            Shape::Scalar(name) => TypeRef::named(*name),
            Shape::Enum(shape) => TypeRef::named(self.enumeration(shape)?),
            Shape::List(items) => TypeRef::List(Box::new(self.input(items)?)),
            Shape::Object(shape) => {
                let name = input_name(&shape.name);
                if !self.made.contains_key(&name) {
                    let mut object = InputObject::new(&name);
                    for field in &shape.fields {
                        let ty = self.input(&field.shape)?;
                        let ty = match field.required {
                            true => TypeRef::NonNull(Box::new(ty)),
                            false => ty,
                        };
                        let mut value = InputValue::new(&field.name, ty);
                        let doc = match field.secret {
                            true => format!("{} Never returned.", field.doc),
                            false => field.doc.clone(),
                        };
                        if !doc.is_empty() {
                            value = value.description(doc);
                        }
                        object = object.field(value);
                    }
                    self.add(&name, object)?;
                }
                TypeRef::named(name)
            }
        })
    }

    fn enumeration(&mut self, shape: &EnumShape) -> Result<String> {
        if !self.made.contains_key(&shape.name) {
            let mut made = Enum::new(&shape.name);
            for (upper, _, doc) in &shape.words {
                let mut item = EnumItem::new(upper);
                if !doc.is_empty() {
                    item = item.description(doc);
                }
                made = made.item(item);
            }
            self.add(&shape.name, made)?;
        }
        Ok(shape.name.clone())
    }
}

/// What the input of a type is called: a type that is only for input keeps its name.
fn input_name(name: &str) -> String {
    match name.ends_with("Input") {
        true => name.to_owned(),
        false => format!("{name}Input"),
    }
}

/// The object that a reference names, so that one query joins: `network` has `network_object` beside it.
fn referred(name: &str, json: &str, kind: &'static model::Kind) -> Field {
    let json = json.to_owned();
    let ty = TypeRef::named(crate::openapi::camel(kind.name));
    Field::new(format!("{name}_object"), ty, move |ctx| {
        let json = json.clone();
        FieldFuture::new(async move {
            let part = ctx.parent_value.try_downcast_ref::<Part>()?;
            let Some(text) = part.value[&json].as_str() else {
                return Ok(None);
            };
            let (project, name) = match text.split_once('/') {
                Some((project, name)) => (Some(project.to_owned()), name),
                None if kind.scope == model::Scope::Cluster => (None, text),
                None => (part.project.clone(), text),
            };
            let target = ObjectRef {
                kind: kind.name.into(),
                project,
                name: name.into(),
            };
            let call = ctx.data::<Call>()?;
            match super::answers::carry_out(call, Op::Get { target }).await {
                Ok(Answer::Object { json, .. }) => Ok(super::answers::shown(&json)),
                // What is not there, or not his to see, is null.
                _ => Ok(None),
            }
        })
    })
    .description(format!("The {} that `{name}` names.", kind.name))
}

/// The project of an object.
pub(super) fn project_of(object: &Value) -> Option<String> {
    object["metadata"]["project"].as_str().map(str::to_owned)
}
