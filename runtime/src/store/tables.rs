//! The tables: sorted runs on disk, merged in levels by the crate `lsm-tree`, without its memtable.
//!
//! A *point* is a state of the tables that stays readable while it is pinned; the crate calls it a sequence number.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::iter::Peekable;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use lsm_tree::config::{
    BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
};
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Checksum, CompressionType, Config, DescriptorTable, Guard,
    InternalValue, SeqNo, SequenceNumberCounter, Table, UserKey, ValueType,
};
use parking_lot::Mutex;
use ring_core::store::{Map, Range, StoreError};

use super::long;
use crate::directory::sync_directory;
use crate::shared::panic_text;

/// Recent writes: keys with their values; none: removed.
pub(super) type Recent = Map<Option<Bytes>>;

/// The tables of a store.
pub(super) struct Tables {
    tree: AnyTree,
    dir: PathBuf,
    next: SequenceNumberCounter,
    visible: SequenceNumberCounter,
    /// How often each point is pinned.
    pins: Mutex<BTreeMap<SeqNo, usize>>,
    merging: Merging,
}

impl Tables {
    /// Makes an empty set of tables, durably.
    pub(super) fn make(dir: &Path) -> Result<(), StoreError> {
        let make = || -> Result<(), lsm_tree::Error> {
            fs::create_dir_all(dir)?;
            drop(config(dir, &Merging::default()).0.open()?);
            fs::write(dir.join(MARKER), MARKER_TEXT)?;
            fs::File::open(dir.join(MARKER))?.sync_all()?;
            sync_directory(dir)?;
            Ok(())
        };
        make().map_err(|e| StoreError(format!("cannot make it: {}", text(&e))))
    }

