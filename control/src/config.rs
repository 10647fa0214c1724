//! The configuration: one struct, read once, checked whole, printed at start with its derived sizes.
//!
//! Every field has a default; a key that is not known is an error. Options of the command line win over the file.

mod agentgateway;
mod icws;
mod mediacontrol;
#[cfg(test)]
mod tests;
mod values;
mod verba;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringbridge_media::command::{CodecKind, Rate};
use ringbridge_media::limits::{CONFERENCES_MAX, CONNECTIONS_MAX, RELAY_PTIME_MS_MAX};
use serde::{Deserialize, Deserializer};

use crate::files::check_command;
use crate::quota::QuotaConfig;
use crate::rebalance::RebalanceConfig;
use crate::store::seed::{AgentSeed, KeySeed, Seeds, UserSeed};
use crate::tls::TlsFiles;

pub use self::agentgateway::AgentGatewayConfig;
pub use self::icws::{IcwsConfig, StationConfig};
pub use self::mediacontrol::MediaControlConfig;
pub use self::values::{CpuList, PortRange, ShardCount};
pub use self::verba::VerbaConfig;

/// How the server runs.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Number of shards, `1 ..= 255`, or `auto`: one for each core the process may use.
    pub shards: ShardCount,
    /// Cores the shards are pinned to, in order: `[0, 2]` or `"0-3,6"`. Empty: every core the process may use. With
    /// more shards than cores nothing is pinned.
    pub cpus: CpuList,
    /// Local address of media sockets, used when a connection names no interface.
    pub bind: IpAddr,
    /// Further local addresses by name, for `interface` of `connection.create`.
    pub interfaces: BTreeMap<String, IpAddr>,
    /// Local media ports `LO-HI`, both included; LO is even and at least 1024. Two of them are used by a connection.
    pub ports: PortRange,
    /// The control socket. Default: `/run/ringbridge/control.sock` if that can be written, else
    /// `$XDG_RUNTIME_DIR/ringbridge/control.sock`.
    pub control_socket: Option<PathBuf>,
    /// A group whose members may use the control socket besides the server's own user and root. The socket is then
    /// of mode 0660 and belongs to that group, otherwise it is of mode 0600.
    pub control_group: Option<String>,
    /// Where Prometheus metrics are served over plain HTTP; off by default.
    pub metrics: Option<SocketAddr>,
    /// Allows `metrics` on an address that is not loopback. The text is readable to everybody who reaches it.
    pub metrics_allow_remote: bool,
    /// Where the server keeps what it writes. Default: `/var/lib/ringbridge` for root, else
    /// `$XDG_STATE_HOME/ringbridge`, else `$HOME/.local/state/ringbridge`.
    pub state_dir: Option<PathBuf>,
    /// Prompts are read below this directory only. Default: `audio` in the state directory.
    pub audio_root: Option<PathBuf>,
    /// Recordings are written below this directory only. Default: `recordings` in the state directory.
    pub recording_root: Option<PathBuf>,
    /// How often recordings whose time is over are removed, in minutes, `1 ..= 1440`.
    pub recording_sweep_minutes: u32,
    /// How long a shard gathers arrivals before it works on them, in microseconds, `0 ..= 1000`. 0 gives the lowest
    /// latency, more costs less CPU.
    pub batch_wait_us: u32,
    /// Memory for decoded prompts, in MiB, `1 ..= 65536`.
    pub prompt_cache_mib: u32,
    /// Threads that decode prompts and write recordings, `1 ..= 64`.
    pub media_threads: u32,
    /// How long the server waits for its connections to end when it is told to stop, in milliseconds,
    /// `0 ..= 3600000`. What is left then is ended.
    pub drain_deadline_ms: u32,
    /// Allows `debug.shard_panic`, for tests of the failure path.
    pub fault_injection: bool,
    /// Defaults of a connection.
    pub rtp: RtpDefaults,
    /// How much may be in use at once.
    pub quota: QuotaConfig,
    /// When what lives on one shard moves to another by itself.
    pub rebalance: RebalanceConfig,
    /// Text to speech.
    pub tts: TtsSettings,
    /// The MediaControl API.
    pub mediacontrol: MediaControlConfig,
    /// The Verba API.
    pub verba: VerbaConfig,
    /// The AgentGateway API.
    pub agentgateway: AgentGatewayConfig,
    /// The ICWS API.
    pub icws: IcwsConfig,
    /// Certificate and key of the listeners that serve TLS.
    pub tls: Option<TlsFiles>,
    /// Users to be added if they are not known.
    pub users: Vec<UserSeed>,
    /// Agents to be added if they are not known.
    pub agents: Vec<AgentSeed>,
    /// API keys to be added if they are not known.
    pub api_keys: Vec<KeySeed>,
}

