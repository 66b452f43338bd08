// Package sched asks the kernel to schedule this process's threads in another way than
// it does unasked: see sched(7) and sched_setattr(2). None of it takes a privilege, and
// none changes the process's share of the processors. A kernel that does not know it, or
// refuses, is no error: it is about when something runs, and never about whether.
//
// What is asked for is handed on to threads and programs that are started later. Threads
// whose policy somebody has chosen stay as they are.
package sched

import (
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ShortSlices asks for time slices of a length: a thread that wakes up need not wait for
// the end of another program's slice. Linux knows 0.1 to 100 ms, and has heeded it since
// 6.12.
func ShortSlices(length time.Duration) {
	each(func(attr *unix.SchedAttr) { attr.Runtime = uint64(length) })
}

// Batch says that the process does work for which nobody waits moment by moment: a thread
// that wakes up then lets whoever runs finish its slice first.
func Batch() {
	each(func(attr *unix.SchedAttr) {
		attr.Policy = unix.SCHED_BATCH
		attr.Runtime = 0 // The slice that it has would stay, whatever the kernel's is later.
	})
}

// each changes how all threads are scheduled, those included that start meanwhile.
func each(change func(*unix.SchedAttr)) {
	done := map[int]bool{}
	for more := true; more; {
		more = false
		for _, tid := range threads() {
			if done[tid] {
				continue
			}
			done[tid], more = true, true
			attr, err := unix.SchedGetAttr(tid, 0)
			if err != nil || attr.Policy != unix.SCHED_NORMAL {
				continue // it has ended, or somebody chose
			}
			change(attr)
			_ = unix.SchedSetAttr(tid, attr, 0)
		}
	}
}

// threads lists this process's.
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
