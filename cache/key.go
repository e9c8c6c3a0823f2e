package cache

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
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
)

func blobKey(repo Repo, d v1.Hash) key { return key{aBlob, repo, d.String()} }
