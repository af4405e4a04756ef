//! `one DIR FROM COUNT`: opens a cluster of one, writes, says what is acknowledged. Made to be
//! killed, and to have its system calls fail.

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libring::Node;
use tests::one;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [dir, from, count] = words.as_slice() else {
        eprintln!("one: usage: one DIR FROM COUNT");
        return ExitCode::from(2);
    };
    let (Ok(from), Ok(count)) = (from.parse::<u64>(), count.parse::<u64>()) else {
        eprintln!("one: FROM and COUNT are numbers");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("an event queue can be had");
    match runtime.block_on(write(Path::new(dir), from, count)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("one: {line}");
            ExitCode::from(6)
        }
    }
}

#[allow(clippy::print_stdout, reason = "what it says is read by a test")]
async fn write(dir: &Path, from: u64, count: u64) -> Result<(), String> {
    let node = Node::open(one::options(dir)).await.map_err(|e| e.to_string())?;
    for k in from..from + count {
        let put = one::partition(&node, k).put(one::key(k), one::value(k)).await;
        if let Err(e) = put {
            // A call ends as soon as the node does; why the node did is known by then.
            let halted = tokio::time::timeout(Duration::from_secs(10), node.halted()).await;
            return Err(match halted {
                Ok(halt) => format!("halted: {halt}"),
                Err(_) => format!("write {k}: {e}, and the node did not halt"),
            });
        }
        println!("acknowledged {k}");
    }
    let closed = node.clone().close().await;
    closed.map_err(|e| format!("close: {e}"))?;
    if let Ok(halt) = tokio::time::timeout(Duration::ZERO, node.halted()).await {
        return Err(format!("halted: {halt}"));
    }
    println!("closed");
    Ok(())
}
