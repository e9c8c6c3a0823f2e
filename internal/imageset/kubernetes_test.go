package imageset

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKubernetesManifests(t *testing.T) {
	text, err := os.ReadFile("testdata/helm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(text), Options{},
		"14 docker.io/library/busybox:1.36",
		"17 quay.io/prometheus/prometheus:v3.1.0",
		"21 ghcr.io/o/reloader@"+someDigest,
		"28 registry.k8s.io/pause:3.10",
		"43 docker.io/library/redis:7",
		"44 quay.io/o/sidecar:2",
		"46 quay.io/o/split:v1",
		"49 quay.io/o/parts@"+someDigest,
		"65 docker.io/library/job:1",
	)
}

func TestJSONManifests(t *testing.T) {
	wants(t, "{\n  \"kind\": \"Pod\",\n  \"spec\": {\"containers\": [\n    {\"image\": \"nginx:1\"}]}}\n", Options{}, "4 docker.io/library/nginx:1")
}

// object is an object of Kubernetes with the text at its end, each line of which is indented.
func object(kind, text string) string {
	return "apiVersion: example.com/v1\nkind: " + kind + "\n" + text
}

func TestObjectsNameImagesInManyWays(t *testing.T) {
	for text, want := range map[string][]string{
		// What a cluster has seen.
		"apiVersion: v1\nkind: Pod\nspec: {containers: [{image: 'nginx:1'}]}\nstatus:\n  containerStatuses:\n  - {image: 'sha256:" + strings.Repeat("e", 64) + "', imageID: 'docker-pullable://a@" + someDigest + "'}\n": {"3 docker.io/library/nginx:1"},
		"kind: PodList\napiVersion: v1\nitems:\n- metadata: {name: a}\n  spec: {containers: [{image: 'a:1'}], ephemeralContainers: [{image: 'b:1'}]}\n  status: {containerStatuses: [{image: 'c:1'}]}\n":                 {"5 docker.io/library/a:1", "5 docker.io/library/b:1"},
		"apiVersion: v1\nkind: Node\nstatus: {images: [{names: ['a:1']}]}\nmetadata: {name: x}\n":                                                                                                                        nil,
		object("A", "spec:\n  image: sha256:"+strings.Repeat("a", 64)+"\n  other: {image: '"+strings.Repeat("b", 64)+"'}\n"):                                                                                             nil,
		// Templates of pods, wherever they are.
		"apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {initContainers: [{image: a:1}], containers: [{image: b:1}], volumes: [{image: {reference: c:1}}]}}}}}\n": {
			"3 docker.io/library/a:1", "3 docker.io/library/b:1", "3 docker.io/library/c:1"},
		// A tag or a digest beside the image.
		object("A", "spec: {image: quay.io/o/a, tag: v1}\n"):                                                                                 {"3 quay.io/o/a:v1"},
		object("A", "spec: {image: 'quay.io/o/a:v2', tag: v1}\n"):                                                                            {"3 quay.io/o/a:v2"},
		object("A", "spec: {image: quay.io/o/a, imageTag: 3, digest: '"+someDigest+"'}\n"):                                                   {"3 quay.io/o/a@" + someDigest},
		object("A", "spec: {image: quay.io/o/a, sha: "+someDigest[7:]+"}\n"):                                                                 {"3 quay.io/o/a@" + someDigest},
		object("A", "spec: {image: quay.io/o/a, version: 8}\n"):                                                                              {"3 quay.io/o/a:latest"},
		object("A", "spec: {driver: {repository: quay.io/nvidia, image: driver, version: '535'}}\n"):                                         {"3 quay.io/nvidia/driver:535"},
		object("A", "spec: {image: {name: quay.io/o/a, tag: 1.50, pullPolicy: Always}}\n"):                                                   {"3 quay.io/o/a:1.50"},
		object("A", "spec: {image: {repository: 'quay.io/o/a:1'}}\n"):                                                                        {"3 quay.io/o/a:1"},
		object("A", "spec: {image: {pullPolicy: Always}}\n"):                                                                                 nil,
		object("A", "spec: {backup_image: 'quay.io/o/a:1', image: ['b:1', {image: c:1}]}\n"):                                                 {"3 quay.io/o/a:1", "3 docker.io/library/b:1", "3 docker.io/library/c:1"},
		object("A", "spec: {images: ['b:1', 'quay.io/o/a@"+someDigest+"', picture.png]}\n"):                                                  {"3 docker.io/library/b:1", "3 quay.io/o/a@" + someDigest},
		object("A", "spec: {images: {web: {repository: quay.io/o/a, tag: v1}, db: 'b:1', other: {image: c:1}}}\n"):                           {"3 quay.io/o/a:v1", "3 docker.io/library/b:1", "3 docker.io/library/c:1"},
		object("Images", "spec: {images: [{name: 'quay.io/o/a:1'}, {name: logo, url: x}]}\n"):                                                {"3 quay.io/o/a:1"},
		object("A", "spec: {source: {repository: 'https://github.com/o/r', tag: v1}, chart: {repository: o/r, tag: v1}}\n"):                  nil,
		object("A", "spec: {dns: {imageRepository: quay.io/o/a, imageTag: 3}, x: {imageRegistry: quay.io, imageName: o/b, imageTag: v1}}\n"): {"3 quay.io/o/a:3", "3 quay.io/o/b:v1"},
		object("A", "spec: {imageName: 'quay.io/o/a:16', imageRef: 'b:1', imageName2: 'c:1'}\n"):                                             {"3 quay.io/o/a:16", "3 docker.io/library/b:1"},
		// Arguments and variables of programs that start others.
		object("A", "spec: {args: [--acme-http01-solver-image=quay.io/o/a:1, --reloader=quay.io/o/b:1, -sidecar-image, 'c:1', --listen=127.0.0.1:80, --mirror=example.com/d:1, --image-gc=e:1, '--proxy-image={{ x }}']}\n"): {
			"3 quay.io/o/a:1", "3 quay.io/o/b:1", "3 docker.io/library/c:1"},
		object("A", "spec: {env: [{name: HELPER_IMAGE, value: 'a:1'}, {name: RELATED_IMAGE_x, value: b}, {name: IMAGES, value: 'c:1'}, {name: X_IMAGE, valueFrom: {x: y}}]}\n"): {"3 docker.io/library/a:1", "3 docker.io/library/b:latest"},
		object("A", "spec: {env: [{name: STRIMZI_KAFKA_IMAGES, value: \"3.6=quay.io/o/k:6\\n3.7=quay.io/o/k:7\\n\"}, {name: TWO_IMAGES, value: 'a:1 b'}]}\n"): {
			"3 quay.io/o/k:6", "3 quay.io/o/k:7", "3 docker.io/library/a:1"},
		object("A", "metadata: {labels: {image: a}}\nspec: {image: 'b:1', selector: {matchLabels: {image: c}}, nodeSelector: {image: d}}\n"): {"4 docker.io/library/b:1"},
		// What is on a machine, as podman, docker and crictl tell it.
		"[{\"RepoTags\": [\"quay.io/o/a:1\", \"<none>:<none>\"], \"RepoDigests\": [\"quay.io/o/a@" + someDigest + "\"]}]\n": {"1 quay.io/o/a:1"},
		"{\"images\": [{\"id\": \"x\", \"repoTags\": [], \"repoDigests\": [\"quay.io/o/a@" + someDigest + "\"]}]}\n":        {"1 quay.io/o/a@" + someDigest},
		// Schemes, whatever the key.
		object("A", "spec: {url: 'docker://quay.io/o/a:1', source: 'oci://quay.io/o/b:1', repository: 'oci://quay.io/charts'}\n"): {"3 quay.io/o/a:1", "3 quay.io/o/b:1"},
		"apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nspec: {url: quay.io/o/w}\n":                                  {"3 quay.io/o/w:latest"},
		"apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nspec: {url: 'https://example.com/w.wasm'}\n":                 nil,
		"apiVersion: pkg.crossplane.io/v1\nkind: Function\nspec: {package: 'ghcr.io/o/f:v1'}\n":                                   {"3 ghcr.io/o/f:v1"},
		"apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec: {pattern: {containers: [{image: '!*:latest'}]}}\n":                 nil,
		"apiVersion: build.openshift.io/v1\nkind: BuildConfig\nspec:\n  source:\n    dockerfile: |\n      FROM a:1\n  output: {to: {kind: DockerImage, name: 'b:1'}}\n": {
			"6 docker.io/library/a:1"},
		object("A", "spec: {image: 'docker://a:1', other: {image: 'oci://quay.io/o/b:1'}}\n"): {"3 docker.io/library/a:1", "3 quay.io/o/b:1"},
		// Flux, OpenShift.
		"apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nspec: {url: 'oci://ghcr.io/o/m', ref: {tag: v1}}\n":                                                          {"3 ghcr.io/o/m:v1"},
		"apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageRepository\nspec: {image: ghcr.io/o/m}\n":                                                                               nil,
		"apiVersion: build.openshift.io/v1\nkind: BuildConfig\nspec: {strategy: {from: {kind: DockerImage, name: 'quay.io/o/b:1'}}}\n":                                              {"3 quay.io/o/b:1"},
		"apiVersion: template.openshift.io/v1\nkind: Template\nparameters: [{name: T, value: '5'}]\nobjects: [{kind: Pod, apiVersion: v1, spec: {containers: [{image: 'a:1'}]}}]\n": {"4 docker.io/library/a:1"},
		"apiVersion: example.com/v1\nkind: T\nparameters: [{name: T, value: '5'}]\nspec: {image: 'a:${T}'}\n":                                                                       {"4 docker.io/library/a:5"},
		// Tekton, Argo.
		"apiVersion: tekton.dev/v1\nkind: Task\nspec:\n  params: [{name: builder, default: 'gcr.io/kaniko:1'}, {name: v}]\n  stepTemplate: {image: a:1}\n  steps: [{image: $(params.builder)}, {image: '$(params[\"builder\"])'}]\n  sidecars: [{image: b:1}]\n": {
			"5 docker.io/library/a:1", "6 gcr.io/kaniko:1", "7 docker.io/library/b:1"},
		"apiVersion: tekton.dev/v1\nkind: PipelineRun\nspec: {taskRef: {resolver: bundles, params: [{name: bundle, value: 'quay.io/o/t:1'}]}, other: {taskRef: {name: x, bundle: 'quay.io/o/u:1'}}}\n": {
			"3 quay.io/o/t:1", "3 quay.io/o/u:1"},
		"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  arguments: {parameters: [{name: tag, value: '3'}]}\n  templates:\n  - script: {image: 'python:{{workflow.parameters.tag}}'}\n  - containerSet: {containers: [{image: a:1}]}\n  - resource:\n      manifest: |\n        apiVersion: v1\n        kind: Pod\n        spec: {containers: [{image: 'b:{{workflow.parameters.tag}}'}]}\n": {
			"6 docker.io/library/python:3", "7 docker.io/library/a:1", "12 docker.io/library/b:3"},
		"apiVersion: tekton.dev/v1\nkind: Pipeline\nspec:\n  tasks:\n  - matrix: {params: [{name: v, value: ['1', '2']}]}\n    taskSpec: {params: [{name: o, default: {img: b, tag: '3'}}], steps: [{image: 'a:$(params.v)'}, {image: '$(params.o.img):$(params.o.tag)'}, {image: 'c:$(tt.params.v)'}]}\n": {
			"6 docker.io/library/a:1", "6 docker.io/library/a:2", "6 docker.io/library/b:3", "6 docker.io/library/c:1", "6 docker.io/library/c:2"},
		"apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec: {images: {coredns: {image: quay.io/o/coredns, version: 1.11.3}, calico: {cni: {image: quay.io/o/cni, version: v3}}, default_pull_policy: Never}}\n": {
			"3 quay.io/o/coredns:1.11.3", "3 quay.io/o/cni:v3"},
		"apiVersion: upgrade.cattle.io/v1\nkind: Plan\nspec: {version: v1.30.1+k3s1, prepare: {image: rancher/k3s-upgrade, args: [prepare]}, upgrade: {image: 'rancher/other:1'}}\n": {
			"3 docker.io/rancher/k3s-upgrade:v1.30.1-k3s1", "3 docker.io/rancher/other:1"},
		// Kustomize.
		"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nimages:\n- {name: a, newName: quay.io/o/a, newTag: v2}\n- {name: quay.io/o/b, digest: '" + someDigest + "'}\n- {name: c, newTag: '1'}\n": {
			"4 quay.io/o/a:v2", "5 quay.io/o/b@" + someDigest, "6 docker.io/library/c:1"},
	} {
		text = strings.ReplaceAll(text, "gcr.io/kaniko", "quay.io/o/kaniko")
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "gcr.io/kaniko", "quay.io/o/kaniko")
		}
		wants(t, text, Options{}, want...)
	}
}

