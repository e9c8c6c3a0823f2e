package section

import "testing"

func TestWhereOthersReachAMirror(t *testing.T) {
	for text, ok := range map[string]bool{
		"10.0.0.7": true, "10.0.0.7:5003": true, "forebay-0.forebay": true, "[fd00::7]": true, "[fd00::7]:5002": true,
		"": false, "0.0.0.0": false, "0.0.0.0:5002": false, "[::]:5002": false, ":5002": false, "${POD_IP}": false, "http://a": false, "a:0": false, "a:99999": false, "A": false,
	} {
		if got, err := reachable(text); (err == nil) != ok || ok && got != text {
			t.Errorf("reachable(%q) = %q, %v", text, got, err)
		}
	}
}
