package trouble

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/upstream"
)

const (
	// soon is how near the end of a budget must be to be told of.
	soon = time.Hour
	// wrongFor is how long content without its digest is news.
	wrongFor = time.Hour
	// A store is too small that is so full, and drops so much of what was used a short while ago.
	fullShare, youngShare, youngLeast = 0.85, 0.2, 10
	// diskShare is how much of a disk should be free.
	diskShare = 0.03
)

// judge returns what the evidence shows. Since is zero where only the watch knows it.
func judge(e *evidence) (all []Trouble) {
	for _, u := range e.upstreams {
		if !u.Offline {
			all = append(all, ofUpstream(u, e.registries[u.Name], e.now)...)
		}
	}
	if e.now.Before(e.drill) {
		all = append(all, Trouble{
			ID: "drill", Kind: Drill, Severity: Warning, Until: e.drill, View: "#/drill", Command: "forebay drill",
			What: "An outage is rehearsed: no registry is asked", Cause: "An operator began it. It ends by itself.",
			Served: keptIsServed + " New images fail.", Do: "Nothing, or end it.",
		})
	}
	all = append(all, ofStore(e)...)
	all = append(all, ofFleet(e)...)
	all = append(all, ofRoom(e)...)
	all = append(all, ofContent(e)...)
	all = append(all, ofClients(e)...)
	if e.gone > 0 {
		all = append(all, Trouble{
			ID: "vanished", Kind: Gone, Severity: Notice, What: fmt.Sprintf("Gone from their registries, and kept here: %d", e.gone),
			Cause: "Registries say that they do not have any more what they had, or refuse it.", Served: "What is kept of it, where everybody could have it before.",
			Do: "Copy what is needed to a registry of your own (forebay copy), and let go of the rest.", View: "#/images", Command: "forebay vanished",
		})
	}
	for _, text := range e.notices {
		all = append(all, Trouble{
			ID: "configuration " + text, Kind: Configuration, Severity: Notice, What: "A setting gives away what is secret", Cause: text,
			Served: "Everything is served.", Do: "Change it, or leave it if that is wanted.", View: "#/storage", Command: "forebay config check",
		})
	}
	return all
}

// State is how an upstream does, in a word.
type State string

// The states.
const (
	Answers  State = "answers"
	Degraded State = "degraded" // some of what it is asked for fails
	Fails    State = "fails"    // most does, or it is left alone since all did
	Limited  State = "limited"  // it refuses pulls or all requests, or has none left for us
	Offline  State = "offline"  // it is never asked
	Unknown  State = "unknown"  // it was not asked since the start
)

// stateOf returns the state of an upstream.
func stateOf(u cache.UpstreamInfo, s upstream.Status, now time.Time) State {
	if u.Offline {
		return Offline
	}
	for _, t := range ofUpstream(u, s, now) {
		switch t.Kind {
		case Upstream:
			return Fails
		case Limit:
			return Limited
		case Repository:
			return Degraded
		}
	}
	if u.LastAsked.IsZero() {
		return Unknown
	}
	return Answers
}

// Name is what people call a registry.
func Name(upstream string) string {
	if upstream == "docker.io" {
		return "Docker Hub"
	}
	return upstream
}

const keptIsServed = "What is kept is served, tags as they were last known."

