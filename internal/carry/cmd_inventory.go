package carry

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/bundle"
	"forebay/internal/command"
	"forebay/internal/terminal"
)

// NewInventory returns forebay inventory.
func NewInventory(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inventory",
		Short: "Write what is kept here, for exports that leave it out",
		Long: `Writes digest and size of all that is kept, sorted, a line each, compressed by zstd
when there is much. Carry it to the other side: "forebay export --lacking FILE"
makes a bundle there with nothing that is here already.

Asks the running server, or with --storage-dir reads a folder that no server uses.`,
		Example: `  forebay inventory -o site.inv
  forebay inventory -o - | ssh connected forebay export -f images.txt --lacking - -o delta.tar`,
		Args: cobra.NoArgs,
	}
	out := cmd.Flags().StringP("output", "o", "", "file to write, - for standard output")
	return adminclient.OnServerOrFolder(p, cmd, adminclient.MustExist, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		if *out == "" {
			return command.Usage(fmt.Errorf("name the file to write with -o, or - for standard output"))
		}
		var blobs []bundle.Blob
		var bytes int64
		err := o.Stored(ctx, func(page []admin.Stored) {
			for _, s := range page {
				blobs = append(blobs, bundle.Blob(s))
				bytes += s.Size
			}
		})
		if err != nil {
			return err
		}
		if *out == "-" {
			return bundle.Inventory(o.Stdout, blobs)
		}
		if err := writeWhole(*out, func(w io.Writer) error { return bundle.Inventory(w, blobs) }); err != nil {
			return err
		}
		if o.AsJSON {
			return terminal.WriteJSON(o.Stdout, struct {
				Output string `json:"output"`
				Items  int    `json:"items"`
				Bytes  int64  `json:"bytes"`
			}{*out, len(blobs), bytes})
		}
		_, err = fmt.Fprintf(o.Stdout, "%s: %s, %s\n", *out, terminal.Count(int64(len(blobs)), "blob", "blobs"), terminal.Bytes(bytes))
		return err
	})
}

// writeWhole writes a file that is there whole or not at all.
func writeWhole(name string, write func(io.Writer) error) error {
	if special(name) {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := write(f); err != nil {
			_ = f.Close() // the first error says more
			return err
		}
		return f.Close()
	}
	f, err := bundle.Create(name + partSuffix)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error says more
	}
	return err
}

// partSuffix is what the name of a file ends in until it is whole.
const partSuffix = ".part"

// special reports whether a name is of a pipe or a device, in whose place nothing is to be put.
func special(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}
