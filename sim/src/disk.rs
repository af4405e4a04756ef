//! The directory of one member on a simulated disk.
//!
//! What a process writes sits in the page cache until a sync makes it durable. A power cut keeps, loses or tears each
//! unsynced change on its own, in any order; changes of the directory likewise. A crash of the process alone
//! keeps everything that was written.
//!
//! Beyond that a disk may be lost, as far as the plan's budget goes: it rots, or a write has gone to a wrong place.
//!
//! Invariants:
//! 1. what a successful sync covered is never changed by a power cut;
//! 2. after a failed sync the changes it covered are either durable or for ever only in the cache: a later sync does
//!    not write them (as Linux does, since it marks the pages clean).

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use ring_core::ids::{GroupId, SegmentId, len_u64, len_usize};
use ring_core::rng::Rng;
use ring_core::storage::record::{Batch, Record};
use ring_core::storage::{decode_batch, parse_segment_name};

/// One directory with its files, durable and cached.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<FileId, File>,
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    renames: Vec<NameChange>,
    next_file: u64,
    changes: u64,
    last_synced: Option<(FileId, u64)>,
    faults: DiskFaults,
}

/// What is wrong with a disk at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// The next sync fails.
    pub sync_fails: bool,
    /// The next write fails, half done.
    pub write_fails: bool,
    /// There is no room: every write fails, half done.
    pub full: bool,
    /// Reads fail.
    pub reads_fail: bool,
}

/// A point between two changes: a sync begun there covers everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// An operation failed; the words are those a system would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// The file, or `.` for the directory.
    pub name: String,
    /// What happened.
    pub problem: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Readable, and lost with the power: a sync over them failed.
    stranded: Vec<Change>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    number: u64,
    kind: ChangeKind,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Write { offset: u64, data: Bytes },
    Truncate { len: u64 },
}

#[derive(Clone, Debug)]
struct NameChange {
    number: u64,
    name: String,
    to: Option<FileId>,
}

/// A batch and its place.
#[derive(Clone, Debug)]
struct Placed {
    name: String,
    id: FileId,
    offset: u64,
    len: u64,
    /// It speaks of groups, and no later batch speaks of those.
    is_last_word: bool,
}

/// How a power cut treats what is not synced: extremes are as likely as mixtures.
#[derive(Clone, Copy)]
enum Mood {
    LosesAll,
    KeepsAll,
    Mixed,
}

/// Sectors of this size are written whole or not at all.
const SECTOR: u64 = 512;

