//! What the figures were measured on: without it they mean nothing.

use std::fs;
use std::path::Path;
use std::thread;

use serde::{Deserialize, Serialize};

/// The machine, as far as it decides what is measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Of the data directories: file system, device, options.
    filesystem: String,
    /// Of the last minute, before the benchmark began. Far above zero: others were at work.
    load_average: String,
}

impl Machine {
    /// This machine, with the data in `data`, which exists.
    pub(crate) fn here(data: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first = |text: String| text.split_whitespace().next().unwrap_or("?").to_owned();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "?".to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|text| text.trim_end_matches(" kB").parse().ok())
                .map_or(0, |kib: u64| kib / 1024),
            kernel: first(read("/proc/sys/kernel/osrelease")),
            filesystem: filesystem(data, &read("/proc/self/mountinfo")),
            load_average: first(read("/proc/loadavg")),
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let load = self.load_average.parse().unwrap_or(0.0);
        let busy = if load < BUSY {
            ""
        } else {
            "\nThe machine was busy with other work: only ratios mean something, and waits for a \
             disk are waits for the scheduler too.\n"
        };
        format!(
            "Machine: {} cores of {}, {} MiB of memory, Linux {}; data on {}; load average before \
             the run {}.\n{busy}",
            self.cores, self.cpu, self.memory_mib, self.kernel, self.filesystem, self.load_average
        )
    }
}

/// The first line `name: value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Of the mounts that hold the path, the innermost.
fn filesystem(path: &Path, mounts: &str) -> String {
    let Ok(path) = path.canonicalize() else {
        return String::from("?");
    };
    let holding = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let (place, options) = (mount.split(' ').nth(4)?, mount.split(' ').nth(5)?);
        let mut kind = kind.split(' ');
        let (kind, source) = (kind.next()?, kind.next()?);
        path.starts_with(place).then(|| (place.len(), format!("{kind} ({source}, {options})")))
    });
    // Of two mounts on one place the later one is seen.
    holding.max_by_key(|(len, _)| *len).map_or_else(|| String::from("?"), |(_, text)| text)
}

/// From this load on the figures say so.
const BUSY: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "1 0 8:1 / / rw,relatime - ext4 /dev/a rw\n\
                      2 1 0:5 / /proc rw - proc proc rw\n\
                      3 1 8:2 / /elsewhere rw - xfs /dev/b rw\n";
        assert_eq!(filesystem(Path::new("/"), mounts), "ext4 (/dev/a, rw,relatime)");
        assert_eq!(filesystem(Path::new("/proc/self/fd"), mounts), "proc (proc, rw)");
        assert_eq!(filesystem(Path::new("/not/there"), mounts), "?");
    }

    #[test]
    fn fields_are_found() {
        assert_eq!(field("a : 1\nmodel name\t: Fast 9\n", "model name"), Some("Fast 9".into()));
        assert_eq!(field("a : 1\n", "b"), None);
    }
}
