package wanted

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// A disk that refuses the list once does not lose what is wanted.
func TestWantedListIsWrittenOnceTheDiskTakesIt(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "later")
	file := filepath.Join(folder, "wanted.json")
	w, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	w.Add(Wanted{Ref: "x"}, "client", time.Now())
	if err := w.Write(); err == nil {
		t.Fatal("a list was written into a folder that is not there")
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || len(text) == 0 {
		t.Errorf("list holds %q, %v, want what was refused before", text, err)
	}
}

func TestOneClientDoesNotFillTheListOfWhatIsWanted(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "wanted.json"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range 3 * ofClient {
		l.Add(Wanted{Ref: strconv.Itoa(i)}, "10.0.0.66", now)
	}
	l.Add(Wanted{Ref: "other"}, "10.0.0.7", now)
	if all := l.All(); len(all) != ofClient+1 || all[len(all)-1].Ref != "other" {
		t.Errorf("%d are wanted, the last is %v; want %d, the other client's among them", len(all), all[len(all)-1], ofClient+1)
	}
}
