package observer

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// minProcs is how many threads may run Go code in a process that observes.
	minProcs = 16
	// timeSlice is what each of its threads asks of the kernel at a time, the
	// shortest there is.
	timeSlice = 100 * time.Microsecond
)

// beOnTime keeps attempts on time beside programs that use all processors (ADR 11).
//
// A thread that the kernel preempts keeps its timers, so there are more threads for
// Go code than cores. Who sets GOMAXPROCS keeps what was set. And a thread that asks
// for short slices may run as soon as it wakes, where others are asked to wait for
// the end of a slice; its share of the processor is the same.
var beOnTime = sync.OnceFunc(func() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < minProcs {
		runtime.GOMAXPROCS(minProcs)
	}
	done := map[int]bool{}
	for more := true; more; {
		more = false
		for _, tid := range threads() {
			if !done[tid] {
				done[tid], more = true, true
				shorten(tid)
			}
		}
	}
})

// threads lists this process's threads. One that is started later has the slices of
// the one that starts it.
func threads() []int {
	names, _ := filepath.Glob("/proc/self/task/*")
	var all []int
	for _, name := range names {
		if tid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			all = append(all, tid)
		}
	}
	return all
}

// shorten asks for short slices. Kernels before 6.12 take no notice. A refusal is no
// error: the observer measures how late it is.
func shorten(tid int) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return // it has ended, or somebody chose how it is scheduled
	}
	attr.Runtime = uint64(timeSlice)
	_ = unix.SchedSetAttr(tid, attr, 0)
}
