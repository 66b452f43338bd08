package mirror

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ServeFlag {
		fmt.Fprintln(os.Stderr, ServeNATS(context.Background(), os.Args[2:]))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// nats-server starts these once a process and never ends them.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// programs says where the programs are, and which of them this is.
func programs(t *testing.T) (bin, self string) {
	t.Helper()
	bin = os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		t.Fatal("FIREDRILL_BIN is not set: run the tests with make, which builds the programs first")
	}
	bin, err := filepath.Abs(bin)
	if err == nil {
		self, err = os.Executable()
	}
	if err != nil {
		t.Fatal(err)
	}
	return bin, self
}
