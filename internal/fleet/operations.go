package fleet

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"forebay/cache/tier"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/statefile"
)

const (
	// operationsFile is where operations are in the storage folder and in the bucket, and operationsPath where a
	// mirror tells them to another.
	operationsFile = "operations.json"
	operationsPath = "/fleet/v1/operations"
	// Operations are kept for operationsFor, operationsMost of them at most, of operationMost bytes each.
	operationsFor  = 7 * 24 * time.Hour
	operationsMost = 1000
	operationMost  = 8 << 10
	// syncEvery is how often we look for operations that we were not asked for directly, and graceFor how
	// old one is before it is taken from there: until then we may still be asked.
	syncEvery = 5 * time.Second
	graceFor  = 15 * time.Second
	// engineMost and bucketMost are how long a start waits for what happened meanwhile, and bucketEvery how
	// often the bucket is read while the engine cannot tell.
	engineMost  = 2 * time.Second
	bucketMost  = 5 * time.Second
	bucketEvery = time.Minute
	// lookOften is after how many of these times we ask the others for their settings.
	lookOften = 6
	// retryEvery is when an operation that failed is tried again.
	retryEvery = time.Minute
)

// operation is something that an operator had all mirrors do.
type operation struct {
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	Who    string    `json:"who,omitempty"`
	Role   string    `json:"role"`
	Method string    `json:"method"`
	Path   string    `json:"path"` // with parameters, from the admin API's prefix on
	Body   []byte    `json:"body,omitempty"`

	signed string
	done   bool
	again  bool      // one that comes before it was done after it
	next   time.Time // when it is tried again
}

// compare orders operations, in the same way at all mirrors.
func (one *operation) compare(other *operation) int {
	return cmp.Or(one.At.Compare(other.At), strings.Compare(one.ID, other.ID))
}

// of names what an operation is about; what is about the same has to be done in order, unless it is "".
func (one *operation) of() string {
	path := strings.TrimPrefix(one.Path, apiPrefix+"/")
	switch name := path[:strings.IndexAny(path+"/", "/?")]; name {
	case "promotions", "freezes", "snapshots":
		return "decisions"
	case "pins":
		return name
	}
	return ""
}

// operations are those of the last days, as this mirror knows them. It has each one done, and those that are about
// the same in the order of their times: who did a later one first does it once more.
type operations struct {
	work   sync.Mutex // held while some are done
	mu     sync.Mutex
	known  map[string]*operation // guarded by mu; by ID
	stamp  string                // guarded by mu; what the engine had when it was read last
	read   time.Time             // guarded by mu; when the bucket was
	others []string              // guarded by mu; addresses of the other mirrors that were there last
}

// operationsKey is the sorted set of operations, by their time.
func (f *Fleet) operationsKey() string { return "fb1:{operations:" + f.Name() + "}" }

// newOperation makes one of what an operator asks for, which comes after all that are known, whatever the clocks
// of the mirrors say. It is nil if it is too large to be kept.
func (o *Operators) newOperation(e errand) *operation {
	one := &operation{ID: rand.Text(), At: time.Now().UTC(), Who: e.name, Role: e.role, Method: e.method, Path: e.path, Body: e.body, done: true}
	if all := o.log.list(); len(all) > 0 {
		if last := all[len(all)-1].At; !one.At.After(last) {
			one.At = last.Add(time.Microsecond)
		}
	}
	text, err := json.Marshal(one)
	if err != nil {
		panic("fleet: " + err.Error()) // it is texts
	}
	if one.signed = o.fleet.secret.sign("operation", string(text)); len(one.signed) > operationMost {
		return nil
	}
	o.log.mu.Lock()
	defer o.log.mu.Unlock()
	o.log.known[one.ID], o.log.stamp = one, ""
	return one
}

// did notes how an operation went, and that later ones about the same have to be done again.
func (l *operations) did(one *operation, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one.done, one.again, one.next = settled(status), false, time.Now().Add(retryEvery)
	for _, later := range l.known {
		if one.done && one.of() != "" && later.of() == one.of() && later.done && later.compare(one) > 0 {
			later.done, later.again, later.next = false, true, time.Time{}
		}
	}
}

