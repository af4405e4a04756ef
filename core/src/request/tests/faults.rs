//! What lost connections, and connections that lose, repeat and reorder, do to requests.

use super::*;

/// The answer may be lost with the connection: the next in line handles it, and sees that it is a retry.
#[test]
fn a_lost_connection_sends_a_request_to_the_next_in_line() {
    let mut one = One::new(&[A, B]);
    one.ask(1, request(Kind::Retried));
    assert_eq!(one.asked().0, A);
    one.lose(A);
    let (to, sent) = one.asked();
    assert_eq!((to, sent.number, sent.attempt, sent.skipped), (B, 1, 2, vec![A]));
    one.comes(B, answer(1, "done")).unwrap();
    assert_eq!(one.effects(), [done(1, "done")]);
}

/// H5: a request that is to be handled once is not sent again when it may have been handled.
#[test]
fn a_request_for_once_is_not_sent_again() {
    for what in [request(Kind::Once), with_streams(&[Way::Down])] {
        let mut one = One::new(&[A, B]);
        one.ask(1, what);
        assert_eq!(one.asked().0, A);
        one.lose(A);
        assert_eq!(one.sent(), []);
        let ended = one.effects().pop();
        assert_eq!(ended, Some(failed(1, Failure::OutcomeUnknown)));
    }
}

/// What has certainly not been handled goes elsewhere, whatever it is.
#[test]
fn a_request_for_once_that_was_refused_goes_elsewhere() {
    let mut one = One::new(&[A, B]);
    one.ask(1, request(Kind::Once));
    assert_eq!(one.asked().0, A);
    one.comes(A, not_owner(Some(B))).unwrap();
    assert_eq!(one.asked().0, B);
}

/// A refusal after a lost attempt does not make that one undone.
#[test]
fn a_refused_retry_leaves_the_outcome_unknown() {
    for refusal in [Fault::NoRoute, Fault::TooLarge { what: Large::Body, limit: 1 }] {
        let mut one = One::new(&[A, B]);
        one.ask(1, request(Kind::Retried));
        one.lose(A);
        one.comes(B, fault(1, refusal)).unwrap();
        assert_eq!(one.effects(), [failed(1, Failure::OutcomeUnknown)]);
    }
    let mut one = One::new(&[A]);
    one.ask(1, request(Kind::Retried));
    one.lose(A);
    one.run(SECOND * 10);
    assert_eq!(one.effects(), [failed(1, Failure::OutcomeUnknown)]);
}

/// When everybody in line was tried the first is asked again, if it is back.
#[test]
fn a_member_that_comes_back_is_asked_again() {
    let mut one = One::new(&[A]);
    one.ask(1, request(Kind::Retried));
    assert_eq!(one.asked().0, A);
    one.lose(A);
    one.run(SECOND);
    assert_eq!(one.sent(), []);
    one.around.conns.insert(A, ConnId(20));
    one.machine.on_change();
    one.drive();
    let sent = one.sent();
    let [(ConnId(20), Part::Ask(sent))] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((sent.attempt, &sent.skipped), (2, &vec![]));
}

#[test]
fn a_caller_that_vanishes_is_told_to_its_handlers() {
    let mut one = One::new(&[ME, A, B]);
    one.comes(A, Part::Ask(Box::new(ask(1)))).unwrap();
    let of_a = one.handle().handle;
    one.comes(B, Part::Ask(Box::new(ask(1)))).unwrap();
    let of_b = one.handle().handle;
    one.lose(A);
    assert_eq!(one.effects(), [Effect::Gone { handle: of_a, why: Gone::Caller }]);
    one.machine.respond(of_a, Ok(response("in vain")));
    one.machine.respond(of_b, Ok(response("done")));
    one.drive();
    assert_eq!(one.sent(), [(ConnId(3), answer(1, "done"))]);
}

/// A one-way request is handled to its end although its caller is gone.
#[test]
fn a_one_way_request_outlives_its_caller() {
    let mut one = One::new(&[ME, A]);
    one.comes(A, Part::Ask(Box::new(Ask { kind: Kind::OneWay, ..ask(1) }))).unwrap();
    one.effects();
    one.lose(A);
    assert_eq!(one.effects(), []);
    assert_eq!(one.machine.handled(), 1);
}

