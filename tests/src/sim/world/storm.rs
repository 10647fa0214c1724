//! Commands, one after the other, of all kinds, and for all that there is or ever was.

use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ConnectionSpec, DigitSource, Direction, ParticipantChange,
    ParticipantSpec, Rate, Role, Target,
};
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};

use super::{GUEST_SLOTS, SHARDS, World};
use crate::sim::dice::Dice;
use crate::sim::phone::{Phone, Voice};

const CONNECTIONS_MAX: usize = 14;
const CONFERENCES_MAX: usize = 4;

impl World {
    pub(super) fn storm(&mut self) {
        match self.dice.below(33) {
            0..5 => self.create_connection(),
            5 | 6 => self.create_conference(),
            7..12 => {
                let (conference, connection) = (self.any_conference(), self.any_connection());
                let participant = ParticipantSpec {
                    muted: self.dice.one_in(5),
                    deaf: self.dice.one_in(5),
                    gain_db: self.gain(),
                    output_gain_db: if self.dice.one_in(5) { self.gain() } else { 0 },
                    agc: self.dice.one_in(5),
                    noise_suppression: self.dice.one_in(20),
                    role: self.role(),
                    tariff_tone: self.dice.one_in(5),
                };
                let shard = self.place_of(connection).map(|(shard, _)| shard);
                let joined = self.command(Command::JoinConference { conference, connection, participant });
                if let Some(shard) = shard.filter(|_| joined) {
                    self.cede(conference, participant.role, shard);
                }
            }
            12 | 13 => {
                let (conference, connection) = (self.any_conference(), self.any_connection());
                let change = ParticipantChange {
                    muted: self.dice.one_in(2).then(|| self.dice.one_in(2)),
                    deaf: self.dice.one_in(2).then(|| self.dice.one_in(3)),
                    gain_db: self.dice.one_in(2).then(|| self.gain()),
                    role: self.dice.one_in(3).then(|| self.role()),
                    tariff_tone: self.dice.one_in(4).then(|| self.dice.one_in(2)),
                    ..ParticipantChange::default()
                };
                let shard = self.place_of(connection).map(|(shard, _)| shard);
                let changed = self.command(Command::SetParticipant { conference, connection, change });
                if let (Some(role), Some(shard)) = (change.role, shard.filter(|_| changed)) {
                    self.cede(conference, role, shard);
                }
            }
            14 => {
                let (conference, connection) = (self.any_conference(), self.any_connection());
                self.command(Command::LeaveConference { conference, connection });
            }
            15 => {
                let id = self.any_connection();
                self.command(Command::DeleteConnection { id });
            }
            16 if self.dice.one_in(3) => {
                let (id, keep_connections) = (self.any_conference(), self.dice.one_in(2));
                self.command(Command::DeleteConference { id, keep_connections });
            }
            17 => {
                let (a, b) = (self.any_connection(), self.any_connection());
                let transcode = self.dice.one_in(2);
                self.command(Command::StartRelay { a, b, transcode });
            }
            18 if self.dice.one_in(2) => {
                let a = self.any_connection();
                self.command(Command::StopRelay { a });
            }
            19 | 20 | 24 | 25 => self.start_operation(),
            21 => self.stop_operation(),
            26 => {
                let digits = self.digits(6);
                let target = self.any_target();
                self.command(Command::SendDigits { target, digits });
            }
            27 => self.adjust(),
            22 => self.modify(),
            23 => self.complete(),
            28 => {
                let id = self.any_conference();
                self.command(Command::PromoteConference { id });
            }
            29 | 30 => {
                let id = self.any_conference();
                self.command(Command::InspectConference { id });
            }
            _ if self.dice.one_in(4) => self.disturb_parts(),
            _ => self.relocate(),
        }
    }