// ofUpstream returns the troubles of one registry, the worst first.
func ofUpstream(u cache.UpstreamInfo, s upstream.Status, now time.Time) (all []Trouble) {
	name := Name(u.Name)
	of := func(kind Kind, severity Severity) Trouble {
		return Trouble{
			ID: string(kind) + " " + u.Name, Kind: kind, Severity: severity, Upstream: u.Name,
			View: "#/upstreams?name=" + url.QueryEscape(u.Name), Command: "forebay status",
		}
	}
	open, paused, first := 0, 0, upstream.EndpointStatus{}
	for _, e := range s.Endpoints {
		if e.Open {
			open, first = open+1, e
		}
		if !e.PausedUntil.IsZero() {
			paused++
		}
	}
	ends := len(s.Endpoints)
	switch {
	case !u.FailsFrom.IsZero() || ends > 0 && open == ends:
		t := of(Upstream, Critical)
		if open < ends {
			first.Last = "" // that of another one, which may fail otherwise
		}
		words := cmp.Or(first.Last, u.Words, "does not answer")
		t.What, t.Since, t.Detail = name+" "+public(words), u.FailsFrom, words
		t.Cause = fmt.Sprintf("%d of the %d requests of the last minute failed: it %s.", u.Bad, u.Good+u.Bad, words)
		if u.Good+u.Bad == 0 {
			t.Cause = "The last requests failed: it " + words + "."
		}
		if ends > 0 && open == ends {
			t.Cause += " It is left alone but for a try every few seconds."
		}
		t.Served = keptIsServed + " New images of it fail."
		t.Do = "See whether the registry has an outage, and whether this machine reaches it: network, name server, proxy, certificates."
		all = append(all, t)
	case ends > 0 && paused == ends:
		t := of(Limit, Critical)
		t.What = name + " refuses all requests of this address for a while"
		t.Until, t.Detail = s.Endpoints[0].PausedUntil, s.Endpoints[0].Why
		t.Cause = "It says that too many requests come from this address."
		t.Served, t.Do = keptIsServed+" New images of it fail.", "Find out who else asks it from this address, and wait."
		all = append(all, t)
	}
	if len(all) == 0 {
		all = append(all, ofBudgets(u, s, of, now)...)
	}
	if len(all) == 0 && open > 0 {
		t := of(Endpoint, Warning)
		t.What, t.Detail = fmt.Sprintf("%d of the %d endpoints of %s fail", open, ends, name), first.Last
		t.Cause = first.URL + " " + cmp.Or(first.Last, "fails") + "."
		t.Served, t.Do = "Everything: the other endpoints are asked in its place.", "Mend the endpoint, or take it out of the configuration."
		all = append(all, t)
	}
	if len(u.Faults) > 0 && u.FailsFrom.IsZero() && (ends == 0 || open < ends) {
		t := of(Repository, Warning)
		t.What, t.Since = "Some requests to "+name+" fail", u.Faults[0].Since
		var causes []string
		for _, f := range u.Faults[:min(len(u.Faults), 3)] {
			causes = append(causes, fmt.Sprintf("%s: it %s (%s)", f.Repository, f.Words, times(f.Times)))
			if f.Since.Before(t.Since) {
				t.Since = f.Since
			}
		}
		if n := len(u.Faults) - 3; n > 0 {
			causes = append(causes, fmt.Sprintf("and %d more repositories", n))
		}
		t.Cause = strings.Join(causes, "; ") + "."
		t.Served = "Everything else of it, and what is kept."
		t.Do = "Tell those who keep the image, or pull it from elsewhere. Most often the registry has lost a part of it."
		t.View = "#/events?show=trouble&q=" + url.QueryEscape(u.Faults[0].Repository)
		all = append(all, t)
	}
	return all
}

// public leaves out of words what follows the kind of a failure: an address or a message of others.
func public(words string) string {
	head, _, _ := strings.Cut(words, ": ")
	return head
}

func times(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}

// ofBudgets returns what is to be told of what a registry will still give: of the credential with
// which most is left, since that is the one that counts.
func ofBudgets(u cache.UpstreamInfo, s upstream.Status, of func(Kind, Severity) Trouble, now time.Time) []Trouble {
	var best *upstream.Budget
	for i := range s.Budgets {
		b := &s.Budgets[i]
		if left(b) == 0 && best != nil && left(best) == 0 && !b.Returns.IsZero() && b.Returns.Before(best.Returns) || best == nil || left(b) > left(best) {
			best = b
		}
	}
	if best == nil {
		return nil
	}
	name, b := Name(u.Name), best
	figures := ""
	if b.Limit > 0 && b.Remaining >= 0 {
		figures = fmt.Sprintf("%d of %d pulls left", b.Remaining, b.Limit)
	}
	spent := spentText(b)
	switch {
	case left(b) == 0:
		t := of(Limit, Critical)
		t.What = name + ": " + cmp.Or(figures, "it refuses pulls")
		if b.Remaining > 0 {
			t.What = name + " refuses pulls for a moment"
		}
		t.Until, t.Detail = cmp.Or(b.Returns, b.PausedUntil), b.Why
		if b.Remaining > 0 {
			t.Until = b.PausedUntil
		}
		t.Cause = "The limit of " + who(b) + " is spent." + spent
		t.Served = keptIsServed + " New images are refused."
		t.Do = "Wait, or give it an account with a higher limit, or a stand-in that carries the same images."
		return []Trouble{t}
	case !b.RunsOut.IsZero() && b.RunsOut.Sub(now) < soon && b.Remaining*2 < b.Limit: // a burst at the start is no trend
		t := of(Budget, Warning)
		t.What, t.Until = name+": "+figures+", and they run out soon", b.RunsOut
		t.Cause = fmt.Sprintf("%s spends %s pulls an hour.%s", who(b), humanize.FtoaWithDigits(b.Rate, 0), spent)
		t.Served, t.Do = "Everything, until they are spent.", "See who spends them, and slow that down; or add an account."
		return []Trouble{t}
	case b.Low && figures != "":
		t := of(Budget, Warning)
		t.What, t.Until = name+": "+figures+", less than the reserve", time.Time{}
		t.Cause = "What is left is kept for images that are new here." + spent
		t.Served, t.Do = "Everything; tags that are known are served without asking whether they moved.", "Nothing, or add an account."
		return []Trouble{t}
	}
	return nil
}

