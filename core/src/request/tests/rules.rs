//! Who is asked, who handles, how a request ends.

use super::*;

#[test]
fn a_request_goes_to_the_owner_and_its_answer_ends_it() {
    let mut one = One::new(&[A, B]);
    one.ask(1, request(Kind::Retried));
    let (to, sent) = one.asked();
    assert_eq!(to, A);
    assert_eq!(sent, Ask { left: 10_000_000_000, ..ask(1) });
    one.comes(A, answer(1, "done")).unwrap();
    assert_eq!(one.effects(), [done(1, "done")]);
    assert_eq!(one.machine.asked(), 0);
    assert_eq!(one.machine.deadline(), None);
}

#[test]
fn a_request_to_oneself_takes_the_same_steps() {
    let mut one = One::new(&[ME, A]);
    one.ask(1, request(Kind::Retried));
    let handle = one.handle();
    assert_eq!(handle.id, RequestName { caller: ME, boot: Boot(5), number: 1 });
    assert_eq!((handle.attempt, handle.route.as_str()), (1, "echo"));
    assert_eq!(handle.deadline, START + SECOND * 10);
    one.machine.respond(handle.handle, Ok(response("done")));
    one.drive();
    assert_eq!(one.effects(), [done(1, "done")]);
    assert_eq!(one.machine.handled(), 0);
}

#[test]
fn a_request_is_handled_and_answered() {
    let mut one = One::new(&[ME, A]);
    one.comes(A, Part::Ask(Box::new(ask(7)))).unwrap();
    let handle = one.handle();
    assert_eq!(handle.id, RequestName { caller: A, boot: Boot(77), number: 7 });
    assert_eq!(handle.deadline, START + SECOND * 5);
    one.machine.respond(handle.handle, Ok(response("done")));
    one.machine.respond(handle.handle, Ok(response("again")));
    one.drive();
    assert_eq!(one.sent(), [(ConnId(2), answer(7, "done"))], "one answer a request");
}

/// H4: only who is the first in line that the caller has not passed over handles it.
#[test]
fn who_is_not_the_owner_says_so() {
    let mut one = One::new(&[A, ME, B]);
    one.comes(B, Part::Ask(Box::new(ask(1)))).unwrap();
    let refused = fault(1, Fault::NotOwner { hint: Some(A) });
    assert_eq!(one.sent(), [(ConnId(3), refused)]);
    assert_eq!(one.effects(), []);

    let passed_over = Ask { skipped: vec![A], ..ask(2) };
    one.comes(B, Part::Ask(Box::new(passed_over))).unwrap();
    assert_eq!(one.handle().id.number, 2);
}

#[test]
fn a_request_to_a_partition_is_handled_by_its_leader_alone() {
    let mut one = One::new(&[ME, A]);
    let target = Target::Partition(Bytes::from("p"));
    let to_leader = |number| Ask { target: target.clone(), ..ask(number) };
    one.comes(A, Part::Ask(Box::new(to_leader(1)))).unwrap();
    assert_eq!(one.sent(), [(ConnId(2), not_owner(None))]);
    one.around.leader = Some(ME);
    one.comes(A, Part::Ask(Box::new(to_leader(2)))).unwrap();
    assert_eq!(one.handle().target, target);
}

/// While nobody leads it waits for its next try, and goes as soon as somebody does.
#[test]
fn a_request_to_a_partition_follows_its_new_leader_at_once() {
    let mut one = One::new(&[A, B]);
    for (number, name) in [(1, "p"), (2, "q")] {
        let target = Target::Partition(Bytes::from(name));
        one.ask(number, Request { target, ..request(Kind::Once) });
        assert_eq!(one.asked().0, A);
        one.comes(A, fault(number, Fault::NotOwner { hint: None })).unwrap();
        assert_eq!(one.asked().0, B);
        one.comes(B, fault(number, Fault::NotOwner { hint: None })).unwrap();
        assert_eq!(one.sent(), [], "everybody was asked");
    }
    let pause = one.machine.deadline();

    one.around.leader = Some(B);
    one.machine.on_leader(one.now, |partition| partition == b"p");
    assert_eq!(one.machine.deadline(), Some(one.now));
    one.drive();
    let (to, sent) = one.asked();
    assert_eq!((to, sent.number, sent.attempt), (B, 1, 3));
    assert!(one.machine.deadline() >= pause, "the other waits on");
}

