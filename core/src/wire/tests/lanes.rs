//! What overtakes what, and what shares a frame.

use alloc::vec;
use alloc::vec::Vec;

use super::{bulk, decode, frames, frames_of, trusting};
use crate::wire::frame::{BODY_BYTES_MAX, FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, HEADER_BYTES};
use crate::wire::{Assembler, Encoder, Message, decode_frame};

const CHUNK: u8 = 1;

fn kind(frame: &[u8]) -> u8 {
    frame[9]
}

/// A beat does not wait for the rest of a large value.
#[test]
fn an_urgent_message_goes_between_two_chunks() {
    let mut encoder = Encoder::new();
    encoder.push(&bulk(1, 3 * FRAME_BYTES_MAX)).unwrap();
    let mut stream = Vec::new();
    assert!(encoder.frame(&mut stream));
    encoder.push(&Message::Ping).unwrap();
    stream.extend(frames(&mut encoder).concat());
    let back = decode(trusting(), &stream).unwrap();
    assert_eq!(back, [Message::Ping, bulk(1, 3 * FRAME_BYTES_MAX)]);
}

/// A message that is framed alone makes the same bytes, and overtakes nothing.
#[test]
fn a_message_is_framed_alone_if_nothing_waits_and_it_fits() {
    let (fits, other) = (bulk(1, 40_000), bulk(2, 10));
    let (mut encoder, mut out) = (Encoder::new(), vec![7]);
    assert!(encoder.frame_alone(&fits, &mut out));
    assert_eq!(out[1..], frames_of(core::slice::from_ref(&fits)).concat());

    assert!(!encoder.frame_alone(&bulk(1, FRAME_BYTES_MAX), &mut out), "too long");
    encoder.push(&other).unwrap();
    assert!(!encoder.frame_alone(&fits, &mut out), "something waits");
    encoder.push(&fits).unwrap();
    while encoder.frame(&mut out) {}
    assert_eq!(decode(trusting(), &out[1..]).unwrap(), [fits.clone(), other, fits]);
}

#[test]
fn a_small_bulk_message_waits_for_the_large_one_before_it() {
    let messages = [bulk(1, 2 * FRAME_BYTES_MAX), bulk(2, 10), bulk(3, 2 * FRAME_BYTES_MAX)];
    let frames = frames_of(&messages);
    assert_eq!(frames.iter().filter(|f| kind(f) == CHUNK).count(), 6);
    assert_eq!(decode(trusting(), &frames.concat()).unwrap(), messages);
}

#[test]
fn small_messages_share_frames_of_at_most_the_largest_size() {
    let messages: Vec<Message> = (0..100).map(|number| bulk(number, 10_000)).collect();
    let frames = frames_of(&messages);
    assert_eq!(frames.len(), 100_usize.div_ceil(6));
    assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
    assert_eq!(decode(trusting(), &frames.concat()).unwrap(), messages);
}

#[test]
fn a_frame_has_a_largest_number_of_messages() {
    let messages = vec![Message::Ping; FRAME_MESSAGES_MAX + 1];
    let frames = frames_of(&messages);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].len(), HEADER_BYTES + FRAME_MESSAGES_MAX);
    assert_eq!(decode(trusting(), &frames.concat()).unwrap(), messages);
}

/// A lossy transport: without one of its chunks a large message is gone, and nothing else is.
#[test]
fn a_lost_chunk_costs_its_message_only() {
    let large = bulk(1, 4 * BODY_BYTES_MAX);
    let messages = [large.clone(), bulk(2, 10), bulk(3, 2 * BODY_BYTES_MAX)];
    let all = frames_of(&messages);
    let chunks = frames_of(&[large]).len();
    for missing in 0..chunks {
        let mut assembler = Assembler::new();
        let mut back = Vec::new();
        for (at, frame) in all.iter().enumerate() {
            if at != missing {
                decode_frame(frame, &mut assembler, &mut back).unwrap();
            }
        }
        assert_eq!(back, messages[1..]);
        assert_eq!(assembler.lost(), 1, "without chunk {missing}");
    }
}
