//! What a member is told about the failure detector: every time and every bound.

use alloc::format;
use core::time::Duration;

use super::member::PROFILE_BYTES_MAX;
use super::wire::{BODY_BYTES_MAX, PREFIX_BYTES, UPDATE_BYTES_MAX};
use crate::config::{ConfigError, Detector};
use crate::ids::ClusterId;

/// The configuration of the failure detector. Times are of the member's own monotonic clock. Members of one cluster
/// may differ in all but `cluster`; they detect at their own pace then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The cluster. Datagrams of others are dropped.
    pub cluster: ClusterId,
    /// The protocol period: each member probes one other so often. Default 1 s.
    pub period: Duration,
    /// A probe waits this long for a direct answer before it asks others to probe as well, at most; less when the
    /// round-trip time of the member is known. Default 300 ms.
    pub ping_timeout: Duration,
    /// The least of it. Default 50 ms.
    pub ping_timeout_min: Duration,
    /// A probe that has no answer at all after this long makes its target a suspect. More than `ping_timeout`, at
    /// most `period`. Default 750 ms.
    pub probe_timeout: Duration,
    /// How many others are asked to probe for one that does not answer (k in SWIM). 0 to 16. Default 3.
    pub indirect_probes: u32,
    /// A suspect has at least `suspicion_min` * max(1, log10(n)) periods to refute (alpha in Lifeguard). 1 to 100.
    /// Default 5.
    pub suspicion_min: u32,
    /// ... and this times as long if nobody else suspects it (beta in Lifeguard). 1 to 100. Default 6.
    pub suspicion_max: u32,
    /// So many others must suspect it too for the least time (K in Lifeguard). 0 to 7. Default 3.
    pub suspicion_confirmations: u32,
    /// The local health multiplier goes up to this (S in Lifeguard); 0 switches local health off. At most 16.
    /// Default 8.
    pub health_max: u32,
    /// Each update is sent `transmissions` * ceil(log2(n + 1)) times (lambda in SWIM). 1 to 16. Default 3.
    pub transmissions: u32,
    /// Views are compared with another member's this often, over a stream. Default 30 s.
    pub sync_interval: Duration,
    /// Bytes of one message of a comparison, about. 1 KiB to 256 KiB. Default 16 KiB.
    pub sync_bytes: usize,
    /// A dead member is probed this often, a random one each time, so that a healed split is noticed. Default 10 s.
    pub dead_probe_interval: Duration,
    /// The dead and the departed are remembered this long, so that late news does not bring them back. Default 1 h.
    pub dead_retention: Duration,
    /// Most dead and departed members remembered. Default 1,024.
    pub dead_max: usize,
    /// Most members known, this one included, the dead not. Default 4,096.
    pub members_max: usize,
    /// A seed that does not answer is asked again after this long, doubled with each failure... Default 1 s.
    pub join_retry_min: Duration,
    /// ... up to this long. Default 30 s.
    pub join_retry_max: Duration,
    /// A departure is spread for this long, at most. Default 5 s.
    pub leave_timeout: Duration,
    /// Longest datagram, with what authentication adds. 773 to 65,507. Default 1,400.
    pub datagram_bytes: usize,
}

/// What the world adds to a datagram to protect it, at most: room kept free in each. A seal repeats what is in a
/// [`Stamp`](super::Stamp), so that a datagram needs less room by that.
pub const AUTHENTICATION_BYTES: usize = 7;
/// Most seeds that are asked at once.
pub const SEEDS_MAX: usize = 64;
/// Most accusers that a suspicion names.
pub const ACCUSERS_MAX: usize = 8;

impl Config {
    /// The default configuration of a cluster.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            period: Duration::from_secs(1),
            ping_timeout: Duration::from_millis(300),
            ping_timeout_min: Duration::from_millis(50),
            probe_timeout: Duration::from_millis(750),
            indirect_probes: 3,
            suspicion_min: 5,
            suspicion_max: 6,
            suspicion_confirmations: 3,
            health_max: 8,
            transmissions: 3,
            sync_interval: Duration::from_secs(30),
            sync_bytes: 16 << 10,
            dead_probe_interval: Duration::from_secs(10),
            dead_retention: Duration::from_secs(3600),
            dead_max: 1024,
            members_max: 4096,
            join_retry_min: Duration::from_secs(1),
            join_retry_max: Duration::from_secs(30),
            leave_timeout: Duration::from_secs(5),
            datagram_bytes: 1400,
        }
    }

    /// At the pace that a member was told.
    #[must_use]
    pub fn paced(self, detector: &Detector) -> Self {
        Self {
            period: detector.probe_interval,
            ping_timeout: detector.ping_timeout,
            ping_timeout_min: self.ping_timeout_min.min(detector.ping_timeout),
            probe_timeout: detector.probe_timeout,
            indirect_probes: detector.indirect_probes,
            suspicion_min: detector.suspicion_min,
            suspicion_max: detector.suspicion_max,
            sync_interval: detector.sync_interval,
            dead_probe_interval: detector.dead_probe_interval,
            ..self
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, problem| Err(ConfigError { field, problem });
        let hour = Duration::from_secs(3600);
        for (field, time, max) in [
            ("period", self.period, hour),
            ("ping_timeout", self.ping_timeout, self.probe_timeout),
            ("ping_timeout_min", self.ping_timeout_min, self.ping_timeout),
            ("probe_timeout", self.probe_timeout, self.period),
            ("sync_interval", self.sync_interval, hour * 24),
            ("dead_probe_interval", self.dead_probe_interval, hour * 24),
            ("dead_retention", self.dead_retention, hour * 24 * 365),
            ("join_retry_min", self.join_retry_min, self.join_retry_max),
            ("join_retry_max", self.join_retry_max, hour * 24),
            ("leave_timeout", self.leave_timeout, hour),
        ] {
            if time < Duration::from_millis(1) || time > max {
                return wrong(field, format!("{time:?}, must be 1 ms to {max:?}"));
            }
        }
        if self.ping_timeout >= self.probe_timeout {
            return wrong("ping_timeout", format!("must be less than {:?}", self.probe_timeout));
        }
        for (field, number, min, max) in [
            ("indirect_probes", self.indirect_probes, 0, 16),
            ("suspicion_min", self.suspicion_min, 1, 100),
            ("suspicion_max", self.suspicion_max, 1, 100),
            ("suspicion_confirmations", self.suspicion_confirmations, 0, 7),
            ("health_max", self.health_max, 0, 16),
            ("transmissions", self.transmissions, 1, 16),
        ] {
            if number < min || number > max {
                return wrong(field, format!("{number}, must be {min} to {max}"));
            }
        }
        let least = PREFIX_BYTES
            + BODY_BYTES_MAX
            + PROFILE_BYTES_MAX
            + 2 * UPDATE_BYTES_MAX
            + AUTHENTICATION_BYTES;
        for (field, number, min, max) in [
            ("datagram_bytes", self.datagram_bytes, least, 65_507),
            ("sync_bytes", self.sync_bytes, 1 << 10, 256 << 10),
            ("dead_max", self.dead_max, 1, 1 << 20),
            ("members_max", self.members_max, 1, 1 << 20),
        ] {
            if number < min || number > max {
                return wrong(field, format!("{number}, must be {min} to {max}"));
            }
        }
        Ok(())
    }

    /// Longest datagram without authentication.
    pub(crate) fn plain_bytes(&self) -> usize {
        self.datagram_bytes - AUTHENTICATION_BYTES
    }
}
