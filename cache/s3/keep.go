package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/tier"
)

// removeMost is what DeleteObjects takes.
const removeMost = 1000

// Remove removes objects, up to a thousand with each request.
func (b *Bucket) Remove(ctx context.Context, all []v1.Hash) error {
	for len(all) > 0 {
		some := all[:min(len(all), removeMost)]
		all = all[len(some):]
		if err := b.removeSome(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bucket) removeSome(ctx context.Context, some []v1.Hash) error {
	op := fmt.Sprintf("remove %d objects", len(some))
	if len(some) == 1 {
		op = "remove " + some[0].String()
	}
	keys := make([]string, len(some))
	for i, d := range some {
		var err error
		if keys[i], err = b.key(d); err != nil {
			return fault(op, err)
		}
	}
	return b.removeKeys(ctx, op, keys)
}

func (b *Bucket) removeKeys(ctx context.Context, op string, keys []string) error {
	names := make([]types.ObjectIdentifier, len(keys))
	for i := range keys {
		names[i].Key = &keys[i]
	}
	ctx, cancel := within(ctx, 0)
	defer cancel()
	out, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: b.bucket(), ExpectedBucketOwner: b.owner(), Delete: &types.Delete{Objects: names, Quiet: aws.Bool(true)},
	})
	if err != nil {
		return fault(op, err)
	}
	for _, e := range out.Errors {
		if code := aws.ToString(e.Code); code != "NoSuchKey" {
			return fault(op, fmt.Errorf("%s: %s", code, aws.ToString(e.Message)))
		}
	}
	return nil
}

// List calls fn for every object of a shard: "sha256/ab", "sha512", "blake3", or "" for all.
func (b *Bucket) List(ctx context.Context, shard string, fn func(tier.Object) error) error {
	prefix := b.prefix
	if shard != "" {
		prefix += shard + "/"
	}
	return b.list(ctx, prefix, func(o types.Object) error {
		d, ok := b.digest(aws.ToString(o.Key))
		if !ok {
			return nil // not one of ours
		}
		return fn(tier.Object{Digest: d, Size: aws.ToInt64(o.Size), Stamp: aws.ToTime(o.LastModified)})
	})
}

func (b *Bucket) list(ctx context.Context, prefix string, fn func(types.Object) error) error {
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{
		Bucket: b.bucket(), Prefix: &prefix, ExpectedBucketOwner: b.owner(),
	})
	for pages.HasMorePages() {
		page, err := b.page(ctx, pages)
		if err != nil {
			return fault("list objects", err)
		}
		for _, o := range page.Contents {
			if err := fn(o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Bucket) page(ctx context.Context, pages *s3.ListObjectsV2Paginator) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*b.opts.Timeouts.Stall)
	defer cancel()
	return pages.NextPage(ctx)
}

// Touch makes an object as young as if it were put now, by copying it onto itself inside the
// bucket. Some servers do not change its age then: with them it is made anew of one part that
// is a copy. If it stays old, that is an error, since it would be removed although it is
// needed.
func (b *Bucket) Touch(ctx context.Context, o tier.Object) error {
	op := "touch " + o.Digest.String()
	key, err := b.key(o.Digest)
	if err != nil {
		return fault(op, err)
	}
	source := aws.String(url.PathEscape(b.opts.Name) + "/" + (&url.URL{Path: key}).EscapedPath())
	if o.Size > b.copyMost || b.copyStale.Load() {
		return b.touchParts(ctx, op, key, source, o)
	}
	ctx, cancel := within(ctx, o.Size/16) // it is done by the server
	defer cancel()
	out, err := b.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: b.bucket(), Key: &key, CopySource: source, ExpectedBucketOwner: b.owner(), ExpectedSourceBucketOwner: b.owner(),
		MetadataDirective: types.MetadataDirectiveReplace, ContentType: aws.String(contentType),
		StorageClass: b.class(), ServerSideEncryption: b.crypt(), SSEKMSKeyId: b.kmsKey(),
	})
	if err != nil {
		return fault(op, err)
	}
	if younger(out.CopyObjectResult, o) {
		return nil
	}
	b.copyStale.Store(true)
	return b.touchParts(ctx, op, key, source, o)
}

// younger reports whether a copy is younger than the object. A server that does not say is believed.
func younger(r *types.CopyObjectResult, o tier.Object) bool {
	return r == nil || r.LastModified == nil || r.LastModified.After(o.Stamp)
}

// touchParts is Touch by an upload whose parts are copies.
func (b *Bucket) touchParts(ctx context.Context, op, key string, source *string, o tier.Object) error {
	ctx, cancel := within(ctx, o.Size/16)
	defer cancel()
	begun, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: b.bucket(), Key: &key, ExpectedBucketOwner: b.owner(), ContentType: aws.String(contentType),
		StorageClass: b.class(), ServerSideEncryption: b.crypt(), SSEKMSKeyId: b.kmsKey(),
	})
	if err != nil {
		return fault(op, err)
	}
	p := &put{b: b, op: op, key: key}
	var done []types.CompletedPart
	for off := int64(0); off < o.Size; off += b.copyMost {
		end := min(off+b.copyMost, o.Size)
		number := int32(off/b.copyMost) + 1
		out, err := b.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
			Bucket: b.bucket(), Key: &key, UploadId: begun.UploadId, PartNumber: &number, CopySource: source,
			CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", off, end-1)), ExpectedBucketOwner: b.owner(), ExpectedSourceBucketOwner: b.owner(),
		})
		if err != nil {
			return errors.Join(fault(op, err), p.abort(ctx, upload(aws.ToString(begun.UploadId))))
		}
		done = append(done, types.CompletedPart{PartNumber: &number, ETag: out.CopyPartResult.ETag})
	}
	_, err = b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: b.bucket(), Key: &key, UploadId: begun.UploadId, ExpectedBucketOwner: b.owner(),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	if err != nil {
		return errors.Join(fault(op, err), p.abort(ctx, upload(aws.ToString(begun.UploadId))))
	}
	if after, err := b.Stat(ctx, o.Digest); err != nil || !after.Stamp.After(o.Stamp) {
		return errors.Join(err, fault(op, errors.New("the server does not make an object younger that is copied onto itself")))
	}
	return nil
}

// AbortUploads ends uploads that began before a time and never ended.
func (b *Bucket) AbortUploads(ctx context.Context, before time.Time) (n int, err error) {
	pages := s3.NewListMultipartUploadsPaginator(b.client, &s3.ListMultipartUploadsInput{
		Bucket: b.bucket(), Prefix: &b.prefix, ExpectedBucketOwner: b.owner(),
	})
	for pages.HasMorePages() {
		limited, cancel := within(ctx, 0)
		page, err := pages.NextPage(limited)
		cancel()
		if err != nil {
			return n, fault("list uploads", err)
		}
		for _, u := range page.Uploads {
			key := aws.ToString(u.Key)
			if _, ours := b.digest(key); !ours || !aws.ToTime(u.Initiated).Before(before) {
				continue
			}
			p := &put{b: b, op: "abort upload of " + key, key: key}
			if err := p.abort(ctx, upload(aws.ToString(u.UploadId))); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

func upload(id string) index.Upload { return index.Upload{ID: id} }
