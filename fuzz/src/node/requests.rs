//! What the member's application does about requests and streams, and what peers say of them.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ring_core::ids::{ConnId, MemberId, RequestId};
use ring_core::request::message::{Ask, Part, StreamOf};
use ring_core::request::{Fault, Half, Kind, Large, Request, Response, Side, Target, Way};
use ring_core::wire::message::Message;

use super::near;
use crate::world::{Lone, stream_bytes};

/// No request waits longer.
pub(super) const PATIENCE: Duration = Duration::from_millis(1 << 16);

/// The application asks, answers, reads, writes, or gives something up.
pub(super) fn act(lone: &mut Lone, u: &mut Unstructured<'_>) -> Result<()> {
    match u.int_in_range(0..=7)? {
        0 | 1 => {
            let millis = u64::from(u.arbitrary::<u16>()?);
            let request = Request {
                target: target(u)?,
                kind: kind(u)?,
                route: String::from("r"),
                headers: headers(u)?,
                body: some_bytes(u)?,
                streams: streams(u)?,
                deadline: lone.now.instant + Duration::from_millis(millis),
            };
            lone.request(request);
        }
        2 | 3 => {
            let Some(handle) = one(u, &lone.talk.handles())? else { return Ok(()) };
            lone.respond(handle, result(u)?);
            if u.ratio(1, 16)? {
                lone.respond(handle, result(u)?);
            }
        }
        4 => {
            let Some(request) = one(u, &requests(lone))? else { return Ok(()) };
            lone.cancel(request);
        }
        kind => {
            let Some(stream) = one(u, lone.talk.streams())? else { return Ok(()) };
            match kind {
                5 => lone.write(stream, stream_len(u)?, u.ratio(1, 8)?),
                6 => lone.taken(stream, u64::from(u.arbitrary::<u16>()?) * 4),
                _ => lone.give_up(stream, *u.choose(&[Half::Read, Half::Write])?),
            }
        }
    }
    Ok(())
}

/// What a peer says on a connection.
pub(super) fn said(u: &mut Unstructured<'_>, lone: &mut Lone, conn: ConnId) -> Result<Message> {
    let place = lone.talk.place(conn);
    Ok(match u.int_in_range(0..=15)? {
        0 => Message::RequestsTaken { upto: near(u, &[place, 64, 1 << 12])? },
        1 => Message::RequestsSent { upto: near(u, &[place])? },
        2 | 3 => {
            let upto = near(u, &[0, 64, 1 << 10, 512 << 10])?;
            Message::StreamCredit { of: stream(u, lone)?, upto }
        }
        _ => {
            let part = part(u, lone, conn)?;
            let at = if u.ratio(1, 16)? { near(u, &[place])? } else { place };
            lone.talk.say(conn, at, &part);
            Message::Request { at, part }
        }
    })
}

fn part(u: &mut Unstructured<'_>, lone: &Lone, conn: ConnId) -> Result<Part> {
    Ok(match u.int_in_range(0..=9)? {
        0..=2 => Part::Ask(Box::new(ask(u, lone)?)),
        3 | 4 => {
            let result = result(u)?.map(Box::new);
            Part::Answer { number: number(u, lone, false)?, result }
        }
        5 => Part::Cancel { number: number(u, lone, true)? },
        6 | 7 => {
            let of = stream(u, lone)?;
            let offset = mostly(u, lone.talk.said(conn, of))?;
            let data = stream_bytes(offset, stream_len(u)?);
            Part::Data { of, offset, data, last: u.ratio(1, 8)? }
        }
        8 => Part::Abort { of: stream(u, lone)? },
        _ => Part::Stop { of: stream(u, lone)? },
    })
}

fn ask(u: &mut Unstructured<'_>, lone: &Lone) -> Result<Ask> {
    let skipped = if u.ratio(1, 4)? { vec![MemberId(u.int_in_range(0..=4)?)] } else { Vec::new() };
    Ok(Ask {
        number: mostly(u, lone.talk.asked_by_peers().saturating_add(1))?,
        attempt: u.int_in_range(0..=3)?,
        kind: kind(u)?,
        target: target(u)?,
        skipped,
        left: near(u, &[0, 1 << 20, 10_000_000_000])?,
        route: String::from("r"),
        headers: headers(u)?,
        body: some_bytes(u)?,
        streams: streams(u)?,
    })
}

