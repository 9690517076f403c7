//! A demo kind `lamp`, declared in one place: everything the surfaces show of it, they show by themselves.

use model::*;
use runtime::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub struct Lamp;
impl Resource for Lamp {
    const KIND: &'static Kind = &KIND;
    type Spec = LampSpec;
    type Status = LampStatus;
}

/// How a lamp shines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All the time.
    #[default]
    Steady,
    /// On and off.
    SlowBlink,
}

/// One part.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What it is made of.
    pub glass: String,
    /// How much it weighs.
    #[serde(default)]
    pub weight: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LampSpec {
    /// Whether it shines.
    #[serde(default)]
    pub on: bool,
    /// Brightness in percent.
    #[serde(default = "full")]
    #[schemars(range(min = 1, max = 100))]
    pub brightness: u32,
    /// How it shines.
    #[serde(default)]
    pub mode: Mode,
    /// Its pin.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    pub pin: Option<String>,
    /// Its parts.
    #[serde(default)]
    pub parts: Vec<Part>,
}

fn full() -> u32 {
    100
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LampStatus {
    pub shines: bool,
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
}

/// Parameters of `dim`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DimInput {
    /// New brightness in percent.
    #[schemars(range(min = 1, max = 100))]
    pub to: u32,
}

/// Parameters of `light`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LightInput {
    /// How many flashes.
    pub flashes: u32,
}

pub static KIND: Kind = Kind {
    name: "lamp",
    plural: "lamps",
    title: "Lamp",
    scope: Scope::Project,
    doc: "A lamp, for tests.",
    verbs: Verb::ALL,
    spec: schema::of::<LampSpec>,
    status: schema::of::<LampStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("on", "spec.on"),
        Column::new("brightness", "spec.brightness"),
        Column::new("shines", "status.shines"),
    ],
    actions: &[Action {
        verb: "dim",
        doc: "Changes its brightness.",
        danger: Danger::None,
        style: WorkStyle::Intent,
        input: schema::of::<DimInput>,
        claims: &["power"],
        deadline: 300,
        event: "dimmed",
        examples: &[],
    }],
    streams: &[
        StreamKind {
            name: "echo",
            doc: "Says what it hears.",
            way: Way::Duplex,
            ticketed: true,
            input: schema::empty,
        },
        StreamKind {
            name: "light",
            doc: "Flashes so many times.",
            way: Way::Read,
            ticketed: false,
            input: schema::of::<LightInput>,
        },
        StreamKind {
            name: "fill",
            doc: "Counts the bytes it is given.",
            way: Way::Write,
            ticketed: false,
            input: schema::empty,
        },
    ],
    examples: &[],
};

pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    normal: normal::<Lamp>,
    admit: nothing_to_admit,
    runs: &[(
        "dim",
        Run::Intent {
            edit: |draft, params| {
                draft.spec["brightness"] = params["to"].clone();
                Ok(())
            },
            until: |_| Until::Done,
        },
    )],
    undos: &[],
    streams: &[
        ("echo", |_, _, mut io| {
            Box::pin(async move {
                while let Some(msg) = io.recv().await {
                    if msg == Msg::Control(json!("break")) {
                        return Err(Error::refused("the echo broke"));
                    }
                    io.send(msg).await?;
                }
                Ok(())
            })
        }),
        ("light", |_, request, io| {
            Box::pin(async move {
                let flashes = request.params["flashes"].as_u64().unwrap_or(0);
                if flashes > 100 {
                    return Err(Error::field("?flashes", "more than 100 hurt the eyes"));
                }
                for n in 0..flashes {
                    io.data(format!("flash {n}\n")).await?;
                }
                Ok(())
            })
        }),
        ("fill", |_, _, mut io| {
            Box::pin(async move {
                let mut bytes = 0;
                while let Some(msg) = io.recv().await {
                    if let Msg::Data(data) = msg {
                        bytes += data.len();
                    }
                }
                io.send(Msg::Control(json!({ "bytes": bytes }))).await
            })
        }),
    ],
    finalizes: false,
    controllers: no_controllers,
};

pub static SUBSYSTEMS: &[&Subsystem] = &[&SUBSYSTEM];
