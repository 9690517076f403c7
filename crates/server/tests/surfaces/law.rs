//! The law of kinds: a kind that is declared in one place is in every surface, in the table of privileges and in the
//! reference, and each of its actions takes the privilege that the table names.

use crate::everything;
use crate::house::{House, limits, registry, told};
use runtime::{Op, Sort};

#[test]
fn a_declared_kind_is_in_the_tables() {
    let registry = registry();
    let privileges = server::privileges(&registry);
    for line in [
        "| `lamp.read` | list, show, watch, explain |  |",
        "| `lamp.create` | create |  |",
        "| `lamp.update` | update, patch |  |",
        "| `lamp.delete` | delete | destroys |",
        "| `lamp.dim` | Changes its brightness. |  |",
        "| `lamp.echo` | Says what it hears. |  |",
        "| `session.create` |",
    ] {
        assert!(privileges.contains(line), "{line} is not in\n{privileges}");
    }
    let commands = server::commands(&registry);
    for line in [
        "## lamp\n\nA lamp, for tests. (in a project)",
        "| `dvctl lamp list` |",
        "| `dvctl lamp dim NAME` | Changes its brightness. |",
        "| `dvctl lamp light NAME` | Flashes so many times. |",
    ] {
        assert!(commands.contains(line), "{line} is not in\n{commands}");
    }
    let kinds = registry.to_json();
    assert!(
        kinds["kinds"]
            .as_array()
            .unwrap()
            .iter()
            .any(|k| k["name"] == "lamp")
    );
}

#[test]
fn no_surface_lacks_an_action() {
    for row in server::surfaces(&everything()).unwrap() {
        // These two have a reason in `api/parity-exceptions.json`.
        let excused = row.sort == "stream" || row.action.ends_with(".explain");
        assert_ne!(row.rest, Some(false), "{row:?}");
        assert_ne!(row.watch, Some(false), "{row:?}");
        assert!(row.grpc == Some(true) || excused, "{row:?}");
        assert!(row.graphql == Some(true) || excused, "{row:?}");
    }
}

/// What the table says is what the gate asks: nobody gets anything, and the decision is about that privilege.
#[tokio::test]
async fn every_action_refuses_who_is_not_known() {
    let house = House::of(everything(), limits()).await;
    house.lamp("a").await;
    let stranger = house.stranger();
    for offer in everything().offers() {
        let op = offer.op("default", "a");
        assert_eq!(
            offer.privilege(),
            format!("{}.{}", op.privilege_kind(), op.privilege_verb())
        );
        let kind = offer.kind;
        let base = match op.project() {
            Some(project) => format!("/api/v1/projects/{project}/{}", kind.plural),
            None => format!("/api/v1/{}", kind.plural),
        };
        let (method, path) = match (&op, offer.sort) {
            (Op::List { .. }, _) => ("GET", base),
            (Op::Create { .. }, _) => ("POST", base),
            (Op::Update { .. }, _) => ("PUT", format!("{base}/a")),
            (Op::Patch { .. }, _) => ("PATCH", format!("{base}/a")),
            (Op::Delete { .. }, _) => ("DELETE", format!("{base}/a")),
            (Op::Watch { .. }, _) => ("GET", format!("/api/v1/watch?kind={}", kind.name)),
            (Op::Act { verb, .. }, _) => ("POST", format!("{base}/a/actions/{verb}")),
            (_, Sort::Stream) => {
                let stream = kind.streams.iter().find(|s| s.name == offer.verb).unwrap();
                let method = match stream.way {
                    model::Way::Write => "PUT",
                    _ => "GET",
                };
                (method, format!("{base}/a/streams/{}", offer.verb))
            }
            _ => ("GET", format!("{base}/a")),
        };
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let asked = stranger
            .request(method.clone(), house.url(&path))
            .header("content-type", "application/json")
            .body("{}");
        let (status, problem) = told(asked.send().await.unwrap()).await;
        assert_eq!(status, 401, "{method} {path}: {problem}");
    }
    let (_, lamp) = house.get("/api/v1/projects/default/lamps/a").await;
    assert_eq!(lamp["spec"]["brightness"], 100, "nothing was done");
}
