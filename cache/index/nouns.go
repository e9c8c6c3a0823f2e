package index

import (
	"forebay/cache/index/durable"
	"forebay/cache/index/row"
)

// What the index keeps. Its callers need no other package to name it.
type (
	Repo     = row.Repo
	Kind     = row.Kind
	DocKind  = row.DocKind
	BlobInfo = row.BlobInfo
	Link     = row.Link
	Tag      = row.Tag
	Binding  = row.Binding
	Pin      = row.Pin
	Decision = row.Decision
	Remote   = row.Remote
	Upload   = row.Upload
	Totals   = row.Totals
)

// Step is one change that the index makes to the disk. [Fault] is asked before each.
type (
	Step  = durable.Step
	Fault = durable.Fault
)

// The kinds of links, and of documents.
const (
	Manifest     = row.Manifest
	Blob         = row.Blob
	TagList      = row.TagList
	ReferrerList = row.ReferrerList
)

// ErrTooBig means that a batch or a document is larger than can be kept.
var ErrTooBig = row.ErrTooBig
