package pull

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
)

// Words says for people what an upstream did that err came of: what stands behind its name in a
// sentence, as in "docker.io refuses connections". The names in err, which stand beside it anyway,
// are left out, and so is what Go calls things.
func Words(err error) string {
	var e *Error
	errors.As(err, &e)
	switch {
	case err == nil:
		return ""
	case e != nil && e.Detail == ClientLimited:
		return e.Message
	case e != nil && e.Status != 0:
		text := fmt.Sprintf("answers %d %s", e.Status, http.StatusText(e.Status))
		if e.Message != "" {
			text += ": " + e.Message
		}
		return text
	}
	if text := connectionWords(err); text != "" {
		return text
	}
	switch {
	case e == nil:
		return err.Error()
	case e.Err != nil:
		return e.Err.Error()
	case e.Message != "":
		return e.Message
	}
	return "is " + e.Kind.String()
}

// connectionWords says what became of a connection; "" if err is not about one.
func connectionWords(err error) string {
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return "has no address: the name " + name.Name + " is not known"
	case errors.As(err, &name):
		return "has no address: the name server does not answer for " + name.Name
	case errors.As(err, &certificate):
		return "shows a certificate that is not trusted: " + certificate.Err.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refuses connections"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "cannot be reached: there is no way to its network"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "breaks connections off"
	case errors.Is(err, ErrDigest):
		return "sends content that does not have its digest"
	case KindOf(err) == Timeout, errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "does not answer in time"
	case errors.Is(err, context.Canceled):
		return "was not waited for any more"
	}
	return ""
}
