//! Writes the seeds that libFuzzer begins with: packets as they should be, and a stream of each codec.
//!
//! `cargo run -p ringbridge-fuzz-targets --example seeds -- fuzz/corpus`; what is there already stays.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use ringbridge_codec::{CodecKind, Encoder, EncoderSettings};
use ringbridge_wire::rtcp::{CompoundWriter, NtpTimestamp, ReportBlock, SenderInfo};
use ringbridge_wire::rtp::{COMFORT_NOISE, RTP_HEADER_BYTES_MAX, RtpHeader};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};
use ringbridge_wire::telephone_event::TelephoneEvent;
use ringbridge_wire::xr::{Delay, UNAVAILABLE, VoipMetrics, XrContents};

type Seed = (&'static str, String, Vec<u8>);
type Fill<'a> = dyn Fn(&mut CompoundWriter<'_>) -> Result<(), Box<dyn Error>> + 'a;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("usage: seeds FOLDER")?;
    let mut seeds = rtp();
    seeds.extend(rtcp()?);
    seeds.extend(codecs());
    seeds.extend(audio());
    for (target, name, bytes) in seeds {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{name}")), bytes)?;
    }
    Ok(())
}

const HEADER: RtpHeader = RtpHeader {
    marker: true,
    payload_type: 0,
    sequence_number: SeqNumber(65_535),
    timestamp: RtpTimestamp(0xFFFF_FF60),
    ssrc: Ssrc(0xDEAD_BEEF),
};

fn rtp() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |name: &str, header: RtpHeader, csrcs: &[u32], levels: Option<(u8, &[u8])>, payload: &[u8]| {
        let mut bytes = vec![0; RTP_HEADER_BYTES_MAX];
        let len = header.emit_with(&mut bytes, csrcs, levels).unwrap_or(0);
        bytes.truncate(len);
        bytes.extend_from_slice(payload);
        seeds.push(("rtp", name.to_owned(), bytes));
    };
    add("plain", HEADER, &[], None, &[0x7F; 160]);
    add("sources", HEADER, &[1, 2, 3], None, &[0x55; 80]);
    add("levels-one-byte", HEADER, &[1, 2], Some((5, &[30, 127])), &[0x55; 80]);
    add("levels-two-byte", HEADER, &[7; 15], Some((200, &[1; 15])), &[0x55; 80]);
    add("comfort-noise", RtpHeader { payload_type: COMFORT_NOISE, ..HEADER }, &[], None, &[60, 20, 90]);
    let mut event = [0; 4];
    TelephoneEvent { event: 11, end: true, volume: 10, duration: 800 }.emit(&mut event);
    add("telephone-event", RtpHeader { payload_type: 101, ..HEADER }, &[], None, &event);
    seeds.push((
        "rtp",
        "padded".to_owned(),
        [&[0xB0, 0][..], &[0; 10], &[0x10, 0, 0, 1, 1, 2, 9, 9, 5, 0, 0, 3]].concat(),
    ));
    seeds.push(("rtp", "stun".to_owned(), [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat()));
    seeds.push(("rtp", "dtls".to_owned(), [&[22, 254, 253][..], &[0; 20]].concat()));
    seeds
}

