// Package lab starts real servers on loopback, for demos and tests: PostgreSQL
// with a streaming standby behind relays that can be switched and slowed, and
// Jaeger and MinIO. Everything lies under one directory, ports are free ones, and every
// process dies with the one that started it, also when that one is killed,
// unless the lab was started detached with Up.
package lab

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// ErrNotInstalled says that a server's programs are not on this machine; the
// error's text says how to install them.
var ErrNotInstalled = errors.New("not installed")

// postgresPrograms are what a lab and the driver's drills run.
func postgresPrograms() []string {
	return []string{"initdb", "pg_ctl", "postgres", "pg_basebackup", "pg_rewind", "pg_waldump", "pg_controldata"}
}

// FindPostgres returns the newest PostgreSQL's directory of programs, from
// Debian's places or PATH. The error wraps ErrNotInstalled.
func FindPostgres() (string, error) {
	return findPostgres("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
}

func findPostgres(patterns ...string) (string, error) {
	var dirs []string
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			return "", fmt.Errorf("look for PostgreSQL in %s: %w", p, err)
		}
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
		dirs = append(dirs, found...)
	}
	if p, err := exec.LookPath("pg_ctl"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	for _, d := range dirs {
		if hasAll(d) {
			return d, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL (%v in one directory) %w: run deploy/lab/install.sh as root, or `apt-get install postgresql`, or put its bin directory into PATH", postgresPrograms(), ErrNotInstalled)
}

// versionIn is the first number in a path, so that 15 sorts above 9.
func versionIn(path string) int {
	from := 0
	for from < len(path) && (path[from] < '0' || path[from] > '9') {
		from++
	}
	to := from
	for to < len(path) && path[to] >= '0' && path[to] <= '9' {
		to++
	}
	n, err := strconv.Atoi(path[from:to])
	if err != nil {
		return 0
	}
	return n
}

func hasAll(dir string) bool {
	for _, name := range postgresPrograms() {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}
