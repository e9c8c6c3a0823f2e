//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// mostSent is how many times its size the hub may send of one blob for any number of
// clients. More than that is no figure but a fault.
const mostSent = 1.02

// touchMemory takes as much memory from the machine as a blob of size bytes needs, and
// gives it back. A virtual machine takes what it never used before, or has returned, from
// its host page by page, which can cost more than everything else about a blob (seen: 2 s
// of processor time a GiB); what was free a moment ago costs nothing. Both sides of a
// comparison start with it.
func (b *bench) touchMemory(size int64) (err error) {
	f, err := os.Create(filepath.Join(b.dir, "touched"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	zeros := make([]byte, mib)
	for n := int64(0); n < 2*size; n += mib { // twice: the allocator keeps some apart
		if _, err := f.Write(zeros); err != nil {
			return err
		}
	}
	return nil
}

// fetchCold downloads a blob that the mirror does not have, and makes sure that the hub
// sent it once.
func (b *bench) fetchCold(m *mirror, d blob, of downloads) ([]fetched, error) {
	if err := b.touchMemory(d.Size); err != nil {
		return nil, err
	}
	before, err := b.hub.sent(d)
	if err != nil {
		return nil, err
	}
	all, err := b.load.fetch(of)
	if err != nil {
		return nil, err
	}
	after, err := b.hub.sent(d)
	if err != nil {
		return nil, err
	}
	if n := after - before; n < d.Size || float64(n) > mostSent*float64(d.Size) {
		return nil, fmt.Errorf("the hub sent %d bytes of a blob of %d bytes", n, d.Size)
	}
	return all, nil
}

// freshBlobs makes one blob for each round.
func (b *bench) freshBlobs(n int, size int64) ([]blob, error) {
	list := make([]blob, n)
	for i := range list {
		var err error
		if list[i], err = b.freshBlob(size); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// limited bounds what the hub sends while use runs.
func (b *bench) limited(s speeds, use func() error) error {
	if err := b.hub.limit(s); err != nil {
		return err
	}
	return errors.Join(use(), b.hub.limit(speeds{}))
}

// measureCold compares one client's cold download with a direct one, and what it costs
// with a pipeline of programs that does the same: fetch, keep, verify.
func measureCold(ctx context.Context, b *bench) (rows []row, err error) {
	passing, err := startPassing(ctx, b.dir, b.hub)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, passing.stop()) }()
	err = b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
		size := pick(b, int64(512*mib), 64*mib)
		list, err := b.freshBlobs(b.rounds, size)
		if err != nil {
			return err
		}
		perGiB := gib / float64(size)
		var ours, ourCost, direct, passed, pipe, pipeCost sample
		err = b.takeTurns(ctx, "unthrottled",
			func(round int) error { return b.timeDirect(list[round], &direct) },
			func(round int) error { return b.timeFrom(passing.get(list[round]), &passed) },
			func(round int) error {
				cpu, err := m.spent(func() error {
					return errors.Join(b.timeOurs(m, list[round], &ours), m.settle(ctx))
				})
				ourCost = append(ourCost, cpu*perGiB)
				return err
			},
			func(round int) error {
				if err := b.touchMemory(size); err != nil {
					return err
				}
				took, cpu, err := runPipeline(ctx, b.dir, b.hub, list[round])
				pipe, pipeCost = append(pipe, took), append(pipeCost, cpu*perGiB)
				return err
			})
		if err != nil {
			return err
		}
		name := fmt.Sprintf("cold blob of %d MiB: ", size/mib)
		rows = append(rows,
			row{name: name + "time, speed", form: "%.2f", unit: "s", ours: ours, theirs: direct,
				against: "direct", compare: speedup, target: atLeast(0.5)},
			row{name: name + "time, speed", form: "%.2f", unit: "s", ours: ours, theirs: passed,
				against: "net/http proxy", compare: speedup},
			row{name: name + "CPU per GiB", form: "%.2f", unit: "s", ours: ourCost, target: atMost(1.2)},
			row{name: name + "CPU per GiB", form: "%.2f", unit: "s", ours: ourCost, theirs: pipeCost,
				against: "curl|tee|sha256sum", compare: ratio, target: atMost(1.3)},
			row{name: name + "time, speed", form: "%.2f", unit: "s", ours: ours, theirs: pipe,
				against: "curl|tee|sha256sum", compare: speedup})
		for _, gbits := range []int64{1, 4} {
			line, err := b.coldOnLine(ctx, m, size, gbits)
			if err != nil {
				return err
			}
			rows = append(rows, line)
		}
		return nil
	})
	return rows, err
}