/// How prompts that are no files are spoken.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TtsSettings {
    /// Program and arguments, run without a shell. `{output}` is replaced by the WAV file to be made, `{voice}` by the
    /// language (`en-us`), `{text}` by the text; without `{text}` the text comes by the standard input. Default:
    /// `espeak-ng` if it is installed. Empty: texts are not spoken.
    pub command: Option<Vec<String>>,
    /// How long the program may take, in milliseconds, `100 ..= 60000`.
    pub time_limit_ms: u32,
    /// What is kept of rendered texts on disk, in MiB, `1 ..= 65536`.
    pub cache_mib: u32,
}

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What holds for a connection that does not say otherwise.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RtpDefaults {
    /// Codec: `PCMU` or `PCMA`.
    #[serde(deserialize_with = "codec")]
    pub codec: CodecKind,
    /// Packet time in milliseconds, `1 ..= 200`.
    pub ptime_ms: u32,
    /// Payload type of telephone-events, `96 ..= 127`.
    pub telephone_event_pt: u8,
    /// Differentiated services code point, `0 ..= 63`.
    pub dscp: u8,
    /// `connection.timeout` after this long without a packet, in milliseconds, `1 ..= 86400000`; 0: never.
    pub rtp_timeout_ms: u32,
    /// Whether another source may take over a connection after its endpoint was learned. Keeps its sockets
    /// unconnected, which costs CPU.
    pub handover: bool,
    /// libbcg729 as installed here: with it G.729 is decoded and encoded. Its code runs in the shards.
    pub g729_library: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: ShardCount::Auto,
            cpus: CpuList::default(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            interfaces: BTreeMap::new(),
            ports: PortRange { lo: 30_000, hi: 49_999 },
            control_socket: None,
            control_group: None,
            metrics: None,
            metrics_allow_remote: false,
            state_dir: None,
            audio_root: None,
            recording_root: None,
            recording_sweep_minutes: 30,
            batch_wait_us: 500,
            prompt_cache_mib: 256,
            media_threads: 2,
            drain_deadline_ms: 5_000,
            fault_injection: false,
            rtp: RtpDefaults::default(),
            mediacontrol: MediaControlConfig::default(),
            verba: VerbaConfig::default(),
            agentgateway: AgentGatewayConfig::default(),
            icws: IcwsConfig::default(),
            quota: QuotaConfig::default(),
            rebalance: RebalanceConfig::default(),
            tts: TtsSettings::default(),
            tls: None,
            users: Vec::new(),
            agents: Vec::new(),
            api_keys: Vec::new(),
        }
    }
}

impl Default for TtsSettings {
    fn default() -> Self {
        Self { command: None, time_limit_ms: 10_000, cache_mib: 64 }
    }
}

