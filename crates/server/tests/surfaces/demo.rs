//! A demo kind `lamp`, declared in one place: everything the surfaces show of it, they show by themselves.

use model::*;
use runtime::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;

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
    #[schemars(length(max = 40), extend("x-secret" = true))]
    pub pin: Option<String>,
    /// Its parts.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// Bytes of the drawing that `draw` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-file" = "size"))]
    pub drawing: Option<u64>,
    /// SHA-256 of the drawing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-file" = "sha256"))]
    pub sum: Option<String>,
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

/// Parameters of `rekey`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RekeyInput {
    /// Its new pin.
    #[schemars(length(max = 40), extend("x-secret" = true))]
    pub pin: String,
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
    actions: &[
        Action {
            verb: "dim",
            doc: "Changes its brightness.",
            danger: Danger::None,
            style: WorkStyle::Intent,
            input: schema::of::<DimInput>,
            claims: &["power"],
            deadline: 300,
            event: "dimmed",
            examples: &[],
        },
        Action {
            verb: "rekey",
            doc: "Gives it a new pin.",
            danger: Danger::None,
            style: WorkStyle::Intent,
            input: schema::of::<RekeyInput>,
            claims: &[],
            deadline: 300,
            event: "rekeyed",
            examples: &[],
        },
    ],
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
            name: "draw",
            doc: "Takes its drawing, and goes on where it stopped.",
            way: Way::Duplex,
            ticketed: false,
            input: schema::empty,
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

/// What has been drawn, by lamp; and how often a drawing was begun.
pub static DRAWN: Mutex<BTreeMap<String, (Vec<u8>, u32)>> = Mutex::new(BTreeMap::new());

/// Speaks like an upload of an image. Its line breaks twice: what came stays.
async fn draw(cx: Cx, request: StreamRequest, mut io: StreamIo) -> Result<()> {
    let name = request.target.name.clone();
    let lamp = cx.get::<Lamp>(request.target.project.as_deref(), &name);
    let spec = lamp.map(|lamp| lamp.spec.clone());
    let (size, sum) = spec.map_or((0, None), |s| (s.drawing.unwrap_or(0), s.sum));
    let (mut done, tries) = {
        let mut drawn = DRAWN.lock().unwrap();
        let mine = drawn.entry(name.clone()).or_default();
        mine.1 += 1;
        (mine.0.len() as u64, mine.1)
    };
    io.send(Msg::Control(json!({ "offset": done }))).await?;
    let breaks = (tries < 3).then(|| done + size / 3);
    while done < size {
        if breaks.is_some_and(|at| done >= at) {
            return Err(Error::unavailable("the line broke"));
        }
        match io.recv().await {
            Some(Msg::Data(bytes)) => {
                let mut drawn = DRAWN.lock().unwrap();
                let mine = drawn.entry(name.clone()).or_default();
                mine.0.extend_from_slice(&bytes);
                done = mine.0.len() as u64;
            }
            Some(Msg::Control(_)) => {}
            None => return Ok(()),
        }
        io.send(Msg::Control(json!({ "received": done }))).await?;
    }
    let whole = {
        use sha2::Digest as _;
        let drawn = DRAWN.lock().unwrap();
        sha2::Sha256::digest(&drawn[&name].0)
    };
    if sum != Some(hex::encode(whole)) {
        return Err(Error::refused("this is another drawing"));
    }
    io.send(Msg::Control(json!({ "complete": true }))).await
}

pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Lamp>,
    admit: nothing_to_admit,
    runs: &[
        (
            "dim",
            Run::Intent {
                edit: |draft, params| {
                    draft.spec["brightness"] = params["to"].clone();
                    Ok(())
                },
                until: |_| Until::Done,
            },
        ),
        (
            "rekey",
            Run::Intent {
                edit: |draft, params| {
                    draft.spec["pin"] = params["pin"].clone();
                    Ok(())
                },
                until: |_| Until::Done,
            },
        ),
    ],
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
        ("draw", |cx, request, io| Box::pin(draw(cx, request, io))),
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
