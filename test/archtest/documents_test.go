package archtest

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readText reads a file of the repository.
func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whoever is called at night finds what to do under the alert's name.
func TestEveryAlertHasItsRunbook(t *testing.T) {
	text := readText(t, "docs/operations.md")
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (Forebay\w+)\n\n\S`).FindAllStringSubmatch(text, -1) {
		headings[m[1]] = true
	}
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readText(t, "deploy/prometheus/forebay.alerts.yml"), -1)
	if len(alerts) < 10 {
		t.Fatalf("found only %d alerts", len(alerts))
	}
	for _, m := range alerts {
		if !headings[m[1]] {
			t.Errorf("docs/operations.md does not say what to do on %s", m[1])
		}
		delete(headings, m[1])
	}
	for name := range headings {
		t.Errorf("docs/operations.md has %s, which is no alert", name)
	}
}

// The page tells of each kind of event in words, and of no other.
func TestEveryEventHasItsWordsOnThePage(t *testing.T) {
	_, text, _ := strings.Cut(readText(t, "internal/page/assets/parts.js"), "const eventWords = {")
	text, _, _ = strings.Cut(text, "};")
	named := func(pattern, text string) (names []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return names
	}
	told, kinds := named(`(\w+): \["`, text), named(`Kind *= "(\w+)"`, readText(t, "cache/event/event.go"))
	if len(kinds) < 30 || !slices.Equal(told, kinds) {
		t.Errorf("the page has words for %q,\nevents are %q", told, kinds)
	}
}

// verb is where a message has something of its own.
var verb = regexp.MustCompile(`%[-+#]?[0-9.]*[a-zA-Z]`)

// pattern is a message with … for what differs.
func pattern(message string) string {
	message = strings.ReplaceAll(verb.ReplaceAllString(message, "…"), "%%", "%")
	return regexp.MustCompile(`…+`).ReplaceAllString(message, "…")
}

// words counts those of a message that are always the same.
func words(pattern string) int {
	return len(regexp.MustCompile(`[A-Za-z]{2,}`).FindAllString(strings.ReplaceAll(pattern, "…", " "), -1))
}

// messages are the texts of a package that people get to see.
func messages(s source) []string {
	var all []string
	text := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if m, err := strconv.Unquote(lit.Value); err == nil {
				all = append(all, pattern(m))
			}
		}
	}
	if s.name == "proxy/errors.go" {
		// All that it has with a blank is said to clients.
		ast.Inspect(s.file, func(n ast.Node) bool {
			if e, ok := n.(*ast.BasicLit); ok && strings.Contains(e.Value, " ") {
				text(e)
			}
			return true
		})
		return all
	}
	calls(s.file, func(call *ast.CallExpr) {
		if f, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Errorf", "New", "add", "Sprintf"}, f.Sel.Name) {
			for _, arg := range call.Args {
				text(arg)
			}
		}
	})
	return all
}

// Who has a message on the screen finds it in docs/troubleshooting.md.
func TestEveryMessageIsInTroubleshooting(t *testing.T) {
	text := readText(t, "docs/troubleshooting.md")
	found := 0
	for _, s := range sources(t) {
		fromProxy := s.name == "proxy/errors.go"
		if s.test || !fromProxy && s.pkg != "config" && s.pkg != "config/parse" && s.pkg != "config/unit" {
			continue
		}
		for _, m := range messages(s) {
			if !fromProxy && (words(m) < 3 || !strings.Contains(m, " ")) {
				continue // what is made of parts, each of which is there
			}
			if fromProxy && (words(m) == 0 || m == "GET, HEAD") {
				continue
			}
			found++
			if !strings.Contains(text, strings.TrimSpace(m)) {
				t.Errorf("%s says %q, which docs/troubleshooting.md does not explain", s.name, m)
			}
		}
	}
	if found < 80 {
		t.Errorf("found only %d messages", found)
	}
}

// anchor is what a heading can be linked by, as GitHub and most others make it.
func anchor(heading string) string {
	heading = strings.ToLower(strings.TrimSpace(heading))
	heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, "")
	return strings.ReplaceAll(heading, " ", "-")
}

// A link within the documents leads to a file, and to a heading of it.
func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	root := filepath.Join("..", "..")
	var names []string
	for _, glob := range []string{"*.md", "docs/*.md", "docs/adr/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	if len(names) < 30 {
		t.Fatalf("found only %d documents", len(names))
	}
	fences := regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	anchors := func(name string) []string {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil
		}
		var all []string
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
			all = append(all, anchor(m[1]))
		}
		return all
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(fences.ReplaceAllString(string(text), ""), -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := name
			if target != "" {
				file = filepath.Join(filepath.Dir(name), filepath.FromSlash(target))
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			} else if heading != "" && !slices.Contains(anchors(file), heading) {
				t.Errorf("%s links to %s, a heading that is not there", name, m[1])
			}
		}
	}
}

// Every document can be found from the index.
func TestIndexHasEveryDocument(t *testing.T) {
	index := readText(t, "docs/README.md")
	found, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		if base := filepath.Base(name); base != "README.md" && !strings.Contains(index, "]("+base+")") {
			t.Errorf("docs/README.md does not lead to %s", base)
		}
	}
}
