//! How dear a query is, before it runs: depth at most 10, cost at most 1000.
//!
//! Every field costs 1; what lies below a page costs as often as the page has 20 objects. Introspection is free: it
//! reads what is in memory anyway, and tools ask deep.

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection,
    SelectionSet,
};
use async_graphql::{Name, Request, Value as Graph};
use async_graphql_value::Value;
use model::{Error, Result, What};

const DEEPEST: usize = 10;
const DEAREST: usize = 1000;
/// Objects of a page that are counted once.
const PAGE: usize = 20;
/// Fields looked at; fragments within fragments could otherwise name billions.
const MOST_LOOKS: usize = 20_000;
/// Fields and fragments within one another; a fragment could otherwise name itself for ever.
const MOST_NESTED: usize = 64;

/// What a request weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// What its batch has spent with it.
    pub spent: usize,
    /// Whether it may change something.
    pub mutates: bool,
    /// How many changes it asks for: the fields of its mutations.
    pub changes: usize,
}

/// Refuses a request that is too deep or, alone or together with what was spent before in its batch, too dear.
pub(super) fn check(request: &Request, spent: usize) -> Result<Weight> {
    // The parser's own words repeat the line, with whatever secret stands in it.
    let document = parse_query(&request.query).map_err(|error| {
        let at = error.positions().next();
        let at = at.map_or_else(String::new, |at| {
            format!(" from line {}, column {} on", at.line, at.column)
        });
        Error::new(What::Unparseable, format!("the query is not GraphQL{at}"))
    })?;
    let mut looks = 0;
    let mut cost = spent;
    let picked: Vec<&OperationDefinition> = match &document.operations {
        DocumentOperations::Single(one) => vec![&one.node],
        DocumentOperations::Multiple(many) => many
            .iter()
            .filter(|(name, _)| {
                request
                    .operation_name
                    .as_deref()
                    .is_none_or(|wanted| wanted == name.as_str())
            })
            .map(|(_, one)| &one.node)
            .collect(),
    };
    let mutates = picked.iter().any(|one| one.ty == OperationType::Mutation);
    let mut changes = 0usize;
    for operation in picked {
        let set = &operation.selection_set.node;
        if operation.ty == OperationType::Mutation {
            changes = changes.saturating_add(fields(&document, set, 0, &mut looks)?);
        }
        cost = cost.saturating_add(weigh(&document, request, set, 1, 0, &mut looks)?);
    }
    if cost > DEAREST {
        return Err(
            Error::field("query", format!("costs {cost}, more than {DEAREST}"))
                .hint("ask for fewer fields, smaller pages, or in several queries"),
        );
    }
    Ok(Weight {
        spent: cost,
        mutates,
        changes,
    })
}

/// The fields of a set itself, those of its fragments included.
fn fields(
    document: &ExecutableDocument,
    set: &SelectionSet,
    nested: usize,
    looks: &mut usize,
) -> Result<usize> {
    if nested > MOST_NESTED {
        return Err(Error::field("query", "nests its fragments too deeply"));
    }
    let mut count = 0usize;
    for selection in &set.items {
        *looks += 1;
        if *looks > MOST_LOOKS {
            return Err(Error::field("query", "names far too many fields"));
        }
        let inner = match &selection.node {
            Selection::Field(field) if field.node.name.node.starts_with("__") => continue,
            Selection::Field(_) => {
                count = count.saturating_add(1);
                continue;
            }
            Selection::InlineFragment(fragment) => Some(&fragment.node.selection_set.node),
            Selection::FragmentSpread(spread) => document
                .fragments
                .get(&spread.node.fragment_name.node)
                .map(|fragment| &fragment.node.selection_set.node),
        };
        if let Some(inner) = inner {
            count = count.saturating_add(fields(document, inner, nested + 1, looks)?);
        }
    }
    Ok(count)
}

