//! Two threads a store: one writes frozen maps out, one merges tables. They are two so that a merge of many tables
//! does not hold up a map, and writers behind it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use ring_core::store::{StoreError, SyncNumber};

use super::levels::Levels;
use super::tables::{Recent, Tables};
use crate::shared::panic_text;

/// What a store and its threads share.
pub(super) struct Flusher {
    tables: Arc<Tables>,
    state: Mutex<State>,
    /// Something of the state has changed.
    changed: Condvar,
    /// Told when a sync is done or something failed.
    wake: Wake,
}

/// Whom a store tells that it should be asked what is synced.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

struct State {
    levels: Arc<Levels>,
    /// Maps that were frozen so far, and those of them that are in tables.
    frozen: SyncNumber,
    flushed: SyncNumber,
    /// Runs were added since the last merge.
    unmerged: bool,
    failed: Option<StoreError>,
    stopping: bool,
}

impl Flusher {
    pub(super) fn new(tables: Tables, wake: Wake) -> Self {
        let tables = Arc::new(tables);
        let levels = Arc::new(Levels::new(Vec::new(), Arc::clone(&tables)));
        let state = State {
            levels,
            frozen: SyncNumber(0),
            flushed: SyncNumber(0),
            unmerged: true,
            failed: None,
            stopping: false,
        };
        Self { tables, state: Mutex::new(state), changed: Condvar::new(), wake }
    }

    /// Everything below the recent writes.
    pub(super) fn levels(&self) -> Arc<Levels> {
        Arc::clone(&self.state.lock().levels)
    }

    /// Takes a map over, to write it out. Waits while `most` or more wait for that.
    pub(super) fn freeze(&self, map: Recent, most: usize) -> Result<SyncNumber, StoreError> {
        let mut state = self.state.lock();
        while state.levels.frozen.len() >= most && state.failed.is_none() {
            self.changed.wait(&mut state);
        }
        state.check()?;
        let mut frozen = state.levels.frozen.clone();
        frozen.push(Arc::new(map));
        state.levels = Arc::new(Levels::new(frozen, Arc::clone(&self.tables)));
        state.frozen.0 += 1;
        self.changed.notify_all();
        Ok(state.frozen)
    }

    /// How many maps were frozen so far.
    pub(super) fn frozen(&self) -> SyncNumber {
        self.state.lock().frozen
    }

    /// How many of them are durable.
    pub(super) fn flushed(&self) -> Result<SyncNumber, StoreError> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.flushed)
    }

    /// Waits until so many are durable.
    pub(super) fn wait(&self, number: SyncNumber) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        while state.flushed < number && state.failed.is_none() {
            self.changed.wait(&mut state);
        }
        state.check()
    }

    /// Ends the threads. A map that is being written out is finished; others are not begun.
    pub(super) fn stop(&self) {
        self.tables.stop_merging();
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Writes frozen maps out, until it is stopped.
    pub(super) fn flush_all(&self) {
        self.guard(|| {
            while let Some(map) = self.next_frozen() {
                self.tables.add(&map)?;
                let before = {
                    let mut state = self.state.lock();
                    let frozen = state.levels.frozen[1..].to_vec();
                    let levels = Arc::new(Levels::new(frozen, Arc::clone(&self.tables)));
                    state.flushed.0 += 1;
                    state.unmerged = true;
                    std::mem::replace(&mut state.levels, levels)
                };
                self.changed.notify_all();
                (self.wake)();
                drop((before, map)); // many keys, here and not on a thread that works
            }
            Ok(())
        });
    }

    /// Merges tables, until it is stopped.
    pub(super) fn merge_all(&self) {
        self.guard(|| {
            while self.wait_for_runs() {
                while self.tables.merge()? {
                    let mut state = self.state.lock();
                    let frozen = state.levels.frozen.clone();
                    // So that tables which were merged are no longer read, and go.
                    state.levels = Arc::new(Levels::new(frozen, Arc::clone(&self.tables)));
                    self.changed.notify_all();
                    if state.stopping {
                        return Ok(());
                    }
                    drop(state);
                    self.tables.remove_merged()?;
                }
            }
            Ok(())
        });
    }

    /// The oldest frozen map, when the tables have room for it; none: it was stopped.
    fn next_frozen(&self) -> Option<Arc<Recent>> {
        let mut state = self.state.lock();
        loop {
            if state.stopping || state.failed.is_some() {
                return None;
            }
            if let Some(first) = state.levels.frozen.first()
                && self.tables.unmerged() < UNMERGED_MAX
            {
                return Some(Arc::clone(first));
            }
            self.changed.wait(&mut state);
        }
    }

    /// Waits until runs were added; false: it was stopped.
    fn wait_for_runs(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stopping || state.failed.is_some() {
                return false;
            }
            if std::mem::take(&mut state.unmerged) {
                return true;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Does a thread's work, and notes when it fails.
    fn guard(&self, work: impl FnOnce() -> Result<(), StoreError>) {
        let problem = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(panic) => StoreError(format!("a defect: {}", panic_text(&*panic))),
        };
        self.state.lock().failed.get_or_insert(problem);
        self.changed.notify_all();
        (self.wake)();
    }
}

impl State {
    /// What failed once has failed for good.
    fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(problem) => Err(problem.clone()),
            None => Ok(()),
        }
    }
}

/// With so many sorted runs unmerged no further one is written: reads go through all of them.
const UNMERGED_MAX: usize = 24;
