//! The configuration: one struct, read once, checked whole, printed at start with its derived sizes.
//!
//! Every field has a default; a key that is not known is an error. Options of the command line win over the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ringbridge_media::command::CodecKind;
use ringbridge_media::limits::{CONFERENCES_MAX, CONNECTIONS_MAX, RELAY_PTIME_MS_MAX};
use serde::{Deserialize, Deserializer};

use crate::files::check_command;
use crate::quota::QuotaConfig;
use crate::store::seed::{AgentSeed, KeySeed, Seeds, UserSeed};
use crate::tls::TlsFiles;

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

/// How the MediaControl API behaves. Without `listen` it is there for the control socket only.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaControlConfig {
    /// Where it is served over plain HTTP; off by default. Any other address than loopback needs a `token`.
    pub listen: Option<SocketAddr>,
    /// What clients that are not on this machine have to show as a bearer token.
    pub token: Option<Secret>,
    /// Number of this engine, `1 ..= 255`: the high byte of its ids.
    pub mms_id: u8,
    /// Answers 4, 8 and 14 with branches of their own instead of Failure.
    pub fine_branches: bool,
    /// Answers the start of an operation with ResultCode 0 instead of 1.
    pub started_as_zero: bool,
    /// Tells the end of data as `oed` instead of `eod`.
    pub legacy_oed: bool,
    /// Deletes the connections of a script that has ended, or has not read its events for the grace.
    pub sandbox: bool,
    /// How long a script's subscriber may be away, in milliseconds, `0 ..= 3600000`.
    pub sandbox_grace_ms: u32,
    /// Events may be posted to addresses that begin with one of these; none by default.
    pub webhooks: Vec<String>,
}

impl Default for MediaControlConfig {
    fn default() -> Self {
        Self {
            listen: None,
            token: None,
            mms_id: 1,
            fine_branches: false,
            started_as_zero: false,
            legacy_oed: false,
            sandbox: true,
            sandbox_grace_ms: 30_000,
            webhooks: Vec::new(),
        }
    }
}

/// How the Verba API behaves. Without `listen` it is not there, and no call is recorded by a rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerbaConfig {
    /// Where it is served; off by default. Over TLS if there is a certificate, else on loopback only.
    pub listen: Option<SocketAddr>,
    /// Numbers whose calls are recorded; `*` is every call.
    pub always: Vec<String>,
    /// Numbers whose calls are recorded, and thrown away at their end unless somebody keeps them; likewise.
    pub on_demand: Vec<String>,
}

/// How the AgentGateway API behaves.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentGatewayConfig {
    /// Where it is served, over HTTPS only: needs `tls`. Off by default.
    pub listen: Option<SocketAddr>,
    /// Name of this gateway: the end of every session id.
    pub name: String,
    /// 1: the session id of a sign-in stays valid. 2: every poll or handshake gives another one.
    pub auth_mode: u8,
    /// Where telephone numbers are: the RTP address of each.
    pub directory: BTreeMap<String, SocketAddr>,
    /// Folder below the audio root that stands for `drive:/conf`.
    pub announcements: String,
    /// How long somebody who is called may take, in milliseconds, `1000 ..= 600000`.
    pub answer_timeout_ms: u32,
    /// Events may be posted to addresses that begin with one of these; none by default.
    pub callbacks: Vec<String>,
    /// Certificates in PEM that are trusted where events are posted to `https://`.
    pub callback_ca: Option<PathBuf>,
}

impl Default for AgentGatewayConfig {
    fn default() -> Self {
        Self {
            listen: None,
            name: "AgentGateway1".to_owned(),
            auth_mode: 1,
            directory: BTreeMap::new(),
            announcements: "conf".to_owned(),
            answer_timeout_ms: 60_000,
            callbacks: Vec::new(),
            callback_ca: None,
        }
    }
}

