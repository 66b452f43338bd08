// Command firedrill runs disaster-recovery drills.
package main

import (
	"context"
	"io"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/minio"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/target/zfs"
	"github.com/firedrill/firedrill/services/firedrill/cli"
)

func main() {
	run.Main(func(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
		return cli.Run(ctx, args, cli.Streams{In: in, Out: out, Err: errs}, target.NewRegistry(minio.Driver{}, postgres.Driver{}, zfs.Driver{}))
	})
}