impl Default for RtpDefaults {
    fn default() -> Self {
        Self {
            codec: CodecKind::Pcmu,
            ptime_ms: 20,
            telephone_event_pt: 101,
            dscp: 46,
            rtp_timeout_ms: 0,
            handover: false,
            g729_library: None,
        }
    }
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a configuration.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("`{field}` is {value}: it has to be {rule}")]
    Range {
        /// The key.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// The text-to-speech command can't be used.
    #[error("`tts.command` has to {0}")]
    TtsCommand(&'static str),
    /// The listener would be reachable from outside.
    #[error("`metrics` is {0}: plain HTTP is served on loopback only, unless `metrics_allow_remote` is true")]
    MetricsNotLoopback(SocketAddr),
    /// The listener would be open to everybody.
    #[error("`mediacontrol.listen` is {0}: an address that is not loopback needs `mediacontrol.token`")]
    MediaControlWithoutToken(SocketAddr),
    /// Passwords and session ids would be readable on the way, and clients of this API speak HTTPS only.
    #[error(
        "`agentgateway.listen` is {0}: the AgentGateway API is served over HTTPS only, also on loopback. Give \
         `tls.cert` and `tls.key` in the configuration; `ringbridge check --make-cert DIR --name HOST` makes a pair"
    )]
    AgentGatewayWithoutTls(SocketAddr),
    /// Passwords, keys and session ids would be readable on the way.
    #[error(
        "`{field}` is {address}, without TLS: plain HTTP is served on loopback only. Give `tls.cert` and `tls.key` in \
         the configuration (`ringbridge check --make-cert DIR --name HOST` makes a pair), or listen at 127.0.0.1"
    )]
    PlainNotLoopback {
        /// The key.
        field: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// More shards than one server can have.
    #[error("this machine has {0} cores for us; give `shards` a number up to 255")]
    TooManyCores(usize),
    /// A user, agent or API key can't be meant like that.
    #[error("{0}")]
    Accounts(String),
    /// No directory can be found for a path that has no value.
    #[error("`{field}` has no default here: give it a value")]
    NoDefault {
        /// The key.
        field: &'static str,
    },
}

/// What the machine lets this process use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Cores it may run on.
    pub cpus: Vec<usize>,
    /// Files it may hold open.
    pub files: u64,
}