impl AgentGatewayConfig {
    fn check(&self) -> Result<(), ConfigError> {
        within("agentgateway.auth_mode", u32::from(self.auth_mode), 1, 2, "1 or 2")?;
        within("agentgateway.answer_timeout_ms", self.answer_timeout_ms, 1_000, 600_000, "1000 to 600000")?;
        let range = |field, value: &str, rule| Err(ConfigError::Range { field, value: value.to_owned(), rule });
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(plain) {
            return range("agentgateway.name", &self.name, "1 to 64 letters, digits, - or _");
        }
        if self.announcements.starts_with('/') || self.announcements.split('/').any(|part| part == "..") {
            return range("agentgateway.announcements", &self.announcements, "a path below the audio root");
        }
        let plain = |prefix: &str| prefix.strip_prefix("https://").map(|rest| format!("http://{rest}"));
        let is_prefix = |prefix: &str| is_webhook_prefix(plain(prefix).as_deref().unwrap_or(prefix));
        if let Some(prefix) = self.callbacks.iter().find(|prefix| !is_prefix(prefix)) {
            let rule = "of the form https://host:port/ or http://host:port/ with a path that ends with a slash";
            return range("agentgateway.callbacks", prefix, rule);
        }
        if let Some(prefix) = self.callbacks.iter().find(|prefix| plain(prefix).is_some() && self.callback_ca.is_none())
        {
            let rule = "an http:// address unless `agentgateway.callback_ca` names the certificates to trust";
            return range("agentgateway.callbacks", prefix, rule);
        }
        let unusable = |address: &SocketAddr| address.port() == 0 || address.ip().is_unspecified();
        match self.directory.iter().find(|(_, address)| unusable(address)) {
            Some((_, address)) => range("agentgateway.directory", &address.to_string(), "addresses with a port"),
            None => Ok(()),
        }
    }
}

/// How the ICWS API behaves; without `listen` it is off.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IcwsConfig {
    /// Where it is served: over TLS if there is a certificate, else over plain HTTP on loopback only.
    pub listen: Option<SocketAddr>,
    /// Origins of web pages that may use it, such as `https://phone.example.com`; none by default.
    pub origins: Vec<String>,
    /// Telephones messages can be played on, besides connections with the label `station:ID`.
    pub stations: Vec<StationConfig>,
}

/// A telephone messages can be played on.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StationConfig {
    /// What clients call it.
    pub id: String,
    /// Its number.
    pub number: Option<String>,
    /// Where it takes RTP while there is no connection with the label `station:ID`.
    pub remote: Option<SocketAddr>,
    /// Codec of that RTP; as `rtp.codec` if absent.
    pub codec: Option<String>,
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
        }
    }
}

impl IcwsConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, value: &str, rule| Err(ConfigError::Range { field, value: value.to_owned(), rule });
        for station in &self.stations {
            let same = |other: &&StationConfig| other.id == station.id || other.number.as_ref() == Some(&station.id);
            if station.id.is_empty() || station.id.len() > STATION_BYTES_MAX {
                return wrong("icws.stations.id", &station.id, "1 to 128 bytes long");
            }
            if self.stations.iter().filter(same).count() > 1 {
                return wrong("icws.stations.id", &station.id, "the id or number of one station only");
            }
            if let Some(codec) = &station.codec
                && codec_by_name(codec).is_none_or(|kind| !kind.is_decodable())
            {
                return wrong("icws.stations.codec", codec, "PCMU or PCMA");
            }
        }
        let is_origin = |origin: &&String| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| {
                !host.is_empty() && !host.contains('/') && host.bytes().all(|b| b.is_ascii_graphic())
            })
        };
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => wrong("icws.origins", origin, "of the form https://host or https://host:port"),
            None => Ok(()),
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
        let api = &self.mediacontrol;
        within("mediacontrol.mms_id", u32::from(api.mms_id), 1, 255, "1 to 255")?;
        within("mediacontrol.sandbox_grace_ms", api.sandbox_grace_ms, 0, 3_600_000, "0 to 3600000")?;
        if let Some(prefix) = api.webhooks.iter().find(|prefix| !is_webhook_prefix(prefix)) {
            return Err(ConfigError::Range {
                field: "mediacontrol.webhooks",
                value: prefix.clone(),
                rule: "of the form http://host:port/ with a path that ends with a slash",
            });
        }
        if let Some(listen) = api.listen.filter(|listen| !listen.ip().is_loopback())
            && api.token.as_ref().is_none_or(|token| token.0.is_empty())
        {
            return Err(ConfigError::MediaControlWithoutToken(listen));
        }
        self.agentgateway.check()?;
        if let Some(listen) = self.agentgateway.listen.filter(|_| self.tls.is_none()) {
            return Err(ConfigError::AgentGatewayWithoutTls(listen));
        }
        self.icws.check()?;
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

