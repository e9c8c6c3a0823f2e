// Package archtest keeps the house rules that the compiler does not know: who may
// import whom, and what no file may do. It reads the source files of the whole module.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "forebay"

// source is one parsed Go file.
type source struct {
	name  string // slash-separated, from the module's root
	pkg   string // its folder: "cache/disk"
	test  bool
	file  *ast.File
	lines int
	set   *token.FileSet
}

// sources parses all Go files of the module. Nested modules are not part of it.
func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			return pruned(name, rel)
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, source{
			name: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"),
			file: file, set: set, lines: set.File(file.Pos()).LineCount(),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d Go files below %q", len(all), root)
	}
	return all
}

// pruned leaves out folders that are no part of the module, as the go command does.
func pruned(name, rel string) error {
	if rel == "." {
		return nil
	}
	base := path.Base(rel)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "bin" || base == "dist" {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func (s source) imports() []string {
	var all []string
	for _, spec := range s.file.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			all = append(all, name)
		}
	}
	return all
}

func (s source) at(node ast.Node) string {
	return s.name + ":" + strconv.Itoa(s.set.Position(node.Pos()).Line)
}

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
		"upstream/auth":     append(leaf(), "upstream/dial"),
		"upstream/dial":     {"config/unit", "internal/registries", "internal/wire"},

		"internal/flight":        {},
		"internal/lane":          {"internal/pull"},
		"internal/allowance":     {"internal/pull"},
		"config/rule":            {"cache/policy", "config/key", "config/parse", "internal/secret"},
		"config/section":         {"config/key", "config/parse", "internal/secret", "internal/wire"},
		"config/parse":           {"internal/wire"},
		"config/key":             {"config/parse", "config/unit", "internal/secret"},
		"config/unit":            {"internal/wire"},
		"internal/manifest":      {"internal/wire"},
		"internal/logkey":        {},
		"internal/registries":    {},
		"internal/regfolder":     {"internal/manifest", "internal/wire"},
		"internal/reread":        {"internal/logkey"},
		"internal/statefile":     {},
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
		"internal/doctor":        {"internal/clientconfig", "internal/pull", "internal/wire"},
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

func TestCacheSpeaksNoHTTP(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.pkg != "cache" && !strings.HasPrefix(s.pkg, "cache/") || s.pkg == "cache/s3" {
			continue // a bucket speaks nothing else
		}
		for _, name := range s.imports() {
			if name == "net/http" || name == "net" {
				t.Errorf("%s imports %s", s.name, name)
			}
		}
	}
}

// What an upstream answered is told by the kind and the detail of a pull.Error. A number
// in a comparison would bring HTTP in by the back door.
func TestCacheKnowsNoStatus(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.pkg != "cache" && !strings.HasPrefix(s.pkg, "cache/") || s.pkg == "cache/s3" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			for _, pair := range compared(n) {
				if number := status(pair[0]); number >= 400 || number >= 200 && mentionsStatus(pair[1]) {
					t.Errorf("%s: HTTP status %d below the proxy: give pull.Error a kind or a detail", s.at(n), number)
				}
			}
			return true
		})
	}
}

// compared returns what n compares with what, each pair in both orders.
func compared(n ast.Node) (pairs [][2]ast.Expr) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		switch n.Op {
		case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
			return [][2]ast.Expr{{n.X, n.Y}, {n.Y, n.X}}
		}
	case *ast.SwitchStmt:
		for _, clause := range n.Body.List {
			for _, e := range clause.(*ast.CaseClause).List {
				pairs = append(pairs, [2]ast.Expr{e, n.Tag})
			}
		}
	}
	return pairs
}

// status returns the number that e is if it may be a status, else 0.
func status(e ast.Expr) int {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.INT {
		return 0
	}
	n, err := strconv.Atoi(literal.Value)
	if err != nil || n < 200 || n > 599 {
		return 0
	}
	return n
}

// mentionsStatus reports whether e has to do with something named a status.
func mentionsStatus(e ast.Expr) bool {
	found := false
	if e != nil {
		ast.Inspect(e, func(n ast.Node) bool {
			name, ok := n.(*ast.Ident)
			found = found || ok && strings.Contains(strings.ToLower(name.Name), "status")
			return true
		})
	}
	return found
}

