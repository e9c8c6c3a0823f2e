package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/tier"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// errStalled is the cause of a body that did not go on.
var errStalled = errors.New("no byte arrived in time")

// readAttempts is how often a read is tried: the caller can ask the registry instead.
func readAttempts(o *s3.Options) { o.RetryMaxAttempts = 2 }

// Open opens the bytes [off, end) of an object, end -1 being its end.
func (b *Bucket) Open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	op := "get " + d.String()
	key, err := b.key(d)
	if err != nil {
		return nil, fault(op, err)
	}
	body, _, err := b.open(ctx, op, key, off, end)
	return body, err
}

func (b *Bucket) open(ctx context.Context, op, key string, off, end int64) (_ *pull.Body, etag string, err error) {
	in := &s3.GetObjectInput{Bucket: b.bucket(), Key: &key, ExpectedBucketOwner: b.owner()}
	switch {
	case end >= 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", off, end-1))
	case off > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", off))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	slow := time.AfterFunc(b.opts.Timeouts.Answer, func() { cancel(errStalled) })
	out, err := b.client.GetObject(ctx, in, readAttempts)
	if !slow.Stop() && err == nil {
		err = errStalled
		_ = out.Body.Close()
	}
	if err != nil {
		cancel(nil)
		return nil, "", late(ctx, op, fault(op, err))
	}
	body := &body{ReadCloser: out.Body, ctx: ctx, cancel: cancel, op: op, stall: b.opts.Timeouts.Stall}
	body.slow = time.AfterFunc(body.stall, func() { cancel(errStalled) })
	p := &pull.Body{ReadCloser: body, Size: -1, End: -1, Ranged: true}
	if out.ContentLength != nil {
		p.End, p.Size = *out.ContentLength, *out.ContentLength
	}
	if in.Range == nil {
		return p, aws.ToString(out.ETag), nil
	}
	if out.ContentRange == nil {
		p.Ranged = false // the whole came instead
		return p, aws.ToString(out.ETag), nil
	}
	r, err := wire.ParseContentRange(*out.ContentRange)
	if err != nil || r.Start != off {
		_ = body.Close()
		return nil, "", &pull.Error{Kind: pull.Invalid, Upstream: "bucket", Op: op, Message: "another range came than was asked for", Err: err}
	}
	p.Offset, p.End, p.Size = r.Start, r.End, r.Size
	return p, aws.ToString(out.ETag), nil
}

// late returns a timeout if err came from a stall, else err.
func late(ctx context.Context, op string, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return &pull.Error{Kind: pull.Timeout, Upstream: "bucket", Op: op, Err: errStalled}
	}
	return err
}

// body is the body of an answer. It is ended when no byte comes for the time stall.
type body struct {
	io.ReadCloser
	ctx    context.Context // of this one answer
	cancel context.CancelCauseFunc
	op     string
	stall  time.Duration
	slow   *time.Timer
}

func (r *body) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 {
		r.slow.Reset(r.stall)
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return n, err
	}
	return n, late(r.ctx, r.op, fault(r.op, err))
}

func (r *body) Close() error {
	r.slow.Stop()
	r.cancel(nil)
	return r.ReadCloser.Close()
}

// Stat returns what is known of an object without its bytes.
func (b *Bucket) Stat(ctx context.Context, d v1.Hash) (tier.Object, error) {
	op := "stat " + d.String()
	key, err := b.key(d)
	if err != nil {
		return tier.Object{}, fault(op, err)
	}
	ctx, cancel := context.WithTimeout(ctx, b.opts.Timeouts.Answer)
	defer cancel()
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b.bucket(), Key: &key, ExpectedBucketOwner: b.owner()}, readAttempts)
	if err != nil {
		return tier.Object{}, fault(op, err)
	}
	return tier.Object{Digest: d, Size: aws.ToInt64(out.ContentLength), Stamp: aws.ToTime(out.LastModified)}, nil
}

// Presign returns a URL under which anybody may GET the object for a while.
func (b *Bucket) Presign(ctx context.Context, d v1.Hash, ttl time.Duration) (string, error) {
	op := "presign " + d.String()
	key, err := b.key(d)
	if err != nil {
		return "", fault(op, err)
	}
	signed, err := s3.NewPresignClient(b.client).PresignGetObject(ctx,
		&s3.GetObjectInput{Bucket: b.bucket(), Key: &key, ResponseContentType: aws.String("application/octet-stream")}, s3.WithPresignExpires(ttl))
	if err != nil {
		return "", fault(op, err)
	}
	return signed.URL, nil
}