// left is the pulls that a credential has left at this moment; very many when nothing is known.
func left(b *upstream.Budget) int64 {
	switch {
	case !b.PausedUntil.IsZero():
		return 0
	case b.Remaining < 0:
		return 1 << 40
	}
	return b.Remaining
}

func who(b *upstream.Budget) string {
	if b.Credential == "anonymous" {
		return "this address, without an account,"
	}
	return "account " + b.Credential
}

// spentText says who spent most.
func spentText(b *upstream.Budget) string {
	pulls := map[string]int{}
	for _, s := range b.Spent {
		pulls[cmp.Or(s.Client, "this mirror ahead of time")] += s.Pulls
	}
	most := slices.SortedFunc(maps.Keys(pulls), func(a, b string) int { return cmp.Or(cmp.Compare(pulls[b], pulls[a]), cmp.Compare(a, b)) })
	if len(most) == 0 && b.Elsewhere == 0 {
		return ""
	}
	if len(most) == 0 || b.Elsewhere > int64(pulls[most[0]]) {
		return fmt.Sprintf(" %d were not spent through this mirror.", b.Elsewhere)
	}
	return fmt.Sprintf(" Most was spent by %s: %d.", most[0], pulls[most[0]])
}

// ofFleet returns that other mirrors cannot be told, are gone or are set up otherwise.
func ofFleet(e *evidence) (all []Trouble) {
	for _, m := range e.mirrors {
		t := Trouble{ID: "mirror " + m.Name, Kind: Fleet, Severity: Warning, Since: m.Gone, View: "#/replicas", Command: "forebay status"}
		if !m.Gone.IsZero() {
			t.What, t.Cause = "A mirror of the fleet is gone", m.Name+" did not take its leave, and does not say that it is there."
			t.Served, t.Do = "Everything, by the mirrors that are left.", "Start it, or look at its log and its network. One that is not to come back is forgotten within an hour."
		} else {
			t.What, t.Severity = "A mirror of the fleet has other settings", Notice
			t.Cause = m.Name + " asks other endpoints, as another account or with other trust for: " + strings.Join(m.Differs, ", ") + "."
			t.Served, t.Do = "Everything. What these registries say is not shared with that mirror, which costs them more requests.", "Give all mirrors the same settings of an upstream, and restart those that have the old ones."
		}
		all = append(all, t)
	}
	if e.away.IsZero() {
		return all
	}
	t := Trouble{ID: string(Fleet), Kind: Fleet, Severity: Warning, Since: e.away, View: "#/upstreams", Command: "forebay status"}
	t.What, t.Cause = "The fleet's engine does not answer", "The server that all mirrors share does not answer, or refuses us."
	t.Served = "Everything. Each mirror asks registries by itself meanwhile, which costs them more requests."
	t.Do = "Look at that server, its password and the network. It is tried again by itself."
	if e.awayErr != nil {
		t.Detail = e.awayErr.Error()
	}
	return append(all, t)
}