/// Sizes that follow from a configuration and the machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Derived {
    /// Shards, and the core each is pinned to.
    pub shard_cpus: Vec<Option<usize>>,
    /// Connections each shard has room for: twice as many as there are ports for, so that a slot rests before it is
    /// used again, but no more than the limit of open files allows to register.
    pub shard_connections_max: u32,
    /// Conferences the shards can hold.
    pub conferences_max: usize,
    /// Port pairs, on all addresses together: as many connections can there be.
    pub port_pairs: usize,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Root of prompts.
    pub audio_root: PathBuf,
    /// Root of recordings.
    pub recording_root: PathBuf,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read or is no configuration. Ranges are not checked yet, options may still change them.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// Checks the whole and works out what follows from it.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn derive(&self, machine: &Machine) -> Result<Derived, ConfigError> {
        within("batch_wait_us", self.batch_wait_us, 0, 1000, "0 to 1000")?;
        within("prompt_cache_mib", self.prompt_cache_mib, 1, 65_536, "1 to 65536")?;
        within("media_threads", self.media_threads, 1, 64, "1 to 64")?;
        within("drain_deadline_ms", self.drain_deadline_ms, 0, 3_600_000, "0 to 3600000")?;
        within("rtp.ptime_ms", self.rtp.ptime_ms, 1, RELAY_PTIME_MS_MAX, "1 to 200")?;
        within("rtp.telephone_event_pt", u32::from(self.rtp.telephone_event_pt), 96, 127, "96 to 127")?;
        within("rtp.dscp", u32::from(self.rtp.dscp), 0, 63, "0 to 63")?;
        within("rtp.rtp_timeout_ms", self.rtp.rtp_timeout_ms, 0, 86_400_000, "0 to 86400000")?;
        within("recording_sweep_minutes", self.recording_sweep_minutes, 1, 1440, "1 to 1440")?;
        within("tts.time_limit_ms", self.tts.time_limit_ms, 100, 60_000, "100 to 60000")?;
        within("tts.cache_mib", self.tts.cache_mib, 1, 65_536, "1 to 65536")?;
        let RebalanceConfig { enabled: _, threshold_percent, sustain_ms, cooldown_ms, room_members_max } =
            self.rebalance;
        within("rebalance.threshold_percent", u32::from(threshold_percent), 5, 100, "5 to 100")?;
        within("rebalance.sustain_ms", sustain_ms, 1_000, 3_600_000, "1000 to 3600000")?;
        within("rebalance.cooldown_ms", cooldown_ms, 0, 86_400_000, "0 to 86400000")?;
        within("rebalance.room_members_max", room_members_max, 0, 4_096, "0 to 4096")?;
        check_command(self.tts.command.as_deref().unwrap_or_default()).map_err(ConfigError::TtsCommand)?;
        for (field, ip) in
            [("bind", self.bind)].into_iter().chain(self.interfaces.values().map(|ip| ("interfaces", *ip)))
        {
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(ConfigError::Range {
                    field,
                    value: ip.to_string(),
                    rule: "one address of this machine, since it is told to the endpoints",
                });
            }
        }
        if let Some(metrics) = self.metrics
            && !metrics.ip().is_loopback()
            && !self.metrics_allow_remote
        {
            return Err(ConfigError::MetricsNotLoopback(metrics));
        }
        self.mediacontrol.check()?;
        self.agentgateway.check()?;
        if let Some(listen) = self.agentgateway.listen.filter(|_| self.tls.is_none()) {
            return Err(ConfigError::AgentGatewayWithoutTls(listen));
        }
        self.icws.check()?;
        for (field, listen) in [("icws.listen", self.icws.listen), ("verba.listen", self.verba.listen)] {
            if let Some(address) = listen.filter(|listen| !listen.ip().to_canonical().is_loopback())
                && self.tls.is_none()
            {
                return Err(ConfigError::PlainNotLoopback { field, address });
            }
        }
        self.seeds().check().map_err(ConfigError::Accounts)?;
        let shard_cpus = self.shard_cpus(&machine.cpus)?;
        let port_pairs = self.ports.pairs().count() * self.addresses().len();
        // A connection has two sockets, which the table of a ring's registered files has to hold too.
        let by_files = usize::try_from(machine.files.saturating_sub(FILES_RESERVED) / 2).unwrap_or(usize::MAX);
        let shard_connections_max = (2 * port_pairs).clamp(SHARD_CONNECTIONS_MIN, CONNECTIONS_MAX).min(by_files);
        let state_dir = self.state_dir()?;
        Ok(Derived {
            shard_connections_max: u32::try_from(shard_connections_max).unwrap_or(u32::MAX),
            conferences_max: shard_cpus.len() * CONFERENCES_MAX,
            shard_cpus,
            port_pairs,
            audio_root: self.audio_root.clone().unwrap_or_else(|| state_dir.join("audio")),
            recording_root: self.recording_root.clone().unwrap_or_else(|| state_dir.join("recordings")),
            state_dir,
        })
    }

    /// The state directory, given or not.
    ///
    /// # Errors
    /// It is not given, and there is nowhere to look for it.
    pub fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        match &self.state_dir {
            Some(dir) => Ok(dir.clone()),
            None => default_state_dir().ok_or(ConfigError::NoDefault { field: "state_dir" }),
        }
    }

    /// What the database gets from here.
    pub fn seeds(&self) -> Seeds {
        Seeds { users: self.users.clone(), agents: self.agents.clone(), api_keys: self.api_keys.clone() }
    }

    /// Every local address of media sockets, once.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.interfaces.values().copied().chain([self.bind]).collect()
    }

    fn shard_cpus(&self, allowed: &[usize]) -> Result<Vec<Option<usize>>, ConfigError> {
        let cpus = if self.cpus.0.is_empty() { allowed } else { &self.cpus.0 };
        if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(ConfigError::Range {
                field: "cpus",
                value: cpu.to_string(),
                rule: "a core this process may run on",
            });
        }
        let shards = match self.shards {
            ShardCount::Auto => cpus.len().max(1),
            ShardCount::Fixed(shards) => usize::from(shards),
        };
        if shards > usize::from(u8::MAX) {
            return Err(ConfigError::TooManyCores(shards));
        }
        let pinned = shards <= cpus.len();
        Ok((0..shards).map(|shard| cpus.get(shard).copied().filter(|_| pinned)).collect())
    }
}

