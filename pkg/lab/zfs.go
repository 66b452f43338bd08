package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// zfsStartTimeout bounds the start of ZFS with its pools, which takes a second.
const zfsStartTimeout = time.Minute

// zfsSpaceScript becomes zfs-fuse in a mount namespace of its own.
//
//go:embed zfs_space.sh
var zfsSpaceScript string

// ZFSOptions describe a ZFS in user space.
type ZFSOptions struct {
	// Dir is where everything lies; it is created, must be empty, and goes when the
	// lab stops. "" means a new directory below the system's temporary one; one in
	// memory, such as below /dev/shm, is several times faster.
	Dir string
	// Pools are there when it has started.
	Pools []ZFSPool
	Log   *slog.Logger
}

// ZFSPool describes a pool of sparse files.
type ZFSPool struct {
	// Name is also that of its directory.
	Name string
	// Mirror makes it of two files that hold the same, instead of one.
	Mirror bool
	// Size is that of each file in bytes; 0 means 256 MiB. ZFS wants 64 MiB.
	Size int64
}

// ZFS is a running zfs-fuse with pools of its own, which dies with this process.
// Any number may run: each has a mount namespace in which its socket, lock and
// cache stand in the only places that zfs-fuse knows, as if on a machine of its
// own. What it mounts below its directory is seen by everybody. Its methods are
// safe for concurrent use, but Restart and Stop must not run beside another.
type ZFS struct {
	// Dir is its directory, absolute and without links.
	Dir     string
	LogFile string

	pools    []ZFSPool
	programs zfsPrograms
	watchdog *watchdog
	mu       sync.Mutex
	daemon   *server
	stop     func() error
}

// zfsPrograms are the absolute paths of what a lab runs.
type zfsPrograms struct{ daemon, zpool, enter, unshare string }

func findZFS() (p zfsPrograms, err error) {
	for _, one := range []struct {
		name, pkg string
		path      *string
	}{
		{"zfs-fuse", "zfs-fuse", &p.daemon}, {"zpool", "zfs-fuse", &p.zpool},
		{"nsenter", "util-linux", &p.enter}, {"unshare", "util-linux", &p.unshare},
	} {
		if *one.path, err = findSystemProgram(one.name); err != nil {
			return p, fmt.Errorf("%s %w: run deploy/lab/install.sh as root, or `apt-get install %s`", one.name, ErrNotInstalled, one.pkg)
		}
	}
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		return p, fmt.Errorf("zfs-fuse mounts file systems (user %d, /dev/fuse: %v): run it as root where /dev/fuse is, in a container with --device /dev/fuse --cap-add SYS_ADMIN", os.Geteuid(), err)
	}
	return p, nil
}

// findSystemProgram looks where root's programs are too, which is not in
// everybody's PATH.
func findSystemProgram(name string) (string, error) {
	for _, at := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if found, err := exec.LookPath(at); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", exec.ErrNotFound
}

// StartZFS starts a zfs-fuse, makes its pools and returns when they are mounted.
// It needs root and /dev/fuse. ctx bounds the start only: it runs until Stop, or
// until this process ends. On error nothing is left running, or mounted.
func StartZFS(ctx context.Context, o ZFSOptions) (*ZFS, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	z := &ZFS{pools: o.Pools}
	var err error
	if z.programs, err = findZFS(); err != nil {
		return nil, fmt.Errorf("ZFS lab: %w", err)
	}
	if z.Dir, err = prepareDir(o.Dir, account{}); err != nil {
		return nil, fmt.Errorf("ZFS lab: %w", err)
	}
	z.LogFile = filepath.Join(z.Dir, "zfs-fuse.log")
	z.stop = sync.OnceValue(z.stopAll)
	ctx, cancel := context.WithTimeoutCause(ctx, zfsStartTimeout, errors.New("ZFS did not answer in "+zfsStartTimeout.String()))
	defer cancel()
	if err := z.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("ZFS lab in %s: %w", z.Dir, err), logTail(z.LogFile), z.Stop())
	}
	o.Log.Info("ZFS answers", "dir", z.Dir, "pid", z.PID())
	return z, nil
}

func (z *ZFS) begin(ctx context.Context) (err error) {
	// It is there before anything is mounted.
	if z.watchdog, err = startWatchdog(z.Dir, true, []string{z.Dir}); err != nil {
		return err
	}
	if err := z.startDaemon(ctx); err != nil {
		return err
	}
	for _, p := range z.pools {
		if err := z.createPool(ctx, p); err != nil {
			return fmt.Errorf("pool %s: %w", p.Name, err)
		}
	}
	return nil
}

// startDaemon starts zfs-fuse and waits until it takes commands. Its directory is
// mounted on itself first: a mount below a shared mount shows in every namespace
// that has it, so this process sees what zfs-fuse mounts there.
func (z *ZFS) startDaemon(ctx context.Context) error {
	if err := unix.Mount(z.Dir, z.Dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on itself: %w", z.Dir, err)
	}
	if err := unix.Mount("", z.Dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the mount %s: %w", z.Dir, err)
	}
	// sh and unshare become zfs-fuse in the end: it is one process, with one number.
	s, err := account{home: "/"}.start(z.programs.unshare, "/", z.LogFile, false,
		"--mount", "--propagation", "unchanged", "sh", "-c", zfsSpaceScript, "firedrill-lab-zfs", z.Dir, z.programs.daemon)
	if err != nil {
		return err
	}
	z.mu.Lock()
	z.daemon = s
	z.mu.Unlock()
	// Before it has its namespace, a command would reach the machine's own ZFS.
	socket := filepath.Join("/proc", strconv.Itoa(z.PID()), "root", "run/zfs/zfs_socket")
	return poll(ctx, "wait for zfs-fuse", 10*time.Millisecond, func() error {
		if s.over() {
			return &giveUp{errors.New("it ended at once")}
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", z.PID())); err != nil || filepath.Base(exe) != filepath.Base(z.programs.daemon) {
			return fmt.Errorf("its namespace is not made yet: it is still %s (%v)", exe, err)
		}
		if _, err := os.Stat(socket); err != nil {
			return err
		}
		return z.zpool(ctx, "list", "-H")
	})
}

