package hubtest

import (
	"crypto/tls"
)

func clientTLS(h *Hub) *tls.Config {
	return &tls.Config{RootCAs: h.RootCAs(), MinVersion: tls.VersionTLS12}
}
