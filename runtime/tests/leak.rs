//! A node leaves nothing behind. Alone in its file: it counts the threads and files of the process.
#![expect(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod common;

use std::time::{Duration, Instant};

use common::{alone, client, free_addresses};
use libring::{Node, Options};

fn threads_and_files() -> (usize, usize) {
    let count = |what| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    (count("task"), count("fd"))
}

/// Fifty times on one port and one directory, closed or dropped, with a client beside it.
#[tokio::test]
async fn fifty_lives_leave_no_thread_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let listen = free_addresses(1).pop();
    let options = Options { listen: listen.clone(), ..alone(dir.path()) };
    let caller =
        Options { join: listen.into_iter().collect(), ..client(std::slice::from_ref(&options)) };
    let mut before = None;
    for round in 0..50 {
        let node = Node::open(options.clone()).await.unwrap();
        let caller = Node::open(caller.clone()).await.unwrap();
        caller.partition("p").put("k", round.to_string()).await.unwrap();
        if round % 2 == 0 {
            node.close().await.unwrap();
            drop(caller);
        } else {
            drop(node);
            caller.close().await.unwrap();
        }
        before = before.or_else(|| Some(threads_and_files()));
    }
    let before = before.unwrap();
    // A thread that has said that it ends takes a moment to be gone.
    let started = Instant::now();
    while threads_and_files() > before && started.elapsed() < Duration::from_secs(5) {
        tokio::task::yield_now().await;
    }
    let after = threads_and_files();
    assert!(after.0 <= before.0 && after.1 <= before.1, "{before:?} became {after:?}");
}
