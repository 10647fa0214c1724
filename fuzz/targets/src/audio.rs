//! What works on samples takes any of them, and codecs of files any bytes.

use ringbridge_codec::adpcm::{AdpcmDecoder, AdpcmEncoder};
use ringbridge_codec::conceal::Concealment;
use ringbridge_codec::dtmf::DtmfDetector;
use ringbridge_codec::g726::G726Decoder16k;
use ringbridge_codec::mix;
use ringbridge_codec::resample::Resampler;
use ringbridge_codec::stretch::TimeStretch;
use ringbridge_codec::tone::ToneGenerator;
use ringbridge_codec::{Rate, g711};

use crate::script::Script;

/// The first byte says what, the rest with what.
pub fn audio(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    match script.below(8) {
        0 => vox(&mut script),
        1 => g726(&mut script),
        2 => conceal(&mut script),
        3 => stretch(&mut script),
        4 => resample(&mut script),
        5 => dtmf(&mut script),
        6 => sums(&mut script),
        _ => tones(&mut script),
    }
}

fn vox(script: &mut Script<'_>) {
    let (mut decoder, mut whole) = (AdpcmDecoder::new(), AdpcmDecoder::new());
    let (mut parts, mut all) = (Vec::new(), Vec::new());
    while !script.is_over() {
        let bytes = script.counted();
        let mut out = vec![0; 2 * bytes.len()];
        decoder.decode(bytes, &mut out);
        parts.extend(out);
        all.extend_from_slice(bytes);
    }
    let mut out = vec![0; 2 * all.len()];
    whole.decode(&all, &mut out);
    assert_eq!(parts, out, "pieces join");
    let mut encoded = vec![0; all.len()];
    AdpcmEncoder::new().encode(&out, &mut encoded);
}

fn g726(script: &mut Script<'_>) {
    let mut decoder = G726Decoder16k::new();
    while !script.is_over() {
        let bytes = script.counted();
        let mut out = vec![0; 4 * bytes.len()];
        decoder.decode(bytes, &mut out);
        assert!(out.iter().all(|sample| sample % 4 == 0), "14 bits");
    }
}

fn conceal(script: &mut Script<'_>) {
    let mut concealment = Concealment::new();
    while !script.is_over() {
        match script.below(4) {
            0 => {
                let len = 2 * usize::from(script.byte());
                let heard = script.samples(len);
                // As if the same had been heard for long.
                let heard: Vec<i16> =
                    heard.iter().copied().cycle().take(heard.len() * usize::from(script.below(6))).collect();
                concealment.begin(&heard);
            }
            1 => {
                let mut out = vec![0; usize::from(script.byte())];
                concealment.fill(&mut out);
                assert!(out.is_empty() || concealment.is_active());
            }
            2 => {
                let len = usize::from(script.byte());
                let mut samples = script.samples(len);
                concealment.join(&mut samples);
                assert!(samples.is_empty() || !concealment.is_active());
            }
            _ => concealment.clear(),
        }
    }
}

fn stretch(script: &mut Script<'_>) {
    let mut stretch = TimeStretch::with_rate(script.pick(&Rate::ALL));
    let (mut asked, mut given) = (0_u32, 0_u32);
    while !script.is_over() {
        match script.below(4) {
            0 => {
                stretch.set_percent(script.word());
                assert!((50..=150).contains(&stretch.percent()));
            }
            1 => stretch.clear(),
            _ => {
                let mut out = vec![0; usize::from(script.word()) % 1_000];
                let len = out.len();
                let written = stretch.fill(&mut out, &mut |room| {
                    asked += 1;
                    assert!(!room.is_empty());
                    // Sometimes less than asked for.
                    let enough =
                        if script.below(8) == 0 { usize::from(script.byte()).min(room.len()) } else { room.len() };
                    let loud = i16::from_be_bytes([script.byte(), script.byte()]);
                    for (n, sample) in room[..enough].iter_mut().enumerate() {
                        *sample = if n % 40 < 20 { loud } else { loud.wrapping_neg() };
                    }
                    given += u32::try_from(enough).expect("small");
                    enough
                });
                assert!(written <= len);
            }
        }
        assert!(asked < 1_000_000, "comes to an end");
    }
}

fn resample(script: &mut Script<'_>) {
    let (from, to) = (script.pick(&Rate::ALL), script.pick(&Rate::ALL));
    let (mut one, mut other) = (Resampler::new(from, to), Resampler::new(from, to));
    while !script.is_over() {
        let frames = usize::from(script.below(4));
        let pattern = script.samples(64);
        let samples = frames * from.frame_samples();
        let input: Vec<i16> = pattern.iter().copied().chain([0]).cycle().take(samples).collect();
        let mut out = vec![0; frames * to.frame_samples()];
        one.process(&input, &mut out);
        // Frame by frame it is the same.
        let mut again = vec![0; out.len()];
        for (input, out) in input.chunks(from.frame_samples()).zip(again.chunks_mut(to.frame_samples())) {
            other.process(input, out);
        }
        assert_eq!(out, again);
        assert!(from != to || out == input, "a copy");
        if script.below(8) == 0 {
            one.reset();
            other.reset();
        }
    }
}

fn dtmf(script: &mut Script<'_>) {
    let mut detector = DtmfDetector::new();
    let mut changes = 0;
    let mut samples = 0;
    while !script.is_over() {
        let len = usize::from(script.byte());
        let block = script.samples(len);
        samples += block.len();
        detector.process(&block, &mut |_| changes += 1);
    }
    assert!(changes <= 2 * (samples / 40), "an end and a start in a block of 5 ms");
    assert!(detector.active().is_none_or(|digit| digit < 16));
}

fn sums(script: &mut Script<'_>) {
    let gain = script.word().cast_signed();
    let len = usize::from(script.byte());
    let (first, second) = (script.samples(len), script.samples(len));
    let len = first.len().min(second.len());
    let (first, second) = (&first[..len], &second[..len]);
    let mut sum = vec![0; len];
    mix::accumulate(&mut sum, first);
    mix::accumulate(&mut sum, second);
    let mut out = vec![0; len];
    mix::subtract_narrow(&sum, first, &mut out);
    assert_eq!(out, second, "all but the first is the second");
    mix::narrow(&sum, &mut out);
    for ((sum, first), second) in out.iter().zip(first).zip(second) {
        assert_eq!(*sum, first.saturating_add(*second));
    }
    mix::apply_gain(&mut out, mix::gain_q12_from_db(gain.clamp(-60, 24)));
    assert!(mix::peak(&out) <= 32_768);
    let mut law = vec![0; len];
    g711::encode_ulaw(&out, &mut law);
    g711::encode_alaw(&out, &mut law);
}

fn tones(script: &mut Script<'_>) {
    let tone = |script: &mut Script<'_>| (200 + script.word() % 2_801, -script.byte().cast_signed().rem_euclid(41));
    let first = tone(script);
    let second = script.option(tone);
    let mut generator = ToneGenerator::with_rate(script.pick(&Rate::ALL), first, second);
    while !script.is_over() {
        match script.below(4) {
            0 => generator.fade_out(),
            1 => generator.fade_in(),
            _ => {
                let mut out = vec![0; usize::from(script.byte())];
                let silent = generator.is_silent();
                generator.fill(&mut out);
                assert!(!silent || out.iter().all(|sample| *sample == 0));
            }
        }
    }
}
