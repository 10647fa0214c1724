//! Whether this machine lets the server run, asked before anything is started.
//!
//! Each [`Problem`] is one sentence that names the setting to change.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io;

use io_uring::{IoUring, opcode};
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

/// What was found out about this machine and this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The running kernel.
    pub kernel: KernelVersion,
    /// What its io_uring can do, or why it cannot be used.
    pub io_uring: Result<RingFeatures, Problem>,
    /// Soft limit of locked memory in bytes; `None` is no limit.
    pub memlock_bytes: Option<u64>,
    /// The kernel does not count this process's locked memory (`CAP_IPC_LOCK`).
    pub memlock_exempt: bool,
    /// Soft limit of open files; `None` is no limit.
    pub nofile: Option<u64>,
}

/// What the ring can count on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingFeatures {
    /// A wait can gather arrivals for a while (Linux 6.12).
    pub min_wait: bool,
}

/// What the server is meant to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Executors, one a core.
    pub shards: u32,
    /// Sockets of all shards together.
    pub ports: u32,
}

/// Version of a kernel, `major.minor`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KernelVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// Something about the machine that has to be changed, or that should be.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    /// Switched off for everyone, or for everyone but a group.
    #[error("io_uring is switched off: set `sysctl kernel.io_uring_disabled=0` (it is {value})")]
    Disabled {
        /// What the setting says: 1 leaves it to `kernel.io_uring_group`, 2 forbids it.
        value: u8,
    },
    /// Something between us and the kernel refuses the system call.
    #[error(
        "io_uring is not permitted: let the container's seccomp profile pass io_uring_setup, io_uring_enter and \
         io_uring_register (Docker: --security-opt seccomp=...)"
    )]
    NotPermitted,
    /// No such system call.
    #[error(
        "there is no io_uring here: run a kernel from {KERNEL_MIN} on built with CONFIG_IO_URING, and let the seccomp \
         profile pass it"
    )]
    Missing,
    /// The kernel counts the ring as locked memory, and there is none left.
    #[error("no memory for io_uring: raise RLIMIT_MEMLOCK to 64 MiB (systemd: LimitMEMLOCK=64M)")]
    NoMemory,
    /// io_uring is there, but not all that is needed.
    #[error("kernel {kernel} is too old: io_uring lacks {lacks}, run {KERNEL_MIN} or later")]
    KernelTooOld {
        /// The running kernel.
        kernel: KernelVersion,
        /// What it lacks.
        lacks: &'static str,
    },
    /// Refused for a reason not foreseen.
    #[error("io_uring cannot be set up: error {errno} of io_uring_setup, see its manual page")]
    Refused {
        /// What the kernel said.
        errno: i32,
    },
    /// glommio looks at the limit itself and does not start an executor below it, whatever the process may do.
    #[error(
        "RLIMIT_MEMLOCK is {limit} bytes and an executor wants {MEMLOCK_BYTES_MIN}: set LimitMEMLOCK=64M (systemd) or \
         --ulimit memlock=67108864 (container)"
    )]
    MemlockTooSmall {
        /// The soft limit in bytes.
        limit: u64,
    },
    /// Locked memory is counted for all shards together and may not suffice.
    #[error(
        "RLIMIT_MEMLOCK is {limit} bytes, which may be too little for {shards} shards: set LimitMEMLOCK=64M (systemd)"
    )]
    MemlockTight {
        /// The soft limit in bytes.
        limit: u64,
        /// Executors wanted.
        shards: u32,
    },
    /// Fewer descriptors than sockets.
    #[error("RLIMIT_NOFILE is {limit} and {needed} are needed: set LimitNOFILE={needed} (systemd) or raise fs.nr_open")]
    TooFewFiles {
        /// The soft limit.
        limit: u64,
        /// The ports, and what else is open.
        needed: u64,
    },
    /// Waits cannot gather, so each packet wakes the shard.
    #[error("kernel {kernel} cannot gather packets while it waits: run 6.12 or later for less CPU time a packet")]
    NoMinWait {
        /// The running kernel.
        kernel: KernelVersion,
    },
}

