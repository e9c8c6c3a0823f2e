package main

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"forebay/config"
	"forebay/internal/command"
)

// newManual writes the manual pages that packages have: one for each command, and forebay.yaml(5).
func newManual(command.Process) *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the manual pages",
		Long:    "Writes the pages that packages have into a folder: one for each command, and forebay.yaml(5).",
		Example: "  forebay man /usr/share/man/man1",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b := thisBuild()
			made, err := time.Parse(time.RFC3339, cmp.Or(b.date, "1970-01-01T00:00:00Z"))
			if err != nil {
				return err
			}
			// A build makes the same bytes at any time, so the date is that of the commit.
			cmd.Root().DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "forebay " + b.version, Manual: "Forebay", Date: &made}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return err
			}
			var page bytes.Buffer
			page.WriteString("% FOREBAY.YAML 5 " + made.UTC().Format("2006-01-02") + "\n# NAME\nforebay.yaml - configuration of forebay\n\n")
			if err := config.Reference(&page); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(args[0], "forebay.yaml.5"), md2man.Render(page.Bytes()), 0o644)
		},
	}
}
