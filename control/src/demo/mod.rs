//! `ringbridge demo`: the main job on real speech, with nothing set up.
//!
//! Starts a server of its own, talks to it over the control socket only, sends it real speech from real UDP endpoints, and
//! then proves by numbers that everybody heard what they should, and from which timestamp on they no longer did.
//!
//! ```text
//!  scenario ── drives ──▶ server (a child process)
//!     │                      ▲ RTP
//!     │ endpoints ◀──────────┘
//!     ▼
//!  Session ──▶ judge ──▶ Judgement ──▶ report
//!  (sent, heard,  (pure)   (verdicts,
//!   stamps)                 delays)
//! ```

mod checks;
mod clips;
mod endpoint;
mod judge;
mod report;
mod scenario;
mod server;
mod session;
mod signal;
mod stream;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hound::{SampleFormat, WavSpec, WavWriter};
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::ClientError;
use judge::{Judgement, judge};
use scenario::Scenario;
use server::Server;
use session::Session;
use stream::Heard;

/// How often the demo is run on a machine that is too busy.
const ATTEMPTS_MAX: usize = 3;
/// An endpoint that speaks later than this is heard with holes, whatever the server does: packets wait 20 ms for each
/// other.
const LATENESS_MAX: Duration = Duration::from_millis(40);

/// Options of the demo.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Where what was heard goes, as WAV files. Created if need be; files of earlier demos are replaced.
    #[arg(long, value_name = "DIR", default_value = "ringbridge-demo")]
    pub out_dir: PathBuf,
    /// The server to run; this program by default.
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
}

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The operating system refused.
    #[error("can't {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The server did not start, or did not end as it should.
    #[error("the server failed: {0}")]
    Server(String),
    /// The control socket failed, or refused a command.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer lacks something it has to hold.
    #[error("an answer of the server is not as documented: {0}")]
    Answer(String),
    /// Something did not happen in a minute.
    #[error("waited in vain for {0}")]
    Waited(String),
    /// A WAV file can't be read or written.
    #[error("{}: {source}", path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: hound::Error,
    },
    /// Claims that do not hold.
    #[error("{} of the demo's checks failed:\n{}", .0.len(), .0.join("\n"))]
    Failed(Vec<String>),
}

impl DemoError {
    fn io(action: &'static str, source: io::Error) -> Self {
        Self::Io { action, source }
    }
}

/// Runs the demo: some fifteen seconds.
///
/// If a check fails while the machine was so busy that the endpoints themselves spoke late, that proves nothing about the
/// server: it is then run again, up to twice.
///
/// # Errors
/// If the server can't be driven, or a check fails; the check is named.
pub fn run(args: DemoArgs) -> Result<(), DemoError> {
    let executable = match args.server {
        Some(path) => path,
        None => std::env::current_exe().map_err(|error| DemoError::io("find this program", error))?,
    };
    for attempts_left in (0..ATTEMPTS_MAX).rev() {
        let (judgement, lateness) = attempt(&executable, &args.out_dir)?;
        let failures = judgement.failures();
        if failures.is_empty() {
            return Ok(());
        }
        if lateness < LATENESS_MAX || attempts_left == 0 {
            return Err(DemoError::Failed(failures));
        }
        println!(
            "\nThis machine is too busy to tell: an endpoint spoke {} ms late. Once more …\n",
            lateness.as_millis()
        );
    }
    Ok(())
}

/// Runs the demo once and shows what came of it. Also told: how late the endpoints spoke.
fn attempt(executable: &Path, out_dir: &Path) -> Result<(Judgement, Duration), DemoError> {
    let style =
        ProgressStyle::with_template("{bar:30} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let progress = ProgressBar::new(scenario::STEPS).with_style(style);
    progress.enable_steady_tick(Duration::from_millis(200));
    let directory =
        tempfile::tempdir().map_err(|error| DemoError::io("create a directory for the server's files", error))?;
    let audio = directory.path().join(server::AUDIO);
    std::fs::create_dir(&audio)
        .and_then(|()| std::fs::write(audio.join(scenario::ANNOUNCEMENT_FILE), clips::ANNOUNCEMENT))
        .map_err(|error| DemoError::io("write the announcement", error))?;

    let server = Server::start(executable, directory.path())?;
    let mut scenario = Scenario::new(&server.socket(), directory.path(), &progress)?;
    let session = scenario.play().map_err(|error| {
        if matches!(error, DemoError::Client(ClientError::Closed)) {
            // It may have said why.
            return DemoError::Server(format!("it is gone\n{}", server.log()));
        }
        error
    })?;
    let answers_us = std::mem::replace(&mut scenario.answers_us, judge::histogram());
    drop(scenario);
    server.stop()?;
    write_files(out_dir, &session)?;
    let judgement = judge(&session);
    progress.finish_and_clear();

    let latencies = report::latencies(&[
        ("relay, socket to socket", &judgement.relay_us),
        ("mix, socket to socket, with jitter buffer", &judgement.mix_us),
        ("command to answer", &answers_us),
    ]);
    println!("{}\n{}\n{latencies}", report::verdicts(&judgement), report::effects(&judgement));
    println!("What everybody heard: {}", out_dir.display());
    Ok((judgement, session.lateness()))
}

/// Writes what everybody heard, and the recording with its manifest.
fn write_files(directory: &Path, session: &Session) -> Result<(), DemoError> {
    let failed = |error| DemoError::io("write to the demo's directory", error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    let groups = [("relay", &session.relay[..]), ("conference", &session.members[..])];
    for (group, members) in groups {
        for member in members {
            let path = directory.join(format!("{group}-{}.wav", member.name));
            // Who heard nothing gets an empty file, and the check says so.
            let samples = Heard::new(&member.name, &member.heard).map(|heard| heard.samples).unwrap_or_default();
            write_wav(&path, &samples).map_err(|source| DemoError::Recording { path, source })?;
        }
    }
    let recording = directory.join("conference-recording.wav");
    std::fs::copy(&session.recorded.path, &recording).map_err(failed)?;
    std::fs::write(scenario::manifest_of(&recording), format!("{:#}\n", session.recorded.manifest)).map_err(failed)
}

#[expect(clippy::cast_possible_truncation, reason = "decoded 16-bit samples, kept as float")]
fn write_wav(path: &Path, samples: &[f32]) -> Result<(), hound::Error> {
    let spec = WavSpec { channels: 1, sample_rate: 8000, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut wav = WavWriter::create(path, spec)?;
    for sample in samples {
        wav.write_sample(*sample as i16)?;
    }
    wav.finalize()
}
