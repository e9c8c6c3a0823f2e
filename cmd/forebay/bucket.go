package main

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"forebay/cache/s3"
	"forebay/cache/tier"
	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/logkey"
)

// newBucket returns the bucket behind the storage folder, nil when there is none. Nothing
// is contacted.
func newBucket(c *config.Config, version string, log *zap.Logger) (*s3.Bucket, error) {
	o := c.Storage.S3
	if !o.Enabled() {
		return nil, nil
	}
	encryption := string(o.SSE)
	if o.SSE == config.SSEBucket {
		encryption = ""
	}
	b, err := s3.New(context.Background(), s3.Options{
		Name: o.Bucket, Region: o.Region, Endpoint: o.Endpoint, Prefix: o.Prefix, PathStyle: o.PathStyle,
		AccessKeyID: o.AccessKeyID.Reveal(), SecretAccessKey: o.SecretAccessKey.Reveal(), Profile: o.Profile,
		Encryption: encryption, KMSKeyID: o.KMSKeyID, StorageClass: o.StorageClass, Owner: o.Owner,
		CAFile: o.CAFile, PartSize: o.PartSize, UserAgent: "forebay-" + version, Log: log,
		Names: bucketNames(),
	})
	if err != nil {
		return nil, command.Usage(fmt.Errorf("storage.s3: %w", err))
	}
	return b, nil
}

// bucketNames are the keys of the configuration, for errors that say what to change.
func bucketNames() s3.Names {
	return s3.Names{
		Bucket: "storage.s3.bucket", Region: "storage.s3.region", Endpoint: "storage.s3.endpoint",
		StorageClass: "storage.s3.storage_class", Owner: "storage.s3.expected_bucket_owner",
		AccessKeyID: "storage.s3.access_key_id", SecretAccessKey: "storage.s3.secret_access_key",
		Credentials: "storage.s3.access_key_id and secret_access_key",
	}
}

// tierOptions says how the bucket is used, nil without one.
func tierOptions(c *config.Config, b *s3.Bucket, identity func(string) string) *tier.Options {
	if b == nil {
		return nil
	}
	o := c.Storage.S3
	least := o.RedirectMinSize
	if least == 0 {
		least = config.RedirectMinSizeDefault
	}
	return &tier.Options{
		Bucket: b, Uploads: o.Uploads, MaxBytes: o.MaxSize, MaxAge: o.MaxAge,
		Redirect: o.Redirect, RedirectLeast: least, Identity: identity,
	}
}

// reachBucket finds wrong settings at the start. A bucket that does not answer is no reason
// not to serve: what is on the disk and what registries have does not need it.
func reachBucket(ctx context.Context, b *s3.Bucket, log *zap.Logger) error {
	if b == nil {
		return nil
	}
	err := b.Reach(ctx)
	var refusal *s3.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return command.Usage(fmt.Errorf("storage.s3: %w", err))
	}
	log.Warn("bucket does not answer: the mirror starts without it", logkey.Err(err))
	return nil
}

// checkOnline tries what the settings lead to.
func checkOnline(ctx context.Context, c *config.Config, p command.Process) error {
	b, err := newBucket(c, thisBuild().version, nil)
	if err != nil {
		return err
	}
	if b == nil {
		fmt.Fprintln(p.Stderr, "there is no bucket to try: storage.s3.bucket is empty")
		return nil
	}
	defer b.Close()
	if err := b.Check(ctx); err != nil {
		return command.Usage(fmt.Errorf("storage.s3: %w", err))
	}
	fmt.Fprintf(p.Stderr, "bucket %s: can be listed, written to, read from and removed from\n", c.Storage.S3.Bucket)
	return nil
}
