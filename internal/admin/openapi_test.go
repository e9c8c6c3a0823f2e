package admin

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/image"
	"forebay/cache/upkeep"
	"forebay/internal/activity"
	"forebay/internal/govern"
	"forebay/internal/imageset"
	"forebay/internal/wire"
)

// document is as much of an OpenAPI file as the tests look at.
type document struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct{ Schemas map[string]map[string]any }
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	return d
}

// exchange is what an operation is asked and what it answers: values of the shapes, nil for
// no JSON object of ours.
type exchange struct{ request, answer any }

// exchanges are those of all operations.
func exchanges() map[string]exchange {
	all := map[string]exchange{
		"GET /openapi.json":                   {},
		"GET /session":                        {nil, Session{}},
		"POST /session":                       {Login{}, Session{}},
		"DELETE /session":                     {},
		"GET /status":                         {nil, Status{}},
		"GET /stats":                          {nil, Stats{}},
		"GET /series":                         {nil, Series{}},
		"GET /support":                        {nil, Support{}},
		"GET /clients":                        {nil, ClientList{}},
		"GET /replicas":                       {nil, ReplicaList{}},
		"GET /events":                         {nil, EventList{}},
		"GET /repositories":                   {nil, RepositoryPage{}},
		"GET /images":                         {nil, ImagePage{}},
		"GET /image":                          {nil, Image{}},
		"GET /history":                        {nil, History{}},
		"POST /refresh":                       {RefRequest{}, RefreshAnswer{}},
		"POST /purge":                         {PurgeRequest{}, PurgeAnswer{}},
		"POST /purges":                        {PurgesRequest{}, Job{}},
		"DELETE /fills/{digest}":              {},
		"GET /pins":                           {nil, PinList{}},
		"POST /pins":                          {PinRequest{}, PinAnswer{}},
		"DELETE /pins":                        {},
		"POST /repair":                        {RepairRequest{}, Job{}},
		"POST /verify":                        {VerifyRequest{}, Job{}},
		"POST /gc":                            {CollectRequest{}, Job{}},
		"GET /contents":                       {nil, Contents{}},
		"GET /content/{digest}":               {},
		"GET /stored":                         {nil, StoredPage{}},
		"POST /imports":                       {ImportRequest{}, Import{}},
		"DELETE /imports/{id}":                {},
		"POST /imports/{id}/lacking":          {LackingRequest{}, DigestList{}},
		"POST /imports/{id}/content":          {nil, TakenIn{}},
		"POST /imports/{id}/content/{digest}": {nil, TakenIn{}},
		"POST /imports/{id}/admit":            {AdmitRequest{}, AdmitAnswer{}},
		"GET /prefetch":                       {nil, PrefetchSets{}},
		"POST /prefetch":                      {PrefetchRequest{}, Job{}},
		"GET /prefetch/{set}":                 {nil, PrefetchSet{}},
		"POST /prefetch/{set}/run":            {},
		"POST /lock":                          {LockRequest{}, Job{}},
		"GET /registries":                     {nil, Registries{}},
		"GET /wanted":                         {nil, imageset.WantedList{}},
		"DELETE /wanted":                      {nil, Cleared{}},
		"GET /vanished":                       {nil, VanishedList{}},
		"DELETE /vanished":                    {},
		"GET /drill":                          {nil, activity.Drill{}},
		"POST /drill":                         {DrillRequest{}, activity.Drill{}},
		"DELETE /drill":                       {nil, activity.Drill{}},
		"GET /around":                         {nil, AroundList{}},
		"GET /jobs":                           {nil, JobList{}},
		"GET /jobs/{id}":                      {nil, Job{}},
		"DELETE /jobs/{id}":                   {},
	}
	for _, r := range govern.Routes() {
		all[r.Method+" "+r.Path] = exchange{r.Request, r.Answer}
	}
	return all
}

// results are what jobs come to.
func results() []any {
	return []any{Repaired{}, Verified{}, Collected{}, PrefetchReport{}, Locked{}, PurgeAnswer{}}
}

