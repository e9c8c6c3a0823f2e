package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Reach asks for the names in the bucket, with one request. The error is a [Refusal] when
// settings or rights are wrong, and another when the bucket does not answer.
func (b *Bucket) Reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*b.opts.Timeouts.Answer)
	defer cancel()
	out, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: b.bucket(), Prefix: &b.prefix, MaxKeys: aws.Int32(1), ExpectedBucketOwner: b.owner(),
	}, readAttempts)
	if err == nil && out.IsTruncated == nil && out.Name == nil {
		err = errNoS3 // a page that happens to be XML
	}
	return b.explain(err, "list objects", "s3:ListBucket")
}

// Check tries all that the mirror does with a bucket, on an object of its own that it removes
// again: list, put, read a range, begin and end an upload in parts, remove. The error is a
// [Refusal] when settings or rights are wrong.
func (b *Bucket) Check(ctx context.Context) error {
	if err := b.Reach(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 6*b.opts.Timeouts.Answer)
	defer cancel()
	c := &check{b: b, ctx: ctx, key: b.prefix + "check/" + rand.Text(), content: []byte(rand.Text())}
	err := c.object()
	// Whatever failed, nothing is left behind.
	if rerr := c.remove(); err == nil {
		err = rerr
	}
	if err == nil {
		err = c.upload()
	}
	return err
}

// check is one run of Check.
type check struct {
	b       *Bucket
	ctx     context.Context // of the one call it lives for
	key     string
	content []byte
}

// object puts an object and reads a part of it.
func (c *check) object() error {
	b := c.b
	sum := sha256.Sum256(c.content)
	in := &s3.PutObjectInput{
		Bucket: b.bucket(), Key: &c.key, ExpectedBucketOwner: b.owner(),
		Body: bytes.NewReader(c.content), ContentLength: aws.Int64(int64(len(c.content))),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
		StorageClass:   b.class(), ServerSideEncryption: b.crypt(), SSEKMSKeyId: b.kmsKey(),
	}
	if _, err := b.client.PutObject(c.ctx, in); err != nil {
		return b.explain(err, "put object", "s3:PutObject")
	}
	out, err := b.client.GetObject(c.ctx, &s3.GetObjectInput{
		Bucket: b.bucket(), Key: &c.key, Range: aws.String("bytes=1-3"), ExpectedBucketOwner: b.owner(),
	})
	if err != nil {
		return b.explain(err, "get object", "s3:GetObject")
	}
	defer out.Body.Close()
	got, err := io.ReadAll(out.Body)
	if err != nil {
		return fault("get object", err)
	}
	if !bytes.Equal(got, c.content[1:4]) {
		return fmt.Errorf("the server answers the bytes 1 to 3 of %s with %s", hex.EncodeToString(c.content), hex.EncodeToString(got))
	}
	return nil
}

func (c *check) remove() error {
	_, err := c.b.client.DeleteObjects(c.ctx, &s3.DeleteObjectsInput{
		Bucket: c.b.bucket(), ExpectedBucketOwner: c.b.owner(), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: &c.key}}, Quiet: aws.Bool(true)},
	})
	return c.b.explain(err, "remove object", "s3:DeleteObject")
}

// upload begins an upload in parts and ends it.
func (c *check) upload() error {
	b := c.b
	begun, err := b.client.CreateMultipartUpload(c.ctx, &s3.CreateMultipartUploadInput{
		Bucket: b.bucket(), Key: &c.key, ExpectedBucketOwner: b.owner(), ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
		StorageClass: b.class(), ServerSideEncryption: b.crypt(), SSEKMSKeyId: b.kmsKey(),
	})
	if err != nil {
		return b.explain(err, "begin upload", "s3:PutObject")
	}
	_, err = b.client.AbortMultipartUpload(c.ctx, &s3.AbortMultipartUploadInput{
		Bucket: b.bucket(), Key: &c.key, UploadId: begun.UploadId, ExpectedBucketOwner: b.owner(),
	})
	if err := b.explain(err, "abort upload", "s3:AbortMultipartUpload"); err != nil {
		return err
	}
	_, err = b.client.ListMultipartUploads(c.ctx, &s3.ListMultipartUploadsInput{Bucket: b.bucket(), Prefix: &c.key, ExpectedBucketOwner: b.owner()})
	return b.explain(err, "list uploads", "s3:ListBucketMultipartUploads")
}
