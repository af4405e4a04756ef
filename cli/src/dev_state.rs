//! What `ring dev` leaves for other shells: where the running cluster is.
//!
//! One file a user, `$XDG_STATE_HOME/ring/dev.json` or `~/.local/state/ring/dev.json`, there while
//! the cluster runs.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// A running `ring dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevState {
    /// Its process.
    pub(crate) pid: u32,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The members' addresses.
    pub(crate) addresses: Vec<String>,
    /// Where its data is; none: in memory.
    pub(crate) data: Option<PathBuf>,
    /// The directory of a client's keys; none: no TLS.
    #[serde(default)]
    pub(crate) keys: Option<PathBuf>,
}

/// What the state file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No `ring dev` runs, or it was stopped cleanly.
    Nothing,
    /// One runs.
    Running(DevState),
    /// One ran and was killed.
    Stale(DevState),
    /// The file cannot be read: why.
    Unreadable(String),
}

impl DevState {
    /// This process as the running cluster.
    pub(crate) fn of_this_process(
        cluster: String,
        addresses: Vec<String>,
        data: Option<PathBuf>,
        keys: Option<PathBuf>,
    ) -> Self {
        Self { pid: process::id(), cluster, addresses, data, keys }
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let aside = path.with_extension(format!("json.{}", self.pid));
        fs::write(&aside, serde_json::to_vec(self)?)?;
        fs::rename(&aside, path)
    }

    /// Removes the file, if it is still this process's.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        match find(path) {
            Found::Running(state) if state == *self => fs::remove_file(path),
            Found::Running(_) | Found::Stale(_) | Found::Nothing | Found::Unreadable(_) => Ok(()),
        }
    }
}

/// Where the file is; none when the environment names no home.
pub(crate) fn path() -> Option<PathBuf> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")))?;
    Some(base.join("ring").join("dev.json"))
}

/// Looks for a running cluster.
pub(crate) fn find(path: &Path) -> Found {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Found::Nothing,
        Err(e) => return Found::Unreadable(e.to_string()),
    };
    match serde_json::from_slice::<DevState>(&text) {
        Ok(state) if is_alive(state.pid) => Found::Running(state),
        Ok(state) => Found::Stale(state),
        Err(e) => Found::Unreadable(e.to_string()),
    }
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // A process of somebody else may not be signalled, and lives.
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_cluster_is_told_from_a_running_one() {
        let dir = env::temp_dir().join(format!("ring-dev-state-{}", process::id()));
        let path = dir.join("ring").join("dev.json");
        assert_eq!(find(&path), Found::Nothing);

        let state =
            DevState::of_this_process("ring".into(), vec!["127.0.0.1:1".into()], None, None);
        state.write(&path).expect("the directory is ours");
        assert_eq!(find(&path), Found::Running(state.clone()));

        // A child that was waited for is gone for certain.
        let mut child = process::Command::new("true").spawn().expect("`true` exists");
        let pid = child.id();
        child.wait().expect("it ends by itself");
        let stale = DevState { pid, ..state.clone() };
        stale.write(&path).expect("the directory is ours");
        assert_eq!(find(&path), Found::Stale(stale));

        state.remove(&path).expect("not ours any more");
        assert!(path.exists(), "another cluster's file stays");
        fs::write(&path, "{").expect("the directory is ours");
        assert!(matches!(find(&path), Found::Unreadable(_)));
        fs::remove_dir_all(&dir).expect("the directory is ours");
    }
}
