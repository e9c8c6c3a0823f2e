package hubtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// WebhookShape is a variant of what [Hub.EmitWebhook] posts.
type WebhookShape string

const (
	WebhookNormal     WebhookShape = ""
	WebhookHuge       WebhookShape = "10MiB"       // a description of 10 MiB
	WebhookWrongTypes WebhookShape = "wrong-types" // numbers for texts, lists for objects
	WebhookCallback   WebhookShape = "callback"    // callback_url is the metadata service
)

// EmitWebhook posts what Docker Hub posts after a push of repo:tag and returns the
// status of the answer. The callback_url in it leads to a role that must never be asked.
func (h *Hub) EmitWebhook(ctx context.Context, url, repo, tag string, shape WebhookShape) (int, error) {
	return Post(ctx, url, h.webhook(repo, tag, shape))
}

// Post sends JSON as webhooks do and returns the status of the answer.
func Post(ctx context.Context, url string, body []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, fmt.Errorf("post webhook: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // only the status counts
	return resp.StatusCode, nil
}

// webhook is the payload of Docker's documentation.
func (h *Hub) webhook(repo, tag string, shape WebhookShape) []byte {
	callback := RoleEvil
	if shape == WebhookCallback {
		callback = RoleMeta
	}
	namespace, short, _ := strings.Cut(repo, "/")
	at := h.Now().Unix()
	push := map[string]any{"pushed_at": at, "pusher": "trustedbuilder", "tag": tag}
	repository := map[string]any{
		"comment_count": 0, "date_created": at, "description": "", "dockerfile": "", "full_description": "",
		"is_official": namespace == "library", "is_private": false, "is_trusted": true, "name": short, "namespace": namespace,
		"owner": namespace, "repo_name": repo, "repo_url": h.URL(RoleEvil) + "/u/" + repo + "/", "star_count": 0, "status": "Active",
	}
	switch shape {
	case WebhookHuge:
		repository["full_description"] = strings.Repeat("d", 10<<20)
	case WebhookWrongTypes:
		push["tag"], push["pushed_at"] = 1.5, "yesterday"
		repository["repo_name"], repository["name"] = []string{repo}, map[string]int{"a": 1}
	}
	b, err := json.Marshal(map[string]any{
		"callback_url": h.URL(callback) + "/u/" + repo + "/hook/2141b5bi/", "push_data": push, "repository": repository,
	})
	must(err)
	return b
}
