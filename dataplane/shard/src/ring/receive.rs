//! Multishot receives: armed, delivered, ended, armed again; and the reading out of sockets by direct calls.

use std::io;
use std::mem;
use std::net::SocketAddr;

use io_uring::types::Fixed;
use io_uring::{EnterFlags, opcode, squeue};
use ringbridge_media::port::{DatagramMeta, Disposition, Port};
use rustix::net::RecvFlags;

use super::address::{self, ADDRESS_BYTES_MAX};
use super::port::Receiving;
use super::send::{self, Held};
use super::tag::{Shape, Tag};
use super::{GROUP, Ring, STOP_ATTEMPTS};
use crate::buffer::Received;

/// A completion of a receive.
pub(super) struct Arrival {
    pub(super) tag: Tag,
    pub(super) shape: Shape,
    pub(super) result: i32,
    pub(super) buffer: Option<Received>,
    pub(super) more: bool,
}

/// Why a multishot receive has ended.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// It gave an empty datagram last.
    Empty,
    /// This errno; zero if there was none.
    Error(i32),
}

/// A datagram that came in a provided buffer.
struct Placed {
    offset: usize,
    len: usize,
    source: Option<SocketAddr>,
    truncated: bool,
}

impl Ring {
    /// Puts a multishot receive of `index` on its way to the kernel.
    pub(super) fn arm(&mut self, index: u32, shape: Shape) {
        let state = &mut self.ports[index as usize];
        state.receiving = Receiving::Armed(shape);
        state.ended = false;
        state.former = None;
        let tag = Tag::receive(shape, index, state.generation);
        let entry = match shape {
            Shape::Sourced => {
                opcode::RecvMsgMulti::new(Fixed(index), self.memory.header.get().cast_const(), GROUP).build()
            }
            Shape::Plain => opcode::RecvMulti::new(Fixed(index), GROUP).build(),
        };
        // SAFETY: the header and the provided buffers live in `memory` until every receive has ended.
        if unsafe { self.push(&entry.user_data(tag.to_bits())) } {
            self.operations += 1;
        }
    }

