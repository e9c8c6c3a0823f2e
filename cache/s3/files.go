package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"forebay/cache/tier"
	"forebay/internal/pull"
)

// root returns the prefix of all that is ours.
func (b *Bucket) root() string { return strings.TrimSuffix(b.prefix, "blobs/") }

// PutFile makes a file with one request.
func (b *Bucket) PutFile(ctx context.Context, name string, content io.ReaderAt, size int64, c tier.Condition) error {
	op, key := "put "+name, b.root()+name
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(content, 0, size)); err != nil {
		return fault(op, err)
	}
	in := &s3.PutObjectInput{
		Bucket: b.bucket(), Key: &key, ExpectedBucketOwner: b.owner(),
		Body: (&put{content: content}).section(0, size), ContentLength: aws.Int64(size), ContentType: aws.String(contentType),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum.Sum(nil))), IfMatch: optional(c.Version),
		ServerSideEncryption: b.crypt(), SSEKMSKeyId: b.kmsKey(), // of no storage class: it is read at every start
	}
	if c.Absent {
		in.IfNoneMatch = aws.String("*")
	}
	ctx, cancel := within(ctx, size)
	defer cancel()
	out, err := b.client.PutObject(ctx, in, payload(sum.Sum(nil)))
	switch status := statusOf(err); {
	case err == nil:
		return fault(op, kept(out.ETag))
	case c == tier.Condition{}:
	case status == http.StatusPreconditionFailed, status == http.StatusConflict, status == http.StatusNotFound && c.Version != "":
		return fmt.Errorf("%s: %w", op, tier.ErrCondition)
	case status == http.StatusNotImplemented:
		return fmt.Errorf("%s: %w", op, tier.ErrUnconditional)
	}
	return fault(op, err)
}

// OpenFile opens a part of a file.
func (b *Bucket) OpenFile(ctx context.Context, name string, off, end int64) (*pull.Body, string, error) {
	return b.open(ctx, "get "+name, b.root()+name, off, end)
}

// ListFiles calls fn for every file below a folder.
func (b *Bucket) ListFiles(ctx context.Context, folder string, fn func(tier.File) error) error {
	return b.list(ctx, b.root()+folder+"/", func(o types.Object) error {
		return fn(tier.File{Name: strings.TrimPrefix(aws.ToString(o.Key), b.root()), Size: aws.ToInt64(o.Size), Stamp: aws.ToTime(o.LastModified)})
	})
}

// RemoveFiles removes files.
func (b *Bucket) RemoveFiles(ctx context.Context, names []string) error {
	for some := range slices.Chunk(names, removeMost) {
		keys := make([]string, len(some))
		for i, name := range some {
			keys[i] = b.root() + name
		}
		if err := b.removeKeys(ctx, fmt.Sprintf("remove %d files", len(keys)), keys); err != nil {
			return err
		}
	}
	return nil
}
