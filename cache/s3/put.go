package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/tier"
	"forebay/internal/logkey"
	"forebay/internal/sums"
)

const (
	contentType = "application/octet-stream"
	// An upload must move at least so many bytes per second, after a start.
	rateLeast   = 64 << 10
	startAtMost = 2 * time.Minute
)

// errExists means that a conditional write found the object there.
var errExists = errors.New("object exists")

// Put makes an object of content. Small ones take one request. Larger ones are uploaded in
// parts, one after the other; what is sent is read from content as it goes out, so that
// memory holds none of it.
func (b *Bucket) Put(ctx context.Context, d v1.Hash, size int64, content io.ReaderAt, o tier.PutOptions) error {
	op := "put " + d.String()
	key, err := b.key(d)
	if err != nil {
		return fault(op, err)
	}
	p := &put{b: b, op: op, key: key, digest: d, size: size, content: content, o: o}
	err = p.run(ctx)
	if !errors.Is(err, errExists) {
		return err
	}
	// Somebody else put it. Its name alone proves nothing: at least the size must be right.
	there, err := b.Stat(ctx, d)
	if err != nil {
		return err
	}
	if there.Size == size {
		return nil
	}
	b.log.Warn("object has another size than it should: replaced", logkey.Digest(d), logkey.Bytes(there.Size))
	p.o.Replace = true
	return p.run(ctx)
}

// put is one object on its way.
type put struct {
	b       *Bucket
	op      string
	key     string
	digest  v1.Hash
	size    int64
	content io.ReaderAt
	o       tier.PutOptions
}

func (p *put) run(ctx context.Context) error {
	if p.size <= p.b.opts.PartSize {
		return p.whole(ctx)
	}
	return p.parts(ctx)
}

// within bounds a request that sends n bytes.
func within(ctx context.Context, n int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, startAtMost+time.Duration(n/rateLeast)*time.Second)
}

// ifNone returns the condition that the object does not exist, unless it may be replaced or
// the server knows no conditions.
func (p *put) ifNone() *string {
	if p.o.Replace || p.b.unconditional.Load() {
		return nil
	}
	return aws.String("*")
}

// conditional calls write, and once more without the condition if the server does not know
// conditions.
func (p *put) conditional(write func() error) error {
	conditional := p.ifNone() != nil
	err := write()
	switch status := statusOf(err); {
	case err == nil:
		return nil
	case conditional && status == http.StatusPreconditionFailed:
		return errExists
	case conditional && status == http.StatusNotImplemented:
		p.b.unconditional.Store(true)
		p.b.log.Info("server has no conditional writes")
		err = write()
	}
	switch codeOf(err) {
	case "XAmzContentSHA256Mismatch", "BadDigest", "InvalidDigest":
		return fmt.Errorf("%w: %w", tier.ErrDamaged, fault(p.op, err))
	}
	return fault(p.op, err)
}

// whole puts the object with one request. Its digest is its checksum, so that the bytes
// are read once.
func (p *put) whole(ctx context.Context) error {
	sum, err := p.sha256()
	if err != nil {
		return err
	}
	ctx, cancel := within(ctx, p.size)
	defer cancel()
	return p.conditional(func() error {
		out, err := p.b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: p.b.bucket(), Key: &p.key, ExpectedBucketOwner: p.b.owner(),
			Body: p.section(0, p.size), ContentLength: aws.Int64(p.size), ContentType: aws.String(contentType),
			ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum)), IfNoneMatch: p.ifNone(),
			StorageClass: p.b.class(), ServerSideEncryption: p.b.crypt(), SSEKMSKeyId: p.b.kmsKey(),
		}, payload(sum))
		if err != nil {
			return err
		}
		return kept(out.ETag)
	})
}

// section returns a part of the content. An empty one is in memory, since the SDK takes
// another reader of no bytes for one of unknown length.
func (p *put) section(off, n int64) io.ReadSeeker {
	if n == 0 {
		return bytes.NewReader(nil)
	}
	return io.NewSectionReader(p.content, off, n)
}

// sha256 returns the checksum of the whole.
func (p *put) sha256() ([]byte, error) {
	if p.digest.Algorithm == "sha256" {
		return hex.DecodeString(p.digest.Hex)
	}
	whole, err := sums.Hash(p.digest.Algorithm)
	if err != nil {
		return nil, fault(p.op, err)
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(whole, sum), io.NewSectionReader(p.content, 0, p.size)); err != nil {
		return nil, fault(p.op, err)
	}
	if sums.CheckHash(p.digest, whole) != nil {
		return nil, fmt.Errorf("%s: %w", p.op, tier.ErrDamaged)
	}
	return sum.Sum(nil), nil
}

// payload says what the SHA-256 of the body is, so that the SDK need not read it first.
func payload(sum []byte) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("forebayPayloadHash",
				func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
					return next.HandleInitialize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum)), in)
				}), middleware.Before)
		})
	}
}

