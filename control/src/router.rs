//! Commands to the shards, and their answers back.
//!
//! ```text
//!  method ── send ──▶ pending[token] ── mailbox (ordinary | urgent) ──▶ shard
//!         ◀─ oneshot ─ pending[token] ◀──────── outbox ────────────────┘
//! ```
//!
//! Nothing here waits. A lane that is full refuses at once. Each command in flight holds a unit of its shard's budget
//! until it is answered; the budgets are such that the outbox always has room for every answer.

use std::net::UdpSocket;
use std::sync::Arc;

use ringbridge_media::command::{Command, Request, Target};
use ringbridge_media::event::{Answer, CommandError};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::time::Instant;
use ringbridge_shard::mailbox::{
    Lane, MAILBOX_MESSAGES_MAX, MAILBOX_URGENT_MAX, Mailbox, MoveOrder, OUTBOX_REPORTS_MAX, Outbox, ShardMessage,
    ShardReport,
};
use ringbridge_shard::snapshot::ShardSnapshot;
use tokio::sync::oneshot;

/// The lines to all shards.
#[derive(Debug)]
pub struct Router {
    lines: Vec<Line>,
    pending: Slab,
    /// `Forget` messages that found their lane full; sent again with the next reports.
    forgets: Vec<(ShardId, Target)>,
}

/// What comes back for one message.
#[derive(Debug)]
pub enum Reply {
    /// The engine's answer.
    Answer(Result<Answer, CommandError>),
    /// The figures asked for.
    Snapshot(Box<ShardSnapshot>),
    /// The shard has failed; there will be no answer.
    ShardFailed(ShardId),
}

/// A command that waits for its answer.
#[derive(Debug)]
pub struct Pending {
    reply: oneshot::Sender<Reply>,
    shard: ShardId,
    lane: Lane,
    concern: Concern,
    /// What it names; that may have moved on, and the command after it.
    target: Option<Target>,
}

/// What the registry has to confirm or discard when a command is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concern {
    /// Nothing.
    Nothing,
    /// A connection being created.
    Connection(ConnectionId),
    /// A conference being created.
    Conference(ConferenceId),
    /// An operation being started.
    Operation(OperationId),
    /// A connection joining a conference, and its place in the list of members.
    Join(ConferenceId, u64),
    /// A connection leaving a conference.
    Leave(ConferenceId, ConnectionId),
    /// A hairpin being promoted.
    Promotion(ConferenceId),
    /// A conference being ended.
    Dissolution(ConferenceId),
}

/// Why a message was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Too much is on its way to that shard.
    #[error("shard {0} is busy")]
    Busy(ShardId),
    /// That shard does not run.
    #[error("shard {0} has failed")]
    Down(ShardId),
}

/// A message to be sent, with what its answer needs.
#[derive(Debug)]
pub struct Dispatch {
    /// To which shard.
    pub shard: ShardId,
    /// What to do.
    pub command: Command,
    /// When the control plane received it.
    pub received: Instant,
    /// What to confirm with the answer.
    pub concern: Concern,
}

#[derive(Debug, Default)]
struct Line {
    link: Option<Link>,
    ordinary: usize,
    urgent: usize,
}

#[derive(Debug)]
struct Link {
    mailbox: Arc<Mailbox>,
    outbox: Arc<Outbox>,
}

impl Router {
    /// Lines to `shards` shards, none of which is up yet.
    pub fn new(shards: usize) -> Self {
        Self { lines: (0..shards).map(|_| Line::default()).collect(), pending: Slab::default(), forgets: Vec::new() }
    }

    /// Takes up the line to a shard that has started.
    pub fn connect(&mut self, shard: ShardId, mailbox: Arc<Mailbox>, outbox: Arc<Outbox>) {
        self.lines[usize::from(shard.0)].link = Some(Link { mailbox, outbox });
    }

