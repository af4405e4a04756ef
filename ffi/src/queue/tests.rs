use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn event(tag: u64) -> Event {
    Event { tag, ..Event::default() }
}

fn tags(queue: &Queue, most: usize) -> Vec<u64> {
    let mut tags = Vec::new();
    let drained = queue.drain(|event| {
        if tags.len() == most {
            return Take::Full;
        }
        tags.push(event.tag);
        Take::Took
    });
    assert_eq!(drained.map(|n| n.try_into()), Ok(Ok(tags.len())));
    tags
}

#[test]
fn events_come_out_in_the_order_in_which_they_went_in() {
    let queue = Queue::new(None).expect("descriptors are left");
    queue.push_all((0..5).map(event));
    assert_eq!(tags(&queue, 2), [0, 1]);
    queue.push(event(5));
    assert_eq!(tags(&queue, 9), [2, 3, 4, 5]);
    assert_eq!(tags(&queue, 9), [0; 0]);
}

#[test]
fn a_wait_ends_with_an_event_a_wakeup_or_its_time() {
    let queue = Queue::new(None).expect("descriptors are left");
    let code = |waited: Result<(), Fault>| waited.map_or_else(|fault| fault.code, |()| 0);
    assert_eq!(code(queue.wait(Some(Duration::from_millis(1)))), status::RING_TIMEOUT);
    queue.wakeup();
    assert_eq!(code(queue.wait(None)), status::RING_AGAIN);
    queue.push(event(1));
    assert_eq!(code(queue.wait(None)), 0);
    assert_eq!(tags(&queue, 0), [0; 0]);
    assert_eq!(code(queue.wait(None)), 0, "it still waits");
    assert_eq!(tags(&queue, 1), [1]);
    assert_eq!(code(queue.wait(Some(Duration::ZERO))), status::RING_TIMEOUT);
    queue.free();
    assert_eq!(code(queue.wait(None)), status::RING_CLOSED);
}

#[test]
fn the_host_is_woken_once_for_all_that_waits() {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let wake: Wake = Box::new(move || {
        assert!(guard::in_callback());
        count.fetch_add(1, Ordering::Relaxed);
    });
    let queue = Queue::new(Some(wake)).expect("descriptors are left");
    queue.push(event(1));
    queue.push(event(2));
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(tags(&queue, 9), [1, 2]);
    queue.push(event(3));
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    queue.free();
    queue.push(event(4));
    assert_eq!(woken.load(Ordering::Relaxed), 2, "not after free");
}

#[test]
fn a_second_drainer_is_refused() {
    let queue = Queue::new(None).expect("descriptors are left");
    queue.push(event(1));
    let mut second = None;
    let first = queue.drain(|_| {
        second = Some(queue.drain(|_| Take::Took).map_err(|fault| fault.code));
        Take::Took
    });
    assert_eq!(first, Ok(1));
    assert_eq!(second, Some(Err(status::RING_MISUSE)));
}

/// Tells `text` until `over` is set, and counts how often it was shown.
#[derive(Default)]
struct Lazy {
    over: std::sync::atomic::AtomicBool,
    shown: AtomicUsize,
}

impl Source for Lazy {
    fn fill(&self, event: &mut Event) -> bool {
        event.data = Bytes::from_static(b"text");
        !self.over.load(Ordering::Relaxed)
    }

    fn on_shown(&self) {
        self.shown.fetch_add(1, Ordering::Relaxed);
    }
}

/// Also one that was completed, did not fit, and is over before the next drain.
#[test]
fn an_event_whose_source_is_over_is_not_seen() {
    let queue = Queue::new(None).expect("descriptors are left");
    let lazy = [(); 3].map(|()| Arc::<Lazy>::default());
    for (tag, lazy) in (0..).zip(&lazy) {
        let source: Arc<dyn Source> = Arc::<Lazy>::clone(lazy);
        queue.push(Event { tag, source: Some(source), ..Event::default() });
    }
    assert_eq!(tags(&queue, 1), [0]);
    lazy[1].over.store(true, Ordering::Relaxed);
    assert_eq!(tags(&queue, 9), [2]);
    assert_eq!(lazy.map(|lazy| lazy.shown.load(Ordering::Relaxed)), [1, 0, 1]);
}

#[test]
fn users_are_told_once_that_a_queue_is_freed() {
    struct Counter(AtomicUsize);
    impl User for Counter {
        fn on_queue_freed(self: Arc<Self>, _queue: &Queue) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let queue = Queue::new(None).expect("descriptors are left");
    let (stays, goes) =
        (Arc::new(Counter(AtomicUsize::new(0))), Arc::new(Counter(AtomicUsize::new(0))));
    for user in [&stays, &goes, &stays] {
        let weak: Weak<Counter> = Arc::downgrade(user);
        let weak: Weak<dyn User> = weak;
        queue.join(&weak);
    }
    drop(goes);
    queue.free();
    assert_eq!(stays.0.load(Ordering::Relaxed), 1);
}
