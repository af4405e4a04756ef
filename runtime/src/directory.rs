//! A member's data directory.
//!
//! | entry | what it is |
//! |---|---|
//! | `LIBRING` | one line that says what the directory is and which format it has |
//! | `LOCK` | locked by the member that works here; empty |
//! | `log/` | the segments of the member's own log |
//! | `store/` | the store; made aside as `store.new` and renamed, so that it is whole or absent |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ring_core::ids::{SegmentId, len_u64};
use ring_core::storage::{self, SegmentSource};

use crate::error::OpenError;

/// An open data directory. Locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Opens a directory, or makes one. Nothing is written into a directory that is not ours.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::directory(path, "create"))?;
        let path = path.canonicalize().map_err(OpenError::directory(path, "find"))?;
        let marked = path.join(MARKER).try_exists();
        let marked = marked.map_err(OpenError::directory(&path.join(MARKER), "look for"))?;
        if !marked && let Some(found) = foreign_entry(&path)? {
            return Err(OpenError::Foreign { dir: path, found });
        }
        let lock = take_lock(&path)?;
        // Under the lock, for two that start at once on an empty directory.
        if path.join(MARKER).exists() {
            check_marker(&path.join(MARKER))?;
        } else {
            sync_above(&path)?;
            write_marker(&path)?;
        }
        let log = path.join(LOG);
        fs::create_dir_all(&log).map_err(OpenError::directory(&log, "create"))?;
        sync_directory(&path).map_err(OpenError::directory(&path, "sync"))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Where the store is, or will be.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Makes a store with `make`, which fills and closes the directory that it is given, and puts
    /// it in its place.
    pub(crate) fn make_store(
        &self,
        make: impl FnOnce(&Path) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let (aside, place) = (self.path.join(STORE_ASIDE), self.store());
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(OpenError::directory(&aside, "remove"))?;
        }
        make(&aside)?;
        sync_directory(&aside).map_err(OpenError::directory(&aside, "sync"))?;
        fs::rename(&aside, &place).map_err(OpenError::directory(&place, "create"))?;
        sync_directory(&self.path).map_err(OpenError::directory(&self.path, "sync"))
    }
}

/// Makes the entries of a directory durable. A new or renamed file is not there after a power cut
/// without this.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the names of a directory and of all above it durable, which may be as new as the directory
/// itself: a power cut would take everything with them.
fn sync_above(path: &Path) -> Result<(), OpenError> {
    for above in path.ancestors().skip(1) {
        match sync_directory(above) {
            Ok(()) => {}
            // Not ours to read, or of a kind that has nothing to sync: not made by us either.
            Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => {
                break;
            }
            Err(e) => return Err(OpenError::directory(above, "sync")(e)),
        }
    }
    Ok(())
}

/// The segments in a log's directory, oldest first.
pub(crate) fn segment_ids(dir: &Path) -> io::Result<Vec<SegmentId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        match name.to_str().and_then(storage::parse_segment_name) {
            Some(id) => ids.push(id),
            None => {
                tracing::warn!(?name, dir = %dir.display(), "not a segment of the log: ignored")
            }
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// The segments of a log, for recovery.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    ids: Vec<SegmentId>,
}

impl Segments {
    pub(crate) fn of(dir: &Path) -> Result<Self, OpenError> {
        let ids = segment_ids(dir).map_err(OpenError::directory(dir, "read"))?;
        Ok(Self { dir: dir.to_path_buf(), ids })
    }

    fn open(&self, segment: SegmentId) -> Result<File, String> {
        let path = self.dir.join(storage::segment_name(segment));
        File::open(&path).map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl SegmentSource for Segments {
    fn segments(&self) -> Vec<SegmentId> {
        self.ids.clone()
    }

    fn read(&mut self, segment: SegmentId) -> Result<Bytes, String> {
        self.head(segment, usize::MAX)
    }

    fn head(&mut self, segment: SegmentId, len: usize) -> Result<Bytes, String> {
        let mut bytes = Vec::new();
        let read = self.open(segment)?.take(len_u64(len)).read_to_end(&mut bytes);
        read.map_err(|e| e.to_string())?;
        Ok(bytes.into())
    }
}

fn foreign_entry(path: &Path) -> Result<Option<String>, OpenError> {
    for entry in fs::read_dir(path).map_err(OpenError::directory(path, "read"))? {
        let name = entry.map_err(OpenError::directory(path, "read"))?.file_name();
        if name != LOCK && name != MARKER_ASIDE && name != MARKER {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(OpenError::directory(&path, "write"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(OpenError::directory(&path, "lock")(source)),
    }
}

fn check_marker(path: &Path) -> Result<(), OpenError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(OpenError::directory(path, "read"))?;
    // It may be anyone's file: no more of it is read than ours can have.
    file.take(256).read_to_end(&mut text).map_err(OpenError::directory(path, "read"))?;
    if text == MARKER_TEXT.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
    Err(OpenError::Format { path: path.to_path_buf(), found })
}

fn write_marker(dir: &Path) -> Result<(), OpenError> {
    let (aside, place) = (dir.join(MARKER_ASIDE), dir.join(MARKER));
    let write = || -> io::Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(MARKER_TEXT.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &place)?;
        sync_directory(dir)
    };
    write().map_err(OpenError::directory(&place, "write"))
}

const MARKER: &str = "LIBRING";
const MARKER_ASIDE: &str = "LIBRING.new";
const MARKER_TEXT: &str = "libring data directory, format 1\n";
const LOCK: &str = "LOCK";
const LOG: &str = "log";
const STORE: &str = "store";
const STORE_ASIDE: &str = "store.new";

#[cfg(test)]
mod tests;
