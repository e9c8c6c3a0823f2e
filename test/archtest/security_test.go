package archtest

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every line of the threat model names the tests that hold it, and these are there.
func TestThreatModelIsHeldByTests(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && s.test {
				there[f.Name.Name] = true
			}
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	lines, held := strings.Split(string(page), "\n"), false
	for i, line := range lines {
		if strings.HasPrefix(line, "| ") && strings.HasPrefix(lines[i+1], "|---") { // the head of a table
			held = strings.HasSuffix(line, "| held by |")
			continue
		}
		if !held || !strings.HasPrefix(line, "| ") {
			continue
		}
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("docs/SECURITY.md:%d: no test holds %q", i+1, line)
		}
		for _, m := range tests {
			if !there[m[1]] {
				t.Errorf("docs/SECURITY.md:%d: there is no test %s", i+1, m[1])
			}
		}
	}
}