fn rtcp() -> Result<Vec<Seed>, Box<dyn Error>> {
    const BLOCK: ReportBlock = ReportBlock {
        ssrc: Ssrc(2),
        fraction_lost: 64,
        cumulative_lost: -2,
        highest_sequence: 0x0001_FFFF,
        interarrival_jitter: 9,
        last_sr: 0x0102_0304,
        delay_since_last_sr: 65_536,
    };
    const METRICS: VoipMetrics = VoipMetrics {
        ssrc: Ssrc(2),
        loss_rate: 1,
        discard_rate: 2,
        burst_density: 3,
        gap_density: 4,
        burst_duration_ms: 500,
        gap_duration_ms: 600,
        round_trip_delay_ms: 70,
        end_system_delay_ms: 80,
        signal_level: -13,
        noise_level: -60,
        residual_echo_return_loss: 55,
        gap_min: 16,
        r_factor: 93,
        external_r_factor: UNAVAILABLE,
        mos_lq: 44,
        mos_cq: 43,
        receiver_configuration: 0b1110_0000,
        jitter_buffer_nominal_ms: 20,
        jitter_buffer_maximum_ms: 512,
        jitter_buffer_absolute_maximum_ms: 512,
    };
    const DELAY: Delay = Delay { ssrc: Ssrc(2), last_rr: 0x0506_0708, delay_since_last_rr: 65_536 };
    const INFO: SenderInfo = SenderInfo {
        ntp: NtpTimestamp(0xE000_0001_8000_0002),
        rtp_timestamp: RtpTimestamp(800),
        packet_count: 5,
        octet_count: 800,
    };
    let mut seeds = Vec::new();
    let mut add = |name: &str, fill: &Fill<'_>| {
        let mut out = [0; 512];
        let mut writer = CompoundWriter::new(&mut out);
        fill(&mut writer)?;
        let len = writer.len();
        seeds.push(("rtcp", name.to_owned(), out[..len].to_vec()));
        Ok::<(), Box<dyn Error>>(())
    };
    add("sender", &|writer| {
        writer.sender_report(Ssrc(1), &INFO, &[BLOCK, BLOCK])?;
        writer.cname(Ssrc(1), b"0123456789abcdef01234567")?;
        Ok(writer.extended_report(Ssrc(1), &XrContents { metrics: Some(&METRICS), ..XrContents::default() })?)
    })?;
    add("receiver", &|writer| {
        writer.receiver_report(Ssrc(1), &[BLOCK])?;
        writer.cname(Ssrc(1), b"me")?;
        let contents = XrContents { reference_time: Some(INFO.ntp), delays: &[DELAY, DELAY], metrics: Some(&METRICS) };
        Ok(writer.extended_report(Ssrc(1), &contents)?)
    })?;
    add("farewell", &|writer| {
        writer.receiver_report(Ssrc(1), &[])?;
        writer.cname(Ssrc(1), b"me")?;
        Ok(writer.bye(&[Ssrc(1), Ssrc(2)])?)
    })?;
    add("reduced-size", &|writer| {
        Ok(writer.extended_report(Ssrc(1), &XrContents { delays: &[DELAY], ..XrContents::default() })?)
    })?;
    seeds.push(("rtcp", "feedback".to_owned(), vec![0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]));
    let bye = [0x82, 203, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 4, b'd', b'o', b'n', b'e', 0, 0, 0];
    seeds.push(("rtcp", "reason".to_owned(), bye.to_vec()));
    seeds.push(("rtcp", "padded".to_owned(), vec![0xA0, 203, 0, 1, 0, 0, 0, 4]));
    Ok(seeds)
}

/// Payloads as each codec writes them, then a hole and what makes up for it, and a reset.
fn codecs() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (number, kind) in (0_u8..).zip(CodecKind::ALL) {
        for (bitrate, fec) in [(32_000, false), (32_000, true), (6_000, false)] {
            let settings = EncoderSettings { bitrate, fec, dtx: false };
            let Ok(mut encoder) = Encoder::new(kind, settings) else { continue };
            let mut script = vec![number, u8::from(bitrate == 6_000), u8::from(fec), 0];
            for frame in 0..4 {
                let samples: Vec<i16> = (0..2 * kind.rate().frame_samples())
                    .map(|n| if (n + frame) / 17 % 2 == 0 { 6_000 } else { -5_000 })
                    .collect();
                let mut payload = vec![0; 2 * samples.len()];
                let Ok(len) = encoder.encode(&samples, &mut payload) else { continue };
                // Decoded; then recovered from after a hole; then after a reset.
                let op: &[u8] = match frame {
                    0 | 1 => &[0],
                    2 => &[4, 2, 3, 2],
                    _ => &[5],
                };
                script.extend_from_slice(op);
                match u8::try_from(len) {
                    Ok(short @ 0..=199) => script.push(short),
                    Ok(_) | Err(_) => {
                        let [high, low] = u16::try_from(len).unwrap_or(0).to_be_bytes();
                        script.extend_from_slice(&[200, high, low]);
                    }
                }
                script.extend_from_slice(&payload[..len]);
            }
            // And the target's own encoder.
            script.extend_from_slice(&[6, 0, 0, 0x20, 0, 0xE0, 0, 7]);
            seeds.push((
                "codec",
                format!("{}-{bitrate}-{}", kind.to_string().replace('/', "-"), u8::from(fec)),
                script,
            ));
        }
    }
    seeds
}

fn audio() -> Vec<Seed> {
    (0..8_u8)
        .map(|what| {
            let wave = (0..400_u16).flat_map(|n| if n / 9 % 2 == 0 { [0x20, n.to_le_bytes()[0]] } else { [0xE0, 5] });
            ("audio", format!("{what}"), [what].into_iter().chain(wave).collect())
        })
        .collect()
}