#[test]
fn a_member_handles_no_request_that_is_for_another() {
    let mut one = One::new(&[ME, A]);
    let for_b = Ask { target: Target::Member(B), ..ask(1) };
    one.comes(A, Part::Ask(Box::new(for_b))).unwrap();
    assert_eq!(one.sent(), [(ConnId(2), not_owner(Some(B)))]);
}

#[test]
fn a_hint_is_followed() {
    let mut one = One::new(&[A, ME, B]);
    one.ask(1, request(Kind::Retried));
    assert_eq!(one.asked().0, A);
    one.comes(A, not_owner(Some(B))).unwrap();
    let (to, sent) = one.asked();
    assert_eq!((to, sent.attempt, sent.skipped), (B, 2, vec![]));
}

/// Who was asked takes another for the owner, and that one is gone: it must hear so.
#[test]
fn a_hint_to_one_that_cannot_be_reached_is_told_to_who_gave_it() {
    let mut one = One::new(&[A, B]);
    one.around.conns.remove(&B);
    one.ask(1, request(Kind::Retried));
    assert_eq!(one.asked().0, A);
    one.comes(A, not_owner(Some(B))).unwrap();
    let (to, sent) = one.asked();
    assert_eq!((to, sent.skipped), (A, vec![B]));
}

/// Two members that send a caller to each other do not keep it busy.
#[test]
fn hints_that_go_round_in_circles_are_left_for_a_while() {
    let mut one = One::new(&[A, B]);
    one.ask(1, request(Kind::Retried));
    assert_eq!(one.asked().0, A);
    one.comes(A, not_owner(Some(B))).unwrap();
    assert_eq!(one.asked().0, B);
    one.comes(B, not_owner(Some(A))).unwrap();
    assert_eq!(one.sent(), []);
    let again = one.machine.deadline().unwrap();
    assert!(again > one.now && again <= one.now + Duration::from_millis(20));
    one.run(Duration::from_millis(20));
    assert_eq!(one.asked().0, A);
}

#[test]
fn a_busy_member_is_asked_again_with_longer_and_longer_pauses() {
    let mut one = One::new(&[A]);
    one.ask(1, request(Kind::Once));
    let mut pauses = Vec::new();
    for attempt in 1..=9 {
        let (to, sent) = one.asked();
        assert_eq!((to, sent.attempt), (A, attempt));
        one.comes(A, fault(1, Fault::Busy)).unwrap();
        let due = one.machine.deadline().unwrap();
        pauses.push(due.since(one.now));
        one.run(due.since(one.now));
    }
    assert!(pauses[0] <= Duration::from_millis(20), "{pauses:?}");
    assert!(pauses[8] >= Duration::from_millis(500), "{pauses:?}");
    assert!(pauses.iter().all(|&pause| pause <= SECOND), "{pauses:?}");
}

#[test]
fn who_cannot_be_reached_is_passed_over() {
    let mut one = One::new(&[A, B]);
    one.around.conns.remove(&A);
    one.ask(1, request(Kind::Once));
    let (to, sent) = one.asked();
    assert_eq!((to, sent.skipped, sent.attempt), (B, vec![A], 1));
}

/// A node that has just begun is not connected to all: it waits for the owner before it passes it over.
#[test]
fn who_was_never_reached_is_waited_for() {
    let mut one = One::new(&[A, B]);
    let conn = one.around.conns.remove(&A).unwrap();
    one.around.strange = vec![A];
    one.ask(1, request(Kind::Once));
    one.run(Duration::from_millis(499));
    assert_eq!(one.sent(), []);
    let mut patient = One { around: one.around.clone(), ..One::new(&[A, B]) };
    patient.ask(1, request(Kind::Once));
    patient.around.conns.insert(A, conn);
    patient.machine.on_change();
    patient.drive();
    assert_eq!(patient.asked().0, A);

    one.run(Duration::from_millis(1));
    let (to, sent) = one.asked();
    assert_eq!((to, sent.skipped), (B, vec![A]));

    // Also when only the asked member knows of it.
    let mut one = One::new(&[B]);
    one.around.strange = vec![A];
    one.ask(1, request(Kind::Once));
    assert_eq!(one.asked().0, B);
    one.comes(B, not_owner(Some(A))).unwrap();
    one.around.conns.insert(A, conn);
    one.machine.on_change();
    one.drive();
    assert_eq!(one.asked().0, A);
}