    fn create_connection(&mut self) {
        if self.phones.len() >= CONNECTIONS_MAX {
            return;
        }
        let shard = self.dice.below(u64::from(SHARDS));
        let shard = u8::try_from(shard).expect("a shard");
        let slots = &self.shards[usize::from(shard)].slots;
        let slot = (0..GUEST_SLOTS).find(|slot| !slots.contains_key(slot)).expect("a free slot");
        self.generation += 1;
        let id = ConnectionId::new(ShardId(shard), slot, self.generation);
        let address = SocketAddr::from(([10, shard, 0, u8::try_from(slot).expect("few")], 4_000));
        let mut codec = *self.dice.pick(&[CodecKind::Pcmu, CodecKind::Pcma]);
        let l16 = CodecKind::L16(*self.dice.pick(&Rate::ALL));
        let mut tx_codec = *self.dice.pick(&[CodecKind::Pcmu, CodecKind::Pcmu, CodecKind::Pcma, l16]);
        let mut ptime_ms = *self.dice.pick(&[10, 20, 20, 30, 40]);
        if self.dice.one_in(4) {
            // Nobody can tell what is in it.
            (codec, tx_codec, ptime_ms) = (CodecKind::G729, CodecKind::G729, 20);
        }
        let reserve_ms = self.dice.one_in(4).then(|| 1 + u32::try_from(self.dice.below(1_500)).expect("small"));
        let spec = ConnectionSpec {
            // An address is always given before anybody is learned: without one it may be the stranger.
            remote: reserve_ms.is_none().then_some(address),
            reserve_ms,
            rx_codec: codec,
            rx_payload_type: codec.payload_type(),
            tx_codec,
            tx_payload_type: tx_codec.payload_type(),
            ptime_ms,
            digit_source: *self.dice.pick(&[DigitSource::Events, DigitSource::Events, DigitSource::Auto]),
            rtp_timeout_ms: self.dice.one_in(2).then(|| 50 + u32::try_from(self.dice.below(2_000)).expect("small")),
            ..ConnectionSpec::default()
        };
        let word = self.dice.next().to_le_bytes();
        let voice = Voice {
            ssrc: u32::from_le_bytes([word[0], word[1], word[2], word[3]]),
            sequence: u16::from_le_bytes([word[4], word[5]]),
            timestamp: u32::from_le_bytes([word[6], word[7], 0xff, 0xff]),
            drift_ppm: *self.dice.pick(&[-200, -50, 0, 50, 200]),
            tone: (0..)
                .find(|tone| self.phones.values().all(|phone| phone.tone != *tone))
                .expect("more tones than phones"),
        };
        self.connections.push(id);
        self.ledger.connections.insert(id);
        if let Some(ms) = reserve_ms {
            let until = self.now + Duration::from_millis(u64::from(ms));
            self.ledger.reserved.insert(id, until);
        }
        let next_at = self.now + Duration::from_micros(self.dice.below(300_000));
        self.phones.insert(id, Phone::new(id, address, codec, spec.ptime_ms, next_at, voice));
        assert!(self.command(Command::CreateConnection { id, spec: Box::new(spec) }));
    }

    fn create_conference(&mut self) {
        if self.ledger.conferences.len() >= CONFERENCES_MAX {
            return;
        }
        self.generation += 1;
        let shard = ShardId(u8::try_from(self.dice.below(u64::from(SHARDS))).expect("a shard"));
        let used: Vec<_> =
            self.ledger.conferences.iter().filter(|id| id.shard() == shard).map(|id| id.slot()).collect();
        let slot = (0..8u32).find(|slot| !used.contains(&(*slot as usize))).expect("a free slot");
        let id = ConferenceId::new(shard, slot, self.generation);
        self.conferences.push(id);
        self.ledger.conferences.insert(id);
        let (hairpin, tones) = (self.dice.one_in(3), self.dice.one_in(2));
        let participants_max = 1 + u32::try_from(self.dice.below(8)).expect("small");
        let rate = *self.dice.pick(&Rate::ALL);
        let loudest = self.dice.one_in(4).then(|| 1 + u16::try_from(self.dice.below(3)).expect("small"));
        let spec = ConferenceSpec { participants_max, hairpin, tones, rate, loudest, ..ConferenceSpec::default() };
        if !hairpin && self.dice.one_in(2) {
            self.create_parts(id, spec);
            return;
        }
        assert!(self.command(Command::CreateConference { id, spec }));
    }

