package await

import (
	"fmt"
	"testing"
	"time"
)

func TestUntilLooksAgain(t *testing.T) {
	looks := 0
	Until(t, time.Minute, "the third look", func() bool { looks++; return looks == 3 })
	if looks != 3 {
		t.Fatalf("%d looks", looks)
	}
}

// failing notes what a test would have died of.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}
func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

func TestUntilSaysWhatWasWaitedFor(t *testing.T) {
	f := &failing{}
	defer func() {
		if recover() != f || f.said != "waited 10ms for rain" {
			t.Fatalf("it said %q", f.said)
		}
	}()
	Until(f, 10*time.Millisecond, "rain", func() bool { return false })
}