func TestWhatStandsForOtherFilesIsRefusedOrNoted(t *testing.T) {
	for text, want := range map[string]string{
		"image:\n  repository: quay.io/o/a\n  tag: \"\"\n":                                  "f:2: an image in parts, as in the values of a Helm chart, which alone makes whole names of them: give what it makes, as by helm template",
		"replicas: 1\nweb:\n  image: {repository: a, tag: b}\n":                             "f:3: an image in parts",
		"images:\n  web: {repository: a, tag: b}\n":                                         "f:2: an image in parts",
		"web: {registry: quay.io, repository: o/a}\n":                                       "f:1: an image in parts",
		"image: a:1\nweb: {imageName: b, imageTag: c}\n":                                    "f:2: an image in parts",
		"image: {repo: a, tag: b}\n":                                                        "f:1: an image in parts",
		"image: a:1\nglobal: {hub: docker.io/istio, tag: b}\n":                              "f:2: an image in parts",
		"image: quay.io/o/a\ntag: v1\n":                                                     "f:1: an image in parts",
		"apiVersion: v2\nname: chart\nversion: 1.0.0\n":                                     "f:1: is the description of a Helm chart",
		"apiVersion: skaffold/v4beta6\nkind: Config\nbuild: {artifacts: [{image: ours}]}\n": "f:1: is a configuration of skaffold",
		object("A", "spec: {image: {repository: quay.io/o/a}}\n"):                           "f:3: image \"quay.io/o/a\" has neither tag nor digest",
		object("A", "spec: {image: 'a:{{ .Values.tag }}'}\n"):                               "is a template",
		object("A", "spec: {image: 'a:${TAG}'}\n"):                                          "is a template",
		"apiVersion: upgrade.cattle.io/v1\nkind: Plan\nspec: {channel: 'https://u.example', upgrade: {image: rancher/k3s-upgrade}}\n": "f:1: the version of a Plan",
		object("A", "spec: {image: $(params.x)}\n"):                                                                              "is a template",
		object("A", "spec: {image: 'https://quay.io/o/a:1'}\n"):                                                                  "is an address",
		"{\"$schema\": \"https://docs.renovatebot.com/renovate-schema.json\", \"extends\": []}":                                  "is a configuration of Renovate",
		"apiVersion: kustomize.config.k8s.io/v1\nkind: Kustomization\nimages: [{name: a, newName: b}]\n":                         "neither newTag nor digest",
		"apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nspec: {url: 'oci://ghcr.io/o/m', ref: {semver: '1.x'}}\n": "chosen among its tags by semver",
		"target \"app\" {\n  contexts = { a = \"docker-image://a:1\" }\n}\n":                                                     "f:1: is HCL",
		"# nomad\njob \"redis\" {\n  group \"a\" {\n":                                                                            "f:2: is HCL",
		"variable \"TAG\" { default = \"1\" }\n":                                                                                 "f:1: is HCL",
	} {
		_, err := read(t, text, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%q): error %v, want %q", text, err, want)
		}
	}
	// Who says that it is for Kubernetes means its images in parts.
	wants(t, "image: {repository: quay.io/o/a, tag: v1}\n", Options{Format: Kubernetes}, "1 quay.io/o/a:v1")
	for text, want := range map[string]string{
		"apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: web}\nspec: {source: {helm: {valuesObject: {image: a}}}}\n": `f:1: Application "web" stands for objects that are not in this file: give what argocd app manifests makes`,
		"apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nspec: {values: {image: {repository: a}}}\n":                             `f:1: HelmRelease "" stands for objects that are not in this file: give what helm template makes`,
		"apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {hub: a, tag: b, values: {proxy: {image: proxyv2}}}\n":          `f:1: IstioOperator "" stands for objects that are not in this file: give what istioctl manifest generate makes`,
		object("A", "spec: {image: auto}\n"):           "f:3: auto stands for the image that Istio's injector puts there: name that one too",
		object("A", "spec: {images: [quay.io/o/a]}\n"): `f:3: "quay.io/o/a" has neither tag nor digest, and is not taken for an image`,
		"resources: [x.yml]\nimages: [{name: a}]\n":    "f:1: the files of a kustomization are not followed: give what kubectl kustomize makes",
	} {
		images, notes := told(t, text, Options{})
		if diff := cmp.Diff([]string{want}, notes); diff != "" || images != nil {
			t.Errorf("Read(%q) = %q, notes (-want +got):\n%s", text, images, diff)
		}
	}
}
