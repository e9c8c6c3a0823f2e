package config

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"forebay/config/key"
)

// Schema writes a JSON schema (draft 2020-12) of the file, for editors. What it allows is no
// less than what [Load] does: it knows the keys, and of values no more than their shape.
func Schema(w io.Writer) error {
	u := defaultUpstream("NAME")
	all := sectionSchema(defaults().fields())
	all["properties"].(map[string]any)["upstreams"] = map[string]any{
		"description":          "Registries that are mirrored, by their public names; they replace the default ones.",
		"type":                 []string{"object", "null"},
		"additionalProperties": sectionSchema(u.fields()),
	}
	all["$schema"], all["title"] = "https://json-schema.org/draft/2020-12/schema", "Forebay"
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(all)
}

func sectionSchema(fields []field) map[string]any {
	keys := map[string]any{}
	for _, f := range fields {
		keys[f.Name] = schema(f)
	}
	// "key:" keeps the default.
	return map[string]any{"type": []string{"object", "null"}, "properties": keys, "additionalProperties": false}
}

// schema returns the schema of one key.
func schema(f field) map[string]any {
	out := map[string]any{}
	switch f.Kind {
	case key.Section:
		out = sectionSchema(f.Fields)
	case key.List:
		out["type"], out["items"] = []string{"array", "null"}, map[string]any{"type": []string{"string", "number"}}
	case key.Records:
		out["type"], out["items"] = []string{"array", "null"}, map[string]any{"anyOf": []any{map[string]any{"type": "string"}, sectionSchema(f.Fields)}}
	case key.Table:
		values := []string{"string", "number", "boolean"}
		if f.Lists {
			values = append(values, "array")
		}
		out["type"], out["additionalProperties"] = []string{"object", "null"}, map[string]any{"type": values}
	default:
		scalarSchema(f, out)
	}
	out["description"] = f.Doc
	return out
}

// scalarSchema says what one value is like: a word among some, a number, or any text, which
// may look like a number or a truth.
func scalarSchema(f field, out map[string]any) {
	words := strings.Split(strings.NewReplacer(" or ", ", ", "`", "").Replace(f.What), ", ")
	var least, most int
	switch _, err := fmt.Sscanf(f.What, "a number from %d to %d", &least, &most); {
	case err == nil:
		out["type"], out["minimum"], out["maximum"] = []string{"integer", "string", "null"}, least, most
	case f.What == "true or false":
		out["enum"] = []any{true, false, "true", "false", nil}
	case len(words) > 1 && !strings.Contains(words[0], " "):
		out["enum"] = []any{nil}
		for _, word := range words {
			out["enum"] = append(out["enum"].([]any), word)
		}
	default:
		out["type"] = []string{"string", "number", "boolean", "null"}
	}
	if texts := f.Get(); len(texts) == 1 && texts[0] != "" && f.Secret == nil {
		out["default"] = texts[0]
	}
}
