//! Benchmarks of libring: `cargo run --release -p bench -- <name>`. Each prints a table, or JSON with `--json`.

mod raft;

use clap::{Parser, Subcommand};
use comfy_table::Table;

/// Measures parts of libring.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Raft alone: three replicas in one thread, messages encoded and decoded, a log in memory.
    Raft {
        /// Proposals in flight.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
        in_flight: Vec<usize>,
        /// Bytes of a proposal.
        #[arg(long, default_value_t = 64)]
        bytes: usize,
        /// Proposals to commit in each measurement; the median of five counts.
        #[arg(long, default_value_t = 400_000)]
        proposals: u64,
    },
}

fn main() {
    let arguments = Arguments::parse();
    match arguments.what {
        What::Raft { in_flight, bytes, proposals } => {
            let rows: Vec<raft::Measured> =
                in_flight.iter().map(|&n| raft::measure(n, bytes, proposals)).collect();
            if arguments.json {
                let rows: Vec<_> = rows.iter().map(raft::Measured::json).collect();
                print(&serde_json::Value::from(rows).to_string());
                return;
            }
            let mut table = Table::new();
            table.set_header(["in flight", "proposals/s (median)", "least", "most"]);
            for row in &rows {
                let [least, median, most] = row.per_second.map(|rate| format!("{rate:.0}"));
                table.add_row([row.in_flight.to_string(), median, least, most]);
            }
            print(&table.to_string());
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark is what it prints")]
fn print(text: &str) {
    println!("{text}");
}
