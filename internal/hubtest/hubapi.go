package hubtest

import "net/http"

// answerHubAPI serves hub.docker.com. It knows no route of the API yet: everything
// is missing, and counted.
func (h *Hub) answerHubAPI(*exchange) *Reply {
	return newReply(http.StatusNotFound, "application/json", []byte(`{"message":"object not found","errinfo":{}}`+"\n"))
}