    fn modify(&mut self) {
        let id = self.any_connection();
        let codec = |dice: &mut Dice| {
            *dice.pick(&[(CodecKind::Pcmu, 0), (CodecKind::Pcma, 8), (CodecKind::Pcma, 8), (CodecKind::G729, 18)])
        };
        let change = ConnectionChange {
            tx_codec: self.dice.one_in(2).then(|| codec(&mut self.dice)),
            ptime_ms: self.dice.one_in(3).then(|| *self.dice.pick(&[10, 20, 25, 30, 40, 0])),
            direction: self.dice.one_in(2).then(|| {
                *self.dice.pick(&[Direction::SendRecv, Direction::SendRecv, Direction::RecvOnly, Direction::SendOnly])
            }),
            rtp_timeout_ms: self.dice.one_in(3).then(|| self.dice.one_in(2).then_some(700)),
            digit_source: self.dice.one_in(3).then(|| *self.dice.pick(&[DigitSource::Events, DigitSource::Auto])),
            // The address that the phone has by now.
            remote: self.dice.one_in(3).then(|| self.phones.get(&id).map(|phone| phone.address)).flatten(),
            ..ConnectionChange::default()
        };
        let completes = change.remote.is_some();
        if self.command(Command::ModifyConnection { id, change: Box::new(change) }) && completes {
            self.ledger.reserved.remove(&id);
        }
    }

    /// Gives a remote address to one that waits for it.
    fn complete(&mut self) {
        let Some((&id, _)) = self.ledger.reserved.first_key_value() else { return };
        let change = ConnectionChange { remote: Some(self.phones[&id].address), ..ConnectionChange::default() };
        assert!(self.command(Command::ModifyConnection { id, change: Box::new(change) }));
        self.ledger.reserved.remove(&id);
    }

    /// Whether a command has to be refused as a connection is reserved only.
    pub(super) fn needs_remote(&self, command: &Command) -> bool {
        let needed = matches!(
            command,
            Command::StartRelay { .. }
                | Command::JoinConference { .. }
                | Command::StartOperation { .. }
                | Command::StopOperation { .. }
        );
        let peer = if let Command::StartRelay { b, .. } = command { Some(*b) } else { None };
        let mut ids = command.connection().into_iter().chain(peer);
        needed && ids.any(|id| self.ledger.reserved.contains_key(&id))
    }

    pub(super) fn any_target(&mut self) -> Target {
        if self.dice.one_in(2) {
            Target::Connection(self.any_connection())
        } else {
            Target::Conference(self.any_conference())
        }
    }

    fn any_connection(&mut self) -> ConnectionId {
        let live: Vec<_> = self.ledger.connections.iter().copied().collect();
        if live.is_empty() || self.dice.one_in(10) {
            self.generation += 1;
            let stranger = ConnectionId::new(ShardId(1), 3, self.generation);
            return if self.connections.is_empty() { stranger } else { *self.dice.pick(&self.connections) };
        }
        *self.dice.pick(&live)
    }

    fn any_conference(&mut self) -> ConferenceId {
        let live: Vec<_> = self.ledger.conferences.iter().copied().collect();
        if live.is_empty() || self.dice.one_in(10) {
            let stranger = ConferenceId::new(ShardId(1), 3, 0);
            return if self.conferences.is_empty() { stranger } else { *self.dice.pick(&self.conferences) };
        }
        *self.dice.pick(&live)
    }

    fn role(&mut self) -> Role {
        *self.dice.pick(&[Role::Party, Role::Party, Role::Party, Role::Monitor, Role::Coach, Role::Pupil])
    }

    fn gain(&mut self) -> i16 {
        *self.dice.pick(&[-3, 0, 0, 3])
    }
}