impl Disk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is wrong at the moment; set by the plan.
    pub fn faults(&mut self) -> &mut DiskFaults {
        &mut self.faults
    }

    /// The names of all files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The length of a file, or none.
    #[must_use]
    pub fn len(&self, name: &str) -> Option<u64> {
        let file = self.files.get(self.names.get(name)?)?;
        Some(len_u64(file.cached().len()))
    }

    /// True when it holds no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The content of a file as a process sees it.
    ///
    /// # Errors
    /// No such file, or reads fail.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        if self.faults.reads_fail {
            return Err(error(name, "read failed: I/O error"));
        }
        let id = self.names.get(name).ok_or(error(name, "no such file"))?;
        Ok(self.files[id].cached())
    }

    /// Makes an empty file.
    ///
    /// # Errors
    /// It exists, or there is no room.
    pub fn create(&mut self, name: &str) -> Result<(), DiskError> {
        if self.faults.full {
            return Err(error(name, "create failed: no space left on device"));
        }
        if self.names.contains_key(name) {
            return Err(error(name, "create failed: file exists"));
        }
        let id = FileId(self.next_file);
        self.next_file += 1;
        self.files.insert(id, File::default());
        self.names.insert(name.to_owned(), id);
        self.rename(name, Some(id));
        Ok(())
    }

    /// Writes at an offset; a gap before it reads as zeroes.
    ///
    /// # Errors
    /// No such file, no room, or the device fails; a part may have been written.
    pub fn write(&mut self, name: &str, offset: u64, data: Bytes) -> Result<(), DiskError> {
        let number = self.number();
        let failure = match (self.faults.full, self.faults.write_fails) {
            (true, _) => Some("write failed: no space left on device"),
            (false, true) => Some("write failed: I/O error"),
            (false, false) => None,
        };
        self.faults.write_fails = false;
        let file = self.file(name)?;
        let written = match failure {
            Some(_) => data.slice(..data.len() / 2),
            None => data,
        };
        let data = written;
        if !data.is_empty() {
            file.pending.push(Change { number, kind: ChangeKind::Write { offset, data } });
        }
        failure.map_or(Ok(()), |problem| Err(error(name, problem)))
    }

    /// Cuts a file to a length, or fills it with zeroes up to it.
    ///
    /// # Errors
    /// No such file.
    pub fn truncate(&mut self, name: &str, len: u64) -> Result<(), DiskError> {
        let number = self.number();
        let kind = ChangeKind::Truncate { len };
        self.file(name)?.pending.push(Change { number, kind });
        Ok(())
    }

    /// Removes a file's name. Its content lives while a durable name leads to it.
    ///
    /// # Errors
    /// No such file.
    pub fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.names.remove(name).ok_or(error(name, "no such file"))?;
        self.rename(name, None);
        Ok(())
    }

    /// A sync that begins now covers everything before this mark.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.changes)
    }

    /// A sync of one file ends that began at `mark`.
    ///
    /// # Errors
    /// The sync failed: what it covered may or may not be durable, and no later sync makes it so.
    pub fn sync_file(&mut self, name: &str, mark: Mark, rng: &mut Rng) -> Result<(), DiskError> {
        let fails = std::mem::take(&mut self.faults.sync_fails);
        let id = *self.names.get(name).ok_or(error(name, "no such file"))?;
        let file = self.file(name)?;
        let covered = file.pending.partition_point(|c| c.number <= mark.0);
        let mut last = None;
        for change in file.pending.drain(..covered) {
            if fails && rng.chance(1, 2) {
                file.stranded.push(change);
            } else {
                if let ChangeKind::Write { offset, .. } = &change.kind {
                    last = Some(*offset);
                }
                apply(&mut file.durable, &change.kind);
            }
        }
        if let Some(offset) = last {
            self.last_synced = Some((id, offset));
        }
        if fails {
            return Err(error(name, "sync failed: I/O error"));
        }
        Ok(())
    }

    /// A sync of the directory ends that began at `mark`.
    ///
    /// # Errors
    /// The sync failed: names may or may not be durable.
    pub fn sync_dir(&mut self, mark: Mark, rng: &mut Rng) -> Result<(), DiskError> {
        let fails = std::mem::take(&mut self.faults.sync_fails);
        let covered = self.renames.partition_point(|c| c.number <= mark.0);
        let renames: Vec<NameChange> = self.renames.drain(..covered).collect();
        for change in renames {
            if !(fails && rng.chance(1, 2)) {
                self.apply_name(change);
            }
        }
        self.drop_unnamed();
        if fails {
            return Err(error(".", "sync failed: I/O error"));
        }
        Ok(())
    }

    /// True when a failed sync has left something that only the cache shows. Whoever reads it now believes it
    /// durable; only a restart of the system shows the truth.
    #[must_use]
    pub fn deceives(&self) -> bool {
        let mut names = self.durable_names.clone();
        for change in &self.renames {
            match change.to {
                Some(id) => names.insert(change.name.clone(), id),
                None => names.remove(&change.name),
            };
        }
        names != self.names || self.files.values().any(|file| !file.stranded.is_empty())
    }

    /// The process died; the system lives. The last unsynced write may have been under way.
    pub fn crash(&mut self, rng: &mut Rng) {
        let last =
            self.files.values_mut().filter_map(|f| f.pending.last_mut()).max_by_key(|c| c.number);
        let Some(Change { kind: ChangeKind::Write { data, .. }, .. }) = last else {
            return;
        };
        if rng.chance(1, 4) {
            let kept = len_usize(rng.below(len_u64(data.len()) + 1));
            data.truncate(kept);
        }
    }

    /// The power failed: each unsynced change is kept, lost or torn.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let mood = match rng.below(4) {
            0 => Mood::LosesAll,
            1 => Mood::KeepsAll,
            _ => Mood::Mixed,
        };
        for change in std::mem::take(&mut self.renames) {
            let kept = match mood {
                Mood::LosesAll => false,
                Mood::KeepsAll => true,
                Mood::Mixed => rng.chance(1, 2),
            };
            if kept {
                self.apply_name(change);
            }
        }
        self.names = self.durable_names.clone();
        for file in self.files.values_mut() {
            file.stranded.clear();
            for change in std::mem::take(&mut file.pending) {
                match mood {
                    Mood::LosesAll => {}
                    Mood::KeepsAll => apply(&mut file.durable, &change.kind),
                    Mood::Mixed => apply_torn(&mut file.durable, change.kind, rng),
                }
            }
        }
        self.drop_unnamed();
    }

    /// Flips a bit of durable data of which a later batch of the log says that it was durable; rot of what no later
    /// batch speaks of looks like a torn end, and nothing is promised about it. Half of the time it hits the last
    /// file before the newest, which holds what the log ends with. Answers the file and the offset; none when there
    /// is no such data.
    pub fn rot(&mut self, rng: &mut Rng) -> Option<(String, u64)> {
        let mut lens = self.old_lens();
        if lens.len() > 1 && rng.chance(1, 2) {
            lens.pop();
            lens.drain(..lens.len() - 1);
        }
        let mut place = rng.below(lens.iter().map(|(_, _, len)| len).sum());
        for (name, id, len) in lens {
            if place < len {
                let file = self.files.get_mut(&id)?;
                let bit = 1_u8 << rng.below(8);
                *file.durable.get_mut(len_usize(place))? ^= bit;
                return Some((name, place));
            }
            place -= len;
        }
        None
    }

    /// A batch was written over an earlier one, of which a later batch says that it was durable: the last write
    /// before the power failed went to a wrong place. If batches of its length are there it takes the place of one
    /// of them, so that everything around still fits. Half of the time both are, if there are such, the last ones
    /// that speak of their groups, so that nothing later contradicts the loss. Answers the file and the offset; none
    /// when there are no such batches.
    pub fn misdirect(&mut self, rng: &mut Rng) -> Option<(String, u64)> {
        let batches = self.old_batches();
        let last: Vec<Placed> = batches.iter().filter(|b| b.is_last_word).cloned().collect();
        let quiet = if rng.chance(1, 2) { misplaced(&last, false, rng) } else { None };
        let (source, victim) = match quiet {
            Some(pair) => pair,
            None => misplaced(&batches, true, rng)?,
        };
        let content = &self.files[&source.id].durable;
        let start = len_usize(source.offset);
        let bytes = content[start..start + len_usize(source.len)].to_vec();
        put(&mut self.files.get_mut(&victim.id)?.durable, victim.offset, &bytes);
        Some((victim.name, victim.offset))
    }

    /// The batches of which a later batch says that they were durable, in the order in which they were written.
    fn old_batches(&self) -> Vec<Placed> {
        let mut batches: Vec<Placed> = Vec::new();
        let mut groups: Vec<Vec<GroupId>> = Vec::new();
        let mut last_words: BTreeMap<GroupId, (FileId, u64)> = BTreeMap::new();
        for (name, id, old_len) in self.old_lens() {
            let Some(segment) = parse_segment_name(&name) else { continue };
            let content = &self.files[&id].durable;
            let mut offset = 0;
            while let Ok(batch) = decode_batch(content, segment, offset) {
                let spoken_of = groups_of(&batch);
                last_words.extend(spoken_of.iter().map(|group| (*group, (id, offset))));
                if offset + batch.len <= old_len {
                    let (name, len) = (name.clone(), batch.len);
                    batches.push(Placed { name, id, offset, len, is_last_word: false });
                    groups.push(spoken_of);
                }
                offset += batch.len;
            }
        }
        for (batch, groups) in batches.iter_mut().zip(&groups) {
            let place = (batch.id, batch.offset);
            batch.is_last_word =
                !groups.is_empty() && groups.iter().all(|g| last_words[g] == place);
        }
        batches
    }

    /// The durable files, by name: how much of each was durable to the knowledge of what was written later.
    fn old_lens(&self) -> Vec<(String, FileId, u64)> {
        let last = self.last_synced;
        let old_len = |id: &FileId, file: &File| match last {
            Some((file_id, offset)) if file_id == *id => {
                let vouched = parse_segment_name(self.name_of(*id))
                    .map_or(u64::MAX, |segment| vouched_len(&file.durable, segment));
                offset.min(len_u64(file.durable.len())).min(vouched)
            }
            _ => len_u64(file.durable.len()),
        };
        let files = self.durable_names.iter();
        files.map(|(name, id)| (name.clone(), *id, old_len(id, &self.files[id]))).collect()
    }

    fn name_of(&self, id: FileId) -> &str {
        let named = self.durable_names.iter().find(|(_, named)| **named == id);
        named.map_or("", |(name, _)| name)
    }

    /// Everything is gone.
    pub fn wipe(&mut self) {
        *self = Self { next_file: self.next_file, changes: self.changes, ..Self::default() };
    }

    /// Puts an earlier state in place of this one, as from a backup: durable and whole.
    pub fn roll_back(&mut self, earlier: &Self, rng: &mut Rng) {
        *self = earlier.clone();
        self.faults = DiskFaults::default();
        let mark = self.mark();
        let names: Vec<String> = self.names().map(str::to_owned).collect();
        for name in names {
            self.sync_file(&name, mark, rng)
                .expect("no fault is set, and the name was just listed");
        }
        self.sync_dir(mark, rng).expect("no fault is set");
    }

    /// Bytes in all files that have a name.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.names.values().map(|id| len_u64(self.files[id].cached().len())).sum()
    }

    fn file(&mut self, name: &str) -> Result<&mut File, DiskError> {
        self.names
            .get(name)
            .and_then(|id| self.files.get_mut(id))
            .ok_or(error(name, "no such file"))
    }

    fn number(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    fn rename(&mut self, name: &str, to: Option<FileId>) {
        let number = self.number();
        self.renames.push(NameChange { number, name: name.to_owned(), to });
    }

    fn apply_name(&mut self, change: NameChange) {
        match change.to {
            Some(id) => self.durable_names.insert(change.name, id),
            None => self.durable_names.remove(&change.name),
        };
    }

    fn drop_unnamed(&mut self) {
        let named: std::collections::BTreeSet<FileId> = (self.names.values())
            .chain(self.durable_names.values())
            .chain(self.renames.iter().filter_map(|c| c.to.as_ref()))
            .copied()
            .collect();
        self.files.retain(|id, _| named.contains(id));
    }
}

