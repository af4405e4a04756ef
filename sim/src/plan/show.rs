//! Plans and faults in words, for reports.

use std::fmt;
use std::time::Duration;

use super::{Fault, Plan, Scheduled, Who};
use crate::clock::Nanos;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = &self.workload;
        writeln!(
            f,
            "seed {}: {} members, {} more may join, {} client nodes, {} shards x {}; links {}, {:?} to {:?}; sync {:?}, store {:?}",
            self.seed,
            self.members,
            self.spares,
            self.clients,
            self.shards,
            self.replication,
            if self.wild { "wild" } else { "tame" },
            self.latency.0,
            self.latency.1,
            Duration::from_nanos(self.pace.sync),
            Duration::from_nanos(self.pace.store),
        )?;
        writeln!(
            f,
            "  turns of {}, window {} B, queue {} B; {} clients ({} only read, {} watch beside them), {} ops/s on {} partitions x {} keys, padding {}, \
             mix {:?}, stale {} %, time-out {:?}",
            self.pace.turn_inputs,
            self.pace.window_bytes,
            self.pace.queue_bytes,
            w.clients,
            w.readers,
            w.watchers,
            w.rate,
            w.partitions,
            w.keys,
            w.padding,
            w.mix,
            w.local,
            w.timeout
        )?;
        let l = &self.limits;
        writeln!(
            f,
            "  limits: segment {} log {} tail {} chunk {} transfer {} append {}/{} flight {} window {} page {}/{} \
             cursors {} proposals {} reads {} calls {}/{}; drift {:?}",
            l.segment_bytes,
            l.log_bytes,
            l.log_tail_bytes,
            l.chunk_bytes,
            l.transfer_bytes,
            l.append_entries,
            l.append_bytes,
            l.appends_in_flight,
            l.session_window,
            l.scan_keys,
            l.scan_bytes,
            l.cursors,
            l.proposal_bytes,
            l.reads,
            l.calls,
            l.calls_bytes,
            self.clocks.iter().map(|c| c.0).collect::<Vec<_>>()
        )?;
        if let Some(birth) = &self.birth {
            writeln!(f, "  they find each other: told to join, from n1 on, {:?}", birth.told)?;
        }
        write!(f, "  {} faults:", self.faults.len())?;
        for (n, scheduled) in self.faults.iter().enumerate() {
            let line = if n % 4 == 0 { "\n    " } else { "; " };
            write!(f, "{line}{scheduled}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s {}", Duration::from_nanos(self.at).as_secs_f64(), self.fault)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(m) => write!(f, "n{}", m + 1),
            Self::Leader(group) => write!(f, "leader of {group}"),
            Self::Sender => write!(f, "sender of a snapshot"),
            Self::Receiver => write!(f, "receiver of a snapshot"),
            Self::Candidate => write!(f, "candidate"),
            Self::Proposer => write!(f, "proposer of the cluster"),
            Self::Founder => write!(f, "founder of the cluster"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |t: &Nanos| format!("{:.2} s", Duration::from_nanos(*t).as_secs_f64());
        match self {
            Self::Crash(who, long) => write!(f, "crash {who} for {}", s(long)),
            Self::PowerCut(who, long) => write!(f, "power cut {who} for {}", s(long)),
            Self::Relapse(who, long, again) => {
                write!(f, "power cut {who} for {}, again {} after", s(long), s(again))
            }
            Self::Blackout(long) => write!(f, "power cut of all for {}", s(long)),
            Self::Pause(who, long) => write!(f, "pause {who} for {}", s(long)),
            Self::Split(side, long) => {
                let side: Vec<String> = side.iter().map(|m| format!("n{}", m + 1)).collect();
                write!(f, "split off [{}] for {}", side.join(" "), s(long))
            }
            Self::OneWay(from, to, long) => {
                write!(f, "n{} does not reach n{} for {}", from + 1, to + 1, s(long))
            }
            Self::Isolate(who, long) => write!(f, "isolate {who} for {}", s(long)),
            Self::Island(who, with, long) => {
                let with: String = with.iter().map(|m| format!(" n{}", m + 1)).collect();
                write!(f, "isolate [{who}{with}] for {}", s(long))
            }
            Self::Storm(link, long) => write!(f, "all links {link} for {}", s(long)),
            Self::BadLink(m, link, long) => write!(f, "links of n{} {link} for {}", m + 1, s(long)),
            Self::Reset(a, b) => write!(f, "reset n{} n{}", a + 1, b + 1),
            Self::Slow(who, times, long) => {
                write!(f, "disk of {who} {times}x slow for {}", s(long))
            }
            Self::SyncFails(who) => write!(f, "log sync fails at {who}"),
            Self::WriteFails(who) => write!(f, "log write fails at {who}"),
            Self::Full(who, long) => write!(f, "disk of {who} full for {}", s(long)),
            Self::StoreWriteFails(who) => write!(f, "store write fails at {who}"),
            Self::StoreSyncFails(who) => write!(f, "store sync fails at {who}"),
            Self::Unreadable(who, long) => write!(f, "disk of {who} unreadable for {}", s(long)),
            Self::Jump(m, ms) => write!(f, "wall clock of n{} jumps {ms} ms", m + 1),
            Self::Reshape(group, voters, learners, long) => {
                let names = |members: &[usize]| {
                    let names: Vec<String> =
                        members.iter().map(|m| format!("n{}", m + 1)).collect();
                    names.join(" ")
                };
                let (voters, learners) = (names(voters), names(learners));
                write!(f, "{group} has voters [{voters}], learners [{learners}] for {}", s(long))
            }
            Self::Lose(m, loss) => write!(f, "disk of n{} {loss:?}", m + 1),
            Self::Churn(change) => change.fmt(f),
        }
    }
}
