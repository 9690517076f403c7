//! What a provider may be declared as.

use super::OidcSpec;
use crate::secret_backend::is_here;
use model::Violation;

/// What is wrong with it.
pub(in crate::realm) fn check(spec: &OidcSpec) -> Vec<Violation> {
    let mut wrong = Vec::new();
    if spec.issuer.starts_with("http://") && !is_here(&spec.issuer) {
        wrong.push(
            Violation::new("spec.oidc.issuer", "would be asked in the clear")
                .hint("use `https`; name its certificate authority with `ca`"),
        );
    }
    if !spec.scopes.iter().any(|scope| scope == "openid") {
        wrong.push(Violation::new(
            "spec.oidc.scopes",
            "must hold `openid`: without it nobody says who somebody is",
        ));
    }
    if spec
        .client_secret
        .as_ref()
        .is_some_and(|s| !s.contains('/'))
    {
        wrong.push(Violation::new(
            "spec.oidc.client_secret",
            "names a secret with its project: `project/name`",
        ));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wrong(change: Value) -> Vec<String> {
        let mut spec = json!({ "issuer": "https://login.example.org/", "client_id": "debvisor" });
        if let (Some(spec), Value::Object(change)) = (spec.as_object_mut(), change) {
            spec.extend(change);
        }
        let spec: OidcSpec = serde_json::from_value(spec).unwrap();
        check(&spec).into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn what_may_be_declared() {
        assert!(wrong(json!({})).is_empty());
        assert!(wrong(json!({ "issuer": "http://127.0.0.1:9000/x" })).is_empty());
        assert_eq!(
            wrong(json!({ "issuer": "http://login.example.org" })),
            ["spec.oidc.issuer"]
        );
        assert_eq!(
            wrong(json!({ "issuer": "http://localhost.example.org/" })),
            ["spec.oidc.issuer"]
        );
        assert_eq!(
            wrong(json!({ "scopes": ["profile"] })),
            ["spec.oidc.scopes"]
        );
        assert_eq!(
            wrong(json!({ "client_secret": "alone" })),
            ["spec.oidc.client_secret"]
        );
    }
}
