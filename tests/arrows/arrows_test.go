// Package arrows keeps the shape of the repository: who may import whom, and
// the rules of the house that a machine can check.
package arrows

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/firedrill/firedrill/"
)

// arrow says what a package, and all below it, may import beside the standard
// library and itself. A name that ends in / stands for all below it; "*" for
// every package that is not of this repository.
type arrow struct {
	from string
	to   []string
}

// arrows lists them. The longest fitting one holds; a package that none fits has
// no place yet.
func arrows() []arrow {
	services := func(name string, more ...string) arrow {
		return arrow{"services/" + name, append([]string{"pkg/", "schemas", "services/" + name + "/", "*"}, more...)}
	}
	return []arrow{
		{"schemas", nil},
		{"pkg/event", []string{"schemas"}},
		{"pkg/inherit", []string{"pkg/joined"}},
		{"pkg/joined", nil},
		{"pkg/lazy", nil},
		{"pkg/meant", nil},
		{"pkg/drill", []string{"pkg/event", "pkg/joined", "pkg/lazy", "pkg/meant", "go.yaml.in/yaml/v3"}},
		{"pkg/verdict", []string{"pkg/event"}},
		{"pkg/clock", []string{"pkg/event", "golang.org/x/sys/unix"}},
		{"pkg/keys", []string{"pkg/event", "pkg/inherit", "github.com/nats-io/nkeys"}},
		{"pkg/internal/await", nil},
		{"pkg/filelock", []string{"golang.org/x/sys/unix"}},
		{"pkg/machine", []string{"pkg/filelock"}},
		{"pkg/sched", []string{"golang.org/x/sys/unix"}},
		{"pkg/control", []string{"pkg/event", "pkg/filelock", "pkg/lazy"}},
		{"pkg/telemetry", []string{"pkg/event", "github.com/nats-io/nats.go", "go.opentelemetry.io/"}},
		{"pkg/bus", []string{"pkg/event", "pkg/filelock", "pkg/lazy", "pkg/telemetry", "github.com/nats-io/"}},
		{"pkg/run", []string{"pkg/bus", "pkg/clock", "pkg/event", "pkg/keys", "pkg/lazy", "pkg/telemetry", "github.com/spf13/cobra"}},
		{"pkg/target", []string{"pkg/event", "pkg/joined"}},
		{"pkg/target/strict", []string{"pkg/target", "pkg/control", "pkg/meant"}},
		{"pkg/target/secrets", []string{"pkg/target"}},
		{"pkg/target/diskfill", []string{"pkg/target", "pkg/target/strict", "pkg/control", "pkg/event"}},
		{"pkg/target/canary", []string{"pkg/target", "pkg/target/strict", "pkg/event"}},
		{"pkg/target/undo", []string{"pkg/target", "pkg/control", "pkg/lazy"}},
		{"pkg/target/targettest", []string{"pkg/target", "pkg/event", "pkg/joined", "pkg/clock", "go.uber.org/goleak"}},
		{"pkg/lab", []string{"pkg/control", "pkg/event", "pkg/lab/", "*"}},
		{"pkg/schemagen", []string{"pkg/drill", "pkg/event", "schemas", "github.com/invopop/jsonschema", "github.com/nats-io/nkeys"}},
		services("injector"), services("observer"), services("mirror"), services("validator"), services("reporter"),
		services("firedrill", "services/"),
		{"tests", []string{"pkg/", "schemas", "services/", "tests/", "*"}},
	}
}

// driver is the arrow of every package below pkg/target that has none of its
// own: a driver stands alone, with its own client and what all drivers do alike.
func driver(from string) arrow {
	return arrow{from, []string{"pkg/target", "pkg/target/strict", "pkg/target/secrets", "pkg/target/diskfill", "pkg/target/canary", "pkg/target/undo", "pkg/control", "pkg/event", "pkg/lazy", "*"}}
}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Error        *struct{ Err string }
}

