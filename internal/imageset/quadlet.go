package imageset

import (
	"encoding/csv"
	"fmt"
	"regexp"
	"strings"
)

var quadletSection = regexp.MustCompile(`^\[(Container|Image|Volume|Kube|Pod|Build|Network|Unit|Service|Install)\]$`)

// quadlet reads the units of podman (podman-systemd.unit(5)): Image of containers, images and
// volumes, and mounts that are images.
func (r *reader) quadlet(text string) {
	section, platform := "", ""
	var named []func()
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		number, line := i+1, strings.TrimSpace(lines[i])
		for strings.HasSuffix(line, "\\") && i+1 < len(lines) { // goes on
			i++
			line = strings.TrimSuffix(line, "\\") + " " + strings.TrimSpace(lines[i])
		}
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, v, ok := strings.Cut(line, "=")
		if key, v = strings.TrimSpace(key), strings.TrimSpace(v); !ok || v == "" {
			continue
		}
		switch section + key {
		case "[Container]Image", "[Image]Image", "[Volume]Image":
			named = append(named, func() { r.unitImage(number, v, platform) })
		case "[Container]Mount", "[Pod]Mount":
			named = append(named, func() { r.unitMount(number, v, platform) })
		case "[Image]Arch":
			platform = "linux/" + v
		case "[Build]File", "[Build]SetWorkingDirectory", "[Kube]Yaml":
			r.note(number, fmt.Sprintf("%s is a file of its own", clip(v)))
		}
	}
	for _, take := range named { // Arch may stand after Image
		take()
	}
}

// unitImage takes in an image, unless it is that of another unit.
func (r *reader) unitImage(line int, name, platform string) {
	switch {
	case strings.HasSuffix(name, ".image") || strings.HasSuffix(name, ".build"):
		r.note(line, fmt.Sprintf("%s is a file of its own", clip(name)))
	case strings.Contains(name, "%"):
		r.fault(line, fmt.Errorf("%q has a specifier of systemd, which has no value here", clip(name)))
	default:
		r.add(line, name, platform)
	}
}

// unitMount reads Mount=type=image,source=NAME,destination=…
func (r *reader) unitMount(line int, v, platform string) {
	options, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		r.fault(line, fmt.Errorf("mount %q: %w", clip(v), err))
		return
	}
	source, image := "", false
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "type":
			image = value == "image"
		case "source", "src":
			source = value
		}
	}
	if image {
		r.unitImage(line, source, platform)
	}
}