#[test]
fn what_certainly_did_not_happen_says_why() {
    for (failure, waited) in [
        (None, Waited::Connection),
        (Some(not_owner(None)), Waited::Agreement),
        (Some(fault(1, Fault::Busy)), Waited::Room),
    ] {
        let mut one = One::new(&[A]);
        let conn = one.around.conns[&A];
        if failure.is_none() {
            one.around.conns.clear();
        }
        one.ask(1, request(Kind::Once));
        while let Some(due) = one.machine.deadline() {
            if let Some(failure) = &failure
                && one.sent.iter().any(|(to, _)| *to == conn)
            {
                one.sent.clear();
                one.comes(A, failure.clone()).unwrap();
            } else {
                one.run(due.since(one.now));
            }
        }
        assert_eq!(one.effects(), [failed(1, Failure::Deadline { waited })]);
        assert_eq!(one.now, START + SECOND * 10);
    }
}

#[test]
fn a_request_without_anybody_to_handle_it_waits_for_one() {
    let mut one = One::new(&[]);
    one.ask(1, request(Kind::Once));
    one.run(SECOND);
    assert_eq!(one.sent(), []);
    one.around = Around::new(ME, &[A]);
    one.machine.on_change();
    one.drive();
    assert_eq!(one.asked().0, A);

    let mut one = One::new(&[]);
    one.ask(1, request(Kind::Once));
    one.run(SECOND * 10);
    let waited = Waited::Owner;
    assert_eq!(one.effects(), [failed(1, Failure::Deadline { waited })]);
}

#[test]
fn an_unanswered_request_ends_at_its_deadline_and_says_that_it_may_have_happened() {
    let mut one = One::new(&[A]);
    one.ask(1, request(Kind::Retried));
    one.sent();
    one.run(SECOND * 10);
    assert_eq!(one.effects(), [failed(1, Failure::OutcomeUnknown)]);
    assert_eq!(one.sent(), [(ConnId(2), Part::Cancel { number: 1 })]);
    one.comes(A, answer(1, "late")).unwrap();
    assert_eq!(one.effects(), []);
}

#[test]
fn what_the_asked_side_says_ends_a_request() {
    let text = "no such thing".to_string();
    let limit = 9;
    for (fault_of, failure) in [
        (Fault::NoRoute, Failure::NoRoute),
        (Fault::Handler { code: 4, text: text.clone() }, Failure::Handler { code: 4, text }),
        (
            Fault::TooLarge { what: Large::Body, limit },
            Failure::TooLarge { what: Large::Body, limit },
        ),
    ] {
        let mut one = One::new(&[A]);
        one.ask(1, request(Kind::Retried));
        one.comes(A, fault(1, fault_of)).unwrap();
        assert_eq!(one.effects(), [failed(1, failure)]);
    }
}

#[test]
fn a_one_way_request_ends_when_it_is_sent_and_holds_no_place() {
    let limits = Limits { requests: 1, ..Limits::default() };
    let mut one = One::with(&limits, &[A]);
    one.ask(1, request(Kind::Retried));
    one.sent();
    for number in 2..100 {
        one.ask(number, request(Kind::OneWay));
        assert_eq!(one.asked().1.kind, Kind::OneWay);
        let result = Ok(Response::default());
        assert_eq!(one.effects(), [Effect::Answered { request: RequestId(number), result }]);
    }
    let full = one.machine.request(one.now, RequestId(100), request(Kind::Retried));
    assert!(matches!(full, Err(Refused::Full { limit: 1, .. })), "{full:?}");
}