func list(t *testing.T) []pkg {
	t.Helper()
	workspace, err := filepath.Abs(filepath.Join(root, "go.work"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports,Error", "work")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOWORK="+workspace)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// find returns the arrow that holds for a package of the repository.
func find(name string) (arrow, bool) {
	var best arrow
	for _, a := range arrows() {
		if (name == a.from || strings.HasPrefix(name, a.from+"/")) && len(a.from) > len(best.from) {
			best = a
		}
	}
	if rest, ok := strings.CutPrefix(name, "pkg/target/"); ok && best.from == "pkg/target" {
		first, _, _ := strings.Cut(rest, "/")
		best = driver("pkg/target/" + first)
	}
	return best, best.from != ""
}

// allows reports whether the arrow lets its package import path.
func (a arrow) allows(path string) bool {
	name, ours := strings.CutPrefix(path, module)
	if !ours && !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
		return true
	}
	if ours && (name == a.from || strings.HasPrefix(name, a.from+"/")) {
		return true
	}
	return slices.ContainsFunc(a.to, func(to string) bool {
		switch {
		case to == "*":
			return !ours
		case strings.HasSuffix(to, "/"):
			return strings.HasPrefix(name, to)
		}
		return name == to
	})
}

func TestImportsFollowTheArrows(t *testing.T) {
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list names only %d packages", len(packages))
	}
	for _, p := range packages {
		name, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			t.Errorf("%s is not below %s", p.ImportPath, module)
			continue
		}
		a, ok := find(name)
		if !ok {
			t.Errorf("%s has no place in the list of arrows: find it one, or merge it with a package that has", name)
			continue
		}
		for _, path := range p.Imports {
			if !a.allows(path) {
				t.Errorf("%s imports %s: its arrows lead only to %s", name, strings.TrimPrefix(path, module), strings.Join(a.to, ", "))
			}
		}
		if own, ok := strings.CutPrefix(name, "services/"); ok {
			checkServiceTests(t, own, p)
		}
	}
}

// checkServiceTests holds a service's tests to the same border as the service.
func checkServiceTests(t *testing.T, name string, p pkg) {
	t.Helper()
	service, _, _ := strings.Cut(name, "/")
	for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
		other, ok := strings.CutPrefix(path, module+"services/")
		if ok && service != "firedrill" && other != service && !strings.HasPrefix(other, service+"/") {
			t.Errorf("the tests of services/%s import services/%s: services meet only in tests/ and in firedrill", name, other)
		}
	}
}

// The core decides by its input alone, so it may not reach for anything else.
func TestTheCoreIsPure(t *testing.T) {
	impure := []string{"context", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "os", "os/exec", "net", "net/http", "testing"}
	seen := 0
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name != "pkg/drill" && name != "pkg/verdict" && name != "pkg/event" {
			continue
		}
		seen++
		for _, path := range p.Imports {
			if slices.Contains(impure, path) {
				t.Errorf("%s imports %s: the core is pure", name, path)
			}
		}
	}
	if seen != 3 {
		t.Errorf("%d of the 3 packages of the core were found", seen)
	}
}

// The test must be able to fail: what is forbidden in DESIGN.md is refused here.
func TestArrowsRefuse(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"pkg/event", "time", true},
		{"pkg/event", module + "schemas", true},
		{"pkg/event", module + "pkg/drill", false},
		{"pkg/event", "github.com/nats-io/nkeys", false},
		{"pkg/drill", module + "pkg/target", false},
		{"pkg/drill", "go.yaml.in/yaml/v3", true},
		{"pkg/verdict", module + "pkg/drill", false},
		{"pkg/bus", module + "pkg/target", false},
		{"pkg/bus", "github.com/nats-io/nats.go/jetstream", true},
		{"pkg/target", module + "pkg/control", false},
		{"pkg/target/postgres", "github.com/jackc/pgx/v5", true},
		{"pkg/target/postgres/internal/wal", module + "pkg/target/postgres", true},
		{"pkg/target/postgres", module + "pkg/target/kafka", false},
		{"pkg/target/postgres", module + "pkg/bus", false},
		{"pkg/lab", module + "services/firedrill/cli", false},
		{"services/injector", module + "services/observer", false},
		{"services/injector", module + "services/injectorx", false},
		{"services/injector/cmd/firedrill-injector", module + "pkg/run", true},
		{"services/firedrill/allinone", module + "services/observer", true},
		{"schemas", module + "pkg/event", false},
	} {
		a, ok := find(c.from)
		if !ok {
			t.Errorf("%s has no arrow", c.from)
		} else if got := a.allows(c.to); got != c.ok {
			t.Errorf("%s -> %s: allowed %t, want %t", c.from, c.to, got, c.ok)
		}
	}
	if a, ok := find("pkg/misc"); ok {
		t.Errorf("a package without a place falls under %s", a.from)
	}
}
