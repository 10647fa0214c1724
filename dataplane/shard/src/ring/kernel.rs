//! The one door to the kernel: the submission queue, `io_uring_enter`, and what comes back.

use std::io;
use std::mem::MaybeUninit;

use io_uring::types::{CancelBuilder, Fixed, SubmitArgs};
use io_uring::{EnterFlags, cqueue, opcode, squeue};

use super::receive::Arrival;
use super::tag::{Kind, Tag};
use super::{Ring, STOP_ATTEMPTS};

impl Ring {
    /// Puts an entry into the submission queue, submitting first if it is full. `false` if the ring is broken.
    ///
    /// # Safety
    /// What the entry names stays valid until the kernel is done with it.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        if self.uring.submission().is_full() && !self.submit() {
            return false;
        }
        // SAFETY: passed on to the caller.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    pub(super) fn arm_bell(&mut self) -> io::Result<()> {
        if self.bell_armed {
            return Ok(());
        }
        #[expect(clippy::cast_possible_truncation, reason = "the number of ports has 32 bits")]
        let file = Fixed(self.ports.len() as u32);
        let entry =
            opcode::Read::new(file, self.memory.bell.get().cast(), 8).build().user_data(Tag::DOORBELL.to_bits());
        // SAFETY: the eight bytes are read by nobody and live in `memory` until the read has ended.
        if unsafe { self.push(&entry) } {
            self.bell_armed = true;
            self.operations += 1;
        }
        self.check_broken()
    }

    /// Hands the whole submission queue to the kernel without waiting and settles it. `false` if the ring is broken.
    pub(super) fn submit(&mut self) -> bool {
        for _ in 0..SUBMIT_ATTEMPTS {
            let entered = self.enter(0, EnterFlags::empty(), None);
            if let Err(error) = entered.and_then(|()| self.settle()) {
                self.broken = Some(error.raw_os_error().unwrap_or(libc::EIO));
                return false;
            }
            if self.uring.submission().is_empty() {
                return true;
            }
        }
        // The kernel has had no memory for a request this often in a row.
        self.broken = Some(libc::ENOMEM);
        false
    }

    /// One `io_uring_enter`: submits what is queued, and with `GETEVENTS` runs deferred work and waits for `want`
    /// completions. The end of a timeout, a signal and a want of memory are no errors.
    pub(super) fn enter(&mut self, want: u32, flags: EnterFlags, args: Option<&SubmitArgs<'_, '_>>) -> io::Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "the submission queue has 32768 entries at most")]
        let submit = self.uring.submission().len() as u32;
        let flags = flags | if args.is_some() { EnterFlags::EXT_ARG | self.enter_flags } else { EnterFlags::empty() };
        self.counters.syscalls += 1;
        // SAFETY: what the queued entries name was promised to stay valid when they were pushed; `args` has the type
        // that EXT_ARG asks for.
        match unsafe { self.uring.submitter().enter(submit, want, flags.bits(), args) } {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes all completions and, once the submission queue is empty, gives the memory of finished sends back.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.collect()?;
        // Sends that met a pending error go once more, at once; a second failure is final.
        while self.settle_sends() {
            self.enter(0, EnterFlags::empty(), None)?;
            self.collect()?;
        }
        self.memory.received.publish();
        Ok(())
    }

    pub(super) fn collect(&mut self) -> io::Result<()> {
        let mut batch = [const { MaybeUninit::<cqueue::Entry>::uninit() }; COLLECT_BATCH];
        loop {
            let mut completions = self.uring.completion();
            let taken = completions.fill(&mut batch);
            drop(completions);
            for completion in &*taken {
                self.complete(completion)?;
            }
            if taken.len() < COLLECT_BATCH {
                if !self.uring.submission().cq_overflow() {
                    return Ok(());
                }
                // The kernel kept completions that found no room; this brings them.
                self.enter(0, EnterFlags::GETEVENTS, None)?;
            }
        }
    }

    pub(super) fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let tag = Tag::from_bits(completion.user_data());
        let (result, flags) = (completion.result(), completion.flags());
        let buffer = cqueue::buffer_select(flags).and_then(|id| self.memory.received.claim(id));
        match tag.kind() {
            Some(Kind::Receive(shape)) => {
                let more = cqueue::more(flags);
                if !more {
                    self.operations -= 1;
                    if let Some(state) = self.ports.get_mut(tag.index()).filter(|state| tag.is_of(state.generation)) {
                        state.ended = true;
                    }
                }
                self.arrivals.push_back(Arrival { tag, shape, result, buffer, more });
                return Ok(());
            }
            Some(Kind::Send) => {
                if result < 0 {
                    self.failed.push((tag.index(), -result));
                }
            }
            Some(Kind::Doorbell) => {
                self.operations -= 1;
                self.bell_armed = false;
                self.bell_rung = true;
                if result < 0 && result != -libc::ECANCELED && result != -libc::EINTR {
                    return Err(io::Error::from_raw_os_error(-result));
                }
            }
            Some(Kind::Cancel) | None => {}
        }
        if let Some(buffer) = buffer {
            self.memory.received.give_back(buffer);
        }
        Ok(())
    }

    pub(super) fn check_broken(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    /// What has to be queued before the kernel is entered.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        self.check_broken()?;
        self.memory.received.publish();
        self.feed_starved()?;
        self.arm_bell()
    }

    /// Whether a receive or a flush has something to do without the kernel.
    pub(super) fn has_work(&self) -> bool {
        !(self.arrivals.is_empty()
            && self.draining.is_empty()
            && self.quiet.is_empty()
            && self.finished.is_empty()
            && self.closed.is_empty())
    }

    /// Ends every operation; `false` if the kernel would not have it.
    pub(super) fn quiesce(&mut self) -> bool {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build().user_data(Tag::CANCEL.to_bits());
        // SAFETY: a cancellation names no memory.
        if !unsafe { self.push(&entry) } {
            return false;
        }
        for _ in 0..self.ports.len() + STOP_ATTEMPTS {
            if self.operations == 0 && self.uring.submission().is_empty() {
                return true;
            }
            let entered = self.enter(0, EnterFlags::GETEVENTS, None).and_then(|()| self.settle());
            if entered.is_err() {
                return false;
            }
        }
        false
    }
}

/// Completions taken from the queue at once.
const COLLECT_BATCH: usize = 64;
/// Enters in a row that may leave entries in the submission queue.
const SUBMIT_ATTEMPTS: usize = 64;
