//! What shards report: answers to those who wait, events to everybody, and the end of all that was on a shard.

use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use ringbridge_media::command::{Command, Target};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{Answer, CommandError, Condition, EndReason, Event};
use ringbridge_media::id::{ConnectionId, OperationId, ShardId};
use ringbridge_shard::mailbox::ShardReport;
use serde_json::{Value, json};
use tokio::net::unix::pipe;
use tokio::task::{spawn_local, yield_now};

use super::ends::{Told, close_recording, connection_ended, operation_ended, reason_name};
use super::{ServeError, Server};
use crate::begin::begin;
use crate::events::EventKind;
use crate::methods::render;
use crate::registry::{Ended, OperationEntry};
use crate::router::{Concern, Pending, Reply};

/// Something to be told once the answers that came before it are.
enum Outgoing {
    Event(EventKind, Value),
    OperationEnded { id: OperationId, condition: Condition, elapsed_ms: u64, digits: Option<Digits> },
}

impl Server {
    pub(super) fn watch_shards(self: Rc<Self>) -> Result<impl Future<Output = ()>, ServeError> {
        let io = |source| ServeError::Io { what: "can't watch the shards' doorbell", source };
        // To the runtime an eventfd is as good as a pipe: something that becomes readable, and gives eight bytes.
        let bell = self.doorbell.fd().try_clone_to_owned().map_err(io)?;
        let bell = pipe::Receiver::from_owned_fd_unchecked(bell).map_err(io)?;
        Ok(async move {
            loop {
                while self.take_reports().await {}
                self.doorbell.arm();
                // What was reported before the bell was armed did not ring it.
                if self.router.borrow().has_reports() {
                    self.doorbell.disarm();
                    continue;
                }
                if bell.readable().await.is_err() {
                    return;
                }
                // An eventfd gives all its rings at once; an error means that it had none.
                drop(bell.try_read(&mut [0; 8]));
            }
        })
    }

    /// Takes in a bounded number of reports. `false`: there were none.
    async fn take_reports(self: &Rc<Self>) -> bool {
        let mut outgoing = Vec::new();
        let mut taken = false;
        for shard in self.shard_ids() {
            for _ in 0..REPORTS_PER_TURN_MAX {
                let Some(report) = self.router.borrow().poll_report(shard) else { break };
                taken = true;
                self.take_report(shard, report, &mut outgoing);
            }
        }
        self.router.borrow_mut().flush_forgets();
        self.end_vacated();
        if taken {
            // Whoever got an answer passes it on now, so that it stands before the events that came after it.
            yield_now().await;
        }
        for outgoing in outgoing {
            match outgoing {
                Outgoing::Event(kind, params) => self.hub.publish(kind, params),
                Outgoing::OperationEnded { id, condition, elapsed_ms, digits } => {
                    let server = Rc::clone(self);
                    begin(async move { server.end_operation(id, condition, elapsed_ms, digits).await });
                }
            }
        }
        taken
    }

    fn take_report(self: &Rc<Self>, shard: ShardId, report: ShardReport, outgoing: &mut Vec<Outgoing>) {
        match report {
            ShardReport::Event(event) => self.take_event(event, outgoing),
            ShardReport::Moved(moved) => {
                // What the former shard has said of it comes before what the new one says.
                let origin = self.registry.borrow().origin_of(moved.token).filter(|origin| *origin != shard);
                while let Some(from) = origin {
                    let Some(report) = self.router.borrow().poll_report(from) else { break };
                    self.take_report(from, report, outgoing);
                }
                let strays = self.registry.borrow_mut().end_move(*moved);
                for target in strays {
                    // It was given up while it was on its way.
                    self.clear_stray(shard, target);
                }
            }
            ShardReport::Snapshot { token, snapshot } => {
                self.placement.borrow_mut().take_figures(&snapshot);
                if let Some(pending) = self.router.borrow_mut().take(token) {
                    pending.reply(Reply::Snapshot(snapshot));
                }
            }
            ShardReport::Stopped => {
                self.lose_shard(shard, EndReason::Shutdown);
            }
            ShardReport::Failed { reason } => {
                tracing::error!(%shard, reason, "a shard has failed");
                let up_since = self.shards.borrow()[usize::from(shard.0)].up_since;
                let lived = up_since.map(|since| since.elapsed()).unwrap_or_default();
                self.lose_shard(shard, EndReason::ShardFailed);
                if !self.stopping.get() {
                    spawn_local(Rc::clone(self).restart_shard(shard, lived));
                }
            }
        }
    }

