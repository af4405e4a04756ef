//! `bench sim`: how fast the simulator is, which decides how many seeds can be tried.
//!
//! Seeds with five members and eight clients at about 100 operations a second, faults, oracles and checkers as in
//! every run, one after another on one core. Counted in processor time of this process.
//!
//! What it does not show: how many faults a run has, which differs from seed to seed.

use sim::plan::Plan as Seed;
use sim::swarm::{Options, run_plan};

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::report::{Columns, Section, float, median, range, show};

/// Runs so many seeds.
pub(crate) fn run(seeds: usize) -> Result<Section, String> {
    let plans = (0..).map(Seed::of).filter(|plan| {
        plan.members == 5 && plan.workload.clients == 8 && plan.workload.rate == 100
    });
    let (mut speeds, mut rates, mut figures) = (Vec::new(), Vec::new(), Vec::new());
    for plan in plans.take(seeds) {
        let begin = clock_gettime(ClockId::ProcessCPUTime);
        let report = run_plan(&plan, &Options::default());
        let used = clock_gettime(ClockId::ProcessCPUTime) - begin;
        let seconds = float(used.tv_sec.unsigned_abs()) + float(used.tv_nsec.unsigned_abs()) / 1e9;
        if let Some(failure) = &report.failure {
            return Err(format!("seed {} failed: {}", plan.seed, failure.problem));
        }
        speeds.push(report.simulated.as_secs_f64() / seconds);
        rates.push(float(report.messages) / seconds);
        figures.push(json!({
            "seed": plan.seed, "cpu_seconds": seconds, "messages": report.messages,
            "simulated_seconds": report.simulated.as_secs_f64(), "faults": report.faults.0,
            "operations": report.counts.ok + report.counts.fail + report.counts.info,
        }));
    }
    let mut table = Columns::new(&["a core-second simulates", "median", "least", "most"]);
    for (what, of) in [("seconds", &speeds), ("messages of members", &rates)] {
        let (least, most) = range(of.iter().copied());
        let middle = median(of.iter().copied());
        table.rows.push(vec![String::from(what), show(middle), show(least), show(most)]);
    }
    Ok(Section {
        name: String::from("sim"),
        title: String::from("the simulator on one core"),
        about: vec![format!(
            "{seeds} seeds with five members and eight clients at about 100 operations a second, \
             under faults, with oracles and checkers."
        )],
        tables: vec![table],
        notes: Vec::new(),
        figures: figures.into(),
    })
}
