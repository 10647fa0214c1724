//! Datagrams on their way out, from the submission that carries them to the look at what became of them.

use std::mem;

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};
use ringbridge_media::port::{Disposition, Transmit};

use super::address::{self, RawAddress};
use super::tag::Tag;
use super::{Memory, Ring};
use crate::buffer::{BufferRing, Received, SendSlots, Slot};

/// The memory a datagram leaves from. Nobody else can touch it while it is kept here.
#[derive(Debug)]
pub(super) enum Held {
    /// The buffer it came in.
    Received(Received),
    /// A slot of our own.
    Slot(Slot),
}

impl Held {
    /// Gives the memory back to where it belongs.
    pub(super) fn release(self, received: &mut BufferRing, slots: &mut SendSlots) {
        match self {
            Self::Received(buffer) => received.give_back(buffer),
            Self::Slot(slot) => slots.release(slot),
        }
    }

    /// Where the memory begins.
    pub(super) fn address(&self, received: &BufferRing, slots: &SendSlots) -> *const u8 {
        match self {
            Self::Received(buffer) => received.address(buffer),
            Self::Slot(slot) => slots.address(slot),
        }
    }
}

/// One datagram handed, or about to be handed, to the kernel.
pub(super) struct Outgoing {
    /// Keeps its memory.
    pub(super) held: Held,
    /// The port it leaves by.
    pub(super) port: u32,
    /// Which user of the port sent it.
    pub(super) generation: u32,
    /// Where in its memory it begins.
    pub(super) offset: u32,
    /// Its length.
    pub(super) len: u32,
    /// Where it goes; none on a connected port.
    pub(super) target: RawAddress,
    /// Tried before.
    pub(super) resent: bool,
}

/// What to do about a send that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// It met an ICMP error that an earlier datagram had caused; the error is gone now, so try again.
    Pending,
    /// The socket's send buffer, or the queue behind it, is full.
    BufferFull,
    /// The kernel does not want to send this.
    Refused,
}

impl Failure {
    /// Sorts an errno of send(2). A socket reports an ICMP error (the list is the kernel's `icmp_err_convert`) once,
    /// at the next call, whatever that call is about.
    pub(super) fn classify(errno: i32) -> Self {
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Self::BufferFull,
            errno if is_pending_error(errno) => Self::Pending,
            _ => Self::Refused,
        }
    }
}

/// Whether `errno` is what an ICMP message turns into.
pub(super) fn is_pending_error(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EPROTO
            | libc::EMSGSIZE
    )
}

impl Ring {
    /// Does with a datagram of `len` bytes at `offset` what the engine wishes.
    pub(super) fn dispose(&mut self, disposition: Disposition, held: Held, offset: usize, len: usize) {
        match disposition {
            Disposition::Forward(transmit) => {
                assert!(transmit.len <= len, "a datagram does not grow when it is forwarded");
                self.queue(transmit, held, offset);
            }
            Disposition::Consumed => self.release(held),
        }
    }

    /// Queues a send of `transmit.len` bytes at `offset` of `held`.
    pub(super) fn queue(&mut self, transmit: Transmit, held: Held, offset: usize) {
        let index = transmit.port.index();
        let Some(state) = self.ports.get(index as usize).filter(|state| state.socket.is_some()) else {
            self.report(index, Failure::Refused);
            self.release(held);
            return;
        };
        let target = transmit
            .target
            .map_or(RawAddress::NONE, |target| RawAddress::new(address::for_socket(target, state.is_v6)));
        let generation = state.generation;
        #[expect(clippy::cast_possible_truncation, reason = "both lie within a buffer, whose size has 32 bits")]
        let (offset, len) = (offset as u32, transmit.len as u32);
        self.queue_outgoing(Outgoing { held, port: index, generation, offset, len, target, resent: false });
    }

