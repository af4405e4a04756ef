//! What goes in comes out.

use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::any::{message, message_of_any_size};
use super::{bulk, drain, frames, frames_of, trusting};
use crate::wire::frame::{BODY_BYTES_MAX, FRAME_BYTES_MAX, HEADER_BYTES};
use crate::wire::{Assembler, Encoder, MESSAGE_BYTES_MAX, Message, WireError, decode_frame};

/// The messages of each lane, in order: what a connection preserves.
fn by_lane(messages: &[Message]) -> (Vec<&Message>, Vec<&Message>) {
    messages.iter().partition(|message| message.urgent())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However the stream is cut, the same messages come out, in order within each lane.
    #[test]
    fn any_messages_survive_any_cuts(
        messages in vec(message_of_any_size(), 1..20),
        cuts in vec(1..100_000_usize, 1..20),
    ) {
        let stream = frames_of(&messages).concat();
        let mut decoder = trusting();
        let mut back = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            decoder.buffer().extend_from_slice(now);
            back.extend(drain(&mut decoder).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(by_lane(&back), by_lane(&messages));
    }

    #[test]
    fn any_small_messages_survive_one_byte_at_a_time(messages in vec(message(), 1..20)) {
        let mut decoder = trusting();
        let mut back = Vec::new();
        for byte in frames_of(&messages).concat() {
            decoder.feed(&[byte]);
            back.extend(drain(&mut decoder).unwrap());
        }
        prop_assert_eq!(by_lane(&back), by_lane(&messages));
    }

    /// Frames that are asked for while more messages are pushed.
    #[test]
    fn any_interleaving_of_pushes_and_frames_keeps_the_order_of_each_lane(
        messages in vec((message_of_any_size(), 0..3_usize), 1..20),
    ) {
        let mut encoder = Encoder::new();
        let mut stream = Vec::new();
        for (message, frames) in &messages {
            encoder.push(message).unwrap();
            for _ in 0..*frames {
                encoder.frame(&mut stream);
            }
        }
        stream.extend(frames(&mut encoder).concat());
        prop_assert!(encoder.is_empty());
        let mut decoder = trusting();
        decoder.feed(&stream);
        let back = drain(&mut decoder).unwrap();
        let messages: Vec<Message> = messages.into_iter().map(|(message, _)| message).collect();
        prop_assert_eq!(by_lane(&back), by_lane(&messages));
    }

    /// Frame by frame, with repeats but without loss, every message comes.
    #[test]
    fn any_messages_survive_as_single_frames(
        messages in vec(message_of_any_size(), 1..10),
        repeat_chunks in any::<bool>(),
    ) {
        let mut assembler = Assembler::new();
        let mut back = Vec::new();
        for frame in frames_of(&messages) {
            decode_frame(&frame, &mut assembler, &mut back).unwrap();
            if repeat_chunks && frame[9] == 1 {
                decode_frame(&frame, &mut assembler, &mut back).unwrap();
            }
        }
        prop_assert_eq!(by_lane(&back), by_lane(&messages));
        prop_assert_eq!(assembler.lost(), 0);
    }
}

#[test]
fn messages_round_the_size_of_a_frame_survive() {
    for bytes in BODY_BYTES_MAX - 40..BODY_BYTES_MAX + 20 {
        let messages = [bulk(1, bytes), bulk(2, 10)];
        let frames = frames_of(&messages);
        assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
        let mut decoder = trusting();
        decoder.feed(&frames.concat());
        assert_eq!(drain(&mut decoder).unwrap(), messages);
    }
}

#[test]
fn the_longest_message_survives_and_a_longer_one_is_refused_without_a_trace() {
    // Group, session, first, count, seq take a byte each, the tag too, the length four.
    let longest = bulk(1, MESSAGE_BYTES_MAX - 10);
    let mut encoder = Encoder::new();
    encoder.push(&longest).unwrap();
    assert_eq!(encoder.queued_bytes(), MESSAGE_BYTES_MAX);
    let refused = encoder.push(&bulk(1, MESSAGE_BYTES_MAX - 9));
    assert_eq!(refused, Err(WireError::MessageTooLong { limit: MESSAGE_BYTES_MAX }));
    assert_eq!(encoder.queued_bytes(), MESSAGE_BYTES_MAX);

    let mut decoder = trusting();
    decoder.feed(&frames(&mut encoder).concat());
    assert_eq!(drain(&mut decoder).unwrap(), [longest]);
    assert_eq!(encoder.queued_bytes(), 0);
    decoder.feed(&[]);
    assert!(decoder.held_bytes() < 1 << 20, "large buffers are given back");
}

#[test]
fn queued_bytes_are_those_of_messages_not_yet_in_a_frame() {
    let mut encoder = Encoder::new();
    encoder.push(&bulk(1, 100)).unwrap();
    encoder.push(&Message::Ping).unwrap();
    assert_eq!(encoder.queued_bytes(), 107 + 1);
    let mut out = Vec::new();
    assert!(encoder.frame(&mut out));
    assert_eq!(out.len(), HEADER_BYTES + 1);
    assert_eq!(encoder.queued_bytes(), 107);
    assert!(encoder.frame(&mut out));
    assert!(!encoder.frame(&mut out));
    assert!(encoder.is_empty());
}