    /// Gives up the line to a shard that is gone and tells everybody who waits for it. Returns what they were about.
    pub fn disconnect(&mut self, shard: ShardId) -> Vec<Concern> {
        self.lines[usize::from(shard.0)].link = None;
        self.forgets.retain(|(to, _)| *to != shard);
        self.give_up_where(shard, |pending| pending.shard == shard)
    }

    /// Gives up commands about what was lost with a shard, wherever they were sent: they may have been forwarded to it.
    /// Returns what they were about.
    pub fn give_up(&mut self, shard: ShardId, is_lost: impl Fn(Target) -> bool) -> Vec<Concern> {
        self.give_up_where(shard, |pending| pending.target.is_some_and(&is_lost))
    }

    fn give_up_where(&mut self, shard: ShardId, matches: impl Fn(&Pending) -> bool) -> Vec<Concern> {
        let lost = self.pending.remove_where(matches);
        lost.into_iter()
            .map(|pending| {
                self.settle(&pending);
                let concern = pending.concern;
                pending.reply(Reply::ShardFailed(shard));
                concern
            })
            .collect()
    }

    /// Sends one command.
    ///
    /// # Errors
    /// The shard is busy or down. Nothing was sent.
    pub fn send(&mut self, dispatch: Dispatch) -> Result<oneshot::Receiver<Reply>, Refusal> {
        let Dispatch { shard, command, received, concern } = dispatch;
        let target = named(&command);
        self.post(lane(&command), shard, (concern, target), |token| {
            ShardMessage::Command(Request { token, received, command })
        })
    }

    /// Sends a `CreateConnection` with its sockets.
    ///
    /// # Errors
    /// The shard is busy or down. Nothing was sent, and the sockets are closed.
    pub fn open(
        &mut self,
        dispatch: Dispatch,
        rtp: UdpSocket,
        rtcp: UdpSocket,
    ) -> Result<oneshot::Receiver<Reply>, Refusal> {
        let Dispatch { shard, command, received, concern } = dispatch;
        self.post(Lane::Ordinary, shard, (concern, None), |token| ShardMessage::Open {
            request: Request { token, received, command },
            rtp,
            rtcp,
        })
    }

    /// Sends what lives on `from` to another shard. There is no answer to this but a report.
    ///
    /// # Errors
    /// One of the two shards is busy or down. Nothing was sent.
    pub fn send_move(&self, from: ShardId, order: Box<MoveOrder>) -> Result<(), Refusal> {
        self.room(order.to, Lane::Ordinary)?;
        let link = self.lines[usize::from(from.0)].link.as_ref().ok_or(Refusal::Down(from))?;
        let message = ShardMessage::Move(order);
        link.mailbox.send(Lane::Ordinary, message).map_err(|_| Refusal::Busy(from))
    }

    /// Asks a shard for its figures.
    ///
    /// # Errors
    /// The shard is busy or down.
    pub fn snapshot(&mut self, shard: ShardId) -> Result<oneshot::Receiver<Reply>, Refusal> {
        self.post(Lane::Ordinary, shard, (Concern::Nothing, None), |token| ShardMessage::Snapshot { token })
    }

    /// Tells a shard that what has moved away from it has ended.
    pub fn forget(&mut self, shard: ShardId, target: Target) {
        self.forgets.push((shard, target));
        self.flush_forgets();
    }

    /// Sends what earlier found no room.
    pub fn flush_forgets(&mut self) {
        let lines = &self.lines;
        self.forgets.retain(|(shard, target)| {
            let Some(link) = &lines[usize::from(shard.0)].link else { return false };
            link.mailbox.send(Lane::Urgent, ShardMessage::Forget { target: *target }).is_err()
        });
    }

    /// Tells a shard to end. `false`: it does not run, or its mailbox is full.
    pub fn stop(&mut self, shard: ShardId) -> bool {
        self.post_bare(shard, ShardMessage::Stop)
    }

    /// Makes a shard panic, for tests. `false`: it does not run, or its mailbox is full.
    pub fn panic(&mut self, shard: ShardId) -> bool {
        self.post_bare(shard, ShardMessage::Panic)
    }

