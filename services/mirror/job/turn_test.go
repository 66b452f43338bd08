package job

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/state"
)

func TestWhoWritesToAPlaceHasItAlone(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
	must(t, os.Symlink("a", filepath.Join(dir, "link")))
	env := Env{Now: time.Now, Stores: []drill.Store{
		{Name: "one", Endpoint: "https://minio:9000"}, {Name: "same", Endpoint: "https://MinIO:9000/"}, {Name: "other", Endpoint: "https://minio:9001"}}}
	mirror := func(from, to string, mode ...string) drill.Mirror {
		m := drill.Mirror{From: strings.ReplaceAll(from, "DIR", dir), To: strings.ReplaceAll(to, "DIR", dir)}
		if len(mode) > 0 {
			m.Mode = mode[0]
		}
		return m
	}
	ruled := func(from, side string) drill.Mirror {
		m := mirror(from, "dir:/b")
		m.Permissions = []drill.Permission{{Side: side, Match: "*", Files: "0640"}}
		return m
	}
	for _, c := range []struct {
		name    string
		a       drill.Mirror
		use     Use
		b       drill.Mirror
		other   Use
		against bool
	}{
		{"both read it", mirror("dir:DIR/a", "dir:/x"), Runs, mirror("dir:DIR/a", "dir:/y"), Runs, false},
		{"one writes what the other reads", mirror("dir:DIR/a", "dir:/x"), Runs, mirror("dir:/x", "dir:/y"), Runs, true},
		{"one looks at what the other writes", mirror("dir:DIR/a", "dir:/x"), Runs, mirror("dir:/x", "dir:/y"), Looks, true},
		{"both look", mirror("dir:DIR/a", "dir:/x"), Looks, mirror("dir:DIR/a", "dir:/x"), Looks, false},
		{"both write", mirror("dir:DIR/a", "dir:/x"), Runs, mirror("dir:/b", "dir:/x"), Runs, true},
		{"below it", mirror("dir:DIR/a", "dir:/x"), Runs, mirror("dir:/x/y", "dir:/z"), Runs, true},
		{"above it", mirror("dir:DIR/a", "dir:/x/y"), Runs, mirror("dir:/x", "dir:/z"), Runs, true},
		{"a name that begins alike", mirror("dir:DIR/a", "dir:/x"), Runs, mirror("dir:/xy", "dir:/z"), Runs, false},
		{"by a link", mirror("dir:DIR/b", "dir:DIR/a"), Runs, mirror("dir:DIR/link/c", "dir:/z"), Runs, true},
		{"two-way writes to its source", mirror("dir:/a", "dir:/b", "two-way"), Runs, mirror("dir:/a", "dir:/c"), Runs, true},
		{"rules for permissions write to its source", ruled("dir:/a", drill.SideSource), Runs, mirror("dir:/a", "dir:/c"), Runs, true},
		{"rules for the copy do not", ruled("dir:/a", ""), Runs, mirror("dir:/a", "dir:/c"), Runs, false},
		{"nor do those of who only looks", ruled("dir:/a", drill.SideSource), Looks, mirror("dir:/a", "dir:/c"), Runs, false},
		{"a repair writes to its source", mirror("dir:/a", "dir:/b"), Repairs, mirror("dir:/a", "dir:/c"), Runs, true},
		{"a repair does not write to a snapshot", mirror("zfs:tank/a", "dir:/b"), Repairs, mirror("zfs:tank/a", "dir:/c"), Runs, false},
		{"two names of a server", mirror("dir:/a", "s3:one/bucket/p"), Runs, mirror("s3:same/bucket", "dir:/c"), Runs, true},
		{"a server by its address", mirror("dir:/a", "s3:one/bucket/p"), Runs, mirror("s3+https://minio:9000/bucket/p", "dir:/c"), Runs, true},
		{"another prefix", mirror("dir:/a", "s3:one/bucket/p"), Runs, mirror("s3:one/bucket/pp", "dir:/c"), Runs, false},
		{"another server", mirror("dir:/a", "s3:one/bucket"), Runs, mirror("s3:other/bucket", "dir:/c"), Runs, false},
		{"what is no location", mirror("a", "b"), Runs, mirror("a", "b"), Runs, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := env.Turn(c.a, c.use), env.Turn(c.b, c.other)
			_, ab := a.Against(b)
			_, ba := b.Against(a)
			if ab != c.against || ba != c.against {
				t.Errorf("against each other: %v and %v, want %v", ab, ba, c.against)
			}
			// Another process knows it by its note.
			env := env
			env.Locks = machine.Locks(t.TempDir())
			end, err := env.Begin(t.Context(), a)
			must(t, err)
			also, err := env.Begin(t.Context(), b)
			if errors.Is(err, state.ErrLocked) != c.against {
				t.Errorf("beside it: %v", err)
			}
			must(t, end())
			if c.against {
				also, err = env.Begin(t.Context(), b)
				must(t, err)
			}
			must(t, also())
		})
	}
}

