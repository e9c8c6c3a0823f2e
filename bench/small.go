//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// image is what a client asks for, one after the other, to have it.
type image struct{ Paths []string }

// pulls are images to pull, some at a time, each by one client that keeps its connection.
type pulls struct {
	Base   string // URL without a slash at the end
	Token  string // bearer token; not sent on to where a redirect leads
	Images []image
	AtOnce int
}

// pulled is how that went.
type pulled struct {
	Seconds  float64   // until the last image was there
	Requests []float64 // seconds of each request, in no order
}

// run is what the load child does with pulls.
func (p pulls) run() (done pulled, err error) {
	client := &http.Client{Timeout: stuckAfter, Transport: &http.Transport{MaxIdleConnsPerHost: p.AtOnce, DisableCompression: true}}
	defer client.CloseIdleConnections()
	next, found, failed := make(chan image), make(chan float64), make(chan error, p.AtOnce)
	var clients sync.WaitGroup
	start := time.Now()
	for range p.AtOnce {
		clients.Go(func() {
			for i := range next {
				for _, path := range i.Paths {
					began := time.Now()
					if err := p.get(client, path); err != nil {
						failed <- err
						return
					}
					found <- time.Since(began).Seconds()
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { // ends with the clients
		clients.Wait()
		close(over)
	}()
	go func() { // ends with the images, or when the clients have failed
		defer close(next)
		for _, i := range p.Images {
			select {
			case next <- i:
			case <-over:
				return
			}
		}
	}()
	for {
		select {
		case took := <-found:
			done.Requests = append(done.Requests, took)
		case <-over:
			close(failed)
			for e := range failed {
				err = errors.Join(err, e)
			}
			done.Seconds = time.Since(start).Seconds()
			return done, err
		}
	}
}

func (p pulls) get(client *http.Client, path string) error {
	request, err := http.NewRequest(http.MethodGet, p.Base+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", manifestAccept)
	if p.Token != "" {
		request.Header.Set("Authorization", "Bearer "+p.Token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, response.Status)
	}
	if n, err := io.Copy(io.Discard, response.Body); err != nil || n != response.ContentLength {
		return fmt.Errorf("GET %s: %d of %d bytes: %w", path, n, response.ContentLength, err)
	}
	return nil
}

// pull pulls images.
func (l *load) pull(p pulls) (pulled, error) { return ask[pulled](l.child, "pull", p) }

// freshImage makes an image of some layers that nobody has asked for yet.
func (b *bench) freshImage(layers int, layerSize int64) (image, error) {
	b.seed++
	return ask[image](b.hub.child, "image", newImage{fmt.Sprintf("small-%d", b.seed), layers, layerSize})
}

func (b *bench) freshImages(n, layers int, layerSize int64) (list []image, err error) {
	for range n {
		i, err := b.freshImage(layers, layerSize)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, nil
}

// measureSmall asks for cold blobs that are small, one after the other.
func measureSmall(ctx context.Context, b *bench) (rows []row, err error) {
	n := pick(b, 200, 50)
	r := row{name: fmt.Sprintf("%d cold blobs of 20 kB, one after the other: p50 of a request", n), form: "%.2f", unit: "ms",
		against: "direct", compare: excess, apart: "ms", target: atMost(0.7)}
	list, err := b.freshImages(b.rounds, n, 20_000)
	if err != nil {
		return nil, err
	}
	median := func(p pulls, to *sample) error {
		done, err := b.load.pull(p)
		*to = append(*to, sample(done.Requests).median()*1000)
		return err
	}
	return []row{r}, b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
		return b.takeTurns(ctx, "small blobs",
			func(round int) error {
				return median(pulls{b.hub.url, b.hub.token, list[round : round+1], 1}, &r.theirs)
			},
			func(round int) error { return median(pulls{m.url, "", list[round : round+1], 1}, &r.ours) })
	})
}

// measureSmallImages pulls many images of few and small objects, which is what a cluster does
// that starts. A proxy that keeps nothing is the least that standing in the way costs.
func measureSmallImages(ctx context.Context, b *bench) (rows []row, err error) {
	const atOnce = 16
	n := pick(b, 400, 100)
	name := fmt.Sprintf("%d cold images of 5 objects of up to 20 kB, %d at a time", n, atOnce)
	var lists [][]image
	for range b.rounds {
		list, err := b.freshImages(n, 3, 20_000)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	passing, err := startPassing(ctx, b.dir, b.hub)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, passing.stop()) }()
	rate := func(p pulls, to *sample) error {
		done, err := b.load.pull(p)
		*to = append(*to, float64(len(p.Images))/done.Seconds)
		return err
	}
	var ours, direct, passed sample
	var peaks []memory
	err = b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
		return b.takeTurns(ctx, "small images",
			func(round int) error { return rate(pulls{b.hub.url, b.hub.token, lists[round], atOnce}, &direct) },
			func(round int) error { return rate(pulls{"http://" + passing.addr, "", lists[round], atOnce}, &passed) },
			func(round int) error {
				most, err := m.most(func() error { return rate(pulls{m.url, "", lists[round], atOnce}, &ours) })
				peaks = append(peaks, most)
				return errors.Join(err, m.settle(ctx))
			})
	})
	rows = []row{
		{name: name + ": images per second", form: "%.0f", unit: "/s", ours: ours, theirs: passed,
			against: "net/http proxy", compare: ratio, target: atLeast(0.5)},
		{name: name + ": images per second", form: "%.0f", unit: "/s", ours: ours, theirs: direct,
			against: "direct", compare: ratio},
	}
	return append(rows, memoryRows(name, peaks, 80)...), err
}
