package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/apk" // registers itself
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

//go:embed templates
var templates embed.FS

// packages makes a deb, an rpm and an apk of a program.
func (r *release) packages(p platform, binary string, docs []document) error {
	contents, err := r.contents(binary, docs)
	if err != nil {
		return err
	}
	scripts := map[string]string{}
	for _, name := range []string{"postinstall.sh", "preremove.sh", "postremove.sh"} {
		text, err := templates.ReadFile("templates/" + name)
		if err != nil {
			return err
		}
		if scripts[name], err = r.keep("package-"+name, text); err != nil {
			return err
		}
	}
	for _, format := range []string{"deb", "rpm", "apk"} {
		info := nfpm.WithDefaults(&nfpm.Info{
			Name: "forebay", Arch: p.arch + strings.TrimPrefix(p.variant, "v"), Platform: "linux", Version: r.version, Release: "1",
			Section: "net", Priority: "optional", Maintainer: "The Forebay authors", License: "Apache-2.0", MTime: r.made,
			Description:     "A pull-through caching mirror for container registries\nIt pulls each image from Docker Hub and other registries once, keeps it, and\ngoes on serving it when they limit, fail or are out of reach.",
			DisableGlobbing: true,
			Overridables: nfpm.Overridables{
				Contents: forFormat(contents, format),
				// Its own certificates are the machine's.
				Recommends: []string{"ca-certificates"},
				Scripts:    nfpm.Scripts{PostInstall: scripts["postinstall.sh"], PreRemove: scripts["preremove.sh"], PostRemove: scripts["postremove.sh"]},
				APK:        nfpm.APK{Scripts: nfpm.APKScripts{PostUpgrade: scripts["postinstall.sh"]}}, // which runs no other then
				RPM:        nfpm.RPM{BuildHost: "localhost", Summary: "A pull-through caching mirror for container registries"},
			},
		})
		if format == "apk" { // whose versions have rc1, where others have rc.1
			info.Prerelease = strings.ReplaceAll(info.Prerelease, ".", "")
		}
		if err := nfpm.PrepareForPackager(info, format); err != nil {
			return fmt.Errorf("%s for %s: %w", format, p, err)
		}
		packager, err := nfpm.Get(format)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := packager.Package(info, &b); err != nil {
			return fmt.Errorf("%s for %s: %w", format, p, err)
		}
		text := b.Bytes()
		if format == "apk" {
			if text, err = orderScripts(text, r.made); err != nil {
				return fmt.Errorf("apk for %s: %w", p, err)
			}
		}
		if err := os.WriteFile(r.file(p.label()+"."+format), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// orderScripts puts the files of an apk's first part in the order of their names: nfpm writes the
// scripts in any, with the time of their files. An apk is archives one after another, each compressed by itself, of which the
// first has no end mark and names the digest of the second.
func orderScripts(apk []byte, made time.Time) ([]byte, error) {
	packed := bytes.NewReader(apk) // which gzip reads no further than it must
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	files := map[*tar.Header][]byte{}
	var order []*tar.Header
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if files[h], err = io.ReadAll(t); err != nil {
			return nil, err
		}
		order = append(order, h)
	}
	if len(order) < 2 || order[0].Name != ".PKGINFO" {
		return nil, errors.New("its first part is not what describes it")
	}
	if _, err := io.Copy(io.Discard, z); err != nil { // its checksum
		return nil, err
	}
	slices.SortFunc(order[1:], func(a, b *tar.Header) int { return strings.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	t := tar.NewWriter(w)
	for _, h := range order {
		one := &tar.Header{Typeflag: tar.TypeReg, Name: h.Name, Mode: h.Mode, Size: h.Size, ModTime: made, PAXRecords: h.PAXRecords, Format: tar.FormatPAX}
		if err := t.WriteHeader(one); err != nil {
			return nil, err
		}
		if _, err := t.Write(files[h]); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.Flush(), w.Close()); err != nil {
		return nil, err
	}
	return append(out.Bytes(), apk[len(apk)-packed.Len():]...), nil
}

// contents are the files of a package. The unit is that of deploy/ with the paths of a package and
// a user that stays, so that /etc/forebay can be for it alone.
func (r *release) contents(binary string, docs []document) (files.Contents, error) {
	unit, err := os.ReadFile(filepath.Join(r.source, "deploy", "forebay.service"))
	if err != nil {
		return nil, err
	}
	text, err := packagedUnit(string(unit))
	if err != nil {
		return nil, err
	}
	made := map[string]string{}
	for name, text := range map[string][]byte{"forebay.service": []byte(text), "sysusers.conf": nil, "openrc": nil} {
		if text == nil {
			if text, err = templates.ReadFile("templates/" + name); err != nil {
				return nil, err
			}
		}
		if made[name], err = r.keep(name, text); err != nil {
			return nil, err
		}
	}
	all := files.Contents{
		{Source: binary, Destination: "/usr/bin/forebay", FileInfo: &files.ContentFileInfo{Mode: 0o755}},
		{Source: made["forebay.service"], Destination: "/usr/lib/systemd/system/forebay.service", Packager: "rpm"},
		{Source: made["forebay.service"], Destination: "/lib/systemd/system/forebay.service", Packager: "deb"},
		{Source: made["sysusers.conf"], Destination: "/usr/lib/sysusers.d/forebay.conf"},
		{Source: made["openrc"], Destination: "/etc/init.d/forebay", FileInfo: &files.ContentFileInfo{Mode: 0o755}, Packager: "apk"},
		{Source: filepath.Join(r.source, "deploy", "config", "packaged.yaml"), Destination: "/etc/forebay/forebay.yaml", Type: files.TypeConfigNoReplace,
			FileInfo: &files.ContentFileInfo{Mode: 0o644}},
	}
	for _, d := range docs {
		source, name := d.path, d.name
		if d.gzip {
			text, err := os.ReadFile(source)
			if err != nil {
				return nil, err
			}
			var b bytes.Buffer
			z, err := gzip.NewWriterLevel(&b, gzip.BestCompression) // without name and time, as Debian wants it
			if err != nil {
				return nil, err
			}
			if _, err := z.Write(text); err != nil {
				return nil, err
			}
			if err := z.Close(); err != nil {
				return nil, err
			}
			if source, err = r.keep(filepath.Base(source)+".gz", b.Bytes()); err != nil {
				return nil, err
			}
			name += ".gz"
		}
		all = append(all, &files.Content{Source: source, Destination: name})
	}
	for _, c := range all {
		if c.FileInfo == nil {
			c.FileInfo = &files.ContentFileInfo{Mode: 0o644}
		}
		c.FileInfo.Owner, c.FileInfo.Group, c.FileInfo.MTime = "root", "root", r.made
	}
	return all, nil
}

// forFormat copies what a packager may change.
func forFormat(all files.Contents, format string) files.Contents {
	var out files.Contents
	for _, c := range all {
		if c.Packager != "" && c.Packager != format {
			continue
		}
		one, info := *c, *c.FileInfo
		one.FileInfo, one.Packager = &info, ""
		out = append(out, &one)
	}
	return out
}

// packagedUnit changes the unit of deploy/ for a package; a line that is not there any more is an error.
func packagedUnit(unit string) (string, error) {
	for _, change := range [][2]string{
		{"# systemd unit. Copy the binary to /usr/local/bin/forebay and this file to\n# /etc/systemd/system/, then: systemctl enable --now forebay\n", ""},
		{"file:///usr/local/share/doc/forebay/README.md", "man:forebay(1) man:forebay.yaml(5) file:///usr/share/doc/forebay/README.md"},
		{"ExecStart=/usr/local/bin/forebay serve", "ExecStart=/usr/bin/forebay serve"},
		{"DynamicUser=yes\n", "User=forebay\nGroup=forebay\n"},
	} {
		if strings.Count(unit, change[0]) != 1 {
			return "", fmt.Errorf("deploy/forebay.service has no %q", change[0])
		}
		unit = strings.Replace(unit, change[0], change[1], 1)
	}
	return unit, nil
}

// keep writes what lies between.
func (r *release) keep(name string, text []byte) (string, error) {
	path := filepath.Join(r.work, name)
	return path, os.WriteFile(path, text, 0o644)
}
