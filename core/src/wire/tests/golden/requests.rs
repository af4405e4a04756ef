//! The talk about requests.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::{Golden, b, text};
use crate::ids::MemberId;
use crate::request::message::{Ask, Fault, Kind, Large, Part, Response, StreamOf, Target, Way};
use crate::wire::message::Message;

fn part(part: Part) -> Message {
    Message::Request { at: 300, part }
}

fn ask(kind: Kind, target: Target) -> Ask {
    Ask {
        number: 200,
        attempt: 2,
        kind,
        target,
        skipped: Vec::new(),
        left: 1000,
        route: text("r"),
        headers: Vec::new(),
        body: b(b""),
        streams: Vec::new(),
    }
}

fn fault(fault: Fault) -> Message {
    part(Part::Answer { number: 200, result: Err(fault) })
}

fn of(by_caller: bool) -> StreamOf {
    StreamOf { by_caller, number: 200, index: 1 }
}

pub(super) fn requests() -> Vec<Golden> {
    let full = Ask {
        skipped: vec![MemberId(3)],
        headers: vec![(text("h"), b(b"v"))],
        body: b(b"b"),
        streams: vec![(text("s"), Way::Both)],
        ..ask(Kind::Retried, Target::Key(b(b"k")))
    };
    let response = Response {
        headers: vec![(text("h"), b(b"v"))],
        body: b(b"b"),
        streams: vec![(text("s"), Way::Up), (text("t"), Way::Down)],
    };
    let once = ask(Kind::Once, Target::Member(MemberId(2)));
    let one_way = ask(Kind::OneWay, Target::Partition(b(b"p")));
    vec![
        (
            "request",
            part(Part::Ask(Box::new(full))),
            "1aac0200c801020000016b0103e80701720101680176016201017302",
        ),
        ("request once", part(Part::Ask(Box::new(once))), "1aac0200c8010201010200e8070172000000"),
        (
            "one-way request",
            part(Part::Ask(Box::new(one_way))),
            "1aac0200c801020202017000e8070172000000",
        ),
        (
            "response",
            part(Part::Answer { number: 200, result: Ok(Box::new(response)) }),
            "1aac0201c801000101680176016202017300017401",
        ),
        (
            "handler's error",
            fault(Fault::Handler { code: 4, text: text("no") }),
            "1aac0201c801010004026e6f",
        ),
        ("no route", fault(Fault::NoRoute), "1aac0201c8010101"),
        ("not owner", fault(Fault::NotOwner { hint: Some(MemberId(2)) }), "1aac0201c80101020102"),
        ("busy handlers", fault(Fault::Busy), "1aac0201c8010103"),
        (
            "too large",
            fault(Fault::TooLarge { what: Large::Body, limit: 9 }),
            "1aac0201c80101040309",
        ),
        ("cancel", part(Part::Cancel { number: 200 }), "1aac0202c801"),
        (
            "data",
            part(Part::Data { of: of(true), offset: 5, data: b(b"xyz"), last: true }),
            "1aac020301c80101050378797a01",
        ),
        ("abort", part(Part::Abort { of: of(true) }), "1aac020401c80101"),
        ("stop", part(Part::Stop { of: of(false) }), "1aac020500c80101"),
        ("requests taken", Message::RequestsTaken { upto: 300 }, "1bac02"),
        ("requests sent", Message::RequestsSent { upto: 300 }, "1cac02"),
        ("stream credit", Message::StreamCredit { of: of(false), upto: 300 }, "1d00c80101ac02"),
    ]
}
