package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"forebay/config"
)

// openLocal opens the storage folder of a configuration for a command. The admin API is
// asked within the process, so that commands do the same with a server and without. The
// caller calls done.
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
		base: "http://localhost", how: "--" + folderFlag, http: &http.Client{Transport: inProcess{api}},
	}}
	return o, func() error {
		api.Close()
		return folder.Close()
	}, nil
}

// openWorking opens the folder that was named, with its work in the background and without
// an admin API, for commands that use its cache. The caller calls closeAll.
func (f *mirrorFlags) openWorking(p Program) (folder *Folder, closeAll func() error, err error) {
	c, err := f.load(p)
	if err != nil {
		return nil, nil, err
	}
	if c.Log.Level != config.LevelDebug {
		c.Log.Level = config.LevelError // what goes wrong with images is told in the end
	}
	folder, err = p.OpenFolder(c, mayBeNew)
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
