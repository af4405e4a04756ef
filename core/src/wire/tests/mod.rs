//! Tests of the whole codec. Those of one part stand beside it.

mod any;
mod golden;
mod hostile;
mod lanes;
mod round_trip;

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::frame::HEADER_BYTES;
use super::{Decoder, Encoder, Message, WireError};
use crate::ids::{GroupId, Seq, SessionId};

/// All that is queued, frame by frame.
fn frames(encoder: &mut Encoder) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    loop {
        let mut frame = Vec::new();
        if !encoder.frame(&mut frame) {
            return frames;
        }
        frames.push(frame);
    }
}

fn frames_of(messages: &[Message]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    for message in messages {
        encoder.push(message).unwrap();
    }
    frames(&mut encoder)
}

/// A decoder with full limits.
fn trusting() -> Decoder {
    let mut decoder = Decoder::accepted();
    decoder.authenticated();
    decoder
}

fn drain(decoder: &mut Decoder) -> Result<Vec<Message>, WireError> {
    let mut messages = Vec::new();
    while let Some(message) = decoder.next()? {
        messages.push(message);
    }
    Ok(messages)
}

/// What a decoder says of one feed.
fn decode(mut decoder: Decoder, bytes: &[u8]) -> Result<Vec<Message>, WireError> {
    decoder.feed(bytes);
    drain(&mut decoder)
}

/// A frame with any content and a good CRC.
fn forge(version: u8, kind: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    let len = u32::try_from(body.len()).unwrap();
    frame[..4].copy_from_slice(&len.to_le_bytes());
    frame[8] = version;
    frame[9] = kind;
    frame[10..12].copy_from_slice(&flags.to_le_bytes());
    frame.extend_from_slice(body);
    let crc = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// A bulk message with a number and a body of about this many bytes.
fn bulk(number: u64, bytes: usize) -> Message {
    let filling = u8::try_from(number % 251).unwrap();
    Message::Propose {
        group: GroupId(1),
        session: SessionId(number),
        first: Seq(1),
        commands: vec![(Seq(number), Bytes::from(vec![filling; bytes]))],
    }
}
