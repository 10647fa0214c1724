//! `ringbridge serve`

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ringbridge_shard::executor::{self, Peers};
use ringbridge_shard::probe::{self, Problem, Wanted};
use ringbridge_shard::sockets::raise_nofile_limit;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, CpuList, Machine, PortRange, ShardCount};
use crate::server::{self, ServeError, StartShard};

/// Options of the server; each wins over the same setting in the configuration file.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Number of shards, or `auto`: one for each core.
    #[arg(long, value_name = "N|auto")]
    shards: Option<ShardCount>,
    /// Cores the shards are pinned to, such as 0-3,6.
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// Local address of media sockets.
    #[arg(long, value_name = "IP")]
    bind: Option<IpAddr>,
    /// Local media ports.
    #[arg(long, value_name = "LO-HI")]
    ports: Option<PortRange>,
    /// Where the control socket is made.
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Listener of the MediaControl API (plain HTTP).
    #[arg(long, value_name = "IP:PORT")]
    mediacontrol: Option<SocketAddr>,
    /// Listener of the AgentGateway API (HTTPS only: needs `[tls]`).
    #[arg(long, value_name = "IP:PORT")]
    agentgateway: Option<SocketAddr>,
    /// Listener of the ICWS API.
    #[arg(long, value_name = "IP:PORT")]
    icws: Option<SocketAddr>,
    /// Listener of the Verba API.
    #[arg(long, value_name = "IP:PORT")]
    verba: Option<SocketAddr>,
    /// Listener of the ng protocol (not supported in this version).
    #[arg(long, value_name = "IP:PORT")]
    ng: Option<SocketAddr>,
    /// Where Prometheus metrics are served.
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// Where the server keeps what it writes.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Prompts are read below this directory.
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
}

pub(super) fn main(args: ServeArgs) -> ExitCode {
    let filter = EnvFilter::try_from_env("RINGBRIDGE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    if let Some(option) = args.missing_adapter() {
        eprintln!("ringbridge: {option} is not supported in this version");
        return ExitCode::FAILURE;
    }
    match args.into_config().map_err(ServeError::from).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringbridge: {error}");
            ExitCode::FAILURE
        }
    }
}

impl ServeArgs {
    fn missing_adapter(&self) -> Option<&'static str> {
        [("--ng", self.ng)].into_iter().find_map(|(option, address)| address.map(|_| option))
    }

    pub(super) fn into_config(self) -> Result<Config, ConfigError> {
        let mut config = self.config.as_deref().map(Config::from_file).transpose()?.unwrap_or_default();
        config.shards = self.shards.unwrap_or(config.shards);
        config.cpus = self.cpus.unwrap_or(config.cpus);
        config.bind = self.bind.unwrap_or(config.bind);
        config.ports = self.ports.unwrap_or(config.ports);
        config.control_socket = self.control_socket.or(config.control_socket);
        config.metrics = self.metrics.or(config.metrics);
        config.mediacontrol.listen = self.mediacontrol.or(config.mediacontrol.listen);
        config.verba.listen = self.verba.or(config.verba.listen);
        config.agentgateway.listen = self.agentgateway.or(config.agentgateway.listen);
        config.icws.listen = self.icws.or(config.icws.listen);
        config.state_dir = self.state_dir.or(config.state_dir);
        config.audio_root = self.audio_root.or(config.audio_root);
        Ok(config)
    }
}

fn serve(config: Config) -> Result<(), ServeError> {
    let io = |what| move |source| ServeError::Io { what, source };
    let machine = machine().map_err(io("can't tell the limit of open files"))?;
    let derived = config.derive(&machine)?;
    let shards = derived.shard_cpus.len();
    let ports = u32::try_from(derived.port_pairs * 2).unwrap_or(u32::MAX);
    let wanted = Wanted { shards: u32::try_from(shards).unwrap_or(u32::MAX), ports };
    for problem in probe::probe().problems(wanted) {
        // With fewer files than ports the server runs, with room for fewer connections.
        let runs_smaller = matches!(problem, Problem::TooFewFiles { .. }) && derived.shard_connections_max > 0;
        if problem.is_fatal() && !runs_smaller {
            return Err(problem.into());
        }
        tracing::warn!("{problem}");
    }
    if let Some(path) = &config.rtp.g729_library {
        let failed = |source| ServeError::Codec { path: path.clone(), source };
        ringbridge_codec::g729::load(path).map_err(failed)?;
        tracing::info!(library = %path.display(), "G.729 is decoded and encoded");
    }
    let peers = Peers::new(u8::try_from(shards).unwrap_or(u8::MAX)).map_err(io("out of file descriptors"))?;
    let start_shard: StartShard =
        Arc::new(move |config, doorbell| executor::start(config, Arc::clone(&peers), doorbell).map_err(Box::from));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("can't start the control plane's runtime"))?;
    LocalSet::new().block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate()).map_err(io("can't listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io("can't listen for SIGINT"))?;
        let (sender, stops) = mpsc::channel(1);
        spawn_local(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("told to stop; once more ends what is being drained");
                // One that is waiting already says the same.
                let _ = sender.try_send(());
            }
        });
        server::run(config, &machine, start_shard, stops, announce).await
    })
}

fn announce(control: &Path, shards: usize) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading: the server runs all the same.
    drop(writeln!(out, "ready control={} shards={shards}", control.display()).and_then(|()| out.flush()));
}

/// What this process may use, its limit of open files raised as far as the system allows.
pub(super) fn machine() -> std::io::Result<Machine> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let cpus = (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
    Ok(Machine { cpus, files: raise_nofile_limit()? })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn args(line: &[&str]) -> ServeArgs {
        Options::try_parse_from([&["serve"], line].concat()).expect("valid").serve
    }

    #[test]
    fn options_win_over_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ringbridge.toml");
        std::fs::write(&file, "shards = 4\nports = \"20000-20099\"\nbatch_wait_us = 0\n").expect("written");
        let file = file.to_str().expect("text");
        let config = args(&["--config", file, "--shards", "2", "--bind", "127.0.0.5"]).into_config().expect("valid");
        assert_eq!(config.shards, ShardCount::Fixed(2));
        assert_eq!(config.ports.to_string(), "20000-20099");
        assert_eq!(config.bind, IpAddr::from([127, 0, 0, 5]));
        assert_eq!(config.batch_wait_us, 0);
    }

    #[test]
    fn adapters_are_refused_by_name() {
        assert_eq!(args(&["--ng", "127.0.0.1:1"]).missing_adapter(), Some("--ng"));
        assert_eq!(args(&["--metrics", "127.0.0.1:1"]).missing_adapter(), None);
    }

    #[test]
    fn some_core_is_allowed() {
        let machine = machine().expect("limits");
        assert!(!machine.cpus.is_empty() && machine.files > 0);
    }
}