func TestDocumentHasAllRoutesAndNoOthers(t *testing.T) {
	var want, got []string
	for _, r := range (&API{}).routes() {
		want = append(want, r.method+" "+r.path)
	}
	for path, methods := range readDocument(t).Paths {
		for method := range methods {
			if method != "parameters" {
				got = append(got, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("openapi.json against the routes (-routes +file):\n%s", diff)
	}
}

func TestDocumentHasWhatEachRouteTakesAndAnswers(t *testing.T) {
	type content map[string]struct{ Schema map[string]any }
	d := readDocument(t)
	for _, r := range (&API{}).routes() {
		name := r.method + " " + r.path
		want, known := exchanges()[name]
		if !known {
			t.Errorf("%s: the test does not know what it takes and answers", name)
			continue
		}
		var got struct {
			RequestBody struct{ Content content }
			Responses   map[string]struct{ Content content }
		}
		if err := json.Unmarshal(d.Paths[r.path][strings.ToLower(r.method)], &got); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if ref := got.RequestBody.Content["application/json"].Schema["$ref"]; ref != refTo(want.request) {
			t.Errorf("%s takes %v, want %v", name, ref, refTo(want.request))
		}
		for status, answer := range got.Responses {
			if ref := answer.Content["application/json"].Schema["$ref"]; strings.HasPrefix(status, "2") && ref != refTo(want.answer) {
				t.Errorf("%s answers %v, want %v", name, ref, refTo(want.answer))
			}
		}
	}
}

// refTo is how the document refers to the schema of a value: by the name that its type has here.
func refTo(value any) any {
	if value == nil {
		return nil
	}
	return "#/components/schemas/" + schemaName(reflect.TypeOf(value))
}

// schemaName is the name of a type, or for one that others make for operators what it is called here.
func schemaName(t reflect.Type) string {
	if name := map[reflect.Type]string{
		reflect.TypeFor[FillInfo](): "FillInfo", reflect.TypeFor[Bucket](): "Bucket", reflect.TypeFor[RepairFault](): "RepairFault", reflect.TypeFor[BucketCalls](): "BucketCalls", reflect.TypeFor[BucketSurvey](): "BucketSurvey",
		reflect.TypeFor[PrefetchedImage](): "PrefetchedImage", reflect.TypeFor[PrefetchSet](): "PrefetchSet", reflect.TypeFor[PrefetchRun](): "PrefetchRun",
		reflect.TypeFor[PrefetchSnapshot](): "PrefetchSnapshot", reflect.TypeFor[PrefetchActive](): "PrefetchActive", reflect.TypeFor[PrefetchEnded](): "PrefetchEnded", reflect.TypeFor[PrefetchReport](): "PrefetchReport",
	}[t]; name != "" {
		return name
	}
	return t.Name()
}

// schemas makes the schema of every type that it comes by.
type schemas struct {
	t    *testing.T
	made map[string]map[string]any
}

// of returns the schema of a type. Those of structs are made by their names, and referred to.
func (s *schemas) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[v1.Hash](), reflect.TypeFor[wire.Digest]():
		return map[string]any{"type": "string"}
	case reflect.TypeFor[json.RawMessage](): // the result of a job
		var one []any
		for _, r := range results() {
			one = append(one, s.of(reflect.TypeOf(r)))
		}
		return map[string]any{"oneOf": one}
	}
	switch t.Kind() {
	case reflect.String:
		schema := map[string]any{"type": "string"}
		if t != reflect.TypeFor[string]() {
			schema["enum"] = s.constants(t)
		}
		return schema
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return map[string]any{"type": "integer", "format": "int64"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		if s.made[schemaName(t)] == nil {
			object := map[string]any{"type": "object"}
			s.made[schemaName(t)] = object
			properties, required := map[string]any{}, []any{}
			s.fields(t, properties, &required)
			object["properties"] = properties
			if len(required) > 0 {
				object["required"] = required
			}
		}
		return map[string]any{"$ref": refTo(reflect.Zero(t).Interface())}
	}
	s.t.Errorf("%s has no form in openapi.json", t)
	return nil
}

// fields gathers the fields of a struct, those of embedded ones included. Those that are
// always there are required.
func (s *schemas) fields(t reflect.Type, properties map[string]any, required *[]any) {
	for f := range t.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			s.fields(f.Type, properties, required)
			continue
		case !f.IsExported(), name == "-":
			continue
		case name == "":
			s.t.Errorf("%s.%s has no name in JSON", t, f.Name)
			continue
		}
		schema := s.of(f.Type)
		if enum := f.Tag.Get("enum"); enum != "" {
			schema["enum"] = sortedTexts(strings.Split(enum, ","))
		}
		properties[name] = schema
		if option == "" {
			*required = append(*required, name)
		}
	}
}