impl File {
    fn cached(&self) -> Vec<u8> {
        let mut content = self.durable.clone();
        let mut changes: Vec<&Change> = self.stranded.iter().chain(&self.pending).collect();
        changes.sort_by_key(|c| c.number);
        for change in changes {
            apply(&mut content, &change.kind);
        }
        content
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

impl std::error::Error for DiskError {}

fn error(name: &str, problem: &'static str) -> DiskError {
    DiskError { name: name.to_owned(), problem }
}

fn apply(content: &mut Vec<u8>, change: &ChangeKind) {
    match change {
        ChangeKind::Write { offset, data } => put(content, *offset, data),
        ChangeKind::Truncate { len } => content.resize(len_usize(*len), 0),
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = len_usize(offset);
    if start == content.len() {
        content.extend_from_slice(data);
        return;
    }
    let end = start + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(data);
}

/// Applies what a power cut leaves of one change.
fn apply_torn(content: &mut Vec<u8>, change: ChangeKind, rng: &mut Rng) {
    let (offset, data) = match change {
        ChangeKind::Truncate { .. } => {
            if rng.chance(1, 2) {
                apply(content, &change);
            }
            return;
        }
        ChangeKind::Write { offset, data } => (offset, data),
    };
    let len = len_u64(data.len());
    match rng.below(5) {
        0 => {}
        1 => put(content, offset, &data),
        2 => {
            let kept = rng.below(len + 1);
            put(content, offset, &data[..len_usize(kept)]);
        }
        3 => {
            let end = (offset + rng.below(len + 1)) / SECTOR * SECTOR;
            let kept = end.saturating_sub(offset).min(len);
            put(content, offset, &data[..len_usize(kept)]);
        }
        _ => put_some_sectors(content, offset, &data, rng),
    }
}

/// Writes some of the sectors, in no order; lost ones inside the file's new length hold zeroes or, rarely, garbage.
fn put_some_sectors(content: &mut Vec<u8>, offset: u64, data: &[u8], rng: &mut Rng) {
    let garbage = rng.chance(1, 8);
    let old_len = len_u64(content.len());
    let end = offset + len_u64(data.len());
    let mut at = offset;
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        let part = &data[len_usize(at - offset)..len_usize(next - offset)];
        if rng.chance(1, 2) {
            put(content, at, part);
        } else if garbage && at >= old_len {
            let noise: Vec<u8> = part.iter().map(|_| rng.next().to_le_bytes()[0]).collect();
            put(content, at, &noise);
        }
        at = next;
    }
}

/// The groups that a batch says anything about.
fn groups_of(batch: &Batch) -> Vec<GroupId> {
    let mut groups = Vec::new();
    for record in &batch.records {
        groups.extend(record.group());
        if let Record::Checkpoint(checkpoint) = record {
            groups.extend(checkpoint.groups.iter().map(|says| says.group));
        }
    }
    groups
}

/// A batch and an earlier one in whose place it could stand: one of equal length, or, if that will do, a longer one.
fn misplaced(batches: &[Placed], longer: bool, rng: &mut Rng) -> Option<(Placed, Placed)> {
    let at = |rng: &mut Rng, count: usize| len_usize(rng.below(len_u64(count)));
    if batches.is_empty() {
        return None;
    }
    let (before, behind) = batches.split_at(at(rng, batches.len()));
    // Not every batch can take the place of another one.
    let (source, victims) = behind.iter().chain(before).find_map(|source| {
        let is_earlier = |b: &&Placed| (b.id, b.offset) < (source.id, source.offset);
        let (equal, others): (Vec<_>, Vec<_>) =
            batches.iter().filter(is_earlier).partition(|b| b.len == source.len);
        let mut victims = equal;
        if victims.is_empty() && longer {
            victims = others.into_iter().filter(|b| b.len > source.len).collect();
        }
        (!victims.is_empty()).then_some((source, victims))
    })?;
    Some((source.clone(), victims[at(rng, victims.len())].clone()))
}

/// How many of a segment's bytes its own last whole batch knew to be durable.
fn vouched_len(segment: &[u8], id: SegmentId) -> u64 {
    let mut batches = Vec::new();
    let mut offset = 0;
    while let Ok(batch) = decode_batch(segment, id, offset) {
        offset += batch.len;
        batches.push(batch);
    }
    let Some(durable) = batches.last().map(|last| last.durable) else { return 0 };
    batches.iter().filter(|batch| batch.seq <= durable).map(|batch| batch.len).sum()
}

#[cfg(test)]
mod tests;
