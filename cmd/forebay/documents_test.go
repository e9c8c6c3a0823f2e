package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"forebay/internal/command"
)

// A command that is to be typed, from a block of code, and one that is named in a sentence.
var (
	typed = regexp.MustCompile(`(?:^|&& |\| |; )((?:[A-Z_]+=\S+ )*)forebay ([^|&;>#]+)`)
	named = regexp.MustCompile("`forebay ([a-z][^`]*)`")
	made  = regexp.MustCompile("(?:^|&& |`)make ([a-z][a-z0-9-]*)")
)

// What the documents tell people to type is understood: command, flags and arguments, and
// targets of make.
func TestCommandsInDocumentsAreUnderstood(t *testing.T) {
	var names []string
	for _, glob := range []string{"../../*.md", "../../docs/*.md"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fenced := false
		for i, line := range strings.Split(string(text), "\n") {
			fenced = fenced != strings.HasPrefix(line, "```")
			var faults []string
			for _, m := range made.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
				if (fenced || strings.HasPrefix(line, "    ") || strings.Contains(m[0], "`")) && !strings.Contains(string(makefile), "\n"+m[1]+":") {
					faults = append(faults, "make has no target "+m[1])
				}
			}
			if fenced || strings.HasPrefix(line, "    ") {
				for _, m := range typed.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
					checked++
					faults = append(faults, misunderstood(m[2], true)...)
				}
			}
			for _, m := range named.FindAllStringSubmatch(line, -1) {
				checked++
				faults = append(faults, misunderstood(m[1], false)...)
			}
			for _, fault := range faults {
				t.Errorf("%s:%d: %s", name, i+1, fault)
			}
		}
	}
	if checked < 100 {
		t.Errorf("found only %d commands", checked)
	}
	for _, wrong := range []string{"sttus", "export --into x", "pin"} {
		if len(misunderstood(wrong, true)) == 0 {
			t.Errorf("forebay %s passes", wrong)
		}
	}
}

// misunderstood says what is wrong with a command line. One in a sentence may lack its arguments, and
// may have brackets around what can be left out.
func misunderstood(line string, whole bool) (faults []string) {
	root := newRoot(command.Process{})
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	var words []string
	for _, word := range strings.Fields(strings.NewReplacer(`\|`, " ", "[", " ", "]", " ", `"`, "", "'", "").Replace(line)) {
		words = append(words, strings.TrimSuffix(word, ","))
	}
	cmd, rest, err := root.Find(words)
	if err != nil || cmd == root {
		return []string{"there is no forebay " + line}
	}
	cmd.InitDefaultHelpFlag()
	for _, word := range rest {
		if name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "="); strings.HasPrefix(word, "-") && word != "-" {
			if cmd.Flags().Lookup(name) == nil && (len(name) != 1 || cmd.Flags().ShorthandLookup(name) == nil) {
				faults = append(faults, "forebay "+cmd.Name()+" has no "+word)
			}
		}
	}
	if whole && len(faults) == 0 {
		faults = append(faults, wrongArguments(cmd, rest)...)
	}
	return faults
}

func wrongArguments(cmd *cobra.Command, words []string) []string {
	if err := cmd.ParseFlags(words); err != nil {
		return []string{"forebay " + cmd.Name() + ": " + err.Error()}
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return []string{"forebay " + cmd.Name() + ": " + err.Error()}
	}
	return nil
}
