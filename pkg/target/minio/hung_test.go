package minio

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/target"
)

// TestAHungStoreIsAskedLittle: it has to serve every request that it was sent once it goes
// on, also those that nobody waits for any more. Of 300 attempts in 3 s, those of the first
// deadline are made, and then few; the first answer lets the others go on.
func TestAHungStoreIsAskedLittle(t *testing.T) {
	var asked atomic.Int64
	thaw := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-thaw:
			w.Header().Set("ETag", `"0"`)
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	tg, err := Driver{}.Open(t.Context(), target.Config{Name: "hung", Clock: clock.System(), Raw: configAt(t, server.URL)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tg.Close(); err != nil {
			t.Error(err)
		}
	}()
	lane := spec("writes", ProbeWrite, target.LanePooled)
	lane.Epoch = 2 // nobody looks at the service first
	p, err := tg.Observer.OpenProbe(t.Context(), lane)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	hung, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	made, unsent := 0, 0
	for _, o := range openLoop(hung, p).outcomes {
		switch o {
		case target.Unknown:
			made++
		case target.Unsent:
			unsent++
		default:
			t.Errorf("an attempt at a hung store came to %c", o)
		}
	}
	// 25 attempts are under way when the first one ends, 8 have to; 16 a second look.
	if n := asked.Load(); n > 25+mostOwed+16*3+5 || int(n) > made || made < mostOwed+8 || unsent < 100 {
		t.Errorf("%d requests, %d attempts were made, %d held back", n, made, unsent)
	}
	close(thaw)
	for i := range int64(3) {
		if o := attempt(t.Context(), p, 1000+i); o.Result != target.OK {
			t.Errorf("attempt %d after the store went on: %c, %v", i, o.Result, o.Err)
		}
	}
}
