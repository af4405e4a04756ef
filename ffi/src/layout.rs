//! The layout that ABI 0 has on 64-bit machines; the same numbers stand in `tests/c/layout.c`.

#![cfg(target_pointer_width = "64")]

use std::mem::{offset_of, size_of};

use crate::types::*;

macro_rules! layout {
    ($type:ident, $size:literal, $($field:ident: $at:literal),+ $(,)?) => {
        const _: () = assert!(size_of::<$type>() == $size);
        $(const _: () = assert!(offset_of!($type, $field) == $at);)+
    };
}

layout!(ring_bytes_t, 16, ptr: 0, len: 8);
layout!(ring_pair_t, 32, name: 0, value: 16);
layout!(ring_stream_t, 24, name: 0, ways: 16, reserved: 20);
layout!(ring_error_t, 256, size: 0, code: 4, detail: 8, text: 16);
layout!(ring_cq_options_t, 24, size: 0, flags: 4, wake: 8, wake_arg: 16);
layout!(ring_event_t, 64, tag: 0, id: 8, kind: 16, status: 20, a: 24, b: 32, data: 40, owner: 56);
layout!(ring_options_t, 288, size: 0, flags: 4, name: 8, cluster: 24, listen: 40, data_dir: 56, members: 72, n_members: 80, join: 88, n_join: 96, shards: 104, replication: 108, max_inflight: 112, reserved: 116, timeout_ns: 120, open_timeout_ns: 128, keys_dir: 136, advertise: 152, weight: 168, reserved2: 172, tags: 176, n_tags: 184, expect: 192, reserved3: 196, metrics: 200, replace_after_ns: 216, probe_interval_ns: 224, probe_timeout_ns: 232, sync_interval_ns: 240, suspicion_min: 248, suspicion_max: 252, log: 256, log_arg: 264, log_free: 272, log_level: 280, reserved4: 284);
layout!(ring_change_t, 40, op: 0, reserved: 4, key: 8, value: 24);
layout!(ring_op_t, 184, size: 0, op: 4, flags: 6, tag: 8, timeout_ns: 16, target: 24, expect: 32, limit: 40, partition: 48, key: 64, value: 80, compare: 96, changes: 112, n_changes: 120, route: 128, headers: 144, n_headers: 152, streams: 160, n_streams: 168, code: 176, reserved: 180);
layout!(ring_core_options_t, 96, size: 0, flags: 4, name: 8, cluster: 24, members: 40, n_members: 48, join: 56, n_join: 64, shards: 72, replication: 76, seed: 80, now_ns: 88);
layout!(ring_input_t, 40, size: 0, kind: 4, peer: 8, token: 16, data: 24);
layout!(ring_effect_t, 104, size: 0, kind: 4, peer: 8, token: 16, data: 24, event: 40);
