use super::wire::Lines;
use super::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10},"package":""},"capabilities":["oob"]}}"#;

#[test]
fn messages_of_the_protocol_are_read() {
    let greeting = Message::parse(GREETING.as_bytes()).unwrap();
    let capabilities = vec!["oob".to_owned()];
    assert_eq!(
        greeting,
        Message::Greeting {
            version: (10, 0, 2),
            capabilities
        }
    );
    let line = r#"{"timestamp":{"seconds":5,"microseconds":7},"event":"STOP"}"#;
    assert_eq!(
        Message::parse(line.as_bytes()).unwrap(),
        Message::Event {
            name: "STOP".to_owned(),
            data: json!({}),
            at_micros: 5_000_007
        }
    );
    assert_eq!(
        Message::parse(br#"[1]"#),
        Err(WireError::NoMessage("not an object"))
    );
}

#[test]
fn garbage_never_panics_and_never_reads_as_an_answer_with_our_id() {
    let seeds: [&[u8]; 5] = [
        GREETING.as_bytes(),
        br#"{"return":{},"id":7}"#,
        br#"{"error":{"class":"GenericError","desc":"x"},"id":7}"#,
        br#"{"timestamp":{"seconds":-1,"microseconds":9223372036854775807},"event":"E","data":[]}"#,
        &[0xff, 0xfe, b'{', 0, b'\n', b'}'],
    ];
    // A small generator, so that a failure repeats.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let mut lines = Lines::default();
    for round in 0..50_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..1 + next() % 6 {
            match next() % 3 {
                0 => {
                    let at = next() % bytes.len();
                    bytes[at] = (next() % 256) as u8;
                }
                1 => bytes.truncate(1 + next() % bytes.len()),
                _ => bytes.insert(next() % (bytes.len() + 1), (next() % 256) as u8),
            }
        }
        let _ = Message::parse(&bytes);
        lines.push(&bytes);
        while let Ok(Some(line)) = lines.next() {
            assert!(!line.contains(&b'\n'));
        }
    }
}

#[test]
fn a_line_without_end_is_refused() {
    let mut lines = Lines::default();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..16 {
        lines.push(&chunk);
        assert_eq!(lines.next(), Ok(None));
    }
    lines.push(&chunk);
    assert_eq!(lines.next(), Err(WireError::TooLong(MAX_LINE)));
}

/// A stand-in for QEMU that answers each line by `answer`.
async fn server(
    answer: impl Fn(Value) -> Vec<String> + Send + 'static,
) -> (Qmp, tokio::task::JoinSet<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (read, mut write) = theirs.into_split();
        let mut lines = BufReader::new(read).lines();
        write
            .write_all(format!("{GREETING}\r\n").as_bytes())
            .await
            .unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let request: Value = serde_json::from_str(&line).unwrap();
            let answers = if request["execute"] == "qmp_capabilities" {
                vec![json!({ "return": {}, "id": request["id"] }).to_string()]
            } else {
                answer(request)
            };
            for answer in answers {
                if answer == "close" {
                    return;
                }
                write
                    .write_all(format!("{answer}\r\n").as_bytes())
                    .await
                    .unwrap();
            }
        }
    });
    (Qmp::negotiate(ours).await.unwrap(), tasks)
}

#[tokio::test]
async fn answers_find_their_command_in_any_order() {
    let held = std::sync::Mutex::new(Vec::new());
    let (qmp, _tasks) = server(move |request| {
        let mut held = held.lock().unwrap();
        held.push(json!({ "return": request["execute"], "id": request["id"] }).to_string());
        if held.len() < 3 {
            return Vec::new();
        }
        held.drain(..).rev().collect()
    })
    .await;
    let (a, b, c) = tokio::join!(
        qmp.execute("a", Value::Null),
        qmp.execute("b", Value::Null),
        qmp.execute("c", Value::Null),
    );
    assert_eq!([a.unwrap(), b.unwrap(), c.unwrap()], ["a", "b", "c"]);
}

#[tokio::test]
async fn a_late_answer_is_not_taken_for_the_next_command() {
    let first = std::sync::Mutex::new(None);
    let (qmp, _tasks) = server(move |request| {
        let mut first = first.lock().unwrap();
        let answer = json!({ "return": request["execute"], "id": request["id"] }).to_string();
        match first.take() {
            None => {
                *first = Some(answer);
                Vec::new()
            }
            Some(late) => vec![late, answer],
        }
    })
    .await;
    let error = qmp
        .execute_within("slow", Value::Null, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(error, QmpError::Timeout { .. }), "{error}");
    assert_eq!(qmp.execute("next", Value::Null).await.unwrap(), "next");
}

#[tokio::test]
async fn refusals_and_ends_are_told_apart() {
    let (qmp, _tasks) = server(|request| match request["execute"].as_str() {
        Some("no") => vec![json!({ "error": { "class": "CommandNotFound", "desc": "never heard" }, "id": request["id"] }).to_string()],
        Some("junk") => vec!["{]".to_owned()],
        _ => vec!["close".to_owned()],
    })
    .await;
    let error = qmp.execute("no", Value::Null).await.unwrap_err();
    assert!(error.is_unknown_command());
    assert_eq!(error.to_string(), "QEMU refused `no`: never heard");
    let error = qmp.execute("junk", Value::Null).await.unwrap_err();
    assert!(
        error.is_closed() && error.to_string().contains("not JSON"),
        "{error}"
    );
    let again = qmp.execute("anything", Value::Null).await.unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    qmp.closed().await;
    assert!(qmp.is_closed());
}
