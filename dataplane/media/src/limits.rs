//! Every maximum of the engine in one place, with what ties them together.

use core::time::Duration;

/// Sample rate of detectors, and of conferences, prompts and recordings unless they say otherwise, in Hz.
pub const SAMPLE_RATE_HZ: u32 = 8000;
/// Samples, and units of the RTP timestamp, in a millisecond.
pub const SAMPLES_PER_MS: u32 = SAMPLE_RATE_HZ / 1000;
/// Length of one step of the media clock in milliseconds: the greatest common divisor of 10, 20, 30 and 40 ms packets.
pub const FRAME_MS: u32 = 10;
/// Samples in one step of the media clock.
pub const FRAME_SAMPLES: usize = FRAME_TICKS as usize;
/// Units of the RTP timestamp in one step of the media clock.
pub const FRAME_TICKS: u32 = SAMPLES_PER_MS * FRAME_MS;
/// Samples in a chunk that crosses a thread border: 20 ms at 8 kHz.
pub const CHUNK_SAMPLES: usize = 2 * FRAME_SAMPLES;
/// Media states of released connections kept for the next ones, some 10 KiB each.
pub const MEDIA_POOL_MAX: usize = 4096;
/// What an encoder runs over before it takes over from another, in milliseconds.
pub const WARM_UP_MS: u32 = 100;
/// How long a member who falls silent keeps an encoder of its own, in milliseconds.
pub const PRIVATE_HOLD_MS: u32 = 500;
/// How long two parties must have needed no mix before packets are passed from one to the other, in milliseconds. It
/// doubles with each time that the mix is needed again,
pub const DIRECT_AFTER_MS: u32 = 1000;
/// up to this.
pub const DIRECT_AFTER_MS_MAX: u32 = 64_000;
/// How often two such parties are looked after, in milliseconds.
pub const DIRECT_CHECK_MS: u32 = 100;
/// Without a packet for so long, a party is heard through the mix again: as silence.
pub const DIRECT_QUIET: Duration = Duration::from_millis(200);
/// Longest packet time that is mixed, in milliseconds.
pub const PTIME_MS_MAX: u32 = 60;
/// Longest packet time that is relayed, in milliseconds.
pub const RELAY_PTIME_MS_MAX: u32 = 200;
/// Phases over which conferences and solo clocks are spread: one per millisecond of a step.
pub const PHASES: u32 = FRAME_MS;

/// Connections of one shard.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Conferences of one shard.
pub const CONFERENCES_MAX: usize = 8_192;
/// Participants of one conference.
pub const PARTICIPANTS_MAX: usize = 4_096;
/// Parts of one conference.
pub const PARTS_MAX: usize = 32;
/// How long after a frame was due a part of its conference is waited for.
pub const PARTIAL_PATIENCE: Duration = Duration::from_millis(5);
/// Frames ahead of the one that is due of which the sums of other parts are kept: how long a shard may stand still.
pub const PARTIAL_FRAMES_AHEAD: usize = 32;
/// Frames in a row without a part after which it is not waited for any more, until it is in time again.
pub const PARTIAL_MISSES_MAX: u8 = 5;
/// How often a part that does not mix tells the others who is in it, in case that was lost.
pub const PART_REMINDER: Duration = Duration::from_secs(1);
/// Partial sums that may wait to be polled.
pub const PARTIALS_WAITING_MAX: usize = 1024;
/// Partial sums that are kept to be used again, some 3 KiB each.
pub const PARTIALS_POOL_MAX: usize = 1024;
/// Participants of a hairpin.
pub const HAIRPIN_MAX: usize = 2;
/// Operations that run at once on one connection (Metreos.MediaControl: three).
pub const CONNECTION_OPERATIONS_MAX: usize = 3;
/// Operations that run at once on one conference.
pub const CONFERENCE_OPERATIONS_MAX: usize = 8;
/// Digits a connection keeps (Metreos.MediaControl: 31).
pub const DIGITS_MAX: usize = 31;
/// Digits of a pattern or list (Metreos.MediaControl: 15).
pub const DIGIT_PATTERN_MAX: usize = 15;
/// Digits of a pattern that are pressed further apart don't belong together.
pub const DIGIT_SEQUENCE_INTERVAL: Duration = Duration::from_secs(2);
/// Without a packet for this long a connection is no longer listened to for tones.
pub const LISTENING_MAX: Duration = Duration::from_secs(1);
/// Steps of volume and speed.
pub const PLAY_STEPS_MIN: i8 = -10;
/// Steps of volume and speed.
pub const PLAY_STEPS_MAX: i8 = 10;
/// Decibels of one step of volume.
pub const VOLUME_STEP_DB: i16 = 2;
/// Slowest and fastest a prompt is played, in per cent of its own speed; one step is 10.
pub const SPEED_PERCENT: (u16, u16) = (50, 150);
/// Frequencies of a tone in Hz.
pub const TONE_HZ: (u16, u16) = (200, 3000);
/// Levels of a tone in dBm0.
pub const TONE_DBM0: (i8, i8) = (-40, 0);
/// Length of the tones that a conference makes by itself: when somebody joins or leaves, and the tariff tone.
pub const NOTICE_TONE_MS: u32 = 200;
/// Their level in dBm0.
pub const NOTICE_TONE_DBM0: i8 = -20;
/// The two halves of the tone when somebody joins, in Hz; when somebody leaves they change places.
pub const JOIN_TONE_HZ: (u16, u16) = (550, 650);
/// The tariff tone, in Hz.
pub const TARIFF_TONE_HZ: u16 = 1000;
/// From the beginning of one tariff tone to that of the next, and from when it is switched on to the first.
pub const TARIFF_PERIOD: Duration = Duration::from_secs(15);
/// Prompts of one play.
pub const PROMPTS_MAX: usize = 64;
/// Payload types a connection may name besides the static ones.
pub const PAYLOAD_TYPES_MAX: usize = 8;