// ofStore returns what disk and bucket refuse.
func ofStore(e *evidence) (all []Trouble) {
	of := func(kind Kind, severity Severity) Trouble {
		return Trouble{ID: string(kind), Kind: kind, Severity: severity, View: "#/storage", Command: "forebay stats"}
	}
	const passed = "Clients are served from the registries, as far as their limits go; nothing new is kept."
	if e.unreadable != nil {
		t := of(Disk, Critical)
		t.ID = "disk unreadable"
		t.What, t.Detail = "The store cannot be read", e.unreadable.Error()
		t.Cause, t.Served = "The storage folder or its index does not answer.", "Nothing: traffic should go elsewhere, and /readyz says so."
		t.Do = "Look at the disk, its mount and the log; then start the mirror again."
		all = append(all, t)
	}
	var doors []store.Trouble
	for _, t := range e.stats.Troubles {
		if t.Cause == "bucket" {
			b := of(Bucket, Critical)
			b.ID += " " + t.What
			b.What, b.Since, b.Detail = "The bucket cannot be read", t.Since, t.Why
			if strings.HasPrefix(t.What, "upload") {
				b.What = "The bucket takes no uploads"
			}
			b.Cause = "The bucket does not answer, or refuses us."
			b.Served = "What is on the disk. The rest is fetched from its registry again, as far as the limits go; uploads wait."
			b.Do = "Look at the bucket, its credentials and the network. It is tried again by itself."
			all = append(all, b)
			continue
		}
		doors = append(doors, t)
	}
	if len(doors) > 0 {
		all = append(all, ofDoors(e, doors, of, passed))
	} else if e.statsErr == nil && e.stats.DiskTotal > 0 && float64(e.stats.DiskFree) < diskShare*float64(e.stats.DiskTotal) {
		t := of(Disk, Warning)
		t.What = fmt.Sprintf("The disk is nearly full: %s of %s are free", humanize.IBytes(e.stats.DiskFree), humanize.IBytes(e.stats.DiskTotal))
		t.Cause = "Something beside the mirror fills it, or storage is allowed to grow too far."
		t.Served, t.Do = "Everything. "+passed[strings.Index(passed, "nothing"):], "Make room on the disk, or lower "+e.names.MaxSize+"."
		all = append(all, t)
	}
	return all
}

// ofDoors is one trouble for all that the disk refuses: its cause is one.
func ofDoors(e *evidence, doors []store.Trouble, of func(Kind, Severity) Trouble, passed string) Trouble {
	t := of(Index, Critical)
	var refused []string
	for i, d := range doors {
		if d.What != store.Recording {
			t = of(Disk, Critical)
		}
		refused = append(refused, d.What)
		if i == 0 || d.Since.Before(doors[0].Since) {
			doors[0].Since = d.Since
		}
	}
	t.ID, t.Since, t.Detail, t.Served = "disk", doors[0].Since, doors[0].Why, passed
	t.Cause = "It refuses " + strings.Join(refused, " and ") + "."
	free := ""
	if e.statsErr == nil && e.stats.DiskTotal > 0 {
		free = fmt.Sprintf(" %s of %s are free.", humanize.IBytes(e.stats.DiskFree), humanize.IBytes(e.stats.DiskTotal))
	}
	switch doors[0].Cause {
	case "full":
		t.What, t.Do = "The disk is full", "Make room on the disk, or lower "+e.names.MaxSize+"."
		t.Cause += free
	case "read-only":
		t.What, t.Do = "The disk is read-only", "Look at the log of the kernel: a file system that finds a fault makes itself read-only. Check and remount it."
	case "broken":
		t.What, t.Do = "The disk fails", "Look at the log of the kernel and at the health of the disk, and replace it."
	case "descriptors":
		t.What, t.Do = "Too many files are open", "Raise the limit of open files of the mirror (LimitNOFILE)."
	default:
		t.What, t.Do = "The disk refuses its work", "Look at the log: it has what the disk said."
	}
	if t.Kind == Index {
		t.What += ": the index cannot be written"
	}
	return t
}

// ofRoom tells of a store that drops what is still used.
func ofRoom(e *evidence) []Trouble {
	h, s := e.hour, e.stats
	if s.MaxBytes <= 0 || float64(s.UsedBytes) < fullShare*float64(s.MaxBytes) || h.young < youngLeast || float64(h.young) < youngShare*float64(h.all) {
		return nil
	}
	again := ""
	if s.AgainBytes > 0 {
		again = fmt.Sprintf(" %s were fetched again since the start that a store of about twice the size would have kept.", humanize.IBytes(uint64(s.AgainBytes)))
	}
	return []Trouble{{
		ID: "room", Kind: Room, Severity: Warning, View: "#/storage", Command: "forebay stats",
		What: "The store is too small for its use",
		Cause: fmt.Sprintf("Since %s, %s were dropped of which %d of %d files had been used in the six hours before. %s may be kept.",
			ago(e.now.Sub(h.at)), humanize.IBytes(uint64(max(h.bytes, 0))), h.young, h.all, humanize.IBytes(uint64(s.MaxBytes))) + again,
		Served: "Everything; what was dropped is fetched again, which costs pulls.",
		Do:     "Raise " + e.names.MaxSize + ", or have clients pull less of what is not needed again.",
	}}
}