    fn take_event(&self, event: Event, outgoing: &mut Vec<Outgoing>) {
        match event {
            Event::Answer { token, result } => {
                let pending = self.router.borrow_mut().take(token);
                if let Some(pending) = pending {
                    self.take_answer(pending, result);
                }
            }
            Event::OperationEnded { id, condition, elapsed_ms, target: _, kind: _, digits, playlist } => {
                // Freed here, off the shard.
                drop(playlist);
                let mut registry = self.registry.borrow_mut();
                if let Some(entry) = registry.operation_mut(id).filter(|entry| !entry.ending) {
                    entry.ending = true;
                    entry.units.clear();
                    outgoing.push(Outgoing::OperationEnded { id, condition, elapsed_ms, digits });
                }
            }
            Event::ConnectionLearned { id, remote } => outgoing.push(Outgoing::Event(
                EventKind::ConnectionLearned,
                json!({"connection_id": id.to_string(), "remote": remote.to_string()}),
            )),
            Event::ConnectionTimeout { id } => {
                outgoing.push(Outgoing::Event(EventKind::ConnectionTimeout, json!({"connection_id": id.to_string()})))
            }
            Event::ConnectionEnded { id, reason, heard, quality } => {
                let Some(Ended { mut entry, forwarders }) = self.registry.borrow_mut().remove_connection(id) else {
                    return;
                };
                entry.lease.set_heard(heard);
                for shard in forwarders {
                    self.router.borrow_mut().forget(shard, Target::Connection(id));
                }
                self.ended.notify_waiters();
                let mut params = connection_ended(id, reason);
                params["quality"] = render::quality(&quality);
                outgoing.push(Outgoing::Event(EventKind::ConnectionEnded, params));
            }
            Event::ConferenceEnded { id, reason } => {
                let removed = self.registry.borrow_mut().remove_conference(id);
                if let Some(entry) = removed {
                    for shard in entry.forwarders() {
                        self.router.borrow_mut().forget(shard, Target::Conference(id));
                    }
                    let params = json!({"conference_id": id.to_string(), "reason": reason_name(reason)});
                    outgoing.push(Outgoing::Event(EventKind::ConferenceEnded, params));
                }
            }
            Event::TalkStarted { conference, connection } => outgoing.push(Outgoing::Event(
                EventKind::TalkStarted,
                json!({"conference_id": conference.to_string(), "connection_id": connection.to_string()}),
            )),
            Event::TalkStopped { conference, connection } => outgoing.push(Outgoing::Event(
                EventKind::TalkStopped,
                json!({"conference_id": conference.to_string(), "connection_id": connection.to_string()}),
            )),
            Event::ActiveSpeaker { conference, connection } => outgoing.push(Outgoing::Event(
                EventKind::SpeakerActive,
                json!({"conference_id": conference.to_string(), "connection_id": connection.to_string()}),
            )),
            Event::Digit { connection, digit, duration_ms } => outgoing.push(Outgoing::Event(
                EventKind::Digit,
                json!({
                    "connection_id": connection.to_string(),
                    "digit": char::from(digit).to_string(),
                    "duration_ms": duration_ms,
                }),
            )),
        }
    }

    /// Brings the registry up to date at once, whatever becomes of whoever waits for the answer.
    fn take_answer(&self, pending: Pending, result: Result<Answer, CommandError>) {
        let mut registry = self.registry.borrow_mut();
        match (pending.concern(), result.is_ok()) {
            (Concern::Nothing, _) => {}
            (Concern::Connection(id), true) => registry.confirm_connection(id),
            (Concern::Conference(id), true) => registry.confirm_conference(id),
            (Concern::Operation(id), true) => registry.confirm_operation(id),
            (Concern::Join(conference, join), true) => registry.confirm_member(conference, join),
            (Concern::Leave(conference, connection), true) => registry.member_left(conference, connection),
            (Concern::Promotion(id), true) => registry.end_promotion(id, true),
            (Concern::Dissolution(id), true) => registry.empty_conference(id),
            (concern, false) => {
                drop(registry);
                self.discard(concern);
            }
        }
        pending.reply(Reply::Answer(result));
    }

    fn discard(&self, concern: Concern) {
        match concern {
            Concern::Nothing => {}
            Concern::Connection(id) => self.abandon_connection(id),
            Concern::Conference(id) => drop(self.registry.borrow_mut().remove_conference(id)),
            Concern::Operation(id) => self.abandon_operation(id),
            Concern::Join(conference, join) => self.registry.borrow_mut().remove_member(conference, join),
            Concern::Promotion(id) => self.registry.borrow_mut().end_promotion(id, false),
            // Whatever it was about is as it was.
            Concern::Leave(..) | Concern::Dissolution(_) => {}
        }
    }