    /// The command that `token` names, now answered.
    pub fn take(&mut self, token: u64) -> Option<Pending> {
        let pending = self.pending.remove(token)?;
        self.settle(&pending);
        Some(pending)
    }

    /// Whether a command could be sent to `shard` now.
    ///
    /// # Errors
    /// It could not: the shard is busy or down.
    pub fn room(&self, shard: ShardId, lane: Lane) -> Result<(), Refusal> {
        let line = &self.lines[usize::from(shard.0)];
        line.link.as_ref().ok_or(Refusal::Down(shard))?;
        line.has_room(lane).then_some(()).ok_or(Refusal::Busy(shard))
    }

    /// The next report of a shard.
    pub fn poll_report(&self, shard: ShardId) -> Option<ShardReport> {
        self.lines[usize::from(shard.0)].link.as_ref()?.outbox.pop()
    }

    /// Whether any shard has something to say.
    pub fn has_reports(&self) -> bool {
        self.lines.iter().filter_map(|line| line.link.as_ref()).any(|link| !link.outbox.is_empty())
    }

    /// Whether a shard is up.
    pub fn is_up(&self, shard: ShardId) -> bool {
        self.lines[usize::from(shard.0)].link.is_some()
    }

    /// Every shard, up or not.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        // At most 255 shards: the configuration sees to it.
        (0..self.lines.len()).map(|shard| ShardId(u8::try_from(shard).unwrap_or(u8::MAX)))
    }

    /// Commands that wait for their answers.
    pub fn in_flight(&self) -> usize {
        self.lines.iter().map(|line| line.ordinary + line.urgent).sum()
    }

    fn post(
        &mut self,
        lane: Lane,
        shard: ShardId,
        (concern, target): (Concern, Option<Target>),
        message: impl FnOnce(u64) -> ShardMessage,
    ) -> Result<oneshot::Receiver<Reply>, Refusal> {
        let line = &mut self.lines[usize::from(shard.0)];
        let link = line.link.as_ref().ok_or(Refusal::Down(shard))?;
        if !line.has_room(lane) {
            return Err(Refusal::Busy(shard));
        }
        let (reply, receiver) = oneshot::channel();
        let token = self.pending.insert(Pending { reply, shard, lane, concern, target });
        if link.mailbox.send(lane, message(token)).is_err() {
            self.pending.remove(token);
            return Err(Refusal::Busy(shard));
        }
        *line.in_flight(lane) += 1;
        Ok(receiver)
    }

    fn post_bare(&mut self, shard: ShardId, message: ShardMessage) -> bool {
        let link = self.lines[usize::from(shard.0)].link.as_ref();
        link.is_some_and(|link| link.mailbox.send(Lane::Urgent, message).is_ok())
    }

    fn settle(&mut self, pending: &Pending) {
        *self.lines[usize::from(pending.shard.0)].in_flight(pending.lane) -= 1;
    }
}

impl Line {
    fn has_room(&self, lane: Lane) -> bool {
        match lane {
            Lane::Ordinary => self.ordinary < ORDINARY_IN_FLIGHT_MAX,
            Lane::Urgent => self.urgent < URGENT_IN_FLIGHT_MAX,
        }
    }

    fn in_flight(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Ordinary => &mut self.ordinary,
            Lane::Urgent => &mut self.urgent,
        }
    }
}

impl Pending {
    /// What is to be confirmed or discarded.
    pub fn concern(&self) -> Concern {
        self.concern
    }

    /// Hands the reply to whoever waits for it, if anybody still does.
    pub fn reply(self, reply: Reply) {
        // The receiver may have been dropped: commands sent only for their effect are not waited for.
        drop(self.reply.send(reply));
    }
}

/// What decides where a command is carried out.
fn named(command: &Command) -> Option<Target> {
    let connection = || command.connection().map(Target::Connection);
    command.conference().map(Target::Conference).or_else(connection)
}

