//! Whatever comes: an error at worst, and no more memory than the bytes that came.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::collection::vec as any_vec;
use proptest::prelude::*;

use super::any::message_of_any_size;
use super::{bulk, decode, drain, forge, frames_of, trusting};
use crate::genesis::Founder;
use crate::ids::{Boot, MemberId, Revision, Seq};
use crate::membership::{State, Update};
use crate::raft::message::{Beat, BeatAnswer, Entry, Replica};
use crate::shard::command::{Change, Changed, ItemOutcome};
use crate::wire::bounded::{ENTRIES_MAX, GROUPS_MAX};
use crate::wire::frame::{
    FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, HEADER_BYTES, STRANGER_BYTES_MAX, VERSION,
    WELCOME_BYTES_MAX,
};
use crate::wire::message::{BeatOf, GroupStatus, Identity, Welcome};
use crate::wire::{Assembler, Decoder, MESSAGE_BYTES_MAX, Message, WireError, decode_frame};

const MESSAGES: u8 = 0;
const CHUNK: u8 = 1;
const LAST: u16 = 1;

/// The frame is refused, by a stream and alone.
#[track_caller]
fn refused(frame: &[u8], error: &WireError) {
    assert_eq!(decode(trusting(), frame).as_ref(), Err(error));
    let mut out = vec![Message::Pong];
    let result = decode_frame(frame, &mut Assembler::new(), &mut out);
    assert_eq!(result.as_ref(), Err(error));
    assert_eq!(out, [Message::Pong]);
}

fn malformed(error: postcard::Error) -> WireError {
    WireError::Malformed { error }
}

/// Every length of feeds: memory stays below twice what came plus what a buffer may keep.
fn feed_and_bound(mut decoder: Decoder, bytes: &[u8], cuts: &[usize]) {
    let mut rest = bytes;
    let mut came = 0;
    for cut in cuts.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(*cut));
        decoder.feed(now);
        came += now.len();
        let result = drain(&mut decoder);
        assert!(decoder.held_bytes() <= 4 * came + 64, "after {came} bytes");
        if let Err(error) = result {
            decoder.feed(bytes);
            assert_eq!(decoder.next(), Err(error), "an error is for ever");
            assert_eq!(decoder.held_bytes(), 0);
            return;
        }
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_harmless(bytes in any_vec(any::<u8>(), 0..2000), cut in 1..500_usize) {
        feed_and_bound(Decoder::accepted(), &bytes, &[cut]);
        feed_and_bound(Decoder::dialled(), &bytes, &[cut]);
        feed_and_bound(trusting(), &bytes, &[cut]);
        let mut out = Vec::new();
        let _ = decode_frame(&bytes, &mut Assembler::new(), &mut out);
    }

    /// Past the CRC: any body of either kind.
    #[test]
    fn any_body_with_a_good_checksum_is_harmless(
        bodies in any_vec((0..2_u8, 0..4_u16, any_vec(any::<u8>(), 0..600)), 1..6),
        tag in 0..20_u8,
    ) {
        let mut stream = Vec::new();
        let mut assembler = Assembler::new();
        let mut out = Vec::new();
        for (kind, flags, mut body) in bodies {
            if let Some(first) = body.first_mut() {
                *first = tag;
            }
            let frame = forge(VERSION, kind, if kind == CHUNK { flags } else { 0 }, &body);
            let _ = decode_frame(&frame, &mut assembler, &mut out);
            stream.extend(frame);
        }
        feed_and_bound(trusting(), &stream, &[77]);
    }

    /// Real frames with some bytes changed, their CRC repaired or not.
    #[test]
    fn changed_frames_are_harmless(
        messages in any_vec(message_of_any_size(), 1..5),
        changes in any_vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        repair in any::<bool>(),
    ) {
        let good = frames_of(&messages);
        let mut frames = good.clone();
        for (at, byte) in changes {
            let mut changed = at.get(&frames).clone();
            let place = at.index(changed.len());
            changed[place] = byte;
            if repair {
                let crc = crc32fast::hash(&changed[8..]);
                changed[4..8].copy_from_slice(&crc.to_le_bytes());
            } else if changed[4..] != at.get(&good)[4..] {
                // Two changes may also make good what the first did.
                let mut out = Vec::new();
                prop_assert!(decode_frame(&changed, &mut Assembler::new(), &mut out).is_err());
                prop_assert!(out.is_empty());
            }
            let index = at.index(frames.len());
            frames[index] = changed;
        }
        feed_and_bound(trusting(), &frames.concat(), &[1000, 1, 70_000]);
    }

    /// Frames lost, repeated and reordered at will: what comes out is what went in, no message is
    /// invented.
    #[test]
    fn a_lossy_transport_invents_nothing(
        sizes in any_vec(1..200_000_usize, 1..6),
        order in any_vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let messages: Vec<Message> = (0..).zip(&sizes).map(|(n, size)| bulk(n, *size)).collect();
        let frames = frames_of(&messages);
        let mut assembler = Assembler::new();
        let mut out = Vec::new();
        for at in order {
            decode_frame(at.get::<Vec<u8>>(&frames), &mut assembler, &mut out).unwrap();
        }
        prop_assert!(out.iter().all(|message| messages.contains(message)));
    }
}

