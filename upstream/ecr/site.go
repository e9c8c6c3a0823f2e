package ecr

import (
	"fmt"
	"regexp"
	"strings"
)

// Public is the name of Amazon's public registry.
const Public = "public.ecr.aws"

// Site is what the name of a registry of Amazon's says.
type Site struct {
	Account   string // twelve digits; "" for the public registry
	Region    string
	FIPS      bool // validated cryptography, at endpoints of its own
	DualStack bool // IPv4 and IPv6
}

// Names of private registries: account.dkr.ecr.region and a suffix for each partition
// (AWS General Reference, "Amazon ECR endpoints and quotas"), and the dual-stack form.
var (
	namePattern      = regexp.MustCompile(`^([0-9]{12})\.dkr\.ecr(-fips)?\.([a-z0-9-]{1,32})\.amazonaws\.(?:com|com\.cn|eu)$`)
	dualStackPattern = regexp.MustCompile(`^([0-9]{12})\.dkr-ecr(-fips)?\.([a-z0-9-]{1,32})\.(?:on\.aws|on\.amazonwebservices\.(?:com\.cn|eu))$`)
)

// ParseHost returns the site of a registry's host name, without a port.
func ParseHost(host string) (Site, error) {
	host = strings.ToLower(host)
	if host == Public {
		return Site{Region: "us-east-1"}, nil // the only region whose tokens it takes
	}
	for _, pattern := range []*regexp.Regexp{namePattern, dualStackPattern} {
		if m := pattern.FindStringSubmatch(host); m != nil {
			return Site{Account: m[1], Region: m[3], FIPS: m[2] != "", DualStack: pattern == dualStackPattern}, nil
		}
	}
	return Site{}, fmt.Errorf("%q is no registry of Amazon's, which are %s and ACCOUNT.dkr.ecr.REGION.amazonaws.com", host, Public)
}