/// The lane of a command: what takes something away or silences it is urgent.
pub fn lane(command: &Command) -> Lane {
    match command {
        Command::DeleteConnection { .. }
        | Command::DeleteConference { .. }
        | Command::DropPart { .. }
        | Command::VacateConference { .. }
        | Command::CedeRole { .. }
        | Command::LeaveConference { .. }
        | Command::StopRelay { .. }
        | Command::StopOperation { .. }
        | Command::SetParticipant { .. }
        | Command::AdjustPlay { .. }
        | Command::MuteRecording { .. } => Lane::Urgent,
        Command::CreateConnection { .. }
        | Command::ModifyConnection { .. }
        | Command::InspectConnection { .. }
        | Command::ListConnections { .. }
        | Command::StartRelay { .. }
        | Command::CreateConference { .. }
        | Command::CreatePart { .. }
        | Command::PromoteConference { .. }
        | Command::SendDigits { .. }
        | Command::JoinConference { .. }
        | Command::InspectConference { .. }
        | Command::ListConferences { .. }
        | Command::StartOperation { .. }
        | Command::ListOperations { .. } => Lane::Ordinary,
    }
}

/// Ordinary commands in flight to one shard.
pub const ORDINARY_IN_FLIGHT_MAX: usize = MAILBOX_MESSAGES_MAX;
/// Urgent commands in flight to one shard. The rest of the lane is for `Forget` and `Stop`, which have no answer.
pub const URGENT_IN_FLIGHT_MAX: usize = MAILBOX_URGENT_MAX - MAILBOX_URGENT_MAX / 8;

// Answers take at most half of an outbox, the rest is for events.
const _: () = assert!(ORDINARY_IN_FLIGHT_MAX + URGENT_IN_FLIGHT_MAX <= OUTBOX_REPORTS_MAX / 2);

/// Pending commands by token. A token is an index and a generation, so an answer that comes after its command was
/// given up finds nothing.
#[derive(Debug, Default)]
struct Slab {
    entries: Vec<(u32, Option<Pending>)>,
    free: Vec<u32>,
}

