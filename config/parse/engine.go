package parse

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// Engine is where a server of the Redis protocol is.
type Engine struct {
	Hosts  []string // with ports; several only of sentinels
	User   string
	TLS    bool
	Master string // what sentinels call it; empty: Hosts are of the server itself
}

// EngineOf reads SCHEME://[USER@]HOST[:PORT], or sentinel://HOST,HOST/MASTER.
func EngineOf(text string) (e Engine, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return e, errors.New("is no URL, such as valkey://HOST:6379")
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, _, has := strings.Cut(rest[:i], ":")
		if has {
			return e, errors.New("has a password, which belongs into a file: set password_file beside it")
		}
		e.User, rest = user, rest[i+1:]
	}
	rest, path, _ := strings.Cut(rest, "/")
	port := "6379"
	switch scheme {
	case "redis", "valkey":
	case "rediss", "valkeys":
		e.TLS = true
	case "sentinel":
		if e.Master, path, port = path, "", "26379"; e.Master == "" || strings.ContainsAny(e.Master, "/?#") {
			return e, errors.New("names no master: sentinel://HOST,HOST/MASTER")
		}
	default:
		return e, fmt.Errorf("has the scheme %q, want valkey, valkeys, redis, rediss or sentinel", scheme)
	}
	if path != "" || strings.ContainsAny(rest, "?#") {
		return e, errors.New("has something behind the host: nothing may follow it")
	}
	for h := range strings.SplitSeq(rest, ",") {
		host, at := strings.Trim(h, "[]"), port
		if name, p, err := net.SplitHostPort(h); err == nil {
			host, at = name, p
		}
		if host == "" {
			return e, errors.New("has no host")
		}
		e.Hosts = append(e.Hosts, net.JoinHostPort(host, at))
	}
	if len(e.Hosts) > 1 && e.Master == "" {
		return e, errors.New("has several hosts, which only sentinel:// takes")
	}
	return e, nil
}