/// 100 one-way requests whose handlers never answer do not take a connection's places.
#[test]
fn a_one_way_request_is_answered_by_nobody() {
    let mut one = One::new(&[ME, A]);
    for number in 0..100 {
        let one_way = Ask { kind: Kind::OneWay, ..ask(number) };
        one.comes(A, Part::Ask(Box::new(one_way))).unwrap();
    }
    assert_eq!(one.effects().len(), 100);
    one.comes(A, Part::Ask(Box::new(ask(100)))).unwrap();
    let handle = one.handle();
    one.machine.respond(handle.handle, Ok(response("done")));
    one.drive();
    assert_eq!(one.sent(), [(ConnId(2), answer(100, "done"))]);
    one.run(SECOND * 5);
    assert_eq!(one.machine.handled(), 0, "they end at their deadline");
}

#[test]
fn handlers_are_bounded_in_number_and_in_bytes() {
    let limits = Limits { handlers: 2, ..Limits::default() };
    let mut one = One::with(&limits, &[ME, A]);
    for number in 0..3 {
        one.comes(A, Part::Ask(Box::new(ask(number)))).unwrap();
    }
    assert_eq!(one.sent(), [(ConnId(2), fault(2, Fault::Busy))]);
    assert_eq!(one.machine.handled(), 2);

    let limits = Limits { handlers_bytes: 1000, ..Limits::default() };
    let mut one = One::with(&limits, &[ME, A]);
    let large = |number| Ask { body: Bytes::from(vec![0; 900]), ..ask(number) };
    for number in 0..2 {
        one.comes(A, Part::Ask(Box::new(large(number)))).unwrap();
    }
    assert_eq!(one.sent(), [(ConnId(2), fault(1, Fault::Busy))]);
    let Some(Effect::Handle(first)) = one.effects().pop() else { panic!("a request") };
    one.machine.respond(first.handle, Ok(response("")));
    one.drive();
    one.comes(A, Part::Ask(Box::new(large(3)))).unwrap();
    assert_eq!(one.machine.handled(), 1, "its place is free");
}

#[test]
fn what_is_too_large_is_refused_on_both_sides() {
    let limits = Limits { body_bytes: 10, headers_bytes: 50, ..Limits::default() };
    let mut one = One::with(&limits, &[ME, A]);
    let body = Bytes::from(vec![0; 11]);
    let headers: Vec<(String, Bytes)> = vec![("h".to_string(), Bytes::from(vec![0; 50]))];
    let too_long = |request| {
        matches!(
            One::with(&limits, &[A]).machine.request(START, RequestId(1), request),
            Err(Refused::TooLarge { .. })
        )
    };
    assert!(too_long(Request { body: body.clone(), ..request(Kind::Once) }));
    assert!(too_long(Request { headers: headers.clone(), ..request(Kind::Once) }));
    assert!(too_long(Request { route: "r".repeat(256), ..request(Kind::Once) }));
    let key = Target::Key(Bytes::from(vec![0; (64 << 10) + 1]));
    assert!(too_long(Request { target: key, ..request(Kind::Once) }));
    assert!(too_long(with_streams(&[Way::Up; 65])));

    one.comes(A, Part::Ask(Box::new(Ask { body, ..ask(1) }))).unwrap();
    one.comes(A, Part::Ask(Box::new(Ask { headers, ..ask(2) }))).unwrap();
    one.comes(A, Part::Ask(Box::new(Ask { route: "r".repeat(256), ..ask(3) }))).unwrap();
    let large = |number, what, limit| (ConnId(2), fault(number, Fault::TooLarge { what, limit }));
    assert_eq!(
        one.sent(),
        [large(1, Large::Body, 10), large(2, Large::Headers, 50), large(3, Large::Name, 255)]
    );
    assert_eq!(one.effects(), []);
}

#[test]
fn a_response_that_is_too_large_becomes_an_error() {
    let limits = Limits { body_bytes: 10, ..Limits::default() };
    let mut one = One::with(&limits, &[ME, A]);
    one.comes(A, Part::Ask(Box::new(ask(1)))).unwrap();
    let handle = one.handle().handle;
    one.machine.respond(handle, Ok(response("eleven bytes")));
    one.drive();
    let sent = one.sent();
    let [(_, Part::Answer { number: 1, result: Err(Fault::Handler { code: u32::MAX, .. }) })] =
        &sent[..]
    else {
        panic!("{sent:?}")
    };
}