/// Largest datagram looked at, in bytes; what is longer is dropped as truncated.
pub const DATAGRAM_BYTES_MAX: usize = 2048;

/// Tokens in the bucket of one source: packets it may send in one burst.
pub const SOURCE_BURST_PACKETS: u32 = 500;
/// How many times its own packet rate a source's bucket refills.
pub const SOURCE_RATE_FACTOR: u32 = 4;
/// Sources compared while an endpoint is being learned.
pub const LEARNING_CANDIDATES_MAX: usize = 4;
/// How long an exact match of a given remote address may still displace a learned one, from the first packet.
pub const LEARNING_WINDOW: Duration = Duration::from_millis(500);
/// How long a pinned SSRC has to be silent before its source may start another.
pub const SSRC_HANDOVER_SILENCE: Duration = Duration::from_millis(200);

/// Silence that ends talk, in milliseconds.
pub const TALK_STOP_MS: (u16, u16) = (50, 10_000);
/// Longer than a pause for breath.
pub const TALK_STOP_MS_DEFAULT: u16 = 500;
/// By how much somebody has to be louder than one who is mixed to take his place among the loudest, in decibels.
pub const LOUDEST_ADVANTAGE_DB: i16 = 6;
/// How long somebody has to be the loudest to be the active speaker, in milliseconds.
pub const ACTIVE_SPEAKER_MS: u32 = 300;
/// What is said to be silent is decoded nevertheless once in so many milliseconds, to see whether it is.
pub const LEVEL_CHECK_MS: u32 = 1_000;
/// Sources that a packet of a mix names (RFC 3550 section 5.1: a count of four bits).
pub const CONTRIBUTORS_MAX: usize = 15;

/// Longest delay that can be asked of a jitter buffer, in milliseconds.
pub const DELAY_MS_MAX: u16 = 500;
/// How far ahead of time a sender may send what is mixed, recorded or transcoded, in milliseconds: what is further ahead
/// is dropped as `early`.
pub const AHEAD_MS_MAX: u16 = 10_000;
/// Frames of silence after which an endpoint that takes comfort noise is sent no more of it but a description.
pub const COMFORT_NOISE_AFTER_MS: u32 = 200;
/// Level of the comfort noise that stands for digital silence, in dBov.
pub const COMFORT_NOISE_DBOV: i8 = -75;

/// Commands taken in one turn of a shard.
pub const COMMANDS_PER_TURN_MAX: usize = 64;

/// Gain of a participant in decibels.
pub const GAIN_DB_MIN: i16 = -60;
/// Gain of a participant in decibels.
pub const GAIN_DB_MAX: i16 = 24;

/// Events that may wait to be polled before talk and digit events are dropped. The others are bounded by what owes
/// them: each command one answer; each connection a learned, a timeout and an end; each operation and conference an end.
pub const EVENTS_WAITING_MAX: usize = 4096;

/// Streams that may end at once with a BYE; more end without.
pub const FAREWELLS_WAITING_MAX: usize = 1024;
/// Without a packet either way for this long no reports are sent.
pub const REPORTING_MAX: Duration = Duration::from_secs(60);
/// How long after a collision of SSRCs another is taken for our own packets coming back (RFC 3550 section 8.2: ten
/// reporting intervals).
pub const COLLISION_PERIOD: Duration = Duration::from_secs(50);

const _: () = assert!(SAMPLE_RATE_HZ.is_multiple_of(1000 / FRAME_MS));
const _: () = assert!(NOTICE_TONE_MS.is_multiple_of(FRAME_MS) && TARIFF_PERIOD.as_millis() <= 60_000);
const _: () =
    assert!(PARTIAL_PATIENCE.as_millis() < FRAME_MS as u128, "a frame is delivered before the next is collected");
const _: () = assert!(CONNECTIONS_MAX < 1 << 24 && CONFERENCES_MAX < 1 << 24);
