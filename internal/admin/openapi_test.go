package admin

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/imageset"
)

// document is as much of an OpenAPI file as the tests look at.
type document struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Schemas map[string]struct {
			Properties map[string]json.RawMessage
			Required   []string
		}
	}
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	return d
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

// types are the Go types of the schemas.
func types() map[string]any {
	return map[string]any{
		"Fault": Fault{}, "FaultDetail": FaultDetail{}, "Trouble": Trouble{},
		"Part": Part{}, "ImagePlatform": ImagePlatform{}, "Image": Image{}, "ImagePage": ImagePage{},
		"RepositoryInfo": RepositoryInfo{}, "RepositoryPage": RepositoryPage{},
		"TagBinding": TagBinding{}, "History": History{},
		"RefRequest": RefRequest{}, "RefreshAnswer": RefreshAnswer{}, "PurgeRequest": PurgeRequest{}, "PurgeAnswer": PurgeAnswer{},
		"Pin": Pin{}, "PinList": PinList{}, "PinRequest": PinRequest{}, "PinAnswer": PinAnswer{},
		"RepairRequest": RepairRequest{}, "VerifyRequest": VerifyRequest{}, "CollectRequest": CollectRequest{},
		"Progress": Progress{}, "Job": Job{}, "JobList": JobList{},
		"Repaired": Repaired{}, "RepairFault": RepairFault{}, "Verified": Verified{}, "BadBlob": BadBlob{},
		"Collected": Collected{}, "Scrub": Scrub{}, "Stats": Stats{},
		"Bucket": Bucket{}, "BucketSurvey": BucketSurvey{}, "BucketCalls": BucketCalls{}, "FillInfo": FillInfo{},
		"Contents": Contents{}, "Referrer": Referrer{}, "Stored": Stored{}, "StoredPage": StoredPage{},
		"DigestList": DigestList{}, "AdmitRequest": AdmitRequest{}, "AdmitAnswer": AdmitAnswer{},
		"PrefetchRequest": PrefetchRequest{}, "PrefetchImage": PrefetchImage{}, "LockRequest": LockRequest{},
		"PrefetchActive": PrefetchActive{}, "PrefetchEnded": PrefetchEnded{}, "Registries": Registries{}, "PrefetchSnapshot": PrefetchSnapshot{}, "PrefetchedImage": PrefetchedImage{},
		"PrefetchReport": PrefetchReport{}, "PrefetchRun": PrefetchRun{}, "PrefetchSet": PrefetchSet{}, "PrefetchSets": PrefetchSets{},
		"Locked": Locked{}, "LockFault": LockFault{}, "LockFile": imageset.LockFile{}, "LockedImage": imageset.LockedImage{},
		"LockedPlatform": imageset.LockedPlatform{}, "WantedImage": imageset.WantedImage{}, "WantedList": imageset.WantedList{}, "Cleared": Cleared{},
		"Upstream": Upstream{}, "Budget": Budget{}, "Spending": Spending{}, "Endpoint": Endpoint{}, "Status": Status{},
		"Traffic": Traffic{}, "Usage": Usage{}, "Series": Series{}, "RepositoryUse": RepositoryUse{},
		"ClientInfo": ClientInfo{}, "ClientList": ClientList{}, "Event": Event{}, "EventList": EventList{},
	}
}

// jsonNames returns the names of a type's fields in JSON, those of embedded structs included.
func jsonNames(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && tag == "":
			names = append(names, jsonNames(f.Type)...)
		case f.IsExported() && tag != "-":
			names = append(names, tag)
		}
	}
	slices.Sort(names)
	return names
}

func TestSchemasHaveTheFieldsOfTheirTypes(t *testing.T) {
	schemas := readDocument(t).Components.Schemas
	for name, value := range types() {
		schema, ok := schemas[name]
		if !ok {
			t.Errorf("openapi.json lacks the schema %s", name)
			continue
		}
		want, got := jsonNames(reflect.TypeOf(value)), slices.Sorted(maps.Keys(schema.Properties))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("schema %s (-type +file):\n%s", name, diff)
		}
		for _, field := range schema.Required {
			if !slices.Contains(want, field) {
				t.Errorf("schema %s requires %s, which it has not", name, field)
			}
		}
	}
	for name := range schemas {
		if _, ok := types()[name]; !ok {
			t.Errorf("schema %s has no type", name)
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
