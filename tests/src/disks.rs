//! Disks of their own for members, whose power can be cut.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::native;

/// A file system in a file, mounted until this is dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    place: PathBuf,
    _dir: TempDir,
}

impl Disk {
    /// Makes an ext4 file system and mounts it.
    ///
    /// # Errors
    /// This machine cannot do that: which command failed.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn mount(place: &Path, bytes: u64) -> Result<Self, String> {
        // In memory if that can be had: the image only has to outlive the members, and other load
        // on this machine's own disk slows nothing down then.
        let memory = Path::new("/dev/shm");
        let dir = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
        let dir = dir.expect("the temporary directory can be written");
        let image = dir.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(bytes));
        made.expect("the temporary directory can be written");
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        fs::create_dir_all(place).expect("the directory is ours");
        mount(&image, place)?;
        Ok(Self { image, place: place.to_path_buf(), _dir: dir })
    }

    /// Mounts the file system after its power was cut; the kernel replays its journal.
    ///
    /// # Errors
    /// It cannot be unmounted or mounted.
    pub fn power_on(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.place))?;
        mount(&self.image, &self.place)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a member that a failed test has left may still be there for a moment.
        if let Err(e) = run(Command::new("umount").arg("--lazy").arg(&self.place)) {
            drop(writeln!(io::stderr(), "{} stays mounted: {e}", self.place.display()));
        }
    }
}

/// Cuts the power of disks, of all at the same moment. What was not synced is lost; nothing can be
/// written or synced from then on.
///
/// # Errors
/// This machine cannot do that.
pub fn cut_power<'a>(disks: impl IntoIterator<Item = &'a Disk>) -> Result<(), String> {
    let program = native::power_cut().ok_or("there is no C compiler")?;
    run(Command::new(program).args(disks.into_iter().map(|disk| &disk.place)))
}

/// Nothing is written back by itself for so long that a test never sees it: what is not synced is
/// lost, all of it.
fn mount(image: &Path, place: &Path) -> Result<(), String> {
    let mut mount = Command::new("mount");
    run(mount.args(["-t", "ext4", "-o", "loop,commit=300"]).arg(image).arg(place))
}

fn run(command: &mut Command) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let what = command.get_program().display().to_string();
    let ended = command.output().map_err(|e| format!("{what}: {e}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.trim();
    if ended.status.success() { Ok(()) } else { Err(format!("{what}: {} {said}", ended.status)) }
}
