// Package key is what a key of the configuration is: its name, what it allows, where its value goes
// and how it is explained.
//
// It promises that decoder, environment, flags, printer, schema and reference read the same. Which
// keys there are is said by package config.
package key

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"forebay/config/parse"
	"forebay/config/unit"
	"forebay/internal/secret"
)

// Kind is the shape of a setting in YAML.
type Kind uint8

// The kinds.
const (
	Scalar  Kind = iota
	List         // of scalars; separated by commas in the environment
	Table        // of scalars by name; NAME=VALUE pairs in the environment
	Section      // of keys
	Records      // a list of texts and of mappings with fields
)

// Key is one of the file: the only place that says its name, what it allows,
// where its value goes, and how it is explained. The decoder, the environment, the
// flags, the printer and the reference all read it.
type Key struct {
	Name    string
	Kind    Kind
	What    string        // what is allowed, as a noun: "a duration"
	Doc     string        // for the reference: what it does, what its default means
	Secret  func() string // of a secret: what Get does not tell
	File    bool          // the value is a file name: one in the file is relative to the file
	Plain   string        // of a file: a word that is no file name
	Private bool          // of a file: what is in it is secret
	Lists   bool          // of a table: its values may be lists

	Set    func(text string) error // sets a scalar; adds one element of a list or table
	Clear  func()                  // empties a list or table
	Get    func() []string         // the elements; exactly one of a scalar
	Fields []Key                   // of a section; of records, those that a mapping has

	// Of records: Element adds one and returns its keys, Elements returns all.
	Element  func() []Key
	Elements func() []Element
}

// Element is one of the records: a text, or else a mapping.
type Element struct {
	Text   string
	Fields []Key
}

// Into returns the setter of *p by read.
func Into[T any](p *T, read func(string) (T, error)) func(string) error {
	return func(s string) error {
		v, err := read(s)
		if err != nil {
			return err
		}
		*p = v
		return nil
	}
}

// Text is a line of text.
func Text(name string, p *string, doc string) Key {
	return Key{Name: name, What: "a text", Doc: doc,
		Set: Into(p, parse.Plain), Get: func() []string { return []string{*p} }}
}

// File is the name of a file.
func File(name string, p *string, doc string) Key {
	f := Text(name, p, doc)
	f.What, f.File = "a file name", true
	return f
}

// SecretFile is a file that nobody else should be able to read.
func SecretFile(name string, p *string, doc string) Key {
	f := File(name, p, doc)
	f.Private = true
	return f
}

// Secret is a password or token.
func Secret(name string, p *secret.Text, doc string) Key {
	return Key{Name: name, What: "a text", Doc: doc, Secret: p.Reveal,
		Set: func(s string) error {
			if _, err := parse.Plain(s); err != nil {
				return err
			}
			*p = secret.New(s)
			return nil
		},
		Get: func() []string { return []string{p.String()} }}
}

// Duration is one from least to most.
func Duration(name string, p *time.Duration, least, most time.Duration, doc string) Key {
	return Key{Name: name, What: "a duration", Doc: doc,
		Set: func(s string) error {
			d, err := unit.ParseDuration(s)
			if err != nil {
				return err
			}
			if d < least || d > most {
				return fmt.Errorf("%s is out of range: use %s to %s", unit.FormatDuration(d), unit.FormatDuration(least), unit.FormatDuration(most))
			}
			*p = d
			return nil
		},
		Get: func() []string { return []string{unit.FormatDuration(*p)} }}
}

// Size is a number of bytes, least or more; 0 is written "auto".
func Size(name string, p *int64, least int64, doc string) Key {
	return Key{Name: name, What: "a size", Doc: doc,
		Set: func(s string) error {
			if s == "auto" {
				*p = 0
				return nil
			}
			n, err := unit.ParseSize(s)
			if err != nil {
				return fmt.Errorf("%w, or auto", err)
			}
			if n < least {
				return fmt.Errorf("%s is too small: use at least %s", unit.FormatSize(n), unit.FormatSize(least))
			}
			*p = n
			return nil
		},
		Get: func() []string {
			if *p == 0 {
				return []string{"auto"}
			}
			return []string{unit.FormatSize(*p)}
		}}
}

