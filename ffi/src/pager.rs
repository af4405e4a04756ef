//! Scans and watches under way: their pages are asked for one by one, each when the one before was drained.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use libring::{Action, Error, Reply, RequestId};

use crate::fault::Fault;
use crate::handle::Handle;
use crate::queue::{Added, Event, Queue, Taken};
use crate::scan::{Paging, failed};
use crate::status;
use crate::sync::lock;

/// A scan or a watch under way.
pub(crate) struct Pager {
    /// Weak: it lies in queues, which may outlive the node.
    handle: Weak<Handle>,
    pub(crate) queue: Arc<Queue>,
    tag: u64,
    id: u64,
    partition: Box<str>,
    timeout: Option<Duration>,
    /// None when it has ended.
    pages: Mutex<Option<Paging>>,
}

impl Pager {
    pub(crate) fn begin(
        handle: &Arc<Handle>,
        queue: Arc<Queue>,
        (tag, partition, timeout): (u64, &str, Option<Duration>),
        pages: Paging,
    ) -> Result<u64, Fault> {
        let id = handle.own.new_op(0);
        let pager = Arc::new(Self {
            handle: Arc::downgrade(handle),
            queue,
            tag,
            id,
            partition: partition.into(),
            timeout,
            pages: Mutex::new(Some(pages)),
        });
        lock(&handle.own.pagers).insert(id, Arc::clone(&pager));
        let begun = pager.ask(handle);
        // Unless it was cancelled meanwhile: then its end is told, and it did begin.
        if let Err(fault) = begun
            && lock(&pager.pages).take().is_some()
        {
            lock(&handle.own.pagers).remove(&id);
            return Err(fault);
        }
        if handle.closing.load(Ordering::SeqCst) {
            pager.cancel(handle); // the closer may have looked before this one was there
        }
        Ok(id)
    }

    fn ask(self: &Arc<Self>, handle: &Handle) -> Result<(), Fault> {
        let action = lock(&self.pages).as_ref().map(Paging::ask);
        let Some(action) = action else {
            return Ok(()); // It was cancelled.
        };
        let this = Arc::clone(self);
        let told = move |_, answer| {
            if let Some(handle) = this.handle.upgrade() {
                this.on_answer(&handle, answer);
            }
        };
        let begun = handle.node.submit(&self.partition, action, self.timeout, told);
        begun.map(drop).map_err(|error| handle.fault(error))
    }

    /// Never unwinds: the thread is the node's.
    fn on_answer(self: &Arc<Self>, handle: &Handle, answer: Result<Reply, Error>) {
        let work = || self.take_page(handle, answer);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let event = handle.event_of_panic(self.tag, self.id, panic);
            if lock(&self.pages).take().is_some() {
                self.end(handle, event);
            }
        }
    }

    fn take_page(self: &Arc<Self>, handle: &Handle, answer: Result<Reply, Error>) {
        let mut events = Vec::new();
        let mut state = lock(&self.pages);
        let Some(pages) = state.as_mut() else {
            drop(state);
            // Cancelled meanwhile: what it opened is closed.
            if let Ok(Reply::Page { cursor: Some(cursor), .. }) = answer {
                self.let_go(handle, Action::ScanClose { cursor });
            }
            return;
        };
        let answer = match answer {
            Err(error) if !matches!(error, Error::Failed(libring::Failure::Interrupted)) => {
                let event = pages.ended(failed(self.tag, self.id, &handle.fault(error)));
                state.take();
                drop(state);
                self.end(handle, event);
                return;
            }
            answer => answer,
        };
        let more = pages.on_answer(self.tag, self.id, answer, &mut events);
        if more {
            let Some(last) = events.last_mut() else {
                drop(state);
                Arc::clone(self).on_taken();
                return;
            };
            let follower: Arc<dyn Taken> = Arc::<Self>::clone(self);
            last.then = Some(follower);
            // Under the lock: who cancels meanwhile must come behind these.
            let added = self.queue.add(events);
            drop(state);
            self.queue.announce(added);
            if added == Added::Dropped {
                self.cancel(handle);
            }
            return;
        }
        let close = pages.close();
        state.take();
        drop(state);
        if let Some(close) = close {
            self.let_go(handle, close);
        }
        self.queue.push_all(events);
        self.forget(handle);
    }

    /// True: this call ended it.
    pub(crate) fn cancel(&self, handle: &Handle) -> bool {
        let Some(mut pages) = lock(&self.pages).take() else {
            return false;
        };
        if let Some(close) = pages.close() {
            self.let_go(handle, close);
        }
        let fault = Fault::new(status::RING_CANCELLED, "cancelled");
        self.end(handle, pages.ended(failed(self.tag, self.id, &fault)));
        true
    }

    fn end(&self, handle: &Handle, event: Event) {
        self.queue.push(event);
        self.forget(handle);
    }

    fn forget(&self, handle: &Handle) {
        lock(&handle.own.pagers).remove(&self.id);
        handle.end_one();
    }

    fn let_go(&self, handle: &Handle, close: Action) {
        // Nobody waits for it: if it fails the snapshot goes when it has idled for long enough.
        let _: Result<RequestId, Error> =
            handle.node.submit(&self.partition, close, self.timeout, |_, _| {});
    }
}

impl Taken for Pager {
    fn on_taken(self: Arc<Self>) {
        let Some(handle) = self.handle.upgrade() else {
            return;
        };
        if let Err(fault) = self.ask(&handle) {
            let pages = lock(&self.pages).take();
            if let Some(pages) = pages {
                self.end(&handle, pages.ended(failed(self.tag, self.id, &fault)));
            }
        }
    }
}
