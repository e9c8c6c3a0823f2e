package wire

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrorDoc is what a registry, a token server or a blob store said of an error. Both
// fields may be empty, are printable, and are untrusted.
type ErrorDoc struct {
	Code    string // "MANIFEST_UNKNOWN"; at most 64 bytes
	Message string // at most 256 bytes
	// Document says that the body was a structured document and not bare text.
	Document bool
}

// BlamesName reports whether an error code blames what was asked for and not the token.
func BlamesName(code string) bool {
	switch code {
	case "NAME_INVALID", "DIGEST_INVALID", "TAG_INVALID", "MANIFEST_INVALID", "PAGINATION_NUMBER_INVALID":
		return true
	}
	return false
}

const (
	errorCodeMax    = 64
	errorMessageMax = 256
)

// ParseErrorDoc reads the body of an error answer: the document of the OCI distribution
// specification ({"errors":[{"code","message"}]}), those of token servers and of Docker
// Hub's API ({"details"}, {"detail"}, {"message"}, {"error","error_description"}), the
// XML of blob stores, or plain text. Of HTML nothing is kept.
func ParseErrorDoc(body []byte) ErrorDoc {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	switch {
	case len(body) == 0:
		return ErrorDoc{}
	case body[0] == '{':
		return parseErrorJSON(body)
	case body[0] == '<':
		return parseErrorXML(body)
	case !isText(body):
		return ErrorDoc{} // content, by a mistake of somebody on the way
	default:
		return ErrorDoc{Message: printable(string(body), errorMessageMax)}
	}
}

// isText reports whether what would be shown of a body is text. Its end may be cut within a letter.
func isText(body []byte) bool {
	head := body[:min(len(body), errorMessageMax)]
	for i, c := range string(head) {
		if c == 0 || c == utf8.RuneError && i < len(head)-utf8.UTFMax {
			return false
		}
	}
	return true
}

func parseErrorJSON(body []byte) ErrorDoc {
	var doc map[string]json.RawMessage
	if json.Unmarshal(body, &doc) != nil {
		return ErrorDoc{}
	}
	d := ErrorDoc{Document: true}
	var list []map[string]json.RawMessage
	if json.Unmarshal(doc["errors"], &list) == nil && len(list) > 0 {
		d.Code = jsonText(list[0]["code"], errorCodeMax)
		d.Message = jsonText(list[0]["message"], errorMessageMax)
		return d
	}
	for _, key := range []string{"error_description", "details", "detail", "message"} {
		if d.Message = jsonText(doc[key], errorMessageMax); d.Message != "" {
			break
		}
	}
	for _, key := range []string{"code", "error"} {
		if d.Code = jsonText(doc[key], errorCodeMax); d.Code != "" && d.Code != "false" {
			break
		}
		d.Code = "" // Hub's API says "error": false beside its message
	}
	return d
}

// jsonText returns a JSON string, number or boolean as text, and "" for anything else.
func jsonText(raw json.RawMessage, most int) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return printable(s, most)
	}
	if len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || string(raw) == "null" {
		return ""
	}
	return printable(string(raw), most)
}

func parseErrorXML(body []byte) ErrorDoc {
	var doc struct {
		XMLName xml.Name
		Code    string
		Message string
	}
	if xml.Unmarshal(body, &doc) != nil || doc.XMLName.Local != "Error" {
		return ErrorDoc{} // HTML, mostly
	}
	return ErrorDoc{
		Code:     printable(doc.Code, errorCodeMax),
		Message:  printable(doc.Message, errorMessageMax),
		Document: true,
	}
}

// printable returns s on one line, without control characters, cut to most bytes.
func printable(s string, most int) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case !unicode.IsPrint(r), r == utf8.RuneError:
			continue
		}
		if b.Len()+utf8.RuneLen(r) > most {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
