package operate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"forebay/internal/command"
	"forebay/internal/statefile"
)

// credentialRequest is what kubelet writes to a credential provider, and credentialResponse what it
// reads (credentialprovider.kubelet.k8s.io/v1).
type (
	credentialRequest struct {
		Kind                string `json:"kind"`
		APIVersion          string `json:"apiVersion"`
		Image               string `json:"image"`
		ServiceAccountToken string `json:"serviceAccountToken"` // of the pod, if the provider has tokenAttributes
	}
	credentialResponse struct {
		Kind         string                        `json:"kind"`
		APIVersion   string                        `json:"apiVersion"`
		CacheKeyType string                        `json:"cacheKeyType"`
		Auth         map[string]registryCredential `json:"auth"`
	}
	registryCredential struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
)

const (
	credentialAPI = "credentialprovider.kubelet.k8s.io/v1"
	requestMost   = 1 << 20 // bytes: the annotations of a service account may be 256 KiB
)

func newTokenKubelet(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubelet",
		Short: "Answer kubelet, as its credential provider for this mirror",
		Long: `Reads a CredentialProviderRequest from standard input and writes the response, as kubelet
wants it of a program in --image-credential-provider-bin-dir. The node's token is that of
--token-file, or the pod's own, where the provider has tokenAttributes and auth.issuers has
the cluster:

  apiVersion: kubelet.config.k8s.io/v1
  kind: CredentialProviderConfig
  providers:
  - name: forebay                 # the name of the program
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    matchImages: ["mirror.lan:5000"]
    defaultCacheDuration: 5m
    args: [token, kubelet, --token-file=/etc/forebay/node.token]

Kubelet asks by the registry in the name of the image: for images that containerd pulls from
this mirror by another name, put the token into hosts.toml.`,
		Args: cobra.NoArgs,
	}
	file := cmd.Flags().String("token-file", "", "file with the token of this node (default: the token of the pod's service account)")
	cmd.RunE = func(*cobra.Command, []string) error {
		in := p.Stdin
		if in == nil {
			in = strings.NewReader("")
		}
		var request credentialRequest
		if err := json.NewDecoder(io.LimitReader(in, requestMost)).Decode(&request); err != nil {
			return fmt.Errorf("read the request of kubelet: %w", err)
		}
		if request.Kind != "CredentialProviderRequest" || request.APIVersion != credentialAPI {
			return command.Usage(fmt.Errorf("kubelet asks by %q: set apiVersion: %s of the provider", request.APIVersion, credentialAPI))
		}
		registry, _, found := strings.Cut(request.Image, "/")
		if !found || !strings.ContainsAny(registry, ".:") {
			return fmt.Errorf("the image %q names no registry", request.Image)
		}
		token := request.ServiceAccountToken
		if *file != "" {
			var err error
			if token, err = statefile.ReadToken(*file); err != nil {
				return fmt.Errorf("--token-file: %w", err)
			}
		}
		if token == "" {
			return command.Usage(errors.New("there is no token: name --token-file, or set tokenAttributes of the provider"))
		}
		return json.NewEncoder(p.Stdout).Encode(credentialResponse{
			Kind: "CredentialProviderResponse", APIVersion: credentialAPI, CacheKeyType: "Registry",
			Auth: map[string]registryCredential{registry: {"forebay", token}},
		})
	}
	return cmd
}
