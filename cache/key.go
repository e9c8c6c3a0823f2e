package cache

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
)

// key names something that an upstream is asked for, or that was told of.
type key struct {
	what what
	repo Repo
	ref  string // tag, digest, or name of a list
}

// what is asked for.
type what uint8

const (
	aRef       what = iota // what a tag or a digest points to, or the manifest of a digest
	aHead                  // whether a repository holds the manifest of a digest
	aTag                   // the manifest of a tag
	aLowTag                // what a tag points to, while the budget is low
	aBlob                  // a blob
	aTags                  // the list of tags
	aReferrers             // the list of referrers
	aFile                  // a file of ours
	aRuling                // which digest answers for a tag
)

// refKey is the key of what a tag or a digest points to, as a client may be told of it: registries
// hide manifests of types that a request does not list.
func refKey(ctx context.Context, repo Repo, ref string) key {
	return key{aRef, repo, ref + pull.Accept(ctx)}
}

func blobKey(repo Repo, d v1.Hash) key { return key{aBlob, repo, d.String()} }
