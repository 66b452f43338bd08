// Command bench-mirror races the mirror against rclone and mc, and writes
// out/bench/mirror.jsonl and docs/mirror-bench.md.
package main

import (
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/tests/bench/mirror"
)

func main() { run.Main(mirror.Command) }