    /// Queues `outgoing`; submits first if there is no room.
    pub(super) fn queue_outgoing(&mut self, outgoing: Outgoing) {
        // Sends are settled only when the queue is empty, so they may outnumber what is in it after a partial submit.
        let is_full = self.uring.submission().is_full() || self.outgoing.len() == self.memory.targets.len();
        if is_full && !self.submit() {
            self.release(outgoing.held);
            return;
        }
        let position = self.outgoing.len();
        let Memory { received, slots, targets, .. } = &mut *self.memory;
        targets[position] = outgoing.target;
        let bytes = outgoing.held.address(received, slots).wrapping_add(outgoing.offset as usize);
        #[expect(clippy::cast_possible_truncation, reason = "a position is below the entries of the submission queue")]
        let tag = Tag::send(position as u32);
        let entry = opcode::Send::new(Fixed(outgoing.port), bytes, outgoing.len)
            .flags(libc::MSG_DONTWAIT)
            .dest_addr(targets[position].as_ptr())
            .dest_addr_len(targets[position].len())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(tag.to_bits());
        // SAFETY: the bytes belong to the token in `outgoing.held`, and the address to this position of `targets`;
        // both stay as they are until the submission queue has been seen empty after an enter. By then the kernel is
        // done with them: with MSG_DONTWAIT a send is finished or failed within the enter that submits it.
        if unsafe { self.push(&entry) } {
            self.outgoing.push(outgoing);
        } else {
            self.release(outgoing.held);
        }
    }

    /// Gives memory back to where it belongs.
    pub(super) fn release(&mut self, held: Held) {
        let Memory { received, slots, .. } = &mut *self.memory;
        held.release(received, slots);
    }

    /// Counts a packet that did not leave by port `index`.
    pub(super) fn report(&mut self, index: u32, failure: Failure) {
        let Some(state) = self.ports.get_mut(index as usize) else { return };
        match failure {
            Failure::BufferFull => state.buffer_full += 1,
            Failure::Pending | Failure::Refused => state.refused += 1,
        }
        if !state.reporting {
            state.reporting = true;
            self.reporting.push_back(index);
        }
    }

    /// If every send has been handed over, judges the failed ones and releases the memory of the others. Says whether
    /// some are to be sent again.
    pub(super) fn settle_sends(&mut self) -> bool {
        if !self.uring.submission().is_empty() {
            return false;
        }
        mem::swap(&mut self.outgoing, &mut self.settling);
        let mut resending = false;
        // Failures are posted in the order of submission, but nothing here depends on it.
        self.failed.sort_unstable();
        let mut failed = mem::take(&mut self.failed);
        let mut settling = mem::take(&mut self.settling);
        let mut failures = failed.drain(..).peekable();
        for (position, mut outgoing) in settling.drain(..).enumerate() {
            let Some((_, errno)) = failures.next_if(|(failed, _)| *failed == position) else {
                self.counters.sent += 1;
                self.release(outgoing.held);
                continue;
            };
            let failure = Failure::classify(errno);
            let is_current =
                self.ports.get(outgoing.port as usize).is_some_and(|state| state.generation == outgoing.generation);
            if failure == Failure::Pending && !outgoing.resent && is_current {
                outgoing.resent = true;
                self.counters.resends += 1;
                self.queue_outgoing(outgoing);
                resending = true;
            } else {
                if is_current {
                    self.report(outgoing.port, failure);
                }
                self.release(outgoing.held);
            }
        }
        drop(failures);
        // The emptied vectors keep their room.
        self.failed = failed;
        self.settling = settling;
        resending
    }

    /// A slot to build a packet in; submits if all are on their way out.
    pub(super) fn take_slot(&mut self) -> Option<Slot> {
        if let Some(slot) = self.memory.slots.take() {
            return Some(slot);
        }
        if self.submit() { self.memory.slots.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted() {
        for (errno, failure) in [
            (libc::ECONNREFUSED, Failure::Pending),
            (libc::EHOSTUNREACH, Failure::Pending),
            (libc::EAGAIN, Failure::BufferFull),
            (libc::ENOBUFS, Failure::BufferFull),
            (libc::EACCES, Failure::Refused),
            (libc::EDESTADDRREQ, Failure::Refused),
            (libc::EBADF, Failure::Refused),
        ] {
            assert_eq!(Failure::classify(errno), failure, "errno {errno}");
        }
    }
}
