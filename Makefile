# dogestry: see README.md. Everything a target needs, it sets up itself.
SHELL := /bin/bash
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
GO_FILES = $(shell git ls-files --cached --others --exclude-standard '*.go')

# All packages, those first whose tests take longest: the others fit beside them.
PACKAGES = ./internal/transfer ./internal/cli ./internal/repo ./internal/storage/s3 ./...

# Says which engines the tests run on: go test keeps to itself what passing tests print.
LIST_ENGINES = go test -count=1 -run '^TestKindsOnThisMachine$$' -v ./internal/enginetest | { grep '^engine ' || true; }

.PHONY: build
build: ## build bin/dogestry, static
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/dogestry/dogestry/internal/cli.Version=$(VERSION) -X github.com/dogestry/dogestry/internal/cli.Commit=$(COMMIT)" -o bin/dogestry ./cmd/dogestry

IMAGE ?= dogestry:$(VERSION)

.PHONY: image
image: ## a container image of dogestry, without a network; IMAGE=name:tag chooses its name
	script/bootstrap engine
	CGO_ENABLED=0 GOOS=linux $(MAKE) --no-print-directory build
	script/image $(IMAGE)

.PHONY: man
man: ## man pages in bin/man/man1, and completions in bin/completions
	rm -rf bin/man bin/completions
	go run ./release -docs -version $(VERSION) -o bin

.PHONY: deb
deb: ## a Debian package for this machine's architecture, bin/deb/dogestry_VERSION_ARCH.deb
	go run ./release -o bin/deb -version $(VERSION) -commit "$(COMMIT)" -only linux/$(shell go env GOARCH)
	script/deb bin/deb/dogestry_$(VERSION)_linux_$(shell go env GOARCH).tar.gz

.PHONY: test-deb
test-deb: ## the Debian package installed, run, upgraded, removed and purged in a fresh Debian with systemd; as root
	script/bootstrap deb
	$(MAKE) --no-print-directory deb
	script/test-deb bin/deb/dogestry_*.deb

.PHONY: release
release: ## archives and packages for all systems, bills of materials, notes and SHA256SUMS, in bin/release
	go run ./release -version $(VERSION) -commit "$(COMMIT)"
	for arch in amd64 arm64; do script/deb bin/release/dogestry_$(VERSION)_linux_$$arch.tar.gz; done
	script/changelog $(VERSION) >bin/release/NOTES.md
	go run ./release -sums

.PHONY: test-release
test-release: ## vet for all systems; then two releases of the last commit, made in two clones, have the same bytes
	script/test-release

.PHONY: demo
demo: ## the whole journey on a small real image
	script/bootstrap demo
	$(MAKE) --no-print-directory build
	script/demo

# Neither this nor the tests of `make check` are vetted: `make check` vets all, by more than go test would. Half more
# packages at once than there are cores, since tests wait, too: for servers, for engines, for a second to pass.
.PHONY: test
test: ## unit tests, suites, scripts, the journey on a real engine
	script/bootstrap test
	@$(LIST_ENGINES)
	go test -vet=off -p $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)) -timeout 30m $(PACKAGES)

.PHONY: test-engines
test-engines: ## the tests that use engines, whole, on all kinds of them: also Docker 29, which it builds, and Podman
	script/bootstrap test engines
	@$(LIST_ENGINES)
	DOGESTRY_TEST_ENGINES=system,29o,29c,podman go test -count=1 -timeout 30m ./internal/engine/layerstore ./internal/engine/contentstore
	DOGESTRY_TEST_ENGINES=system,29o,29c,podman go test -count=1 -timeout 60m ./internal/transfer ./internal/cli ./internal/engine ./internal/enginetest -every

.PHONY: test-transports
test-transports: ## the whole suites of stores and of remotes behind ssh and on an rsync server: some ten minutes
	script/bootstrap test
	go test -count=1 -timeout 30m ./internal/storage/ssh ./internal/storage/rsync -run '^TestStore$$' -every
	go test -count=1 -timeout 60m ./internal/repo -run '^TestRemote(SSH|Rsync)$$' -every -v

.PHONY: check
check: ## what CI runs before the tests: format, vet, static analysis, race detector
	script/bootstrap check test
	@bad=$$(.cache/bin/gofumpt -l $(GO_FILES)); if [ -n "$$bad" ]; then echo "not formatted (run make format):"; echo "$$bad"; exit 1; fi
	go vet ./...
	.cache/bin/staticcheck ./...
	go mod tidy -diff
	go test -race -short -vet=off -timeout 25m $(PACKAGES)

.PHONY: format
format: ## format all Go files
	script/bootstrap check
	.cache/bin/gofumpt -w $(GO_FILES)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (default 20s) each
	script/fuzz

.PHONY: bench
bench: ## the figures of docs/figures.md, each against its peer in the same run; BENCH="-engines 29c -measure registry" chooses
	script/bootstrap test bench
	$(MAKE) --no-print-directory build
	go run ./bench $(BENCH)

.PHONY: bench-engines
bench-engines: ## what depends on the engine, measured on each kind of Docker Engine; builds Docker 29
	script/bootstrap test bench engines
	$(MAKE) --no-print-directory build
	go run ./bench -engines system,29o,29c -measure directory,registry,link

.PHONY: soak
soak: ## pushes, pulls, removals and collections at once, some killed, on a directory and an S3 server: nothing is lost; SOAK="-seed 7" chooses
	script/bootstrap test
	go run ./soak $(SOAK)

.PHONY: crash
crash: ## every operation of push, copy, tag, rm, prune and gc killed in turn, in memory, on a directory and an S3 server; every schedule of two changes; every state of the model of garbage collection
	script/bootstrap test
	go test -count=1 -timeout 30m ./internal/repo -run '^(TestCrashS3|TestSchedules)$$' -every -v
	go test -count=1 -timeout 30m ./internal/lease/model -every
	go run ./soak -crash

.PHONY: fleet
fleet: ## a pull onto twelve private engines at once: one slow, one full, one killed in mid-load; needs root, minutes and 20 GB
	script/bootstrap test
	go test -count=1 -timeout 60m ./internal/fleet -run '^TestTwelveEngines$$' -twelve -v

.PHONY: clean
clean: ## remove what was built; the cache of base images stays
	rm -rf bin

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16
