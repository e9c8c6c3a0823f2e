package main

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/command"
	"forebay/internal/observe"
)

func newRebuildIndex(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebuild-index",
		Short: "Make the index anew from what is stored",
		Long: `Makes the index of the storage folder anew from the blobs and the journal beside
them, which are the truth. "forebay serve" does so by itself when the index is
missing or damaged; this is for when it is suspected to be wrong. Stop the server
first: a folder that is in use is refused. No blob is changed or removed. With a bucket
(storage.s3) its objects are listed too.`,
		Example: `  forebay rebuild-index
  forebay rebuild-index --storage-dir /srv/forebay`,
		Args: cobra.NoArgs,
	}
	load := command.ConfigFlags(cmd, p, "storage-dir", "log-level", "log-format")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load("")
		if err != nil {
			return err
		}
		log := observe.NewLogs(c.Log, p.Stderr).Log
		defer func() { _ = log.Sync() }() // a terminal cannot be synced
		if err := mustExist(c.Storage.Dir); err != nil {
			return err
		}
		warnRoot(p, c.Storage.Dir)
		bucket, err := newBucket(c, thisBuild().version, log)
		if err != nil {
			return err
		}
		if bucket != nil {
			defer bucket.Close()
		}
		progress := func(done index.Progress) { fmt.Fprintln(p.Stderr, foundText(done, bucket != nil)+" …") }
		done, err := store.RebuildIndex(cmd.Context(), store.Options{
			Dir: c.Storage.Dir, IndexDir: c.Storage.IndexDir, Bucket: tierOptions(c, bucket, nil), Log: log,
		}, progress)
		if err != nil {
			return openError(c, err)
		}
		_, err = fmt.Fprintf(p.Stdout, "rebuilt the index of %s: %s; %s journal lines, %s unreadable, %s without their content\n",
			c.Storage.Dir, foundText(done, bucket != nil),
			humanize.Comma(done.Lines), humanize.Comma(done.Bad), humanize.Comma(done.Gone))
		return err
	}
	return cmd
}

// foundText says what a rebuild has found so far.
func foundText(done index.Progress, bucket bool) string {
	text := fmt.Sprintf("%s blobs, %s", humanize.Comma(done.Blobs), humanize.IBytes(uint64(done.Bytes)))
	if bucket {
		text += fmt.Sprintf(", and in the bucket %s, %s", humanize.Comma(done.Objects), humanize.IBytes(uint64(done.ObjectBytes)))
	}
	return text
}
