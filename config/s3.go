package config

import (
	"slices"
	"time"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/config/unit"
)

// S3 is a bucket behind the storage folder. It is off while Bucket is empty.
type S3 struct {
	Bucket    string
	Region    string // empty: what the environment says
	Endpoint  string // URL of a server other than Amazon's
	Prefix    string // of all names in the bucket; no slash at its ends
	PathStyle bool   // the bucket is in the path of URLs. Default false

	// Credentials; without them those that programs on AWS find.
	AccessKeyID         Secret // from AccessKeyID or AccessKeyIDFile
	AccessKeyIDFile     string
	SecretAccessKey     Secret // from SecretAccessKey or SecretAccessKeyFile
	SecretAccessKeyFile string
	Profile             string

	SSE          SSE // Default SSEBucket
	KMSKeyID     string
	StorageClass string
	CAFile       string
	Owner        string // account that must own the bucket; empty: not checked

	MaxSize int64         // of the bucket; 0: no limit
	MaxAge  time.Duration // objects that nobody used for so long are removed; 0: never

	Redirect        bool  // clients get large blobs from the bucket itself. Default false
	RedirectMinSize int64 // 0 is RedirectMinSizeDefault
	Uploads         int   // at once. Default 4
	PartSize        int64 // of uploads in parts; 0 is the program's choice
}

// RedirectMinSizeDefault is the size from which clients are sent to the bucket: a smaller
// blob is sent as fast as the redirect is followed.
const RedirectMinSizeDefault = 16 << 20

// Enabled reports whether there is a bucket.
func (s S3) Enabled() bool { return s.Bucket != "" }

// SSE is who encrypts objects with what.
type SSE string

// The values of SSE.
const (
	SSEBucket SSE = "bucket" // as the bucket does by itself
	SSES3     SSE = "AES256" // keys of the server
	SSEKMS    SSE = "aws:kms"
)

func (s *S3) fields() []field {
	return []field{
		{Name: "bucket", What: "the name of a bucket", Set: key.Into(&s.Bucket, parse.Bucket), Get: func() []string { return []string{s.Bucket} },
			Doc: "Bucket that everything kept is uploaded to, behind the client's back. What `storage.dir` had to drop is read from there. Empty: none. See docs/s3.md."},
		key.Text("region", &s.Region, "Region of the bucket. Empty: what AWS_REGION or the shared configuration says, else us-east-1 with an `endpoint`."),
		{Name: "endpoint", What: "a URL", Set: key.Into(&s.Endpoint, parse.BucketURL), Get: func() []string { return []string{s.Endpoint} },
			Doc: "Base URL of a server other than Amazon's, without the bucket."},
		{Name: "prefix", What: "a path", Set: key.Into(&s.Prefix, parse.Prefix), Get: func() []string { return []string{s.Prefix} },
			Doc: "Put in front of all names in the bucket, so that it can be shared with other things."},
		key.Bool("path_style", &s.PathStyle, "The bucket is in the path of URLs and not in the host name. Most servers other than Amazon's need it."),
		key.Secret("access_key_id", &s.AccessKeyID,
			"Access key. Empty: found as by all programs on AWS, in environment, shared files, web identity, container or instance role. Prefer `access_key_id_file`."),
		key.SecretFile("access_key_id_file", &s.AccessKeyIDFile, "File with that key; a line break at its end is dropped."),
		key.Secret("secret_access_key", &s.SecretAccessKey, "Secret of `access_key_id`. Prefer `secret_access_key_file`."),
		key.SecretFile("secret_access_key_file", &s.SecretAccessKeyFile, "File with that secret; a line break at its end is dropped."),
		key.Text("profile", &s.Profile, "Section of the shared configuration of AWS to use."),
		key.Choice("sse", &s.SSE, []SSE{SSEBucket, SSES3, SSEKMS},
			"Encryption on the server: `AES256` with its keys, `aws:kms` with a key of KMS, `bucket` as the bucket does by itself."),
		key.Text("kms_key_id", &s.KMSKeyID, "Key for `sse: aws:kms`. Empty: the account's own key for S3."),
		key.Text("storage_class", &s.StorageClass, "Storage class of objects, as STANDARD_IA. One that has to be restored first cannot be used. Empty: the bucket's own."),
		key.File("ca_file", &s.CAFile, "PEM file with certificates to trust beside the system's."),
		{Name: "expected_bucket_owner", What: "an account number", Set: key.Into(&s.Owner, parse.Account), Get: func() []string { return []string{s.Owner} },
			Doc: "Account that must own the bucket; requests are refused when another does. Empty: not checked."},
		key.Size("max_size", &s.MaxSize, sizeLeast,
			"What the bucket may hold below `prefix`, whoever put it there: what was used longest ago is removed, unless somebody used it within a day. `auto`: no limit. All who share the bucket need the same value."),
		key.Duration("max_age", &s.MaxAge, 0, 3650*parse.Day,
			"Objects that none of those who share the bucket used for so long are removed. At least 1d. 0: never. All who share the bucket need the same value."),
		key.Bool("redirect", &s.Redirect,
			"Sends clients that GET a large blob which is in the bucket and not in `dir` to a signed URL of the bucket. Clients must reach the bucket, and then check the digest alone."),
		key.Size("redirect_min_size", &s.RedirectMinSize, 1, "Smallest blob for `redirect`. `auto` is 16MiB."),
		key.Int("uploads", &s.Uploads, 1, 64, "Uploads at once."),
		key.Size("part_size", &s.PartSize, 5<<20, "Size of the parts in which larger blobs are uploaded. `auto` is 32MiB."),
	}
}

// check finds what is wrong between the keys of storage.s3, and reads its secrets.
func (d *decoder) checkS3() {
	const path = "storage.s3"
	s := &d.config.Storage.S3
	at := func(key string) Origin { return d.config.origins[join(path, key)] }
	fault := func(key, format string, args ...any) { d.Add(at(key), join(path, key), format, args...) }
	before := len(d.Faults)
	d.password(path, "access_key_id", &s.AccessKeyID, "access_key_id_file", &s.AccessKeyIDFile)
	d.password(path, "secret_access_key", &s.SecretAccessKey, "secret_access_key_file", &s.SecretAccessKeyFile)
	if !s.Enabled() {
		unset := defaults().Storage.S3
		for i, f := range unset.fields() {
			if !slices.Equal(f.Get(), s.fields()[i].Get()) {
				fault(f.Name, "needs bucket beside it")
				return
			}
		}
		return
	}
	if len(d.Faults) == before {
		switch {
		case s.AccessKeyID.Empty() && !s.SecretAccessKey.Empty():
			fault(given(s.SecretAccessKeyFile, "secret_access_key_file", "secret_access_key"), "needs access_key_id beside it")
		case !s.AccessKeyID.Empty() && s.SecretAccessKey.Empty():
			fault(given(s.AccessKeyIDFile, "access_key_id_file", "access_key_id"), "needs secret_access_key beside it")
		case !s.AccessKeyID.Empty() && s.Profile != "":
			fault("profile", "cannot be given together with access_key_id: remove one of them")
		}
	}
	if s.KMSKeyID != "" && s.SSE != SSEKMS {
		fault("kms_key_id", "needs sse: aws:kms beside it")
	}
	if s.MaxAge != 0 && s.MaxAge < parse.Day {
		fault("max_age", "%s is too short: use at least 1d, or 0 for never", unit.FormatDuration(s.MaxAge))
	}
	d.checkCA("storage.s3.ca_file", s.CAFile)
}

// given names the key that a secret came from.
func given(file, fileKey, key string) string {
	if file != "" {
		return fileKey
	}
	return key
}
