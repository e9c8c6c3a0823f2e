package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"forebay/internal/pull"
)

// messageMost bounds the part of a server's message that is kept.
const messageMost = 256

// fault turns an error of the SDK into one of ours.
func fault(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &pull.Error{Kind: pull.Unavailable, Upstream: "bucket", Op: op, Status: statusOf(err)}
	var api smithy.APIError
	if errors.As(err, &api) {
		e.Code, e.Message = api.ErrorCode(), api.ErrorMessage()
		e.Message = e.Message[:min(len(e.Message), messageMost)]
	} else {
		e.Err = cause(err)
	}
	switch e.Status {
	case http.StatusNotFound:
		e.Kind = pull.NotFound
		if e.Code == "NoSuchBucket" {
			e.Kind = pull.Unavailable // of no object in particular
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Kind = pull.Denied
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		e.Kind = pull.Overloaded
		if e.Status == http.StatusServiceUnavailable {
			e.Detail = pull.Crowded
		}
	case http.StatusRequestedRangeNotSatisfiable:
		e.Detail = pull.OutOfRange
	case http.StatusNotImplemented:
		e.Kind = pull.Unsupported
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		e.Kind = pull.Timeout
	}
	return e
}

// cause leaves out what the SDK says around the cause.
func cause(err error) error {
	var op *smithy.OperationError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func statusOf(err error) int {
	var res *smithyhttp.ResponseError
	if errors.As(err, &res) && res.Response != nil {
		return res.HTTPStatusCode()
	}
	return 0
}

func codeOf(err error) string {
	var e *pull.Error
	if errors.As(err, &e) {
		return e.Code
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// errNoS3: a page of a console, or whatever a proxy puts in the way of the server.
var errNoS3 = errors.New("the answer is not that of an S3 server")

// kept returns an error for a write whose answer lacks what every server says of what it has kept.
func kept(etag *string) error {
	if etag == nil {
		return errNoS3
	}
	return nil
}

// regionOf returns the region that an answer says the bucket is in.
func regionOf(err error) string {
	var res *awshttp.ResponseError
	if errors.As(err, &res) && res.Response != nil {
		return res.Response.Header.Get("X-Amz-Bucket-Region")
	}
	var plain *smithyhttp.ResponseError
	if errors.As(err, &plain) && plain.Response != nil {
		return plain.Response.Header.Get("X-Amz-Bucket-Region")
	}
	return ""
}

// A Refusal is an error that comes from wrong settings or rights. Trying again does not help.
type Refusal struct {
	Text string // what to change
	Err  error
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s (%s)", r.Text, r.Err) }

func (r *Refusal) Unwrap() error { return r.Err }

// explain returns a [Refusal] for an error that the settings cause, and others as they are.
// right is the right that the request needed.
func (b *Bucket) explain(raw error, op, right string) error {
	if raw == nil {
		return nil
	}
	err, names := fault(op, raw), b.opts.Names
	text := ""
	switch code := codeOf(err); code {
	case "NoSuchBucket":
		text = fmt.Sprintf("there is no bucket %q: create it, or correct %s", b.opts.Name, names.Bucket)
	case "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "XAdminUserNotFound":
		text = "the access key is not known: correct " + names.AccessKeyID
	case "SignatureDoesNotMatch":
		text = "the signature is refused: correct " + names.SecretAccessKey
	case "ExpiredToken", "TokenRefreshRequired":
		text = "the credentials have expired: renew them"
	case "RequestTimeTooSkewed":
		text = "the clock of this machine is wrong: set it"
	case "InvalidBucketName":
		text = fmt.Sprintf("%q is no name of a bucket: correct %s", b.opts.Name, names.Bucket)
	case "InvalidStorageClass":
		text = fmt.Sprintf("the server has no storage class %q: correct %s", b.opts.StorageClass, names.StorageClass)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidRegion":
		text = "the bucket is in another region: correct " + names.Region
		if region := regionOf(raw); region != "" {
			text = fmt.Sprintf("the bucket is in the region %s: set %s to it", region, names.Region)
		}
	default:
		switch statusOf(raw) {
		case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
			text = fmt.Sprintf("the bucket is elsewhere: correct %s or %s", names.Region, names.Endpoint)
		case http.StatusUnauthorized, http.StatusForbidden:
			text = fmt.Sprintf("not allowed: the credentials need the right %s on the bucket %q", right, b.opts.Name)
			if b.opts.Owner != "" {
				text += ", which must belong to the account in " + names.Owner
			}
		}
	}
	if errors.Is(raw, errNoS3) || statusOf(raw) == http.StatusOK && errors.As(raw, new(*xml.SyntaxError)) {
		text = fmt.Sprintf("no S3 server answers there: correct %s, which may be the port of a console", names.Endpoint)
	}
	if text == "" && statusOf(raw) == 0 && noCredentials(raw) {
		text = fmt.Sprintf("no credentials were found: set %s, or what programs on AWS look for", names.Credentials)
	}
	if text == "" {
		return err
	}
	return &Refusal{Text: text, Err: err}
}

// noCredentials reports whether no credentials could be had for a request. The SDK has no
// type for that.
func noCredentials(err error) bool {
	text := err.Error()
	return strings.Contains(text, "get identity") || strings.Contains(text, "failed to refresh cached credentials")
}
