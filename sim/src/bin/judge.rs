//! Judges a history file: `judge FILE`. Exit code 0: everything holds; 1: something is broken; 2:
//! something could not be judged; 3: the file cannot be read.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use sim::check::{self, Checker, Outcomes, Tally, Verdict};
use sim::history::History;

/// Judges a history of what clients saw.
#[derive(Parser)]
struct Arguments {
    /// The history, one JSON object a line.
    file: PathBuf,
    /// Most operations in a thousand that may have an unknown outcome.
    #[arg(long, default_value_t = Outcomes::default().info_permille_max)]
    info_permille_max: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match judge(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            let file = arguments.file.display();
            // Nothing is left to say if even this cannot be written.
            let _ = writeln!(io::stderr(), "{file}: {problem}");
            ExitCode::from(3)
        }
    }
}

fn judge(arguments: &Arguments) -> Result<u8, Box<dyn std::error::Error>> {
    let history = History::read(BufReader::new(File::open(&arguments.file)?))?;
    let mut out = io::stdout().lock();
    for (f, tally) in Tally::of(&history) {
        writeln!(out, "{f}: {tally}")?;
    }
    let mut code = 0;
    for checker in checkers(arguments) {
        let verdict = checker.check(&history);
        writeln!(out, "{}: {verdict}", checker.name())?;
        code = match (&verdict, code) {
            (Verdict::Violation(_), _) | (_, 1) => 1,
            (Verdict::Unknown { .. }, _) => 2,
            (Verdict::Ok, code) => code,
        };
    }
    Ok(code)
}

fn checkers(arguments: &Arguments) -> Vec<Box<dyn Checker>> {
    let bounds = Outcomes { info_permille_max: arguments.info_permille_max, ..Outcomes::default() };
    check::all(bounds)
}
