//! Payloads from frames, for streams that are more than G.711 on a clock of 8 kHz.
//!
//! ```text
//!  frame at the clock's rate ─ resample ─ collect a packet's worth ─ encode ─ payload
//! ```
//!
//! A conference has one [`Outlet`] for each format its listeners have in common, and each member one of its own for
//! what only he hears: the mix without himself, a prompt. Packets of a format begin on a grid of the conference's
//! frames, so that one payload fits all.
//!
//! The far decoder remembers what the packets before told it, and whoever makes the next one has to remember the same,
//! or there is a click. So nobody changes outlets as he likes:
//!
//! ```text
//!            begins to hear something of his own: his outlet takes the state of the shared one
//!  shared ─────────────────────────────────────────────────────────────────────────────────────▶ own
//!         ◀─────────────────────────────────────────────────────────────────────────────────────
//!            hears what others hear: his outlet goes on, and leans towards the shared one until both are in step
//!            or, if nobody is on the shared one: that takes his state
//! ```
//!
//! An encoder whose state can't be taken first runs over what was heard last.

use ringbridge_codec::resample::Resampler;
use ringbridge_codec::{CodecError, CodecKind, Encoder, EncoderSettings, Rate, kind};

use crate::command::ConnectionSpec;
use crate::limits::{FRAME_MS, PRIVATE_HOLD_MS, PRIVATE_HOLD_MS_MAX, PRIVATE_HOLD_MS_STRICT, PTIME_MS_MAX, WARM_UP_MS};
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
    /// Bytes of the last packet.
    payload_bytes: usize,
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
            payload_bytes: 0,
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

    /// The payload of what was collected, leaning towards one of the same.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    fn finish_toward(&mut self, toward: &[u8]) -> Result<&[u8], CodecError> {
        let len = self.encoder.encode_toward(&self.pending, toward, &mut self.payload);
        self.finished(len)
    }

    /// Takes the place of another of the same format; `false` if its encoder has no way to.
    fn copy_from(&mut self, other: &Self) -> Result<bool, CodecError> {
        let copied = self.encoder.copy_from(&other.encoder)?;
        if copied {
            self.resampler.clone_from(&other.resampler);
            self.pending.clone_from(&other.pending);
        }
        Ok(copied)
    }

    /// The payload of what was collected.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub(crate) fn finish(&mut self) -> Result<&[u8], CodecError> {
        let len = self.encoder.encode(&self.pending, &mut self.payload);
        self.finished(len)
    }

    fn finished(&mut self, len: Result<usize, CodecError>) -> Result<&[u8], CodecError> {
        self.pending.clear();
        self.payload_bytes = len?;
        Ok(self.packet())
    }

    /// The last payload.
    fn packet(&self) -> &[u8] {
        &self.payload[..self.payload_bytes]
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

/// Frames for which a member who falls silent keeps an outlet of his own: at least, until less will do, and at most.
const HOLD_FRAMES: u32 = PRIVATE_HOLD_MS / FRAME_MS;
const HOLD_FRAMES_LENIENT: u32 = PRIVATE_HOLD_MS_STRICT / FRAME_MS;
const HOLD_FRAMES_MAX: u32 = PRIVATE_HOLD_MS_MAX / FRAME_MS;
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
    /// What its resampler was before the present frame.
    before: Resampler,
    /// It has collected every frame so far.
    live: bool,
    /// The present packet has been encoded.
    encoded: bool,
}

impl SharedOutlet {
    pub(crate) fn new(outlet: Outlet) -> Self {
        let before = outlet.resampler.clone();
        Self { outlet, before, live: false, encoded: false }
    }

    pub(crate) const fn format(&self) -> Format {
        self.outlet.format()
    }

    /// The clock stood still: the next packet begins anew.
    pub(crate) const fn rest(&mut self) {
        (self.live, self.encoded) = (false, false);
    }

    /// Takes in the mix of a frame, which is frame `position` of its packet.
    pub(crate) fn feed(&mut self, mix: &[i16], position: u32) {
        if position == 0 && !core::mem::take(&mut self.encoded) {
            // Nobody wanted the last packet.
            self.live = false;
        }
        if self.live {
            self.before.clone_from(&self.outlet.resampler);
            self.outlet.feed(mix);
        }
    }

    /// Has `own` go on in its place from the present frame on, which is frame `position` of its packet; `false`: it has
    /// nothing to go on from.
    fn branch(&self, own: &mut Outlet, position: u32) -> Result<bool, CodecError> {
        if !self.live || self.encoded || !own.copy_from(&self.outlet)? {
            return Ok(false);
        }
        own.resampler.clone_from(&self.before);
        own.pending.truncate(position as usize * own.format.codec.rate().frame_samples());
        Ok(true)
    }

    /// Goes on in the place of `own`, which holds a whole packet; `false`: it goes on from its own packets, or the codec
    /// has no way to.
    fn adopt(&mut self, own: &Outlet) -> Result<bool, CodecError> {
        if self.live || self.encoded || !self.outlet.copy_from(own)? {
            return Ok(false);
        }
        self.live = true;
        Ok(true)
    }