// So that it can be started anywhere; but for a digest that the standard library lacks.
func TestTestHubNeedsOnlyTheStandardLibrary(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.pkg != "test/hubtest" {
			continue
		}
		for _, name := range s.imports() {
			if first, _, _ := strings.Cut(name, "/"); name != "github.com/zeebo/blake3" && (strings.Contains(first, ".") || first == module) {
				t.Errorf("%s imports %s", s.name, name)
			}
		}
	}
}

// A sleep waits too long or not long enough. Inside a synctest bubble time is
// virtual, and a sleep is exact. Whether a helper is called from a bubble cannot be
// seen, so the file as a whole must be one of bubbles.
func TestNothingSleeps(t *testing.T) {
	for _, s := range sources(t) {
		if s.test && slices.Contains(s.imports(), "testing/synctest") {
			continue
		}
		calls(s.file, func(call *ast.CallExpr) {
			if selects(call.Fun, "time", "Sleep") {
				t.Errorf("%s: time.Sleep in a file without synctest: wait for the condition", s.at(call))
			}
		})
	}
}

// A test that skips itself is a test that is not run where it matters.
func TestNoTestSkipsItself(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		calls(s.file, func(call *ast.CallExpr) {
			for _, receiver := range []string{"t", "b", "f", "tb"} {
				for _, method := range []string{"Skip", "Skipf", "SkipNow"} {
					if selects(call.Fun, receiver, method) {
						t.Errorf("%s: %s.%s: install what the test needs (tools/deps.sh)", s.at(call), receiver, method)
					}
				}
			}
		})
	}
}

func calls(n ast.Node, f func(call *ast.CallExpr)) {
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			f(call)
		}
		return true
	})
}

func selects(e ast.Expr, pkg, name string) bool {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	ident, ok := selector.X.(*ast.Ident)
	return ok && ident.Name == pkg
}

// State of the process is state that tests share and nobody owns. Constants in the
// form of a variable are fine: sentinels, compiled patterns, tables.
func TestNoPackageKeepsState(t *testing.T) {
	for _, s := range sources(t) {
		// The test hub may remember what is slow to compute and never changes. What maps
		// files is one for the whole process, and the index has to be in it.
		if s.test || s.pkg == "test/hubtest" || s.name == "cache/index/blocks/mapper.go" {
			continue
		}
		for _, decl := range s.file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				checkVariable(t, s, spec.(*ast.ValueSpec), group.Doc)
			}
		}
	}
}

func checkVariable(t *testing.T, s source, spec *ast.ValueSpec, doc *ast.CommentGroup) {
	t.Helper()
	for i, name := range spec.Names {
		switch {
		case name.Name == "_": // "type X implements Y"
		case filledIn(doc) || filledIn(spec.Doc):
		case i < len(spec.Values) && (constant(spec.Values[i]) || sentinel(name.Name, spec.Values[i])):
		default:
			t.Errorf("%s: package variable %s: make it a field, or a function that returns it", s.at(name), name.Name)
		}
	}
}

// filledIn reports whether the build fills a variable: go:embed, or the linker's -X,
// of which the comment says so.
func filledIn(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, line := range doc.List {
		if strings.HasPrefix(line.Text, "//go:embed ") || strings.Contains(line.Text, "set by the linker") {
			return true
		}
	}
	return false
}

// constant reports whether e is a constant in the form of a variable.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CompositeLit:
		return true
	case *ast.CallExpr:
		for _, f := range [][2]string{{"errors", "New"}, {"fmt", "Errorf"}, {"regexp", "MustCompile"}, {"strings", "NewReplacer"}, {"strings", "Join"}, {"crc32", "MakeTable"}, {"netip", "MustParsePrefix"}} {
			if selects(e.Fun, f[0], f[1]) {
				return true
			}
		}
	}
	return false
}

// sentinel reports whether e is an error of a type of our own, or that of a package below
// by the same name.
func sentinel(name string, e ast.Expr) bool {
	if below, ok := e.(*ast.SelectorExpr); ok {
		return strings.HasPrefix(name, "Err") && below.Sel.Name == name
	}
	pointer, ok := e.(*ast.UnaryExpr)
	return ok && pointer.Op == token.AND && strings.HasPrefix(strings.ToLower(name), "err")
}