// parts uploads the object in parts, going on with an earlier upload if there is one.
func (p *put) parts(ctx context.Context) error {
	u, there, err := p.begin(ctx)
	if err != nil {
		return err
	}
	whole, err := sums.Hash(p.digest.Algorithm)
	if err != nil {
		return fault(p.op, err)
	}
	var done []types.CompletedPart
	for off := int64(0); off < p.size; off += u.PartSize {
		n := min(u.PartSize, p.size-off)
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(whole, sum), io.NewSectionReader(p.content, off, n)); err != nil {
			return fault(p.op, err)
		}
		number := int32(off/u.PartSize) + 1
		part, ok := there[number]
		if !ok || part.size != n || part.sum != "" && part.sum != encode(sum) {
			if part.etag, err = p.part(ctx, u, number, off, n, sum.Sum(nil)); err != nil {
				return err
			}
		}
		done = append(done, types.CompletedPart{PartNumber: aws.Int32(number), ETag: aws.String(part.etag), ChecksumSHA256: aws.String(encode(sum))})
	}
	if sums.CheckHash(p.digest, whole) != nil {
		return errors.Join(fmt.Errorf("%s: %w", p.op, tier.ErrDamaged), p.abort(ctx, u))
	}
	return p.complete(ctx, u, done)
}

func encode(sum hash.Hash) string { return base64.StdEncoding.EncodeToString(sum.Sum(nil)) }

// sent is a part that the server has.
type sent struct {
	etag, sum string
	size      int64
}

// begin finds out what an earlier upload left, or begins a new one.
func (p *put) begin(ctx context.Context) (index.Upload, map[int32]sent, error) {
	if u := p.o.Resume; u.ID != "" && u.PartSize >= partLeast {
		there, err := p.earlier(ctx, u)
		if err == nil {
			p.b.log.Info("upload resumed", logkey.Digest(p.digest), logkey.Count(len(there)))
			return u, there, nil
		}
		if statusOf(err) != http.StatusNotFound {
			return u, nil, fault(p.op, err)
		}
	}
	ctx, cancel := within(ctx, 0)
	defer cancel()
	out, err := p.b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: p.b.bucket(), Key: &p.key, ExpectedBucketOwner: p.b.owner(), ContentType: aws.String(contentType),
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
		StorageClass:      p.b.class(), ServerSideEncryption: p.b.crypt(), SSEKMSKeyId: p.b.kmsKey(),
	})
	if err != nil {
		return index.Upload{}, nil, fault(p.op, err)
	}
	u := index.Upload{ID: aws.ToString(out.UploadId), PartSize: partSize(p.size, p.b.opts.PartSize), At: time.Now()}
	if p.o.Begun != nil {
		if err := p.o.Begun(u); err != nil {
			return u, nil, errors.Join(fmt.Errorf("%s: %w", p.op, err), p.abort(ctx, u))
		}
	}
	return u, nil, nil
}

// partSize returns the size of parts, so that there are not too many.
func partSize(size, wanted int64) int64 {
	const step = 1 << 20
	least := (size + partsMost - 1) / partsMost
	return max(wanted, (least+step-1)/step*step)
}

// earlier lists the parts that the server has.
func (p *put) earlier(ctx context.Context, u index.Upload) (map[int32]sent, error) {
	ctx, cancel := within(ctx, 0)
	defer cancel()
	there := map[int32]sent{}
	pages := s3.NewListPartsPaginator(p.b.client, &s3.ListPartsInput{
		Bucket: p.b.bucket(), Key: &p.key, UploadId: &u.ID, ExpectedBucketOwner: p.b.owner(),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, part := range page.Parts {
			there[aws.ToInt32(part.PartNumber)] = sent{aws.ToString(part.ETag), aws.ToString(part.ChecksumSHA256), aws.ToInt64(part.Size)}
		}
	}
	return there, nil
}

// part sends one part.
func (p *put) part(ctx context.Context, u index.Upload, number int32, off, n int64, sum []byte) (etag string, err error) {
	ctx, cancel := within(ctx, n)
	defer cancel()
	out, err := p.b.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: p.b.bucket(), Key: &p.key, UploadId: &u.ID, PartNumber: &number, ExpectedBucketOwner: p.b.owner(),
		Body: p.section(off, n), ContentLength: aws.Int64(n), ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum)),
	}, payload(sum))
	if err == nil {
		err = kept(out.ETag)
	}
	if err != nil {
		return "", fault(p.op, err)
	}
	return aws.ToString(out.ETag), nil
}

// complete makes the object from its parts.
func (p *put) complete(ctx context.Context, u index.Upload, parts []types.CompletedPart) error {
	limited, cancel := within(ctx, p.size)
	defer cancel()
	err := p.conditional(func() error {
		_, err := p.b.client.CompleteMultipartUpload(limited, &s3.CompleteMultipartUploadInput{
			Bucket: p.b.bucket(), Key: &p.key, UploadId: &u.ID, ExpectedBucketOwner: p.b.owner(),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, IfNoneMatch: p.ifNone(),
		})
		return err
	})
	if errors.Is(err, errExists) {
		if aerr := p.abort(ctx, u); aerr != nil {
			p.b.log.Warn("upload not ended", logkey.Digest(p.digest), logkey.Err(aerr))
		}
		return err
	}
	if codeOf(err) == "NoSuchUpload" {
		// The answer to an earlier try was lost, or somebody ended it: the object tells.
		return errExists
	}
	return err
}

func (p *put) abort(ctx context.Context, u index.Upload) error {
	ctx, cancel := within(ctx, 0)
	defer cancel()
	_, err := p.b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: p.b.bucket(), Key: &p.key, UploadId: &u.ID, ExpectedBucketOwner: p.b.owner(),
	})
	if statusOf(err) == http.StatusNotFound {
		return nil
	}
	return fault(p.op, err)
}