/// Number of shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardCount {
    /// One for each core.
    Auto,
    /// This many, `1 ..= 255`.
    Fixed(u8),
}

impl FromStr for ShardCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => match number.parse() {
                Ok(shards @ 1..) => Ok(Self::Fixed(shards)),
                Ok(0) | Err(_) => Err(format!("`{text}` is no number of shards: 1 to 255, or auto")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for ShardCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Text(String),
        }
        let text = match Given::deserialize(deserializer)? {
            Given::Number(number) => number.to_string(),
            Given::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A list of cores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuList(pub Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    /// Reads `0-3,6`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no list of cores like 0-3,6");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| wrong())?;
            let last: usize = last.trim().parse().map_err(|_| wrong())?;
            if first > last || last >= CPU_NUMBER_MAX {
                return Err(wrong());
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("core {cpu} stands twice in `{text}`"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Numbers(Vec<usize>),
            Text(String),
        }
        let text = match Given::deserialize(deserializer)? {
            Given::Numbers(numbers) if numbers.is_empty() => return Ok(Self::default()),
            Given::Numbers(numbers) => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
            Given::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Local media ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    lo: u16,
    hi: u16,
}

impl PortRange {
    /// The range from `lo` to `hi`, both included.
    ///
    /// # Errors
    /// A sentence, if `lo` is odd or below 1024 or there is no pair in the range.
    pub fn new(lo: u16, hi: u16) -> Result<Self, String> {
        if lo % 2 == 1 || lo < 1024 || hi <= lo {
            return Err(format!("{lo}-{hi} is no range of ports: the first is even, at least 1024 and below the last"));
        }
        Ok(Self { lo, hi })
    }

    /// The even port of every pair, ascending.
    pub fn pairs(self) -> impl Iterator<Item = u16> {
        (self.lo..self.hi).step_by(2)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no range of ports like 30000-49999");
        let (lo, hi) = text.split_once('-').ok_or_else(wrong)?;
        Self::new(lo.trim().parse().map_err(|_| wrong())?, hi.trim().parse().map_err(|_| wrong())?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lo, self.hi)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The codec of an encoding name (RFC 8866 section 6.6: names don't depend on case).
pub fn codec_by_name(name: &str) -> Option<CodecKind> {
    CODECS.iter().copied().find(|kind| codec_name(*kind).eq_ignore_ascii_case(name))
}

/// The encoding name of a codec.
pub fn codec_name(kind: CodecKind) -> &'static str {
    match kind {
        CodecKind::Pcmu => "PCMU",
        CodecKind::Pcma => "PCMA",
        CodecKind::G723 => "G723",
        CodecKind::G729 => "G729",
    }
}

/// Every codec that can be negotiated.
pub const CODECS: &[CodecKind] = &[CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G723, CodecKind::G729];

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
        .ok_or_else(|| serde::de::Error::custom(format!("`{name}` is no codec to begin with: PCMU or PCMA")))
}

/// A prefix names a whole host and whole segments, so that nothing else can begin with it.
fn is_webhook_prefix(prefix: &str) -> bool {
    prefix.strip_prefix("http://").is_some_and(|rest| rest.len() > 1 && !rest.starts_with('/') && rest.ends_with('/'))
}

/// Descriptors kept free for everything that is not a media socket: rings, clients, files.
const FILES_RESERVED: u64 = 256;
/// Slots of a shard's table, at least.
const SHARD_CONNECTIONS_MIN: usize = 64;
/// Bytes of a station's id.
const STATION_BYTES_MAX: usize = 128;
/// Cores are numbered below this.
const CPU_NUMBER_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: &[usize]) -> Machine {
        Machine { cpus: cpus.to_vec(), files: 65_536 }
    }

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").expect("empty"), Config::default());
    }

    #[test]
    fn every_field_can_be_given() {
        let config = parse(
            r#"
            shards = 3
            cpus = "0-2,5"
            bind = "127.0.0.2"
            ports = "20000-20009"
            control_socket = "/tmp/x.sock"
            control_group = "media"
            metrics = "127.0.0.1:9100"
            metrics_allow_remote = true
            state_dir = "/tmp/state"
            audio_root = "/tmp/audio"
            recording_root = "/tmp/recordings"
            recording_sweep_minutes = 1440
            batch_wait_us = 0
            prompt_cache_mib = 1
            media_threads = 1
            drain_deadline_ms = 0
            fault_injection = true
            [interfaces]
            outside = "127.0.0.3"
            [rtp]
            codec = "pcma"
            ptime_ms = 30
            telephone_event_pt = 96
            dscp = 0
            rtp_timeout_ms = 5000
            handover = true
            [mediacontrol]
            listen = "192.0.2.1:8080"
            token = "secret"
            mms_id = 7
            fine_branches = true
            started_as_zero = true
            legacy_oed = true
            sandbox = false
            sandbox_grace_ms = 0
            webhooks = ["http://127.0.0.1:9000/events/"]
            [icws]
            listen = "127.0.0.1:8018"
            origins = ["https://phone.example.com"]
            [[icws.stations]]
            id = "desk"
            number = "7001"
            remote = "192.0.2.7:4000"
            codec = "PCMA"
            [quota]
            profile = "sdk"
            rtp = 10
            enhanced_rtp = 1
            voice = 2
            conference = 3
            speech = 0
            tts = 4
            [tts]
            command = ["flite", "-o", "{output}", "--", "{text}"]
            time_limit_ms = 100
            cache_mib = 1
            [tls]
            cert = "/etc/ringbridge/cert.pem"
            key = "/etc/ringbridge/key.pem"
            [[users]]
            name = "anna"
            password_file = "/etc/ringbridge/anna"
            [[agents]]
            work_number = 101
            no_password = true
            [[api_keys]]
            name = "crm"
            key_file = "/etc/ringbridge/crm"
            scopes = ["verba"]
            "#,
        )
        .expect("valid");
        assert_eq!((config.users.len(), config.agents.len(), config.api_keys.len()), (1, 1, 1));
        assert_eq!(config.cpus.0, [0, 1, 2, 5]);
        assert_eq!(config.rtp.codec, CodecKind::Pcma);
        let derived = config.derive(&machine(&[0, 1, 2, 5])).expect("in range");
        assert_eq!(derived.shard_cpus, [Some(0), Some(1), Some(2)]);
        assert_eq!((derived.port_pairs, derived.shard_connections_max), (10, 64));
        assert_eq!(derived.recording_root, Path::new("/tmp/recordings"));
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn the_documentation_is_complete() {
        // serde lists every key when it meets one it does not know.
        let documented = include_str!("../../docs/configuration.md");
        for (text, section, keys_min) in [
            ("no_such_key = 1", "", 20),
            ("[rtp]\nno_such_key = 1", "rtp.", 6),
            ("[quota]\nno_such_key = 1", "quota.", 7),
            ("[tts]\nno_such_key = 1", "tts.", 3),
            ("[mediacontrol]\nno_such_key = 1", "mediacontrol.", 9),
            ("[verba]\nno_such_key = 1", "verba.", 3),
            ("[agentgateway]\nno_such_key = 1", "agentgateway.", 7),
            ("[icws]\nno_such_key = 1", "icws.", 3),
            ("[[icws.stations]]\nno_such_key = 1", "icws.stations.", 4),
            ("[tls]\nno_such_key = 1", "tls.", 2),
            ("[[users]]\nno_such_key = 1", "users.", 8),
            ("[[agents]]\nno_such_key = 1", "agents.", 9),
            ("[[api_keys]]\nno_such_key = 1", "api_keys.", 7),
        ] {
            let error = parse(text).expect_err("unknown");
            let known = error.split(", expected ").nth(1).expect("a list").split('`');
            let keys: Vec<&str> = known.skip(1).step_by(2).collect();
            assert!(keys.len() >= keys_min, "{error}");
            let tables = [
                "rtp",
                "quota",
                "tts",
                "mediacontrol",
                "agentgateway",
                "icws",
                "verba",
                "tls",
                "users",
                "agents",
                "api_keys",
            ];
            for key in keys.iter().filter(|key| !tables.contains(key)) {
                assert!(documented.contains(&format!("`{section}{key}`")), "{section}{key}");
            }
        }
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_named() {
        for (text, part) in [
            ("shard = 3", "shard"),
            ("shards = 0", "1 to 255"),
            ("shards = \"many\"", "1 to 255"),
            ("ports = \"30001-30010\"", "even"),
            ("ports = \"30000\"", "range of ports"),
            ("cpus = \"3-1\"", "list of cores"),
            ("cpus = [1, 1]", "twice"),
            ("[rtp]\ncodec = \"opus\"", "PCMU or PCMA"),
            ("[rtp]\nptime = 20", "ptime"),
            ("[quota]\nprofile = \"gold\"", "cuae-standard"),
            ("[quota]\nrtp = -1", "rtp"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn ranges_are_checked_as_a_whole() {
        let check = |change: fn(&mut Config), part: &str| {
            let mut config = Config { state_dir: Some("/tmp".into()), ..Config::default() };
            change(&mut config);
            let error = config.derive(&machine(&[0, 1])).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        };
        check(|config| config.batch_wait_us = 1001, "batch_wait_us");
        check(|config| config.prompt_cache_mib = 0, "prompt_cache_mib");
        check(|config| config.media_threads = 65, "media_threads");
        check(|config| config.drain_deadline_ms = 3_600_001, "drain_deadline_ms");
        check(|config| config.rtp.ptime_ms = 0, "rtp.ptime_ms");
        check(|config| config.rtp.telephone_event_pt = 95, "rtp.telephone_event_pt");
        check(|config| config.rtp.dscp = 64, "rtp.dscp");
        check(|config| config.recording_sweep_minutes = 0, "recording_sweep_minutes");
        check(|config| config.tts.time_limit_ms = 99, "tts.time_limit_ms");
        check(|config| config.tts.cache_mib = 0, "tts.cache_mib");
        check(|config| config.tts.command = Some(vec!["flite".into(), "{text}".into()]), "tts.command");
        check(|config| config.bind = Ipv4Addr::UNSPECIFIED.into(), "bind");
        check(|config| config.metrics = Some(([192, 0, 2, 1], 9100).into()), "metrics_allow_remote");
        check(|config| config.cpus = CpuList(vec![7]), "cpus");
        check(|config| config.mediacontrol.mms_id = 0, "mediacontrol.mms_id");
        check(|config| config.mediacontrol.sandbox_grace_ms = 3_600_001, "mediacontrol.sandbox_grace_ms");
        check(|config| config.mediacontrol.listen = Some(([192, 0, 2, 1], 80).into()), "mediacontrol.token");
        let callbacks = |prefix: &str| {
            let config = AgentGatewayConfig { callbacks: vec![prefix.to_owned()], ..AgentGatewayConfig::default() };
            config.check().expect_err(prefix).to_string()
        };
        assert!(callbacks("https://127.0.0.1/").contains("agentgateway.callback_ca"));
        assert!(callbacks("https://127.0.0.1").contains("ends with a slash"));
        assert!(callbacks("ftp://127.0.0.1/").contains("ends with a slash"));
        check(|config| config.agentgateway.listen = Some(([127, 0, 0, 1], 8043).into()), "check --make-cert DIR");
        check(|config| config.mediacontrol.webhooks = vec!["http://127.0.0.1:9000".into()], "mediacontrol.webhooks");
        check(|config| config.mediacontrol.webhooks = vec!["https://127.0.0.1/".into()], "mediacontrol.webhooks");
        check(|config| config.icws.origins = vec!["https://phone.example.com/".into()], "icws.origins");
        let stations = |text: &str| toml::from_str::<Config>(text).unwrap().icws;
        let twice = stations("[icws]\nstations = [{id = \"a\"}, {id = \"b\", number = \"a\"}]");
        assert!(twice.check().unwrap_err().to_string().contains("one station only"));
        let codec = stations("[icws]\nstations = [{id = \"a\", codec = \"G729\"}]");
        assert!(codec.check().unwrap_err().to_string().contains("PCMU or PCMA"));
        check(|config| config.users = toml::from_str::<Config>("[[users]]\nname = \"a\"").unwrap().users, "user a");
    }

    #[test]
    fn more_shards_than_cores_are_not_pinned() {
        let config = Config { shards: ShardCount::Fixed(3), state_dir: Some("/tmp".into()), ..Config::default() };
        assert_eq!(config.derive(&machine(&[0, 1])).expect("valid").shard_cpus, [None, None, None]);
        let config = Config { state_dir: Some("/tmp".into()), ..Config::default() };
        assert_eq!(config.derive(&machine(&[4, 6])).expect("valid").shard_cpus, [Some(4), Some(6)]);
    }
}
