//! Reading an RTP header: our view against the `rtp` crate, which copies CSRCs and extensions into vectors.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use ringbridge_wire::RtpPacket;
use rtp::packet::Packet;
use webrtc_util::marshal::Unmarshal;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    let plain = packet(0x80, &[]);
    // Two contributing sources and an extension of one audio level element.
    let extended = packet(0x92, &[0, 0, 0, 1, 0, 0, 0, 2, 0xBE, 0xDE, 0, 1, 0x10, 0x85, 0, 0]);
    for (name, datagram) in [("plain", plain), ("csrcs_and_extension", extended)] {
        let mut group = criterion.benchmark_group(format!("header_parse/{name}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("wire", |bencher| bencher.iter(|| read_with_wire(black_box(&datagram))));
        group.bench_function("rtp_crate", |bencher| bencher.iter(|| read_with_rtp_crate(black_box(&datagram))));
        group.finish();
    }
    criterion.final_summary();
}

/// What a receiver looks at in every packet.
type Fields = (u8, u16, u32, u32, usize);

fn read_with_wire(datagram: &[u8]) -> Option<Fields> {
    let packet = RtpPacket::parse(datagram).ok()?;
    Some((
        packet.payload_type(),
        packet.sequence_number().0,
        packet.timestamp().0,
        packet.ssrc().0,
        packet.payload().len(),
    ))
}

fn read_with_rtp_crate(mut datagram: &[u8]) -> Option<Fields> {
    let Packet { header, payload } = Packet::unmarshal(&mut datagram).ok()?;
    Some((header.payload_type, header.sequence_number, header.timestamp, header.ssrc, payload.len()))
}

/// A packet of 20 ms of silence whose header begins with `first` and goes on with `rest` after its fixed part.
fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0, 0x12, 0x34, 0, 0, 0x03, 0x20, 0xDE, 0xAD, 0xBE, 0xEF];
    bytes.extend_from_slice(rest);
    bytes.resize(bytes.len() + 160, 0xFF);
    bytes
}