/// The codec of `name[/clock[/channels]]` (RFC 8866 section 6.6: names don't depend on case). L16 without a clock is at
/// 8 kHz; a clock or a number of channels that is not the codec's is none of its formats. Opus is always negotiated with
/// two channels (RFC 7587 section 7), whatever is sent.
pub fn codec_by_name(name: &str) -> Option<CodecKind> {
    let mut parts = name.split('/');
    let encoding = parts.next()?;
    let clock = parts.next().map(str::parse::<u32>).transpose().ok()?;
    let channels = parts.next().map(str::parse::<u8>).transpose().ok()?;
    let fits = |kind: &&CodecKind| {
        kind.name().eq_ignore_ascii_case(encoding)
            && clock.is_none_or(|clock| clock == kind.clock_rate_hz())
            && channels.is_none_or(|channels| channels == if **kind == CodecKind::Opus { 2 } else { 1 })
    };
    CODECS.iter().find(fits).copied().filter(|_| parts.next().is_none())
}

/// The name of a codec as it is given here: its encoding name, for L16 with the clock.
pub fn codec_name(kind: CodecKind) -> &'static str {
    match kind {
        CodecKind::L16(Rate::Narrow) => "L16/8000",
        CodecKind::L16(Rate::Wide) => "L16/16000",
        CodecKind::L16(Rate::Full) => "L16/48000",
        CodecKind::Pcmu
        | CodecKind::Pcma
        | CodecKind::G722
        | CodecKind::Gsm
        | CodecKind::G723
        | CodecKind::G729
        | CodecKind::Opus => kind.name(),
    }
}

/// Those that are decoded whatever was loaded, in words.
const CODECS_DECODED: &str = "PCMU, PCMA, G722, opus, L16/8000, L16/16000, L16/48000 or GSM";

/// Every codec that can be negotiated.
pub const CODECS: &[CodecKind] = &[
    CodecKind::Pcmu,
    CodecKind::Pcma,
    CodecKind::G722,
    CodecKind::Opus,
    CodecKind::L16(Rate::Narrow),
    CodecKind::L16(Rate::Wide),
    CodecKind::L16(Rate::Full),
    CodecKind::Gsm,
    CodecKind::G723,
    CodecKind::G729,
];

/// The control sockets that are looked for and made when none is configured, best first.
pub fn default_control_sockets() -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/run/ringbridge/control.sock")];
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        paths.push(PathBuf::from(dir).join("ringbridge/control.sock"));
    }
    paths
}

/// [`Config::batch_wait_us`] as a duration.
pub fn batch_wait(config: &Config) -> Duration {
    Duration::from_micros(u64::from(config.batch_wait_us))
}

fn default_state_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/ringbridge"));
    }
    let home = |name: &str| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let state = home("XDG_STATE_HOME").or_else(|| Some(home("HOME")?.join(".local/state")))?;
    Some(state.join("ringbridge"))
}

fn within(field: &'static str, value: u32, min: u32, max: u32, rule: &'static str) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Range { field, value: value.to_string(), rule })
}

fn codec<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CodecKind, D::Error> {
    let name = String::deserialize(deserializer)?;
    codec_by_name(&name)
        .filter(|kind| kind.is_decodable())
        .ok_or_else(|| serde::de::Error::custom(format!("`{name}` is no codec to begin with: {CODECS_DECODED}")))
}

/// A prefix names a whole host and whole segments, so that nothing else can begin with it.
fn is_webhook_prefix(prefix: &str) -> bool {
    prefix.strip_prefix("http://").is_some_and(|rest| rest.len() > 1 && !rest.starts_with('/') && rest.ends_with('/'))
}

/// Descriptors kept free for everything that is not a media socket: rings, clients, files.
const FILES_RESERVED: u64 = 256;
/// Slots of a shard's table, at least.
const SHARD_CONNECTIONS_MIN: usize = 64;
