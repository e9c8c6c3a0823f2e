package terminal

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"forebay/internal/admin"
)

const (
	// meterEvery is how often a bar is drawn, and plainEvery how often a line is written
	// where nobody sees a bar.
	meterEvery = 200 * time.Millisecond
	plainEvery = 15 * time.Second
	// rateOver is the time that a rate is the average of.
	rateOver = 5 * time.Second
)

// Meter shows how far a transfer is: as a bar on a terminal, as a line now and then
// elsewhere, or not at all. Its owner calls End.
type Meter struct {
	what string
	to   io.Writer
	bar  bool
	stop chan struct{}
	over sync.WaitGroup

	mu    sync.Mutex
	done  int64 // guarded by mu; bytes
	total int64 // guarded by mu; 0 while it is not known
	quiet bool
}

// NewMeter begins to show. what is a word: "export".
func NewMeter(to io.Writer, quiet bool, what string, total int64) *Meter {
	m := &Meter{what: what, to: to, bar: Is(to), quiet: quiet, total: total, stop: make(chan struct{})}
	if !m.quiet {
		m.over.Go(m.run)
	}
	return m
}

// Add counts bytes that are done.
func (m *Meter) Add(n int64) {
	m.mu.Lock()
	m.done += n
	m.mu.Unlock()
}

// Set tells how far it is.
func (m *Meter) Set(done, total int64) {
	m.mu.Lock()
	m.done, m.total = done, total
	m.mu.Unlock()
}

func (m *Meter) read() (done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done, m.total
}

// End takes the bar away.
func (m *Meter) End() {
	if m.quiet {
		return
	}
	close(m.stop)
	m.over.Wait()
	if m.bar {
		fmt.Fprint(m.to, "\r\x1b[K")
	}
}

func (m *Meter) run() {
	every := plainEvery
	if m.bar {
		every = meterEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	began := time.Now()
	rate := newRate(began)
	for {
		select {
		case <-m.stop:
			return
		case now := <-tick.C:
			done, total := m.read()
			line := meterText(m.what, done, total, rate.at(now, done))
			if m.bar {
				fmt.Fprint(m.to, "\r\x1b[K"+line)
			} else {
				fmt.Fprintln(m.to, line)
			}
		}
	}
}

// rateMeter works out a rate from the last few seconds.
type rateMeter struct {
	times []time.Time
	bytes []int64
}

func newRate(now time.Time) *rateMeter {
	return &rateMeter{[]time.Time{now}, []int64{0}}
}

// at returns bytes per second, and notes how many there are now.
func (r *rateMeter) at(now time.Time, done int64) float64 {
	r.times, r.bytes = append(r.times, now), append(r.bytes, done)
	for len(r.times) > 2 && now.Sub(r.times[1]) >= rateOver {
		r.times, r.bytes = r.times[1:], r.bytes[1:]
	}
	took := now.Sub(r.times[0]).Seconds()
	if took <= 0 {
		return 0
	}
	return float64(done-r.bytes[0]) / took
}

// meterText is a line of at most 79 characters.
func meterText(what string, done, total int64, rate float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s ", what)
	if total > 0 {
		fmt.Fprintf(&b, "%s  %s of %s", barText(done, total), Bytes(done), Bytes(total))
	} else {
		fmt.Fprint(&b, Bytes(done))
	}
	if rate >= 1 {
		fmt.Fprintf(&b, "  %s/s", Bytes(int64(rate)))
		if total > done {
			left := time.Duration(float64(total-done) / rate * float64(time.Second))
			fmt.Fprintf(&b, "  %s left", leftText(left))
		}
	}
	return b.String()
}

// barText shows a share as a bar and in percent.
func barText(done, total int64) string {
	const width = 20
	share := min(float64(done)/float64(total), 1)
	full := int(share * width)
	return fmt.Sprintf("[%s%s] %3.0f %%", strings.Repeat("#", full), strings.Repeat(".", width-full), share*100)
}

func leftText(d time.Duration) string {
	switch {
	case d > 48*time.Hour:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	case d > time.Hour:
		return fmt.Sprintf("%d:%02d h", int(d.Hours()), int(d.Minutes())%60)
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// JobMeter says how far a job is, look by look.
type JobMeter struct{ rate *rateMeter }

func NewJobMeter() *JobMeter { return &JobMeter{newRate(time.Now())} }

// Line says how far it is, how fast, and how long it takes still.
func (m *JobMeter) Line(j admin.Job) string {
	return jobText(j, m.rate.at(time.Now(), j.Progress.Bytes))
}

// Job is a line that says how far a job is.
func Job(j admin.Job) string { return jobText(j, 0) }

func jobText(j admin.Job, rate float64) string {
	p := j.Progress
	done, total := p.Bytes, p.BytesTotal
	if j.State != admin.Running {
		total, p.ItemsTotal = 0, 0 // nothing is to come
	}
	if total > 0 {
		total = max(total, done) // what grew meanwhile
	}
	text := meterText(j.Kind, done, total, rate)
	if total == 0 && p.ItemsTotal > 0 {
		text = fmt.Sprintf("%s %s  %s", j.Kind, barText(p.Items, p.ItemsTotal), Bytes(done))
	}
	if p.Faults > 0 {
		text += fmt.Sprintf(", %d failed", p.Faults)
	}
	return text
}
