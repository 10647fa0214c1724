//! Events posted to an address: in order, tried again for a minute, only where the configuration allows.

use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::gate::Gate;

use super::MediaControl;
use super::http::{BATCH_MAX, Watched, batch_value};
use super::log::Log;
use crate::urlencoded::decode;

/// A script's subscription. Deliveries end when its gate opens.
#[derive(Debug)]
pub(super) struct Hook {
    /// Opens when nothing more is to be posted.
    ended: Gate,
    /// Opens when the script has ended: what is there is posted, then no more.
    last: Gate,
}

/// Why a subscription is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// No configured prefix.
    NotAllowed,
    /// It can't be posted to.
    NotAnAddress,
    /// There are too many.
    TooMany,
}

/// Posts a script's events to `url` from now on, instead of where they were posted before.
pub(super) fn register(
    mc: &Rc<MediaControl>,
    routing_guid: &str,
    url: &str,
    digits: bool,
    after: u64,
) -> Result<(), Refused> {
    let uri: Uri = url.parse().map_err(|_| Refused::NotAnAddress)?;
    // A path that climbs is not below its prefix, whoever resolves it.
    if uri.scheme_str() != Some("http") || uri.host().is_none() || climbs(uri.path()) {
        return Err(Refused::NotAnAddress);
    }
    if !mc.config().webhooks.iter().any(|prefix| url.starts_with(prefix.as_str())) {
        return Err(Refused::NotAllowed);
    }
    if mc.hooks.borrow().len() >= HOOKS_MAX && !mc.hooks.borrow().contains_key(routing_guid) {
        return Err(Refused::TooMany);
    }
    let log = mc.logs().open(routing_guid).ok_or(Refused::TooMany)?;
    let subscriber = Watched::new(mc, &log, digits);
    let (ended, last) = (Gate::default(), Gate::default());
    let hook = Hook { ended: ended.clone(), last: last.clone() };
    let before = mc.hooks.borrow_mut().insert(routing_guid.to_owned(), hook);
    if let Some(before) = before {
        before.ended.open();
    }
    let mc = Rc::clone(mc);
    spawn_local(async move {
        let over = tokio::select! {
            delivered = deliver(&log, &uri, after, &last) => {
                if !delivered {
                    let routing_guid = &log.routing_guid;
                    tracing::warn!(routing_guid, url = %uri, "events can't be delivered: subscription ended");
                }
                true
            }
            // Another one is in its place, or none is wanted.
            () = ended.wait() => false,
        };
        if over && !ended.is_open() {
            mc.hooks.borrow_mut().remove(&log.routing_guid);
        }
        drop(subscriber);
    });
    Ok(())
}

/// Whether a path has a part that leads upwards, written out or encoded.
fn climbs(path: &str) -> bool {
    decode(path).split(['/', '\\']).any(|part| part == "..")
}

/// Ends a script's subscription; `false` if there is none.
pub(super) fn remove(mc: &MediaControl, routing_guid: &str) -> bool {
    let hook = mc.hooks.borrow_mut().remove(routing_guid);
    if let Some(hook) = &hook {
        hook.ended.open();
    }
    hook.is_some()
}

/// A script has ended: its subscription ends when what is there has been posted.
pub(super) fn end(mc: &MediaControl, routing_guid: &str) {
    if let Some(hook) = mc.hooks.borrow().get(routing_guid) {
        hook.last.open();
    }
}

/// Delivers events until `last` is open and all have been posted; `false` if that has failed for too long.
async fn deliver(log: &Rc<Log>, uri: &Uri, mut after: u64, last: &Gate) -> bool {
    loop {
        let changed = log.changed.notified();
        let batch = log.read(after, BATCH_MAX);
        if batch.events.is_empty() && batch.missed == 0 {
            if last.is_open() {
                return true;
            }
            tokio::select! {
                () = changed => {}
                () = last.wait() => {}
            }
            continue;
        }
        let body = Bytes::from(batch_value(&log.routing_guid, &batch).to_string());
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            match timeout(POST_TIMEOUT, post(uri, body.clone())).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::debug!(%error, url = %uri, "events are posted again"),
                Err(_) => tracing::debug!(url = %uri, "no answer in time: events are posted again"),
            }
            if begun.elapsed() + pause > GIVE_UP {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        after = batch.last;
    }
}

#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error("answered with {0}")]
    Status(hyper::StatusCode),
}

async fn post(uri: &Uri, body: Bytes) -> Result<(), PostError> {
    let host = uri.host().unwrap_or_default();
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = spawn_local(connection);
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::post(target).header(HOST, authority).header(CONTENT_TYPE, "application/json");
    let response = sender.send_request(request.body(Full::new(body))?).await;
    driven.abort();
    let status = response?.status();
    if status.is_success() { Ok(()) } else { Err(PostError::Status(status)) }
}

/// Subscriptions at once.
const HOOKS_MAX: usize = 4_096;
/// How long one delivery may take.
const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a delivery is tried again, from its first try.
const GIVE_UP: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
