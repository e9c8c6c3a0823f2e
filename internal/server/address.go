package server

import "net"

// Reachable turns the address of a listener into one that this machine can connect to.
func Reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	// Go listens on IPv4, too, for [::], where there is any.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if probe, err := net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			host = "::1"
		} else {
			_ = probe.Close() // nothing was sent
		}
	}
	return net.JoinHostPort(host, port)
}
