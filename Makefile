# `make help` lists the targets.

SHELL := /bin/sh
# Whatever is built says from what it was built. A work tree without git says "devel".
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZ := 20000
# Arguments of the benchmarks: make bench BENCH="-run blob -quick".
BENCH :=
IMAGE := forebay:$(VERSION)

# Packages whose tests need neither root nor other programs.
QUICK = $$(go list ./... | grep -v -e /test/e2e -e /bench$$$$ -e /test/disktest -e /test/s3test -e /test/acme -e /test/soak -e /test/fleet -e /internal/fleet -e /cache/s3)

# Tools are built once for all clones of a machine, beside Go's module cache, under a name
# that changes with their sources and with Go.
TOOLS = $(shell dirname "$$(go env GOMODCACHE)")/forebay-tools
KEY = $(shell { cat $(1)/go.mod $(1)/go.sum $(wildcard $(1)/*.go); go env GOVERSION GOOS GOARCH; } | cksum | cut -d ' ' -f 1)
LINT := bin/golangci-lint
S3 := bin/versitygw
PEER := bin/registry
ZOT := bin/zot
PEBBLE := bin/pebble
# Clients that take long to build: some minutes each on two CPUs.
CLIENTS := bin/cosign2 bin/cosign3 bin/notation bin/nerdctl bin/buildkitd bin/buildctl bin/kaniko bin/rancher bin/talos bin/crictl bin/dockerd29 bin/stargz bin/ctr-remote

.PHONY: all
all: build quick ## build and run the quick tests (the default)

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## build bin/forebay, a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/forebay ./cmd/forebay

.PHONY: run
run: build ## start a mirror with the default settings
	bin/forebay serve

.PHONY: quick
quick: ## run the tests that need neither root nor other programs
	go test $(QUICK)

# The linter has vetted it all. What takes longest begins first, and waits for daemons while others are compiled and run:
# three packages at a time keep two processors busy.
# With -trimpath the tests of tools use what the end-to-end tests have compiled.
.PHONY: test
test: deps page-deps lint $(S3) $(PEBBLE) ## run the linter and all tests; installs what they need (as root)
	go build ./...
	go test -vet=off -race -timeout 15m ./test/mirrortest ./proxy ./internal/server ./upstream/...
	go test -vet=off -p 3 -timeout 50m ./test/e2e ./test/page ./test/disktest ./...
	go test -C tools/release -vet=off -trimpath -timeout 15m ./...
	go test -C tools/kube -vet=off -trimpath -timeout 15m ./...

# Of kills, losses of power and full disks `make test` takes a sample; which one is said where
# it fails. FOREBAY_DISKTEST_SEED takes that one again.
.PHONY: test-full
test-full: deps ## run the tests of disks with all their cases, some 20 minutes (as root)
	FOREBAY_DISKTEST_FULL=1 go test -count=1 -timeout 60m -v ./test/disktest

# The API server is some five minutes of compiling, so it is not part of "make test".
CONTROLPLANE = $(TOOLS)/controlplane-$(call KEY,tools/controlplane)
.PHONY: test-kube
test-kube: ## install, change and remove the chart by helm on a real API server of Kubernetes
	go build -C tools/controlplane -ldflags "-X k8s.io/component-base/version.gitVersion=$$(go list -C tools/controlplane -m -f '{{.Version}}' k8s.io/kubernetes)" \
		-o $(CONTROLPLANE)/kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
	go build -C tools/controlplane -o $(CONTROLPLANE)/etcd go.etcd.io/etcd/server/v3
	go build -C tools/kube -o $(CONTROLPLANE)/helm helm.sh/helm/v4/cmd/helm
	FOREBAY_CONTROLPLANE=$(CONTROLPLANE) go test -C tools/kube -count=1 -tags controlplane -timeout 20m -v .

.PHONY: test-fleet
test-fleet: deps $(S3) ## run the tests of several mirrors with a real engine between them at full length (as root)
	FOREBAY_FLEET_SOAK=2m go test -count=1 -timeout 20m -v ./internal/fleet ./test/fleet

DURATION := 2h
.PHONY: soak
soak: ## pull at random for DURATION, with faults, hostile neighbours and restarts
	FOREBAY_SOAK=$(DURATION) go test -count=1 -timeout 0 -v ./test/soak

.PHONY: race
race: ## run the quick tests under the race detector
	go test -race $(QUICK)

.PHONY: e2e
e2e: deps ## run the end-to-end tests with real clients (as root)
	go test -timeout 25m -v ./test/e2e

.PHONY: test-clients
test-clients: deps $(CLIENTS) ## run the end-to-end tests of clients that take long to build (as root)
	go vet -tags clients ./test/e2e
	go test -tags clients -count=1 -timeout 25m -v -run 'Signers|Nerdctl|BuildKit|K3s|Kaniko|Talos|GitHub|Stargz' ./test/e2e

# What sets machines up is installed on the machine of the test alone.
SETUP = .cache/e2e/setup
.PHONY: test-setup
test-setup: deps ## set machines up by Ansible and by cloud-init, as deploy has them (as root)
	mkdir -p $(SETUP)/partial
	apt-get install -y -q --no-install-recommends --download-only -o Dir::Cache::archives=$(CURDIR)/$(SETUP) ansible-core python3-apt cloud-init
	go vet -tags setup ./test/e2e
	go test -tags setup -count=1 -timeout 25m -v -run SetUp ./test/e2e

.PHONY: bench
bench: deps ## measure against nginx, net/http and the registry itself
	go run ./bench $(BENCH)

.PHONY: bench-peers
bench-peers: deps build $(PEER) $(ZOT) ## measure beside other mirrors, and write the table and the plots of docs/benchmarks.md
	go run ./bench/peers -programs bin -docs docs $(BENCH)

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZ inputs
	tools/fuzz.sh $(FUZZ)

.PHONY: lint
lint: $(LINT) ## check for wrong code and house rules
	$(LINT) run ./...

.PHONY: fmt
fmt: $(LINT) ## format all Go files
	$(LINT) fmt ./...

# It has hundreds of modules, so it has a go.mod of its own.
$(LINT): tools/go.mod tools/go.sum
	tool=$(TOOLS)/golangci-lint-$(call KEY,tools) && { test -x $$tool || go build -modfile=tools/go.mod -o $$tool github.com/golangci/golangci-lint/v2/cmd/golangci-lint; } && mkdir -p bin && ln -sf $$tool $@

# A real S3 server for tests, with a go.mod of its own.
$(S3): tools/s3/go.mod tools/s3/go.sum
	tool=$(TOOLS)/versitygw-$(call KEY,tools/s3) && { test -x $$tool || go build -C tools/s3 -o $$tool github.com/versity/versitygw/cmd/versitygw; } && mkdir -p bin && ln -sf $$tool $@

# A real ACME server for tests, with a go.mod of its own.
$(PEBBLE): tools/pebble/go.mod tools/pebble/go.sum
	tool=$(TOOLS)/pebble-$(call KEY,tools/pebble) && { test -x $$tool || go build -C tools/pebble -o $$tool github.com/letsencrypt/pebble/v2/cmd/pebble; } && mkdir -p bin && ln -sf $$tool $@

# distribution v3, with a go.mod of its own.
$(PEER): tools/peers/go.mod tools/peers/go.sum
	tool=$(TOOLS)/registry-$(call KEY,tools/peers) && { test -x $$tool || go build -C tools/peers -o $$tool github.com/distribution/distribution/v3/cmd/registry; } && mkdir -p bin && ln -sf $$tool $@

# By the tags without which zot would want libraries in C, and none of what it does besides.
$(ZOT): tools/zot/go.mod tools/zot/go.sum
	tool=$(TOOLS)/zot-$(call KEY,tools/zot) && { test -x $$tool || CGO_ENABLED=0 go build -C tools/zot -tags sync,containers_image_openpgp,exclude_graphdriver_btrfs -o $$tool zotregistry.io/zot/cmd/zot; } && mkdir -p bin && ln -sf $$tool $@

# Those of CLIENTS, each with a go.mod of its own.
define client
bin/$(1): $(wildcard tools/$(2)/*)
	tool=$$(TOOLS)/$(1)-$$(call KEY,tools/$(2)) && { test -x $$$$tool || CGO_ENABLED=0 go build -C tools/$(2) -trimpath -ldflags '-s -w' -o $$$$tool $(3); } && mkdir -p bin && ln -sf $$$$tool $$@
endef
$(eval $(call client,cosign2,cosign2,github.com/sigstore/cosign/v2/cmd/cosign))
$(eval $(call client,cosign3,cosign3,github.com/sigstore/cosign/v3/cmd/cosign))
$(eval $(call client,notation,notation,github.com/notaryproject/notation/cmd/notation))
$(eval $(call client,nerdctl,nerdctl,github.com/containerd/nerdctl/cmd/nerdctl))
$(eval $(call client,buildkitd,buildkit,github.com/moby/buildkit/cmd/buildkitd))
$(eval $(call client,buildctl,buildkit,github.com/moby/buildkit/cmd/buildctl))
$(eval $(call client,kaniko,kaniko,github.com/GoogleContainerTools/kaniko/cmd/executor))
$(eval $(call client,rancher,rancher,.))
$(eval $(call client,talos,talos,.))
$(eval $(call client,crictl,crictl,sigs.k8s.io/cri-tools/cmd/crictl))
$(eval $(call client,dockerd29,dockerd,github.com/moby/moby/v2/cmd/dockerd))
$(eval $(call client,stargz,stargz,.))
$(eval $(call client,ctr-remote,ctr-remote,github.com/containerd/stargz-snapshotter/cmd/ctr-remote))

.PHONY: deps
deps: ## install the Debian packages that the tests need (as root)
	tools/deps.sh

# Packages for the tests of the dashboard, as the lock file has them; no script of theirs runs.
.PHONY: page-deps
page-deps: tools/page/node_modules/.package-lock.json ## install what the tests of the dashboard need from npm

tools/page/node_modules/.package-lock.json: tools/page/package-lock.json | deps
	npm ci --prefix tools/page
	touch $@

# RELEASE has the rest: -url where the files will be had, -key that signs. What is not committed
# is not in it.
.PHONY: release
release: ## make a release in dist/release: make release VERSION=v1.2.3 RELEASE="-key FILE -url URL"
	rm -rf dist/release
	go run -C tools/release . -root $(CURDIR) -out $(CURDIR)/dist/release $(if $(filter command,$(firstword $(origin VERSION))),-version $(VERSION)) $(RELEASE)

.PHONY: test-release
test-release: ## make a release of all platforms twice, and compare and check both; an hour of one CPU
	FOREBAY_RELEASE_FULL=1 go test -C tools/release -count=1 -timeout 120m -v .

.PHONY: image
image: dist/image ## build the container image from bin/forebay (needs docker)
	docker build --target ready --tag $(IMAGE) .

# The files of the container image: the binary, certificates, and an empty folder that
# will belong to the image's user.
.PHONY: dist/image
dist/image: build
	rm -rf $@
	mkdir -p $@/root/etc/ssl/certs $@/data
	cp bin/forebay $@/root/forebay
	cp /etc/ssl/certs/ca-certificates.crt $@/root/etc/ssl/certs/

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist .cache
