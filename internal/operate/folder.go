package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"forebay/config"
	"forebay/internal/command"
)

// localFlag names the folder that a command works on itself, in place of a server.
const localFlag = "storage-dir"

const localHelp = "work on this storage folder itself, which no running server may use"

// newLocalOperator is newOperator for commands that also work without a server, straight
// on a storage folder that --storage-dir names.
func newLocalOperator(p Program, cmd *cobra.Command, run func(ctx context.Context, o *operator, args []string) error) *cobra.Command {
	dir := cmd.Flags().String(localFlag, "", localHelp)
	newOperator(p, cmd, run)
	asked := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if *dir == "" {
			return asked(cmd, args)
		}
		flags := cmd.Flags()
		for _, name := range []string{"server", "token-file", "ca-file"} {
			if flags.Changed(name) {
				return command.Usage(fmt.Errorf("--%s is for a running server, and --%s for none", name, localFlag))
			}
		}
		file, _ := flags.GetString("config")
		asJSON, _ := flags.GetBool("json")
		c, err := config.Load(config.Sources{File: file, Env: p.Env, Root: p.Root, Flags: []config.Flag{{Name: "--" + localFlag, Key: "storage.dir", Value: *dir}}})
		if err != nil {
			return command.Usage(err)
		}
		mayBeNew := cmd.Name() == "import" || cmd.Name() == "registry"
		o, done, err := openLocal(p, c, mayBeNew)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		o.asJSON = asJSON
		return run(cmd.Context(), o, args)
	}
	return cmd
}

// openLocal opens the storage folder of a configuration for a command. The admin API is
// asked within the process, so that commands do the same with a server and without.
func openLocal(p Program, c *config.Config, mayBeNew bool) (o *operator, done func() error, err error) {
	if c.Log.Level == config.LevelDebug || c.Log.Level == config.LevelInfo {
		c.Log.Level = config.LevelWarn // the command itself tells the rest
	}
	folder, err := p.OpenFolder(c, mayBeNew)
	if err != nil {
		return nil, nil, err
	}
	api, err := folder.Admin()
	if err != nil {
		return nil, nil, errors.Join(err, folder.Close())
	}
	o = &operator{p: p, storage: folder, server: adminServer{
		base: "http://localhost", how: "--" + localFlag, http: &http.Client{Transport: within{api}},
	}}
	return o, func() error {
		api.Close()
		return folder.Close()
	}, nil
}

// within answers requests by a handler of this process.
type within struct{ handler http.Handler }

// RoundTrip has the handler answer a request. The answer is held in memory: content goes
// another way.
func (w within) RoundTrip(r *http.Request) (*http.Response, error) {
	asked := r.Clone(r.Context())
	asked.Host, asked.RemoteAddr, asked.RequestURI = r.URL.Host, "127.0.0.1:0", r.URL.RequestURI()
	if asked.Body == nil {
		asked.Body = http.NoBody
	}
	defer asked.Body.Close()
	a := &answering{header: http.Header{}, status: http.StatusOK}
	w.handler.ServeHTTP(a, asked)
	return &http.Response{
		StatusCode: a.status, Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: a.header, Request: r,
		Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()),
	}, nil
}

// answering is an answer that is being made.
type answering struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answering) Header() http.Header         { return a.header }
func (a *answering) WriteHeader(status int)      { a.status = status }
func (a *answering) Write(b []byte) (int, error) { return a.body.Write(b) }
