//! The E-model (ITU-T G.107, narrowband): from delays and losses to the rating factor R and the mean opinion score.
//!
//! ```text
//! R = Ro − Is − Id − Ie,eff + A
//! ```
//!
//! Every term is computed by its full formula. What a server can't know of a call (loudness, sidetone, room noise,
//! echo loss, quantizing distortion) has the default of G.107 table 2; A is 0. What is measured: the one-way delay,
//! the share of packets lost or discarded, and how far losses come in bursts.

use crate::command::CodecKind;

/// What is measured of one direction of a call.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Path {
    /// Mouth to ear, in milliseconds (Ta, and T; Tr is twice that).
    pub(crate) delay_ms: f64,
    /// Packets lost or discarded, in per cent (Ppl).
    pub(crate) loss_percent: f64,
    /// Mean length of a run of losses over that of random loss (BurstR), at least 1.
    pub(crate) burst_ratio: f64,
}

/// What a codec does to speech (ITU-T G.113 appendix I).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Impairment {
    /// Without loss (Ie).
    equipment: f64,
    /// How well it bears loss (Bpl).
    robustness: f64,
}

impl Impairment {
    /// That of a codec. `conceals`: what is lost is made up for (G.711 appendix I); in a relay nobody here knows.
    pub(crate) const fn of(codec: CodecKind, conceals: bool) -> Self {
        match codec {
            // The table has no values of the others for the narrowband model; at their rates they are no worse than G.711.
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 | CodecKind::L16(_) | CodecKind::Opus => {
                Self { equipment: 0.0, robustness: if conceals { 25.1 } else { 4.3 } }
            }
            CodecKind::Gsm => Self { equipment: 20.0, robustness: 43.0 },
            CodecKind::G723 => Self { equipment: 15.0, robustness: 16.1 },
            CodecKind::G729 => Self { equipment: 11.0, robustness: 19.0 },
        }
    }
}

/// R factor, 0 to 100.
pub(crate) fn r_factor(path: &Path, impairment: Impairment) -> f64 {
    let lost = path.loss_percent;
    let effective = impairment.equipment
        + (95.0 - impairment.equipment) * lost / (lost / path.burst_ratio.max(1.0) + impairment.robustness);
    let (ro, no) = basic_ratio();
    let rating = ro - simultaneous(ro, no) - delay(ro, no, path.delay_ms) - effective;
    rating.clamp(0.0, 100.0)
}

/// Mean opinion score of a rating (G.107 annex B), 1 to 4.5.
pub(crate) fn mos(r: f64) -> f64 {
    match r {
        _ if r <= 0.0 => 1.0,
        _ if r >= 100.0 => 4.5,
        // Between 0 and 6.5 the polynomial dips below 1.
        _ => (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0),
    }
}

// Defaults of table 2.
const SLR: f64 = 8.0;
const RLR: f64 = 2.0;
const OLR: f64 = SLR + RLR;
const STMR: f64 = 15.0;
const LSTR: f64 = 18.0;
const DS: f64 = 3.0;
const TELR: f64 = 65.0;
const WEPL: f64 = 110.0;
const QDU: f64 = 1.0;
const NC: f64 = -70.0;
const NFOR: f64 = -64.0;
const PS: f64 = 35.0;
const PR: f64 = 35.0;

fn power(db: f64) -> f64 {
    10f64.powf(db / 10.0)
}

/// Ro, the ratio of speech to noise, and No, the noise (7.2).
fn basic_ratio() -> (f64, f64) {
    let of_sender = PS - SLR - DS - 100.0 + 0.004 * (PS - OLR - DS - 14.0).powi(2);
    let effective_room = PR + 10.0 * (1.0 + power(10.0 - LSTR)).log10();
    let of_receiver = RLR - 121.0 + effective_room + 0.008 * (effective_room - 35.0).powi(2);
    let floor = NFOR + RLR;
    let no = 10.0 * (power(NC) + power(of_sender) + power(of_receiver) + power(floor)).log10();
    (15.0 - 1.5 * (SLR + no), no)
}

