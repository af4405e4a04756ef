use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use tracing::dispatcher::with_default;

use super::*;
use crate::status;

type Said = Arc<Mutex<Vec<(i32, String)>>>;

/// A log that keeps what it is told.
fn kept() -> (Log, Said) {
    let said = Said::default();
    let keep = Arc::clone(&said);
    let say: Say = Box::new(move |level, line| lock(&keep).push((level, line.to_owned())));
    (Log::new(Some(say), None), said)
}

#[test]
fn a_line_is_what_happened_the_fields_and_the_place() {
    let (log, said) = kept();
    with_default(&log.dispatch(0).unwrap().unwrap(), || {
        let (count, name) = (3, "an \"odd\"\nname");
        tracing::warn!(count, name, to = %"1.2.3.4", "not {}", "sent");
        tracing::info!("only this");
        tracing::debug!("not asked for");
    });
    let place = "[ring::log::tests]";
    let first = format!("not sent count=3 name=\"an \\\"odd\\\"\\nname\" to=1.2.3.4 {place}");
    let both = [(RING_LOG_WARN, first), (RING_LOG_INFO, format!("only this {place}"))];
    assert_eq!(*lock(&said), both);
}

/// Names come from peers: none ends a line, colours a terminal or turns text around.
#[test]
fn what_would_not_stay_in_its_line_is_escaped() {
    let (log, said) = kept();
    let name = "a\r\n\u{1b}[31mb\u{85}\u{2028}\u{202e}c\0\u{e9}";
    with_default(&log.dispatch(0).unwrap().unwrap(), || {
        tracing::info!(name = %name, "{name}");
    });
    let escaped = "a\\r\\n\\u{1b}[31mb\\u{85}\\u{2028}\\u{202e}c\\0\u{e9}";
    assert_eq!(lock(&said)[0].1, format!("{escaped} name={escaped} [ring::log::tests]"));
}

#[test]
fn a_line_is_cut_at_a_character() {
    for len in LINE_BYTES - 40..LINE_BYTES + 8 {
        let (log, said) = kept();
        let name = "x".repeat(len % 4) + &"\u{e9}".repeat(len / 2);
        with_default(&log.dispatch(0).unwrap().unwrap(), || tracing::info!(after = 1, "{name}"));
        let line = lock(&said)[0].1.clone();
        assert!(line.len() <= LINE_BYTES && line.ends_with(" [ring::log::tests]"), "{line}");
        let whole = format!("{name} after=1 [ring::log::tests]");
        if whole.len() + ELLIPSIS.len_utf8() <= LINE_BYTES {
            assert_eq!(line, whole);
        } else {
            let (body, _) = line.split_once(ELLIPSIS).unwrap();
            assert!(whole.starts_with(body) && body.len() + 40 > LINE_BYTES, "{line}");
        }
    }
}

#[test]
fn a_level_that_does_not_exist_is_refused() {
    let (log, said) = kept();
    for level in [-1, 6] {
        assert_eq!(log.dispatch(level).unwrap_err().code, status::RING_INVALID);
    }
    for level in RING_LOG_ERROR..=RING_LOG_TRACE {
        lock(&said).clear();
        with_default(&log.dispatch(level).unwrap().unwrap(), || {
            tracing::trace!("5");
            tracing::debug!("4");
            tracing::info!("3");
            tracing::warn!("2");
            tracing::error!("1");
        });
        let levels: Vec<i32> = lock(&said).iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, (RING_LOG_ERROR..=level).rev().collect::<Vec<_>>());
    }
    assert!(Log::new(None, None).dispatch(0).unwrap().is_none());
}

/// Invariant 1, with a call under way on another thread.
#[test]
fn the_end_waits_for_a_call_under_way_and_nothing_follows_it() {
    let (entered, came) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let (in_call, freed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_in, is_freed) = (Arc::clone(&in_call), Arc::clone(&freed));
    let say: Say = Box::new(move |_, _| {
        is_in.store(true, Ordering::SeqCst);
        entered.send(()).unwrap();
        lock(&released).recv().unwrap();
        is_in.store(false, Ordering::SeqCst);
    });
    let free: Free = Box::new(move || {
        assert!(!in_call.load(Ordering::SeqCst), "a call is under way");
        assert!(!is_freed.swap(true, Ordering::SeqCst), "once");
    });
    let log = Log::new(Some(say), Some(free));
    let (dispatch, host) = (log.dispatch(0).unwrap().unwrap(), Arc::clone(&log.host));
    let other = dispatch.clone();
    let line = thread::spawn(move || with_default(&other, || tracing::info!("a line")));
    came.recv().unwrap();
    let end = thread::spawn(move || drop(log));
    while !lock(&host.calls).ended {
        thread::yield_now();
    }
    assert!(!freed.load(Ordering::SeqCst));
    with_default(&dispatch, || tracing::info!("too late")); // would wait for ever
    release.send(()).unwrap();
    line.join().unwrap();
    end.join().unwrap();
    assert!(freed.load(Ordering::SeqCst));
    assert!(came.try_recv().is_err());
}

#[test]
fn what_is_logged_inside_of_a_callback_is_dropped() {
    let said = Said::default();
    let keep = Arc::clone(&said);
    let say: Say = Box::new(move |level, line| {
        lock(&keep).push((level, line.to_owned()));
        tracing::info!("once more");
    });
    let log = Log::new(Some(say), None);
    with_default(&log.dispatch(0).unwrap().unwrap(), || {
        guard::callback(|| tracing::info!("inside"));
        tracing::info!("outside");
    });
    assert_eq!(*lock(&said), [(RING_LOG_INFO, String::from("outside [ring::log::tests]"))]);
}