fn weigh(
    document: &ExecutableDocument,
    request: &Request,
    set: &SelectionSet,
    depth: usize,
    nested: usize,
    looks: &mut usize,
) -> Result<usize> {
    if nested > MOST_NESTED {
        return Err(Error::field("query", "nests its fragments too deeply"));
    }
    let mut cost = 0usize;
    for selection in &set.items {
        *looks += 1;
        if *looks > MOST_LOOKS {
            return Err(Error::field("query", "names far too many fields"));
        }
        let below = match &selection.node {
            Selection::Field(field) => {
                let field = &field.node;
                if field.name.node.starts_with("__") {
                    continue;
                }
                if depth > DEEPEST {
                    return Err(Error::field(
                        "query",
                        format!("is deeper than {DEEPEST} at `{}`", field.name.node),
                    ));
                }
                let inner = weigh(
                    document,
                    request,
                    &field.selection_set.node,
                    depth + 1,
                    nested + 1,
                    looks,
                )?;
                let limit = field
                    .arguments
                    .iter()
                    .find(|(name, _)| name.node == "limit")
                    .and_then(|(_, value)| number(request, &value.node));
                let pages = limit.unwrap_or(PAGE).div_ceil(PAGE).max(1);
                inner.saturating_mul(pages).saturating_add(1)
            }
            Selection::InlineFragment(fragment) => {
                let set = &fragment.node.selection_set.node;
                weigh(document, request, set, depth, nested + 1, looks)?
            }
            Selection::FragmentSpread(spread) => {
                match document.fragments.get(&spread.node.fragment_name.node) {
                    Some(fragment) => {
                        let set = &fragment.node.selection_set.node;
                        weigh(document, request, set, depth, nested + 1, looks)?
                    }
                    None => 0,
                }
            }
        };
        cost = cost.saturating_add(below);
    }
    Ok(cost)
}

fn number(request: &Request, value: &Value) -> Option<usize> {
    let number = match value {
        Value::Number(n) => n.as_u64(),
        Value::Variable(name) => match request.variables.get(&Name::new(name)) {
            Some(Graph::Number(n)) => n.as_u64(),
            _ => None,
        },
        _ => None,
    };
    number.and_then(|n| usize::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(query: &str) -> String {
        match check(&Request::new(query), 0) {
            Ok(_) => "ok".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_not_repeated() {
        let said = check_text("{ a(pin: \"1234\" ");
        assert!(said.contains("not GraphQL from line 1"), "{said}");
        assert!(!said.contains("1234"), "{said}");
    }

    #[test]
    fn a_batch_is_weighed_as_a_whole() {
        let one = Request::new("{ a(limit: 500) { b c } }");
        let spent = check(&one, 0).unwrap().spent;
        assert_eq!(spent, 51);
        assert!(check(&one, 1000 - spent).is_ok());
        assert!(check(&one, 1001 - spent).is_err());
    }

    #[test]
    fn a_mutation_is_told_from_a_query() {
        let mutates = |text: &str, name: Option<&str>| {
            let mut request = Request::new(text);
            request.operation_name = name.map(str::to_owned);
            check(&request, 0).unwrap().mutates
        };
        let both = "query a { x } mutation b { y }";
        assert!(!mutates("{ x }", None) && mutates("mutation { y }", None));
        assert!(!mutates(both, Some("a")) && mutates(both, Some("b")) && mutates(both, None));
    }

    #[test]
    fn each_change_of_a_mutation_is_counted() {
        for (text, changes) in [
            ("{ a b c }", 0),
            ("mutation { a }", 1),
            ("mutation { __typename a: x { y z } b: x c: x }", 3),
            (
                "mutation { ...f ... on M { c ...f } } fragment f on M { a b }",
                5,
            ),
            ("mutation m { a b } query q { c }", 2),
            ("mutation m { a b } mutation n { c }", 3),
        ] {
            let weight = check(&Request::new(text), 0).unwrap();
            assert_eq!(weight.changes, changes, "{text}");
        }
        check(
            &Request::new("mutation { ...f } fragment f on M { a ...f }"),
            0,
        )
        .unwrap_err();
    }

    #[test]
    fn deep_and_dear_queries_are_refused() {
        assert_eq!(check_text("{ a(limit: 100) { b c d } }"), "ok");
        let deep = format!("{{ {}{} }}", "a { ".repeat(11), "}".repeat(11));
        assert!(check_text(&deep.replace("{ }", "{ x }")).contains("deeper than 10"));
        assert!(check_text("{ a(limit: 1000) { b { c(limit: 1000) { d } } } }").contains("costs"));
        assert_eq!(
            check_text(
                "{ __schema { a { b { c { d { e { f { g { h { i { j { k } } } } } } } } } } } }"
            ),
            "ok"
        );
        // Each fragment names the next twice: 2^40 fields.
        let bomb: String = (0..40)
            .map(|n| format!("fragment f{n} on X {{ ...f{} ...f{} }} ", n + 1, n + 1))
            .collect();
        assert!(
            check_text(&format!("{{ ...f0 }} {bomb} fragment f40 on X {{ a }}"))
                .contains("too many")
        );
        // A fragment that names itself is refused by validation; here it only must end.
        check_text("{ ...f } fragment f on X { ...f }");
    }
}
