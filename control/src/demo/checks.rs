//! The claims of the demo as pure functions: what was sent and heard goes in, a verdict with its numbers comes out.
//!
//! None of them looks at a clock. A claim holds or does not on the content and the timestamps alone, however late
//! packets were on a busy machine.

use std::collections::HashMap;
use std::ops::Range;

use super::signal::{Aligned, Fit, Presence, Track, WINDOW, fit, fits};
use super::stream::{Heard, PACKET_SAMPLES, Packet, Sent};

/// The numbers that show a claim to hold, or what is wrong.
pub(super) type Verdict = Result<String, String>;

/// A voice that is heard has a gain between these …
const GAIN_HEARD: Range<f64> = 0.8..1.2;
/// … and one that is not heard a smaller one than this.
const GAIN_UNHEARD: f64 = 0.1;
/// A voice is heard in at least this part of the windows that tell. All of them, but for packets that came late.
const SHARE_HEARD: f64 = 0.5;
/// At least this part of the windows has to be explained by the voices. All of them, but for the same reason.
const SHARE_CLEAR: f64 = 0.25;
/// With fewer windows that tell nothing is shown.
const WINDOWS_MIN: usize = 8;
/// Windows before a stamp in which what ends there has to be heard still: 300 ms.
const LAST_WINDOWS: usize = 15;
/// Packets a server may use up to learn where an endpoint is.
const LEARNING_PACKETS: usize = 10;

/// Two endpoints relayed: what `heard` holds is to the byte what `sent` holds, header and payload, in order. Missing
/// may be what was sent first, while the server learned the endpoint.
pub(super) fn relay(listener: &str, sent: &Sent, heard: &[Packet]) -> Verdict {
    let by_sequence: HashMap<u16, usize> = sent
        .packets
        .iter()
        .enumerate()
        .map(|(index, packet)| packet.rtp().map(|rtp| (rtp.sequence_number().0, index)))
        .collect::<Result<_, _>>()?;
    let mut next = None;
    for packet in heard {
        let sequence = packet.rtp()?.sequence_number().0;
        let index = *by_sequence
            .get(&sequence)
            .ok_or_else(|| format!("{listener} heard sequence number {sequence}, which was never sent"))?;
        if sent.packets[index].bytes != packet.bytes {
            return Err(format!("{listener} heard packet {sequence} changed on its way"));
        }
        match next {
            None if index > LEARNING_PACKETS => return Err(format!("{listener} missed the first {index} packets")),
            Some(expected) if index != expected => {
                return Err(format!("{listener} heard packet {index} where packet {expected} was due"));
            }
            _ => next = Some(index + 1),
        }
    }
    if next != Some(sent.packets.len()) {
        return Err(format!("{listener} heard up to packet {:?} of {}", next.unwrap_or(0), sent.packets.len()));
    }
    let missed = sent.packets.len() - heard.len();
    Ok(format!("{} packets equal to the byte, {missed} used up by learning", heard.len()))
}