/// X1: four bytes that claim 4 GiB.
#[test]
fn a_length_of_4_gib_is_refused_at_the_header() {
    let mut head = forge(VERSION, MESSAGES, 0, &[]);
    head[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    for (decoder, limit) in [
        (Decoder::accepted(), STRANGER_BYTES_MAX),
        (Decoder::dialled(), FRAME_BYTES_MAX),
        (trusting(), FRAME_BYTES_MAX),
    ] {
        let body = usize::try_from(u32::MAX).unwrap();
        assert_eq!(decode(decoder, &head), Err(WireError::FrameTooLong { body, limit }));
    }
}

/// X2: a thousand of them cost a thousand headers.
#[test]
fn a_header_and_then_silence_costs_a_header() {
    let frame = forge(VERSION, MESSAGES, 0, &[0; STRANGER_BYTES_MAX - HEADER_BYTES]);
    let mut decoder = Decoder::accepted();
    decoder.feed(&frame[..HEADER_BYTES]);
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.held_bytes() <= 2 * HEADER_BYTES);
    decoder.buffer();
    assert!(decoder.held_bytes() <= 2 * STRANGER_BYTES_MAX);
}

/// X1: a first chunk that claims the most, or more.
#[test]
fn a_chunk_is_held_at_its_own_size() {
    let claim = |total: usize| {
        let mut body = vec![0; 8];
        body.extend_from_slice(&u32::try_from(total).unwrap().to_le_bytes());
        body.push(7);
        forge(VERSION, CHUNK, 0, &body)
    };
    let mut decoder = trusting();
    decoder.feed(&claim(MESSAGE_BYTES_MAX));
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.held_bytes() < 100);

    let too_long = |limit| Err(WireError::MessageTooLong { limit });
    let beyond = claim(MESSAGE_BYTES_MAX + 1);
    assert_eq!(decode(trusting(), &beyond), too_long(MESSAGE_BYTES_MAX));
    let beyond = claim(WELCOME_BYTES_MAX + 1);
    let dialled = decode(Decoder::dialled(), &beyond);
    assert_eq!(dialled, too_long(WELCOME_BYTES_MAX));
}

/// X3: a list of entries that say nothing, in the least bytes.
#[test]
fn lists_over_their_bound_are_refused() {
    let append = |count: usize| {
        // Raft, group, from, to, term; Append, prev_index, prev_term, commit; the count; index,
        // term, Noop.
        let mut body = vec![4, 1, 1, 1, 1, 4, 0, 0, 0];
        body.extend(postcard::to_allocvec(&count).unwrap());
        body.resize(body.len() + 3 * count, 0);
        body
    };
    let whole = |body: &[u8]| {
        let mut assembler = Assembler::new();
        let mut out = Vec::new();
        for (number, data) in (0..).zip(body.chunks(60_000)) {
            let mut chunk = vec![0; 4];
            chunk.extend_from_slice(&u32::to_le_bytes(number));
            if number == 0 {
                let total = u32::try_from(body.len()).unwrap();
                chunk.extend_from_slice(&total.to_le_bytes());
            }
            chunk.extend_from_slice(data);
            let last = (usize::try_from(number).unwrap() + 1) * 60_000 >= body.len();
            let flags = if last { LAST } else { 0 };
            let frame = forge(VERSION, CHUNK, flags, &chunk);
            decode_frame(&frame, &mut assembler, &mut out)?;
        }
        Ok(out.len())
    };
    assert_eq!(whole(&append(ENTRIES_MAX)), Ok(1));
    assert_eq!(whole(&append(ENTRIES_MAX + 1)), Err(malformed(postcard::Error::SerdeDeCustom)));

    // Beats that claim more elements than the frame has bytes.
    let mut body = vec![5];
    body.extend(postcard::to_allocvec(&GROUPS_MAX).unwrap());
    body.resize(1000, 0);
    let frame = forge(VERSION, MESSAGES, 0, &body);
    refused(&frame, &malformed(postcard::Error::SerdeDeCustom));
}

