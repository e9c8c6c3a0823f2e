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

// speaksToOperators reports whether a package may say what is to be typed where: those that
// read command lines and configurations. Support for tests and benches is not the product.
func speaksToOperators(pkg string) bool {
	switch pkg {
	case "cmd/forebay", "config", "config/parse", "config/section", "internal/command", "internal/operate", "internal/carry", "internal/onclient", "internal/adminclient":
		return true
	}
	return strings.HasPrefix(pkg, "test/") || pkg == "bench" || strings.HasPrefix(pkg, "bench/")
}

// othersFlags are files that name flags which are not ours.
func othersFlags() []string {
	return []string{
		"internal/imageset/dockerfile.go",                                                    // those of instructions in a Dockerfile
		"internal/clientconfig/clients.go",                                                   // those of the clients
		"internal/doctor/doctor.go", "internal/doctor/files.go", "internal/doctor/mirror.go", // commands to type, which are what it is for
	}
}

// A flag or a key of the configuration may be called otherwise tomorrow, and packages below
// do not know whether a command line or a file set them: they say which of their options is
// meant, and who wired them says what that is called.
func TestOnlyCommandsNameFlagsAndKeys(t *testing.T) {
	flag := regexp.MustCompile(`(?:^|[^\w-])(--[a-z][a-z0-9-]+)`)
	key := keysOfConfiguration(t)
	for _, s := range sources(t) {
		if s.test || speaksToOperators(s.pkg) {
			continue
		}
		texts(s.file, func(node ast.Node, text string) {
			named := ""
			if m := key.FindStringSubmatch(text); m != nil {
				named = m[1] + m[2] + m[3]
			} else if m := flag.FindStringSubmatch(text); m != nil && !slices.Contains(othersFlags(), s.name) {
				named = m[1]
			}
			if named != "" {
				t.Errorf("%s names %s, a flag or a key: say what is meant, and let who wired it name that", s.at(node), named)
			}
		})
	}
}

// keysOfConfiguration matches what a key of the configuration looks like in a text: one that
// has a dot anywhere, and the last word of one that has an underscore in a text of several words.
func keysOfConfiguration(t *testing.T) *regexp.Regexp {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	var dotted, last []string
	for _, m := range regexp.MustCompile("(?m)^### `([^`]+)`$").FindAllStringSubmatch(string(page), -1) {
		words := strings.Split(m[1], ".")
		for n := len(words); n >= 2; n-- { // storage.s3 stands for all below it
			dotted = append(dotted, strings.ReplaceAll(regexp.QuoteMeta(strings.Join(words[:n], ".")), "NAME", `[^\s"]+`))
		}
		if w := words[len(words)-1]; strings.Contains(w, "_") {
			last = append(last, w)
		}
	}
	if len(dotted) < 50 || len(last) < 30 {
		t.Fatalf("found only %d and %d keys in docs/configuration.md", len(dotted), len(last))
	}
	either := strings.Join(last, "|")
	key := regexp.MustCompile(`(?:^|[^\w.-])(` + strings.Join(dotted, "|") + `)(?:$|[^\w-])|\s(` + either + `)\b|^(` + either + `)[:\s]`)
	key.Longest() // storage.s3.bucket rather than storage.s3
	return key
}

// texts calls fn with each string in the code of n: no comments, imports or tags of fields.
func texts(n ast.Node, fn func(ast.Node, string)) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			if n.Type != nil {
				texts(n.Type, fn)
			}
			return false
		case *ast.BasicLit:
			if n.Kind != token.STRING {
				break
			}
			if text, err := strconv.Unquote(n.Value); err == nil {
				fn(n, text)
			}
		}
		return true
	})
}