// Int is a number from least to most.
func Int(name string, p *int, least, most int, doc string) Key {
	return Key{Name: name, What: fmt.Sprintf("a number from %d to %d", least, most), Doc: doc,
		Set: func(s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < least || n > most {
				return fmt.Errorf("%q is not usable: use a number from %d to %d", parse.Clip(s), least, most)
			}
			*p = n
			return nil
		},
		Get: func() []string { return []string{strconv.Itoa(*p)} }}
}

// Price is an amount of money without its currency.
func Price(name string, p *float64, doc string) Key {
	const most = 1e6
	return Key{Name: name, What: "a price", Doc: doc,
		Set: func(s string) error {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil || math.IsNaN(v) || v < 0 || v > most {
				return fmt.Errorf("%q is not usable: use a number from 0 to %g, such as 0.09", parse.Clip(s), most)
			}
			*p = v
			return nil
		},
		Get: func() []string { return []string{strconv.FormatFloat(*p, 'f', -1, 64)} }}
}

// Bool is true or false.
func Bool(name string, p *bool, doc string) Key {
	return Key{Name: name, What: "true or false", Doc: doc,
		Set: func(s string) error {
			v, err := parse.OneOf(s, []string{"true", "false"})
			if err != nil {
				return err
			}
			*p = v == "true"
			return nil
		},
		Get: func() []string { return []string{strconv.FormatBool(*p)} }}
}

// Choice is one of options.
func Choice[T ~string](name string, p *T, options []T, doc string) Key {
	return Key{Name: name, What: parse.Either(options), Doc: doc,
		Set: Into(p, func(s string) (T, error) { return parse.OneOf(s, options) }),
		Get: func() []string { return []string{string(*p)} }}
}

// Texts is a list of texts that read takes, none of them twice.
func Texts(name string, p *[]string, what string, read func(string) (string, error), doc string) Key {
	return Key{Name: name, Kind: List, What: "a list of " + what, Doc: doc,
		Set: func(s string) error {
			v, err := read(s)
			if err != nil {
				return err
			}
			for _, have := range *p {
				if have == v {
					return fmt.Errorf("%q is there twice", parse.Clip(v))
				}
			}
			*p = append(*p, v)
			return nil
		},
		Clear: func() { *p = nil },
		Get:   func() []string { return *p }}
}

// Networks is a list of networks, and of addresses as networks of one.
func Networks(name string, p *[]netip.Prefix, doc string) Key {
	return Key{Name: name, Kind: List, What: "a list of networks or addresses, such as `10.20.0.0/16`", Doc: doc,
		Set: func(s string) error {
			network, err := netip.ParsePrefix(s)
			if addr, aerr := netip.ParseAddr(s); aerr == nil && addr.Zone() == "" {
				network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
			}
			if err != nil || network.Addr().Is4In6() {
				return fmt.Errorf("%q is not a network: use one such as 10.20.0.0/16, or an address", parse.Clip(s))
			}
			if network != network.Masked() {
				return fmt.Errorf("%q has bits behind its mask: use %s, or the address alone", parse.Clip(s), network.Masked())
			}
			if slices.Contains(*p, network) {
				return fmt.Errorf("%q is there twice", parse.Clip(s))
			}
			*p = append(*p, network)
			return nil
		},
		Clear: func() { *p = nil },
		Get: func() []string {
			var all []string
			for _, network := range *p {
				all = append(all, network.String())
			}
			return all
		}}
}

