//! Streams: credit, order, ends.

use super::*;
use crate::request::message::StreamOf;

fn caller(index: u16) -> StreamId {
    StreamId { side: Side::Caller(RequestId(1)), index }
}

/// As the handler's side says it.
fn of(index: u16) -> StreamOf {
    StreamOf { by_caller: false, number: 1, index }
}

/// As the caller's side says it.
fn of_caller(index: u16) -> StreamOf {
    StreamOf { by_caller: true, number: 1, index }
}

fn data(of: StreamOf, offset: u64, data: &'static str, last: bool) -> Part {
    Part::Data { of, offset, data: Bytes::from(data), last }
}

fn broken(stream: StreamId, half: Half, why: Broken) -> Effect {
    Effect::Broken { stream, half, why }
}

/// A handler that has been asked for a request with these streams.
fn handling(ways: &[Way]) -> (One, HandleId) {
    let mut one = One::new(&[ME, A]);
    let streams = with_streams(ways).streams;
    one.comes(A, Part::Ask(Box::new(Ask { streams, ..ask(1) }))).unwrap();
    let effects = one.effects();
    let Some(Effect::Handle(handle)) = effects.into_iter().next() else { panic!("a request") };
    (one, handle.handle)
}

/// The first bytes wait for the word that somebody reads them.
#[test]
fn a_stream_to_the_handler_begins_when_the_request_is_handled() {
    let mut one = One::new(&[A, B]);
    one.ask(1, with_streams(&[Way::Up]));
    assert_eq!(one.asked().0, A);
    let early = one.machine.stream_write(caller(0), Bytes::from("x"), false);
    assert!(matches!(early, Err(Refused::Invalid { .. })));
    // A refused request has lost none of them.
    one.comes(A, not_owner(Some(B))).unwrap();
    assert_eq!(one.asked().0, B);
    one.machine.on_credit(ConnId(3), of(0), STREAM_WINDOW);
    one.drive();
    assert_eq!(one.effects(), [Effect::Credit { stream: caller(0), upto: STREAM_WINDOW }]);
    one.machine.stream_write(caller(0), Bytes::from("abc"), false).unwrap();
    one.machine.stream_write(caller(0), Bytes::from("de"), true).unwrap();
    one.drive();
    let sent = [data(of_caller(0), 0, "abc", false), data(of_caller(0), 3, "de", true)];
    assert_eq!(one.sent(), sent.map(|part| (ConnId(3), part)));
}

#[test]
fn a_handler_is_told_its_credit_and_grants_the_callers() {
    let mut one = One::new(&[ME, A]);
    let streams = with_streams(&[Way::Up, Way::Down, Way::Both]).streams;
    one.comes(A, Part::Ask(Box::new(Ask { streams, ..ask(1) }))).unwrap();
    let effects = one.effects();
    let [Effect::Handle(handle), Effect::Credit { stream: down, upto }, Effect::Credit { .. }] =
        &effects[..]
    else {
        panic!("{effects:?}")
    };
    let side = Side::Handler(handle.handle);
    assert_eq!((*down, *upto), (StreamId { side, index: 1 }, STREAM_WINDOW));
    let credit = |index| (ConnId(2), Message::StreamCredit { of: of(index), upto: STREAM_WINDOW });
    assert_eq!(one.sent, [credit(0), credit(2)]);
}

#[test]
fn bytes_come_in_order_and_end_the_stream() {
    let (mut one, handle) = handling(&[Way::Up]);
    one.sent.clear();
    let stream = StreamId { side: Side::Handler(handle), index: 0 };
    one.comes(A, data(of_caller(0), 0, "abc", false)).unwrap();
    one.comes(A, data(of_caller(0), 3, "", true)).unwrap();
    let come = |data: &'static str, last| Effect::Data { stream, data: Bytes::from(data), last };
    assert_eq!(one.effects(), [come("abc", false), come("", true)]);
    one.machine.respond(handle, Ok(Response::default()));
    one.drive();
    assert_eq!(one.machine.handled(), 0);
    assert_eq!(one.machine.streams.len(), 0);
}

/// A request with open streams is answered, and they go on; when the last has ended it is forgotten.
#[test]
fn streams_outlive_the_answer() {
    let mut one = One::new(&[A]);
    one.ask(1, with_streams(&[Way::Down]));
    one.sent();
    one.comes(A, answer(1, "done")).unwrap();
    assert_eq!(one.effects(), [done(1, "done")]);
    one.run(SECOND * 60);
    one.comes(A, data(of(0), 0, "abc", false)).unwrap();
    one.comes(A, data(of(0), 3, "d", true)).unwrap();
    assert_eq!(one.effects().len(), 2);
    assert!(!one.machine.callers.has(RequestId(1)));
}

