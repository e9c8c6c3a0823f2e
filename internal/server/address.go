package server

import "net"

// Reachable turns the address of a listener into one that this machine can connect to.
func Reachable(listen string) string { return reachable(listen, ipv4OnLoopback) }

func reachable(listen string, ipv4 func() bool) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	// Go listens on IPv4, too, for [::], where there is any.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host = "127.0.0.1"; !ipv4() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// ipv4OnLoopback reports whether this machine reaches itself by IPv4. Nothing is sent.
func ipv4OnLoopback() bool {
	probe, err := net.ListenPacket("udp4", "127.0.0.1:0")
	return err == nil && probe.Close() == nil
}