impl Slab {
    fn insert(&mut self, pending: Pending) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            u32::try_from(self.entries.len() - 1).expect("the budgets of 255 shards are far below 2^32")
        });
        let (generation, entry) = &mut self.entries[index as usize];
        *entry = Some(pending);
        (u64::from(*generation) << 32) | u64::from(index)
    }

    fn remove(&mut self, token: u64) -> Option<Pending> {
        let index = u32::try_from(token & 0xffff_ffff).ok()?;
        let (generation, entry) = self.entries.get_mut(index as usize)?;
        if u64::from(*generation) != token >> 32 {
            return None;
        }
        let pending = entry.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        Some(pending)
    }

    fn remove_where(&mut self, matches: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let tokens: Vec<u64> = (0u64..)
            .zip(&self.entries)
            .filter(|(_, (_, entry))| entry.as_ref().is_some_and(&matches))
            .map(|(index, (generation, _))| (u64::from(*generation) << 32) | index)
            .collect();
        tokens.into_iter().filter_map(|token| self.remove(token)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringbridge_shard::mailbox::{Doorbell, MailboxReader};

    use super::*;

    const SHARD: ShardId = ShardId(0);

    fn router() -> (Router, MailboxReader, Arc<Mailbox>) {
        let mut router = Router::new(1);
        let mailbox = Mailbox::new().expect("descriptors");
        let outbox = Outbox::new(Arc::new(Doorbell::new().expect("descriptors")));
        router.connect(SHARD, Arc::clone(&mailbox), outbox);
        (router, MailboxReader::new(Arc::clone(&mailbox)), mailbox)
    }

    fn inspect() -> Dispatch {
        let command = Command::InspectConnection { id: ConnectionId::new(SHARD, 1, 0) };
        Dispatch { shard: SHARD, command, received: Instant::ZERO, concern: Concern::Nothing }
    }

    fn delete() -> Dispatch {
        Dispatch { command: Command::DeleteConnection { id: ConnectionId::new(SHARD, 1, 0) }, ..inspect() }
    }

    fn token(message: ShardMessage) -> u64 {
        let ShardMessage::Command(request) = message else { panic!("no command: {message:?}") };
        request.token
    }

    #[test]
    fn a_full_lane_refuses_at_once_and_the_urgent_one_still_has_room() {
        let (mut router, mut reader, _mailbox) = router();
        let waiting: Vec<_> = (0..ORDINARY_IN_FLIGHT_MAX).map(|_| router.send(inspect()).expect("room")).collect();
        assert_eq!(router.send(inspect()).expect_err("full"), Refusal::Busy(SHARD));
        router.send(delete()).expect("the urgent lane has room");
        // Taking a message from the mailbox frees nothing; answering it does.
        let first = token(reader.pop().expect("sent"));
        assert_eq!(router.send(inspect()).expect_err("still full"), Refusal::Busy(SHARD));
        router.take(first).expect("pending").reply(Reply::Answer(Ok(Answer::Done)));
        router.send(inspect()).expect("room again");
        drop(waiting);
    }

    #[test]
    fn a_token_is_good_for_one_answer() {
        let (mut router, mut reader, _mailbox) = router();
        let mut receiver = router.send(inspect()).expect("room");
        let first = token(reader.pop().expect("sent"));
        router.take(first).expect("pending").reply(Reply::Answer(Ok(Answer::Done)));
        assert!(matches!(receiver.try_recv(), Ok(Reply::Answer(Ok(Answer::Done)))));
        assert!(router.take(first).is_none());
        let _other = router.send(inspect()).expect("room");
        assert_ne!(token(reader.pop().expect("sent")), first);
        assert!(router.take(first).is_none());
        assert_eq!(router.in_flight(), 1);
    }

    #[test]
    fn whoever_waits_for_a_failed_shard_is_told() {
        let (mut router, _reader, _mailbox) = router();
        let concern = Concern::Connection(ConnectionId::new(SHARD, 5, 0));
        let mut receiver = router.send(Dispatch { concern, ..inspect() }).expect("room");
        assert_eq!(router.disconnect(SHARD), [concern]);
        assert!(matches!(receiver.try_recv(), Ok(Reply::ShardFailed(SHARD))));
        assert_eq!(router.send(inspect()).expect_err("down"), Refusal::Down(SHARD));
        assert_eq!(router.in_flight(), 0);
    }

    #[test]
    fn a_command_that_may_have_been_forwarded_to_a_failed_shard_is_answered() {
        let (mut router, _reader, _mailbox) = router();
        let mut lost = router.send(delete()).expect("room");
        let other = ConnectionId::new(SHARD, 2, 0);
        let command = Command::InspectConnection { id: other };
        let mut kept = router.send(Dispatch { command, ..inspect() }).expect("room");
        let gone = Target::Connection(ConnectionId::new(SHARD, 1, 0));
        assert_eq!(router.give_up(ShardId(1), |target| target == gone), [Concern::Nothing]);
        assert!(matches!(lost.try_recv(), Ok(Reply::ShardFailed(ShardId(1)))));
        assert!(kept.try_recv().is_err());
        assert_eq!(router.in_flight(), 1);
    }

    #[test]
    fn forgets_wait_for_room() {
        let (mut router, mut reader, mailbox) = router();
        let id = ConnectionId::new(SHARD, 1, 0);
        while mailbox.send(Lane::Urgent, ShardMessage::Stop).is_ok() {}
        router.forget(SHARD, Target::Connection(id));
        assert_eq!(router.forgets.len(), 1);
        assert!(matches!(reader.pop(), Some(ShardMessage::Stop)));
        router.flush_forgets();
        assert!(router.forgets.is_empty());
    }
}
