//! The few system calls the standard library does not offer, each behind a safe function.
//!
//! This is the only module of the package with unsafe code. Nothing here keeps a pointer across calls: every pointer
//! handed to the kernel is made from a live borrow in the very function that makes the call.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Largest datagram received whole, in bytes; a longer one is reported as truncated.
pub const DATAGRAM_BYTES_MAX: usize = 2048;

/// Room for one `SCM_TIMESTAMPNS` control message (32 bytes on 64-bit Linux) and some to spare.
const CONTROL_BYTES: usize = 64;
/// Size of `struct cmsghdr`: length, level and type.
const CONTROL_HEADER_BYTES: usize = 16;

/// Control buffer with the alignment the kernel's header wants.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Memory for one `recvmmsg`: up to `capacity` datagrams of one socket in one system call.
pub struct RecvBatch {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    buffers: Box<[[u8; DATAGRAM_BYTES_MAX]]>,
    received: usize,
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// When the kernel received it, nanoseconds of `CLOCK_REALTIME`; only with [`enable_kernel_stamps`].
    pub arrival_ns: Option<u64>,
    /// It was longer than [`DATAGRAM_BYTES_MAX`].
    pub truncated: bool,
}

impl RecvBatch {
    /// Memory for `capacity` datagrams, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        // SAFETY: an all-zero `mmsghdr` is valid: null pointers with zero lengths.
        let header = unsafe { mem::zeroed::<libc::mmsghdr>() };
        let iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            headers: vec![header; capacity].into(),
            iovecs: vec![iovec; capacity].into(),
            controls: vec![Control([0; CONTROL_BYTES]); capacity].into(),
            buffers: vec![[0; DATAGRAM_BYTES_MAX]; capacity].into(),
            received: 0,
        }
    }

    /// How many datagrams one call can bring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Takes what is queued in `socket`, without waiting, up to the capacity. Returns how many came.
    ///
    /// # Errors
    /// What `recvmmsg` says, among it a pending ICMP error of a connected socket. An empty queue is `Ok(0)`.
    pub fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        self.received = 0;
        for index in 0..self.headers.len() {
            self.iovecs[index] =
                libc::iovec { iov_base: self.buffers[index].as_mut_ptr().cast(), iov_len: DATAGRAM_BYTES_MAX };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.iovecs[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
            header.msg_flags = 0;
        }
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: `headers` holds `count` headers whose iovecs, control and data buffers live in `self`, which is
        // borrowed mutably until the call returns; with MSG_DONTWAIT the kernel keeps none of them.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match usize::try_from(result) {
            Ok(received) => {
                self.received = received;
                Ok(received)
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
            }
        }
    }

    /// What the last [`receive`](Self::receive) brought, in the order of the socket's queue.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.headers[..self.received].iter().zip(&self.buffers).zip(&self.controls).map(
            |((header, buffer), control)| {
                let length = (header.msg_len as usize).min(DATAGRAM_BYTES_MAX);
                let control_length = header.msg_hdr.msg_controllen.min(CONTROL_BYTES);
                Datagram {
                    bytes: &buffer[..length],
                    arrival_ns: kernel_stamp(&control.0[..control_length]),
                    truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                }
            },
        )
    }
}

