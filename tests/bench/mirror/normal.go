package mirror

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// normalFlag makes measureOne keep a program from becoming batch work.
const normalFlag = "-normal"

// refuseBatch makes the kernel refuse sched_setattr(2) to this thread, which the calling
// goroutine keeps, and to what it starts. firedrill has no switch for it, and needs none: a
// kernel that refuses is no error to it. The filter costs each system call some
// nanoseconds, where the kernel does not remember that it lets that call pass.
func refuseBatch() error {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the call's number, which comes first
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SCHED_SETATTR, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("refuse sched_setattr: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); err != 0 {
		return fmt.Errorf("refuse sched_setattr: the kernel takes no filter of system calls: %w", err)
	}
	return nil
}
