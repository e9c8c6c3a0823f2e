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