// Hours is a list of hours and bytes.
func Hours(name string, p *[]unit.Hours, doc string) Key {
	return Key{Name: name, Kind: List, What: "a list of hours and bytes", Doc: doc,
		Set: func(s string) error {
			h, err := unit.ParseHours(s)
			if err == nil {
				*p = append(*p, h)
			}
			return err
		}, Clear: func() { *p = nil },
		Get: func() (all []string) {
			for _, h := range *p {
				all = append(all, h.String())
			}
			return all
		}}
}

// Address is HOST:PORT; an optional one may be "off".
func Address(name string, p *string, optional bool, doc string) Key {
	return Key{Name: name, What: "an address", Doc: doc,
		Set: func(s string) error {
			if optional && s == "off" {
				*p = ""
				return nil
			}
			v, err := parse.Address(s)
			if err != nil {
				return err
			}
			*p = v
			return nil
		},
		Get: func() []string {
			if optional && *p == "" {
				return []string{"off"}
			}
			return []string{*p}
		}}
}

// Proxy is the URL of a proxy.
func Proxy(p *string) Key {
	return Key{Name: "proxy", What: "a URL",
		Doc: "Proxy for this registry, its token server and its redirects: `http://`, `https://` or `socks5://`. It resolves all names. Empty: what the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY say for each host, and no proxy without them.",
		Set: Into(p, parse.Proxy), Get: func() []string { return []string{*p} }}
}

// Percent is a share, from 0 to 1, written as a percentage.
func Percent(name string, p *float64, doc string) Key {
	return Key{Name: name, What: "a percentage", Doc: doc,
		Set: func(s string) error {
			number, ok := strings.CutSuffix(s, "%")
			n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			if !ok || err != nil || !(n >= 0 && n <= 100) {
				return fmt.Errorf("%q is not usable: use a percentage from 0%% to 100%%, such as 20%%", parse.Clip(s))
			}
			*p = n / 100
			return nil
		},
		Get: func() []string { return []string{strconv.FormatFloat(*p*100, 'f', -1, 64) + "%"} }}
}

// Mappings is a list of mappings, each with the fields of one T, which begins as initial.
func Mappings[T any](name, doc string, p *[]T, initial T, fields func(*T) []Key) Key {
	return Key{Name: name, Kind: Records, What: "a list of mappings", Doc: doc,
		Set: func(s string) error {
			return fmt.Errorf("%q is no mapping: write one, with %s", parse.Clip(s), fields(new(T))[0].Name)
		},
		Clear: func() { *p = nil },
		Get:   func() []string { return nil },
		Element: func() []Key {
			*p = append(*p, initial)
			return fields(&(*p)[len(*p)-1])
		},
		Elements: func() []Element {
			var list []Element
			for i := range *p {
				list = append(list, Element{Fields: fields(&(*p)[i])})
			}
			return list
		},
		Fields: fields(new(T))}
}

// Members is a table whose values are lists, or texts separated by commas.
func Members(name, what, doc string, set func(name string, values []string) error, clear func(), get func() []string) Key {
	return Key{Name: name, Kind: Table, Lists: true, What: what, Doc: doc, Clear: clear, Get: get,
		Set: func(s string) error {
			name, value, ok := strings.Cut(s, "=")
			if !ok || !parse.SetName.MatchString(name) {
				return fmt.Errorf("%q is not usable: use a NAME of letters, digits, dots, dashes and underscores, and what belongs to it", parse.Clip(s))
			}
			values := parse.List(strings.ReplaceAll(value, " ", ","))
			values = slices.DeleteFunc(values, func(s string) bool { return s == "" })
			if len(values) == 0 {
				return fmt.Errorf("%s has nothing that belongs to it", parse.Clip(name))
			}
			return set(name, values)
		}}
}

// MembersOf lists a table of lists as pairs.
func MembersOf[T any](m map[string][]T, text func(T) string) []string {
	flat := make(map[string]string, len(m))
	for name, values := range m {
		var all []string
		for _, v := range values {
			all = append(all, text(v))
		}
		flat[name] = strings.Join(all, " ")
	}
	return parse.Pairs(flat)
}
