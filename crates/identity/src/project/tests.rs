use super::*;
use model::ObjectRef;
use runtime::{Actor, Answer, CxBuilder, Registry, Request, Seat, Surface};
use serde_json::Value;

/// A thing that lies in projects.
pub mod thing {
    use super::*;

    /// What people want of a thing.
    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[schemars(extend("x-counts" = "things"))]
    pub struct ThingSpec {
        /// In people's words.
        #[serde(default)]
        pub description: String,
    }

    pub struct Thing;
    impl Resource for Thing {
        const KIND: &'static Kind = &KIND;
        type Spec = ThingSpec;
        type Status = ProjectStatus;
    }
    static KIND: Kind = Kind {
        name: "thing",
        plural: "things",
        title: "Thing",
        scope: Scope::Project,
        doc: "For tests.",
        verbs: Verb::ALL,
        spec: schema::of::<ThingSpec>,
        status: schema::of::<ProjectStatus>,
        columns: &[],
        actions: &[],
        streams: &[],
        examples: &[],
    };
    pub static SUBSYSTEM: Subsystem = Subsystem {
        kind: &KIND,
        place: Place::Api,
        seat: Seat::Api,
        normal: normal::<Thing>,
        admit: nothing_to_admit,
        runs: &[],
        undos: &[],
        streams: &[],
        finalizes: false,
        controllers: no_controllers,
    };
}

async fn start() -> Cx {
    let registry = Registry::new(&[crate::SUBSYSTEMS, &[&thing::SUBSYSTEM]]).unwrap();
    CxBuilder::new(registry, store::Memory::new())
        .build()
        .await
        .unwrap()
}

async fn ask(cx: &Cx, op: Op) -> Result<Answer> {
    let request = Request::new("r", Actor::administrator("tester"), Surface::Rest, op);
    cx.desk().carry_out(cx.gate().admit(request)?).await
}

async fn create(cx: &Cx, kind: &str, project: Option<&str>, name: &str) -> Result<Answer> {
    ask(
        cx,
        Op::Create {
            kind: kind.into(),
            project: project.map(str::to_owned),
            body: json!({ "metadata": { "name": name } }),
        },
    )
    .await
}

fn target(kind: &str, project: Option<&str>, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: project.map(str::to_owned),
        name: name.into(),
    }
}

async fn delete(cx: &Cx, target: ObjectRef) -> Result<Answer> {
    ask(
        cx,
        Op::Delete {
            target,
            keep: Vec::new(),
        },
    )
    .await
}

#[tokio::test]
async fn the_default_project_is_made_once() {
    let cx = start().await;
    assert!(make_default(&cx).await.unwrap());
    assert!(!make_default(&cx).await.unwrap());
    let project = cx.get::<Project>(None, DEFAULT).unwrap();
    assert!(project.spec.active);
    // Whoever deletes it means it.
    create(&cx, "project", None, "shop").await.unwrap();
    delete(&cx, target("project", None, DEFAULT)).await.unwrap();
    assert!(!make_default(&cx).await.unwrap());
}

#[tokio::test]
async fn a_project_that_holds_objects_stays() {
    let cx = start().await;
    make_default(&cx).await.unwrap();
    create(&cx, "thing", Some(DEFAULT), "a").await.unwrap();
    let error = delete(&cx, target("project", None, DEFAULT))
        .await
        .unwrap_err();
    assert_eq!(error.status(), 409);
    assert!(error.to_string().contains("thing default/a"), "{error}");
    delete(&cx, target("thing", Some(DEFAULT), "a"))
        .await
        .unwrap();
    delete(&cx, target("project", None, DEFAULT)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_made_in_a_project_that_is_not_there_or_not_active() {
    let cx = start().await;
    make_default(&cx).await.unwrap();
    let error = create(&cx, "thing", Some("defualt"), "a")
        .await
        .unwrap_err();
    assert_eq!(error.status(), 404);
    assert!(
        error.to_string().contains("did you mean `default`?"),
        "{error}"
    );
    create(&cx, "thing", Some(DEFAULT), "a").await.unwrap();
    let asleep = |active: bool| Op::Patch {
        target: target("project", None, DEFAULT),
        body: json!({ "spec": { "active": active } }),
    };
    ask(&cx, asleep(false)).await.unwrap();
    let change = || Op::Patch {
        target: target("thing", Some(DEFAULT), "a"),
        body: json!({ "spec": { "description": "x" } }),
    };
    let error = ask(&cx, change()).await.unwrap_err();
    assert_eq!(error.status(), 409, "{error}");
    let read = Op::Get {
        target: target("thing", Some(DEFAULT), "a"),
    };
    let Answer::Object { json, .. } = ask(&cx, read).await.unwrap() else {
        panic!("an object was asked for")
    };
    let object: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(object["spec"]["description"], "");
    ask(&cx, asleep(true)).await.unwrap();
    ask(&cx, change()).await.unwrap();
}
