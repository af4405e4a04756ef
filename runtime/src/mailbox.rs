//! A queue into a thread: many push, one takes everything that waits at once.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use ring_core::ids::len_u64;

/// The queue. Its taker swaps the whole vector, so that a full queue costs it one lock.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    bytes: usize,
    nudged: bool,
    closed: bool,
}

/// A mailbox takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Why a mailbox did not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// So many bytes wait.
    Full {
        limit: u64,
    },
    Closed,
}

/// What a taker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The items that waited, which held so many bytes.
    Items(usize),
    /// Nothing came in time.
    Late,
    /// Nothing waits and nothing will come.
    Closed,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        let state = State { items: Vec::new(), bytes: 0, nudged: false, closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Puts something in.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Closed);
        }
        state.items.push(item);
        state.bytes += bytes;
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// As `push`, but wakes nobody: who pushes looks after the mailbox itself, or calls [`Mailbox::nudge`].
    pub(crate) fn push_quietly(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Closed);
        }
        state.items.push(item);
        state.bytes += bytes;
        Ok(())
    }

    /// Puts something in, unless so many bytes wait already. Wakes nobody, as `push_quietly`.
    pub(crate) fn push_quietly_if_room(
        &self,
        item: T,
        bytes: usize,
        most: usize,
    ) -> Result<(), PushError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.bytes >= most {
            return Err(PushError::Full { limit: len_u64(most) });
        }
        state.items.push(item);
        state.bytes += bytes;
        Ok(())
    }

    /// Puts all of them in, in order, and leaves `items` empty; drops them when the mailbox is
    /// closed.
    pub(crate) fn push_all(&self, items: &mut Vec<T>) {
        if items.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.closed {
            items.clear();
            return;
        }
        if state.items.is_empty() {
            std::mem::swap(&mut state.items, items);
        } else {
            state.items.append(items);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Wakes the taker for what was put in quietly.
    pub(crate) fn wake(&self) {
        self.ready.notify_one();
    }

    /// Lets the taker look, even if there is nothing to take.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.ready.notify_one();
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Moves everything that waits into `into`, which is empty. Waits until there is something, or
    /// until `until`, or until it is nudged: then there may be nothing.
    pub(crate) fn take(&self, into: &mut Vec<T>, until: Option<Instant>) -> Taken {
        let mut state = self.state.lock();
        loop {
            let nudged = std::mem::take(&mut state.nudged);
            let taken = state.take(into);
            match (taken, until) {
                (Taken::Items(_) | Taken::Closed, _) => return taken,
                (Taken::Late, _) if nudged => return Taken::Items(0),
                (Taken::Late, None) => self.ready.wait(&mut state),
                (Taken::Late, Some(until)) if Instant::now() >= until => return Taken::Late,
                (Taken::Late, Some(until)) => drop(self.ready.wait_until(&mut state, until)),
            }
        }
    }

    /// As `take`, without waiting: [`Taken::Late`] if there is nothing.
    pub(crate) fn take_now(&self, into: &mut Vec<T>) -> Taken {
        self.state.lock().take(into)
    }

    /// Waits until there is something to take, or until `until`, or until it is nudged or closed.
    pub(crate) fn wait(&self, until: Option<Instant>) {
        let mut state = self.state.lock();
        while !std::mem::take(&mut state.nudged) && state.items.is_empty() && !state.closed {
            match until {
                None => self.ready.wait(&mut state),
                Some(until) if Instant::now() >= until => return,
                Some(until) => drop(self.ready.wait_until(&mut state, until)),
            }
        }
    }

    /// True when there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Lets nothing more in. What waits is still taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }
}

impl<T> State<T> {
    fn take(&mut self, into: &mut Vec<T>) -> Taken {
        debug_assert!(into.is_empty(), "what was taken before has been worked off");
        if self.items.is_empty() {
            return if self.closed { Taken::Closed } else { Taken::Late };
        }
        std::mem::swap(&mut self.items, into);
        Taken::Items(std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn everything_that_waits_is_taken_at_once_and_in_order() {
        let mailbox = Mailbox::new();
        mailbox.push(1, 10).unwrap();
        mailbox.push(2, 5).unwrap();
        assert_eq!(mailbox.bytes(), 15);
        let mut taken = Vec::new();
        assert_eq!(mailbox.take(&mut taken, None), Taken::Items(15));
        assert_eq!(taken, [1, 2]);
        assert_eq!(mailbox.bytes(), 0);
    }

    #[test]
    fn a_taker_waits_no_longer_than_asked() {
        let mailbox = Mailbox::<u8>::new();
        let until = Instant::now() + Duration::from_millis(5);
        assert_eq!(mailbox.take(&mut Vec::new(), Some(until)), Taken::Late);
        assert!(Instant::now() >= until);
    }

    #[test]
    fn a_nudge_is_told_once() {
        let mailbox = Mailbox::<u8>::new();
        mailbox.nudge();
        assert_eq!(mailbox.take(&mut Vec::new(), None), Taken::Items(0));
        assert_eq!(mailbox.take(&mut Vec::new(), Some(Instant::now())), Taken::Late);
        mailbox.close();
        mailbox.nudge();
        assert_eq!(mailbox.take(&mut Vec::new(), None), Taken::Closed);
    }

    /// What was put in quietly is found by who looks, and keeps nobody asleep who is about to wait.
    #[test]
    fn what_comes_quietly_is_there() {
        let mailbox = Mailbox::new();
        let mut taken = Vec::new();
        assert_eq!(mailbox.take_now(&mut taken), Taken::Late);
        mailbox.push_quietly(1, 3).unwrap();
        assert!(!mailbox.is_empty());
        mailbox.wait(None);
        assert_eq!(mailbox.take_now(&mut taken), Taken::Items(3));
        assert_eq!(taken, [1]);
        mailbox.nudge();
        mailbox.wait(None);
        let until = Instant::now() + Duration::from_millis(5);
        mailbox.wait(Some(until));
        assert!(Instant::now() >= until, "a nudge is told once");
        mailbox.close();
        mailbox.wait(None);
        taken.clear();
        assert_eq!(mailbox.take_now(&mut taken), Taken::Closed);
        assert_eq!(mailbox.push_quietly(2, 0), Err(Closed));
    }

    #[test]
    fn a_full_mailbox_takes_nothing_that_can_be_refused() {
        let mailbox = Mailbox::new();
        mailbox.push_quietly_if_room(1, 10, 10).unwrap();
        assert_eq!(mailbox.push_quietly_if_room(2, 0, 10), Err(PushError::Full { limit: 10 }));
        mailbox.push(3, 0).unwrap();
        mailbox.close();
        assert_eq!(mailbox.push_quietly_if_room(4, 0, 100), Err(PushError::Closed));
    }

    #[test]
    fn a_closed_mailbox_gives_out_what_it_has_and_takes_nothing() {
        let mailbox = Mailbox::new();
        mailbox.push(1, 0).unwrap();
        mailbox.close();
        assert_eq!(mailbox.push(2, 0), Err(Closed));
        let mut taken = Vec::new();
        assert_eq!(mailbox.take(&mut taken, None), Taken::Items(0));
        taken.clear();
        assert_eq!(mailbox.take(&mut taken, None), Taken::Closed);
    }
}