// perform has this mirror do an operation that another asks for, unless it has.
func (o *Operators) perform(one *operation, r *http.Request) *reply {
	o.log.work.Lock()
	defer o.log.work.Unlock()
	o.log.mu.Lock()
	done := one.done
	o.log.mu.Unlock()
	if done {
		return &reply{status: http.StatusNoContent}
	}
	a := o.here(r, r.Body)
	o.log.did(one, a.status)
	o.doDue(func(*operation) bool { return false })
	o.save()
	return a
}

// settled reports whether a mirror that answered so is not to try again.
func settled(status int) bool {
	return status > 0 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout
}

// add takes in an operation that a mirror signed, and returns it as it is known; nil for one that is too old, or
// no mirror's.
func (o *Operators) add(signed string) *operation {
	text, ok := o.fleet.secret.open("operation", signed)
	one := &operation{signed: signed}
	if !ok || len(signed) > operationMost || json.Unmarshal([]byte(text), one) != nil || !strings.HasPrefix(one.Path, apiPrefix+"/") {
		o.fleet.counts.forged.Add(1)
		return nil
	}
	if age := time.Since(one.At); age > operationsFor || age < -time.Hour {
		return nil // a copy of an old one means nothing
	}
	l := &o.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[one.ID] == nil {
		l.known[one.ID] = one
	}
	return l.known[one.ID]
}

// list returns the operations, the oldest first, and forgets those that are too old or too many.
func (l *operations) list() (all []*operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, one := range l.known {
		if time.Since(one.At) > operationsFor {
			delete(l.known, id)
			continue
		}
		all = append(all, one)
	}
	slices.SortFunc(all, (*operation).compare)
	for len(all) > operationsMost {
		delete(l.known, all[0].ID)
		all = all[1:]
	}
	return all
}

// keep writes down what all mirrors are to do, of which we have done our part, and reports whether those
// that are away will learn of it.
func (o *Operators) keep(ctx context.Context, one *operation) bool {
	o.save()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bucketMost)
	defer cancel()
	inEngine := o.tellEngine(ctx, []*operation{one})
	for n := 1; n < failuresMost && inEngine != nil; n++ {
		inEngine = o.tellEngine(ctx, []*operation{one})
	}
	inBucket := o.tellBucket(ctx)
	if inBucket != nil {
		o.fleet.log.Warn("operation not written down in the bucket", logkey.Method(one.Method), logkey.Err(inBucket))
	}
	return inEngine == nil || inBucket == nil && o.o.Files != nil
}

// stored is the form of operations in a file.
type stored struct {
	Operations []string `json:"operations"`       // as they were signed
	Done       []string `json:"done,omitempty"`   // IDs; of the folder's file
	Others     []string `json:"others,omitempty"` // addresses; of the folder's file
}

// signed returns what is known, as others are told.
func (l *operations) signed() (s stored) {
	for _, one := range l.list() {
		s.Operations = append(s.Operations, one.signed)
	}
	return s
}

// addAll takes in what was stored, or another mirror tells.
func (o *Operators) addAll(s stored) {
	for _, signed := range s.Operations[max(0, len(s.Operations)-operationsMost):] {
		o.add(signed)
	}
}

func (o *Operators) path() string { return filepath.Join(o.o.Dir, operationsFile) }

// save remembers over a restart what is known, and what was done.
func (o *Operators) save() {
	s := o.log.signed()
	o.log.mu.Lock()
	for id, one := range o.log.known {
		if one.done {
			s.Done = append(s.Done, id)
		}
	}
	s.Others = o.log.others
	o.log.mu.Unlock()
	if err := statefile.Write(o.path(), s); err != nil {
		o.fleet.log.Warn("it is not remembered which operations were done", logkey.Err(err))
	}
}

func (o *Operators) load() {
	var s stored
	if statefile.Read(o.path(), 2*operationsMost*operationMost, &s) != nil {
		return // none, or one that a crash of the machine left: they are done again
	}
	o.addAll(s)
	o.log.others = s.Others
	for _, id := range s.Done {
		if one := o.log.known[id]; one != nil { // nobody else has it yet
			one.done = true
		}
	}
}