/// A conference: in `range`, `heard` holds everybody in `others` and nobody in `absent`.
///
/// It is judged by windows: most of them have to be explained by the voices; each of `others` has to be there in most of
/// those in which she speaks; and where nobody is missing, all have to be there with the level they were sent with.
pub(super) fn hears(heard: &Heard, range: Range<usize>, others: &[Aligned<'_>], absent: &[Aligned<'_>]) -> Verdict {
    let name = &heard.name;
    let tracks = refined(heard, &range, others);
    let all: Vec<Aligned<'_>> = with_tracks(others, &tracks).chain(absent.iter().copied()).collect();
    let windows = fits(&heard.samples, range, &all);
    let clear = windows.iter().filter(|(_, fit)| fit.is_clear()).count();
    if clear < WINDOWS_MIN || (clear as f64) < SHARE_CLEAR * windows.len() as f64 {
        return Err(format!(
            "{name} hears something else: only {clear} of {} windows hold these voices",
            windows.len()
        ));
    }
    for (index, aligned) in others.iter().enumerate() {
        let (present, clear) = telling(&windows, index);
        if clear < WINDOWS_MIN {
            return Err(format!("{} hardly speaks in this part: that shows nothing to {name}", aligned.voice.name));
        }
        if (present as f64) < SHARE_HEARD * clear as f64 {
            return Err(format!("{name} hears {} in only {present} of {clear} windows", aligned.voice.name));
        }
    }
    let nobody_missing =
        |fit: &Fit| fit.is_clear() && (0..others.len()).all(|index| fit.presence(index) != Presence::Absent);
    let whole: Vec<Range<usize>> =
        windows.iter().filter(|(_, fit)| nobody_missing(fit)).map(|(window, _)| window.clone()).collect();
    let found = fit(&heard.samples, &whole, &all);
    let mut told = Vec::new();
    for (index, (aligned, gain)) in all.iter().zip(&found.gains).enumerate() {
        let voice = &aligned.voice.name;
        if index < others.len() && !GAIN_HEARD.contains(&gain.value) {
            return Err(format!("{name} hears {voice} with gain {:.3}, not 1", gain.value));
        }
        if index >= others.len() && gain.value.abs() > GAIN_UNHEARD {
            return Err(format!("{name} hears {voice} with gain {:.3}, not 0", gain.value));
        }
        if gain.error.is_infinite() {
            return Err(format!("{voice} hardly speaks in this part: that shows nothing to {name}"));
        }
        told.push(format!("{voice} {:+.3}", gain.value));
    }
    Ok(format!(
        "gains {}; correlation {:.3} in {} of {} windows",
        told.join(", "),
        found.correlation,
        whole.len(),
        windows.len()
    ))
}

