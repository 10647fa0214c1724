//! What the parts of a conference have to be told, whoever waits for it or not.

use ringbridge_media::command::Command;
use ringbridge_media::id::{ConferenceId, ShardId};

use super::Server;
use crate::registry::LostParts;

impl Server {
    /// Ends the conferences in parts whose last party has left.
    pub(super) fn end_vacated(&self) {
        let vacated = self.registry.borrow_mut().take_vacated();
        for (id, shards) in vacated {
            for shard in shards {
                self.vacate(shard, id);
            }
        }
        // What found its shard busy.
        for (shard, id) in std::mem::take(&mut *self.vacating.borrow_mut()) {
            self.vacate(shard, id);
        }
    }

    /// Ends one part of a conference; whoever is in it stays as a connection.
    pub(crate) fn vacate(&self, shard: ShardId, id: ConferenceId) {
        let sent = self.send(shard, Command::VacateConference { id }, self.now());
        if sent.is_err() && self.router.borrow().is_up(shard) {
            self.vacating.borrow_mut().push((shard, id));
        }
    }

    /// Tells the rest of conferences of which a shard had a part that it is gone.
    pub(super) fn mourn(&self, shard: ShardId, lost: LostParts) {
        for (other, id) in lost.orphans {
            self.vacate(other, id);
        }
        for (conference, others) in lost.bereft {
            for other in others {
                // Without it nothing is lost but that a part which never comes is counted as late.
                self.send_unasked(other, Command::DropPart { conference, shard });
            }
        }
    }
}
