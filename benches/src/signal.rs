//! What talkers say, and how it is found again in a mix.
//!
//! Each talker has a *voice*: a tone of its own that never pauses, with a syllabic swell, and once a second a *marker*,
//! a burst of noise only this voice uses. The tones lie on multiples of 100 Hz, so over any 80 samples (10 ms) they do
//! not disturb each other and the level of each voice can be read off block by block: a hole in one voice shows even
//! while others talk. The markers are found by correlation to the sample, which dates a sound on its way through the
//! mixer. A voice repeats every second.

use std::f64::consts::TAU;
use std::sync::LazyLock;

use crate::mulaw;
use crate::packet;

/// Voices there are; rooms may share them, the talkers of one room may not.
pub const VOICES: usize = 30;
/// Talkers of one room: as many as fit into one sum without clipping.
pub const TALKERS_MAX: usize = 16;
/// Samples per second.
pub const SAMPLE_RATE_HZ: usize = 8000;
/// Samples after which a voice repeats: one second.
pub const PERIOD: usize = SAMPLE_RATE_HZ;
/// Samples of a block whose levels are measured: 10 ms.
pub const BLOCK: usize = 80;
/// Samples of a marker.
pub const MARKER_SAMPLES: usize = 127;
/// Amplitude of a tone at its loudest, in 16-bit steps.
pub const TONE_AMPLITUDE: f64 = 1000.0;
/// Amplitude of a marker, in 16-bit steps.
const MARKER_AMPLITUDE: f32 = 6000.0;
/// How deep the syllabic swell goes, and how often a second: from 85 % to 100 %.
const SWELL_DEPTH: f64 = 0.15;
const SWELL_HZ: f64 = 5.0;
/// Places a marker may have within the second, so that the markers of a room never meet.
const MARKER_SLOTS: usize = 16;

const _: () = assert!(marker_at(MARKER_SLOTS - 1) + MARKER_SAMPLES < PERIOD);
const _: () = assert!(TALKERS_MAX <= MARKER_SLOTS);

/// One second of each voice, µ-law.
static VOICE_TABLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..VOICES).map(render).collect());
/// Sign pattern of each voice's marker.
static MARKERS: LazyLock<Vec<[f32; MARKER_SAMPLES]>> = LazyLock::new(|| (0..VOICES).map(marker_signs).collect());
/// Cosine and sine of each tone over one block.
static PROBES: LazyLock<Vec<[[f32; BLOCK]; 2]>> = LazyLock::new(|| (0..VOICES).map(probe).collect());

/// Where in the second the marker of `voice` begins, in samples.
#[must_use]
pub const fn marker_at(voice: usize) -> usize {
    400 + 450 * (voice % MARKER_SLOTS)
}

/// The 160 codes of `voice` from sample `from` on (which is a multiple of 160).
#[must_use]
pub fn voice_frame(voice: usize, from: u64) -> &'static [u8] {
    let at = usize::try_from(from % PERIOD as u64).unwrap_or(0);
    &VOICE_TABLES[voice][at..at + packet::SAMPLES]
}

/// Level of the tone of `voice` in `block` ([`BLOCK`] samples), as a share of its loudest: 0.85 to 1.0 while it talks
/// undisturbed.
#[must_use]
pub fn voice_level(voice: usize, block: &[i16]) -> f64 {
    let [cosine, sine] = &PROBES[voice];
    let (mut real, mut imaginary) = (0f32, 0f32);
    for ((&sample, c), s) in block.iter().zip(cosine).zip(sine) {
        real += f32::from(sample) * c;
        imaginary += f32::from(sample) * s;
    }
    f64::from(real.hypot(imaginary)) * 2.0 / BLOCK as f64 / TONE_AMPLITUDE
}

