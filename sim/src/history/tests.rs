use serde_json::{Map, json};

use super::{Counts, Done, History, Key, Op, Recorder, Value};

fn key(name: &str) -> Key {
    Key::new("p", name)
}

fn sample() -> Recorder {
    let recorder = Recorder::new(Map::from_iter([("seed".to_owned(), json!(7))]));
    let [a, b] = [recorder.process(), recorder.process()];
    let value = Value::from(1);
    let calls = [
        (Op::Put { key: key("x"), value: value.clone() }, Done::Written { revision: Some(1) }),
        (Op::Get { key: key("x"), local: true }, Done::Value(Some((value.clone(), Some(1))))),
        (
            Op::Cas { key: key("x"), old: Some(value.clone()), new: None },
            Done::Compared { swapped: true, revision: Some(0) },
        ),
        (
            Op::CasRev { key: key("x"), revision: 0, new: Some(Value::from("two")) },
            Done::Compared { swapped: true, revision: Some(3) },
        ),
        (
            Op::Batch { changes: vec![(key("x"), None), (key("y"), Some(Value::from(3)))] },
            Done::Written { revision: Some(4) },
        ),
        (
            Op::Scan { from: key(""), to: None, limit: 9, reverse: true, local: false },
            Done::Page {
                items: vec![(key("y"), Value::from(3), Some(4))],
                more: false,
                revision: Some(4),
            },
        ),
        (Op::Delete { key: key("y") }, Done::Deleted { existed: Some(true), revision: Some(5) }),
    ];
    for (at, (op, done)) in (0..).zip(calls) {
        recorder.invoke(at * 10, a, Some(2), op);
        recorder.ok(at * 10 + 5, a, done);
    }
    recorder.fault(100, "crash", Map::from_iter([("on".to_owned(), json!(3))]));
    recorder.invoke(101, a, None, Op::Delete { key: key("x") });
    recorder.invoke(102, b, None, Op::Delete { key: key("y") });
    recorder.fail(103, a, "deadline");
    recorder.info(104, b, "lost");
    recorder
}

/// What was written is read back equal, and counted.
#[test]
fn histories_survive_a_file() {
    let recorder = sample();
    let history = recorder.history();
    let mut file = Vec::new();
    history.write(&mut file).unwrap();

    let back = History::read(file.as_slice()).unwrap();

    assert_eq!(back, history);
    let expected = Counts { invoked: 9, ok: 7, fail: 1, info: 1 };
    assert_eq!(recorder.counts(), expected);
    assert_eq!(history.operations().len(), 9);
}

/// The lines are those of the format.
#[test]
fn lines_are_of_the_format() {
    let mut file = Vec::new();
    sample().history().write(&mut file).unwrap();

    let text = String::from_utf8(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();

    assert_eq!(lines[0], r#"{"seed":7,"type":"meta","v":1}"#);
    assert_eq!(
        lines[2],
        r#"{"f":"put","index":1,"key":"p/x","node":2,"process":0,"rev":1,"time":5,"type":"ok","value":1,"w":"kv"}"#
    );
    assert_eq!(
        lines[9],
        r#"{"f":"batch","index":8,"key":null,"node":2,"process":0,"time":40,"type":"invoke","value":[["del","p/x"],["put","p/y",3]],"w":"kv"}"#
    );
    assert_eq!(lines[15], r#"{"fault":"crash","index":14,"on":3,"time":100,"type":"fault"}"#);
}

/// A process that got an `info` is never used again.
#[test]
#[should_panic(expected = "none after an info")]
fn a_retired_process_is_refused() {
    let recorder = Recorder::default();
    let process = recorder.process();
    recorder.invoke(0, process, None, Op::Delete { key: key("x") });
    recorder.info(1, process, "lost");
    recorder.invoke(2, process, None, Op::Delete { key: key("x") });
}

/// A process does one thing at a time.
#[test]
#[should_panic(expected = "one operation at a time")]
fn a_busy_process_is_refused() {
    let recorder = Recorder::default();
    let process = recorder.process();
    recorder.invoke(0, process, None, Op::Delete { key: key("x") });
    recorder.invoke(2, process, None, Op::Delete { key: key("x") });
}

/// Bad lines are errors that name the line.
#[test]
fn bad_lines_are_named() {
    let invoke = r#"{"type":"invoke","index":1,"time":1,"process":1,"w":"kv","f":"del","key":"a"}"#;
    let info = r#"{"type":"info","index":2,"time":1,"process":1,"w":"kv","f":"del","key":"a"}"#;
    let again = r#"{"type":"invoke","index":3,"time":1,"process":1,"w":"kv","f":"del","key":"a"}"#;
    let cases = [
        ("[]".to_owned(), 1, "not a JSON object"),
        ("{".to_owned(), 1, "EOF"),
        (info.to_owned(), 1, "no operation open"),
        (format!("{invoke}\n{invoke}"), 2, "does not rise"),
        (format!("{invoke}\n{again}"), 2, "already has an operation open"),
        (format!("{invoke}\n{info}\n{again}"), 3, "after its info"),
        (
            r#"{"type":"invoke","index":1,"time":1,"process":1,"w":"kv","f":"batch","value":[["del","p/a"],["del","q/a"]]}"#
                .to_owned(),
            1,
            "spans partitions",
        ),
    ];
    for (text, line, problem) in cases {
        let error = History::read(text.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.problem.contains(problem), "{error}");
    }
}
