//! Listens to what endpoints say: digits in their tones, and whether there is sound.
//!
//! A connection with [`DigitSource::Auto`] is listened to while audio arrives, whatever it is wired to: by the clock of
//! its conference, or else by its own, which stops when no packet has come for a while.

use ringbridge_codec::dtmf::{DtmfChange, DtmfDetector, symbol};
use ringbridge_codec::mix;

use crate::command::{DigitSource, OperationKind};
use crate::conference::{Scratch, pull};
use crate::connection::{Connection, Link, Media, Narrow, Taped};
use crate::event::Event;
use crate::limits::{LISTENING_MAX, SAMPLES_PER_MS};
use crate::outputs::Outputs;
use crate::time::Instant;
use core::time::Duration;

/// A telephone-event within this time of a digit that was found in the audio is the same digit: endpoints that send
/// events let the beginning of the tone through (RFC 4733 section 2.5.1.1).
const SAME_DIGIT: Duration = Duration::from_millis(250);

/// Finds digits in the audio of one connection. 650 bytes.
#[derive(Debug)]
pub(crate) struct InBand {
    detector: DtmfDetector,
    /// The last digit found, and when.
    last: Option<(u8, Instant)>,
}

impl InBand {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self { detector: DtmfDetector::new(), last: None })
    }

    /// Forgets what it has heard: nothing was heard for a while.
    pub(crate) fn restart(&mut self) {
        self.detector = DtmfDetector::new();
    }

    /// Whether the last frame sounded like a digit and had better not be heard.
    pub(crate) const fn is_tone_like(&self) -> bool {
        self.detector.is_tone_like()
    }
}

impl Connection {
    /// A digit is pressed: it waits to be gathered, and whatever runs takes note of it.
    pub(crate) fn press(&mut self, digit: u8) {
        let kept = self.digits.push(digit);
        let operations = self.media.iter_mut().flat_map(|media| media.operations.iter_mut().flatten());
        operations.for_each(|operation| operation.press(digit, kept));
    }

    /// A digit arrives as a telephone-event: from now on digits are no longer looked for in the audio.
    pub(crate) fn press_event(&mut self, now: Instant, digit: Option<u8>) {
        let in_band = self.media.as_ref().and_then(|media| media.in_band.as_ref()).filter(|_| !self.sends_events);
        let last = in_band.and_then(|in_band| in_band.last);
        self.sends_events = true;
        let Some(digit) = digit else { return };
        if last.is_none_or(|(last, at)| last != digit || now.saturating_since(at) > SAME_DIGIT) {
            self.press(digit);
        }
    }

    /// Whether a packet of audio is to wake the one who listens for digits.
    pub(crate) fn may_begin_to_listen(&self, payload_type: u8) -> bool {
        self.spec.digit_source == DigitSource::Auto
            && !self.listens
            && payload_type == self.spec.rx_payload_type
            && self.is_mixable()
            && (!self.sends_events || matches!(self.link, Link::Conference(_)))
    }

    /// Whether its audio is needed for digits. In a conference tones are kept out of the mix even of those who send
    /// telephone-events.
    pub(crate) const fn wants_digits(&self) -> bool {
        self.listens && (!self.sends_events || matches!(self.link, Link::Conference(_)))
    }

    /// Whether anything listens to it, its conference apart.
    pub(crate) fn needs_audio(&self) -> bool {
        self.taped == Taped::By || self.wants_digits() || self.media.as_ref().is_some_and(|media| media.needs_audio())
    }

    /// Takes the frame that is due out of the jitter buffer and looks for digits in it. Returns whether anything was heard
    /// in it.
    pub(crate) fn hear(&mut self, due: Instant, scratch: &mut Scratch, out: &mut Outputs) -> bool {
        let Some(media) = self.media.as_deref_mut() else { return false };
        let may_claim = self.spec.audio_level_extension.is_some() && self.spec.rx_codec.is_stateless();
        let is_needed = self.listens || self.taped != Taped::Not || media.needs_audio() || self.transcodes;
        if may_claim && !is_needed && media.claims.allow_to_skip(due, media.playout.delay().current_ms) {
            let pulled = media.playout.skip(due, &mut scratch.raw[..self.spec.rx_codec.rate().frame_samples()]);
            self.counters.concealed_samples += u64::from(pulled.missing);
            (media.concealed, media.gap, media.noise) = (false, false, false);
            out.totals.decodes_saved += 1;
            return false;
        }
        let heard = pull(media, due, &mut scratch.raw, &mut self.counters);
        if may_claim && heard {
            let level = mix::level_dbov(mix::energy(media.samples()), media.samples().len());
            media.claims.verify(due, media.playout.delay().current_ms, level);
        }
        let wants_digits = self.listens && (!self.sends_events || matches!(self.link, Link::Conference(_)));
        if self.listens {
            if wants_digits {
                media.narrow(&mut scratch.narrow);
                self.find_digits(due, &scratch.narrow, out);
            }
            self.listens = due.saturating_since(self.last_heard) <= LISTENING_MAX;
        }
        heard
    }

    fn find_digits(&mut self, due: Instant, frame: &Narrow, out: &mut Outputs) {
        let Some(Media { in_band: Some(in_band), .. }) = self.media.as_deref_mut() else { return };
        // A frame ends no more than one digit and begins no more than one.
        let (mut began, mut ended) = (None, None);
        in_band.detector.process(frame, &mut |change| match change {
            DtmfChange::Started { event, .. } => began = symbol(event).and_then(|digit| u8::try_from(digit).ok()),
            DtmfChange::Ended { event, duration } => {
                ended = symbol(event).and_then(|digit| u8::try_from(digit).ok()).map(|digit| (digit, duration));
            }
        });
        if let Some(digit) = began {
            in_band.last = Some((digit, due));
        }
        if self.sends_events {
            return;
        }
        if let Some((digit, samples)) = ended {
            let duration_ms = samples / SAMPLES_PER_MS;
            out.push_event(Event::Digit { connection: self.id, digit, duration_ms });
        }
        if let Some(digit) = began {
            self.press(digit);
        }
    }
}

impl Media {
    /// Whether an operation listens.
    pub(crate) fn needs_audio(&self) -> bool {
        self.operations.iter().flatten().any(|operation| operation.needs_audio())
    }

    /// Whether its endpoint is played to.
    pub(crate) fn is_played_to(&self) -> bool {
        self.operations.iter().flatten().any(|operation| operation.kind().is_heard())
    }

    /// Whether it is played to in a way that keeps it from being heard, or is sending a digit.
    pub(crate) fn is_kept_out(&self, listens: bool) -> bool {
        let operations = &mut self.operations.iter().flatten();
        operations.any(|operation| operation.isolates())
            || (listens && self.in_band.as_ref().is_some_and(|in_band| in_band.is_tone_like()))
    }

    /// Whether a kind of operation runs that excludes `kind`.
    pub(crate) fn excludes(&self, kind: OperationKind) -> bool {
        let exclude = |other: OperationKind| {
            (kind.is_heard() && other.is_heard()) || (kind.is_detection() && other.is_detection())
        };
        self.operations.iter().flatten().any(|operation| exclude(operation.kind()))
    }
}
