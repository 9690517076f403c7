//! GraphQL over a WebSocket, sub-protocol `graphql-transport-ws`.

use super::Bounded;
use crate::app::Call;
use crate::reply::{Failure, Outcome};
use crate::watch::socket;
use async_graphql::Data;
use async_graphql::http::{WebSocket as Protocol, WebSocketProtocols, WsMessage};
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{Request, StatusCode};
use std::time::Duration;

/// Close code of the sub-protocol: whoever is at the other end may not speak here.
const FORBIDDEN: u16 = 4403;
const NAME: &str = "graphql-transport-ws";
/// A client that says nothing for so long is gone; clients send pings.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long one message may take to leave.
const SEND: Duration = Duration::from_secs(30);

pub(super) async fn upgrade(call: Call, request: Request<Body>) -> Outcome {
    let spoken = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim() == NAME);
    if !spoken {
        return Err(Failure::http(
            StatusCode::BAD_REQUEST,
            "BAD_UPGRADE",
            "GraphQL over a WebSocket needs a sub-protocol".to_owned(),
            Some(format!("ask with Sec-WebSocket-Protocol: {NAME}")),
        ));
    }
    let call = call.with_socket()?;
    let upgrade = socket::accept(request).await?.protocols([NAME]);
    let cut = call.app.cut.clone();
    let serve = move |socket| async move {
        cut.run_until_cancelled(serve(call, socket))
            .await
            .unwrap_or(())
    };
    Ok(upgrade.on_upgrade(serve))
}

async fn serve(call: Call, socket: WebSocket) {
    let _open = call.app.metrics.opened("graphql");
    let (mut sink, stream) = socket.split();
    let closing = call.app.closing.clone();
    let heard = stream
        .take_while(|message| {
            let on = !matches!(message, Err(_) | Ok(Message::Close(_)));
            async move { on }
        })
        .filter_map(|message| async move {
            match message {
                Ok(Message::Text(text)) => Some(text.as_str().as_bytes().to_vec()),
                Ok(Message::Binary(bytes)) => Some(bytes.to_vec()),
                _ => None,
            }
        });
    let mut data = Data::default();
    data.insert(call.clone());
    let schema = Bounded(call.app.graphql.clone(), call.clone());
    let said = Protocol::new(schema, heard, WebSocketProtocols::GraphQLWS)
        .connection_data(data)
        .keepalive_timeout(KEEP_ALIVE);
    futures::pin_mut!(said);
    let Ok(actor) = call.actor() else { return };
    let out = call.ended(&actor, || true);
    tokio::pin!(out);
    loop {
        let message = tokio::select! {
            () = &mut out => Message::Close(Some(CloseFrame {
                code: FORBIDDEN,
                reason: "this login has ended: log in again".into(),
            })),
            () = closing.cancelled() => Message::Close(Some(CloseFrame {
                code: socket::RESTART,
                reason: "the server restarts: connect again".into(),
            })),
            message = said.next() => match message {
                Some(WsMessage::Text(text)) => Message::Text(text.into()),
                Some(WsMessage::Close(code, reason)) => Message::Close(Some(CloseFrame {
                    code,
                    reason: reason.into(),
                })),
                None => return,
            },
        };
        let last = matches!(message, Message::Close(_));
        match tokio::time::timeout(SEND, sink.send(message)).await {
            Ok(Ok(())) if !last => {}
            _ => return,
        }
    }
}