    /// Opens the tables.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        check_marker(dir)?;
        // The crate would take it for a new directory.
        if !dir.join(CURRENT).exists() {
            let gone = dir.join(CURRENT);
            return Err(StoreError(format!("{} is gone: restore it", gone.display())));
        }
        let settle = || -> io::Result<()> {
            // A process that was killed may have renamed a file and not yet synced the directory:
            // what is read now must not be lost in a power cut, nor what it replaced be removed
            // before.
            sync_directory(dir)?;
            sync_directory(&dir.join(TABLES))?;
            remove_leftovers(dir)
        };
        settle().map_err(|e| StoreError(e.to_string()))?;
        let merging = Merging::default();
        let (config, next, visible) = config(dir, &merging);
        let tree = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(tree)) => tree,
            Ok(Err(e)) => return Err(why_not_opened(dir, &text(&e))),
            Err(panic) => return Err(why_not_opened(dir, panic_text(&*panic))),
        };
        let after = tree.get_highest_persisted_seqno().map_or(1, |highest| highest + 1);
        next.set(after);
        visible.set(after);
        Ok(Self { tree, dir: dir.into(), next, visible, pins: Mutex::default(), merging })
    }

    /// The present point. It must be unpinned.
    pub(super) fn pin(&self) -> SeqNo {
        let mut pins = self.pins.lock();
        let point = self.visible.get();
        *pins.entry(point).or_default() += 1;
        point
    }

    /// Gives up a point.
    pub(super) fn unpin(&self, point: SeqNo) {
        let mut pins = self.pins.lock();
        if let Some(count) = pins.get_mut(&point) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&point);
            }
        }
    }

    /// Every point from here on may still be read.
    fn oldest_pinned(&self) -> SeqNo {
        let pins = self.pins.lock();
        pins.first_key_value().map_or_else(|| self.visible.get(), |(point, _)| *point)
    }

    /// The value of a key.
    pub(super) fn get(&self, point: SeqNo, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let entry = long::head(key).unwrap_or(key);
        let found = self.tree.get(entry, point).map_err(|e| self.why_not_read(&e, entry, None))?;
        let Some(found) = found.map(Bytes::from) else {
            return Ok(None);
        };
        if entry.len() == long::HEAD {
            let bundle = self.open_bundle(entry, &found)?;
            return Ok(bundle.get(&key[entry.len()..]).cloned());
        }
        Ok(Some(found))
    }

    /// The keys in `from..to`, rising or falling. `from` is less than `to`.
    pub(super) fn scan<'a>(
        &'a self,
        point: SeqNo,
        from: &'a [u8],
        to: &'a [u8],
        reverse: bool,
    ) -> Scan<'a> {
        // A bundle sorts like the least key that it may hold.
        let first = long::head(from).unwrap_or(from);
        let last = match long::head(to) {
            Some(head) if head.len() < to.len() => Bound::Included(head),
            Some(_) | None => Bound::Excluded(to),
        };
        let entries = self.tree.range::<&[u8], _>((Bound::Included(first), last), point, None);
        let entries: Entries = if reverse {
            Box::new(entries.rev().map(Guard::into_inner))
        } else {
            Box::new(entries.map(Guard::into_inner))
        };
        Scan { tables: self, entries, bundle: Vec::new(), from, to, reverse }
    }

    /// Adds a sorted run, durably.
    pub(super) fn add(&self, run: &Recent) -> Result<(), StoreError> {
        let add = || self.list(&self.write(run)?);
        add().map_err(|e| StoreError(format!("cannot flush: {}", text(&e))))
    }

    /// Writes a sorted run to tables, which count for nothing yet.
    fn write(&self, run: &Recent) -> Result<Vec<Table>, lsm_tree::Error> {
        let before = self.pin();
        let point = self.next.next();
        let run = Run { tables: self, pairs: run.iter().peekable(), before, point };
        let tables = self.tree.flush_to_tables(run);
        self.unpin(before);
        Ok(tables?.map(|(tables, _)| tables).unwrap_or_default())
    }

    /// Makes tables count.
    fn list(&self, tables: &[Table]) -> Result<(), lsm_tree::Error> {
        self.tree.register_tables(tables, None, None, &[], self.oldest_pinned())
    }

    /// Merges some tables, if there is something to merge; then there may be more.
    pub(super) fn merge(&self) -> Result<bool, StoreError> {
        let before = self.visible.get();
        let merged = self.tree.compact(Arc::new(strategy()), self.oldest_pinned());
        match merged {
            Ok(()) => Ok(self.visible.get() != before),
            Err(_) if self.merging.stop.load(Ordering::Relaxed) => Ok(false),
            Err(e) => {
                let StoreError(why) = self.why_not_read(&e, &[], Some(&[]));
                Err(StoreError(format!("cannot merge tables: {why}")))
            }
        }
    }

    /// Removes the files of tables that were merged and that nobody reads any more.
    pub(super) fn remove_merged(&self) -> Result<(), StoreError> {
        let mut versions = self.tree.get_version_history_lock();
        let removed = versions.maintenance(&self.dir, self.oldest_pinned());
        removed.map_err(|e| StoreError(format!("cannot remove merged tables: {}", text(&e))))
    }

    /// Ends a merge that is under way, and those to come.
    pub(super) fn stop_merging(&self) {
        self.merging.stop.store(true, Ordering::Relaxed);
    }

    /// How many sorted runs wait to be merged.
    pub(super) fn unmerged(&self) -> usize {
        self.tree.l0_run_count()
    }

    fn open_bundle(&self, head: &[u8], bundle: &Bytes) -> Result<Map<Bytes>, StoreError> {
        let begin = &head[..head.len().min(64)];
        let problem =
            || format!("{}: the long keys at {begin:02x?} are damaged", self.dir.display());
        long::open(bundle).ok_or_else(|| StoreError(problem()))
    }

    /// What to say about a read that failed: between these keys, or at the first. The crate does not
    /// tell which file was damaged, so all that may be are read once more, for a while.
    fn why_not_read(&self, error: &lsm_tree::Error, from: &[u8], to: Option<&[u8]>) -> StoreError {
        let problem = text(error);
        let until = Instant::now() + BLAME_TIME;
        let from = Bound::Included(UserKey::from(from));
        let to = match to {
            None => from.clone(),
            Some([]) => Bound::Unbounded,
            Some(to) => Bound::Excluded(UserKey::from(to)),
        };
        let version = self.tree.current_version();
        let is_bad = |table: &&Table| {
            let mut entries = table.range((from.clone(), to.clone()));
            catch_unwind(AssertUnwindSafe(|| {
                entries.any(|entry| entry.is_err() || Instant::now() > until)
            }))
            .map_or(true, |bad| bad && Instant::now() <= until)
        };
        match version.iter_tables().find(is_bad) {
            Some(table) => {
                let file = self.dir.join(TABLES).join(table.id().to_string());
                StoreError(format!("{}: {problem}", file.display()))
            }
            None => StoreError(format!("{}: {problem}", self.dir.join(TABLES).display())),
        }
    }
}

