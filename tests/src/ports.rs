//! Ports that no other test uses, of this process or of another.
//!
//! A member that is killed needs its port again when it is started, so a port must stay reserved
//! while nobody listens on it. Ports are taken from below the range from which systems take those
//! of outgoing connections.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::process;

/// Consecutive ports of 127.0.0.1, reserved until this is dropped.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    locks: Vec<File>,
}

impl Ports {
    /// Reserves `count` ports.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn reserve(count: u16) -> Self {
        let places = (LAST - FIRST) / count;
        let begin = process::id() % u32::from(places);
        (0..u32::from(places))
            .map(|k| u16::try_from((begin + k) % u32::from(places)).expect("less than `places`"))
            .find_map(|place| Self::try_reserve(FIRST + place * count, count))
            .expect("thousands of ports are not all in use")
    }

    /// The first port.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The address of the `k`th port, counted from 0.
    #[must_use]
    pub fn address(&self, k: usize) -> String {
        assert!(k < self.locks.len(), "port {k} was not reserved");
        let k = u16::try_from(k).expect("ports are 16 bits");
        format!("127.0.0.1:{}", self.first + k)
    }

    fn try_reserve(first: u16, count: u16) -> Option<Self> {
        let dir = env::temp_dir().join("ring-test-ports");
        fs::create_dir_all(&dir).expect("the temporary directory can be written");
        let mut locks = Vec::new();
        for port in first..first + count {
            let lock = File::create(dir.join(port.to_string())).ok()?;
            lock.try_lock().ok()?;
            TcpListener::bind(("127.0.0.1", port)).ok()?;
            locks.push(lock);
        }
        Some(Self { first, locks })
    }
}

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
