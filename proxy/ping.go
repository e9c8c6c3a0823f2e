package proxy

import "net/http"

// ping says that the API is spoken here: 200 whatever the upstreams do. dockerd takes any
// status for that, podman and go-containerregistry only 200 and 401.
func (h *Handler) ping(x *exchange) error {
	header := x.w.Header()
	header["Content-Type"] = h.static.json
	setLength(header, 2)
	x.w.WriteHeader(http.StatusOK)
	_, err := x.w.Write([]byte("{}"))
	return err
}
