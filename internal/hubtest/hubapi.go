package hubtest

import "net/http"

// answerHubAPI serves hub.docker.com: requests are counted and recorded, and every
// object is missing.
func (h *Hub) answerHubAPI(*exchange) *Reply {
	return newReply(http.StatusNotFound, "application/json", []byte(`{"message":"object not found","errinfo":{}}`+"\n"))
}
