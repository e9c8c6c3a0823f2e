package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseErrorDoc(t *testing.T) {
	tests := []struct {
		body string
		want ErrorDoc
	}{
		{`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}` + "\n", ErrorDoc{"MANIFEST_UNKNOWN", "manifest unknown", true}},
		{`{"errors":[{"code":"A","message":"first"},{"code":"B"}]}`, ErrorDoc{"A", "first", true}},
		{`{"errors":[{"code":404,"message":null}]}`, ErrorDoc{"404", "", true}},
		{`{"errors":[]}`, ErrorDoc{"", "", true}},
		{`{"details":"incorrect username or password"}` + "\n", ErrorDoc{"", "incorrect username or password", true}},
		{`{"detail": "Rate limit exceeded", "error": false}`, ErrorDoc{"", "Rate limit exceeded", true}},
		{`{"message":"object not found","errinfo":{}}`, ErrorDoc{"", "object not found", true}},
		{`{"error":"invalid_grant","error_description":"expired"}`, ErrorDoc{"invalid_grant", "expired", true}},
		{"\xef\xbb\xbf{\"message\":\"after a BOM\"}", ErrorDoc{"", "after a BOM", true}},
		{`<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`, ErrorDoc{"AccessDenied", "Request has expired", true}},
		{`<!DOCTYPE html><html><title>502</title></html>`, ErrorDoc{}},
		{`<html><Code>x</Code></html>`, ErrorDoc{}},
		{"Too Many Requests (HAP429).\n", ErrorDoc{"", "Too Many Requests (HAP429).", false}},
		{"Not Authorized", ErrorDoc{"", "Not Authorized", false}},
		{"line one\r\nline\ttwo\x1b[31m", ErrorDoc{"", "line one  line two[31m", false}},
		{`{"errors":`, ErrorDoc{}},
		{"\x1f\x8b\x08\x00\x00layer", ErrorDoc{}},
		{"layer " + strings.Repeat("\xea\xbb", 300), ErrorDoc{}},
		{"", ErrorDoc{}},
	}
	for _, test := range tests {
		if got := ParseErrorDoc([]byte(test.body)); got != test.want {
			t.Errorf("ParseErrorDoc(%q) = %+v, want %+v", test.body, got, test.want)
		}
	}
}

func TestParseErrorDocIsBounded(t *testing.T) {
	got := ParseErrorDoc([]byte(strings.Repeat("é", 1000)))
	if len(got.Message) != errorMessageMax || !utf8.ValidString(got.Message) {
		t.Errorf("message of 2000 bytes became %d bytes, valid %v; want %d, valid", len(got.Message), utf8.ValidString(got.Message), errorMessageMax)
	}
}

func FuzzParseErrorDoc(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"DENIED","message":"no"}]}`))
	f.Add([]byte(`<Error><Code>AccessDenied</Code></Error>`))
	f.Add([]byte("Too Many Requests"))
	f.Fuzz(func(t *testing.T, body []byte) {
		d := ParseErrorDoc(body)
		if len(d.Code) > errorCodeMax || len(d.Message) > errorMessageMax {
			t.Errorf("ParseErrorDoc(%q) is too long: %+v", body, d)
		}
		if strings.ContainsAny(d.Code+d.Message, "\r\n\x00\x1b") || !utf8.ValidString(d.Code+d.Message) {
			t.Errorf("ParseErrorDoc(%q) is not printable: %+v", body, d)
		}
	})
}
