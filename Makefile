# dogestry: see README.md. Everything a target needs, it sets up itself.
SHELL := /bin/bash
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO_FILES = $(shell git ls-files --cached --others --exclude-standard '*.go')

.PHONY: build
build: ## build bin/dogestry, static
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/dogestry/dogestry/internal/cli.Version=$(VERSION)" -o bin/dogestry ./cmd/dogestry

.PHONY: demo
demo: ## the whole journey on a small real image
	script/bootstrap demo
	$(MAKE) --no-print-directory build
	script/demo

.PHONY: test
test: ## unit tests, suites, scripts, the journey on a real engine
	script/bootstrap test
	go test -timeout 20m ./...

.PHONY: check
check: ## what CI runs before the tests: format, vet, static analysis, race detector
	script/bootstrap check
	@bad=$$(.cache/bin/gofumpt -l $(GO_FILES)); if [ -n "$$bad" ]; then echo "not formatted (run make format):"; echo "$$bad"; exit 1; fi
	go vet ./...
	.cache/bin/staticcheck ./...
	go mod tidy -diff
	go test -race -short -timeout 15m ./...

.PHONY: format
format: ## format all Go files
	script/bootstrap check
	.cache/bin/gofumpt -w $(GO_FILES)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (default 20s) each
	script/fuzz

.PHONY: bench
bench: ## the figures of docs/figures.md, each against its peer in the same run
	script/bootstrap test
	$(MAKE) --no-print-directory build
	go run ./bench

.PHONY: clean
clean: ## remove what was built; the cache of base images stays
	rm -rf bin

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