// tellEngine writes operations into the engine.
func (o *Operators) tellEngine(ctx context.Context, all []*operation) error {
	err := o.fleet.engine.call(ctx, func(ctx context.Context, c rueidis.Client) error {
		put := c.B().Zadd().Key(o.fleet.operationsKey()).ScoreMember()
		for _, one := range all {
			put = put.ScoreMember(float64(one.At.UnixMilli()), one.signed)
		}
		for _, answer := range c.DoMulti(ctx, put.Build(),
			c.B().Zremrangebyscore().Key(o.fleet.operationsKey()).Min("-inf").Max(number(time.Now().Add(-operationsFor).UnixMilli())).Build(),
			c.B().Zremrangebyrank().Key(o.fleet.operationsKey()).Start(0).Stop(-operationsMost-1).Build()) {
			if err := answer.Error(); err != nil {
				return err
			}
		}
		return nil
	})
	o.fleet.failed(err)
	return err
}

// askEngine takes in what the engine has, if that is something else than it was, and tells it what it lacks.
func (o *Operators) askEngine(ctx context.Context) error {
	var all []string
	stamp := ""
	err := o.fleet.engine.call(ctx, func(ctx context.Context, c rueidis.Client) error {
		answers := c.DoMulti(ctx, c.B().Zcard().Key(o.fleet.operationsKey()).Build(), c.B().Zrange().Key(o.fleet.operationsKey()).Min("-1").Max("-1").Build())
		n, err := answers[0].AsInt64()
		if err != nil {
			return err
		}
		last, err := answers[1].AsStrSlice()
		stamp = fmt.Sprint(n, last)
		return err
	})
	o.fleet.failed(err)
	o.log.mu.Lock()
	same := stamp == o.log.stamp
	o.log.mu.Unlock()
	if err != nil || same {
		return err
	}
	err = o.fleet.engine.call(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		all, err = c.Do(ctx, c.B().Zrange().Key(o.fleet.operationsKey()).Min("0").Max("-1").Build()).AsStrSlice()
		return err
	})
	if o.fleet.failed(err); err != nil {
		return err
	}
	has := map[string]bool{}
	for _, signed := range all[max(0, len(all)-operationsMost):] {
		o.add(signed)
		has[signed] = true
	}
	lacks := slices.DeleteFunc(o.log.list(), func(one *operation) bool { return has[one.signed] })
	if len(lacks) > 0 { // it was emptied, or was away when we wrote
		return o.tellEngine(ctx, lacks)
	}
	o.log.mu.Lock()
	o.log.stamp = stamp
	o.log.mu.Unlock()
	return nil
}

// bucketFile is the file in the bucket: several fleets may share that.
func (o *Operators) bucketFile() string {
	return "fleet/" + o.fleet.Name() + "/" + operationsFile
}

// askBucket takes in what the bucket has, and returns its version, "" for none.
func (o *Operators) askBucket(ctx context.Context) (string, error) {
	b, version, err := o.o.Files.OpenFile(ctx, o.bucketFile(), 0, -1)
	if err != nil && pull.KindOf(err) == pull.NotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = b.Close() }() // only read from
	text, err := io.ReadAll(io.LimitReader(b, 2*operationsMost*operationMost))
	if err != nil {
		return "", err
	}
	var s stored
	if err := json.Unmarshal(text, &s); err != nil {
		return version, nil // it is made anew
	}
	o.addAll(s)
	return version, nil
}

// tellBucket has the bucket know what we know, whoever else writes there.
func (o *Operators) tellBucket(ctx context.Context) error {
	if o.o.Files == nil {
		return nil
	}
	var err error
	for range 10 {
		var version string
		if version, err = o.askBucket(ctx); err != nil {
			return err
		}
		var text []byte
		if text, err = json.Marshal(o.log.signed()); err != nil {
			return err
		}
		err = o.o.Files.PutFile(ctx, o.bucketFile(), bytes.NewReader(text), int64(len(text)), tier.Condition{Absent: version == "", Version: version})
		if errors.Is(err, tier.ErrUnconditional) {
			err = o.o.Files.PutFile(ctx, o.bucketFile(), bytes.NewReader(text), int64(len(text)), tier.Condition{})
		}
		if !errors.Is(err, tier.ErrCondition) {
			return err
		}
	}
	return err
}

