//! Payloads from frames, for streams that are more than G.711 on a clock of 8 kHz.
//!
//! ```text
//!  frame at the clock's rate ─ resample ─ collect a packet's worth ─ encode ─ payload
//! ```
//!
//! A conference has one [`Outlet`] for each format its listeners have in common, and each member one of its own for
//! what only he hears: the mix without himself, a prompt. Packets of a format begin on a grid of the conference's
//! frames, so that one payload fits all. Changing between the two an encoder first runs over what was heard last, so
//! that its state is what it would have been, and nobody hears a click.

use ringbridge_codec::resample::Resampler;
use ringbridge_codec::{CodecError, CodecKind, Encoder, EncoderSettings, Rate, kind};

use crate::command::ConnectionSpec;
use crate::limits::{FRAME_MS, PTIME_MS_MAX, WARM_UP_MS};
use crate::sender::frames_of;

/// What listeners must have in common to share an encoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    pub(crate) codec: CodecKind,
    pub(crate) ptime_ms: u32,
    pub(crate) settings: EncoderSettings,
}

impl Format {
    /// What is sent to a connection.
    pub(crate) const fn of(spec: &ConnectionSpec) -> Self {
        Self { codec: spec.tx_codec, ptime_ms: spec.ptime_ms, settings: spec.encoder }
    }

    /// Frames of a packet.
    pub(crate) fn frames(&self) -> u32 {
        frames_of(self.ptime_ms)
    }
}

/// Turns frames into payloads of one format.
#[derive(Debug)]
pub(crate) struct Outlet {
    format: Format,
    resampler: Resampler,
    encoder: Encoder,
    /// Samples of the packet that is being collected, at the codec's rate,
    pending: Vec<i16>,
    /// and how many make it full.
    packet_samples: usize,
    payload: Vec<u8>,
}

impl Outlet {
    /// An outlet for frames at `clock` rate.
    ///
    /// # Errors
    /// `Unavailable`: nobody encodes this codec here.
    pub(crate) fn new(clock: Rate, format: Format) -> Result<Self, CodecError> {
        let rate = format.codec.rate();
        let packet_samples = rate.frame_samples() * format.frames() as usize;
        Ok(Self {
            format,
            resampler: Resampler::new(clock, rate),
            encoder: Encoder::new(format.codec, format.settings)?,
            pending: Vec::with_capacity(packet_samples),
            packet_samples,
            payload: vec![0; kind::PAYLOAD_BYTES_MAX as usize],
        })
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// Frames collected.
    pub(crate) fn frames(&self) -> usize {
        self.pending.len() / self.format.codec.rate().frame_samples()
    }

    /// Collects a frame. One too many is left out.
    pub(crate) fn feed(&mut self, frame: &[i16]) {
        let len = self.pending.len();
        let samples = self.format.codec.rate().frame_samples();
        if len + samples <= self.packet_samples {
            self.pending.resize(len + samples, 0);
            self.resampler.process(frame, &mut self.pending[len..]);
        }
    }

    /// The payload of what was collected.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub(crate) fn finish(&mut self) -> Result<&[u8], CodecError> {
        let len = self.encoder.encode(&self.pending, &mut self.payload);
        self.pending.clear();
        Ok(&self.payload[..len?])
    }

    /// Collects silence until the packet is full, and gives its payload.
    pub(crate) fn fill_up(&mut self) -> Result<&[u8], CodecError> {
        self.pending.resize(self.packet_samples, 0);
        self.finish()
    }

    /// Gives up what was collected.
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Begins another stream.
    pub(crate) fn reset(&mut self) {
        self.pending.clear();
        self.resampler.reset();
        self.encoder.reset();
    }

    /// Begins another stream as if it had gone on before: runs over what was heard last, up to but without the present
    /// frame, which is frame `position` of its packet.
    pub(crate) fn warm_up(&mut self, history: &History, position: u32) -> Result<(), CodecError> {
        self.reset();
        let (frames, position) = (self.format.frames() as usize, position as usize);
        let before = history.before();
        let packets = before.saturating_sub(position).min(WARM_UP_FRAMES) / frames;
        // What of the packet was before the mix began.
        let unheard = position.saturating_sub(before) * self.format.codec.rate().frame_samples();
        self.pending.resize(unheard.min(self.packet_samples), 0);
        for back in (1..=packets * frames + position.min(before)).rev() {
            self.feed(history.frame(back));
            if self.frames() == frames {
                self.finish()?;
            }
        }
        Ok(())
    }
}

const WARM_UP_FRAMES: usize = (WARM_UP_MS / FRAME_MS) as usize;
/// Frames that are looked back at: the warm-up, and the packet that is being filled.
const HISTORY_FRAMES: usize = WARM_UP_FRAMES + (PTIME_MS_MAX / FRAME_MS) as usize;