/// N: what comes twice is handled once, also when its first answer is long gone.
#[test]
fn a_repeated_message_is_taken_once() {
    let mut one = One::new(&[ME, A]);
    let conn = one.around.conns[&A];
    let part = Part::Ask(Box::new(ask(1)));
    for _ in 0..2 {
        one.machine.on_part(one.now, A, conn, (0, part.clone()), &one.around).unwrap();
        one.drive();
    }
    let handle = one.handle().handle;
    one.machine.respond(handle, Ok(response("done")));
    one.drive();
    one.machine.on_part(one.now, A, conn, (0, part), &one.around).unwrap();
    one.drive();
    assert_eq!(one.effects(), []);
    assert_eq!(one.sent().len(), 1);
}

/// A message that was overtaken is as good as lost.
#[test]
fn an_overtaken_message_is_not_taken() {
    let mut one = One::new(&[ME, A]);
    let conn = one.around.conns[&A];
    let (first, second) = (Part::Ask(Box::new(ask(1))), Part::Ask(Box::new(ask(2))));
    let place = first.weight();
    one.machine.on_part(one.now, A, conn, (place, second), &one.around).unwrap();
    one.machine.on_part(one.now, A, conn, (0, first), &one.around).unwrap();
    one.drive();
    assert_eq!(one.handle().id.number, 2);
}

/// N1, N2: what the other end does not take waits here, bounded by the application's own limits, and a request that
/// still waits at its deadline has certainly not happened.
#[test]
fn a_connection_carries_no_more_than_its_window() {
    let mut one = One::new(&[A]);
    let large = || Request { body: Bytes::from(vec![7; 1 << 20]), ..request(Kind::Once) };
    for number in 1..=8 {
        one.ask(number, large());
    }
    assert_eq!(one.sent.len(), 4, "4 MiB");
    let Message::Request { at, part } = &one.sent[3].1 else { panic!("a request") };
    let sent = at + part.weight();
    one.sent.clear();
    one.machine.on_taken(ConnId(2), sent);
    one.drive();
    let numbers = one.sent.iter().map(|(_, message)| match message {
        Message::Request { part: Part::Ask(ask), .. } => ask.number,
        other => panic!("{other:?}"),
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [5, 6, 7, 8], "4 MiB more, of who waits longest");

    one.ask(9, large());
    one.sent.clear();
    one.run(SECOND * 10);
    let ended = one.effects();
    let waited = Waited::Window;
    assert_eq!(ended.last(), Some(&failed(9, Failure::Deadline { waited })));
    assert_eq!(ended.first(), Some(&failed(1, Failure::OutcomeUnknown)));
}

/// Each side tells what it has taken, but not for each message.
#[test]
fn what_is_taken_is_told_now_and_then() {
    let mut one = One::new(&[ME, A]);
    let mut told = Vec::new();
    for number in 0..8 {
        let large =
            Ask { kind: Kind::OneWay, body: Bytes::from(vec![0; 300 << 10]), ..ask(number) };
        one.comes(A, Part::Ask(Box::new(large))).unwrap();
        for (_, message) in one.sent.drain(..) {
            let Message::RequestsTaken { upto } = message else { panic!("{message:?}") };
            told.push(upto);
        }
    }
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told.last(), Some(&one.places[&ConnId(2)]));
}

/// A connection that lost parts, or the word that they were taken, does not stand still for ever.
#[test]
fn a_full_window_is_asked_about() {
    let mut one = One::new(&[A]);
    let large = || Request { body: Bytes::from(vec![7; 5 << 20]), ..request(Kind::Once) };
    one.ask(1, large());
    one.ask(2, large());
    one.sent.clear();
    one.run(Duration::from_millis(500));
    let [(ConnId(2), Message::RequestsSent { upto })] = one.sent[..] else { panic!("asked") };
    one.machine.on_taken(ConnId(2), upto);
    one.sent.clear();
    one.drive();
    assert_eq!(one.asked().1.number, 2);

    let mut other = One::new(&[ME, A]);
    other.machine.on_sent(ConnId(2), upto);
    other.drive();
    assert_eq!(other.sent, [(ConnId(2), Message::RequestsTaken { upto })]);
}

/// A peer that takes nothing, however often it is asked, is given up; whatever it takes is a new beginning.
#[test]
fn a_window_that_stays_full_is_given_up() {
    let mut one = One::new(&[A]);
    let large = || Request {
        body: Bytes::from(vec![7; 5 << 20]),
        deadline: START + SECOND * 100,
        ..request(Kind::Retried)
    };
    one.ask(1, large());
    one.ask(2, large());
    one.run(SECOND * 15);
    one.machine.on_taken(ConnId(2), 1 << 20);
    one.drive();
    one.run(SECOND * 15);
    assert_eq!(one.machine.stuck(), None, "it took something 15 s ago");
    one.run(SECOND * 6);
    let (conn, how) = one.machine.stuck().expect("it took nothing for 20 s");
    assert_eq!((conn, how), (ConnId(2), "took nothing of what was sent to it"));
    one.lose(A);
    assert_eq!(one.machine.stuck(), None);
    one.around.conns.insert(A, ConnId(9));
    one.machine.on_change();
    one.sent.clear();
    one.drive();
    let (to, part) = &one.sent()[0];
    assert!(matches!((to, part), (ConnId(9), Part::Ask(ask)) if ask.number == 1), "{part:?}");
}

