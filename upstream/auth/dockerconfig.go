package auth

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"go.yaml.in/yaml/v4"

	"forebay/internal/registries"
	"forebay/internal/wire"
)

// keyring is what a docker config has for one registry.
type keyring struct {
	whole Identity   // for all of it
	parts []identity // for repositories below a path, longest path first
}

// identity is who to be for repositories below a path.
type identity struct {
	path string // "team/app"
	who  Identity
}

// of returns who to be for a repository.
func (k *keyring) of(repo string) Identity {
	for _, p := range k.parts {
		if repo == p.path || strings.HasPrefix(repo, p.path+"/") {
			return p.who
		}
	}
	return k.whole
}

// registryNames are the keys under which docker configs know a registry, best first.
func registryNames(name string, endpoints []string) []string {
	keys := []string{name}
	if name == registries.Hub {
		// docker login writes the first, podman and Kubernetes the second, helm another one.
		keys = append([]string{authn.DefaultAuthKey, name}, registries.HubAliases()...)
	}
	for _, raw := range endpoints {
		if u, err := url.Parse(raw); err == nil && u.Host != "" && u.Host != name {
			keys = append(keys, u.Host)
		}
	}
	if as := registries.Find(name).LogsInAs; as != "" {
		keys = append(keys, registryNames(as, nil)...)
	}
	return keys
}

// readKeyring reads what a docker config has for the registry of these names. Unlike
// authn.DefaultKeychain it looks at no environment, and the file must be there.
func readKeyring(name string, names []string) (*keyring, error) {
	file, err := readDockerConfig(name)
	if err != nil {
		return nil, err
	}
	k := &keyring{}
	for _, key := range names {
		helper := cmp.Or(file.CredentialHelpers[key], file.CredentialsStore)
		if helper == "" {
			continue
		}
		// Not file.GetCredentialsStore, which knows the helper of Docker Hub by its URL alone.
		found, err := credentials.NewNativeStore(file, helper).Get(key)
		if err != nil {
			return nil, fmt.Errorf("credentials for %s: %w", key, err)
		}
		if k.whole = identityOf(found); !k.whole.Anonymous() {
			break
		}
	}
	none := 2 * len(names)
	best := none
	for _, key := range slices.Sorted(maps.Keys(file.AuthConfigs)) {
		who := identityOf(file.AuthConfigs[key])
		rank, below := matchKey(key, names)
		switch {
		case rank == none || who.Anonymous():
		case below != "":
			k.parts = append(k.parts, identity{below, who})
		case rank < best && (best < none || k.whole.Anonymous()): // a helper goes before the file
			best, k.whole = rank, who
		}
	}
	slices.SortStableFunc(k.parts, func(a, b identity) int { return cmp.Compare(len(b.path), len(a.path)) })
	return k, nil
}

func identityOf(c types.AuthConfig) Identity {
	if c.IdentityToken != "" {
		return newIdentity(tokenUser, c.IdentityToken, "", true)
	}
	return newIdentity(c.Username, c.Password, c.RegistryToken, c.Username == tokenUser)
}

// matchKey returns for which of the names of a registry a key of a docker config is, one that fits
// exactly before a pattern and twice their number for none, and below which path of it. Docker writes hosts and URLs; podman paths, too
// (containers-auth.json(5)); in Kubernetes the parts of a host may be patterns ("Images",
// "Interpretation of config.json").
func matchKey(key string, names []string) (rank int, below string) {
	host, below := splitKey(key)
	rank = 2 * len(names)
	for i, name := range names {
		same, _ := splitKey(name)
		if same == host {
			return i, below
		}
		if rank == 2*len(names) && matchHost(host, same) {
			rank = len(names) + i
		}
	}
	return rank, below
}

func splitKey(key string) (host, below string) {
	if scheme, rest, ok := strings.Cut(key, "://"); ok && scheme != "" {
		key = rest
	}
	host, below, _ = strings.Cut(key, "/")
	host, port := wire.Host(host)
	if port != "" && port != "443" && port != "80" {
		host += ":" + port
	}
	below = strings.Trim(below, "/")
	for _, version := range []string{"v1", "v2"} { // of the API; what may stand behind it is a path
		if rest, ok := strings.CutPrefix(below+"/", version+"/"); ok {
			below = strings.Trim(rest, "/")
			break
		}
	}
	return host, below
}

// matchHost reports whether a host fits a pattern, part by part.
func matchHost(pattern, host string) bool {
	if !strings.ContainsAny(pattern, "*?") {
		return false
	}
	want, have := strings.Split(pattern, "."), strings.Split(host, ".")
	return slices.EqualFunc(want, have, func(pattern, part string) bool {
		ok, err := path.Match(pattern, part)
		return ok && err == nil
	})
}

// readDockerConfig reads a config.json, the first there is in a folder, or what an object of
// Kubernetes of kind Secret holds.
func readDockerConfig(name string) (*configfile.ConfigFile, error) {
	name = registries.LoginFile(name)
	text, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	text, err = entriesOf(bytes.TrimPrefix(text, []byte("\ufeff"))) // of editors of Windows
	if err != nil {
		return nil, fmt.Errorf("parse %q: %w", name, err)
	}
	file, err := config.LoadFromReader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("parse %q: %w", name, err)
	}
	return file, nil
}

// entriesOf returns a config.json for whatever text holds one. What is none is left as it is.
func entriesOf(text []byte) ([]byte, error) {
	var secret struct {
		Kind       string            `yaml:"kind"`
		Data       map[string]string `yaml:"data"`
		StringData map[string]string `yaml:"stringData"`
	}
	if err := yaml.Load(text, &secret); err == nil && secret.Kind == "Secret" {
		for _, key := range registries.LoginFiles() {
			if plain, ok := secret.StringData[key]; ok {
				return withAuths([]byte(plain)), nil
			}
			if coded, ok := secret.Data[key]; ok {
				plain, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(coded), ""))
				if err != nil {
					return nil, fmt.Errorf("data[%q] of the Secret is not base64", key)
				}
				return withAuths(plain), nil
			}
		}
		return nil, errors.New("the Secret has no .dockerconfigjson")
	}
	return withAuths(text), nil
}

var codedLogin = regexp.MustCompile(`"auth"\s*:\s*"[A-Za-z0-9+/]+"`)

// withAuths puts "auths" around the entries of a .dockercfg, and ends what is coded without
// padding as docker wants it: Kubernetes takes both (pkg/credentialprovider/config.go).
func withAuths(text []byte) []byte {
	text = codedLogin.ReplaceAllFunc(text, func(entry []byte) []byte {
		entry = bytes.Clone(entry[:len(entry)-1])
		coded := len(entry) - 1 - bytes.LastIndexByte(entry, '"')
		return append(append(entry, strings.Repeat("=", -coded&3)...), '"')
	})
	var entries map[string]struct{ Auth, Username, Password, IdentityToken, RegistryToken string }
	if err := json.Unmarshal(text, &entries); err != nil || len(entries) == 0 {
		return text // values that are no such objects, as credsStore
	}
	for key, e := range entries {
		if key == "auths" || key == "credHelpers" || e == (struct{ Auth, Username, Password, IdentityToken, RegistryToken string }{}) {
			return text
		}
	}
	return slices.Concat([]byte(`{"auths":`), text, []byte("}"))
}