    /// Cancels the receive of `index`, which stays `Stopping` until its final completion is delivered.
    pub(super) fn stop(&mut self, index: u32, shape: Shape) {
        let state = &mut self.ports[index as usize];
        state.receiving = Receiving::Stopping(shape);
        if state.ended {
            return;
        }
        let tag = Tag::receive(shape, index, state.generation);
        let entry = opcode::AsyncCancel::new(tag.to_bits())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag::CANCEL.to_bits());
        // SAFETY: a cancellation names no memory.
        unsafe { self.push(&entry) };
    }

    /// Stops a plain receive and waits until the kernel has let go of it, which takes one enter as a rule. Says
    /// whether there was one.
    pub(super) fn stop_plain(&mut self, index: u32) -> io::Result<bool> {
        let state = self.open_state(index)?;
        match state.receiving {
            Receiving::Armed(Shape::Plain) => self.stop(index, Shape::Plain),
            Receiving::Stopping(Shape::Plain) if !state.ended => {}
            Receiving::Stopping(Shape::Plain)
            | Receiving::Vacant
            | Receiving::Armed(Shape::Sourced)
            | Receiving::Stopping(Shape::Sourced)
            | Receiving::Starved(_)
            | Receiving::Draining
            | Receiving::Finished => return Ok(false),
        }
        // Each enter runs some twenty pieces of deferred work, of which a port has one at most.
        for _ in 0..self.ports.len() / 16 + STOP_ATTEMPTS {
            if self.ports[index as usize].ended {
                return Ok(true);
            }
            self.check_broken()?;
            self.enter(0, EnterFlags::GETEVENTS, None)?;
            self.settle()?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Has `index`, of which the kernel holds no receive, read by direct calls until its queue is empty.
    pub(super) fn start_drain(&mut self, index: u32) {
        self.ports[index as usize].receiving = Receiving::Draining;
        self.draining.push_back(index);
    }

    /// The final completion of the receive of `index` has been delivered: what comes next?
    pub(super) fn receive_ended(&mut self, index: u32, end: End) {
        let state = &mut self.ports[index as usize];
        if state.closing {
            self.mark_finished(index);
            return;
        }
        match state.receiving {
            Receiving::Stopping(_) if state.remote.is_some() => self.start_drain(index),
            Receiving::Stopping(_) => self.arm(index, Shape::Sourced),
            Receiving::Armed(shape) => {
                self.counters.rearms += 1;
                match end {
                    // An empty datagram ends a multishot receive. Direct calls take any number of them, so that
                    // somebody who sends nothing else cannot hold up what is queued behind.
                    End::Empty => self.start_drain(index),
                    // A completion queue that was full, or an ICMP error: over by now.
                    End::Error(0) => self.arm(index, shape),
                    End::Error(errno) if send::is_pending_error(errno) => self.arm(index, shape),
                    End::Error(errno) => {
                        if errno == libc::ENOBUFS {
                            self.counters.buffers_exhausted += 1;
                        }
                        state.receiving = Receiving::Starved(shape);
                        self.starved.push(index);
                    }
                }
            }
            Receiving::Vacant | Receiving::Starved(_) | Receiving::Draining | Receiving::Finished => {
                debug_assert!(false, "a port has one receive at a time");
            }
        }
    }

    /// Arms the receives that ran out of buffers, provided a fair part of the buffers is back.
    pub(super) fn feed_starved(&mut self) -> io::Result<()> {
        if self.starved.is_empty() {
            return Ok(());
        }
        // What is being forwarded comes back first.
        self.enter(0, EnterFlags::empty(), None)?;
        self.settle()?;
        let received = &self.memory.received;
        if received.held() > received.available() {
            return Ok(());
        }
        let mut starved = mem::take(&mut self.starved);
        for index in starved.drain(..) {
            if let Receiving::Starved(shape) = self.ports[index as usize].receiving {
                self.arm(index, shape);
            }
        }
        // Arming adds none, and the emptied vector keeps its room.
        self.starved = starved;
        Ok(())
    }

    /// Delivers one completion; returns how many datagrams that were.
    pub(super) fn deliver<F>(&mut self, arrival: Arrival, handle: &mut F) -> usize
    where
        F: FnMut(&DatagramMeta, &mut [u8]) -> Disposition,
    {
        let Arrival { tag, shape, result, buffer, more } = arrival;
        let Some(state) = self.ports.get(tag.index()).filter(|state| {
            tag.is_of(state.generation) && !matches!(state.receiving, Receiving::Vacant | Receiving::Finished)
        }) else {
            if let Some(buffer) = buffer {
                self.memory.received.give_back(buffer);
            }
            return 0;
        };
        let former = state.former;
        #[expect(clippy::cast_possible_truncation, reason = "a tag's index has 32 bits")]
        let index = tag.index() as u32;
        let port = Port::from_index(index);
        let mut is_empty = false;
        let delivered = match buffer {
            Some(mut buffer) => {
                let bytes = self.memory.received.bytes_mut(&mut buffer);
                match place(shape, bytes, result) {
                    Some(Placed { offset, len, source, truncated }) => {
                        is_empty = len == 0;
                        let meta = DatagramMeta { port, source: source.or(former), truncated };
                        let disposition = handle(&meta, &mut bytes[offset..offset + len]);
                        self.dispose(disposition, Held::Received(buffer), offset, len);
                        1
                    }
                    None => {
                        self.memory.received.give_back(buffer);
                        0
                    }
                }
            }
            // An empty datagram ends a plain receive without a buffer.
            None if result == 0 => {
                let meta = DatagramMeta { port, source: former, truncated: false };
                is_empty = true;
                // There are no bytes to forward; whatever is wished of them, nothing leaves.
                handle(&meta, &mut []);
                1
            }
            None => 0,
        };
        if !more {
            self.receive_ended(index, if is_empty { End::Empty } else { End::Error(-result.min(0)) });
        }
        delivered
    }

    /// Reads what is queued in the sockets that are drained, at most `quota` datagrams.
    pub(super) fn drain<F>(&mut self, quota: usize, handle: &mut F) -> usize
    where
        F: FnMut(&DatagramMeta, &mut [u8]) -> Disposition,
    {
        let mut delivered = 0;
        // A call may also only clear a pending error, hence the second bound.
        for _ in 0..2 * quota {
            if delivered == quota {
                break;
            }
            let Some(&index) = self.draining.front() else { break };
            let state = &self.ports[index as usize];
            let Some(socket) = &state.socket else {
                self.draining.pop_front();
                continue;
            };
            let shape = if state.remote.is_some() { Shape::Plain } else { Shape::Sourced };
            let Some(mut slot) = self.memory.slots.take() else {
                if self.submit() {
                    continue;
                }
                break;
            };
            self.counters.syscalls += 1;
            let bytes = self.memory.slots.bytes_mut(&mut slot);
            let capacity = bytes.len();
            match rustix::net::recvfrom(socket, &mut *bytes, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((len, full_len, source)) => {
                    let source = source.and_then(|any| SocketAddr::try_from(any).ok()).map(address::canonical);
                    let meta = DatagramMeta { port: Port::from_index(index), source, truncated: full_len >= capacity };
                    let disposition = handle(&meta, &mut bytes[..len]);
                    self.dispose(disposition, Held::Slot(slot), 0, len);
                    delivered += 1;
                }
                Err(error) => {
                    self.memory.slots.release(slot);
                    if error == rustix::io::Errno::AGAIN {
                        self.draining.pop_front();
                        self.arm(index, shape);
                    }
                }
            }
        }
        // The next call begins with another port.
        if delivered == quota && self.draining.len() > 1 {
            self.draining.rotate_left(1);
        }
        delivered
    }
}

/// Where in its buffer a received datagram lies. `None` if it is not what the kernel should have written.
fn place(shape: Shape, bytes: &[u8], result: i32) -> Option<Placed> {
    let written = usize::try_from(result).ok().filter(|written| *written <= bytes.len())?;
    match shape {
        Shape::Plain => Some(Placed { offset: 0, len: written, source: None, truncated: written == bytes.len() }),
        Shape::Sourced => {
            // struct io_uring_recvmsg_out { namelen, controllen, payloadlen, flags }, the address, the payload.
            let name_bytes = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
            let name = bytes.get(HEADER_BYTES..HEADER_BYTES + name_bytes.min(ADDRESS_BYTES_MAX))?;
            let len = written.checked_sub(PAYLOAD_OFFSET)?;
            let source = address::parse(name)?;
            Some(Placed { offset: PAYLOAD_OFFSET, len, source: Some(source), truncated: written == bytes.len() })
        }
    }
}

/// `struct io_uring_recvmsg_out`.
const HEADER_BYTES: usize = 16;
/// Where the payload of a sourced receive begins.
const PAYLOAD_OFFSET: usize = HEADER_BYTES + ADDRESS_BYTES_MAX;