/// Is: loudness, sidetone and quantizing (7.3).
fn simultaneous(ro: f64, no: f64) -> f64 {
    let x = OLR + 0.2 * (64.0 + no - RLR);
    let loudness = 20.0 * ((1.0 + (x / 8.0).powi(8)).powf(1.0 / 8.0) - x / 8.0);
    // T is 0 here: the sidetone of the telephone itself.
    let sidetone_rating = -10.0 * (power(-STMR) + power(-TELR)).log10();
    let sidetone = 12.0 * (1.0 + ((sidetone_rating - 13.0) / 6.0).powi(8)).powf(1.0 / 8.0)
        - 28.0 * (1.0 + ((sidetone_rating + 1.0) / 19.4).powi(35)).powf(1.0 / 35.0)
        - 13.0 * (1.0 + ((sidetone_rating - 3.0) / 33.0).powi(13)).powf(1.0 / 13.0)
        + 29.0;
    let q = 37.0 - 15.0 * QDU.log10();
    let g = 1.07 + 0.258 * q + 0.0602 * q * q;
    let (y, z) = ((ro - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0, 46.0 / 30.0 - g / 40.0);
    let quantizing = 15.0 * (1.0 + 10f64.powf(y) + 10f64.powf(z)).log10();
    loudness + sidetone + quantizing
}

/// Id: echo of the talker and of the listener, and delay as such (7.4).
fn delay(ro: f64, no: f64, ms: f64) -> f64 {
    let t = ms.max(0.0);
    let talker_loss = TELR - 40.0 * ((1.0 + t / 10.0) / (1.0 + t / 150.0)).log10() + 6.0 * (-0.3 * t * t).exp();
    let (roe, re) = (-1.5 * (no - RLR), 80.0 + 2.5 * (talker_loss - 14.0));
    let half = (roe - re) / 2.0;
    // STMR is between 9 and 20 dB: the sidetone masks nothing.
    let talker = (half + (half * half + 100.0).sqrt() - 1.0) * (1.0 - (-t).exp());
    let rle = 10.5 * (WEPL + 7.0) * (2.0 * t + 1.0).powf(-0.25);
    let half = (ro - rle) / 2.0;
    let listener = half + (half * half + 169.0).sqrt();
    let pure = if t <= 100.0 {
        0.0
    } else {
        let x = (t / 100.0).log2();
        25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
    };
    talker + listener + pure
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: Path = Path { delay_ms: 0.0, loss_percent: 0.0, burst_ratio: 1.0 };
    const G711: Impairment = Impairment { equipment: 0.0, robustness: 4.3 };

    fn rated(change: impl FnOnce(&mut Path)) -> f64 {
        let mut path = CLEAN;
        change(&mut path);
        r_factor(&path, G711)
    }

    /// G.107 says so of its defaults: R = 93.2, MOS = 4.41.
    #[test]
    fn defaults_rate_as_the_recommendation_says() {
        let r = rated(|_| {});
        assert!((r - 93.2).abs() < 0.05, "{r}");
        assert!((mos(r) - 4.41).abs() < 0.005, "{}", mos(r));
    }

    #[test]
    fn loss_costs_what_the_effective_impairment_says() {
        for (lost, cost) in [(1.0, 95.0 / 5.3), (4.3, 47.5), (20.0, 95.0 * 20.0 / 24.3)] {
            let r = rated(|path| path.loss_percent = lost);
            assert!((rated(|_| {}) - r - cost).abs() < 0.01, "{lost} %: {r}");
        }
        assert!(
            rated(|path| (path.loss_percent, path.burst_ratio) = (2.0, 3.0)) < rated(|path| path.loss_percent = 2.0)
        );
        assert!((r_factor(&CLEAN, Impairment::of(CodecKind::G729, true)) - (rated(|_| {}) - 11.0)).abs() < 1e-9);
    }

    /// G.107 figure of delay: little below 150 ms, more than twenty points at 400 ms.
    #[test]
    fn delay_costs_ever_more() {
        let rows = [(0.0, 0.0, 0.1), (100.0, 1.0, 4.0), (150.0, 2.0, 6.0), (250.0, 9.0, 16.0), (400.0, 20.0, 33.0)];
        let mut last = f64::MAX;
        for (ms, least, most) in rows {
            let r = rated(|path| path.delay_ms = ms);
            let cost = rated(|_| {}) - r;
            assert!((least..=most).contains(&cost) && r < last + 1e-9, "{ms} ms costs {cost}");
            last = r;
        }
    }

    #[test]
    fn scores_are_those_of_annex_b() {
        let rows =
            [(-5.0, 1.0), (0.0, 1.0), (50.0, 2.58), (60.0, 3.1), (70.0, 3.6), (80.0, 4.02), (90.0, 4.34), (100.0, 4.5)];
        for (r, score) in rows {
            assert!((mos(r) - score).abs() < 0.01, "{r}: {}", mos(r));
        }
        for step in 0..1000 {
            let r = f64::from(step) / 10.0;
            assert!((1.0..=4.5).contains(&mos(r)), "{r}");
        }
    }

    #[test]
    fn whatever_is_measured_rates_between_0_and_100() {
        for delay_ms in [0.0, 1.0, 1e3, 1e6] {
            for loss_percent in [0.0, 0.1, 50.0, 100.0] {
                for burst_ratio in [0.0, 1.0, 1e6] {
                    let r = r_factor(&Path { delay_ms, loss_percent, burst_ratio }, G711);
                    assert!((0.0..=100.0).contains(&r));
                }
            }
        }
    }
}
