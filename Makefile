# verify changes nothing; fix does.

SEED ?= 1
N ?= 100

.PHONY: verify fix sim swarm header

verify:
	.ci/run

fix:
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged -- -D warnings
	cargo fmt --all

# One seed of the simulator again: make sim SEED=42
sim:
	cargo run --release -p sim --bin swarm -- --seed $(SEED)

# Many seeds, from a new place each time: make swarm N=1000
swarm:
	cargo run --release -p sim --bin swarm -- --seeds $(N) --jobs 2

# include/ring.h from the sources of ffi.
header:
	RING_WRITE_HEADER=1 cargo test -p ring-ffi --test header the_header_is_fresh