impl Problem {
    /// Whether the server cannot run with it; the others are advice.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Disabled { .. }
            | Self::NotPermitted
            | Self::Missing
            | Self::NoMemory
            | Self::KernelTooOld { .. }
            | Self::Refused { .. }
            | Self::MemlockTooSmall { .. }
            | Self::TooFewFiles { .. } => true,
            Self::MemlockTight { .. } | Self::NoMinWait { .. } => false,
        }
    }
}

/// Looks at the kernel and the limits of this process. Sets up a small ring for a moment; changes nothing.
pub fn probe() -> Probe {
    let kernel = KernelVersion::running();
    Probe {
        kernel,
        io_uring: try_ring(kernel),
        memlock_bytes: getrlimit(Resource::Memlock).current,
        memlock_exempt: has_capability(CAP_IPC_LOCK),
        nofile: getrlimit(Resource::Nofile).current,
    }
}

impl Probe {
    /// What stands against running a server as `wanted`: what is fatal first.
    pub fn problems(&self, wanted: Wanted) -> Vec<Problem> {
        let mut problems = Vec::new();
        match &self.io_uring {
            Ok(features) if features.min_wait => {}
            Ok(_) => problems.push(Problem::NoMinWait { kernel: self.kernel }),
            Err(problem) => problems.push(problem.clone()),
        }
        if let Some(limit) = self.memlock_bytes {
            if limit < MEMLOCK_BYTES_MIN {
                problems.push(Problem::MemlockTooSmall { limit });
            } else if !self.memlock_exempt && limit < u64::from(wanted.shards) * MEMLOCK_BYTES_SHARD {
                problems.push(Problem::MemlockTight { limit, shards: wanted.shards });
            }
        }
        let needed = u64::from(wanted.ports) + u64::from(wanted.shards) * FILES_SHARD + FILES_BASE;
        if let Some(limit) = self.nofile.filter(|limit| *limit < needed) {
            problems.push(Problem::TooFewFiles { limit, needed });
        }
        problems.sort_by_key(|problem| !problem.is_fatal());
        problems
    }
}

impl KernelVersion {
    /// The kernel this process runs on; 0.0 if it does not say.
    fn running() -> Self {
        rustix::system::uname().release().to_str().ok().and_then(Self::parse).unwrap_or(Self { major: 0, minor: 0 })
    }

    /// Reads the beginning of a release such as `6.12.3-generic`.
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Sets a ring up the way a shard does, only smaller, and asks it what it can do.
fn try_ring(kernel: KernelVersion) -> Result<RingFeatures, Problem> {
    let too_old = |lacks| Problem::KernelTooOld { kernel, lacks };
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(RING_ENTRIES)
        .map_err(|error| refusal(&error, disabled_setting(), kernel))?;
    let features = ring.params();
    for (has, lacks) in [
        (features.is_feature_ext_arg(), "waiting with a timeout"),
        (features.is_feature_nodrop(), "keeping completions"),
        (features.is_feature_submit_stable(), "stable submissions"),
        (features.is_feature_skip_cqe_on_success(), "silent sends"),
    ] {
        if !has {
            return Err(too_old(lacks));
        }
    }
    let mut operations = io_uring::Probe::new();
    let listed = ring.submitter().register_probe(&mut operations);
    listed.map_err(|error| refusal(&error, disabled_setting(), kernel))?;
    for (code, lacks) in [
        (opcode::RecvMsgMulti::CODE, "RECVMSG"),
        (opcode::RecvMulti::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Read::CODE, "READ"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    ] {
        if !operations.is_supported(code) {
            return Err(too_old(lacks));
        }
    }
    Ok(RingFeatures { min_wait: features.is_feature_min_timeout() })
}

/// What a failed `io_uring_setup` means, given `kernel.io_uring_disabled` (`None` where there is no such setting).
fn refusal(error: &io::Error, disabled: Option<u8>, kernel: KernelVersion) -> Problem {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        libc::EPERM | libc::EACCES => match disabled {
            Some(value @ 1..) => Problem::Disabled { value },
            Some(0) | None => Problem::NotPermitted,
        },
        libc::ENOSYS => Problem::Missing,
        libc::ENOMEM => Problem::NoMemory,
        libc::EINVAL => Problem::KernelTooOld { kernel, lacks: "IORING_SETUP_DEFER_TASKRUN" },
        errno => Problem::Refused { errno },
    }
}

fn disabled_setting() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Whether this process has `capability` in effect.
fn has_capability(capability: u32) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_capabilities(&status) >> capability & 1 == 1)
}

fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

/// The first kernel with `DEFER_TASKRUN`; provided buffer rings and multishot receives are older.
const KERNEL_MIN: KernelVersion = KernelVersion { major: 6, minor: 1 };
/// Hard-coded in glommio 0.9 (`Reactor::new`): compared with the soft limit of root, too.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Three rings of an executor, their buffers and the private ring, rounded up.
const MEMLOCK_BYTES_SHARD: u64 = 1 << 20;
/// Rings, eventfds and timers of an executor, rounded up.
const FILES_SHARD: u64 = 32;
/// Standard streams, listeners, control connections, prompts and recordings.
const FILES_BASE: u64 = 256;
const RING_ENTRIES: u32 = 8;
/// linux/capability.h
const CAP_IPC_LOCK: u32 = 14;

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use rustix::process::{Rlimit, setrlimit};
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    use super::*;

    const WANTED: Wanted = Wanted { shards: 2, ports: 1000 };
    const HERE: KernelVersion = KernelVersion { major: 5, minor: 15 };

    /// Runs [`report_under_restriction`] in a process of its own, whose limits may be spoiled, and returns the
    /// problems it found.
    fn problems_under(restriction: &str) -> Vec<String> {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "probe::tests::report_under_restriction"])
            .env("PROBE_RESTRICTION", restriction)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("1 passed"), "{restriction}: {text}");
        text.lines().filter_map(|line| line.strip_prefix("problem: ").map(str::to_owned)).collect()
    }

    #[test]
    #[ignore = "the child of the other tests: it spoils the limits of its process"]
    fn report_under_restriction() {
        let limit = |resource, value| {
            let limit = Rlimit { current: Some(value), maximum: Some(value) };
            setrlimit(resource, limit).unwrap();
        };
        let forbid = |errno: i32| {
            let rules = [(libc::SYS_io_uring_setup, vec![])].into_iter().collect();
            let errno = SeccompAction::Errno(errno.unsigned_abs());
            let arch = env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).unwrap();
            let program: BpfProgram = filter.try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
        };
        match env::var("PROBE_RESTRICTION").unwrap().as_str() {
            "nothing" => {}
            "memlock" => limit(Resource::Memlock, 64 * 1024),
            "nofile" => limit(Resource::Nofile, 300),
            "seccomp EPERM" => forbid(libc::EPERM),
            "seccomp ENOSYS" => forbid(libc::ENOSYS),
            "seccomp ENOMEM" => forbid(libc::ENOMEM),
            other => panic!("{other}"),
        }
        for problem in probe().problems(WANTED) {
            if problem.is_fatal() {
                println!("problem: {problem}");
            }
        }
    }

    #[test]
    fn a_child_under_restriction_is_told_which_setting_to_change() {
        let usual = problems_under("nothing");
        for (restriction, setting) in [
            ("memlock", "RLIMIT_MEMLOCK is 65536 bytes and an executor wants 524288: set LimitMEMLOCK=64M"),
            ("nofile", "RLIMIT_NOFILE is 300 and 1320 are needed: set LimitNOFILE=1320"),
            ("seccomp EPERM", "seccomp profile pass io_uring_setup"),
            ("seccomp ENOSYS", "there is no io_uring here"),
            ("seccomp ENOMEM", "raise RLIMIT_MEMLOCK to 64 MiB"),
        ] {
            let mut problems = problems_under(restriction);
            problems.retain(|problem| !usual.contains(problem));
            assert_eq!(problems.len(), 1, "{restriction}: {problems:?}");
            assert!(problems[0].contains(setting), "{restriction}: {problems:?}");
        }
    }

    #[test]
    fn here_and_now_a_ring_can_be_made() {
        let probe = probe();
        assert!(probe.io_uring.is_ok(), "{probe:?}");
        assert!(probe.kernel >= KERNEL_MIN);
    }

    #[test]
    fn refusals_are_told_apart() {
        for (errno, disabled, problem) in [
            (libc::EPERM, Some(0), Problem::NotPermitted),
            (libc::EPERM, None, Problem::NotPermitted),
            (libc::EPERM, Some(1), Problem::Disabled { value: 1 }),
            (libc::EPERM, Some(2), Problem::Disabled { value: 2 }),
            (libc::ENOSYS, Some(0), Problem::Missing),
            (libc::ENOMEM, Some(0), Problem::NoMemory),
            (libc::EINVAL, None, Problem::KernelTooOld { kernel: HERE, lacks: "IORING_SETUP_DEFER_TASKRUN" }),
            (libc::EMFILE, None, Problem::Refused { errno: libc::EMFILE }),
        ] {
            assert_eq!(refusal(&io::Error::from_raw_os_error(errno), disabled, HERE), problem);
        }
    }

    #[test]
    fn limits_are_compared_with_what_is_wanted() {
        let good = Probe {
            kernel: HERE,
            io_uring: Ok(RingFeatures { min_wait: true }),
            memlock_bytes: Some(64 << 20),
            memlock_exempt: false,
            nofile: Some(65_536),
        };
        let tight = Problem::MemlockTight { limit: 1 << 20, shards: 2 };
        let small = Problem::MemlockTooSmall { limit: 512 * 1024 - 1 };
        let files = Problem::TooFewFiles { limit: 1000, needed: 1320 };
        for (probe, problems) in [
            (good.clone(), vec![]),
            (Probe { memlock_bytes: None, nofile: None, ..good.clone() }, vec![]),
            (Probe { memlock_bytes: Some(1 << 20), ..good.clone() }, vec![tight.clone()]),
            (Probe { memlock_bytes: Some(1 << 20), memlock_exempt: true, ..good.clone() }, vec![]),
            (Probe { memlock_bytes: Some(512 * 1024 - 1), memlock_exempt: true, ..good.clone() }, vec![small]),
            (Probe { nofile: Some(1320), ..good.clone() }, vec![]),
            (Probe { nofile: Some(1000), memlock_bytes: Some(1 << 20), ..good.clone() }, vec![files, tight]),
            (Probe { io_uring: Err(Problem::Missing), ..good.clone() }, vec![Problem::Missing]),
            (
                Probe { io_uring: Ok(RingFeatures { min_wait: false }), ..good.clone() },
                vec![Problem::NoMinWait { kernel: HERE }],
            ),
        ] {
            assert_eq!(probe.problems(WANTED), problems);
        }
    }

    #[test]
    fn every_problem_is_one_sentence() {
        for problem in [
            Problem::Disabled { value: 2 },
            Problem::NotPermitted,
            Problem::Missing,
            Problem::NoMemory,
            Problem::KernelTooOld { kernel: HERE, lacks: "SEND" },
            Problem::Refused { errno: 5 },
            Problem::MemlockTooSmall { limit: 1 },
            Problem::MemlockTight { limit: 1, shards: 1 },
            Problem::TooFewFiles { limit: 1, needed: 2 },
            Problem::NoMinWait { kernel: HERE },
        ] {
            let text = problem.to_string();
            assert!(!text.contains('\n') && !text.contains("  ") && !text.contains(". "), "{text}");
        }
    }

    #[test]
    fn kernel_releases_and_capabilities_are_read() {
        let version = |major, minor| Some(KernelVersion { major, minor });
        assert_eq!(KernelVersion::parse("6.18.44-fc-v669"), version(6, 18));
        assert_eq!(KernelVersion::parse("6.1"), version(6, 1));
        assert_eq!(KernelVersion::parse("7.0-rc1"), version(7, 0));
        assert_eq!(KernelVersion::parse("unknown"), None);
        assert_eq!(KernelVersion::parse(""), None);
        assert_eq!(effective_capabilities("CapPrm:\t1\nCapEff:\t000001ffffffffff\n"), 0x1ff_ffff_ffff);
        assert_eq!(effective_capabilities("nothing of the kind"), 0);
    }
}