func TestEveryPackageSaysWhatItPromises(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		said[s.pkg] = said[s.pkg] || s.file.Doc != nil
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// Content changes in one place: disk, index, bounds and bucket together. Floors above the
// store read its Disk and Index, and change them through its methods.
func TestOnlyTheStoreChangesContent(t *testing.T) {
	changes := []string{"PutBlob", "DeleteBlob", "DeleteBlobIfGone", "DeleteLink", "Quarantine", "KeepFile", "KeepBytes"}
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.pkg, "cache") || slices.Contains([]string{"cache/store", "cache/index", "cache/disk", "cache/tier"}, s.pkg) {
			continue
		}
		calls(s.file, func(call *ast.CallExpr) {
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return
			}
			of, ok := f.X.(*ast.SelectorExpr)
			onDisk := ok && of.Sel.Name == "Disk" && slices.Contains([]string{"Put", "Remove", "Quarantine"}, f.Sel.Name)
			if onDisk || slices.Contains(changes, f.Sel.Name) && !(ok && of.Sel.Name == "store") {
				t.Errorf("%s: %s changes content past the store", s.at(call), f.Sel.Name)
			}
		})
	}
}

// What the repository refers to must be in it: notes kept elsewhere are nowhere for a reader.
func TestNothingRefersToNotesKeptElsewhere(t *testing.T) {
	root := filepath.Join("..", "..")
	notes := "facts" + "/"
	read := 0
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if base == ".git" || base == "node_modules" || base == "bin" || base == "dist" {
				return fs.SkipDir
			}
			return nil
		}
		texts := []string{".go", ".md", ".yaml", ".yml", ".js", ".mjs", ".json", ".sh", ".html", ".css", ".service"}
		if !entry.Type().IsRegular() || !slices.Contains(texts, filepath.Ext(base)) && base != "Makefile" && base != "Dockerfile" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		read++
		for i, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, notes) {
				t.Errorf("%s:%d refers to %s, which is not in the repository", name, i+1, notes)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 100 {
		t.Fatalf("read only %d files below %q", read, root)
	}
}

// A test that is named after a case, such as TestT42_… or TestM05, can be looked up, and so
// can a comment: its file says where.
func TestCasesAreDescribed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "clients.md"))
	if err != nil {
		t.Fatal(err)
	}
	described, used := map[string]bool{}, map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([TM][0-9]{2}) \|`).FindAllStringSubmatch(string(text), -1) {
		described[row[1]] = true
	}
	number := regexp.MustCompile(`\b([TMX]-?[0-9]{1,2})b?\b`)
	named := regexp.MustCompile(`^Test((?:[TMX][0-9]+_?)+)`)
	for _, s := range sources(t) {
		var said []string
		explained := false
		for _, group := range s.file.Comments {
			for _, found := range number.FindAllStringSubmatch(group.Text(), -1) {
				said = append(said, found[1])
			}
			explained = explained || strings.Contains(group.Text(), "docs/clients.md")
		}
		if len(said) > 0 && !explained {
			t.Errorf("%s names case %s and not docs/clients.md, which describes it", s.name, said[0])
		}
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && s.test && named.MatchString(f.Name.Name) {
				said = append(said, regexp.MustCompile(`[TMX][0-9]+`).FindAllString(named.FindStringSubmatch(f.Name.Name)[1], -1)...)
			}
		}
		for _, name := range said {
			if used[name] = true; !described[name] {
				t.Errorf("%s names case %s, which docs/clients.md does not describe", s.name, name)
			}
		}
	}
	for name := range described {
		if !used[name] {
			t.Errorf("docs/clients.md describes case %s, which nothing names", name)
		}
	}
}

// Long files are for reviewers to judge, so this only tells.
func TestTellOfLongFiles(t *testing.T) {
	const linesMost = 600
	for _, s := range sources(t) {
		if s.lines > linesMost {
			t.Logf("%s has %d lines; more than %d are hard to read", s.name, s.lines, linesMost)
		}
	}
}
