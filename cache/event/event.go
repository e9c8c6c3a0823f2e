// Package event says what happened to what is kept and to the upstreams, for people to read.
//
// Its texts come from registries and clients: whoever shows them must escape them.
package event

import (
	"context"
	"regexp"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/pull"
)

// Event is something that happened.
type Event struct {
	At         time.Time
	Kind       Kind
	Upstream   string // empty where no upstream is concerned
	Repository string // canonical; empty where no repository is concerned
	Tag        string
	Digest     v1.Hash // what it is now, or what is concerned
	Was        v1.Hash // of a tag that moved: what it pointed to before
	Count      int64   // of what Evicted and Purged removed: files
	Bytes      int64
	Actor      string // the operator who did it; empty for what came about by itself
	Detail     string // for people: why, or how; without secrets
}

// actorKey is where a context has the operator.
type actorKey struct{}

// By returns a context for what an operator does.
func By(ctx context.Context, operator string) context.Context {
	return context.WithValue(ctx, actorKey{}, operator)
}

// Actor returns the operator of a context, or "".
func Actor(ctx context.Context) string {
	name, _ := ctx.Value(actorKey{}).(string)
	return name
}

// Kind says what happened.
type Kind string

// The kinds of events.
const (
	TagMoved     Kind = "tag_moved"
	ReleaseMoved Kind = "release_moved" // a tag of a full version, which nobody is expected to move
	Evicted      Kind = "evicted"       // once for each time that room was made
	FillDone     Kind = "fill_done"     // of a blob of at least 32 MiB
	FillFailed   Kind = "fill_failed"
	// VerificationFailed: an upstream sent content that does not have its digest, or
	// what is kept does not have it any more. Quarantined: and it was put aside, for
	// somebody to look at.
	VerificationFailed Kind = "verification_failed"
	Quarantined        Kind = "quarantined"
	// Degraded: the store refuses to take or to give something, by the fault of the
	// disk. Recovered: it did so again. They come in pairs.
	Degraded  Kind = "degraded"
	Recovered Kind = "recovered"
	// UpstreamFailing and UpstreamBack come in pairs; Limited comes once a minute at most for an
	// upstream.
	UpstreamFailing Kind = "upstream_failing"
	UpstreamBack    Kind = "upstream_back"
	Limited         Kind = "limited"
	ServedStale     Kind = "served_stale" // once a minute at most for a tag
	Purged          Kind = "purged"
	Pinned          Kind = "pinned"
	Unpinned        Kind = "unpinned"
	// Waiting and Refused: a tag does not answer with the digest that it points to, by a rule; yet,
	// or at all. They come once for each binding. Promoted, Frozen and Thawed are by operators.
	Waiting  Kind = "waiting"
	Refused  Kind = "refused"
	Promoted Kind = "promoted"
	Frozen   Kind = "frozen"
	Thawed   Kind = "thawed"
	// SnapshotMade and SnapshotDropped have the name of the snapshot as Tag.
	SnapshotMade    Kind = "snapshot_made"
	SnapshotDropped Kind = "snapshot_dropped"
	// Vanished: a registry says that a tag, or without one a whole repository, is gone that it
	// had. Returned: it is there again. They come in pairs.
	Vanished Kind = "vanished"
	Returned Kind = "returned"
	// TroubleBegan and TroubleEnded: what is wrong with the mirror, once it has lasted for a while.
	TroubleBegan   Kind = "trouble_began"
	TroubleEnded   Kind = "trouble_ended"
	Started        Kind = "started"         // the mirror, with its version
	ConfigReloaded Kind = "config_reloaded" // the configuration was read again
	ConfigRefused  Kind = "config_refused"  // and had faults: that from before is kept
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{
		TagMoved, ReleaseMoved, Evicted, FillDone, FillFailed, VerificationFailed,
		Quarantined, Degraded, Recovered, UpstreamFailing, UpstreamBack, Limited,
		ServedStale, Purged, Pinned, Unpinned, Waiting, Refused, Promoted, Frozen, Thawed, SnapshotMade, SnapshotDropped, Vanished, Returned, TroubleBegan, TroubleEnded, Started, ConfigReloaded, ConfigRefused,
	}
}

// Of is an event about something of a repository.
func Of(k Kind, repo index.Repo, d v1.Hash) Event {
	return Event{Kind: k, Upstream: repo.Upstream, Repository: repo.Name, Digest: d}
}

// Moved is the event of a tag that points elsewhere now.
func Moved(repo index.Repo, tag string, from, to v1.Hash) Event {
	e := Of(TagMoved, repo, to)
	e.Tag, e.Was = tag, from
	if releasePattern.MatchString(tag) {
		e.Kind = ReleaseMoved
	}
	return e
}

// releasePattern is a tag that reads like the version of one release, which nobody is
// expected to move: "1.27.3", "v2.0.0-rc1", but not "1.27" and not "1".
var releasePattern = regexp.MustCompile(`^v?\d+\.\d+\.\d+([.+_-].*)?$`)

// Because adds why, in words.
func (e Event) Because(err error) Event {
	if err != nil {
		e.Detail = pull.Words(err)
	}
	return e
}
