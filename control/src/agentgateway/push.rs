//! Events posted to the address of a sign-in: in order, three tries each, only where the configuration allows.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::session::{Push, Session};

/// Posts the events of a session until it ends.
pub(super) fn start(session: Rc<Session>) {
    let Some(push) = session.push.clone() else { return };
    spawn_local(async move {
        loop {
            let mut events = session.take().await;
            if events.is_empty() {
                return;
            }
            for event in &mut events {
                // It belongs to the envelope of a poll.
                event.as_object_mut().map(|event| event.remove("eventGenTime"));
            }
            let body = json!({"workNo": session.number.to_string(), "eventList": events}).to_string();
            deliver(&session, &push, body.into()).await;
        }
    });
}

async fn deliver(session: &Session, push: &Push, body: Bytes) {
    for _ in 0..TRIES {
        match timeout(POST_TIMEOUT, post(session, push, body.clone())).await {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => tracing::debug!(agent = session.number, "the events were not taken"),
            Ok(Err(error)) => tracing::debug!(agent = session.number, %error, "the events can't be posted"),
            Err(_) => tracing::debug!(agent = session.number, "no answer to posted events in time"),
        }
    }
    tracing::warn!(agent = session.number, uri = %push.uri, "events were not taken and are dropped");
}

async fn post(session: &Session, push: &Push, body: Bytes) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let host = push.uri.host().unwrap_or_default();
    let name = host.trim_matches(['[', ']']);
    let default_port = if push.tls.is_some() { 443 } else { 80 };
    let port = push.uri.port_u16().unwrap_or(default_port);
    let stream = TcpStream::connect((name, port)).await?;
    match &push.tls {
        Some(tls) => {
            let name = ServerName::try_from(name.to_owned())?;
            let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
            post_over(stream, session, push, body).await
        }
        None => post_over(stream, session, push, body).await,
    }
}

async fn post_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    session: &Session,
    push: &Push,
    body: Bytes,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let host = push.uri.host().unwrap_or_default();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = spawn_local(connection);
    let authority = push.uri.authority().map_or(host, |authority| authority.as_str());
    let target = push.uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::post(target)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json; charset=UTF-8")
        .header("Guid", session.guid())
        .header("service_token", push.token.as_str())
        .body(Full::new(body))?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(status.is_success() && answer["retcode"] == "0")
    }
    .await;
    driven.abort();
    answered
}

const TRIES: usize = 3;
const POST_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;
