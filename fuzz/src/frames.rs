//! Arbitrary bytes in arbitrary pieces, through a connection's decoder and through the decoder of single frames.
//!
//! - The same messages come out however the bytes are cut, and the same error.
//! - What is held stays within a constant factor of what came.
//! - What was decoded encodes to something that decodes to the same.

use arbitrary::{Result, Unstructured};
use ring_core::wire::{Assembler, Decoder, Encoder, Message, WireError, decode_frame};

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes are an empty input.
    let _ = try_run(&mut Unstructured::new(data));
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let trust: u8 = u.arbitrary()?;
    let cuts: [u8; 4] = u.arbitrary()?;
    let mends = u.arbitrary()?;
    let mut bytes = u.bytes(u.len())?.to_vec();
    if mends {
        mend(&mut bytes);
    }
    let whole = decode(decoder(trust), &[&bytes]);
    let mut rest = &bytes[..];
    let mut pieces = Vec::new();
    for cut in cuts.iter().cycle().map(|&cut| usize::from(cut) + 1) {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(whole, decode(decoder(trust), &pieces), "pieces make no difference");
    for message in &whole.0 {
        check_round_trip(message);
    }
    decode_frames(&bytes);
    Ok(())
}

fn decoder(trust: u8) -> Decoder {
    match trust % 3 {
        0 => Decoder::accepted(),
        1 => Decoder::dialled(),
        _ => {
            let mut decoder = Decoder::dialled();
            decoder.authenticated();
            decoder
        }
    }
}

fn decode(mut decoder: Decoder, pieces: &[&[u8]]) -> (Vec<Message>, Option<WireError>) {
    let mut messages = Vec::new();
    let mut came = 0;
    for piece in pieces {
        came += piece.len();
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error.clone()), "an error stays");
                    assert_eq!(decoder.held_bytes(), 0, "a broken decoder holds nothing");
                    return (messages, Some(error));
                }
            }
        }
        let held = decoder.held_bytes();
        assert!(held <= 4 * came + 1024, "{held} bytes held of {came}");
    }
    (messages, None)
}

fn check_round_trip(message: &Message) {
    let mut encoder = Encoder::new();
    encoder.push(message).expect("what was decoded is not too long");
    let mut bytes = Vec::new();
    while encoder.frame(&mut bytes) {}
    let mut decoder = Decoder::accepted();
    decoder.authenticated();
    decoder.feed(&bytes);
    assert_eq!(decoder.next(), Ok(Some(message.clone())), "a message encodes and decodes");
    assert_eq!(decoder.next(), Ok(None));
}

/// The frames that the bytes claim to be, one by one, and then in the opposite order.
fn decode_frames(bytes: &[u8]) {
    let (mut assembler, mut out) = (Assembler::new(), Vec::new());
    let frames = split(bytes);
    let mut came = 0;
    for frame in frames.iter().chain(frames.iter().rev()) {
        let before = out.len();
        let result = decode_frame(frame, &mut assembler, &mut out);
        assert!(result.is_ok() || out.len() == before, "an error adds nothing");
        came += frame.len();
        let held = assembler.held_bytes();
        assert!(held <= 2 * came, "{held} bytes held of {came}");
    }
}

/// Bytes of a frame's header; see the table in `ring_core::wire`.
const HEADER: usize = 12;

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(len) = bytes.first_chunk::<4>() {
        let body = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let len = body.saturating_add(HEADER).min(bytes.len());
        let (frame, rest) = bytes.split_at(len);
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// Gives each frame the version, and the checksum of what it holds.
fn mend(mut bytes: &mut [u8]) {
    while bytes.len() >= HEADER {
        let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let body = usize::try_from(len).unwrap_or(usize::MAX);
        let end = body.saturating_add(HEADER).min(bytes.len());
        let body = u32::try_from(end - HEADER).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&body.to_le_bytes());
        bytes[8] = 1;
        bytes[9] &= 1;
        bytes[10] &= if bytes[9] == 0 { 0 } else { 3 };
        bytes[11] = 0;
        let crc = crc32fast::hash(&bytes[8..end]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes = &mut bytes[end..];
    }
}
