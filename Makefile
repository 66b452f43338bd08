# firedrill. `make demo` and `make test` set up everything they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN     := out/bin
MODULES := schemas pkg $(wildcard services/*) tests
GOTEST  := go test -race -timeout 20m
# No clock judges what these test, so two of them at a time may share the machine. Those that
# another list names are not among them; what is new has the machine to itself, until it is
# named here.
UNTIMED := ./schemas/... ./pkg/control ./pkg/drill ./pkg/event ./pkg/filelock ./pkg/internal/... ./pkg/joined ./pkg/keys ./pkg/lazy ./pkg/machine ./pkg/meant \
	./pkg/schemagen/... ./pkg/target ./pkg/target/canary ./pkg/target/diskfill ./pkg/target/secrets ./pkg/target/strict ./pkg/target/targettest ./pkg/target/undo ./pkg/telemetry \
	./pkg/verdict ./services/firedrill/... ./services/injector/cmd/... ./services/mirror/... ./services/observer/cmd/... ./services/reporter/... ./services/validator/... ./tests/arrows ./tests/contract
# These mostly wait, for servers of their own and for each other's processes, and allow for a
# busy machine: three of them at a time may share it, the longest first.
LABS := ./pkg/target/postgres ./services/firedrill/cli ./pkg/target/minio ./pkg/bus ./pkg/target/zfs ./tests/mirror ./pkg/lab/...
# These wait for more than half of their time, and look at the clock: two of them at a time.
WAITING := ./services/mirror/fleet ./services/injector ./services/observer
# A zfs-fuse is waited for by the clock.
TIMED := ./services/mirror/zfs/...
STATICCHECK_VERSION := v0.8.2
export FIREDRILL_BIN := $(CURDIR)/$(BIN)

.PHONY: help setup postgres build demo test test-go fuzz lint verify fix freeze release-given bench bench-mirror clean jaeger minio peers python

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: ## install everything that the tests need (PostgreSQL, PgBouncer, ZFS, jq, zstd, Python)
	@deploy/lab/install.sh

postgres: ## install all that the demo needs (PostgreSQL)
	@deploy/lab/install.sh postgres

build: ## build every program into out/bin, static as in the image
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -o $(BIN)/ ./services/firedrill/cmd/... ./services/injector/cmd/... ./services/observer/cmd/... ./services/mirror/cmd/... ./services/validator/cmd/... ./services/reporter/cmd/...

demo: postgres build ## run two real drills of PostgreSQL and leave their reports in out/demo
	@deploy/lab/demo.sh

jaeger: $(BIN)/jaeger ## build the Jaeger that the trace test queries

$(BIN)/jaeger: tests/jaeger/go.mod
	@mkdir -p $(BIN)
	cd tests/jaeger && GOWORK=off go build -o $(CURDIR)/$(BIN)/jaeger github.com/jaegertracing/jaeger/cmd/all-in-one

minio: $(BIN)/minio ## build the MinIO that the mirror's tests run

$(BIN)/minio: tests/minio/go.mod
	@mkdir -p $(BIN)
	cd tests/minio && GOWORK=off CGO_ENABLED=0 go build -trimpath -o $(CURDIR)/$(BIN)/minio github.com/minio/minio

peers: $(BIN)/mc $(BIN)/rclone ## build mc and rclone, with which the mirror is compared

$(BIN)/mc: tests/peers/mc/go.mod
	@mkdir -p $(BIN)
	cd tests/peers/mc && GOWORK=off CGO_ENABLED=0 go build -trimpath -o $(CURDIR)/$(BIN)/mc github.com/minio/mc

$(BIN)/rclone: tests/peers/rclone/go.mod
	@mkdir -p $(BIN)
	cd tests/peers/rclone && GOWORK=off CGO_ENABLED=0 go build -p 1 -trimpath -o $(CURDIR)/$(BIN)/rclone github.com/rclone/rclone

python: $(BIN)/python/ready ## prepare the Python that the README's example is run with

$(BIN)/python/ready: tests/python/requirements.txt
	@rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	@touch $@

$(BIN)/staticcheck-$(STATICCHECK_VERSION):
	@mkdir -p $(BIN)
	GOWORK=off GOBIN=$(CURDIR)/$(BIN) go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	@mv $(BIN)/staticcheck $@

lint: $(BIN)/staticcheck-$(STATICCHECK_VERSION) ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l $(MODULES))" || { echo "not formatted (run gofmt -w):"; gofmt -l $(MODULES); exit 1; }
	go vet work
	@for m in $(MODULES); do (cd $$m && $(CURDIR)/$< ./...) || exit 1; done

verify: ## fail if a generated file is out of date (mend with make fix)
	go run ./pkg/schemagen/cmd/schemagen -check
	go run ./services/reporter/fold/reportschema -check
	go run ./services/mirror/fleet/messages/mirrorschema -check

fix: ## write the generated files and the recorded reports
	go run ./pkg/schemagen/cmd/schemagen
	go run ./services/reporter/fold/reportschema
	go run ./services/mirror/fleet/messages/mirrorschema
	cd services/reporter && go test ./render -run Golden -update && go test ./fold -run Recorded -update

# A released schema never changes again: `make verify` refuses it from then on.
freeze: release-given verify ## write the schemas' hashes down for a release (RELEASE=v1.0)
	go run ./pkg/schemagen/cmd/schemagen -release $(RELEASE)

release-given:
	$(if $(RELEASE),,$(error say which release the schemas are frozen for: make freeze RELEASE=v1.0))

test: setup build lint verify jaeger minio peers python test-go ## set up and run everything

test-go:
	@labs=$$(go list $(LABS)); waiting=$$(go list $(WAITING)); alone=$$(go list $(TIMED)); \
	together=$$(go list $(UNTIMED) | grep -vxF -e "$$labs" -e "$$waiting" -e "$$alone"); \
	rest=$$(go list work | grep -vxF -e "$$together" -e "$$labs" -e "$$waiting"); \
	failed=0; \
	$(GOTEST) -p 2 $$together || failed=1; \
	$(GOTEST) -p 3 $$labs || failed=1; \
	$(GOTEST) -p 2 $$waiting || failed=1; \
	$(GOTEST) -p 1 $$rest || failed=1; \
	exit $$failed
	@for m in $(MODULES); do (cd $$m && GOWORK=off go build ./...) || { echo "$$m does not build alone"; exit 1; }; done

# FUZZTIME is how long each target is fuzzed.
FUZZTIME ?= 30s

# Before Go 1.27 a target may fail for nothing but that its time is over (go.dev/issue/75804).
fuzz: ## fuzz every target for FUZZTIME (30s), one after the other
	@failed=; mkdir -p out; \
	while IFS=: read -r file target; do \
		target=$${target#func }; package=./$$(dirname "$$file"); \
		echo "$$target in $$package"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" 2>&1 | tee out/fuzz.log || \
			grep -A1 "^--- FAIL: $$target " out/fuzz.log | grep -qx '    context deadline exceeded' || failed="$$failed $$package:$$target"; \
	done < <(grep -roE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' $(MODULES) | LC_ALL=C sort); \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

bench: postgres build ## measure, write out/bench/*.jsonl and print the figures
	go run ./tests/bench/cmd/bench -out out/bench

# BENCH_MIRROR= leaves out the cases with a million files, BENCH_MIRROR=-quick only tries it out.
BENCH_MIRROR := -million

bench-mirror: build minio peers ## race the mirror against mc and rclone, and write docs/mirror-bench.md
	go run ./tests/bench/cmd/bench-mirror $(BENCH_MIRROR)

clean: ## remove everything that was built or written
	rm -rf out
