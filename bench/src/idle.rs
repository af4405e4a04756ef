//! `bench idle`: what a cluster costs that nobody calls.
//!
//! Three members as processes on this machine with 64 shards each, beside three nodes of etcd and one redis if they
//! are there: all started, written to once, left alone until they have settled, then watched together.
//!
//! What it does not show: memory after long use, other numbers of shards.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::load::Client;
use crate::cluster::{self, Servers, System, Use};
use crate::process::{Directory, Memory, Server};
use crate::report::{Columns, Section, float, show};

/// What is done with a cluster that shall be idle, beyond the write that showed it to be up.
struct Nothing;

impl Use for Nothing {
    type Output = ();

    async fn call(self, _: &impl Client, _: &Servers) -> Result<(), String> {
        Ok(())
    }
}

/// Watches for so long.
pub(crate) fn run(data: &Path, settle: Duration, watch: Duration) -> Result<Section, String> {
    let mut notes = Vec::new();
    let ring = cluster::ring::build()?;
    let all = [System::Ring, System::Etcd, System::Redis];
    let mut running: Vec<(System, Servers, Directory)> = Vec::new();
    for system in cluster::available(&all, &mut notes) {
        let dir = Directory::new(data, &format!("idle-{}", system.name()))?;
        let (servers, ()) = cluster::with_client(system, &ring, dir.path(), Nothing)?;
        running.push((system, servers, dir));
    }
    thread::sleep(settle);

    let look = |running: &[(System, Servers, Directory)]| -> Vec<Vec<Duration>> {
        let of = |servers: &Servers| servers.servers.iter().map(Server::cpu).collect();
        running.iter().map(|(_, servers, _)| of(servers)).collect()
    };
    let (before, begin) = (look(&running), Instant::now());
    thread::sleep(watch);
    let (after, watched) = (look(&running), begin.elapsed());

    let mut table =
        Columns::new(&["system", "processes", "CPU % of a core, each", "RSS MiB", "PSS MiB"]);
    let mut figures = Vec::new();
    for (k, (system, servers, _)) in running.iter_mut().enumerate() {
        let mut cells = vec![Vec::new(); 3];
        for (n, server) in servers.servers.iter_mut().enumerate() {
            server.check()?;
            let used = after[k][n].saturating_sub(before[k][n]).as_secs_f64();
            let percent = used / watched.as_secs_f64() * 100.0;
            let Memory { rss, pss } = server.memory();
            for (cell, figure) in
                cells.iter_mut().zip([percent, float(rss) / 1024.0, float(pss) / 1024.0])
            {
                cell.push(show(figure));
            }
            figures.push(json!({
                "system": system.name(), "process": n, "cpu_percent": percent,
                "rss_kib": rss, "pss_kib": pss,
            }));
        }
        let mut row = vec![String::from(system.name()), servers.servers.len().to_string()];
        row.extend(cells.iter().map(|cell| cell.join(", ")));
        table.rows.push(row);
    }
    Ok(Section {
        name: String::from("idle"),
        title: String::from("a cluster that nobody calls"),
        about: vec![format!(
            "Three members with 64 shards, left alone for {} s, then watched for {} s.",
            settle.as_secs(),
            watch.as_secs()
        )],
        tables: vec![table],
        notes,
        figures: figures.into(),
    })
}