// constants returns the values that the constants of a type have, from its source.
func (s *schemas) constants(t reflect.Type) []any {
	var values []string
	files, err := filepath.Glob(filepath.Join("..", "..", strings.TrimPrefix(t.PkgPath(), "forebay/"), "*.go"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			s.t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				if of, ok := spec.Type.(*ast.Ident); ok && of.Name == t.Name() {
					for _, v := range spec.Values {
						text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
						if err != nil {
							s.t.Fatal(err)
						}
						values = append(values, text)
					}
				}
			}
			return true
		})
	}
	if len(values) == 0 {
		s.t.Errorf("%s has no constants", t)
	}
	return sortedTexts(values)
}

func sortedTexts(list []string) []any {
	slices.Sort(list)
	var out []any
	for _, text := range list {
		out = append(out, text)
	}
	return out
}

// plain takes from a schema what is for people, and what no type can say.
func plain(schema map[string]any) {
	for _, name := range []string{"description", "minimum", "maximum"} {
		delete(schema, name)
	}
	for _, name := range []string{"enum", "required"} {
		if list, ok := schema[name].([]any); ok {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
	}
	for _, name := range []string{"items", "additionalProperties"} {
		if inner, ok := schema[name].(map[string]any); ok {
			plain(inner)
		}
	}
	if properties, ok := schema["properties"].(map[string]any); ok {
		for _, one := range properties {
			plain(one.(map[string]any))
		}
	}
}

func TestSchemasAreThoseOfTheirTypes(t *testing.T) {
	want := schemas{t, map[string]map[string]any{}}
	want.of(reflect.TypeFor[Fault]())
	for _, x := range exchanges() {
		for _, value := range []any{x.request, x.answer} {
			if value != nil {
				want.of(reflect.TypeOf(value))
			}
		}
	}
	got := readDocument(t).Components.Schemas
	for name, schema := range want.made {
		plain(schema)
		if got[name] == nil {
			t.Errorf("openapi.json lacks the schema %s", name)
			continue
		}
		plain(got[name])
		if diff := cmp.Diff(schema, got[name]); diff != "" {
			t.Errorf("schema %s (-type +file):\n%s", name, diff)
		}
	}
	for name := range got {
		if want.made[name] == nil {
			t.Errorf("schema %s is of nothing that is asked or answered", name)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	for _, shape := range []any{
		contentsOf(&image.Contents{}), imagePageOf(&image.Page{}), imageOf(image.Image{}), admitAnswerOf(&upkeep.Admitted{}),
	} {
		b, err := json.Marshal(shape)
		if err != nil || bytes.Contains(b, []byte("null")) {
			t.Errorf("%T of nothing = %s, %v, want no null: openapi.json promises arrays", shape, b, err)
		}
	}
}

func TestEveryReferenceOfTheDocumentLeadsSomewhere(t *testing.T) {
	var all any
	if err := json.Unmarshal(openAPI, &all); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(string(openAPI), -1) {
		at := all
		for _, part := range strings.Split(m[1], "/") {
			object, _ := at.(map[string]any)
			at = object[part]
		}
		if at == nil {
			t.Errorf("#/%s is not there", m[1])
		}
	}
}