// coldOnLine is the comparison with a direct download where the line and not this
// machine, which plays hub, mirror and client at once, bounds the speed.
func (b *bench) coldOnLine(ctx context.Context, m *mirror, size, gbits int64) (row, error) {
	r := row{name: fmt.Sprintf("cold blob of %d MiB at %d Gbit/s: time, speed", size/mib, gbits), form: "%.2f", unit: "s",
		against: "direct", compare: speedup}
	list, err := b.freshBlobs(b.rounds, size)
	if err != nil {
		return r, err
	}
	return r, b.limited(speeds{Line: gbits * 1e9 / 8}, func() error {
		return b.takeTurns(ctx, fmt.Sprintf("%d Gbit/s", gbits),
			func(round int) error { return b.timeDirect(list[round], &r.theirs) },
			func(round int) error { return b.timeOurs(m, list[round], &r.ours) })
	})
}

// timeDirect adds the seconds of one download from the hub itself.
func (b *bench) timeDirect(d blob, to *sample) error { return b.timeFrom(b.hub.get(d), to) }

// timeFrom adds the seconds of one download.
func (b *bench) timeFrom(d download, to *sample) error {
	if err := b.touchMemory(d.Size); err != nil {
		return err
	}
	f, err := b.load.fetchOne(d)
	*to = append(*to, f.Last)
	return err
}

// timeOurs adds the seconds of one cold download through the mirror.
func (b *bench) timeOurs(m *mirror, d blob, to *sample) error {
	all, err := b.fetchCold(m, d, downloads{List: []download{m.get(d)}})
	if err == nil {
		*to = append(*to, all[0].Last)
	}
	return err
}

// measureColdLimited compares where each connection is slow: several are faster.
func measureColdLimited(ctx context.Context, b *bench) (rows []row, err error) {
	size := pick(b, int64(128*mib), 32*mib)
	list, err := b.freshBlobs(b.rounds, size)
	if err != nil {
		return nil, err
	}
	r := row{name: fmt.Sprintf("cold blob of %d MiB, CDN at 16 MiB/s a connection: time, speed", size/mib),
		form: "%.2f", unit: "s", against: "direct", compare: speedup, target: atLeast(3)}
	err = b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
		return b.limited(speeds{Connection: 16 * mib}, func() error {
			return b.takeTurns(ctx, "limited",
				func(round int) error { return b.timeDirect(list[round], &r.theirs) },
				func(round int) error { return b.timeOurs(m, list[round], &r.ours) })
		})
	})
	return []row{r}, err
}

// name has the mirror read a manifest that names blobs, as each client does before it asks for
// them.
func (b *bench) name(m *mirror, list []blob) error {
	b.seed++
	tag := fmt.Sprintf("named-%d", b.seed)
	if _, err := ask[struct{}](b.hub.child, "name", named{tag, list}); err != nil {
		return err
	}
	return answersOK(m.url + "/v2/" + repository + "/manifests/" + tag)
}

// measureFirstByte compares how long it takes until a body begins. A round is several
// blobs, of which the median counts, since a millisecond is easily lost to the machine.
func measureFirstByte(ctx context.Context, b *bench) (rows []row, err error) {
	const perRound = 9
	r := row{name: "cold blob of 16 MiB: first byte", form: "%.2f", unit: "ms",
		against: "direct", compare: excess, apart: "ms", target: atMost(1.5)}
	list, err := b.freshBlobs(b.rounds*perRound, 16*mib)
	if err != nil {
		return nil, err
	}
	err = b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
		if err := b.name(m, list); err != nil {
			return err
		}
		first := func(round int, of func(blob) download, to *sample) error {
			var times sample
			for _, d := range list[round*perRound:][:perRound] {
				f, err := b.load.fetchOne(of(d))
				if err != nil {
					return err
				}
				times = append(times, f.First*1000)
			}
			*to = append(*to, times.median())
			return nil
		}
		return b.takeTurns(ctx, "first byte",
			func(round int) error { return first(round, b.hub.get, &r.theirs) },
			func(round int) error { return first(round, m.get, &r.ours) })
	})
	return []row{r}, err
}

