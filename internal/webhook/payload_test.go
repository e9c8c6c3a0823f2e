package webhook

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/wire"
)

// samples are payloads as the services document them, shortened, with what they say.
func samples() map[string]struct {
	body string
	want []Tag
} {
	type sample = struct {
		body string
		want []Tag
	}
	hash := "sha256:" + strings.Repeat("ab", 32)
	return map[string]sample{
		"Docker Hub": {
			`{"callback_url":"https://registry.hub.docker.com/u/acme/app/hook/1/","push_data":{"pushed_at":1417566161,"pusher":"x","tag":"latest"},
			"repository":{"is_official":false,"name":"app","namespace":"acme","owner":"acme","repo_name":"acme/app","status":"Active"}}`,
			[]Tag{{"docker.io", "acme/app", "latest"}},
		},
		"GitHub package": {
			`{"action":"published","package":{"id":1,"name":"team/app","namespace":"Acme","ecosystem":"CONTAINER","package_type":"CONTAINER",
			"package_version":{"id":2,"container_metadata":{"tag":{"name":"v1","digest":"` + hash + `"},"labels":{}}}},"repository":{"id":3},"sender":{}}`,
			[]Tag{{"ghcr.io", "acme/team/app", "v1"}},
		},
		"GitHub registry_package": {
			`{"action":"updated","registry_package":{"name":"app","namespace":"acme","ecosystem":"containers","package_type":"container",
			"package_version":{"container_metadata":{"tag":{"name":"main","digest":"` + hash + `"}}}}}`,
			[]Tag{{"ghcr.io", "acme/app", "main"}},
		},
		"GitHub package without a tag": {
			`{"action":"published","package":{"name":"app","namespace":"acme","package_type":"CONTAINER","package_version":{"container_metadata":{"tag":{"name":""}}}}}`, nil,
		},
		"GitHub package of another ecosystem": {
			`{"action":"published","package":{"name":"app","namespace":"acme","package_type":"NPM","package_version":{"version":"1.0.0"}}}`, nil,
		},
		"GitHub ping": {`{"zen":"Keep it logically awesome.","hook_id":1,"hook":{"type":"Organization"}}`, nil},
		"Quay": {
			`{"name":"app","repository":"acme/app","namespace":"acme","docker_url":"quay.io/acme/app","homepage":"https://quay.io/repository/acme/app",
			"updated_tags":["latest","v1"]}`,
			[]Tag{{"quay.io", "acme/app", "latest"}, {"quay.io", "acme/app", "v1"}},
		},
		"Quay of one's own": {
			`{"repository":"acme/app","docker_url":"Quay.Corp:8443/acme/app","updated_tags":["v1"]}`,
			[]Tag{{"quay.corp:8443", "acme/app", "v1"}},
		},
		"Harbor": {
			`{"type":"PUSH_ARTIFACT","occur_at":1582640688,"operator":"robot$ci","event_data":{"resources":[{"digest":"` + hash + `","tag":"v1",
			"resource_url":"harbor.corp/acme/app:v1"}],"repository":{"date_created":1582634337,"name":"app","namespace":"acme","repo_full_name":"acme/app","repo_type":"private"}}}`,
			[]Tag{{"harbor.corp", "acme/app", "v1"}},
		},
		"Harbor CloudEvents": {
			`{"specversion":"1.0","id":"1","source":"/projects/2/webhook/policies/15","type":"harbor.artifact.pushed","datacontenttype":"application/json",
			"data":{"resources":[{"digest":"` + hash + `","tag":"v1","resource_url":"harbor.corp/acme/app:v1"}],"repository":{"repo_full_name":"acme/app"}}}`,
			[]Tag{{"harbor.corp", "acme/app", "v1"}},
		},
		"Harbor, something else": {
			`{"type":"DELETE_ARTIFACT","event_data":{"resources":[{"tag":"v1","resource_url":"harbor.corp/acme/app:v1"}],"repository":{"repo_full_name":"acme/app"}}}`, nil,
		},
		"distribution": {
			`{"events":[{"id":"1","timestamp":"2026-01-01T00:00:00Z","action":"push","target":{"mediaType":"m","digest":"` + hash + `","length":1,
			"repository":"acme/app","url":"https://registry.corp:5000/v2/acme/app/manifests/` + hash + `","tag":"v1"},
			"request":{"id":"2","addr":"10.0.0.1:1","host":"registry.corp:5000","method":"PUT"},"actor":{},"source":{"addr":"x:5000","instanceID":"3"}},
			{"action":"pull","target":{"repository":"acme/app","tag":"v2"},"request":{"host":"registry.corp:5000"}},
			{"action":"push","target":{"repository":"acme/app","digest":"` + hash + `"},"request":{"host":"registry.corp:5000"}}]}`,
			[]Tag{{"registry.corp:5000", "acme/app", "v1"}},
		},
		"distribution without a host": {
			`{"events":[{"action":"push","target":{"repository":"acme/app","tag":"v1","url":"http://Registry.Corp/v2/acme/app/manifests/x"}}]}`,
			[]Tag{{"registry.corp", "acme/app", "v1"}},
		},
		"distribution without events": {`{"events":[]}`, nil},
		"ACR": {
			`{"id":"1","timestamp":"2026-01-01T00:00:00Z","action":"push","target":{"mediaType":"m","size":1,"digest":"` + hash + `","length":1,
			"repository":"acme/app","tag":"v1"},"request":{"id":"2","host":"mine.azurecr.io","method":"PUT","useragent":"docker"}}`,
			[]Tag{{"mine.azurecr.io", "acme/app", "v1"}},
		},
		"one event of distribution": {
			`{"action":"push","target":{"repository":"acme/app","tag":"v1"},"request":{"host":"registry.corp"},"source":{"addr":"x"}}`,
			[]Tag{{"registry.corp", "acme/app", "v1"}},
		},
		"ECR": {
			`{"version":"0","id":"1","detail-type":"ECR Image Action","source":"aws.ecr","account":"123456789012","time":"2026-01-01T00:00:00Z",
			"region":"us-west-2","resources":[],"detail":{"action-type":"PUSH","result":"SUCCESS","repository-name":"acme/app","image-digest":"` + hash + `","image-tag":"v1"}}`,
			[]Tag{{"123456789012.dkr.ecr.us-west-2.amazonaws.com", "acme/app", "v1"}},
		},
		"ECR in China": {
			`{"source":"aws.ecr","account":"123456789012","region":"cn-north-1","detail":{"action-type":"PUSH","result":"SUCCESS","repository-name":"app","image-tag":"v1"}}`,
			[]Tag{{"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "app", "v1"}},
		},
		"ECR, a failure": {
			`{"source":"aws.ecr","account":"1","region":"x","detail":{"action-type":"PUSH","result":"FAILURE","repository-name":"app","image-tag":"v1"}}`, nil,
		},
		"names that are none": {
			`{"push_data":{"tag":"../../x"},"repository":{"repo_name":"acme/app"}}`, nil,
		},
		"a repository that is none": {
			`{"push_data":{"tag":"v1"},"repository":{"repo_name":"acme/../../etc"}}`, nil,
		},
		"a host that is none": {
			`{"docker_url":"ev il?x=1/acme/app","updated_tags":["v1"]}`, nil,
		},
	}
}

func TestParse(t *testing.T) {
	for name, s := range samples() {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(s.body))
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if diff := cmp.Diff(s.want, got); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefusesWhatIsNoPayload(t *testing.T) {
	for _, body := range []string{
		"", "{}", "null", "[]", "7", `"x"`, "{", "<html>", `{"push_data":7}`, `{"push_data":{"tag":1.5},"repository":{}}`,
		`{"data":{"resources":[]},"type":"other"}`, `{"repository":"acme/app"}`, `{"events":{}}`, `{"source":"aws.s3"}`,
	} {
		if got, err := Parse([]byte(body)); err == nil {
			t.Errorf("Parse(%s) = %v, want an error", body, got)
		} else if len(err.Error()) > 100 {
			t.Errorf("Parse(%s): error quotes the payload: %v", body, err)
		}
	}
}

func TestTagsOfOnePayloadAreBounded(t *testing.T) {
	var tags []string
	for i := range 2 * tagsMax {
		tags = append(tags, fmt.Sprintf(`"v%d"`, i))
	}
	got, err := Parse([]byte(`{"docker_url":"quay.io/acme/app","updated_tags":[` + strings.Join(tags, ",") + `]}`))
	if err != nil || len(got) != tagsMax {
		t.Errorf("Parse gives %d tags, %v; want %d", len(got), err, tagsMax)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range samples() {
		f.Add([]byte(s.body))
	}
	f.Add([]byte(`{"events":[{"action":"push","target":{"url":"%zz","repository":"a","tag":"b"}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		tags, err := Parse(body)
		if err != nil && tags != nil || len(tags) > tagsMax {
			t.Errorf("Parse(%q) = %d tags, %v", body, len(tags), err)
		}
		for _, tag := range tags {
			if !wire.ValidRepository(tag.Repository) || !wire.ValidTag(tag.Tag) || strings.ContainsAny(tag.Registry, "/ \n@?#%\x00") {
				t.Errorf("Parse(%q) gives %+v", body, tag)
			}
		}
	})
}
