package adminclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"forebay/cache/upkeep"
	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/command"
	"forebay/internal/wire"
)

// Program is the program that the commands are part of: what it sees of its process, and
// what it knows how to build.
type Program struct {
	command.Process
	Version string
	// OpenFolder opens the storage folder of a configuration, which no server may use. One
	// that is not there is made if mayBeNew, and refused otherwise.
	OpenFolder func(c *config.Config, mayBeNew bool) (*Folder, error)
}

// Folder is a storage folder that a command has to itself. Whoever opened it calls Close.
type Folder struct {
	Keeper *upkeep.Keeper
	Names  *wire.Registries
	// Admin makes its admin API. The caller closes that, before the folder.
	Admin func() (*admin.API, error)
	// Run does its work in the background until ctx is done.
	Run   func(ctx context.Context) error
	Close func() error
}

// openLocal opens the storage folder of a configuration for a command. The admin API is
// asked within the process, so that commands do the same with a server and without. The
// caller calls done.
func openLocal(p Program, c *config.Config, mayBeNew bool) (o *Client, done func() error, err error) {
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
	o = &Client{Program: p, Storage: folder, server: adminServer{
		base: "http://localhost", how: "--" + folderFlag, http: &http.Client{Transport: inProcess{api}},
	}}
	return o, func() error {
		api.Close()
		return folder.Close()
	}, nil
}

// OpenWorking opens the folder that was named, with its work in the background and without
// an admin API, for commands that use its cache. The caller calls closeAll.
func (f *Flags) OpenWorking(p Program) (folder *Folder, closeAll func() error, err error) {
	c, err := f.Load(p)
	if err != nil {
		return nil, nil, err
	}
	if c.Log.Level != config.LevelDebug {
		c.Log.Level = config.LevelError // what goes wrong with images is told in the end
	}
	folder, err = p.OpenFolder(c, MayBeNew)
	if err != nil {
		return nil, nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- folder.Run(ctx) }() // makes room; ended by closeAll
	return folder, func() error {
		stop()
		return errors.Join(<-done, folder.Close())
	}, nil
}

// inProcess answers requests by a handler of this process.
type inProcess struct{ handler http.Handler }

// RoundTrip has the handler answer a request. The answer is held in memory: content goes
// another way.
func (i inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	asked := r.Clone(r.Context())
	asked.Host, asked.RemoteAddr, asked.RequestURI = r.URL.Host, "127.0.0.1:0", r.URL.RequestURI()
	if asked.Body == nil {
		asked.Body = http.NoBody
	}
	defer asked.Body.Close()
	a := &answering{header: http.Header{}, status: http.StatusOK}
	i.handler.ServeHTTP(a, asked)
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
