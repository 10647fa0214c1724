//! Conferences that are mixed in parts, each on its own shard.

use ringbridge_media::command::{Command, ConferenceSpec, Role};
use ringbridge_media::event::{Answer, ConferenceStatus, Effect};
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::limits::PARTS_MAX;
use ringbridge_media::parts::Parts;

use super::{Call, unexpected};
use crate::proto::{ErrorKind, RpcError};
use crate::router::{Concern, Dispatch, lane};
use crate::server::{InFlight, Server};

/// The largest number of parts that may be asked for.
#[expect(clippy::cast_possible_truncation, reason = "a few dozen")]
pub(super) const PARTS_ASKED_MAX: u32 = PARTS_MAX as u32;

/// Chooses shards for the other parts of a conference that lives on `home`: those with the most headroom, as many as
/// there are.
pub(super) fn choose_shards(server: &Server, home: ShardId, parts: u32) -> Vec<ShardId> {
    let mut chosen = vec![home];
    let up = server.shard_ids().filter(|shard| server.router.borrow().is_up(*shard)).count();
    // None is as many as there are.
    let wanted = if parts == 0 { PARTS_MAX } else { parts as usize };
    while chosen.len() < wanted.min(up) {
        let next = server.place_beside(&chosen);
        if chosen.contains(&next) {
            break;
        }
        chosen.push(next);
    }
    chosen
}

/// Opens a conference in parts, the home last, so that nobody hears of one that did not come to be.
pub(super) async fn open(
    call: &Call,
    id: ConferenceId,
    spec: ConferenceSpec,
    shards: &[ShardId],
) -> Result<(), RpcError> {
    let server = &call.server;
    let parts = Parts { shards: shards.iter().copied().collect(), epoch: server.now() };
    let mut opened = Vec::new();
    let result = async {
        for &shard in shards.iter().skip(1) {
            let slot = server
                .registry
                .borrow_mut()
                .add_part(id, shard)
                .map_err(|full| RpcError::new(ErrorKind::LimitReached, full.to_string()).with("shard", shard.0))?;
            let command = Command::CreatePart { id, slot, spec, parts: Box::new(parts) };
            let in_flight = server.send(shard, command, call.received)?;
            // Whatever its answer is, it may be there.
            opened.push(shard);
            in_flight.answer().await?;
        }
        Ok(())
    };
    let result = match result.await {
        Ok(()) => {
            let command = Command::CreatePart { id, slot: id.slot_number(), spec, parts: Box::new(parts) };
            let concern = Concern::Conference(id);
            let sent = server.dispatch(Dispatch { shard: id.shard(), command, received: call.received, concern });
            match sent {
                Ok(in_flight) => in_flight.answer().await.map(|_| ()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    if result.is_err() {
        // The slots are free for what is sent after this.
        opened.into_iter().for_each(|shard| server.vacate(shard, id));
        server.registry.borrow_mut().remove_conference(id);
    }
    result
}

impl Call {
    /// The part of a conference that a connection is to join, or one that is to be created for it.
    pub(super) fn part_for(&self, id: ConferenceId, connection: Option<ConnectionId>) -> Result<ShardId, RpcError> {
        let registry = self.server.registry.borrow();
        let entry = registry.conference(id).ok_or_else(|| RpcError::unknown_conference(id))?;
        Ok(registry.part_for(entry, connection, |shard| self.server.router.borrow().is_up(shard)))
    }

    /// Where the parts of a conference are, the home first.
    pub(super) fn shards_of(&self, id: ConferenceId) -> Result<Vec<ShardId>, RpcError> {
        self.conference(id, |entry| entry.shards().collect())
    }

    /// Sends a command to every part of a conference, the home first, or to none.
    pub(super) fn send_parts(
        &self,
        shards: &[ShardId],
        command: impl Fn() -> Command,
        concern: Concern,
    ) -> Result<Vec<Result<InFlight, RpcError>>, RpcError> {
        let server = &self.server;
        for &shard in shards {
            server.router.borrow().room(shard, lane(&command()))?;
        }
        let concerns = [concern].into_iter().chain(std::iter::repeat(Concern::Nothing));
        let sent = shards.iter().zip(concerns).map(|(&shard, concern)| {
            server.dispatch(Dispatch { shard, command: command(), received: self.received, concern })
        });
        Ok(sent.collect())
    }

    /// Takes a role away from whoever has it in another part than `shard`, and adds to `effect` what follows from it.
    pub(super) async fn cede(&self, id: ConferenceId, role: Role, shard: ShardId, effect: &mut Effect) {
        let others = self.shards_of(id).unwrap_or_default();
        for other in others.into_iter().filter(|other| *other != shard) {
            let sent = self.server.send(other, Command::CedeRole { conference: id, role }, self.received);
            let Ok(in_flight) = sent else { continue };
            if let Ok(Answer::Effect(ceded)) = in_flight.answer().await {
                effect.streams.extend(ceded.streams);
            }
        }
    }
}

/// The answers of all parts, that of the home first.
pub(super) async fn answers(sent: Vec<Result<InFlight, RpcError>>) -> Result<Vec<Answer>, RpcError> {
    let mut answers = Vec::with_capacity(sent.len());
    for (index, sent) in sent.into_iter().enumerate() {
        let answer = match sent {
            Ok(in_flight) => in_flight.answer().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => answers.push(answer),
            // The home speaks for all; of another part that is gone nothing is left to tell.
            Err(error) if index == 0 => return Err(error),
            Err(error) => tracing::debug!(%error, "a part of a conference did not answer"),
        }
    }
    Ok(answers)
}

/// One answer for those of all parts to a `DeleteConference`.
pub(super) fn merge_deleted(answers: Vec<Answer>) -> Result<Answer, RpcError> {
    let (mut released, mut told): (Vec<ConnectionId>, Option<Box<Effect>>) = (Vec::new(), None);
    for answer in answers {
        let Answer::Deleted { connections, effect } = answer else { return Err(unexpected(&answer)) };
        released.extend(connections);
        match &mut told {
            None => told = Some(effect),
            Some(told) => told.streams.extend(effect.streams),
        }
    }
    let effect = told.ok_or_else(|| unexpected(&Answer::Done))?;
    Ok(Answer::Deleted { connections: released, effect })
}

/// One status for those of the parts of each conference, in the order of the first ones.
pub(super) fn merge_statuses(statuses: Vec<ConferenceStatus>) -> Vec<ConferenceStatus> {
    let mut merged: Vec<ConferenceStatus> = Vec::with_capacity(statuses.len());
    let mut places = std::collections::HashMap::new();
    for status in statuses {
        match places.get(&status.id) {
            None => {
                places.insert(status.id, merged.len());
                merged.push(status);
            }
            Some(&place) => {
                merged[place].participants.extend(status.participants);
                merged[place].operations.extend(status.operations);
            }
        }
    }
    merged
}
