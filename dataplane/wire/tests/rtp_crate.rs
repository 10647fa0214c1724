//! A second opinion on RTP headers: the `rtp` crate reads every packet as we do.
//!
//! Where the two differ, by what they accept or return:
//!
//! | packet | we | `rtp` 0.17 |
//! | --- | --- | --- |
//! | version 0, 1 or 3 | refused | accepted |
//! | padding count of zero | refused | accepted, nothing stripped |
//! | extension element that runs over the extension | ends the walk | reads on into the payload, or panics at its end |
//! | one-byte element 0 with a length | ends the walk (RFC 8285 s.4.2) | an element of its own |
//! | one-byte element 15 | ends the walk, the payload starts where it should | payload starts right after it |
//! | two-byte profile with application bits (`0x1001` … `0x100F`) | elements | one element of raw bytes |

use proptest::prelude::*;
use ringbridge_wire::rtp::{CSRCS_MAX, RTP_HEADER_BYTES_MAX, RtpError, RtpHeader, RtpPacket};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};
use rtp::header::Header;
use rtp::packet::Packet;
use webrtc_util::marshal::Unmarshal;

/// Longer than any extension element, so that the other parser finds bytes wherever an element claims some.
const LONGER_THAN_ANY_ELEMENT: usize = 2 + 255;

/// The other parser's header. It panics where an element runs over the end of the datagram, hence the zeros.
fn their_header(datagram: &[u8]) -> Header {
    let mut padded = datagram.to_vec();
    padded.resize(datagram.len() + LONGER_THAN_ANY_ELEMENT, 0);
    Header::unmarshal(&mut padded.as_slice()).expect("a packet we accept is one they accept")
}

fn assert_fields_agree(ours: &RtpPacket<'_>, theirs: &Header) {
    assert_eq!(theirs.version, 2);
    assert_eq!(ours.marker(), theirs.marker);
    assert_eq!(ours.payload_type(), theirs.payload_type);
    assert_eq!(ours.sequence_number().0, theirs.sequence_number);
    assert_eq!(ours.timestamp().0, theirs.timestamp);
    assert_eq!(ours.ssrc().0, theirs.ssrc);
    assert_eq!(ours.csrcs().map(|csrc| csrc.0).collect::<Vec<_>>(), theirs.csrc);
    assert_eq!(ours.extension().is_some(), theirs.extension);
}

/// Bytes that often pass for RTP: version 2, and an extension profile with a meaning more often than chance has it.
fn datagram(extension: bool) -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![0x80_u8..0xC0, 0x80_u8..0x82, Just(0xA0), any::<u8>()];
    let profile = prop_oneof![Just([0xBE, 0xDE]), Just([0x10, 0x00]), any::<[u8; 2]>()];
    let rest = proptest::collection::vec(any::<u8>(), 0..120);
    (first, profile, 0_u8..12, rest).prop_map(move |(first, profile, words, rest)| {
        let mut bytes = rest;
        if let Some(byte) = bytes.first_mut() {
            *byte = if extension { first | 0x10 } else { first & !0x10 };
            let at = 12 + 4 * usize::from(*byte & 0x0F);
            if let Some(field) = bytes.get_mut(at..at + 4) {
                field.copy_from_slice(&[profile[0], profile[1], 0, words]);
            }
        }
        bytes
    })
}

/// A well-formed extension: profile and content, and the elements in it.
type Extension = (u16, Vec<u8>, Vec<(u8, Vec<u8>)>);

fn one_byte_extension() -> impl Strategy<Value = Extension> {
    let element = (1_u8..15, proptest::collection::vec(any::<u8>(), 1..=16), 0_usize..3);
    proptest::collection::vec(element, 0..6).prop_map(|rows| {
        extension(0xBEDE, rows, |content, id, data| {
            content.push(id << 4 | u8::try_from(data.len() - 1).expect("at most 16 bytes"));
        })
    })
}

fn two_byte_extension() -> impl Strategy<Value = Extension> {
    let element = (1_u8.., proptest::collection::vec(any::<u8>(), 0..=255), 0_usize..3);
    proptest::collection::vec(element, 0..6).prop_map(|rows| {
        extension(0x1000, rows, |content, id, data| {
            content.extend_from_slice(&[id, u8::try_from(data.len()).expect("at most 255 bytes")]);
        })
    })
}

/// Lays out elements of identifier, data and padding behind them.
fn extension(profile: u16, rows: Vec<(u8, Vec<u8>, usize)>, emit: impl Fn(&mut Vec<u8>, u8, &[u8])) -> Extension {
    let mut content = Vec::new();
    let mut elements = Vec::new();
    for (id, data, padding) in rows {
        emit(&mut content, id, &data);
        content.extend_from_slice(&data);
        content.resize(content.len() + padding, 0);
        elements.push((id, data));
    }
    content.resize(content.len().next_multiple_of(4), 0);
    (profile, content, elements)
}