type Entry = Result<(UserKey, lsm_tree::UserValue), lsm_tree::Error>;
type Entries = Box<dyn Iterator<Item = Entry>>;

/// What [`Tables::scan`] shows.
pub(super) struct Scan<'a> {
    tables: &'a Tables,
    entries: Entries,
    /// What is left of a bundle, the next one last.
    bundle: Vec<(Bytes, Bytes)>,
    from: &'a [u8],
    to: &'a [u8],
    reverse: bool,
}

impl Scan<'_> {
    fn unpack(&mut self, head: &[u8], bundle: &Bytes) -> Result<(), StoreError> {
        let map = self.tables.open_bundle(head, bundle)?;
        let pairs = map.iter().map(|(rest, value)| ([head, rest].concat().into(), value.clone()));
        let is_in = |pair: &(Bytes, Bytes)| *self.from <= pair.0[..] && pair.0[..] < *self.to;
        self.bundle = pairs.filter(is_in).collect();
        if !self.reverse {
            self.bundle.reverse();
        }
        Ok(())
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pair) = self.bundle.pop() {
                return Some(Ok(pair));
            }
            let (key, value) = match self.entries.next()? {
                Ok((key, value)) => (Bytes::from(key), Bytes::from(value)),
                Err(e) => {
                    let from = long::head(self.from).unwrap_or(self.from);
                    let to = long::head(self.to).unwrap_or(self.to);
                    return Some(Err(self.tables.why_not_read(&e, from, Some(to))));
                }
            };
            if key.len() != long::HEAD {
                return Some(Ok((key, value)));
            }
            if let Err(e) = self.unpack(&key, &value) {
                return Some(Err(e));
            }
        }
    }
}

/// A frozen map on its way into tables.
struct Run<'a> {
    tables: &'a Tables,
    pairs: Peekable<Range<'a, Option<Bytes>>>,
    /// The point before it, to which it adds: pinned...
    before: SeqNo,
    /// ... and its own.
    point: SeqNo,
}

impl Run<'_> {
    /// A bundle with what this run changes in it.
    fn bundle(&mut self, head: &[u8]) -> Result<InternalValue, StoreError> {
        let mut map = match self.tables.tree.get(head, self.before) {
            Ok(Some(bundle)) => self.tables.open_bundle(head, &bundle.into())?,
            Ok(None) => Map::new(),
            Err(e) => return Err(self.tables.why_not_read(&e, head, None)),
        };
        while let Some((key, value)) = self.pairs.next_if(|(key, _)| key.starts_with(head)) {
            let rest = key.slice(head.len()..);
            match value {
                Some(value) => map.insert(rest, value.clone()),
                None => map.remove(&rest),
            };
        }
        Ok(entry(Bytes::copy_from_slice(head), long::close(&map), self.point))
    }
}

impl Iterator for Run<'_> {
    type Item = Result<InternalValue, lsm_tree::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.pairs.peek()?;
        match long::head(key) {
            Some(head) => {
                let head = head.to_vec();
                let bundle = self.bundle(&head);
                Some(bundle.map_err(|StoreError(why)| io::Error::other(why).into()))
            }
            None => {
                let entry = entry((*key).clone(), (*value).clone(), self.point);
                self.pairs.next();
                Some(Ok(entry))
            }
        }
    }
}