func ago(d time.Duration) string {
	if d < 2*time.Minute {
		return "a moment ago"
	}
	return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
}

// ofContent tells of content that did not have its digest.
func ofContent(e *evidence) []Trouble {
	if e.wrong == [2]int64{} || e.now.Sub(e.wrongAt) > wrongFor {
		return nil
	}
	t := Trouble{
		ID: "verification", Kind: Verification, Severity: Warning, View: "#/events?show=trouble", Command: "forebay verify",
		What:   fmt.Sprintf("%d contents without their digest were found", e.wrong[0]+e.wrong[1]),
		Served: "Everything: nobody got them, and they are fetched again.",
	}
	if e.wrong[0]+e.wrong[1] == 1 {
		t.What = "A content without its digest was found"
	}
	if e.wrong[1] > 0 {
		t.Cause = fmt.Sprintf("%d were in the store: the disk spoils data.", e.wrong[1])
		t.Do = "Look at the health of the disk. Damaged files are in quarantine."
	} else {
		t.Cause = fmt.Sprintf("%d came so from a registry, or from what lies between.", e.wrong[0])
		t.Do = "Look for a broken proxy or cache on the way to the registry."
	}
	return []Trouble{t}
}

// ofClients tells of clients that reached a bound of the mirror.
func ofClients(e *evidence) (all []Trouble) {
	type group struct {
		who         map[string]int
		limits      map[string]bool
		since       time.Time
		n           int
		ofUpstreams map[string]bool
	}
	groups := map[bool]*group{} // of clients, and of registries' queues
	for who, r := range e.refused {
		queue := who.limit == "queue" || who.limit == "connections"
		g := groups[queue]
		if g == nil {
			g = &group{who: map[string]int{}, limits: map[string]bool{}, ofUpstreams: map[string]bool{}, since: r.since}
			groups[queue] = g
		}
		g.who[who.client] += r.n
		g.limits[who.limit], g.ofUpstreams[Name(who.upstream)] = true, true
		g.n += r.n
		if r.since.Before(g.since) {
			g.since = r.since
		}
	}
	if g := groups[false]; g != nil {
		most := slices.SortedFunc(maps.Keys(g.who), func(a, b string) int { return cmp.Or(cmp.Compare(g.who[b], g.who[a]), cmp.Compare(a, b)) })
		text := fmt.Sprintf("%d clients have reached their limit", len(most))
		if len(most) == 1 {
			text = "A client has reached its limit"
		}
		all = append(all, Trouble{
			ID: "clients", Kind: Clients, Severity: Warning, What: text, Since: g.since,
			Cause:  fmt.Sprintf("%s was refused %s (%s).", most[0], times(g.who[most[0]]), limitWords(g.limits)),
			Served: "All other clients, and this one what is kept.",
			Do:     "Find out what it pulls so often, or raise its limit: " + e.names.Limits + ".",
			View:   "#/clients?q=" + url.QueryEscape(most[0]), Command: "forebay status",
		})
	}
	if g := groups[true]; g != nil {
		names := strings.Join(slices.Sorted(maps.Keys(g.ofUpstreams)), ", ")
		all = append(all, Trouble{
			ID: "queue", Kind: Clients, Severity: Critical, What: "Too many requests wait for " + names, Since: g.since,
			Cause:  times(g.n) + " found no place among those that wait.",
			Served: keptIsServed + " Some requests for what is not kept fail.",
			Do:     "See who asks for so much, or raise " + e.names.MaxConnections + " of the upstream.",
			View:   "#/clients", Command: "forebay status",
		})
	}
	return all
}

func limitWords(limits map[string]bool) string {
	words := map[string]string{
		"new": "it asks for too much that is new", "pulls": "it has spent its pulls", "fills": "it has too many downloads in progress",
		"requests": "it sends too many requests", "transfers": "it has too many transfers in progress", "share": "it has spent its share of the registry's limit",
		"reserve": "what is left of the registry's limit is for what was pulled before",
	}
	var all []string
	for _, l := range slices.Sorted(maps.Keys(limits)) {
		all = append(all, words[l])
	}
	return strings.Join(all, ", ")
}