/// Finds the `SCM_TIMESTAMPNS` message in a control buffer. Only the first message is looked at, because it is the
/// only one asked for.
fn kernel_stamp(control: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(i64::from_ne_bytes(control.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(i32::from_ne_bytes(control.get(at..at + 4)?.try_into().ok()?));
    if half(8)? != libc::SOL_SOCKET || half(12)? != libc::SCM_TIMESTAMPNS {
        return None;
    }
    let seconds = u64::try_from(word(CONTROL_HEADER_BYTES)?).ok()?;
    let nanos = u64::try_from(word(CONTROL_HEADER_BYTES + 8)?).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Sets an integer socket option.
fn set_option(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(mem::size_of::<i32>()).unwrap_or(0);
    // SAFETY: `value` lives on the stack until the call returns and `size` is its size.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast::<libc::c_void>(), size)
    };
    check(result)
}

/// Asks the kernel to stamp each datagram of `socket` with its arrival time (`SO_TIMESTAMPNS`).
///
/// # Errors
/// What `setsockopt` says.
pub fn enable_kernel_stamps(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Lets one send carry several datagrams of `bytes` bytes each (`UDP_SEGMENT`).
///
/// # Errors
/// The kernel does not know the option (before 4.18), or the size is out of range.
pub fn enable_segmented_sends(socket: &impl AsFd, bytes: u16) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(bytes))
}

/// Sets the receive buffer of `socket`, beyond the system's limit where the process is allowed to.
///
/// # Errors
/// What `setsockopt` says to the plain option; the forcing one may be refused silently.
pub fn set_receive_buffer(socket: &impl AsFd, bytes: i32) -> io::Result<()> {
    match set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes) {
        Ok(()) => Ok(()),
        Err(_) => set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes),
    }
}

