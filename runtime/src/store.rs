//! The store on disk, and the thread that works on a store.
//!
//! What was written lately is in memory, in an ordered map ([`ring_core::store::Map`]). When the map has grown, or a
//! sync is asked for, it is frozen as it is between two batches, and a thread of the store's own writes it out as
//! one sorted run: to tables that are synced, then listed in a new version of the list of tables, which takes the
//! old one's place. So what a crash leaves is always the state between two batches: all batches of the maps that
//! were listed. There is no journal: what was not written out is applied again, from the member's own log. Keys that
//! are written over again and again are copied in memory from time to time and never flushed before a sync.
//!
//! | file | what it does |
//! |---|---|
//! | `disk` | [`DiskStore`]: the store and its snapshots |
//! | `levels` | what a reader goes through: frozen maps, then tables; the merged scan |
//! | `flusher` | the threads that write frozen maps out and merge tables |
//! | `tables` | the tables (the crate `lsm-tree`), the format's marker, what went wrong and in which file |
//! | `long` | keys that are too long for a table |
//!
//! # Limits
//! - A snapshot keeps what was in memory when it was taken, also after that was written out. Snapshots that were
//!   taken between two flushes share it; so scans that are begun and left alone hold as many times what memory may
//!   hold as there were flushes until they are closed.
//! - All keys that are longer than [`long::HEAD`] bytes and begin with the same bytes are one entry of a table.

mod disk;
mod flusher;
mod levels;
mod long;
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ring_core::io::Input;
use ring_core::shard::Worker;
use ring_core::store::{Store, StoreDone, StoreTask};

use crate::mailbox::{Closed, Mailbox, Taken};
use crate::shared::{Item, Shared, panic_text};

pub(crate) use disk::DiskStore;

/// Works until the mailbox is closed and empty, or the store has failed. Nothing is done once the
/// node is sealed.
pub(crate) fn run<S: Store>(
    mut worker: Worker<S>,
    place: &Path,
    tasks: &Mailbox<StoreTask>,
    shared: &Shared,
) {
    let worked = catch_unwind(AssertUnwindSafe(|| {
        let mut taken = Vec::new();
        loop {
            let closed = tasks.take(&mut taken, None) == Taken::Closed;
            if shared.is_sealed() {
                return;
            }
            let mut done = Vec::new();
            if closed {
                worker.finish(&mut done);
            } else {
                worker.run(taken.drain(..), &mut done);
            }
            if !answer(done, place, shared) || closed {
                return;
            }
        }
    }));
    if let Err(panic) = worked {
        let problem = format!("a defect of libring: {}", panic_text(&*panic));
        tracing::error!(problem, "the store failed");
        shared.tell(Input::Store(StoreDone::Failed { problem }));
    }
}

/// Hands the answers over; false: the store has failed.
fn answer(mut done: Vec<StoreDone>, place: &Path, shared: &Shared) -> bool {
    let mut well = true;
    for done in &mut done {
        if let StoreDone::Failed { problem } = done {
            *problem = format!("{}: {problem}", place.display());
            tracing::error!(problem, "the store failed");
            well = false;
        }
    }
    if !done.is_empty() {
        // The node may have ended meanwhile.
        let _: Result<(), Closed> = shared.put_here(Item::Store(done), 0);
    }
    well
}

#[cfg(test)]
mod tests;