// measureSuffix asks for the end of a blob of which nothing is there, as a snapshotter does that
// pulls lazily.
func measureSuffix(ctx context.Context, b *bench) (rows []row, err error) {
	const suffix = 64 * kib
	size := pick(b, int64(128*mib), 32*mib)
	list, err := b.freshBlobs(b.rounds, size)
	if err != nil {
		return nil, err
	}
	r := row{name: fmt.Sprintf("last 64 KiB of a cold blob of %d MiB, CDN at 16 MiB/s a connection", size/mib), form: "%.0f", unit: "ms",
		against: "direct", compare: excess, apart: "ms"}
	err = b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
		if err := b.name(m, list); err != nil {
			return err
		}
		tail := func(d download) download {
			d.Range, d.Size = fmt.Sprintf("bytes=-%d", suffix), suffix
			return d
		}
		return b.limited(speeds{Connection: 16 * mib}, func() error {
			return b.takeTurns(ctx, "suffix",
				func(round int) error {
					f, err := b.load.fetchOne(tail(b.hub.get(list[round])))
					r.theirs = append(r.theirs, f.Last*1000)
					return err
				},
				func(round int) error {
					f, err := b.load.fetchOne(tail(m.get(list[round])))
					r.ours = append(r.ours, f.Last*1000)
					return err
				})
		})
	})
	judged := r
	judged.compare, judged.target = nil, atMost(100)
	return []row{judged, r}, err
}

// measureCrowd sends one cold blob to many clients at once, each of which reads as fast as it
// can, over a line that one of them could fill. The best that can be had is the line or, with so
// many clients that this machine is slower, what nginx does that has the whole file.
func measureCrowd(ctx context.Context, b *bench) ([]row, error) {
	const line = 32 * mib
	size := pick(b, int64(256*mib), 64*mib)
	crowds := pick(b, []int{25, 50, 100, 200, 500}, []int{10, 50})
	list, err := b.freshBlobs(b.rounds, size)
	if err != nil {
		return nil, err
	}
	var direct sample
	turns := []func(int) error{func(round int) error { return b.timeDirect(list[round], &direct) }}
	all := make([]crowd, len(crowds))
	for i, clients := range crowds {
		turns = append(turns, func(round int) error {
			return b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error { return b.crowd(ctx, m, list[round], clients, &all[i]) })
		})
	}
	if err := b.limited(speeds{Line: line}, func() error { return b.takeTurns(ctx, "crowd", turns...) }); err != nil {
		return nil, err
	}
	var rows []row
	for i, clients := range crowds {
		name := fmt.Sprintf("%d clients of a cold blob of %d MiB at %d MiB/s", clients, size/mib, line/mib)
		rows = append(rows,
			row{name: name + ": last one's time, speed", form: "%.2f", unit: "s",
				ours: all[i].ours, theirs: pairwise(all[i].nginx, direct, math.Max), against: "nginx with the file, or the line", compare: speedup, target: atLeast(0.9)},
			row{name: name + ": last one's time, speed", form: "%.2f", unit: "s", ours: all[i].ours, theirs: direct, against: "one, direct", compare: speedup})
		if i == len(crowds)-1 {
			rows = append(rows, memoryRows(name, all[i].peaks, 200)...)
		}
	}
	return rows, nil
}

// crowd is how crowds of one size fared.
type crowd struct {
	ours, nginx sample
	peaks       []memory
}

func (b *bench) crowd(ctx context.Context, m *mirror, d blob, clients int, c *crowd) (err error) {
	most, err := m.most(func() error {
		all, err := b.fetchCold(m, d, downloads{List: slices.Repeat([]download{m.get(d)}, clients)})
		if err == nil {
			c.ours = append(c.ours, lastOf(all))
		}
		return err
	})
	c.peaks = append(c.peaks, most)
	if err == nil {
		err = m.settle(ctx) // the file has its name a moment later
	}
	if err != nil {
		return err
	}
	n, err := startNginx(ctx, b.dir, filepath.Dir(m.file(d)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	all, err := b.load.fetch(downloads{List: slices.Repeat([]download{{URL: n.url + "/" + filepath.Base(m.file(d)), Size: d.Size}}, clients)})
	if err == nil {
		c.nginx = append(c.nginx, lastOf(all))
	}
	return err
}