// askOthers takes in what the mirrors know that were there when we were, as far as they are there now.
func (o *Operators) askOthers(ctx context.Context) {
	var work sync.WaitGroup
	for _, at := range o.log.others {
		work.Go(func() {
			var s stored
			a := &reply{from: Member{Address: at}}
			if o.askOne(ctx, errand{method: http.MethodGet, path: operationsPath, bound: readMost}, a); a.ok() && json.Unmarshal(a.body.Bytes(), &s) == nil {
				o.addAll(s)
			}
		})
	}
	work.Wait()
}

// remember notes where the other mirrors are, for the next start.
func (o *Operators) remember() {
	var now []string
	for _, a := range o.others() {
		now = append(now, a.from.Address)
	}
	o.log.mu.Lock()
	same := len(now) == 0 || slices.Equal(now, o.log.others)
	if !same {
		o.log.others = now
	}
	o.log.mu.Unlock()
	if !same {
		o.save()
	}
}

// CatchUp has what was removed while we were away removed here. It must be called before anybody is served. An
// engine, a bucket and mirrors that do not answer are not waited for: what they have is done when they do.
func (o *Operators) CatchUp(ctx context.Context) {
	o.load()
	o.askOthers(ctx)
	if o.o.Files != nil {
		o.fromBucket(ctx)
	}
	limited, cancel := context.WithTimeout(ctx, engineMost)
	defer cancel()
	tick := time.NewTicker(lookLeast)
	defer tick.Stop()
	for o.askEngine(limited) != nil && limited.Err() == nil {
		if since, _ := o.fleet.engine.away(); !since.IsZero() {
			break
		}
		<-tick.C
	}
	o.do(func(one *operation) bool { return one.Path == apiPrefix+"/purge" })
}

func (o *Operators) fromBucket(ctx context.Context) {
	o.log.mu.Lock()
	o.log.read = time.Now()
	o.log.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, bucketMost)
	defer cancel()
	if _, err := o.askBucket(limited); err != nil {
		o.fleet.log.Warn("operations of other mirrors not read from the bucket", logkey.Err(err))
	}
}

// Run does what we are not asked for directly, until ctx is done.
func (o *Operators) Run(ctx context.Context) {
	defer o.work.Wait()
	defer o.end()
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	grace := time.Duration(0) // nobody asks for what happened before we came
	for n := 0; ; n++ {
		if n%lookOften == 0 {
			o.compare(ctx)
		}
		o.remember()
		err := o.askEngine(ctx)
		o.log.mu.Lock()
		due := time.Since(o.log.read) > bucketEvery
		o.log.mu.Unlock()
		if err != nil && o.o.Files != nil && due {
			o.fromBucket(ctx)
		}
		o.do(func(one *operation) bool { return time.Since(one.At) >= grace })
		grace = graceFor
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// do does what is due and was not done, the oldest first.
func (o *Operators) do(due func(*operation) bool) {
	o.log.work.Lock()
	defer o.log.work.Unlock()
	if o.doDue(due) {
		o.save()
	}
}

// doDue is do for who holds o.log.work, and saves what was changed.
func (o *Operators) doDue(due func(*operation) bool) (changed bool) {
	for _, one := range o.log.list() {
		o.log.mu.Lock()
		skip := one.done || time.Now().Before(one.next) || !one.again && !due(one)
		o.log.mu.Unlock()
		if skip {
			continue
		}
		status, fault := o.again(one)
		o.fleet.log.Info("did what an operator had the other mirrors do", zap.String("operation", one.ID), logkey.Method(one.Method), logkey.User(one.Who), zap.Int("status", status), zap.String("fault", fault))
		o.log.did(one, status)
		changed = true
	}
	return changed
}

// again has this mirror do an operation.
func (o *Operators) again(one *operation) (status int, fault string) {
	r, err := http.NewRequest(one.Method, one.Path, bytes.NewReader(one.Body))
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	r.RemoteAddr = "fleet"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Forebay-Request", "1")
	a := o.here(o.o.As(r, one.Who, one.Role), r.Body)
	return a.status, a.fault()
}
