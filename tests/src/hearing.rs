//! Whether somebody hears what he is to hear, as loud as it is, and nothing besides.

use std::cell::RefCell;
use std::time::Duration;

use crate::spectrum::{Spectrum, steepest, steepest_of};
use crate::until;

/// Amplitude of the tones that are told apart here: six of them fit into 16 bits.
pub const AMPLITUDE: f64 = 4_000.0;

/// Somebody who hears.
#[expect(missing_debug_implementations, reason = "nothing is known of the function")]
pub struct Listener<'a> {
    /// In messages.
    pub name: &'a str,
    /// Samples per second of what he hears.
    pub rate_hz: u32,
    /// Everything he has heard so far.
    pub heard: &'a dyn Fn() -> Option<Vec<i16>>,
}

impl Listener<'_> {
    /// Waits until he has heard all of `expected` and nothing else for a while. What is in `never` he may not have
    /// heard at any time, nor a click once a second has gone.
    ///
    /// # Panics
    /// If that is not so.
    pub fn hears(&self, expected: &[u32], never: &[u32]) {
        let length = (PIECE_MS * self.rate_hz / 1000) as usize;
        let last = LastWord(RefCell::new("nothing was heard".to_owned()));
        let (mut seen, mut good) = (0, 0);
        let heard = until(&format!("{} to hear {expected:?}", self.name), || {
            std::thread::sleep(Duration::from_millis(100));
            let samples = (self.heard)()?;
            for piece in samples.chunks_exact(length).skip(seen) {
                seen += 1;
                match judge(piece, self.rate_hz, expected) {
                    Ok(()) => good += 1,
                    Err(why) => *last.0.borrow_mut() = format!("piece {seen}: {why}"),
                }
            }
            (good >= PIECES).then_some(samples)
        });
        for piece in heard.chunks_exact(length) {
            let spectrum = Spectrum::of(piece, self.rate_hz);
            for hz in never {
                assert!(spectrum.db(*hz) < said_db() - NEVER_DB, "{} hears {hz} Hz", self.name);
            }
        }
        let later = heard.get(self.rate_hz as usize..).unwrap_or_default();
        let allowed = 1.1 * steepest_of(expected, AMPLITUDE * 10.0_f64.powf(LEVEL_DB / 20.0), self.rate_hz);
        assert!(f64::from(steepest(later)) < allowed, "{} hears a click: {}", self.name, steepest(later));
    }
}

/// Printed if the test fails.
struct LastWord(RefCell<String>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at last: {}", self.0.borrow());
        }
    }
}

/// Whether all of these tones are in a piece of sound, and nothing else; what is wrong.
///
/// # Errors
/// What is not as it has to be.
pub fn judge(piece: &[i16], rate_hz: u32, expected: &[u32]) -> Result<(), String> {
    let spectrum = Spectrum::of(piece, rate_hz);
    let levels: Vec<f64> = expected.iter().map(|hz| spectrum.db(*hz) - said_db()).collect();
    if levels.iter().any(|db| db.abs() > LEVEL_DB) {
        return Err(format!("{expected:?} are off by {levels:.1?} dB"));
    }
    let (hz, db) = spectrum.loudest_besides(expected);
    if db > REST_DBOV {
        return Err(format!("something at {hz} Hz, {:.1} dB below the tones", said_db() - db));
    }
    Ok(())
}

/// How loud a tone is said.
fn said_db() -> f64 {
    20.0 * (AMPLITUDE / 32_768.0).log10()
}

/// How far a level may be off, in dB.
const LEVEL_DB: f64 = 2.0;
/// How loud everything else may be, in dB below full scale: what the codecs make of several tones stays below.
const REST_DBOV: f64 = -45.0;
/// How far below the others a tone is that is not heard, in dB.
const NEVER_DB: f64 = 20.0;
/// Pieces in which all is as it has to be,
const PIECES: usize = 3;
/// and their length in milliseconds.
const PIECE_MS: u32 = 256;