/// N2: a peer that asks on and takes no answers does not make them pile up: errors hold no room of handlers.
#[test]
fn a_peer_that_takes_no_answers_is_given_up() {
    let limits = Limits { handlers: 1, ..Limits::default() };
    let mut one = One::with(&limits, &[ME, A]);
    one.comes(A, Part::Ask(Box::new(ask(0)))).unwrap();
    let most = 1 + REPLIES_MAX + WINDOW / 64;
    let mut number = 0;
    while one.machine.stuck().is_none() {
        number += 1;
        assert!(number <= 2 * most, "answers pile up");
        let ask = Part::Ask(Box::new(ask(number)));
        let at = one.places[&ConnId(2)] + number * 1000;
        one.machine.on_part(one.now, A, ConnId(2), (at, ask), &one.around).unwrap();
        if number.is_multiple_of(1000) {
            one.drive();
            one.sent.clear();
        }
    }
    assert!(number >= most, "who keeps the protocol is never given up: {number}");
    let (conn, how) = one.machine.stuck().unwrap();
    assert_eq!((conn, how), (ConnId(2), "asked on, and took no answers"));
    one.lose(A);
    assert_eq!(one.machine.stuck(), None);
}

/// A request's deadline is its caller's, be it far.
#[test]
fn a_handler_has_as_long_as_its_caller_waits() {
    let mut one = One::new(&[ME, A]);
    let day = Duration::from_secs(86_400);
    for (number, (kind, left, expected)) in (0..).zip([
        (Kind::Once, day, START + day),
        (Kind::OneWay, day, START + Duration::from_secs(3_600)),
        (Kind::Retried, Duration::from_nanos(u64::MAX), Instant(u64::MAX)),
    ]) {
        let left = u64::try_from(left.as_nanos()).unwrap();
        let asked = Ask { kind, left, ..ask(number) };
        one.comes(A, Part::Ask(Box::new(asked))).unwrap();
        assert_eq!(one.handle().deadline, expected);
        one.machine.check();
    }
}

/// A peer that says it has taken what was never sent opens no window.
#[test]
fn a_false_word_of_what_was_taken_is_harmless() {
    let mut one = One::new(&[ME, A]);
    one.machine.on_taken(ConnId(2), u64::MAX);
    one.machine.on_sent(ConnId(2), u64::MAX);
    one.drive();
    let asked = Part::Ask(Box::new(ask(1)));
    let at = u64::MAX;
    one.machine.on_part(one.now, A, ConnId(2), (at, asked), &one.around).unwrap();
    one.drive();
    assert_eq!(one.handle().id.number, 1);
    one.around.line = vec![A];
    one.ask(5, request(Kind::Once));
    assert_eq!(one.machine.asked(), 1);
}

/// Answers to whatever nobody asked for.
#[test]
fn what_nobody_waits_for_is_ignored() {
    let mut one = One::new(&[A, B]);
    one.ask(1, request(Kind::Retried));
    one.sent();
    let of = message::StreamOf { by_caller: true, number: 9, index: 0 };
    let data = Bytes::from("x");
    for part in [
        answer(9, "what?"),
        Part::Cancel { number: 9 },
        Part::Data { of, offset: 0, data, last: true },
        Part::Abort { of },
        Part::Stop { of },
    ] {
        one.comes(A, part).unwrap();
    }
    one.comes(B, answer(1, "not asked")).unwrap();
    one.machine.on_credit(ConnId(2), of, 100);
    one.drive();
    assert_eq!(one.effects(), []);
    assert_eq!(one.sent(), []);
    assert_eq!(one.machine.asked(), 1);
}

/// The same number twice on one connection is a lie: places keep honest repetitions apart.
#[test]
fn the_same_request_twice_is_a_fault() {
    let mut one = One::new(&[ME, A]);
    one.comes(A, Part::Ask(Box::new(ask(1)))).unwrap();
    one.effects();
    assert!(one.comes(A, Part::Ask(Box::new(ask(1)))).is_err());
    assert_eq!(one.effects(), []);
}
