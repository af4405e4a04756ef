/* The layout that ABI 0 has on 64-bit machines; the same numbers stand in ffi/src/layout.rs. Compiled as C11 and as
 * C++11. */
#include "ring.h"

#ifdef __cplusplus
#define ASSERT static_assert
#else
#define ASSERT _Static_assert
#endif
#define AT(type, field, offset) ASSERT(offsetof(type, field) == (offset), #type "." #field)
#define SIZE(type, size) ASSERT(sizeof(type) == (size), #type)

SIZE(ring_bytes_t, 16);
AT(ring_bytes_t, ptr, 0);
AT(ring_bytes_t, len, 8);

SIZE(ring_pair_t, 32);
AT(ring_pair_t, name, 0);
AT(ring_pair_t, value, 16);

SIZE(ring_stream_t, 24);
AT(ring_stream_t, name, 0);
AT(ring_stream_t, ways, 16);
AT(ring_stream_t, reserved, 20);

SIZE(ring_error_t, 256);
AT(ring_error_t, size, 0);
AT(ring_error_t, code, 4);
AT(ring_error_t, detail, 8);
AT(ring_error_t, text, 16);

SIZE(ring_cq_options_t, 24);
AT(ring_cq_options_t, size, 0);
AT(ring_cq_options_t, flags, 4);
AT(ring_cq_options_t, wake, 8);
AT(ring_cq_options_t, wake_arg, 16);

SIZE(ring_event_t, 64);
AT(ring_event_t, tag, 0);
AT(ring_event_t, id, 8);
AT(ring_event_t, kind, 16);
AT(ring_event_t, status, 20);
AT(ring_event_t, a, 24);
AT(ring_event_t, b, 32);
AT(ring_event_t, data, 40);
AT(ring_event_t, owner, 56);

SIZE(ring_options_t, 288);
AT(ring_options_t, size, 0);
AT(ring_options_t, flags, 4);
AT(ring_options_t, name, 8);
AT(ring_options_t, cluster, 24);
AT(ring_options_t, listen, 40);
AT(ring_options_t, data_dir, 56);
AT(ring_options_t, members, 72);
AT(ring_options_t, n_members, 80);
AT(ring_options_t, join, 88);
AT(ring_options_t, n_join, 96);
AT(ring_options_t, shards, 104);
AT(ring_options_t, replication, 108);
AT(ring_options_t, max_inflight, 112);
AT(ring_options_t, reserved, 116);
AT(ring_options_t, timeout_ns, 120);
AT(ring_options_t, open_timeout_ns, 128);
AT(ring_options_t, keys_dir, 136);
AT(ring_options_t, advertise, 152);
AT(ring_options_t, weight, 168);
AT(ring_options_t, reserved2, 172);
AT(ring_options_t, tags, 176);
AT(ring_options_t, n_tags, 184);
AT(ring_options_t, expect, 192);
AT(ring_options_t, reserved3, 196);
AT(ring_options_t, metrics, 200);
AT(ring_options_t, replace_after_ns, 216);
AT(ring_options_t, probe_interval_ns, 224);
AT(ring_options_t, probe_timeout_ns, 232);
AT(ring_options_t, sync_interval_ns, 240);
AT(ring_options_t, suspicion_min, 248);
AT(ring_options_t, suspicion_max, 252);
AT(ring_options_t, log, 256);
AT(ring_options_t, log_arg, 264);
AT(ring_options_t, log_free, 272);
AT(ring_options_t, log_level, 280);
AT(ring_options_t, reserved4, 284);

SIZE(ring_change_t, 40);
AT(ring_change_t, op, 0);
AT(ring_change_t, reserved, 4);
AT(ring_change_t, key, 8);
AT(ring_change_t, value, 24);

SIZE(ring_op_t, 184);
AT(ring_op_t, size, 0);
AT(ring_op_t, op, 4);
AT(ring_op_t, flags, 6);
AT(ring_op_t, tag, 8);
AT(ring_op_t, timeout_ns, 16);
AT(ring_op_t, target, 24);
AT(ring_op_t, expect, 32);
AT(ring_op_t, limit, 40);
AT(ring_op_t, partition, 48);
AT(ring_op_t, key, 64);
AT(ring_op_t, value, 80);
AT(ring_op_t, compare, 96);
AT(ring_op_t, changes, 112);
AT(ring_op_t, n_changes, 120);
AT(ring_op_t, route, 128);
AT(ring_op_t, headers, 144);
AT(ring_op_t, n_headers, 152);
AT(ring_op_t, streams, 160);
AT(ring_op_t, n_streams, 168);
AT(ring_op_t, code, 176);
AT(ring_op_t, reserved, 180);

SIZE(ring_core_options_t, 96);
AT(ring_core_options_t, size, 0);
AT(ring_core_options_t, flags, 4);
AT(ring_core_options_t, name, 8);
AT(ring_core_options_t, cluster, 24);
AT(ring_core_options_t, members, 40);
AT(ring_core_options_t, n_members, 48);
AT(ring_core_options_t, join, 56);
AT(ring_core_options_t, n_join, 64);
AT(ring_core_options_t, shards, 72);
AT(ring_core_options_t, replication, 76);
AT(ring_core_options_t, seed, 80);
AT(ring_core_options_t, now_ns, 88);

SIZE(ring_input_t, 40);
AT(ring_input_t, size, 0);
AT(ring_input_t, kind, 4);
AT(ring_input_t, peer, 8);
AT(ring_input_t, token, 16);
AT(ring_input_t, data, 24);

SIZE(ring_effect_t, 104);
AT(ring_effect_t, size, 0);
AT(ring_effect_t, kind, 4);
AT(ring_effect_t, peer, 8);
AT(ring_effect_t, token, 16);
AT(ring_effect_t, data, 24);
AT(ring_effect_t, event, 40);

int main(void) { return 0; }