proptest! {
    #[test]
    fn without_extension_the_same_packets_are_accepted_and_read_alike(datagram in datagram(false)) {
        let ours = RtpPacket::parse(&datagram);
        let theirs = Packet::unmarshal(&mut datagram.as_slice());
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_fields_agree(&ours, &theirs.header);
                prop_assert_eq!(ours.payload(), &theirs.payload[..]);
            }
            (Err(RtpError::WrongVersion), Ok(theirs)) => prop_assert_ne!(theirs.header.version, 2),
            (Err(RtpError::PaddingInvalid), Ok(_)) => prop_assert_eq!(datagram.last(), Some(&0)),
            (Err(ours), Ok(_)) => prop_assert!(false, "only we refuse: {ours}"),
            (Ok(_), Err(theirs)) => prop_assert!(false, "only they refuse: {theirs}"),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn with_extension_every_packet_we_accept_is_read_alike(datagram in datagram(true)) {
        if let Ok(ours) = RtpPacket::parse(&datagram) {
            let theirs = their_header(&datagram);
            assert_fields_agree(&ours, &theirs);
            let (profile, content) = ours.extension().unwrap();
            prop_assert_eq!(profile, theirs.extension_profile);
            if profile == 0xBEDE || profile == 0x1000 {
                // Ours may end earlier, as the table above says.
                for (ours, theirs) in ours.extension_elements().zip(&theirs.extensions) {
                    prop_assert_eq!((ours.id, ours.data), (theirs.id, &theirs.payload[..]));
                }
                prop_assert!(ours.extension_elements().count() <= theirs.extensions.len());
            } else {
                prop_assert_eq!(content, &theirs.extensions[0].payload[..]);
            }
        }
    }

    #[test]
    fn a_well_formed_extension_holds_the_same_elements_for_both(
        (profile, content, elements) in prop_oneof![one_byte_extension(), two_byte_extension()],
        payload: Vec<u8>,
    ) {
        let mut datagram = vec![0x90, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        datagram.extend_from_slice(&profile.to_be_bytes());
        datagram.extend_from_slice(&u16::try_from(content.len() / 4).unwrap().to_be_bytes());
        datagram.extend_from_slice(&content);
        datagram.extend_from_slice(&payload);

        let ours = RtpPacket::parse(&datagram).unwrap();
        let walked: Vec<_> = ours.extension_elements().map(|element| (element.id, element.data.to_vec())).collect();
        prop_assert_eq!(&walked, &elements);
        prop_assert_eq!(ours.payload(), &payload);

        let theirs = Packet::unmarshal(&mut datagram.as_slice()).unwrap();
        let walked: Vec<_> =
            theirs.header.extensions.iter().map(|element| (element.id, element.payload.to_vec())).collect();
        prop_assert_eq!(&walked, &elements);
        prop_assert_eq!(&theirs.payload[..], &payload);
    }

    #[test]
    fn the_headers_we_write_are_read_by_both(
        fields: (bool, u16, u32, u32),
        payload_type in 0_u8..128,
        csrcs in proptest::collection::vec(any::<u32>(), 0..18),
        levels in proptest::option::of((1_u8.., proptest::collection::vec(0_u8..128, 18))),
        payload: Vec<u8>,
    ) {
        let (marker, sequence, timestamp, ssrc) = fields;
        let header = RtpHeader {
            marker,
            payload_type,
            sequence_number: SeqNumber(sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(ssrc),
        };
        let mut datagram = vec![0xFF; RTP_HEADER_BYTES_MAX];
        let levels = levels.as_ref().map(|(id, levels)| (*id, &levels[..]));
        let len = header.emit_with(&mut datagram, &csrcs, levels).unwrap();
        datagram.truncate(len);
        datagram.extend_from_slice(&payload);

        let ours = RtpPacket::parse(&datagram).unwrap();
        let theirs = Packet::unmarshal(&mut datagram.as_slice()).unwrap();
        assert_fields_agree(&ours, &theirs.header);
        prop_assert_eq!(&theirs.payload[..], &payload);
        let named = csrcs.len().min(CSRCS_MAX);
        prop_assert_eq!(&theirs.header.csrc, &csrcs[..named]);
        match levels.filter(|_| named > 0) {
            Some((id, levels)) => {
                let theirs = theirs.header.get_extension(id);
                prop_assert_eq!(theirs.as_deref(), Some(&levels[..named]));
            }
            None => prop_assert!(!theirs.header.extension),
        }
    }
}