    /// The payload of the packet whose last frame is the present one; `true`: it was encoded just now.
    ///
    /// # Errors
    /// As [`Encoder::encode`]. The outlet is as good as new afterwards.
    pub(crate) fn payload(&mut self, history: &History, clock: Rate) -> Result<(&[u8], bool), CodecError> {
        if self.encoded {
            return Ok((self.packet(), false));
        }
        match self.encode(history) {
            Ok(()) => {
                (self.encoded, self.live) = (true, true);
                Ok((self.packet(), true))
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

    /// The last payload.
    fn packet(&self) -> &[u8] {
        self.outlet.packet()
    }

    fn encode(&mut self, history: &History) -> Result<(), CodecError> {
        if !self.live {
            self.outlet.warm_up(history, self.outlet.format.frames() - 1)?;
            self.outlet.feed(history.frame(0));
        }
        self.outlet.finish()?;
        Ok(())
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
    /// The outlet of its own runs, and made the last packet.
    live: bool,
    /// Frames in a row for which it has run although others hear the same.
    alike: u32,
    /// Both have encoded the last packet of it.
    watches: bool,
    /// A packet of what others hear too waits to be sent, until all have left the shared outlet who leave it.
    pub(crate) waits: bool,
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
            alike: 0,
            watches: false,
            waits: false,
            quiet: 0,
        }))
    }

    /// Whether so many frames of the present packet are collected, if its outlet runs.
    pub(crate) fn is_at(&self, position: u32) -> bool {
        !self.live || self.outlet.frames() == position as usize
    }

    /// The packet that was begun is given up. What the far decoder remembers is what it was.
    pub(crate) fn interrupt(&mut self) {
        self.outlet.clear();
        (self.alike, self.watches, self.waits) = (0, false, false);
    }

    /// Its outlet has made a packet outside a conference.
    pub(crate) const fn note_own(&mut self) {
        (self.live, self.alike, self.watches) = (true, 0, false);
    }

    /// Collects a frame of what it alone hears, which is frame `position` of its packet; `shared` is the outlet that it
    /// leaves.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub(crate) fn feed_own(
        &mut self,
        frame: &[i16],
        position: u32,
        shared: Option<&SharedOutlet>,
        history: &History,
    ) -> Result<(), CodecError> {
        if !self.live {
            let branched = shared.map_or(Ok(false), |shared| shared.branch(&mut self.outlet, position))?;
            if !branched {
                self.outlet.warm_up(history, position)?;
            }
            self.live = true;
        }
        (self.alike, self.watches) = (0, false);
        self.outlet.feed(frame);
        Ok(())
    }

    /// Collects a frame of what others hear too.
    pub(crate) fn feed_shared(&mut self, mix: &[i16]) {
        if self.live {
            self.alike = self.alike.saturating_add(1);
            self.outlet.feed(mix);
        }
    }

    /// The packet whose last frame is of its own.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub(crate) fn finish_own(&mut self) -> Result<&[u8], CodecError> {
        self.outlet.finish()
    }

    /// The packet whose last frame others hear too: theirs, if it can be decoded behind what was sent before. Also how
    /// many packets were encoded for it.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub(crate) fn finish_shared<'a>(
        &'a mut self,
        shared: &'a mut SharedOutlet,
        history: &History,
        clock: Rate,
    ) -> Result<(&'a [u8], u64), CodecError> {
        // What began as its own ends as its own.
        let is_alike = self.alike >= self.outlet.format.frames();
        if self.live && !is_alike {
            self.outlet.finish()?;
            return Ok((self.outlet.packet(), 1));
        }
        if self.live && shared.adopt(&self.outlet)? {
            self.leave();
        }
        let is_new = u64::from(shared.payload(history, clock)?.1);
        let (shared, payload) = (&shared.outlet.encoder, shared.packet());
        let follows = || {
            let lenient = self.alike >= HOLD_FRAMES_LENIENT;
            self.watches && self.outlet.encoder.could_go_on_with(shared, payload, lenient)
        };
        if !self.live || self.alike >= HOLD_FRAMES_MAX || (self.alike >= HOLD_FRAMES && follows()) {
            self.leave();
            return Ok((payload, is_new));
        }
        self.outlet.finish_toward(payload)?;
        self.outlet.encoder.watch(shared);
        self.watches = true;
        Ok((self.outlet.packet(), is_new + 1))
    }

    /// Its outlet rests, and others make the next packet.
    fn leave(&mut self) {
        self.outlet.clear();
        (self.live, self.alike, self.watches) = (false, 0, false);
    }

    /// Whether it serves such a connection on such a clock.
    pub(crate) fn fits(&self, clock: Rate, spec: &ConnectionSpec) -> bool {
        self.made_for == (clock, spec.rx_codec) && self.outlet.format() == Format::of(spec)
    }
}