/// The numbers in the manual of this module: memory of an element, and against its least encoding.
#[test]
fn elements_are_small_against_their_encoding() {
    fn check<T>(least: usize) {
        assert!(size_of::<T>() <= 128 && size_of::<T>() <= 32 * least);
    }
    check::<Entry>(3);
    check::<Replica>(2);
    check::<BeatOf<Beat>>(6);
    check::<BeatOf<BeatAnswer>>(6);
    check::<(Seq, Bytes)>(2);
    check::<(Seq, ItemOutcome)>(2);
    check::<(MemberId, u64)>(2);
    check::<MemberId>(1);
    check::<GroupStatus>(8);
    check::<(MemberId, State)>(2);
    check::<(String, String)>(2);
    check::<Founder>(4);
    check::<(Bytes, Bytes, Revision)>(3);
    check::<Change<Bytes>>(2);
    check::<Changed>(3);
    // The one that is larger has a longer least encoding.
    assert!(size_of::<Update>() <= 144 && size_of::<Update>() <= 32 * 10);
    assert!(size_of::<Message>() * FRAME_MESSAGES_MAX <= 4 * FRAME_BYTES_MAX);
}

#[test]
fn what_is_not_a_frame_is_refused() {
    refused(&forge(2, MESSAGES, 0, &[17]), &WireError::Version { found: 2 });
    let kind = |kind, flags| WireError::Kind { kind, flags };
    refused(&forge(VERSION, 2, 0, &[17]), &kind(2, 0));
    refused(&forge(VERSION, MESSAGES, 1, &[17]), &kind(0, 1));
    refused(&forge(VERSION, CHUNK, 4, &[17]), &kind(1, 4));
    refused(&forge(VERSION, MESSAGES, 0, &[]), &WireError::NoMessage);
    refused(&forge(VERSION, CHUNK, 0, &[0; 12]), &WireError::ChunkShort);
    refused(&forge(VERSION, CHUNK, 0, &[0; 3]), &WireError::ChunkShort);
    let pings = [17; FRAME_MESSAGES_MAX + 1];
    let stream = decode(trusting(), &forge(VERSION, MESSAGES, 0, &pings));
    assert_eq!(stream, Err(WireError::TooManyMessages));
    refused(&forge(VERSION, MESSAGES, 0, &pings), &WireError::TooManyMessages);

    let mut damaged = forge(VERSION, MESSAGES, 0, &[17]);
    damaged[HEADER_BYTES] = 18;
    refused(&damaged, &WireError::Crc);
}

#[test]
fn what_follows_a_message_must_be_one() {
    let mut out = Vec::new();
    let frame = forge(VERSION, MESSAGES, 0, &[17, 18, 99]);
    let unknown = malformed(postcard::Error::SerdeDeCustom);
    assert_eq!(decode_frame(&frame, &mut Assembler::new(), &mut out), Err(unknown.clone()));
    assert!(out.is_empty());

    let mut decoder = trusting();
    decoder.feed(&frame);
    assert_eq!(decoder.next(), Ok(Some(Message::Ping)));
    assert_eq!(decoder.next(), Ok(Some(Message::Pong)));
    assert_eq!(decoder.next(), Err(unknown));

    let mut chunk = vec![0; 8];
    chunk.extend_from_slice(&[3, 0, 0, 0, 17, 17, 17]);
    let frame = forge(VERSION, CHUNK, LAST, &chunk);
    refused(&frame, &WireError::Trailing { bytes: 2 });
}