/// The number of a request: a peer's, or the member's own.
fn number(u: &mut Unstructured<'_>, lone: &Lone, of_peer: bool) -> Result<u64> {
    if of_peer {
        return near(u, &[lone.talk.asked_by_peers()]);
    }
    let own = one(u, &requests(lone))?.map_or(0, |request| request.0);
    mostly(u, own)
}

/// Requests of the application that have not ended, or have streams.
fn requests(lone: &Lone) -> Vec<RequestId> {
    let mut requests = lone.talk.asked();
    requests.extend(lone.talk.streams().iter().filter_map(|stream| match stream.side {
        Side::Caller(request) => Some(request),
        Side::Handler(_) => None,
    }));
    requests
}

/// A stream, as a peer calls it.
fn stream(u: &mut Unstructured<'_>, lone: &Lone) -> Result<StreamOf> {
    let by_caller = u.arbitrary()?;
    let number = number(u, lone, by_caller)?;
    Ok(StreamOf { by_caller, number, index: u.int_in_range(0..=3)? })
}

/// Mostly whom no ring is needed for: a placement takes milliseconds.
fn target(u: &mut Unstructured<'_>) -> Result<Target> {
    Ok(match u.int_in_range(0..=63)? {
        0 => Target::Key(Bytes::from_static(b"k")),
        1..=20 => Target::Partition(Bytes::from_static(b"p")),
        _ => Target::Member(MemberId(u.int_in_range(1..=3)?)),
    })
}

fn kind(u: &mut Unstructured<'_>) -> Result<Kind> {
    Ok(*u.choose(&[Kind::Retried, Kind::Once, Kind::OneWay])?)
}

fn result(u: &mut Unstructured<'_>) -> Result<std::result::Result<Response, Fault>> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Err(Fault::Handler { code: 1, text: String::from("no") }),
        1 => Err(Fault::NoRoute),
        2 => Err(Fault::NotOwner { hint: Some(MemberId(u.int_in_range(0..=4)?)) }),
        3 => Err(Fault::Busy),
        4 => Err(Fault::TooLarge { what: Large::Body, limit: u.arbitrary()? }),
        _ => Ok(Response { headers: headers(u)?, body: some_bytes(u)?, streams: streams(u)? }),
    })
}

fn headers(u: &mut Unstructured<'_>) -> Result<Vec<(String, Bytes)>> {
    let count: usize = u.int_in_range(0..=2)?;
    Ok(vec![(String::from("h"), Bytes::from_static(b"value")); count])
}

fn streams(u: &mut Unstructured<'_>) -> Result<Vec<(String, Way)>> {
    let mut streams = Vec::new();
    for _ in 0..u.int_in_range(0..=2)? {
        streams.push((String::from("s"), *u.choose(&[Way::Up, Way::Down, Way::Both])?));
    }
    Ok(streams)
}

fn some_bytes(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let len = usize::from(u.arbitrary::<u8>()?);
    Ok(Bytes::from(vec![7; len * len / 8]))
}

/// Seldom more than a few hundred bytes, sometimes enough to fill windows.
fn stream_len(u: &mut Unstructured<'_>) -> Result<usize> {
    let len = usize::from(u.arbitrary::<u8>()?);
    Ok(if u.ratio(1, 8)? { len << 10 } else { len })
}

/// A number, seldom another.
fn mostly(u: &mut Unstructured<'_>, mark: u64) -> Result<u64> {
    if u.ratio(1, 16)? { near(u, &[mark]) } else { Ok(mark) }
}

fn one<T: Copy>(u: &mut Unstructured<'_>, of: &[T]) -> Result<Option<T>> {
    if of.is_empty() { Ok(None) } else { u.choose(of).map(|one| Some(*one)) }
}
