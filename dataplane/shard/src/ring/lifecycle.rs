//! Ports come, are connected and disconnected, and go.

use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use ringbridge_media::port::Port;

use super::port::{PortState, Receiving};
use super::tag::Shape;
use super::{Ring, address};

impl Ring {
    pub(super) fn try_open(&mut self, port: Port, socket: UdpSocket) -> io::Result<()> {
        let index = port.index();
        let state = self.ports.get_mut(index as usize).ok_or(io::ErrorKind::InvalidInput)?;
        if state.receiving != Receiving::Vacant {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let is_v6 = socket.local_addr()?.is_ipv6();
        let drops = kernel_drops(&socket)?;
        self.counters.syscalls += 2;
        self.uring.submitter().register_files_update(index, &[socket.as_raw_fd()])?;
        *state = PortState {
            socket: Some(socket),
            generation: state.generation.wrapping_add(1),
            is_v6,
            kernel_drops: drops,
            reporting: state.reporting,
            ..PortState::VACANT
        };
        self.arm(index, Shape::Sourced);
        Ok(())
    }

    pub(super) fn try_connect(&mut self, port: Port, remote: SocketAddr) -> io::Result<()> {
        let index = port.index();
        let state = self.open_state(index)?;
        if state.receiving == Receiving::Armed(Shape::Plain) && state.remote == Some(address::canonical(remote)) {
            return Ok(());
        }
        let plain = self.stop_plain(index)?;
        let state = self.open_state(index)?;
        let former = state.remote;
        let target = address::for_socket(remote, state.is_v6);
        let linked = match &state.socket {
            Some(socket) => socket.connect(target),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if linked.is_ok() {
            state.remote = Some(address::canonical(remote));
        }
        if plain {
            // Whatever was received so far is from the one the port was connected to, and it is told again, so that
            // nobody takes it for the new one.
            state.former = former;
        }
        let receiving = state.receiving;
        self.counters.syscalls += 1;
        if linked.is_ok() {
            match receiving {
                Receiving::Armed(shape) => self.stop(index, shape),
                Receiving::Starved(_) => {
                    self.starved.retain(|starved| *starved != index);
                    self.start_drain(index);
                }
                Receiving::Stopping(_) | Receiving::Draining | Receiving::Vacant | Receiving::Finished => {}
            }
        }
        linked
    }

    pub(super) fn try_disconnect(&mut self, port: Port) -> io::Result<()> {
        let index = port.index();
        // A plain receive must be gone before the kernel lets others in: what it gives carries no source.
        let plain = self.stop_plain(index)?;
        let state = self.open_state(index)?;
        let former = state.remote;
        let unlinked = match &state.socket {
            Some(socket) => rustix::net::connect_unspec(socket).map_err(io::Error::from),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if plain {
            state.former = former;
        }
        if unlinked.is_ok() {
            state.remote = None;
            if let Receiving::Starved(shape) = &mut state.receiving {
                *shape = Shape::Sourced;
            }
        }
        self.counters.syscalls += 1;
        unlinked
    }

    pub(super) fn start_close(&mut self, port: Port) {
        let index = port.index();
        let Some(state) = self.ports.get_mut(index as usize) else { return };
        if !mem::take(&mut state.lingers) {
            self.end_receiving(index);
        } else if state.receiving == Receiving::Finished {
            self.quiet.retain(|quiet| *quiet != port);
            self.finished.push(index);
        }
    }

    pub(super) fn start_hush(&mut self, port: Port) {
        let index = port.index();
        let Some(state) = self.ports.get_mut(index as usize).filter(|state| state.is_open()) else { return };
        state.lingers = true;
        self.end_receiving(index);
    }

    fn end_receiving(&mut self, index: u32) {
        let Some(state) = self.ports.get_mut(index as usize).filter(|state| state.is_open()) else { return };
        state.closing = true;
        match state.receiving {
            Receiving::Armed(shape) => self.stop(index, shape),
            Receiving::Stopping(_) | Receiving::Vacant | Receiving::Finished => {}
            Receiving::Starved(_) => {
                self.starved.retain(|starved| *starved != index);
                self.mark_finished(index);
            }
            Receiving::Draining => {
                self.draining.retain(|draining| *draining != index);
                self.mark_finished(index);
            }
        }
    }

    pub(super) fn open_state(&mut self, index: u32) -> io::Result<&mut PortState> {
        self.ports
            .get_mut(index as usize)
            .filter(|state| state.is_open())
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Takes the files of finished ports out of the ring. Their sends must be done, hence only with the submission
    /// queue empty.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if self.finished.is_empty() || !self.uring.submission().is_empty() {
            return Ok(());
        }
        for index in self.finished.drain(..) {
            let state = &mut self.ports[index as usize];
            self.counters.syscalls += 1;
            self.uring.submitter().register_files_update(index, &[-1])?;
            state.receiving = Receiving::Vacant;
            if let Some(socket) = state.socket.take() {
                self.closed.push_back((Port::from_index(index), socket));
            }
        }
        Ok(())
    }

    pub(super) fn mark_finished(&mut self, index: u32) {
        let state = &mut self.ports[index as usize];
        state.receiving = Receiving::Finished;
        if state.lingers {
            self.quiet.push_back(Port::from_index(index));
        } else {
            self.finished.push(index);
        }
    }
}

/// The kernel's count of datagrams that found `socket`'s receive buffer full.
pub(super) fn kernel_drops(socket: &UdpSocket) -> io::Result<u32> {
    let mut info = [0u32; MEMINFO_WORDS];
    #[expect(clippy::cast_possible_truncation, reason = "36 bytes")]
    let mut bytes = size_of_val(&info) as libc::socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: the kernel writes at most `bytes` bytes into `info` and their number into `bytes`.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut bytes) };
    if result == 0 { Ok(info[MEMINFO_DROPS]) } else { Err(io::Error::last_os_error()) }
}

/// `SK_MEMINFO_VARS` and `SK_MEMINFO_DROPS` of linux/sock_diag.h.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_DROPS: usize = 8;