#[test]
fn a_long_error_is_cut_off_between_characters() {
    let mut one = One::new(&[ME, A]);
    one.comes(A, Part::Ask(Box::new(ask(1)))).unwrap();
    let handle = one.handle().handle;
    let text = "\u{20ac}".repeat(TEXT_BYTES_MAX);
    one.machine.respond(handle, Err(Fault::Handler { code: 1, text }));
    one.drive();
    let sent = one.sent();
    let [(_, Part::Answer { result: Err(Fault::Handler { text, .. }), .. })] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(text.len(), TEXT_BYTES_MAX / 3 * 3);
}

#[test]
fn who_serves_nothing_has_no_route() {
    let mut one = One::new(&[ME, A]);
    one.machine = Requests::new(ME, Boot(5), &Limits::default(), Rng::new(9));
    one.comes(A, Part::Ask(Box::new(ask(1)))).unwrap();
    assert_eq!(one.sent(), [(ConnId(2), fault(1, Fault::NoRoute))]);
}

#[test]
fn a_request_that_is_given_up_ends_at_once_and_its_handler_is_told() {
    let mut one = One::new(&[A]);
    one.ask(1, request(Kind::Retried));
    one.sent();
    one.machine.cancel(RequestId(1));
    one.drive();
    assert_eq!(one.effects(), [failed(1, Failure::Cancelled { maybe: true })]);
    assert_eq!(one.sent(), [(ConnId(2), Part::Cancel { number: 1 })]);

    let mut one = One::new(&[ME, A]);
    one.comes(A, Part::Ask(Box::new(ask(1)))).unwrap();
    let handle = one.handle().handle;
    one.comes(A, Part::Cancel { number: 1 }).unwrap();
    assert_eq!(one.effects(), [Effect::Gone { handle, why: Gone::Caller }]);
    assert_eq!(one.machine.handled(), 1, "it holds its place as long as it works");
    one.machine.respond(handle, Ok(response("in vain")));
    one.drive();
    assert_eq!(one.sent(), []);
    assert_eq!(one.machine.handled(), 0);
}

#[test]
fn a_handler_that_never_answers_ends_at_the_deadline() {
    let mut one = One::new(&[ME, A]);
    one.comes(A, Part::Ask(Box::new(ask(1)))).unwrap();
    let handle = one.handle().handle;
    one.run(SECOND * 5);
    assert_eq!(one.effects(), [Effect::Gone { handle, why: Gone::Late }]);
    assert_eq!(one.machine.handled(), 0);
    one.machine.respond(handle, Ok(response("late")));
    one.drive();
    assert_eq!(one.sent(), []);
}

#[test]
fn all_ends_when_the_node_halts() {
    let mut one = One::new(&[ME, A]);
    one.around.line = vec![A, ME];
    one.ask(1, request(Kind::Retried));
    one.around.conns.clear();
    one.ask(2, Request { target: Target::Member(B), ..request(Kind::Retried) });
    one.effects();
    one.machine.close();
    let ended: Vec<Effect> = one.machine.effects().collect();
    let closed = |number, maybe| failed(number, Failure::Closed { maybe });
    assert_eq!(ended, [closed(1, true), closed(2, false)]);
    assert_eq!(one.machine.deadline(), None);
}

/// A peer refuses a request that passes over more members than [`SKIPPED_MAX`], and the connection with it: whatever
/// hints this node is given, it sends none such.
#[test]
fn no_request_passes_over_more_than_a_peer_reads() {
    let mut one = One::new(&[A]);
    one.ask(1, Request { target: Target::Member(A), ..request(Kind::Retried) });
    for hint in (100..).map(MemberId).take(message::SKIPPED_MAX + 4) {
        let (_, ask) = one.asked();
        assert!(ask.skipped.len() <= message::SKIPPED_MAX, "{} members", ask.skipped.len());
        one.comes(A, fault(1, Fault::NotOwner { hint: Some(hint) })).unwrap();
        one.run(SECOND / 4);
    }
}
