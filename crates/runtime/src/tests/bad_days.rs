//! A store that refuses for a while: what is asked is told, what can be read is read, and all goes on by itself.

use super::demo::*;
use crate::*;
use serde_json::json;
use std::sync::Arc;
use store::Memory;
use store::memory::{Fault, Faults};

#[tokio::test]
async fn while_the_store_refuses_writes_are_told_and_reads_go_on() {
    let faults = Faults::new();
    let cx = start_over(Memory::with_faults(faults.clone()), Arc::default()).await;
    create(&cx, "a", json!({ "on": true })).await.unwrap();
    until(&cx, &lamp("a"), |o| {
        o.is_some_and(|o| o["status"]["shines"] == true)
    })
    .await;
    const REFUSED: u64 = 20;
    let now = faults.commits();
    for n in 1..=REFUSED {
        faults.order(now + n, Fault::Fail);
    }
    let mut told = 0;
    while let Err(error) = create(&cx, "b", json!({ "on": true })).await {
        told += 1;
        assert!(
            matches!(error.what, model::What::Unavailable(_)),
            "{error:?}"
        );
        assert!(told <= REFUSED, "it recovers by itself");
        let read = ask(&cx, Op::Get { target: lamp("a") }).await.unwrap();
        assert!(matches!(read, Answer::Object { .. }));
        assert!(
            cx.cache()
                .row("lamp", &cx.key::<Lamp>(Some("default"), "b"))
                .is_none()
        );
    }
    assert_eq!(told, REFUSED, "each was told");
    // The loops go on too.
    until(&cx, &lamp("b"), |o| {
        o.is_some_and(|o| o["status"]["shines"] == true)
    })
    .await;
}