// Who has to wait is told for whom, whatever that calls itself.
func TestWhoHasAPlaceIsTold(t *testing.T) {
	locks := machine.Locks(t.TempDir())
	env := Env{Now: time.Now, Locks: locks}
	end, err := env.Begin(t.Context(), env.Turn(drill.Mirror{Name: "out\x1b[2J", From: "dir:/a", To: "dir:/b\xff"}, Runs))
	must(t, err)
	_, err = env.Begin(t.Context(), env.Turn(drill.Mirror{Name: "in", From: "dir:/b\xff/c", To: "dir:/d"}, Looks))
	busy, ok := errors.AsType[*state.LockedError](err)
	if !ok || busy.By != "mirror out[2J" || busy.PID != os.Getpid() || busy.Since.IsZero() || busy.Dir != "dir:/b\xff/c" {
		t.Errorf("%+v", busy)
	}
	must(t, end())
	// What nobody wrote who means well keeps nobody out.
	p, err := locks.Post(t.Context(), "mirrors", func([][]byte) ([]byte, error) {
		return []byte(`{"at":["x","y"],"writes":[true,true]}`), nil
	})
	must(t, err)
	end, err = env.Begin(t.Context(), env.Turn(drill.Mirror{Name: "in", From: "dir:/x", To: "dir:/y"}, Runs))
	must(t, errors.Join(err, end(), p.Remove()))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, env.Locks = range []machine.Locks{locks, ""} { // whether that is seen or not
		end, err := env.Begin(over, env.Turn(drill.Mirror{From: "dir:/x", To: "dir:/y"}, Runs))
		switch {
		case err == nil:
			must(t, end())
		case !errors.Is(err, context.Canceled):
			t.Error(err)
		}
	}
	env.Locks = machine.Locks(filepath.Join(t.TempDir(), "none"))
	end, err = env.Begin(t.Context(), env.Turn(drill.Mirror{From: "dir:/x", To: "dir:/y"}, Runs))
	must(t, err) // where nothing can be locked
	must(t, end())
}

// A mirror that is open has its places until it is closed.
func TestAnOpenMirrorHasItsTurn(t *testing.T) {
	dir := t.TempDir()
	must(t, errors.Join(os.Mkdir(filepath.Join(dir, "src"), 0o755), os.Mkdir(filepath.Join(dir, "mid"), 0o755)))
	env := Env{Now: time.Now, StateDir: filepath.Join(dir, "state"), Locks: machine.Locks(t.TempDir())}
	one := drill.Mirror{Name: "one", From: "dir:" + dir + "/src", To: "dir:" + dir + "/mid"}
	two := drill.Mirror{Name: "two", From: "dir:" + dir + "/mid", To: "dir:" + dir + "/dst"}
	open := func(m drill.Mirror) (*Job, error) {
		return env.InTurn(t.Context(), m, Runs, func() (*Job, error) { return env.OpenRun(t.Context(), m, false) })
	}
	j, err := open(one)
	must(t, err)
	if _, err := open(one); !errors.Is(err, state.ErrLocked) || !strings.Contains(err.Error(), filepath.Join(dir, "state", "one")) {
		t.Errorf("while it is open itself: %v", err)
	}
	if _, err := open(two); !errors.Is(err, state.ErrLocked) || !strings.Contains(err.Error(), "mirror two: dir:"+dir+"/mid is in use by mirror one (process ") {
		t.Errorf("while the first one is open: %v", err)
	}
	must(t, j.Close(t.Context()))
	j, err = open(two)
	must(t, err)
	must(t, j.Close(t.Context()))
	// What opens nothing has had its turn by then.
	for range 2 {
		j, err = env.InTurn(t.Context(), one, Runs, func() (*Job, error) { return nil, nil })
		must(t, err)
		if j != nil {
			t.Error("a job of nothing")
		}
	}
}
