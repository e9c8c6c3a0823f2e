package operate

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
)

func newSupportBundle(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Pack what somebody needs who is to help",
		Long: `Writes one archive with what a running server knows of itself: its configuration with
passwords masked, status, figures, metrics, jobs, the latest events and lines of its log,
and what its goroutines do. No password, token or signed URL is in it; names of images and
addresses of clients are. Look through it before you send it to anybody.`,
		Example: `  forebay support-bundle
  forebay support-bundle -o /tmp/mirror.tar.gz`,
		Args: cobra.NoArgs,
	}
	name := cmd.Flags().StringP("output", "o", "", "`file` to write, which must not exist, or - for standard output (default forebay-support-TIME.tar.gz)")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		if *name == "" {
			*name = "forebay-support-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
		}
		files, err := gatherSupport(ctx, o)
		if err != nil {
			return err
		}
		if *name == "-" {
			return packSupport(o.Stdout, "forebay-support", files)
		}
		f, err := os.OpenFile(*name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		folder := strings.TrimSuffix(path.Base(*name), ".tar.gz")
		if err := errors.Join(packSupport(f, folder, files), f.Close()); err != nil {
			return errors.Join(err, os.Remove(*name))
		}
		_, err = fmt.Fprintln(o.Stdout, *name)
		return err
	})
}

// supportFile is one file of a bundle.
type supportFile struct {
	name string
	text []byte
}

// gatherSupport asks the server for everything. What it cannot tell, such as when its disk fails, is
// in the bundle as the error.
func gatherSupport(ctx context.Context, o *adminclient.Client) ([]supportFile, error) {
	var s admin.Support
	if _, err := o.Ask(ctx, http.MethodGet, "/support", nil, nil, &s); err != nil {
		return nil, err
	}
	files := []supportFile{
		{"version.txt", []byte(s.Version + "\n")}, {"config.yaml", []byte(s.Config)}, {"metrics.txt", []byte(s.Metrics)},
		{"goroutines.txt", []byte(s.Goroutines)}, {"log.jsonl", []byte(strings.Join(s.Log, "\n") + "\n")},
	}
	for _, path := range []string{"status", "stats", "events", "jobs", "clients"} {
		answer, err := o.Ask(ctx, http.MethodGet, "/"+path, nil, nil, nil)
		if err != nil {
			answer = []byte(err.Error() + "\n")
		}
		files = append(files, supportFile{path + ".json", answer})
	}
	return files, nil
}

func packSupport(w io.Writer, folder string, files []supportFile) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + f.name, Mode: 0o600, Size: int64(len(f.text)), ModTime: time.Now()}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.text); err != nil {
			return err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return err
	}
	_, err := b.WriteTo(w)
	return err
}
