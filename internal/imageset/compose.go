package imageset

import (
	"errors"

	"go.yaml.in/yaml/v4"
)

// compose reads the services of a Compose file. A service that is built is made and not
// pulled: its image is a name for what is made.
func (r *reader) compose(root *yaml.Node) {
	services := value(root, "services")
	if services == nil || services.Kind != yaml.MappingNode {
		if root.Kind != yaml.ScalarNode {
			r.fault(root.Line, errors.New("has no services: is it a Compose file?"))
		}
		return
	}
	for i := 0; i+1 < len(services.Content); i += 2 {
		service := follow(services.Content[i+1])
		image := value(service, "image")
		if text(image) == "" || value(service, "build") != nil {
			continue
		}
		name, err := expand(text(image), r.variable)
		if err != nil {
			r.fault(image.Line, err)
			continue
		}
		platform, err := expand(text(value(service, "platform")), r.variable)
		if err != nil {
			r.fault(image.Line, err)
			continue
		}
		if platform == "" {
			r.add(image.Line, name)
		} else {
			r.add(image.Line, name, platform)
		}
	}
}

func (r *reader) variable(name string) (string, bool) {
	if r.o.Lookup == nil {
		return "", false
	}
	return r.o.Lookup(name)
}

func isCompose(root *yaml.Node) bool { return is(value(root, "services"), yaml.MappingNode) }