/// The last frames of a mix.
#[derive(Debug)]
pub(crate) struct History {
    samples: Vec<i16>,
    frame_samples: usize,
    /// Frames pushed so far, those that are forgotten too.
    pushed: usize,
}

impl History {
    pub(crate) fn new(rate: Rate) -> Self {
        let frame_samples = rate.frame_samples();
        Self { samples: vec![0; frame_samples * HISTORY_FRAMES], frame_samples, pushed: 0 }
    }

    /// Takes in the present frame.
    pub(crate) fn push(&mut self, frame: &[i16]) {
        let at = self.pushed % HISTORY_FRAMES * self.frame_samples;
        self.samples[at..at + self.frame_samples].copy_from_slice(frame);
        self.pushed += 1;
    }

    /// Forgets all: the mix was at rest.
    pub(crate) const fn clear(&mut self) {
        self.pushed = 0;
    }

    /// Frames before the present one.
    fn before(&self) -> usize {
        self.pushed.saturating_sub(1).min(HISTORY_FRAMES - 1)
    }

    /// The frame so many before the present one.
    pub(crate) fn frame(&self, back: usize) -> &[i16] {
        let at = (self.pushed + HISTORY_FRAMES - 1 - back) % HISTORY_FRAMES * self.frame_samples;
        &self.samples[at..at + self.frame_samples]
    }
}

/// An outlet that several listen to. It runs while somebody does.
#[derive(Debug)]
pub(crate) struct SharedOutlet {
    outlet: Outlet,
    /// It has collected every frame so far.
    live: bool,
    /// The present packet has been encoded.
    encoded: Option<usize>,
}

impl SharedOutlet {
    pub(crate) const fn new(outlet: Outlet) -> Self {
        Self { outlet, live: false, encoded: None }
    }

    pub(crate) const fn format(&self) -> Format {
        self.outlet.format()
    }

    /// Takes in the mix of a frame, which is frame `position` of its packet.
    pub(crate) fn feed(&mut self, mix: &[i16], position: u32) {
        if position == 0 && self.encoded.take().is_none() {
            // Nobody wanted the last packet.
            self.live = false;
        }
        if self.live {
            self.outlet.feed(mix);
        }
    }

    /// The payload of the packet whose last frame is the present one; `true`: it was encoded just now.
    ///
    /// # Errors
    /// As [`Encoder::encode`]. The outlet is as good as new afterwards.
    pub(crate) fn payload(&mut self, history: &History, clock: Rate) -> Result<(&[u8], bool), CodecError> {
        if let Some(len) = self.encoded {
            return Ok((&self.outlet.payload[..len], false));
        }
        match self.encode(history) {
            Ok(len) => {
                (self.encoded, self.live) = (Some(len), true);
                Ok((&self.outlet.payload[..len], true))
            }
            Err(error) => {
                self.live = false;
                if let Ok(outlet) = Outlet::new(clock, self.outlet.format) {
                    self.outlet = outlet;
                }
                Err(error)
            }
        }
    }

    fn encode(&mut self, history: &History) -> Result<usize, CodecError> {
        if !self.live {
            self.outlet.warm_up(history, self.outlet.format.frames() - 1)?;
            self.outlet.feed(history.frame(0));
        }
        Ok(self.outlet.finish()?.len())
    }
}

/// What a member needs whose audio is more than G.711 on a clock of 8 kHz.
#[derive(Debug)]
pub(crate) struct Wide {
    /// Rate of the clock, and its codec.
    made_for: (Rate, CodecKind),
    /// From its codec to the clock.
    pub(crate) inward: Resampler,
    /// From the clock to what finds digits.
    pub(crate) to_narrow: Resampler,
    /// For what it alone hears.
    pub(crate) outlet: Outlet,
    /// The outlet of its own runs.
    pub(crate) live: bool,
    /// Frames for which it keeps running although others hear the same.
    pub(crate) hold: u32,
    /// Frames without a sound in a row that came in.
    pub(crate) quiet: u32,
}

impl Wide {
    /// What a connection needs on a clock of that rate.
    ///
    /// # Errors
    /// `Unavailable`: nobody encodes its codec here.
    pub(crate) fn new(clock: Rate, spec: &ConnectionSpec) -> Result<Box<Self>, CodecError> {
        Ok(Box::new(Self {
            made_for: (clock, spec.rx_codec),
            inward: Resampler::new(spec.rx_codec.rate(), clock),
            to_narrow: Resampler::new(clock, Rate::Narrow),
            outlet: Outlet::new(clock, Format::of(spec))?,
            live: false,
            hold: 0,
            quiet: 0,
        }))
    }

    /// Whether it serves such a connection on such a clock.
    pub(crate) fn fits(&self, clock: Rate, spec: &ConnectionSpec) -> bool {
        self.made_for == (clock, spec.rx_codec) && self.outlet.format() == Format::of(spec)
    }
}
