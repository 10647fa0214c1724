//! The speech the demo carries with it; see `control/assets/README.md`.

use super::stream::PACKET_SAMPLES;

/// One packet's worth of µ-law.
pub(super) type Payload = [u8; PACKET_SAMPLES];

/// A packet of µ-law silence.
pub(super) const SILENCE: Payload = [0xFF; PACKET_SAMPLES];

/// Who speaks, with a µ-law WAV file of it.
pub(super) const SPEAKERS: [(&str, &[u8]); 3] = [
    ("alice", include_bytes!("../../assets/alice.wav")),
    ("bob", include_bytes!("../../assets/bob.wav")),
    ("carol", include_bytes!("../../assets/carol.wav")),
];

/// The announcement as a file.
pub(super) const ANNOUNCEMENT: &[u8] = include_bytes!("../../assets/announcement.wav");

/// The code words of a µ-law WAV file of ours.
pub(super) fn words(wav: &'static [u8]) -> &'static [u8] {
    let mut rest = &wav[12..];
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, length @ ..] = *head;
        let length = u32::from_le_bytes(length) as usize;
        if [a, b, c, d] == *b"data" {
            return &body[..length];
        }
        rest = &body[length + length % 2..];
    }
    &[]
}

/// The packets of a clip, the last filled up with silence.
pub(super) fn packets(wav: &'static [u8]) -> impl Iterator<Item = Payload> + Clone {
    words(wav).chunks(PACKET_SAMPLES).map(|chunk| {
        let mut payload = SILENCE;
        payload[..chunk.len()].copy_from_slice(chunk);
        payload
    })
}
