package main

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"forebay/cache"
	"forebay/cache/index"
)

func newRebuildIndex(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebuild-index",
		Short: "Make the index anew from what is stored",
		Long: `Makes the index of the storage folder anew from the blobs and the journal beside
them, which are the truth. "forebay serve" does so by itself when the index is
missing or damaged; this is for when it is suspected to be wrong. Stop the server
first: a folder that is in use is refused. No blob is changed or removed.`,
		Example: `  forebay rebuild-index
  forebay rebuild-index --storage-dir /srv/forebay`,
		Args: cobra.NoArgs,
	}
	load := addConfigFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load("")
		if err != nil {
			return err
		}
		log := newLogger(c.Log, p.stderr)
		defer func() { _ = log.Sync() }() // a terminal cannot be synced
		if err := mustExist(c.Storage.Dir); err != nil {
			return err
		}
		progress := func(done index.Progress) {
			fmt.Fprintf(p.stderr, "%s blobs, %s …\n", humanize.Comma(done.Blobs), humanize.IBytes(uint64(done.Bytes)))
		}
		done, err := cache.RebuildIndex(cmd.Context(), cache.Options{Dir: c.Storage.Dir, IndexDir: c.Storage.IndexDir, Log: log}, progress)
		if err != nil {
			return openError(c, err)
		}
		_, err = fmt.Fprintf(p.stdout, "rebuilt the index of %s: %s blobs, %s; %s journal lines, %s unreadable, %s without their content\n",
			c.Storage.Dir, humanize.Comma(done.Blobs), humanize.IBytes(uint64(done.Bytes)),
			humanize.Comma(done.Lines), humanize.Comma(done.Bad), humanize.Comma(done.Gone))
		return err
	}
	return cmd
}
