// Command bench measures firedrill and writes out/bench/*.jsonl.
package main

import (
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/tests/bench"
)

func main() { run.Main(bench.Command) }
