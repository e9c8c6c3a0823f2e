package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// TestServePullsFromECRAsTheEnvironmentSays: Amazon's passwords, from the configuration
// down to the registry.
func TestServePullsFromECRAsTheEnvironmentSays(t *testing.T) {
	const registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	amazon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/ecr/aws4_request") {
			t.Errorf("request to Amazon is signed %q", r.Header.Get("Authorization"))
		}
		fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`,
			base64.StdEncoding.EncodeToString([]byte("AWS:issued-hunter2")), time.Now().Add(12*time.Hour).Unix())
	}))
	defer amazon.Close()
	none := t.TempDir() + "/none"
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "AWS_ENDPOINT_URL_ECR": amazon.URL,
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "",
	} {
		t.Setenv(name, value)
	}
	hub := hubtest.New(t, hubtest.Options{Profile: hubtest.ECR})
	image := hub.PushImage("acme/app", "v1", hubtest.ImageSpec{})
	hub.AddUser(hubtest.User{Name: "AWS", Secrets: []string{"issued-hunter2"}, Repos: []string{"acme/*"}})
	s := start(t, fmt.Sprintf("storage: {dir: %q}\nlog: {level: debug}\nupstreams: {docker.io: {}, %s: {endpoints: [%q], credentials: aws, address_family: ipv4}}\n",
		t.TempDir(), registry, hub.RegistryURL()))
	if status, body := get(t, s.registry+"/v2/"+registry+"/acme/app/manifests/v1"); status != 200 || body != string(image.Raw) {
		t.Errorf("manifest = %d %s", status, body)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
	for _, secret := range []string{"issued-hunter2", "wJalrXUtnFEMI"} {
		if strings.Contains(s.stderr.String(), secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}
