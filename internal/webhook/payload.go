package webhook

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"

	"forebay/internal/wire"
)

// Tag is a tag that a payload says was pushed. Its parts are valid names; whether it really
// was pushed is not known.
type Tag struct {
	// Registry is the host that the payload names, lower case, with its port if it names
	// one; "" if it names none.
	Registry   string
	Repository string
	Tag        string
}

// tagsMax bounds the tags of one payload. A push to Quay names all tags of a build.
const tagsMax = 100

// errUnknown is a payload of no service that is known here.
var errUnknown = errors.New("the payload is of no known kind")

// payload has the keys that are read of any service's payload. No common key tells the
// services apart, but each service has keys that no other has.
type payload struct {
	// Docker Hub (hub manual, "Webhooks").
	PushData   *hubPush `json:"push_data"`
	Repository any      `json:"repository"` // an object at Docker Hub and GitHub, a text at Quay

	// GitHub (webhook events package and registry_package) and its ping.
	Package         *gitHubPackage `json:"package"`
	RegistryPackage *gitHubPackage `json:"registry_package"`
	Action          string         `json:"action"`
	Zen             string         `json:"zen"`

	// Quay (repository notifications, "push").
	DockerURL   string   `json:"docker_url"`
	UpdatedTags []string `json:"updated_tags"`

	// Harbor (webhook payload formats default and CloudEvents).
	EventData *harborEvent `json:"event_data"`
	Data      *harborEvent `json:"data"`
	Type      string       `json:"type"`

	// distribution (notifications envelope), and one event of it alone (ACR).
	Events  []envelopeEvent `json:"events"`
	Target  *envelopeTarget `json:"target"`
	Request envelopeRequest `json:"request"`

	// Amazon EventBridge (ECR image action).
	Source  any       `json:"source"` // an object in an event of distribution
	Account string    `json:"account"`
	Region  string    `json:"region"`
	Detail  ecrDetail `json:"detail"`
}

type hubPush struct {
	Tag string `json:"tag"`
}

type gitHubPackage struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Ecosystem string `json:"ecosystem"`
	Type      string `json:"package_type"`
	Version   struct {
		Container struct {
			Tag struct {
				Name string `json:"name"`
			} `json:"tag"`
		} `json:"container_metadata"`
	} `json:"package_version"`
}

type harborEvent struct {
	Resources []struct {
		Tag string `json:"tag"`
		URL string `json:"resource_url"` // "harbor.example/project/app:v1"
	} `json:"resources"`
	Repository struct {
		FullName string `json:"repo_full_name"`
	} `json:"repository"`
}

type envelopeEvent struct {
	Action  string          `json:"action"`
	Target  envelopeTarget  `json:"target"`
	Request envelopeRequest `json:"request"`
}

type envelopeTarget struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	URL        string `json:"url"`
}

type envelopeRequest struct {
	Host string `json:"host"`
}

type ecrDetail struct {
	Action     string `json:"action-type"`
	Result     string `json:"result"`
	Repository string `json:"repository-name"`
	Tag        string `json:"image-tag"`
}

// Parse returns the tags that a payload of Docker Hub, GitHub, Quay, Harbor, ACR, ECR, or a
// distribution registry says were pushed. There may be none, when a known service tells of
// something else. Nothing else of the payload is used, neither digests nor callback URLs.
func Parse(body []byte) ([]Tag, error) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, errors.New("the payload is not the JSON of a known kind") // err would quote it
	}
	switch {
	case p.PushData != nil:
		return p.dockerHub(), nil
	case p.Package != nil:
		return p.Package.tags(p.Action), nil
	case p.RegistryPackage != nil:
		return p.RegistryPackage.tags(p.Action), nil
	case p.Zen != "":
		return nil, nil
	case p.DockerURL != "":
		return p.quay(), nil
	case p.EventData != nil:
		return p.EventData.tags(p.Type), nil
	case p.Data != nil && strings.HasPrefix(p.Type, "harbor."):
		return p.Data.tags(p.Type), nil
	case p.Events != nil:
		return envelope(p.Events), nil
	case p.Target != nil:
		return envelope([]envelopeEvent{{p.Action, *p.Target, p.Request}}), nil
	case p.Source == "aws.ecr":
		return p.ecr(), nil
	}
	return nil, errUnknown
}

// one returns the tag as a list, or none if a part of it is not valid.
func one(registry, repository, tag string) []Tag {
	registry = strings.ToLower(registry)
	if !wire.ValidRepository(repository) || !wire.ValidTag(tag) || !validHost(registry) {
		return nil
	}
	return []Tag{{registry, repository, tag}}
}

// validHost reports whether s can be a host with a port, or nothing.
func validHost(s string) bool {
	if len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != ':' && c != '[' && c != ']' {
			return false
		}
	}
	return true
}

func (p *payload) dockerHub() []Tag {
	repository, _ := p.Repository.(map[string]any)
	name, _ := repository["repo_name"].(string)
	return one("docker.io", name, p.PushData.Tag)
}

// tags of a package; those of other ecosystems are none of ours.
func (g *gitHubPackage) tags(action string) []Tag {
	container := strings.EqualFold(g.Type, "container") || strings.EqualFold(g.Ecosystem, "container")
	if !container || action != "published" && action != "updated" {
		return nil
	}
	// Owners may have capitals in their names; repositories of the registry have none.
	return one("ghcr.io", strings.ToLower(g.Namespace+"/"+g.Name), g.Version.Container.Tag.Name)
}

func (p *payload) quay() []Tag {
	registry, name, _ := strings.Cut(p.DockerURL, "/")
	var all []Tag
	for _, tag := range p.UpdatedTags[:min(len(p.UpdatedTags), tagsMax)] {
		all = append(all, one(registry, name, tag)...)
	}
	return all
}

func (h *harborEvent) tags(kind string) []Tag {
	if kind != "PUSH_ARTIFACT" && kind != "harbor.artifact.pushed" {
		return nil
	}
	var all []Tag
	for _, r := range h.Resources[:min(len(h.Resources), tagsMax)] {
		registry, _, _ := strings.Cut(r.URL, "/")
		all = append(all, one(registry, h.Repository.FullName, r.Tag)...)
	}
	return all
}

func envelope(events []envelopeEvent) []Tag {
	var all []Tag
	for _, e := range events[:min(len(events), tagsMax)] {
		if e.Action != "push" {
			continue
		}
		registry := e.Request.Host
		if u, err := url.Parse(e.Target.URL); registry == "" && err == nil {
			registry = u.Host
		}
		all = append(all, one(registry, e.Target.Repository, e.Target.Tag)...)
	}
	return all
}

func (p *payload) ecr() []Tag {
	d := p.Detail
	if d.Action != "PUSH" || d.Result != "SUCCESS" || p.Account == "" || p.Region == "" {
		return nil
	}
	suffix := ".amazonaws.com"
	if strings.HasPrefix(p.Region, "cn-") {
		suffix = ".amazonaws.com.cn"
	}
	return one(p.Account+".dkr.ecr."+p.Region+suffix, d.Repository, d.Tag)
}
