//! Query parameters: each is known or refused with the nearest known name.

use axum::extract::Query as Pairs;
use http::Uri;
use model::{Error, Result, Selector, Violation, nearest};
use runtime::Query;

/// The parameters of one request.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads them; only `known` ones may be there.
    pub(crate) fn read(uri: &Uri, known: &[&str]) -> Result<Params> {
        let params = Params::any(uri)?;
        let wrong: Vec<Violation> = params
            .0
            .iter()
            .filter(|(name, _)| !known.contains(&name.as_str()))
            .map(|(name, _)| {
                Violation::new(format!("?{name}"), "is not a parameter here").hint(
                    match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("parameters: {}", known.join(", ")),
                    },
                )
            })
            .collect();
        if wrong.is_empty() {
            Ok(params)
        } else {
            Err(Error::invalid(wrong))
        }
    }

    /// Reads them, whatever they are called.
    pub(crate) fn any(uri: &Uri) -> Result<Params> {
        Pairs::try_from_uri(uri)
            .map(|Pairs(pairs)| Params(pairs))
            .map_err(|e| {
                Error::new(
                    model::What::Unparseable,
                    format!("the query of the address cannot be read: {e}"),
                )
            })
    }

    /// The pairs themselves.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The last value of one that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(n, v)| n == name && !v.is_empty())
            .map(|(_, v)| v.as_str())
    }

    /// A yes or no; a name without a value means yes.
    pub(crate) fn flag(&self, name: &str) -> Result<bool> {
        match self.0.iter().rev().find(|(n, _)| n == name) {
            None => Ok(false),
            Some((_, v)) => match v.as_str() {
                "" | "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                other => Err(Error::field(
                    format!("?{name}"),
                    format!("`{other}` is neither true nor false"),
                )),
            },
        }
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Error::field(
                        format!("?{name}"),
                        format!("`{text}` is not a whole number"),
                    )
                })
            })
            .transpose()
    }

    /// The words of a comma-separated list, over all its occurrences.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .flat_map(|(_, v)| v.split(','))
            .map(str::trim)
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// What a list or a watch asks for.
    pub(crate) fn query(&self) -> Result<Query> {
        let limit = self.number("limit")?.unwrap_or(0);
        Ok(Query {
            selector: Selector::parse(self.get("selector").unwrap_or_default())?,
            fields: self.words("fields"),
            sort: self.get("sort").map(str::to_owned),
            search: self.get("search").map(str::to_owned),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            after: self.get("after").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_refused() {
        let uri: Uri = "/x?limit=5&fields=name,state&fields=node&dry_run"
            .parse()
            .unwrap();
        let params = Params::read(&uri, &["limit", "fields", "dry_run"]).unwrap();
        assert_eq!(params.words("fields"), ["name", "state", "node"]);
        assert!(params.flag("dry_run").unwrap());
        assert_eq!(params.query().unwrap().limit, 5);
        let refused = Params::read(&uri, &["limits", "fields", "dry_run"])
            .err()
            .unwrap();
        assert!(refused.to_string().contains("did you mean `limits`?"));
    }
}