func (z *ZFS) createPool(ctx context.Context, p ZFSPool) error {
	if p.Size == 0 {
		p.Size = 256 << 20
	}
	if err := os.MkdirAll(filepath.Join(z.Dir, "vdevs"), 0o700); err != nil {
		return err
	}
	args := []string{"create", "-m", z.Mountpoint(p.Name), p.Name}
	if p.Mirror {
		args = append(args, "mirror")
	}
	for _, file := range z.Vdevs(p.Name) {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(p.Size), f.Close()); err != nil {
			return err
		}
		args = append(args, file)
	}
	return z.zpool(ctx, args...)
}

// Mountpoint is where a pool of the lab is mounted. Its datasets are below it.
func (z *ZFS) Mountpoint(pool string) string { return filepath.Join(z.Dir, "mnt", pool) }

// Vdevs are the files that a pool of the lab is made of; none for an unknown one.
func (z *ZFS) Vdevs(pool string) []string {
	for _, p := range z.pools {
		if p.Name != pool {
			continue
		}
		first := filepath.Join(z.Dir, "vdevs", pool+"-0")
		if p.Mirror {
			return []string{first, filepath.Join(z.Dir, "vdevs", pool+"-1")}
		}
		return []string{first}
	}
	return nil
}

// Argv is the command that reaches the lab's ZFS: with zfs or zpool and their
// arguments appended it runs them there. It changes with every Restart.
func (z *ZFS) Argv() []string {
	return []string{z.programs.enter, "--mount", "--target", strconv.Itoa(z.PID()), "--"}
}

func (z *ZFS) zpool(ctx context.Context, args ...string) error {
	argv := append(z.Argv(), z.programs.zpool)
	return account{home: "/"}.run(ctx, "/", argv[0], append(argv[1:], args...)...)
}

// PID is the number of zfs-fuse's process, or of the last one if it ended.
func (z *ZFS) PID() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.daemon.cmd.Process.Pid
}

// zfsLabels is what the two labels at the start of a vdev, with the room for a
// boot block after them, take. Two more labels, of 256 KiB each, are at its end.
const zfsLabels = 4 << 20

// Damage inverts n bytes of a pool's file behind ZFS's back, from byte off of what
// comes after the labels on. Which file is by its place in Vdevs. ZFS may still
// have the right bytes in memory; a scrub reads the file.
func (z *ZFS) Damage(pool string, file int, off, n int64) (err error) {
	files := z.Vdevs(pool)
	if file < 0 || file >= len(files) || off < 0 || n < 0 {
		return fmt.Errorf("damage file %d of pool %q, %d bytes from %d: the pool has %d files, and none may be negative", file, pool, n, off, len(files))
	}
	f, err := os.OpenFile(files[file], os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("damage pool %s: %w", pool, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("damage pool %s: %w", pool, err)
	}
	if end := st.Size() - 512<<10; zfsLabels+off+n > end {
		return fmt.Errorf("damage pool %s: there are only %d bytes between the labels of %s", pool, end-zfsLabels, files[file])
	}
	buffer := make([]byte, 1<<20)
	for at, end := zfsLabels+off, zfsLabels+off+n; at < end; {
		part := buffer[:min(int64(len(buffer)), end-at)]
		if _, err := f.ReadAt(part, at); err != nil {
			return fmt.Errorf("damage pool %s: %w", pool, err)
		}
		for i := range part {
			part[i] = ^part[i]
		}
		if _, err := f.WriteAt(part, at); err != nil {
			return fmt.Errorf("damage pool %s: %w", pool, err)
		}
		at += int64(len(part))
	}
	return nil
}

// Restart kills zfs-fuse, as a crash of the machine would, starts it again and
// imports its pools. It returns when they are mounted; ctx bounds that only.
func (z *ZFS) Restart(ctx context.Context) error {
	err := z.kill()
	if err == nil {
		err = z.startDaemon(ctx)
	}
	if err == nil && len(z.pools) > 0 {
		// It was not exported, which import takes for being in use elsewhere.
		err = z.zpool(ctx, "import", "-f", "-a", "-d", filepath.Join(z.Dir, "vdevs"))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("ZFS lab in %s: restart: %w", z.Dir, err), logTail(z.LogFile))
	}
	return nil
}

// Stop kills zfs-fuse, whatever state it is in, unmounts all and removes the
// files. Later calls return the first one's error.
func (z *ZFS) Stop() error { return z.stop() }

func (z *ZFS) stopAll() error {
	err := z.kill()
	if z.watchdog != nil {
		z.watchdog.stop()
	}
	if err != nil {
		return fmt.Errorf("stop the ZFS lab: %w", err)
	}
	return os.RemoveAll(z.Dir)
}

// kill ends zfs-fuse and takes its mounts away, with the one that they are below.
func (z *ZFS) kill() error {
	z.mu.Lock()
	if z.daemon != nil {
		z.daemon.kill()
	}
	z.mu.Unlock()
	// Until none is there: a start that was broken off may have left several. What
	// somebody still uses goes when they leave it.
	for {
		err := unix.Unmount(z.Dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, syscall.EINVAL) { // it is no mount
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", z.Dir, err)
		}
	}
}
