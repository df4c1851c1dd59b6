# `make demo` and `make test` are all a stranger needs; `make help` lists the rest.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/diptych-target
DEMO ?= demo-run
BIN := $(CARGO_TARGET_DIR)/release/diptych

.PHONY: help deps build demo test check-all lint docs bench llvm cuda install dist

help:           ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/: *[^#]*## */\t/'

deps:           ## system packages that the build needs (cmake, nasm, a C compiler), by apt where missing
	@scripts/deps.sh

build: deps     ## target/release/diptych, with the CPU backend
	cargo build --release --locked --bin diptych

demo: build     ## Fashion-MNIST: import, train SimCLR, evaluate, report
	@BIN=$(BIN) scripts/demo.sh $(DEMO)

test: deps      ## all tests, in the one build profile
	cargo test --release --locked

check-all: deps ## all tests with all mutations: 20,000 images, 3,000 shards
	DIPTYCH_MUTATIONS=20000 DIPTYCH_PARQUET_MUTATIONS=3000 cargo test --release --locked

lint: deps      ## formatting, clippy, docs
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --document-private-items

docs: deps      ## the API's documentation
	cargo doc --release --locked --no-deps

bench: deps     ## micro-benchmarks of ops, order and losses
	cargo bench --locked --profile release

llvm:           ## the LLVM that the cuda feature links, where Burn's own download cannot reach it
	@scripts/llvm.sh

cuda: deps llvm ## target/release/diptych with CUDA devices as well
	cargo build --release --locked --bin diptych --features cuda

dist: deps      ## an optimised binary to hand out
	cargo build --profile dist --locked --bin diptych

install: build  ## into ~/.cargo/bin
	install -Dm755 $(BIN) $(HOME)/.cargo/bin/diptych