#[test]
fn a_response_adds_streams() {
    let (mut one, handle) = handling(&[Way::Down]);
    one.effects();
    let streams = vec![("more".to_string(), Way::Both)];
    one.machine.respond(handle, Ok(Response { streams: streams.clone(), ..response("done") }));
    one.drive();
    let stream = StreamId { side: Side::Handler(handle), index: 1 };
    assert_eq!(one.effects(), [Effect::Credit { stream, upto: STREAM_WINDOW }]);

    let mut one = One::new(&[A]);
    one.ask(1, with_streams(&[Way::Down]));
    let result = Ok(Box::new(Response { streams, ..response("done") }));
    one.comes(A, Part::Answer { number: 1, result }).unwrap();
    let effects = one.effects();
    let [Effect::Answered { .. }, Effect::Credit { stream, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*stream, caller(1));
    one.comes(A, data(of(1), 0, "down", true)).unwrap();
    assert_eq!(one.effects().len(), 1);
}

#[test]
fn a_reader_that_takes_gives_credit_and_one_that_does_not_stops_its_writer() {
    let (mut one, handle) = handling(&[Way::Up, Way::Up]);
    one.sent.clear();
    let stream = |index| StreamId { side: Side::Handler(handle), index };
    let chunk = Bytes::from(vec![0; 256 << 10]);
    for part in 0..2 {
        let offset = part * (256 << 10);
        let data = chunk.clone();
        one.comes(A, Part::Data { of: of_caller(0), offset, data, last: false }).unwrap();
    }
    // Another stream is not held up.
    one.comes(A, data(of_caller(1), 0, "other", true)).unwrap();
    assert_eq!(one.effects().len(), 3);
    one.sent.clear();
    one.machine.stream_taken(stream(0), 100);
    one.drive();
    assert_eq!(one.sent, [], "not for so little");
    one.machine.stream_taken(stream(0), 256 << 10);
    one.drive();
    let upto = STREAM_WINDOW + (256 << 10) + 100;
    assert_eq!(one.sent, [(ConnId(2), Message::StreamCredit { of: of(0), upto })]);
    // More than came was not taken.
    one.machine.stream_taken(stream(0), u64::MAX);
    one.sent.clear();
    one.drive();
    let beyond = Part::Data {
        of: of_caller(0),
        offset: 512 << 10,
        data: Bytes::from(vec![0; 600 << 10]),
        last: false,
    };
    assert!(one.comes(A, beyond).is_err(), "a writer keeps to its credit");
    assert_eq!(one.effects(), [broken(stream(0), Half::Read, Broken::Lost)]);
}

#[test]
fn a_gap_breaks_a_stream_on_both_ends() {
    let (mut one, handle) = handling(&[Way::Up]);
    one.sent.clear();
    let stream = StreamId { side: Side::Handler(handle), index: 0 };
    one.comes(A, data(of_caller(0), 5, "lost before", false)).unwrap();
    assert_eq!(one.effects(), [broken(stream, Half::Read, Broken::Lost)]);
    assert_eq!(one.sent(), [(ConnId(2), Part::Stop { of: of(0) })]);
}

#[test]
fn a_direction_that_is_given_up_breaks_at_the_other_end() {
    let (mut one, handle) = handling(&[Way::Both]);
    one.sent.clear();
    let stream = StreamId { side: Side::Handler(handle), index: 0 };
    one.machine.stream_give_up(stream, Half::Read);
    one.machine.stream_give_up(stream, Half::Write);
    one.machine.stream_give_up(stream, Half::Write);
    one.drive();
    let parts = [Part::Stop { of: of(0) }, Part::Abort { of: of(0) }];
    assert_eq!(one.sent(), parts.map(|part| (ConnId(2), part)));
    // What was on its way is answered so again.
    one.comes(A, data(of_caller(0), 0, "late", false)).unwrap();
    assert_eq!(one.effects(), []);
    assert_eq!(one.sent(), [(ConnId(2), Part::Stop { of: of(0) })]);

    let (mut one, handle) = handling(&[Way::Both]);
    let stream = StreamId { side: Side::Handler(handle), index: 0 };
    one.comes(A, Part::Stop { of: of_caller(0) }).unwrap();
    one.comes(A, Part::Abort { of: of_caller(0) }).unwrap();
    let given_up = |half| broken(stream, half, Broken::GivenUp);
    assert_eq!(one.effects(), [given_up(Half::Write), given_up(Half::Read)]);
}

/// A writer that ends, or gives up, before anybody reads.
#[test]
fn a_stream_that_ends_before_it_begins_tells_its_reader() {
    let mut one = One::new(&[A]);
    one.ask(1, with_streams(&[Way::Up, Way::Up]));
    one.sent();
    one.machine.stream_write(caller(0), Bytes::new(), true).unwrap();
    one.machine.stream_give_up(caller(1), Half::Write);
    one.drive();
    assert_eq!(one.sent(), []);
    for index in 0..2 {
        one.machine.on_credit(ConnId(2), of(index), STREAM_WINDOW);
    }
    one.drive();
    let parts = [data(of_caller(0), 0, "", true), Part::Abort { of: of_caller(1) }];
    assert_eq!(one.sent(), parts.map(|part| (ConnId(2), part)));
    assert_eq!(one.effects(), []);
}

#[test]
fn streams_break_with_their_request() {
    let ways = [Way::Up, Way::Down];
    let ends = |one: &mut One, why| {
        let effects = one.effects();
        let both = [broken(caller(0), Half::Write, why), broken(caller(1), Half::Read, why)];
        assert_eq!(effects[..2], both, "{effects:?}");
        assert!(matches!(effects[2..], [Effect::Answered { result: Err(_), .. }]));
    };
    let begin = || {
        let mut one = One::new(&[A]);
        one.ask(1, with_streams(&ways));
        one
    };
    let mut one = begin();
    one.lose(A);
    ends(&mut one, Broken::Lost);
    let mut one = begin();
    one.run(SECOND * 10);
    ends(&mut one, Broken::Request);
    let mut one = begin();
    one.machine.cancel(RequestId(1));
    one.drive();
    ends(&mut one, Broken::Request);
    let mut one = begin();
    let text = String::new();
    one.comes(A, fault(1, Fault::Handler { code: 1, text })).unwrap();
    ends(&mut one, Broken::Request);
}

#[test]
fn streams_of_an_answered_request_break_with_the_connection() {
    let mut one = One::new(&[A]);
    one.ask(1, with_streams(&[Way::Down]));
    one.comes(A, answer(1, "done")).unwrap();
    one.effects();
    one.lose(A);
    assert_eq!(one.effects(), [broken(caller(0), Half::Read, Broken::Lost)]);
    assert!(!one.machine.callers.has(RequestId(1)));

    let (mut one, handle) = handling(&[Way::Down]);
    one.machine.respond(handle, Ok(response("done")));
    one.drive();
    one.effects();
    one.lose(A);
    let stream = StreamId { side: Side::Handler(handle), index: 0 };
    assert_eq!(one.effects(), [broken(stream, Half::Write, Broken::Lost)]);
    assert!(!one.machine.server.has(handle));
}

#[test]
fn streams_of_a_handler_break_with_its_error() {
    let (mut one, handle) = handling(&[Way::Up]);
    one.effects();
    one.machine.respond(handle, Err(Fault::Handler { code: 1, text: String::new() }));
    one.drive();
    let stream = StreamId { side: Side::Handler(handle), index: 0 };
    assert_eq!(one.effects(), [broken(stream, Half::Read, Broken::Request)]);
}

#[test]
fn streams_are_bounded_in_number() {
    let limits = Limits { streams: 2, ..Limits::default() };
    let mut one = One::with(&limits, &[A, ME]);
    let full = one.machine.request(one.now, RequestId(1), with_streams(&[Way::Up; 3]));
    assert!(matches!(full, Err(Refused::Full { limit: 2, .. })));
    let skipped = vec![A];
    let streams = with_streams(&[Way::Up; 3]).streams;
    one.comes(A, Part::Ask(Box::new(Ask { streams, skipped, ..ask(1) }))).unwrap();
    assert_eq!(one.sent(), [(ConnId(2), fault(1, Fault::Busy))]);
}

/// A reader that promises more than a window makes nobody hold more.
#[test]
fn credit_is_bounded_by_the_writer() {
    let (mut one, handle) = handling(&[Way::Down]);
    let stream = StreamId { side: Side::Handler(handle), index: 0 };
    one.effects();
    one.machine.on_credit(ConnId(2), of_caller(0), u64::MAX);
    one.drive();
    assert_eq!(one.effects(), []);
    let chunk = Bytes::from(vec![0; 256 << 10]);
    one.machine.stream_write(stream, chunk.clone(), false).unwrap();
    one.machine.stream_write(stream, chunk.clone(), false).unwrap();
    let beyond = one.machine.stream_write(stream, Bytes::from("x"), false);
    assert!(matches!(beyond, Err(Refused::Invalid { .. })));
}

/// Both ends on one node: the same as over a connection.
#[test]
fn a_local_stream_goes_both_ways() {
    let mut one = One::new(&[ME]);
    one.ask(1, with_streams(&[Way::Both]));
    let effects = one.effects();
    let [Effect::Handle(handle), Effect::Credit { stream, .. }, Effect::Credit { stream: up, .. }] =
        &effects[..]
    else {
        panic!("{effects:?}")
    };
    let (handle, down, up) = (handle.handle, *stream, *up);
    assert_eq!((down.side, up.side), (Side::Handler(handle), Side::Caller(RequestId(1))));
    one.machine.stream_write(up, Bytes::from("up"), true).unwrap();
    one.machine.stream_write(down, Bytes::from("down"), true).unwrap();
    one.machine.respond(handle, Ok(response("done")));
    one.drive();
    let come =
        |stream, data: &'static str| Effect::Data { stream, data: Bytes::from(data), last: true };
    assert_eq!(one.effects(), [come(down, "up"), come(up, "down"), done(1, "done")]);
    assert_eq!(one.machine.streams.len(), 0);
}
