package archtest

import (
	"slices"
	"strings"
	"testing"
)

// leaf are the packages that every other may import.
func leaf() []string {
	return []string{"internal/pull", "internal/wire", "internal/logkey", "internal/sums", "internal/tally", "internal/tracing", "internal/statefile", "internal/flight", "internal/lane", "internal/allowance", "internal/manifest", "internal/recent", "internal/registries"}
}

// anything lets a package import all others.
const anything = "*"

// importTable says which of our packages each may import. A new package needs a row.
func importTable() map[string][]string {
	return map[string][]string{
		"cmd/forebay":   {anything},
		"deploy/config": {},
		"config":        {"config/rule", "config/section", "internal/registries", "internal/secret", "config/fault", "config/key", "config/parse", "config/unit", "internal/wire"},

		// The cache and its floors: each knows those below it.
		"proxy":        append(leaf(), "cache", "cache/store"), // the latter its tests
		"cache/upkeep": append(leaf(), "cache/wanted", "cache", "cache/image", "cache/store", "cache/event", "cache/disk", "cache/index", "cache/tier", "cache/vanished"),
		"cache":        append(leaf(), "cache/image", "cache/fill", "cache/policy", "cache/store", "cache/event", "cache/health", "cache/disk", "cache/index", "cache/tier", "cache/vanished", "cache/wanted"),
		"cache/image":  append(leaf(), "cache/store", "cache/event", "cache/index"),
		"cache/fill":   append(leaf(), "cache/store", "cache/disk"),
		"cache/store":  append(leaf(), "cache/event", "cache/disk", "cache/evict", "cache/index", "cache/refs", "cache/tier"),
		"cache/event":  {"cache/index", "internal/pull"},
		"cache/health": {"cache/event", "internal/pull"},

		// Rules as values: whoever reads or writes them needs nothing else of the cache.
		"cache/policy":   {"config/unit", "internal/wire"},
		"cache/disk":     leaf(),
		"cache/evict":    {},
		"cache/wanted":   {"internal/statefile"},
		"cache/vanished": {"cache/event", "cache/index", "internal/pull", "internal/statefile"},
		"cache/index":    append(leaf(), "cache/index/blocks", "cache/index/durable", "cache/index/journal", "cache/index/row"),
		"cache/tier":     append(leaf(), "cache/disk", "cache/index"),
		"cache/refs":     append(leaf(), "cache/index", "cache/index/journal", "cache/tier"),
		// What the index is made of; nobody else needs it.
		"cache/index/blocks":  {"cache/index/durable", "internal/logkey"},
		"cache/index/durable": {},
		"cache/index/journal": {"cache/index/durable", "cache/index/row", "internal/wire"},
		"cache/index/row":     {"internal/wire"},
		// Its tests run the conformance suite, and a disk in front of it.
		"cache/s3":        append(leaf(), "test/storetest", "cache/disk", "cache/index", "cache/tier", "test/s3test"),
		"test/storetest":  append(leaf(), "cache", "cache/disk", "cache/index"),
		"upstream/stall":  {"internal/wire"},
		"upstream":        append(leaf(), "config/unit", "upstream/stall", "upstream/auth", "upstream/dial", "upstream/governor", "upstream/heads", "upstream/places"),
		"upstream/hubapi": append(leaf(), "upstream", "upstream/auth", "upstream/dial"),
		"upstream/issue":  {"internal/logkey", "internal/wire"},
		"upstream/ecr":    append(leaf(), "upstream", "upstream/auth", "upstream/issue"), // its tests do
		"upstream/gcp":    append(leaf(), "upstream", "upstream/auth", "upstream/issue"), // its tests do
		"upstream/azure":  append(leaf(), "upstream", "upstream/auth", "upstream/issue"), // its tests do

		"upstream/governor": {"internal/wire"},
		"upstream/heads":    {},
		"upstream/places":   {},
		"upstream/auth":     append(leaf(), "internal/secret", "upstream/dial"),
		"upstream/dial":     {"config/unit", "internal/registries", "internal/wire"},

		"internal/flight":        {},
		"internal/lane":          {"internal/pull"},
		"internal/allowance":     {"internal/pull"},
		"config/rule":            {"cache/policy", "config/key", "config/parse", "internal/secret"},
		"config/section":         {"config/key", "config/parse", "internal/secret", "internal/wire"},
		"config/parse":           {"internal/registries", "internal/wire"},
		"config/key":             {"config/parse", "config/unit", "internal/secret"},
		"config/unit":            {"internal/wire"},
		"internal/manifest":      {"internal/wire"},
		"internal/logkey":        {},
		"internal/registries":    {},
		"internal/regfolder":     {"internal/manifest", "internal/wire"},
		"internal/reread":        {"internal/logkey"},
		"internal/statefile":     {"internal/secret"},
		"internal/recent":        {},
		"internal/secret":        {},
		"internal/sums":          {"internal/wire"},
		"internal/bundle":        leaf(),
		"internal/pull":          {},
		"internal/wire":          {"internal/registries"},
		"internal/admin":         append(leaf(), "internal/fleet", "internal/authn", "internal/session", "cache", "cache/image", "cache/vanished", "cache/wanted", "cache/store", "cache/upkeep", "cache/tier", "cache/event", "internal/activity", "internal/bundle", "internal/imageset", "internal/prefetch", "internal/trouble", "internal/govern", "internal/rules"),
		"internal/govern":        append(leaf(), "cache/policy", "internal/rules"),
		"internal/rules":         append(leaf(), "cache", "cache/event", "cache/image", "cache/index", "cache/policy", "cache/store"),
		"internal/clientconfig":  {},
		"internal/onclient":      append(leaf(), "internal/clientconfig", "internal/command", "internal/doctor"),
		"internal/observe":       append(leaf(), "config", "config/parse"),
		"internal/doctor":        {"internal/clientconfig", "internal/pull", "internal/registries", "internal/wire"},
		"internal/tally":         {},
		"internal/tracing":       {},
		"internal/metrics":       append(leaf(), "internal/fleet", "cache", "cache/event", "cache/store", "cache/upkeep", "cache/tier", "internal/notify", "internal/rules", "internal/trouble", "proxy", "upstream", "test/hubtest", "test/mirrortest"), // the last two its tests
		"internal/trouble":       append(leaf(), "internal/fleet", "cache", "cache/health", "cache/image", "cache/store", "cache/upkeep", "upstream", "upstream/governor"),                                                                               // the last its tests
		"internal/server":        {"internal/logkey", "internal/reread"},
		"internal/webhook":       leaf(),
		"internal/fleet/answers": {},
		"internal/fleet":         append(leaf(), "internal/fleet/answers", "upstream", "upstream/governor", "cache", "cache/store", "cache/disk", "cache/index", "cache/tier", "config/parse", "internal/recent", "internal/statefile"),
		"internal/notify":        append(leaf(), "cache/event", "upstream/dial"),
		"internal/signed":        {"internal/wire"},
		"internal/authn":         {"internal/lane", "internal/pull", "internal/reread", "internal/wire"},
		"internal/audit":         {"internal/logkey", "internal/wire", "proxy"},
		"internal/access":        {"internal/allowance", "internal/authn", "internal/flight", "internal/pull", "internal/wire", "proxy"},
		"config/fault":           {},
		"internal/session":       {"internal/statefile"},
		// Files that name images.
		"internal/imageset": leaf(),
		"internal/prefetch": append(leaf(), "cache", "cache/store", "cache/upkeep", "internal/imageset"),
		// Whom the dashboard tells of, and the dashboard.
		"internal/activity": {"internal/logkey", "internal/nodes", "internal/recent", "internal/reread", "internal/tally", "internal/wire"},
		"internal/nodes":    {"internal/logkey"},
		"internal/page":     {"internal/wire"},
		// What all commands share, how they reach a mirror, what they print, and those of the operator.
		"internal/command":     {"config", "internal/logkey"},
		"internal/adminclient": append(leaf(), "internal/fleet", "cache/upkeep", "config", "internal/secret", "internal/admin", "internal/bundle", "internal/command", "internal/server", "internal/terminal"),
		"internal/operate": append(leaf(), "cache/image", "cache/upkeep", "config", "config/unit", "upstream", "upstream/hubapi", "internal/access", "internal/admin", "internal/adminclient", "internal/authn",
			"internal/carry", "internal/command", "internal/imageset", "internal/prefetch", "internal/terminal", "internal/trouble"),
		"internal/carry": append(leaf(), "cache/disk", "cache/event", "config", "config/parse", "internal/notify", "cache/upkeep", "internal/admin", "internal/adminclient", "internal/bundle", "internal/command", "internal/govern", "internal/imageset",
			"internal/regfolder", "internal/terminal"),
		"internal/terminal": append(leaf(), "internal/fleet", "config/unit", "internal/admin", "internal/prefetch"), // the last its tests

		// The test hub shares no parser with the product, so that the two can disagree.
		"test/hubtest": {},
		// A real ACME server beside a mirror.
		"test/acme": {},
		// A real S3 server and a proxy in front of it that misbehaves; its tests run a whole mirror.
		"test/s3test": append(leaf(), "cache", "cache/store", "cache/upkeep", "cache/index", "cache/s3", "cache/tier", "test/hubtest", "test/mirrortest"),
		// A whole mirror in a test's process.
		"test/mirrortest": append(leaf(), "cache", "cache/upkeep", "proxy", "upstream", "test/hubtest", "internal/server"),

		// An upstream in memory, for tests of the cache and its floors.
		"test/cachetest": {"internal/pull"},

		"test/archtest":    {},
		"bench":            {anything},
		"test/conformance": {anything},
		"test/e2e":         {anything},
		"test/disktest":    {anything},
		"test/page":        {anything},
		"test/fleet":       {"test/hubtest", "test/s3test"},
		"test/soak":        {"test/hubtest"},
		"bench/evictsim":   {"cache/evict"},
		"bench/peers":      {"test/hubtest"},
	}
}

// testsMayImport are the packages that only tests may import, beside their own row.
func testsMayImport() []string {
	return []string{"test/hubtest", "test/mirrortest", "test/storetest", "test/cachetest"}
}

func TestImportsGoOneWay(t *testing.T) {
	table := importTable()
	for _, s := range sources(t) {
		allowed, known := table[s.pkg]
		if !known {
			t.Errorf("%s: package %s has no row in the import table of test/archtest", s.name, s.pkg)
			continue
		}
		for _, name := range s.imports() {
			ours, ok := strings.CutPrefix(name, module+"/")
			switch {
			case !ok || slices.Contains(allowed, anything) || slices.Contains(allowed, ours):
			case s.test && ours == s.pkg:
			case s.test && s.pkg != "test/hubtest" && slices.Contains(testsMayImport(), ours):
			default:
				t.Errorf("%s imports %s; package %s may import only %v", s.name, ours, s.pkg, allowed)
			}
		}
	}
}
