package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/image"
	"forebay/cache/policy"
	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// Judge is asked by HTTP about digests.
type Judge struct {
	URL     string
	Headers map[string]string
	Timeout time.Duration
	OnError string // "allow", "deny", or "wait"
}

const (
	judgedFor   = 24 * time.Hour // how long an answer counts that says nothing of that
	judgedMost  = 30 * 24 * time.Hour
	judgeBytes  = 64 << 10
	judgeReason = 300
)

// question is what a judge is asked.
type question struct {
	Ref       string   `json:"ref"`
	Digest    string   `json:"digest"`
	MediaType string   `json:"media_type"`
	Platforms []string `json:"platforms"`
	Rule      string   `json:"rule"`
}

// answer is what it says.
type answer struct {
	Decision string    `json:"decision"` // "allow", "deny", or "wait"
	Reason   string    `json:"reason"`
	Expires  time.Time `json:"expires"`
}

// Judged says what the judge of a rule says of a digest. What it decided is remembered by the digest.
func (k *known) Judged(d v1.Hash, rule string) policy.Answer {
	at := rule + " " + d.String()
	if a, ok := k.r.judged.Get(at); ok && time.Now().Before(a.Until) {
		return a
	}
	k.r.mu.Lock()
	i := slices.IndexFunc(k.r.configured, func(c Configured) bool { return c.Name == rule })
	var j Judge
	if i >= 0 {
		j = k.r.configured[i].Judge
	}
	k.r.mu.Unlock()
	facts := k.Facts(d, false)
	if facts.Unknown != nil {
		return policy.Answer{Wait: true, Why: "it cannot be had: " + facts.Unknown.Error(), Until: time.Now().Add(soon)}
	}
	k.r.counts.Judged.Add(1)
	said, err := k.r.ask(k.ctx, j, question{image.Name(k.repo, k.tag, d), d.String(), facts.MediaType, facts.Platforms, rule})
	if err != nil {
		k.r.counts.Failed.Add(1)
		k.r.log.Warn("judge does not answer", logkey.Reference(rule), logkey.Digest(d), logkey.Err(err))
		said = answer{Decision: j.OnError, Reason: "the judge does not answer", Expires: time.Now().Add(soon)}
	}
	a := policy.Answer{Yes: said.Decision == "allow", Wait: said.Decision == "wait", Why: wire.Clip(said.Reason, judgeReason), Until: said.Expires}
	switch now := time.Now(); {
	case a.Wait && (a.Until.Before(now) || a.Until.After(now.Add(time.Hour))):
		a.Until = now.Add(soon)
	case a.Until.IsZero():
		a.Until = now.Add(judgedFor)
	case a.Until.After(now.Add(judgedMost)):
		a.Until = now.Add(judgedMost)
	}
	k.r.judged.Add(at, a)
	return a
}

// ask asks a judge once.
func (r *Rules) ask(ctx context.Context, j Judge, q question) (said answer, err error) {
	if r.opts.Client == nil || j.URL == "" {
		return said, errors.New("nobody can be asked here")
	}
	body, err := json.Marshal(q)
	if err != nil {
		return said, err
	}
	ctx, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, j.URL, bytes.NewReader(body))
	if err != nil {
		return said, err
	}
	post.Header.Set("Content-Type", "application/json")
	for name, value := range j.Headers {
		post.Header.Set(name, value)
	}
	a, err := r.opts.Client.Do(post)
	if err != nil {
		return said, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return said, fmt.Errorf("it answers %s", a.Status)
	}
	if err := json.NewDecoder(io.LimitReader(a.Body, judgeBytes)).Decode(&said); err != nil {
		return said, fmt.Errorf("its answer is no JSON: %w", err)
	}
	if !slices.Contains([]string{"allow", "deny", "wait"}, said.Decision) {
		return said, fmt.Errorf("it decides %q: want allow, deny or wait", wire.Clip(said.Decision, 40))
	}
	return said, nil
}