fn entry(key: Bytes, value: Option<Bytes>, point: SeqNo) -> InternalValue {
    match value {
        Some(value) => InternalValue::from_components(key, value, point, ValueType::Value),
        None => InternalValue::new_tombstone(key, point),
    }
}

/// Lets a merge be ended between two entries: one of many tables takes long, and whoever closes a member waits for it.
#[derive(Clone, Debug, Default)]
struct Merging {
    stop: Arc<AtomicBool>,
}

impl Factory for Merging {
    fn name(&self) -> &'static str {
        "stop"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(self.clone())
    }
}

impl CompactionFilter for Merging {
    fn filter_item(&mut self, _: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        Ok(Verdict::Keep)
    }
}

fn config(dir: &Path, merging: &Merging) -> (Config, SequenceNumberCounter, SequenceNumberCounter) {
    let (next, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
    let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0));
    let config = Config::new(dir, next.clone(), visible.clone())
        .use_cache(Arc::new(Cache::with_capacity_bytes(CACHE_BYTES)))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(FILES))))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .index_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .filter_policy(FilterPolicy::all(bloom))
        .with_compaction_filter_factory(Some(Arc::new(merging.clone())));
    (config, next, visible)
}

fn strategy() -> Leveled {
    Leveled::default().with_l0_threshold(L0_RUNS).with_table_target_size(TABLE_BYTES)
}

/// What an error of the crate says.
fn text(error: &lsm_tree::Error) -> String {
    if let lsm_tree::Error::Io(e) = error {
        e.to_string()
    } else {
        format!("it is damaged: {error:?}")
    }
}

fn check_marker(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(MARKER);
    let found = match fs::read(&path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError(format!(
                "{} is missing: this is no store, or one of a format before 2, which this libring \
                 does not read",
                path.display()
            )));
        }
        Err(e) => return Err(StoreError(format!("{}: {e}", path.display()))),
    };
    if found == MARKER_TEXT.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&found[..found.len().min(80)]).into_owned();
    let (found, wanted) = (found.trim(), MARKER_TEXT.trim());
    Err(StoreError(format!("{} says {found:?}; this libring reads {wanted:?}", path.display())))
}

/// The crate writes small files aside and renames them; those that a crash left have names of chance.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".tmp") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What to say about tables that could not be opened: the crate does not tell which file is damaged, so each is
/// opened alone.
fn why_not_opened(dir: &Path, problem: &str) -> StoreError {
    let mut tables: Vec<PathBuf> = fs::read_dir(dir.join(TABLES))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    // By number: the last ones may be half written and count for nothing.
    tables.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let is_bad = |path: &&PathBuf| {
        let cache = Arc::new(Cache::with_capacity_bytes(CACHE_BYTES));
        let open = || {
            let sum = Checksum::from_raw(0); // of the whole file; nobody compares it
            Table::recover((*path).clone(), sum, 0, 0, cache, None, true, true)
        };
        !matches!(catch_unwind(AssertUnwindSafe(open)), Ok(Ok(_)))
    };
    StoreError(match tables.iter().find(is_bad) {
        Some(table) => format!("{}: {problem}", table.display()),
        None => format!(
            "{}: {problem}: the list of tables (`current` and the file `v…` that it names) is \
             damaged, or a table is gone",
            dir.display()
        ),
    })
}

const MARKER: &str = "FORMAT";
const MARKER_TEXT: &str = "libring store, format 2\n";
/// Names of the crate's.
const CURRENT: &str = "current";
const TABLES: &str = "tables";

const CACHE_BYTES: u64 = 4 << 20;
const FILES: usize = 256;
/// So many sorted runs are merged into the levels at once.
const L0_RUNS: u8 = 8;
const TABLE_BYTES: u64 = 16 << 20;
/// How long is looked for a damaged file.
const BLAME_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
