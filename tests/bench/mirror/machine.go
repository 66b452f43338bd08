package mirror

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Machine is where a race took place, without names.
type Machine struct {
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memory_gib"`
	Kernel    string  `json:"kernel"`
	Arch      string  `json:"arch"`
	// Programs are the versions of the contestants and the server.
	Programs map[string]string `json:"programs"`
	// Rounds is how often each contestant ran in each case.
	Rounds int `json:"rounds"`
	// Quick says that the trees were small ones, which prove nothing.
	Quick bool `json:"quick,omitempty"`
}

// thisMachine looks around, and reads each program, so that nobody's first run has
// to fetch it from the disk.
func thisMachine(bin string, programs []string) (Machine, error) {
	m := Machine{Cores: runtime.NumCPU(), Arch: runtime.GOARCH, Programs: map[string]string{}}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("memory of this machine: %w", err)
	}
	m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, fmt.Errorf("kernel of this machine: %w", err)
	}
	m.Kernel = strings.TrimSpace(string(kernel))
	for _, p := range programs {
		raw, err := os.ReadFile(filepath.Join(bin, p))
		if err != nil {
			return m, fmt.Errorf("program %s: %w", p, err)
		}
		m.Programs[p] = versionOf(raw)
	}
	return m, nil
}

// touchMemory uses some free bytes once, half of those that are free at most. A virtual
// machine may have given them back to its host, from which the first to use them gets them
// slowly: seconds for each gigabyte, which would be the luck of whoever runs first.
func touchMemory(bytes int64) error {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return fmt.Errorf("memory of this machine: %w", err)
	}
	if bytes = min(bytes, int64(info.Freeram)*int64(info.Unit)/2); bytes == 0 {
		return nil
	}
	room, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("touch %d MiB of memory before a run: %w", bytes>>20, err)
	}
	return syscall.Munmap(room)
}

// versionOf is the version of the module that a program comes from.
func versionOf(program []byte) string {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return "unknown"
	}
	version := info.Main.Version
	for _, d := range info.Deps {
		if info.Path == d.Path || strings.HasPrefix(info.Path, d.Path+"/") {
			version = d.Version
		}
	}
	if version == "" || version == "(devel)" {
		version = "this source"
	}
	return version + ", " + info.GoVersion
}