/// Binds the calling thread, and those it starts from now on, to one CPU.
///
/// # Errors
/// There is no such CPU, or the process may not use it.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no CPU {cpu}")));
    }
    // SAFETY: an all-zero `cpu_set_t` is the empty set.
    let mut set = unsafe { mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: `cpu` is below CPU_SETSIZE, as checked above, so the bit lies inside the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` lives until the call returns and the size given is its own; 0 names the calling thread.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const set) })
}

/// Sets the nice value of the calling thread, -20 to 19.
///
/// # Errors
/// Values below the current one need a privilege.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory; on Linux 0 names the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })
}

/// Makes sleeps of the calling thread end within a microsecond of their time instead of the usual 50.
///
/// # Errors
/// What `prctl` says.
pub fn sharpen_timers() -> io::Result<()> {
    const SLACK_NS: libc::c_ulong = 1_000;
    // SAFETY: PR_SET_TIMERSLACK takes one integer and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) })
}

/// Raises the limit of open files to at least `wanted`, beyond the hard limit where the process is allowed to.
/// Returns the limit that holds afterwards, which may be lower.
///
/// # Errors
/// The limit cannot be read.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer and lives until the call returns.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    let beyond = libc::rlimit { rlim_cur: wanted, rlim_max: wanted.max(limit.rlim_max) };
    let within = libc::rlimit { rlim_cur: wanted.min(limit.rlim_max), rlim_max: limit.rlim_max };
    for attempt in [beyond, within] {
        // SAFETY: `attempt` lives until the call returns and is only read.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const attempt) } == 0 {
            return Ok(attempt.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

/// Sends SIGINT to the child process `pid`.
///
/// # Errors
/// There is no such process, or it belongs to somebody else.
pub fn interrupt_process(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    if pid <= 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: takes two integers; `pid` is positive and names one process, never a group.
    check(unsafe { libc::kill(pid, libc::SIGINT) })
}

/// CPU time used so far by all threads of process `pid`, those that have ended included, in nanoseconds.
///
/// # Errors
/// There is no such process.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for the answer and lives until the call returns.
    let result = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer and lives until the call returns.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Ok(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// An epoll instance, level-triggered, for reading.
pub struct Epoll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event]>,
    ready: usize,
}

impl Epoll {
    /// An instance that reports up to `events_max` ready descriptors at once.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn new(events_max: usize) -> io::Result<Self> {
        // SAFETY: takes a flag and touches no memory.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(fd)?;
        // SAFETY: the call above succeeded, so `fd` is open and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; events_max.max(1)].into(), ready: 0 })
    }

    /// Reports `source` as `token` from now on whenever it can be read.
    ///
    /// # Errors
    /// It is registered already, or not of a kind that can be waited for.
    pub fn add(&self, source: &impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: both descriptors are open, as they are borrowed; `event` is copied by the kernel.
        check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, source.as_fd().as_raw_fd(), &raw mut event)
        })
    }

    /// Waits until something can be read or `timeout_ms` milliseconds are over (0: only looks).
    /// An interrupting signal counts as the end of the time.
    ///
    /// # Errors
    /// What `epoll_wait` says.
    pub fn wait(&mut self, timeout_ms: i32) -> io::Result<usize> {
        let capacity = libc::c_int::try_from(self.events.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `events` has room for `capacity` entries and is borrowed mutably until the call returns.
        let result = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), capacity, timeout_ms) };
        self.ready = usize::try_from(result).unwrap_or(0);
        match check(result) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
            Ok(()) => Ok(self.ready),
        }
    }

    /// The token of the `index`-th descriptor the last wait reported.
    #[must_use]
    pub fn token(&self, index: usize) -> u64 {
        self.events[..self.ready][index].u64
    }
}

/// Turns the C convention into a result.
fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
        (a, b)
    }

    fn receive_at_least(batch: &mut RecvBatch, socket: &UdpSocket) -> usize {
        loop {
            let received = batch.receive(socket).unwrap();
            if received > 0 {
                return received;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_batch_brings_datagrams_in_order_with_kernel_stamps() {
        let (a, b) = pair();
        enable_kernel_stamps(&b).unwrap();
        for byte in 0..3u8 {
            a.send(&[byte; 7]).unwrap();
        }
        let mut batch = RecvBatch::new(8);
        let mut got = Vec::new();
        while got.len() < 3 {
            receive_at_least(&mut batch, &b);
            for datagram in batch.datagrams() {
                assert!(datagram.arrival_ns.is_some_and(|ns| ns > 1_500_000_000_000_000_000));
                assert!(!datagram.truncated);
                got.push(datagram.bytes.to_vec());
            }
        }
        assert_eq!(got, [vec![0; 7], vec![1; 7], vec![2; 7]]);
        assert_eq!(batch.receive(&b).unwrap(), 0, "an empty queue is no error");
    }

    #[test]
    fn an_oversized_datagram_is_marked_truncated() {
        let (a, b) = pair();
        a.send(&[1; DATAGRAM_BYTES_MAX + 1]).unwrap();
        let mut batch = RecvBatch::new(1);
        receive_at_least(&mut batch, &b);
        assert!(batch.datagrams().next().unwrap().truncated);
    }

    #[test]
    fn a_segmented_send_arrives_as_single_datagrams() {
        let (a, b) = pair();
        enable_segmented_sends(&a, 100).unwrap();
        a.send(&[5; 300]).unwrap();
        let mut batch = RecvBatch::new(4);
        let mut sizes = Vec::new();
        while sizes.len() < 3 {
            receive_at_least(&mut batch, &b);
            sizes.extend(batch.datagrams().map(|datagram| datagram.bytes.len()));
        }
        assert_eq!(sizes, [100, 100, 100]);
    }

    #[test]
    fn epoll_names_the_readable_socket() {
        let (a, b) = pair();
        let mut epoll = Epoll::new(4).unwrap();
        epoll.add(&a, 1).unwrap();
        epoll.add(&b, 2).unwrap();
        assert_eq!(epoll.wait(0).unwrap(), 0);
        a.send(b"x").unwrap();
        assert_eq!(epoll.wait(5_000).unwrap(), 1);
        assert_eq!(epoll.token(0), 2);
    }

    #[test]
    fn the_kernel_stamp_of_a_foreign_control_message_is_ignored() {
        let mut control = [0; CONTROL_BYTES];
        control[8..12].copy_from_slice(&libc::SOL_IP.to_ne_bytes());
        assert_eq!(kernel_stamp(&control), None);
        assert_eq!(kernel_stamp(&control[..10]), None);
    }

    #[test]
    fn the_cpu_clock_of_a_process_advances() {
        let before = process_cpu_ns(std::process::id()).unwrap();
        let mut sum = 0u64;
        while process_cpu_ns(std::process::id()).unwrap() < before + 1_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(process_cpu_ns(u32::MAX).is_err());
    }

    #[test]
    fn init_and_process_groups_are_never_signalled() {
        assert!(interrupt_process(0).is_err());
        assert!(interrupt_process(1).is_err());
    }
}