/// Something stopped: in `before`, up to its last sample, `gone` is heard; in `after`, from its first sample on, it is
/// not, window by window; and those in `staying` are heard all along.
///
/// A window shows a voice if its samples there explain what was heard with at least half their level, beyond doubt; what
/// is unclear (a pause in speech, a lost packet) is no evidence either way, so the whole of `after` is judged too.
pub(super) fn stops(
    heard: &Heard,
    before: Range<usize>,
    after: Range<usize>,
    gone: Aligned<'_>,
    staying: &[Aligned<'_>],
) -> Verdict {
    let (name, voice) = (&heard.name, &gone.voice.name);
    let everybody: Vec<Aligned<'_>> = std::iter::once(gone).chain(staying.iter().copied()).collect();
    let was = hears(heard, before.clone(), &everybody, &[]).map_err(|error| format!("before it stopped: {error}"))?;
    // The end of that by itself: it must not stop early either.
    let tracks = refined(heard, &before, &everybody);
    let everybody: Vec<Aligned<'_>> = with_tracks(&everybody, &tracks).collect();
    let end = before.end.saturating_sub(LAST_WINDOWS * WINDOW).max(before.start)..before.end;
    let (present, clear) = telling(&fits(&heard.samples, end, &everybody), 0);
    if (present as f64) < SHARE_HEARD * clear as f64 {
        return Err(format!("{name} hears {voice} in only {present} of the last {clear} windows before the stamp"));
    }
    // Where the voice would be heard if it had gone on.
    let track = gone.track.steady(&heard.samples, gone.voice, before);
    let gone = Aligned { voice: gone.voice, track: &track };
    let tracks = refined(heard, &after, staying);
    let everybody: Vec<Aligned<'_>> = std::iter::once(gone).chain(with_tracks(staying, &tracks)).collect();
    let windows = fits(&heard.samples, after.clone(), &everybody);
    if let Some((window, _)) = windows.iter().find(|(_, fit)| fit.presence(0) == Presence::Present) {
        return Err(format!(
            "{name} still hears {voice} at timestamp {}, {:.1} ms past the stamp",
            heard.timestamp(window.start),
            (window.start - after.start) as f64 / 8.0
        ));
    }
    let (_, clear) = telling(&windows, 0);
    if clear < WINDOWS_MIN {
        return Err(format!("{voice} pauses where it should be missing: that shows nothing to {name}"));
    }
    let is = hears(heard, after, staying, &[gone]).map_err(|error| format!("after it stopped: {error}"))?;
    Ok(format!("before: {was}; after: {is}; {clear} windows clearly without {voice}"))
}

/// In how many windows a voice is present, and in how many that can be told.
fn telling(windows: &[(Range<usize>, Fit)], voice: usize) -> (usize, usize) {
    let count = |presence| windows.iter().filter(|(_, fit)| fit.presence(voice) == presence).count();
    let present = count(Presence::Present);
    (present, present + count(Presence::Absent))
}

fn refined(heard: &Heard, range: &Range<usize>, voices: &[Aligned<'_>]) -> Vec<Track> {
    voices.iter().map(|aligned| aligned.track.refine(&heard.samples, aligned.voice, range.clone())).collect()
}

fn with_tracks<'a>(voices: &[Aligned<'a>], tracks: &'a [Track]) -> impl Iterator<Item = Aligned<'a>> {
    voices.iter().zip(tracks).map(|(aligned, track)| Aligned { voice: aligned.voice, track })
}

/// A connection was deleted: no packet of its stream holds a timestamp at or past the stamp, and its packets had come up
/// to a second before.
pub(super) fn ends(heard: &Heard, stamp: u32) -> Verdict {
    let end = i64::try_from(heard.samples.len()).unwrap_or(i64::MAX);
    let stamp_offset = heard.offset(stamp);
    if end > stamp_offset {
        let (late, _) = heard.arrivals()[heard.arrivals().len() - 1];
        return Err(format!(
            "{} was sent timestamp {} although it ended at {stamp}",
            heard.name,
            heard.timestamp(late.max(heard.samples.len().saturating_sub(PACKET_SAMPLES)))
        ));
    }
    let missing = stamp_offset - end;
    if missing > 8000 {
        return Err(format!("{} heard nothing in the last {} ms before the stamp", heard.name, missing / 8));
    }
    Ok(format!("the last sample sent is {missing} before the stamp"))
}

/// The headers of a stream of the server's own: sequence numbers without a gap, timestamps that advance with the samples
/// and never fall back. They may jump ahead where the stream paused.
pub(super) fn continuous(name: &str, packets: &[Packet]) -> Verdict {
    let mut last = None;
    let mut pauses = 0;
    for packet in packets {
        let rtp = packet.rtp()?;
        let (sequence, timestamp) = (rtp.sequence_number(), rtp.timestamp());
        let units = u32::try_from(rtp.payload().len()).unwrap_or(u32::MAX);
        if let Some((previous, due)) = last.replace((sequence, timestamp.wrapping_add(units))) {
            if sequence.distance_from(previous) != 1 {
                return Err(format!("{name} heard sequence number {} after {}", sequence.0, previous.0));
            }
            if timestamp.distance_from(due) < 0 {
                return Err(format!("{name} heard timestamp {} where {} was due", timestamp.0, due.0));
            }
            pauses += usize::from(timestamp != due);
        }
    }
    Ok(format!("{} packets in a row, {pauses} pauses", packets.len()))
}

/// Exactly one event of a kind that matches, and what it says.
pub(super) fn exactly_one<'a>(
    events: &'a [serde_json::Value],
    name: &str,
    key: &str,
    id: &str,
) -> Result<&'a serde_json::Value, String> {
    let mut matching = events.iter().filter(|event| event["event"] == name && event[key] == id);
    match (matching.next(), matching.count()) {
        (Some(event), 0) => Ok(event),
        (Some(_), more) => Err(format!("{name} of {id} came {} times", more + 1)),
        (None, _) => Err(format!("{name} of {id} never came")),
    }
}
