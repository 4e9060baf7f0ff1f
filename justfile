# The maintainer's verbs. `just` is optional: every recipe is a few plain commands.

# List the verbs
default:
    @just --list

# Format everything
fmt:
    cargo fmt
    if [ -f fuzz/Cargo.toml ]; then cargo fmt --manifest-path fuzz/Cargo.toml; fi
    cargo fmt --manifest-path benches/peers/Cargo.toml
    cargo fmt --manifest-path benches/guard/Cargo.toml

# Everything that judges the source without running it
lint:
    cargo fmt --check
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --no-default-features -- -D warnings
    cargo deny --all-features check licenses bans sources

# All tests; further words go to `cargo test`
test *args:
    cargo test --all-features {{ args }}

# The commit path, the ring and the watermark, in every order of their threads
models *args:
    RUSTFLAGS="--cfg amberlog_loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib models:: {{ args }}

# The whole engine, in many orders of its threads; `runs` multiplies them
interleavings runs="1" *args:
    RUSTFLAGS="--cfg amberlog_shuttle" CARGO_TARGET_DIR=target/shuttle AMBERLOG_SHUTTLE_RUNS={{ runs }} \
        cargo test --release --features sim --test interleavings -- --show-output {{ args }}

# Crashes, faults and power cuts on the simulated disk; the gate makes an effort of 32
crashes effort="32" *args:
    AMBERLOG_EFFORT={{ effort }} cargo test --release --all-features --lib --test crashes --test disk -- --nocapture {{ args }}

# The engine broken on purpose, in one way after the other: each has to be noticed
controls *args:
    RUSTFLAGS="--cfg amberlog_sabotage" CARGO_TARGET_DIR=target/sabotage \
        cargo test --release --features sim,json \
        --test crashes --test disk --test handles --test jsonl --test lives --test regressions -- --nocapture control noticed {{ args }}

# The API documentation, warnings refused
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# Measure; further words go to `cargo bench`
bench *args:
    cargo bench --all-features --benches {{ args }}

# Count instructions, allocations and system calls, and compare with the record; `just guard record` writes it anew
guard verb="check":
    cargo run --release --manifest-path benches/guard/Cargo.toml -- {{ verb }}

# Race the peers and write docs/benchmarks; further words choose scenarios and contestants
race *args:
    cd benches/peers && cargo run --release --locked -- all {{ args }}

# Fuzz one target; what it learns is added to fuzz/corpus/
fuzz target seconds="60":
    cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }} -rss_limit_mb=2048 -timeout=600

# The gate, as CI runs it
ci:
    .ci/run
