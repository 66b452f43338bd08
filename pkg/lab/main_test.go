package lab

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/lab/relay"
)

// The test program plays other programs, when started with these arguments: the
// one that serves relays, and one that starts a lab and is then killed.
const (
	playRelay   = "play-relay"
	playStarter = "play-starter"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		var err error
		switch os.Args[1] {
		case playRelay:
			err = relay.ServeFile(context.Background(), os.Args[2], slog.New(slog.NewTextHandler(os.Stderr, nil)))
		case playStarter:
			err = starter(os.Args[2])
		default:
			goleak.VerifyTestMain(m)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// starter starts a lab, says so, and waits to be killed.
func starter(dir string) error {
	_, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Rows: 10, PgBouncer: true, ScratchDisk: true})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}