/// Where in `pcm` the marker of `voice` begins, if it is there.
///
/// The best of all places is taken, and only if it reaches half of a full marker: other voices and the marker of
/// another voice stay well below.
#[must_use]
pub fn find_marker(voice: usize, pcm: &[i16]) -> Option<usize> {
    const THRESHOLD: f32 = 0.5;
    let signs = &MARKERS[voice];
    let score = |window: &[i16]| -> f32 {
        let sum: f32 = window.iter().zip(signs).map(|(&sample, sign)| f32::from(sample) * sign).sum();
        sum / (MARKER_SAMPLES as f32 * MARKER_AMPLITUDE)
    };
    pcm.windows(MARKER_SAMPLES)
        .map(score)
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|&(_, score)| score >= THRESHOLD)
        .map(|(at, _)| at)
}

fn tone_hz(voice: usize) -> f64 {
    300.0 + 100.0 * voice as f64
}

#[expect(clippy::cast_possible_truncation, reason = "amplitudes are far below 32767")]
fn render(voice: usize) -> Vec<u8> {
    let marker = marker_at(voice);
    let signs = &MARKERS[voice];
    (0..PERIOD)
        .map(|at| {
            let seconds = at as f64 / SAMPLE_RATE_HZ as f64;
            let swell = 1.0 - SWELL_DEPTH / 2.0 + SWELL_DEPTH / 2.0 * (TAU * SWELL_HZ * seconds).sin();
            let sample = match at.checked_sub(marker).and_then(|at| signs.get(at)) {
                Some(&sign) => f64::from(MARKER_AMPLITUDE * sign),
                None => TONE_AMPLITUDE * swell * (TAU * tone_hz(voice) * seconds + voice as f64).sin(),
            };
            mulaw::encode(sample as i16)
        })
        .collect()
}

fn marker_signs(voice: usize) -> [f32; MARKER_SAMPLES] {
    core::array::from_fn(|at| if packet::mix((voice * 1_000 + at) as u64) & 1 == 0 { 1.0 } else { -1.0 })
}

#[expect(clippy::cast_possible_truncation, reason = "single precision is plenty for a level")]
fn probe(voice: usize) -> [[f32; BLOCK]; 2] {
    let phase = |at: usize| TAU * tone_hz(voice) * at as f64 / SAMPLE_RATE_HZ as f64;
    [core::array::from_fn(|at| phase(at).cos() as f32), core::array::from_fn(|at| phase(at).sin() as f32)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One second of the sum of some voices, as an ideal mixer would send it.
    fn mix_of(voices: &[usize]) -> Vec<i16> {
        (0..PERIOD)
            .map(|at| {
                let sum: i32 = voices.iter().map(|&voice| i32::from(mulaw::decode(VOICE_TABLES[voice][at]))).sum();
                mulaw::decode(mulaw::encode(i16::try_from(sum).expect("voices do not clip")))
            })
            .collect()
    }

    #[test]
    fn voices_of_a_full_room_are_told_apart() {
        let room: Vec<usize> = (5..5 + TALKERS_MAX).collect();
        let pcm = mix_of(&room);
        // The first 400 samples hold no marker.
        for block in pcm[..400].chunks_exact(BLOCK) {
            for voice in 0..VOICES {
                let level = voice_level(voice, block);
                assert_eq!(level > 0.6, room.contains(&voice), "voice {voice}: {level}");
                assert!(room.contains(&voice) || level < 0.3, "voice {voice}: {level}");
            }
        }
    }

    #[test]
    fn a_block_anywhere_gives_the_same_level() {
        let pcm = mix_of(&[0, 7, 29]);
        for at in 0..200 {
            assert!(voice_level(7, &pcm[at..at + BLOCK]) > 0.8);
            assert!(voice_level(8, &pcm[at..at + BLOCK]) < 0.1);
        }
    }

    #[test]
    fn each_marker_is_found_to_the_sample_among_others() {
        let room: Vec<usize> = (0..TALKERS_MAX).collect();
        let pcm = mix_of(&room);
        for &voice in &room {
            assert_eq!(find_marker(voice, &pcm), Some(marker_at(voice)));
        }
        for stranger in TALKERS_MAX..VOICES {
            assert_eq!(find_marker(stranger, &pcm), None, "voice {stranger}");
        }
    }

    #[test]
    fn no_marker_in_too_little_sound() {
        assert_eq!(find_marker(0, &[0; MARKER_SAMPLES - 1]), None);
    }
}