#[test]
fn a_frame_alone_has_the_length_it_says() {
    let frame = forge(VERSION, MESSAGES, 0, &[17]);
    let mut longer = frame.clone();
    longer.push(17);
    for bytes in [&frame[..5], &frame[..12], &longer[..]] {
        let result = decode_frame(bytes, &mut Assembler::new(), &mut Vec::new());
        assert_eq!(result, Err(WireError::FrameLength { len: bytes.len() }));
    }
}

/// On a stream every chunk must follow the one before it, and messages of one lane must not mix.
#[test]
fn chunks_out_of_order_end_a_stream() {
    let frames = frames_of(&[bulk(1, 200_000), bulk(2, 200_000)]);
    let order = |stream, number| Err(WireError::ChunkOrder { stream, number });
    let of = |places: &[usize]| {
        let stream: Vec<u8> = places.iter().flat_map(|at| frames[*at].clone()).collect();
        decode(trusting(), &stream)
    };
    assert_eq!(frames.len(), 8);
    assert_eq!(of(&[1]), order(0, 1));
    assert_eq!(of(&[0, 2]), order(0, 2));
    assert_eq!(of(&[0, 0]), order(0, 0));
    assert_eq!(of(&[0, 1, 4]), order(1, 0));
    assert_eq!(of(&[0, 1, 2, 3, 3]), order(0, 3));
    assert_eq!(of(&[4, 5, 6, 7, 0]), order(0, 0));
}

#[test]
fn a_stranger_may_send_small_whole_messages_only() {
    let small = frames_of(&[bulk(1, STRANGER_BYTES_MAX - 30)]).concat();
    assert!(decode(Decoder::accepted(), &small).is_ok());

    let larger = frames_of(&[bulk(1, STRANGER_BYTES_MAX)]).concat();
    let error = decode(Decoder::accepted(), &larger);
    assert!(matches!(error, Err(WireError::FrameTooLong { .. })));

    let chunk = forge(VERSION, CHUNK, LAST, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 17]);
    assert_eq!(decode(Decoder::accepted(), &chunk), Err(WireError::ChunkTooEarly));

    // The limits are lifted between two messages, though both came at once.
    let mut decoder = Decoder::accepted();
    decoder.feed(&[small, larger].concat());
    assert!(decoder.next().unwrap().is_some());
    decoder.authenticated();
    assert!(decoder.next().unwrap().is_some());
}

/// A member's introduction is let in, also when its names and the list of its starts are as long as they can be.
#[test]
fn the_largest_hello_fits_before_the_handshake_is_done() {
    let name = "n".repeat(255);
    let hello = Message::Hello(Box::new(crate::wire::message::Hello {
        version_min: u16::MAX,
        version_max: u16::MAX,
        who: Identity {
            cluster_name: name.clone(),
            cluster: Some(crate::ids::ClusterId(u64::MAX)),
            member: MemberId(u64::MAX),
            name,
            boot: Boot(u64::MAX),
            earlier: vec![u32::MAX; Boot::EARLIER_MAX],
            birth: u64::MAX,
            agreement: u64::MAX,
            ring: u64::MAX,
        },
    }));
    let stream = frames_of(core::slice::from_ref(&hello)).concat();
    let mut decoder = Decoder::accepted();
    decoder.feed(&stream);
    assert_eq!(decoder.next().unwrap(), Some(hello));
}

/// Who dials takes the largest genesis there can be before it trusts the other side.
#[test]
fn the_largest_welcome_fits_before_the_handshake_is_done() {
    let name = "n".repeat(255);
    let founders = (0..1024).map(|_| Founder {
        id: MemberId(u64::MAX),
        name: name.clone(),
        address: name.clone(),
        birth: u64::MAX,
    });
    let welcome = Message::Welcome(Box::new(Welcome {
        version: 1,
        who: Identity {
            cluster_name: name.clone(),
            cluster: None,
            member: MemberId(1),
            name: name.clone(),
            boot: Boot(1),
            earlier: Vec::new(),
            birth: 1,
            agreement: 1,
            ring: 1,
        },
        genesis: Some(crate::genesis::Genesis {
            cluster: crate::ids::ClusterId(1),
            name: name.clone(),
            members: founders.collect(),
            shards: 64,
            replication: 3,
        }),
    }));
    let stream = frames_of(core::slice::from_ref(&welcome)).concat();
    assert_eq!(decode(Decoder::dialled(), &stream).unwrap(), [welcome]);
}