    /// Tells the end of an operation: after the answer to its start, and after its file is closed.
    async fn end_operation(&self, id: OperationId, condition: Condition, elapsed_ms: u64, digits: Option<Digits>) {
        let gates =
            self.registry.borrow_mut().operation_mut(id).map(|entry| (entry.announced.clone(), entry.recording.take()));
        let Some((announced, recording)) = gates else { return };
        announced.wait().await;
        let params = {
            let told = Told { condition: condition.name(), elapsed_ms, digits, shard_failed: false };
            let told = (told, close_recording(recording).await);
            let registry = self.registry.borrow();
            registry.operation(id).map(|entry| operation_ended(entry.id, entry.target, entry.kind, told.0, told.1))
        };
        let Some(params) = params else { return };
        self.hub.publish(EventKind::OperationEnded, params);
        if let Some(entry) = self.registry.borrow_mut().remove_operation(id) {
            entry.ended.open();
        }
    }

    /// Ends everything that was on a shard which is gone, and tells everybody once.
    fn lose_shard(self: &Rc<Self>, shard: ShardId, reason: EndReason) {
        let concerns = self.router.borrow_mut().disconnect(shard);
        for concern in concerns {
            self.discard(concern);
        }
        let lost = self.registry.borrow_mut().remove_shard(shard);
        for (other, target) in lost.strays {
            self.clear_stray(other, target);
            self.router.borrow_mut().forget(other, target);
        }
        self.mourn(shard, lost.parts);
        let connections: Vec<ConnectionId> = lost.connections.iter().map(|entry| entry.id).collect();
        let mut known = connections.clone();
        known.sort_unstable();
        let given_up = self.router.borrow_mut().give_up(shard, |target| match target {
            Target::Connection(id) => known.binary_search(&id).is_ok(),
            Target::Conference(id) => lost.conferences.binary_search(&id).is_ok(),
        });
        for concern in given_up {
            self.discard(concern);
        }
        // Their ports are free again.
        drop(lost.connections);
        let server = Rc::clone(self);
        begin(async move {
            // Each recording closes by itself; none keeps the others waiting.
            let ends: Vec<_> = lost
                .operations
                .into_iter()
                .map(|entry| {
                    let server = Rc::clone(&server);
                    begin(async move { server.end_lost_operation(entry, reason).await })
                })
                .collect();
            for end in ends {
                end.end().await;
            }
            for id in connections {
                server.hub.publish(EventKind::ConnectionEnded, connection_ended(id, reason));
            }
            for id in lost.conferences {
                let params = json!({"conference_id": id.to_string(), "reason": reason_name(reason)});
                server.hub.publish(EventKind::ConferenceEnded, params);
            }
            if reason == EndReason::ShardFailed {
                server.hub.publish(EventKind::ShardFailed, json!({"shard": shard.0}));
            }
            server.shards.borrow_mut()[usize::from(shard.0)].up_since = None;
            server.ended.notify_waiters();
        });
    }

    /// Ends what a shard may still hold although nobody knows it any more.
    fn clear_stray(&self, shard: ShardId, target: Target) {
        self.send_unasked(
            shard,
            match target {
                Target::Connection(id) => Command::DeleteConnection { id },
                Target::Conference(id) => Command::DeleteConference { id, keep_connections: false },
            },
        );
    }

    async fn end_lost_operation(&self, mut entry: OperationEntry, reason: EndReason) {
        entry.announced.wait().await;
        let recording = entry.recording.take();
        let shard_failed = reason == EndReason::ShardFailed;
        let condition = if shard_failed { Condition::Error.name() } else { Condition::AutoStop.name() };
        if let Some(recording) = recording.as_ref().filter(|_| shard_failed) {
            // Nobody else can say that no more samples come.
            recording.queue.deserted.store(true, Ordering::Release);
        }
        let elapsed_ms = u64::try_from(entry.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let closed = close_recording(recording).await;
        let params = operation_ended(
            entry.id,
            entry.target,
            entry.kind,
            Told { condition, elapsed_ms, digits: None, shard_failed },
            closed,
        );
        self.hub.publish(EventKind::OperationEnded, params);
        entry.ended.open();
    }
}

/// Reports taken from one shard before the others and the clients get their turn.
const REPORTS_PER_TURN_MAX: usize = 1024;
