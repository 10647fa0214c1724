//! Checks of the whole: now and then, and when the storm is over.

use std::time::Duration;

use ringbridge_media::command::Command;

use super::World;

impl World {
    pub(super) fn clear_up(&mut self) {
        for id in self.ledger.conferences.iter().copied().collect::<Vec<_>>() {
            let keep_connections = self.dice.one_in(2);
            assert!(self.command(Command::DeleteConference { id, keep_connections }));
        }
        for id in self.ledger.connections.iter().copied().collect::<Vec<_>>() {
            assert!(self.command(Command::DeleteConnection { id }));
        }
        self.check();
        assert!(self.ledger.connections.is_empty() && self.ledger.conferences.is_empty());
        assert!(self.ledger.operations.is_empty(), "never ended: {:?}", self.ledger.operations);
        // Deadlines that nobody waits for pass, and there are no others.
        self.now = self.now + Duration::from_secs(10);
        self.exchange();
        self.report.exchanged = self.exchange.arrived;
        for shard in &mut self.shards {
            while shard.engine.poll_timeout().is_some_and(|due| due <= self.now) {
                shard.engine.handle_timeout(self.now);
            }
            assert_eq!(shard.engine.poll_timeout(), None);
            assert_eq!(shard.engine.events_waiting(), 0);
            assert!(shard.engine.poll_port_action().is_none());
            assert!(shard.engine.poll_partial().is_none());
            assert!(shard.slots.is_empty());
        }
    }

    /// What the engines say of themselves is what has been seen of them.
    pub(super) fn check(&mut self) {
        let (mut connections, mut conferences, mut operations) = (0, 0, 0);
        for shard in &self.shards {
            let totals = shard.engine.totals();
            assert_eq!(totals.connections, shard.slots.len() as u64);
            assert_eq!(totals.packets_out, shard.packets_out, "packets that left");
            connections += totals.connections;
            conferences += totals.conferences;
            operations += totals.operations;
        }
        assert!(self.ledger.reserved.values().all(|until| until.ceil_to_millis() > self.now), "reserved for too long");
        assert_eq!(connections, self.ledger.connections.len() as u64);
        assert_eq!(conferences, self.ledger.conferences.len() as u64);
        assert_eq!(operations, self.ledger.operations.len() as u64);
    }
}
